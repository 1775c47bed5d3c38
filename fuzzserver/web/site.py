"""What is served: all that the answers to requests, and what viewers are told, are made of."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzzserver.corpus import Corpus
from fuzzserver.coverage.coverage_map import CoverageMap
from fuzzserver.coverage.queue import CoverageFiles
from fuzzserver.findings import FindingStore
from fuzzserver.logbook import LogBook
from fuzzserver.report.model import Report
from fuzzserver.step import SourcePath

__all__ = ["BuildWebPage", "Site"]


@dataclass(frozen=True, slots=True)
class BuildWebPage:
    """The page of Zig 0.15 or later, which is served beside ours."""

    folder: Path
    build_wasm: Callable[[str], Path]
    """As that of the site."""
    index_has_runs: bool
    """Whether it expects in the index how many runs there were at the start."""


@dataclass(frozen=True, slots=True)
class Site:
    """What is served. All callables are called on connection threads."""

    lib_dir: Path
    """The page's files lie in its ``fuzzer/web/``."""
    own_page: bool
    """Whether that is our page. Others may do what we forbid ours."""
    build_wasm: Callable[[str], Path]
    """Builds the page's wasm in an optimize mode, ``Debug`` or ``ReleaseSmall``."""
    sources: Callable[[], list[SourcePath]]
    coverage_files: CoverageFiles
    now: Callable[[], int]
    """The server's clock, in nanoseconds."""
    status: Callable[[], dict[str, Any]]
    """What goes on, for JSON: ``state``, ``text``, ``targets`` and ``findings``."""
    details: Callable[[CoverageMap | None], dict[str, Any]]
    """Further fields for clients that are shown this map, for JSON."""
    log_book: LogBook
    findings: Callable[[], FindingStore | None]
    corpora: Callable[[], list[Corpus]]
    report: Callable[[], Report]
    """All that is known now. It takes time and memory."""
    static_page: Callable[[], bytes]
    """The page with such a report inside."""
    build_web: BuildWebPage | None
    rebuild: Callable[[], None]
    """Has the tests built again. InputError says why they are not."""
