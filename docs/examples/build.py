"""A build script in plain Python, with a command that fuzzes::

    python build.py build            # compile the program
    python build.py test             # run its tests
    python build.py fuzz             # fuzz its tests, show a page meanwhile, write reports

`fuzz` exits as fuzzserver does: with 0 if all went well, 3 if something was found.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from fuzzserver import (
    Budget,
    Event,
    FindingEvent,
    FuzzOptions,
    FuzzProject,
    FuzzServerError,
    FuzzSession,
    StatusEvent,
    WebServer,
    find_zig,
    judge,
    report_bytes,
    write_report,
)

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "src"
OUT = HERE / "out"


def build() -> int:
    """Compile the program."""
    OUT.mkdir(exist_ok=True)
    return zig("build-exe", SOURCES / "main.zig", f"-femit-bin={OUT / 'depth'}")


def test() -> int:
    """Run the tests, the fuzz tests among them once."""
    return zig("test", SOURCES / "text.zig")


def zig(*args: str | Path) -> int:
    """Run the compiler that fuzzserver would use; returns its exit code."""
    return subprocess.run([find_zig(), *args], cwd=HERE, check=False).returncode


def fuzz(seconds: float, tests: tuple[str, ...]) -> int:
    """Fuzz for so long, or until something is found."""
    project = FuzzProject.of_root(SOURCES / "text.zig")
    options = FuzzOptions(tests=tests, budget=Budget(time=seconds), max_findings=1)
    with WebServer() as web_server, FuzzSession(project, options, web_server) as session:
        print(f"watch it at {web_server.url}", flush=True)
        web_server.subscribe(tell)
        session.ended.result()
        outcome = session.finish()
        web_server.settle(60)
        report = web_server.report(outcome.findings, outcome.seconds)
    OUT.mkdir(exist_ok=True)
    write_report(OUT / "coverage.info", report_bytes("lcov", report))
    write_report(OUT / "fuzz.xml", report_bytes("junit", report))
    verdict = judge(outcome.judged(report))
    print(f"{verdict.name} after {outcome.seconds:.0f} s; reports are in {OUT}")
    return verdict.exit_code


def tell(event: Event) -> None:
    """Print what people should know while it goes on. Called on a thread of the server."""
    match event:
        case FindingEvent(finding, is_new=True):
            print(f"found: {finding.message} in '{finding.test}' at {finding.place}", flush=True)
        case StatusEvent(status):
            print(status.text, flush=True)


def main() -> int:
    """Run a command; returns the exit code."""
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build")
    commands.add_parser("test")
    fuzzing = commands.add_parser("fuzz")
    fuzzing.add_argument("--seconds", type=float, default=10.0)
    fuzzing.add_argument("--test", action="append", default=[], metavar="GLOB")
    args = parser.parse_args()
    if args.command == "build":
        return build()
    if args.command == "test":
        return test()
    try:
        return fuzz(args.seconds, tuple(args.test))
    except FuzzServerError as error:  # No compiler, an error in the sources, a full disk.
        print(f"error: {error}", file=sys.stderr)
        return 4


if __name__ == "__main__":
    sys.exit(main())
