"""What functions are called in every build."""

import re

__all__ = ["stable_function_name"]

_NUMBERED = re.compile(r"__(?:anon|struct|enum|union|opaque)_\d+")


def stable_function_name(name: str) -> str:
    """A name without what Zig adds to instances of generic functions and to types without a name.

    The number in ``mem.eql__anon_123`` is counted anew in each build. All instances of a generic function
    get one name, since nothing else tells which is which.
    """
    return _NUMBERED.sub("", name)
