"""With which code the program ends."""

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """How the program ended, for scripts. Of several from 3 on, the lowest counts."""

    CLEAN = 0
    INTERNAL_ERROR = 1
    USAGE = 2
    FINDINGS = 3
    BUILD_FAILED = 4
    """Or a test could not be fuzzed."""
    BUDGET_NOT_MET = 5
    """The end came before what was asked for was reached."""
    BELOW_THRESHOLD = 6
    """Less is covered than ``--fail-under`` asks for."""
    REGRESSION = 7
    """Something that the baseline covers is not covered any more."""
    SIGINT = 130
    SIGTERM = 143
