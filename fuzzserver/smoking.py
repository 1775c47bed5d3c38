"""``smoke``: tries out whether all of it works here, with a line for each check and a verdict.

*Runs on* the main thread: a server and a fuzzing session, as ``run`` has them, and a client that asks for
all that there is.
"""

import argparse
import contextlib
import json
import logging
import os
import re
import shutil
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import TimeoutError as NotYet
from contextlib import closing
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar
from xml.etree import ElementTree

from fuzzserver import paths
from fuzzserver.console import printable
from fuzzserver.environment import cache_dir_of, zig_of
from fuzzserver.errors import FuzzServerError, InputError, ZigTimeout
from fuzzserver.exit_code import ExitCode
from fuzzserver.fuzz.options import FuzzOptions
from fuzzserver.fuzz_session import FuzzProject, FuzzSession
from fuzzserver.report.formats import FORMATS, HTML
from fuzzserver.report.json_form import report_from_json
from fuzzserver.smoke_client import Client, Deadline, Failed, Viewer
from fuzzserver.webserver import WebServer

__all__ = ["smoke"]

LIMIT = 55.0
"""Seconds for all checks. Stopping takes three more at most."""

LONGEST = 58.0
"""Seconds after which it ends whatever happens."""

LAST_END = 1.0
"""Seconds for what was started to end then. What is left of it, watchdogs end as soon as we are gone."""

POLL = 0.1
"""Seconds between two looks at what nobody tells."""

FOREIGN = "http://example.com"
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}

Result = TypeVar("Result")


def smoke(args: argparse.Namespace) -> int:
    """Try everything once. A compiler or a target that cannot be used is an error, and ends it."""
    if args.root is not None and args.build is not None:
        raise InputError("give ROOT.zig or --build FOLDER, not both")
    if args.log_level != "debug":  # Some requests are refused on purpose.
        logging.getLogger("fuzzserver.web").setLevel(logging.ERROR)
    checks = _Checks()
    guard = threading.Timer(LONGEST, _give_up, (checks,))
    guard.daemon = True
    guard.start()
    try:
        with tempfile.TemporaryDirectory(prefix="fuzzserver-smoke-", ignore_cleanup_errors=True) as folder:
            checks.folder = Path(folder)
            _check_all(args, checks, checks.folder)
    except Failed:
        pass  # It was told, and without it the rest cannot be tried.
    except FuzzServerError:
        if checks.failed:
            checks.say_verdict()
        raise
    finally:
        guard.cancel()
    checks.say_verdict()
    return ExitCode.FINDINGS if checks.failed else ExitCode.CLEAN


def _give_up(checks: "_Checks") -> None:
    """*Runs on* a thread of its own: whatever the others wait for."""
    with checks.speaking:  # For good: the main thread may go on now, and has nothing more to say.
        enders = [threading.Thread(target=end, daemon=True) for end in checks.ends]
        for thread in enders:
            thread.start()
        deadline = time.monotonic() + LAST_END
        for thread in enders:
            thread.join(max(0.0, deadline - time.monotonic()))
        if checks.folder is not None:
            shutil.rmtree(checks.folder, ignore_errors=True)
        checks.failed.append("the end")
        checks.say_verdict()
        os._exit(ExitCode.FINDINGS)


class _Checks:
    """What was checked so far, and how it went."""

    def __init__(self) -> None:
        self.deadline = Deadline(LIMIT)
        self.failed: list[str] = []
        self.folder: Path | None = None
        """Where temporary files are."""
        self.ends: tuple[Callable[[], None], ...] = ()
        """End what was started."""
        self.speaking = threading.RLock()
        """Held by who prints."""
        self._begun = time.monotonic()
        self._passed = 0

    def need(self, name: str, check: Callable[[], Result], note: Callable[[Result], object]) -> Result:
        """Check something without which nothing else can be: its error is raised."""
        begun = time.monotonic()
        try:
            result = check()
        except Exception as error:
            self.failed.append(name)
            self._say("FAIL", begun, name, error if str(error) else repr(error))
            raise
        self._passed += 1
        self._say("ok", begun, name, note(result))
        return result

    def run(self, name: str, check: Callable[[], object]) -> None:
        """Check something: it returns what is worth knowing, or raises if it is not as it should be."""
        with contextlib.suppress(Exception):  # It was told.
            self.need(name, check, str)

    def say_verdict(self) -> None:
        """The last line."""
        seconds = time.monotonic() - self._begun
        count = len(self.failed) + self._passed
        verdict = f"smoke: all is well: {count} checks in {seconds:.1f} s"
        if self.failed:
            names = ", ".join(self.failed)
            verdict = f"smoke: {len(self.failed)} of {count} checks failed in {seconds:.1f} s: {names}"
        self._print(verdict)

    def _say(self, verdict: str, begun: float, name: str, note: object) -> None:
        milliseconds = (time.monotonic() - begun) * 1000
        first, *_ = printable(str(note)).splitlines() or [""]
        self._print(f"{verdict:4} {milliseconds:7,.0f} ms  {name}  {first}".rstrip())

    def _print(self, line: str) -> None:
        with self.speaking:
            print(line, flush=True)


# ------------------------------------------------------------ the server and the session


def _check_all(args: argparse.Namespace, checks: _Checks, folder: Path) -> None:
    """Each of them in turn, on a server of our own."""
    threads = set(threading.enumerate())
    args.zig_timeout = min(args.zig_timeout, LIMIT)
    zig = checks.need("compiler", lambda: zig_of(args), lambda zig: f"{zig.version}, '{zig.path}'")
    args.cache_dir = args.cache_dir or folder / "cache"
    cache_dir = cache_dir_of(args)
    # Half of the processors are for whoever asks. What an earlier smoke has found is no news.
    options = FuzzOptions(jobs=max(1, (os.cpu_count() or 1) // 2), fresh=True)
    server = WebServer(zig=zig, cache_dir=cache_dir)
    with contextlib.ExitStack() as stack:
        project = _project(args, cache_dir / "smoke")
        session = FuzzSession(project, options, server, zig=zig, cache_dir=cache_dir)
        checks.ends = server.stop, session.stop
        for end in checks.ends:
            stack.callback(end)
        checks.need("server", server.start, lambda _: f"listens at {server.url}")
        client = Client(server.port, checks.deadline)
        # Beside the build, for each of them takes its time.
        ahead = threading.Thread(target=_ask_ahead, args=(client,), name="smoke-wasm", daemon=True)
        ahead.start()
        session.start()
        checks.need("build", partial(_built, checks.deadline, session), str)
        checks.need("first runs", partial(_first_runs, client), str)
        _check_page(checks, client)
        _check_data(checks, client)
        _check_reports(checks, client)
        _check_gate(checks, client)
        _check_viewer(checks, client)
        checks.run("stop", partial(_stopped, stack.close, {*threads, ahead}))


def _project(args: argparse.Namespace, cache_root: Path) -> FuzzProject:
    """What is fuzzed. All that comes of it is kept in a folder of our own."""
    cache_root.mkdir(exist_ok=True)
    if args.build is not None:
        project = FuzzProject.of_build(args.build, args.step)
    else:
        # With the time of the original: what was compiled must not look older than its source.
        project = FuzzProject.of_root(args.root or Path(shutil.copy2(paths.example(), cache_root)))
    return FuzzProject(
        cache_root,
        lambda zig, children: [
            replace(command, cache_root=cache_root) for command in project.find_commands(zig, children)
        ],
    )


def _built(deadline: Deadline, session: FuzzSession) -> str:
    """Wait for the build. What it does is logged meanwhile."""
    while session.started is None:
        try:
            session.ended.result(min(POLL, deadline.seconds_left))
        except NotYet:
            continue
        except Failed as error:
            raise ZigTimeout(
                f"{error}, and the build goes on: try again while the machine is less busy, or with "
                "--cache-dir FOLDER, where what is built is kept"
            ) from None
    tests = [test for target in session.targets for test in target.tests]
    return f"{_count(len(tests), 'fuzz test')} in {_count(len(session.targets), 'executable')}"


def _first_runs(client: Client) -> str:
    """Wait until the fuzzer has come somewhere."""
    while True:
        targets = client.get_json("/api/1/targets")["targets"]
        runs, covered, points = (
            sum(target[name] or 0 for target in targets) for name in ("runs", "covered", "points")
        )
        if runs and covered:
            return f"{_count(runs, 'run')}, {covered:,} of {_count(points, 'point')} covered"
        if client.deadline.seconds_left < 2 * POLL:
            tests = [f"'{test['name']}' {test['state']}" for target in targets for test in target["tests"]]
            raise Failed(f"{_count(runs, 'run')}, {_count(covered, 'point')} covered: {', '.join(tests)}")
        time.sleep(POLL)


def _stopped(stop: Callable[[], None], before: set[threading.Thread]) -> str:
    """End it all, and look whether anything lives on that was not there before."""
    stop()
    left = [f"thread '{thread.name}'" for thread in set(threading.enumerate()) - before]
    with contextlib.suppress(ChildProcessError):  # There is none.
        os.waitpid(-1, os.WNOHANG)
        left.append("a child process")
    if left:
        raise Failed(f"left behind: {', '.join(left)}")
    return "nothing is left behind"


# -------------------------------------------------------------------------- requests


def _ask_ahead(client: Client) -> None:
    with contextlib.suppress(Exception):  # The check will tell.
        client.ask("/main.wasm")


def _check_page(checks: _Checks, client: Client) -> None:
    """What a browser loads."""
    checks.run("/", lambda: _begins(client.get("/"), b"<!doctype html", "HTML"))
    html = client.ask("/")[1].decode(errors="replace")
    names = re.findall(r'(?:src|href)="(?:\./|/)?([a-z_]+\.(?:js|css))"', html)
    for name in dict.fromkeys(("main.js", *names)):
        checks.run(f"/{name}", lambda name=name: _size(client.get(f"/{name}")))  # type: ignore[misc]
    checks.run("/main.wasm", lambda: _begins(client.get("/main.wasm"), b"\0asm", "wasm"))
    checks.run("/sources.tar", lambda: _tar_note(client.get("/sources.tar")))


def _begins(body: bytes, beginning: bytes, what: str) -> str:
    """A note, if it does."""
    if not body.lower().startswith(beginning):
        raise Failed(f"this is no {what}: {body[:50]!r}")
    return f"{_size(body)} {what}"


def _size(body: bytes) -> str:
    if not body:
        raise Failed("it is empty")
    return f"{len(body) / 1024:,.0f} KB"


def _tar_note(body: bytes) -> str:
    with tarfile.open(fileobj=BytesIO(body)) as tar:
        return f"{_count(len(tar.getmembers()), 'file')}, {_size(body)}"


def _check_data(checks: _Checks, client: Client) -> None:
    """What the page and other programs ask for."""
    targets = client.get_json("/api/1/targets")["targets"]
    map_id = next(target["id"] for target in targets if target["points"])
    _check_json(checks, client, ("/targets.json", "/findings.json", "/corpus.json"))
    checks.run(f"/points/{map_id}", lambda: _begins(client.get(f"/points/{map_id}"), b"\x12", "points"))
    checks.run(f"/source/{map_id}/0", lambda: _size(client.get(f"/source/{map_id}/0")))
    checks.run("/metrics", lambda: _metrics_note(client.get("/metrics").decode()))
    findings = [each["id"] for each in client.get_json("/findings.json")["findings"]]
    routes = [route["path"].replace("ID", map_id) for route in client.get_json("/api/1")["routes"]]
    if findings:
        routes = [path.replace("FINDING", findings[0]) for path in routes]
    _check_json(checks, client, (path for path in routes if "FINDING" not in path and "FORMAT" not in path))


def _check_json(checks: _Checks, client: Client, routes: Iterable[str]) -> None:
    for path in routes:
        checks.run(path, lambda path=path: _json_note(client.get_json(path)))  # type: ignore[misc]


def _json_note(value: dict[str, Any]) -> str:
    lists = [f"{name}: {len(each):,}" for name, each in value.items() if isinstance(each, list)]
    return ", ".join(lists) or _count(len(value), "field")


def _metrics_note(text: str) -> str:
    lines = text.splitlines()
    if lines[-1] != "# EOF" or not any(line.startswith("fuzzserver_target_runs_total{") for line in lines):
        raise Failed(f"these are no metrics of a target: {text[:50]!r}")
    return _count(sum(not line.startswith("#") for line in lines), "value")


def _check_reports(checks: _Checks, client: Client) -> None:
    for name in (*FORMATS, HTML):
        checks.run(f"/report/{name}", lambda name=name: _report_note(client, name))  # type: ignore[misc]


def _report_note(client: Client, name: str) -> str:
    body = client.get(f"/report/{name}")
    if name == "json":
        report = report_from_json(json.loads(body))
        return f"{_size(body)}, {_count(len(report.targets), 'target')}"
    if name == "sarif":
        json.loads(body)
    elif name in ("cobertura", "junit"):
        ElementTree.fromstring(body)
    elif name == HTML:
        return _begins(body, b"<!doctype html", "HTML")
    return _size(body)


def _check_gate(checks: _Checks, client: Client) -> None:
    """Who is not to come in."""

    def refused(status: int, **headers: str) -> str:
        got, _ = client.ask("/targets.json", **headers)
        if got != status:
            raise Failed(f"answered with {got} instead of {status}")
        return str(got)

    checks.run("foreign Origin", partial(refused, 403, Origin=FOREIGN))
    checks.run("foreign Host", partial(refused, 421, Host="example.com"))
    checks.run("foreign WebSocket", partial(refused, 403, Origin=FOREIGN, **UPGRADE))


# ------------------------------------------------------------------------- WebSocket


def _check_viewer(checks: _Checks, client: Client) -> None:
    """What the page is told, as it happens."""
    with closing(Viewer(client.port, client.deadline)) as viewer:

        def opened() -> str:
            viewer.wait_for("the answer", lambda: viewer.accepted)
            return "is open"

        def message(kind: str) -> str:
            viewer.wait_for(kind, lambda: kind in viewer.kinds)
            return "has come"

        def state() -> str:
            viewer.wait_for("the state", lambda: {"state", "targets"} <= viewer.fields.keys())
            return f"{viewer.fields['state']}, {_count(len(viewer.fields['targets']), 'target')}"

        def runs() -> str:
            viewer.wait_for("another count", lambda: bool(viewer.runs) and viewer.runs[-1] > viewer.runs[0])
            return f"from {viewer.runs[0]:,} to {viewer.runs[-1]:,}"

        checks.run("WebSocket", opened)
        for kind in ("current_time", "source_index", "coverage_update", "entry_points", "history"):
            checks.run(f"WebSocket: {kind}", partial(message, kind))
        checks.run("WebSocket: state", state)
        checks.run("WebSocket: runs grow", runs)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
