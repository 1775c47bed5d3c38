"""The command line beside somebody else's fuzzer: ``attach``."""

import json
import signal
from pathlib import Path

from fuzzserver.wire.abi import CoverageUpdateHeader, EntryPointHeader, ToClientTag
from fuzzserver.zig.installation import Zig
from tests.projects import write_project, zig_web_server
from tests.support_time import WAIT
from tests.support_web import request, viewer
from tests.support_zig_children import is_alive
from tests.support_zig_cli import errors, messages_until, running


def test_zig_build_test_fuzz(zig: Zig, zig_cache: Path, work: Path, tmp_path) -> None:
    """``zig build test --fuzz`` shows up with its tests and grows; it does not notice who watches."""
    project = write_project(work / "project").parent.parent
    with zig_web_server(zig.path, project, zig_cache) as (_, zig_pid):
        with running(tmp_path, "attach", project, "--cache-dir", zig_cache) as cli:
            answer = cli.wait_for(
                "/targets.json",
                lambda answer: any(
                    target["state"] == "fuzzing" and len(target["tests"]) == 2 for target in answer["targets"]
                ),
            )
            (target,) = [target for target in answer["targets"] if target["state"] == "fuzzing"]
            assert target["name"] == "src/main.zig"
            assert {test["name"] for test in target["tests"]} == {
                "main.test.fuzz sum",
                "main.test.fuzz depth",
            }
            port, path = cli.port(), f"/?target={target['id']}"
            assert b"parser.zig" in messages_until(port, ToClientTag.SOURCE_INDEX, path=path)
            messages_until(
                port, ToClientTag.ENTRY_POINTS, lambda data: EntryPointHeader.parse(data).locs_len == 2, path
            )
            first = messages_until(port, ToClientTag.COVERAGE_UPDATE, path=path)
            messages_until(
                port,
                ToClientTag.COVERAGE_UPDATE,
                lambda data: (
                    CoverageUpdateHeader.parse(data).n_runs > CoverageUpdateHeader.parse(first).n_runs
                ),
                path,
            )
            assert b"fn fuzzDepth" in request(port, "/sources.tar").body
            assert cli.end(signal.SIGTERM) == 143
            assert errors(cli.text()) == []
        assert is_alive(zig_pid)


def test_nothing_there_yet(tmp_path) -> None:
    """A cache in which nobody has fuzzed is waited at, and Ctrl-C ends that."""
    (tmp_path / ".zig-cache").mkdir()
    with running(tmp_path, "attach", ".zig-cache") as cli:
        assert cli.get("/targets.json") == {"targets": []}
        with viewer(cli.port(), subprotocols=["fuzzserver"]) as web_socket:
            texts = (json.loads(message) for message in iter(lambda: web_socket.recv(WAIT), None)
                     if isinstance(message, str))  # fmt: skip
            status = next(
                text for text in texts if "Waiting for a fuzzer to write to" in text.get("text", "")
            )
        assert status["state"] == "waiting"
        assert str(tmp_path / ".zig-cache") in status["text"]
        assert cli.end() == 130
        assert errors(cli.text()) == []
