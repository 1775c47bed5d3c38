"""The project that ``zig init`` makes, with each release of Zig: what a newcomer tries first."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuzzserver.wire.abi import CoverageUpdateHeader, EntryPointHeader, SourceIndexHeader, ToClientTag
from tests.support_web import request
from tests.support_zig_cli import Cli, errors, messages_until, run_cli, running
from tests.zigs import VERSIONS, every_zig, zig_init_project, zig_of

TEST = "main.test.fuzz example"

newest_zig = pytest.mark.parametrize(
    "version",
    [
        pytest.param(version, marks=() if version == VERSIONS[-1] else pytest.mark.all_zigs)
        for version in VERSIONS
    ],
)
"""As ``every_zig``, for what another test shows of the pinned version: ``test_cli_attach.py``."""


@every_zig
def test_run(version: str, zig_cache: Path, tmp_path) -> None:
    """Unchanged, it is instrumented and shown, and the bug in it is found, kept, reproduced and judged."""
    report = tmp_path / "report.json"
    common = ("--zig", zig_of(version).path, "--cache-dir", zig_cache)
    with zig_init_project(version) as project:
        with running(project, "run", "--report", f"json={report}", *common) as cli:
            check_page(cli)
            findings = cli.wait_for(
                "/findings.json", lambda answer: any(each["reproduces"] for each in answer["findings"])
            )["findings"]
            found = next(each for each in findings if each["reproduces"])
            # A comparison fails, or memory is read that was given back.
            assert (found["test"], found["kind"] in ("error", "signal")) == (TEST, True)
            detail = cli.get(f"/findings/{found['id']}.json")
            assert "testOne" in detail["stack"]
            assert detail["input_size"] == len(request(cli.port(), f"/findings/{found['id']}.input").body)
            assert cli.end() == 3
            assert cli.descendants() == []
            assert [line for line in errors(cli.text()) if " finding " not in line] == []
        told = json.loads(report.read_text())
        assert told["verdict"]["exit_code"] == 3
        assert found["id"] in [finding["id"] for finding in told["findings"]]
        (target,) = [target for target in told["targets"] if target["name"] == "src/main.zig"]
        assert [test["name"] for test in target["tests"]] == [TEST]
        assert 0 < target["covered"] < target["points"]

        done = run_cli(project, "repro", found["id"], *common)
        assert done.returncode == 3, done.stderr
        assert "testOne" in done.stderr
        is_of_smith = found["form"] == "smith"
        assert is_of_smith == (version >= "0.16")
        assert ("values that std.testing.Smith makes of them" in done.stderr) == is_of_smith


@newest_zig
def test_attach(version: str, zig_cache: Path, tmp_path) -> None:
    """``zig build test --fuzz`` is shown as it goes on, in a project that is changed so that it fuzzes."""
    with zig_init_project(version) as project:
        build = project / "build.zig"
        build.write_text(build.read_text().replace("b.addTest(.{", "b.addTest(.{ .use_llvm = true,"))
        with own_fuzzer(version, project, tmp_path / "zig.log"):
            args = ("attach", project, "--zig", zig_of(version).path, "--cache-dir", zig_cache)
            with running(tmp_path, *args) as cli:
                cli.wait_for(
                    "/targets.json",
                    lambda answer: (
                        [
                            (target["name"], [test["name"] for test in target["tests"]])
                            for target in answer["targets"]
                        ]
                        == [("src/main.zig", [TEST])]
                    ),
                )
                check_page(cli)
                assert cli.end(signal.SIGTERM) == 143
                assert errors(cli.text()) == []


def check_page(cli: Cli) -> None:
    """A page is sent where in the sources the points are, those of the fuzz test, and what was reached."""
    port = cli.port()
    index = messages_until(port, ToClientTag.SOURCE_INDEX)
    assert SourceIndexHeader.parse(index).source_locations_len > 1000
    assert b"main.zig" in index
    messages_until(port, ToClientTag.ENTRY_POINTS, lambda data: EntryPointHeader.parse(data).locs_len == 1)
    messages_until(
        port, ToClientTag.COVERAGE_UPDATE, lambda data: CoverageUpdateHeader.parse(data).n_runs > 0
    )
    assert b'test "fuzz example"' in request(port, "/sources.tar").body


@contextmanager
def own_fuzzer(version: str, project: Path, log: Path) -> Iterator[None]:
    """``zig build test --fuzz``; that of 0.16 does not compile fuzz tests in Debug."""
    argv = [str(zig_of(version).path), "build", "test", "--fuzz"]
    if version == "0.16.0":
        argv.append("-Doptimize=ReleaseSafe")
    with log.open("wb") as stderr:
        process = subprocess.Popen(argv, cwd=project, stderr=stderr, start_new_session=True)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
