"""What is done once for all viewers, and what one of them cannot do to the others."""

import json
import logging
import threading
import time
from dataclasses import replace

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import ClientConnection

from fuzzserver import WebServer
from fuzzserver.coverage.coverage_map import CoverageMap
from fuzzserver.web import hub, session
from fuzzserver.web.session import Moment
from fuzzserver.wire.abi import coverage_file_name
from tests.projects import FuzzedPair
from tests.support_maps import show_map
from tests.support_time import eventually
from tests.support_web import viewer, watch

OURS = {"subprotocols": ["fuzzserver"]}


def tags_until(connection: ClientConnection, tag: int) -> list[int]:
    """The tags of the binary messages, up to the first with this one."""
    tags: list[int] = []
    while tags[-1:] != [tag]:
        message = connection.recv(60)
        if isinstance(message, bytes):
            tags.append(message[0])
    return tags


def test_many_are_told_what_was_made_once(
    web_server: WebServer, debug_pair: FuzzedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever they came: what is new is looked up and put into frames once for all of them."""
    show_map(web_server, debug_pair.step, debug_pair.coverage_id)
    made, reads = [], []
    speak, read = Moment._speak, CoverageMap.read
    with (
        viewer(web_server.port) as first,
        viewer(web_server.port) as second,
        viewer(web_server.port) as third,
    ):
        viewers = (first, second, third)
        for each in viewers:
            watch(each, "coverage_update")
        # The look after that finds nothing new, and those who have been told the same are equal.
        monkeypatch.setattr(Moment, "_speak", lambda self, told: made.append(self) or speak(self, told))
        # The history looks, too, on a thread of its own.
        monkeypatch.setattr(
            CoverageMap,
            "read",
            lambda self: reads.append(threading.current_thread().name) or read(self),
        )
        web_server.coverage_files.get(debug_pair.coverage_id).entry_points = (1, 2)
        web_server.notify()
        for each in viewers:
            assert watch(each, "entry_points").entry_points
    assert made
    assert len(made) == len(set(made))
    assert reads.count("hub") <= len(made)


def test_nobody_looks_while_nobody_watches(
    web_server: WebServer, debug_pair: FuzzedPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread sleeps; it keeps nothing of what it has told."""
    monkeypatch.setattr(hub, "UPDATE_INTERVAL", 0.01)
    show_map(web_server, debug_pair.step, debug_pair.coverage_id)
    looks = []
    read = Moment._snapshot
    monkeypatch.setattr(
        Moment, "_snapshot", lambda self, coverage_map: looks.append(1) or read(self, coverage_map)
    )
    with viewer(web_server.port) as connection:
        watch(connection, "coverage_update")
        eventually(lambda: len(looks) > 5, "nobody looks")
    http_server = web_server._http_server
    eventually(lambda: not http_server._sessions and not http_server.hub._moment._speeches, "it goes on")
    before = len(looks)
    time.sleep(0.3)  # The time is what is tested: thirty looks.
    assert len(looks) == before


def test_index_that_a_page_has_is_not_sent_again(
    web_server: WebServer, debug_pair: FuzzedPair, safe_pair: FuzzedPair
) -> None:
    """A page that comes back names what it has kept, and gets the rest."""
    coverage_map = show_map(web_server, replace(debug_pair.step, key="a"), debug_pair.coverage_id)
    with viewer(web_server.port, **OURS) as connection:
        texts = [message for message in connection_until_index(connection) if isinstance(message, str)]
        told = [json.loads(text)["map"]["index"] for text in texts if "map" in json.loads(text)]
    assert told == [coverage_map.index_id]
    with viewer(web_server.port, f"/?index={told[0]}", **OURS) as connection:
        assert tags_until(connection, 17) == [0, 2, 17]
        # Another build of what it looks at is sent whole.
        show_map(web_server, replace(safe_pair.step, key="a"), safe_pair.coverage_id)
        assert [tag for tag in tags_until(connection, 17) if tag != 16] == [1, 2, 17]
    for other in ("0" * 16, "", "%00", "../" * 100):
        path = f"/?target={coverage_file_name(debug_pair.coverage_id)}&index={other}"
        with viewer(web_server.port, path, **OURS) as connection:
            assert tags_until(connection, 17) == [0, 1, 2, 17]
    # A map that is not the one whose index it has.
    path = f"/?target={coverage_file_name(safe_pair.coverage_id)}&index={told[0]}"
    with viewer(web_server.port, path, **OURS) as connection:
        assert tags_until(connection, 17) == [0, 1, 2, 17]


def connection_until_index(connection: ClientConnection) -> list[str | bytes]:
    """All messages up to the index."""
    messages = [connection.recv(60)]
    while messages[-1][0] != 1:
        messages.append(connection.recv(60))
    return messages


def test_fault_harms_those_who_would_be_told(
    web_server: WebServer,
    debug_pair: FuzzedPair,
    safe_pair: FuzzedPair,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Something wrong with one map ends the connections of those who look at it, with a reason."""
    debug_map = show_map(web_server, replace(debug_pair.step, key="a"), debug_pair.coverage_id)
    show_map(web_server, replace(safe_pair.step, key="b"), safe_pair.coverage_id)
    update = session.coverage_update_message
    faulty = debug_map.read().seen_bits

    def fail(snapshot):
        if snapshot.seen_bits == faulty:
            raise RuntimeError("a fault of ours")
        return update(snapshot)

    monkeypatch.setattr(session, "coverage_update_message", fail)
    path = f"/?target={coverage_file_name(safe_pair.coverage_id)}"
    with viewer(web_server.port, path) as good, viewer(web_server.port) as bad:
        watch(good, "coverage_update")
        with pytest.raises(ConnectionClosedError) as caught:
            while True:
                bad.recv(60)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1011
        assert good.ping().wait(60)
        web_server.coverage_files.get(safe_pair.coverage_id).entry_points = (1,)
        web_server.notify()
        watch(good, "entry_points")
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
