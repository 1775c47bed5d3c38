"""Reports and verdicts as people get them: ``run``, ``attach`` and ``report``, as processes."""

import itertools
import json
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fuzzserver.report.formats import report_bytes
from fuzzserver.report.json_form import read_report
from fuzzserver.report.model import totals
from tests import test_cli
from tests.projects import FuzzedPair, write_project
from tests.support_time import eventually
from tests.support_zig_cli import errors, run_cli, running
from tests.support_zig_sources import BROKEN, write

run_here = test_cli.run_here

ALL_FORMATS = ("lcov", "cobertura", "json", "junit", "sarif", "markdown", "html")


@pytest.fixture(scope="module")
def own_root(work: Path) -> Path:
    """A project that nobody else fuzzes meanwhile."""
    return write_project(work / "cli-reports")


def pair_args(pair: FuzzedPair) -> list[object]:
    """The arguments that report of ``pair``."""
    return ["report", "--executable", pair.executable, "--coverage", pair.coverage_file]


@pytest.fixture(scope="module")
def reported(debug_pair: FuzzedPair, zig_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a report in each form."""
    folder = tmp_path_factory.mktemp("reported")
    reports = itertools.chain.from_iterable(("--report", f"{name}=r.{name}") for name in ALL_FORMATS)
    done = run_cli(folder, *pair_args(debug_pair), *reports, "--cache-dir", zig_cache)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "verdict: clean (exit code 0)"
    return folder


class TestReport:
    """``report``: of files, of a cache, of a server."""

    def test_every_format(self, reported: Path) -> None:
        """Each is written, whole, and nothing else."""
        assert {path.name for path in reported.iterdir()} - {"xdg-cache"} == {
            f"r.{name}" for name in ALL_FORMATS
        }
        assert (reported / "r.html").stat().st_size < 5 << 20
        assert b"<script" in (reported / "r.html").read_bytes()

    def test_lines_are_those_of_llvm_symbolizer(self, reported: Path, debug_pair: FuzzedPair) -> None:
        """For every point; where that one knows no line, which it calls line 0, Zig takes the one before."""
        (target,) = json.loads((reported / "r.json").read_bytes())["targets"]
        ours = {
            location[1]: (os.path.normpath(file["name"]), location[2])
            for file in target["files"]
            for location in file["locations"]
        }
        assert len(ours) > 5000
        told = subprocess.run(
            ["llvm-symbolizer", "--obj", debug_pair.executable, "--no-inlines", "--output-style=JSON"],
            input="\n".join(map(hex, ours)),
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        theirs = {}
        for answer in map(json.loads, told.splitlines()):
            place = answer["Symbol"][0]
            theirs[int(answer["Address"], 16)] = (os.path.normpath(place["FileName"]), place["Line"])
        assert theirs.keys() == ours.keys()
        known = {address: place for address, place in theirs.items() if place[1] != 0}
        assert len(known) > len(ours) / 2
        assert known == {address: ours[address] for address in known}

    def test_stdout(self, debug_pair: FuzzedPair, tmp_path: Path) -> None:
        """One of them may go there; what it says besides goes to stderr."""
        done = run_cli(tmp_path, *pair_args(debug_pair), "--report", "json=-", "--include", "*/parser.zig")
        (target,) = json.loads(done.stdout)["targets"]
        assert [file["name"].rsplit("/", 1)[1] for file in target["files"]] == ["parser.zig"]
        assert target["points"] == target["files"][0]["points"]
        assert f"of {target['points']} points" in done.stderr

    def test_threshold(self, debug_pair: FuzzedPair, reported: Path, tmp_path: Path) -> None:
        """Both ways; it goes by the files that are reported."""
        rules = ("--include", "src/*", "--strip-prefix", debug_pair.executable.parents[3])
        part = json.loads(run_cli(tmp_path, *pair_args(debug_pair), *rules, "--report", "json=-").stdout)
        percent = 100 * part["covered"] / part["points"]
        assert 1 < percent < 99
        below = run_cli(tmp_path, *pair_args(debug_pair), *rules, "--fail-under", f"{percent + 0.01:.4f}%")
        assert below.returncode == 6
        assert "verdict: below threshold (exit code 6)" in below.stderr
        above = run_cli(tmp_path, *pair_args(debug_pair), *rules, "--fail-under", f"{percent - 0.01:.4f}")
        assert above.returncode == 0

    def test_baseline(self, debug_pair: FuzzedPair, reported: Path, tmp_path: Path) -> None:
        """What an earlier report has covered and this one has not is a regression, if that is asked for."""
        whole = read_report(reported / "r.json")
        (target,) = whole.targets
        points = target.points
        # It has a test that is no fuzz test, so that there is something that no fuzzer reaches.
        (file,) = [each for each in points.by_file if each.name.endswith("/src/main.zig")]
        seen = {points.lines[index] for index in file.indexes if points.covered[index]}
        missed = {points.lines[index] for index in file.indexes} - seen
        covered = bytearray(points.covered)
        for index in file.indexes:
            covered[index] = 1
        earlier = replace(target, points=replace(points, covered=bytes(covered)))
        (tmp_path / "earlier.json").write_bytes(report_bytes("json", replace(whole, targets=(earlier,))))
        args = [*pair_args(debug_pair), "--baseline", "earlier.json"]
        told = run_cli(tmp_path, *args)
        assert told.returncode == 0 and "no longer covered" in told.stderr
        failed = run_cli(tmp_path, *args, "--fail-on-regression", "--report", "json=now.json")
        assert failed.returncode == 7
        assert re.search(rf"/src/main\.zig:{min(missed)}\b", failed.stderr), failed.stderr
        verdict = json.loads((tmp_path / "now.json").read_bytes())["verdict"]
        assert (verdict["exit_code"], verdict["name"]) == (7, "regression")

    def test_summary_of_github_actions(
        self, debug_pair: FuzzedPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is added to what is there."""
        summary = tmp_path / "summary.md"
        summary.write_text("# Before\n")
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
        assert run_cli(tmp_path, *pair_args(debug_pair)).returncode == 0
        text = summary.read_text()
        assert text.startswith("# Before\n") and "clean" in text

    @pytest.mark.parametrize(
        ("args", "said"),
        [
            (["--report", "pdf=x"], "there is no report format 'pdf': choose one of lcov, cobertura,"),
            (["--report", "json"], "'json' names no file: give json=PATH, or json=- for stdout"),
            (["--report", "json=-", "--report", "lcov=-"], "two reports cannot be written to '-'"),
            (["--report", "json=x", "--report", "lcov=./x"], "two reports cannot be written to"),
            (["--report", "json=."], "cannot write a report to '.', which is a folder"),
            (["--executable", "/bin/true", "--coverage", "empty"], "is empty: no fuzzer has written it yet"),
            (["--fail-on-regression"], "--fail-on-regression needs something to compare with"),
            (["--baseline", "nowhere.json"], "cannot read report 'nowhere.json': No such file"),
            (["--fail-under", "101%"], "'101%' is no share: give a number from 0 to 100"),
            (["--fail-on", "crash,bug"], "'bug' is no kind of finding: give some of crash, hang, oom"),
            (["--executable", "a"], "--executable EXE and --coverage FILE belong together"),
            (["--url", "ftp://x/"], "--url takes the address of a server as it was printed"),
            (["--url", "http://127.0.0.1:1/"], "cannot get 'http://127.0.0.1:1/api/1/report': "),
            (["--url", "http://x/", "folder"], "give one of CACHE_DIR, --url, and --executable"),
            (["nowhere"], "cache folder 'nowhere' does not exist"),
            (["."], "nothing to report"),
        ],
    )
    def test_bad_arguments(
        self, args: list[str], said: str, tmp_path: Path, run_here: test_cli.RunHere
    ) -> None:
        """One line says what is wrong, before anything is done."""
        (tmp_path / "empty").write_bytes(b"")
        done = run_here(tmp_path, "report", *args)
        assert done.returncode == 2
        assert said in done.stderr
        assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
        assert "Traceback" not in done.stderr


class TestRun:
    """``run`` with budgets."""

    def test_clean(self, own_root: Path, zig_cache: Path, tmp_path: Path) -> None:
        """The report has what was done, and the cache has it for another."""
        done = run_cli(
            tmp_path, "run", own_root, "--no-web", "--runs-per-test", 20, "--cache-dir", zig_cache,
            "--report", "json=r.json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        whole = read_report(tmp_path / "r.json")
        assert whole.seconds is not None and whole.seconds > 0
        (target,) = whole.targets
        assert [test.name for test in target.tests] == ["main.test.fuzz sum", "main.test.fuzz depth"]
        assert all(test.runs >= 20 for test in target.tests) and not whole.findings
        assert whole.verdict is not None and whole.verdict.exit_code == 0
        sums = totals(whole.targets)
        assert 0 < sums.covered < sums.points
        again = run_cli(tmp_path, "report", own_root.parent.parent, "--report", "json=again.json")
        assert again.returncode == 0, again.stderr
        kept = next(
            each for each in read_report(tmp_path / "again.json").targets if each.points == target.points
        )
        assert {test.name for test in kept.tests} == {test.name for test in target.tests}

    def test_goal_that_is_not_reached(self, own_root: Path, zig_cache: Path, tmp_path: Path) -> None:
        """It ends when the time is over, with a code of its own."""
        done = run_cli(
            tmp_path, "run", own_root, "--no-web", "--time", "5s", "--runs", "1G",
            "--cache-dir", zig_cache, "--report", "json=r.json",
        )  # fmt: skip
        assert done.returncode == 5, done.stderr
        assert "The time of 5 s is over: " in done.stderr
        assert "of 1,000,000,000 runs were made" in done.stderr
        seconds = read_report(tmp_path / "r.json").seconds
        assert seconds is not None and seconds >= 5


class TestRunThatFails:
    """What is written when all is not well."""

    def test_build(self, zig_cache: Path, tmp_path: Path) -> None:
        """A build that fails has a verdict and reports, too: an old one must not stay for a new one."""
        write(tmp_path, broken=BROKEN)
        (tmp_path / "j.xml").write_text("old")
        done = run_cli(
            tmp_path, "run", "broken.zig", "--no-web", "--time", "1s", "--report", "junit=j.xml",
            "--cache-dir", zig_cache,
        )  # fmt: skip
        assert done.returncode == 4, done.stderr
        assert "verdict: build failed (exit code 4)" in done.stderr and "Traceback" not in done.stderr
        assert 'errors="1"' in (tmp_path / "j.xml").read_text()

    def test_report_that_cannot_be_written(self, debug_pair: FuzzedPair, tmp_path: Path) -> None:
        """The others are written, each error is told, and the verdict counts for more."""
        args = ("--report", "json=/dev/full", "--report", "lcov=r.info")
        done = run_cli(tmp_path, *pair_args(debug_pair), *args)
        assert done.returncode == 2
        assert errors(done.stderr) == ["error: cannot write report '/dev/full': No space left on device"]
        assert (tmp_path / "r.info").stat().st_size > 1000
        below = run_cli(tmp_path, *pair_args(debug_pair), *args, "--fail-under", "100")
        assert below.returncode == 6 and "cannot write report '/dev/full'" in below.stderr

    def test_nothing_is_left_by_the_rules(self, debug_pair: FuzzedPair, tmp_path: Path) -> None:
        """That is most often a mistake, and said."""
        done = run_cli(tmp_path, *pair_args(debug_pair), "--include", "src/*")
        assert "warning: no source file is left by --include and --exclude: names are like '/" in done.stderr


def test_report_of_a_server(own_root: Path, zig_cache: Path, tmp_path: Path) -> None:
    """While it fuzzes: with its token, in its own forms and as its page; others get none."""
    args = ("run", own_root, "--cache-dir", zig_cache, "--token", "--report", "json=end.json")
    with running(tmp_path, *args) as cli:
        url = cli.wait_for_line(r"listening at (\S+)")[1]

        def report(*more: str) -> "subprocess.CompletedProcess[str]":
            return run_cli(tmp_path, "report", "--url", url, *more)

        def covered() -> Any:
            done = report("--report", "json=-")
            return done.returncode == 0 and json.loads(done.stdout)["covered"]

        cli.wait_for_line("^info: fuzzing ")
        eventually(covered, "nothing is covered")
        assert report("--report", "html=r.html", "--report", "lcov=r.info").returncode == 0
        assert (tmp_path / "r.html").stat().st_size > 100_000
        assert "end_of_record" in (tmp_path / "r.info").read_text()
        refused = run_cli(tmp_path, "report", "--url", url.partition("?")[0], "--report", "json=-")
        assert refused.returncode == 2 and "answers 401" in refused.stderr
        assert cli.end() == 130
    verdict = read_report(tmp_path / "end.json").verdict
    assert verdict is not None and (verdict.exit_code, verdict.name) == (130, "stopped")
