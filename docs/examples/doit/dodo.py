"""A build with doit (https://pydoit.org), in which fuzzing is a task as any other::

    pip install doit
    doit list --all          # program, test, fuzz:checksum, fuzz:depth
    doit                     # all of them
    doit fuzz:depth          # fuzz one test

A fuzz task is run when a source has changed. It fails if something is found, and the build with it; so it is
run again the next time. Its targets are its reports.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fuzzserver import (
    Budget,
    FuzzOptions,
    FuzzProject,
    FuzzServerError,
    FuzzSession,
    Observer,
    find_zig,
    judge,
    report_bytes,
    write_report,
)

SOURCES = Path(__file__).resolve().parent.parent / "src"
ALL_SOURCES = sorted(map(str, SOURCES.glob("*.zig")))
BUDGET = Budget(runs=100_000, time=60.0)
"""For each test: so many runs, for which a minute must do."""
REPORTS = {".info": "lcov", ".xml": "junit", ".json": "json"}
"""What is written beside each other, by the end of the name."""

DOIT_CONFIG = {"default_tasks": ["program", "test", "fuzz"]}


def task_program() -> dict[str, Any]:
    """Compile the program."""
    return {
        "actions": [[str(find_zig()), "build-exe", str(SOURCES / "main.zig"), "-femit-bin=depth"]],
        "file_dep": ALL_SOURCES,
        "targets": ["depth"],
    }


def task_test() -> dict[str, Any]:
    """Run the tests."""
    return {
        "actions": [[str(find_zig()), "test", str(SOURCES / "text.zig")]],
        "file_dep": ALL_SOURCES,
    }


def task_fuzz() -> Iterator[dict[str, Any]]:
    """Fuzz each test for a while."""
    for name in ("depth", "checksum"):
        yield {
            "name": name,
            "actions": [(fuzz, [name])],
            "file_dep": ALL_SOURCES,
            "targets": [f"{name}{ending}" for ending in REPORTS],
        }


def fuzz(name: str) -> bool:
    """Fuzz one test and write reports; False if something is wrong, which fails the task."""
    project = FuzzProject.of_root(SOURCES / "text.zig")
    options = FuzzOptions(jobs=1, tests=(f"*fuzz {name}",), budget=BUDGET, max_findings=1)
    try:
        with Observer() as observer, FuzzSession(project, options, observer) as session:
            session.ended.result()
            outcome = session.finish()
            observer.settle(60)
            report = observer.report(outcome.findings, outcome.seconds)
    except FuzzServerError as error:
        print(error)
        return False
    for ending, form in REPORTS.items():
        write_report(Path(f"{name}{ending}"), report_bytes(form, report))
    verdict = judge(outcome.judged(report))
    for reason in verdict.reasons:
        print(reason)
    return verdict.exit_code == 0
