"""What all subcommands begin with: above all, that the page shows the program's own log."""

import argparse
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzzserver.arguments import make_parser
from fuzzserver.environment import serving, zig_of
from fuzzserver.errors import CompileErrors
from fuzzserver.webserver import WebServer
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.installation import Zig
from fuzzserver.zig.process import PipedChild
from tests.support_zig_fake import fake_zig
from tests.support_zig_sources import BROKEN


@pytest.fixture
def args(tmp_path: Path) -> argparse.Namespace:
    """As of the command line."""
    args = make_parser().parse_args(["attach", "x", "--cache-dir", str(tmp_path)])
    assert args.port == 0
    return args


@pytest.fixture
def our_log() -> Iterator[logging.Logger]:
    """The logger, at the level at which it is by default."""
    log = logging.getLogger("fuzzserver")
    before = log.level
    log.setLevel(logging.INFO)
    yield log
    log.setLevel(before)


def entries(web_server: WebServer) -> list[tuple[str, str, str]]:
    """Source, level and text of all that the page would show."""
    _, _, found = web_server.log_book.since(0)
    return [(entry.source, entry.level, entry.text) for entry in found]


def test_our_log_is_shown(args: argparse.Namespace, zig: Zig, our_log: logging.Logger) -> None:
    """From INFO on, for as long as the server runs, and also what follows an exception."""
    before = list(our_log.handlers)
    with serving(args, zig) as web_server:
        assert entries(web_server)[0] == (
            "fuzzserver",
            "info",
            f"hint: pass --port {web_server.port} to use this same port next time",
        )
        seen = len(entries(web_server))
        logging.getLogger("fuzzserver.fuzz.driver").warning("%d of %s", 3, "them")
        our_log.debug("details")
        logging.getLogger("fuzzserver.worker").error("what a worker wrote, and the page was told already")
        logging.getLogger("other").error("not ours")
        try:
            raise ValueError("boom")
        except ValueError:
            our_log.exception("it failed")
        warning, error = entries(web_server)[seen:]
        assert warning == ("fuzzserver", "warning", "3 of them")
        assert error[:2] == ("fuzzserver", "error")
        assert error[2].startswith("it failed\nTraceback ") and error[2].endswith("ValueError: boom")
    assert our_log.handlers == before
    count = len(entries(web_server))
    our_log.error("later")
    assert len(entries(web_server)) == count


def test_compiler_is_not_asked_in_the_main_thread(
    args: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_left: None
) -> None:
    """There, a signal could come between the start of it and the note of that."""
    threads = []
    start = PipedChild.__init__

    def note(self, *more) -> None:
        threads.append(threading.current_thread())
        start(self, *more)

    monkeypatch.setattr(PipedChild, "__init__", note)
    args.zig = str(fake_zig(tmp_path / "bin").path)
    assert zig_of(args).version == "0.14.1"
    assert threads and threading.main_thread() not in threads


@pytest.mark.parametrize("level", [logging.INFO, logging.ERROR])
def test_token_is_told_however_quiet(
    args: argparse.Namespace, zig: Zig, our_log: logging.Logger, level: int, capfd, caplog
) -> None:
    """Without it, nobody could come in. The page's log does not have it."""
    args.token = True
    our_log.setLevel(level)
    with serving(args, zig) as web_server:
        assert web_server.token is not None
        told = capfd.readouterr().err + caplog.text
        assert told.count(web_server.url) == 1
        assert web_server.token not in str(entries(web_server))


def test_compile_errors_are_those_of_zig(
    args: argparse.Namespace, client: ZigCompileClient, our_log: logging.Logger, tmp_path: Path
) -> None:
    """What the compiler says is shown once, as an error, with the compiler's name."""
    (tmp_path / "broken.zig").write_text(BROKEN)
    command = ["build-exe", "broken.zig", "--cache-dir", str(tmp_path / "cache")]
    with serving(args, client.zig) as web_server:
        with pytest.raises(CompileErrors) as caught:
            client.compile(command, tmp_path / "cache", tmp_path)
        told = [(level, text) for source, level, text in entries(web_server) if source == "zig"]
        assert told == [("error", str(caught.value).rstrip("\n"))]
        assert "broken.zig:5:5: error: use of undeclared" in told[0][1]


def test_server_of_others_hears_no_log_of_ours(zig: Zig, tmp_path: Path, our_log: logging.Logger) -> None:
    """Who embeds the server decides what is logged, and where."""
    with WebServer(zig=zig, cache_dir=tmp_path) as web_server:
        our_log.error("somebody else's")
        assert entries(web_server) == []
        web_server.add_log("a.zig", "said")
        web_server.add_log("a.zig", "broken", "error")
        assert entries(web_server) == [("a.zig", "info", "said"), ("a.zig", "error", "broken")]
