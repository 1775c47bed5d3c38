"""What a careless server would do in place of what ours does, for the time of a test.

The product knows nothing of this: all of it is put in from outside.
"""

import logging
import mmap
import os
import re
import socket
import stat
from collections.abc import Callable, Container
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from wsproto.events import AcceptConnection
from wsproto.extensions import PerMessageDeflate

from fuzzserver.coverage.seen_pcs import SeenPcs
from fuzzserver.web import connection, gate, handshake, head, response, source_files, sources_tar
from fuzzserver.web.connection import Connection
from fuzzserver.web.gate import Gate
from fuzzserver.web.head import HeadBuffer, RequestHead
from fuzzserver.web.response import Policy
from fuzzserver.web.server import HttpServer
from fuzzserver.web.source_files import SourceFolders
from fuzzserver.web.web_socket import WebSocket

SwitchOff = Callable[[pytest.MonkeyPatch], None]

# ---------------------------------------------------------------------- what many need


def put(target: str, value: object) -> SwitchOff:
    """Put ``value`` in a place below ``fuzzserver``."""
    return lambda patch: patch.setattr(f"fuzzserver.{target}", value)


def limits(**others: float) -> SwitchOff:
    """Servers have these limits, whatever they are told."""

    def switch_off(patch: pytest.MonkeyPatch) -> None:
        init = HttpServer.__init__
        patch.setattr(
            HttpServer,
            "__init__",
            lambda self, entrance, site, limits: init(self, entrance, site, replace(limits, **others)),
        )

    return switch_off


def header_values(change: Callable[[str, list[str]], list[str]]) -> SwitchOff:
    """Something else is seen in the headers of requests than there is."""

    def switch_off(patch: pytest.MonkeyPatch) -> None:
        values = RequestHead.values
        patch.setattr(RequestHead, "values", lambda self, name: change(name, values(self, name)))

    return switch_off


def not_seen(unseen: str) -> SwitchOff:
    """A header of requests is not looked at."""
    return header_values(lambda name, values: [] if name == unseen else values)


def mended(pattern: bytes, good: bytes) -> SwitchOff:
    """Requests are mended before they are looked at."""

    def switch_off(patch: pytest.MonkeyPatch) -> None:
        feed = HeadBuffer.feed
        patch.setattr(HeadBuffer, "feed", lambda self, data: feed(self, re.sub(pattern, good, data)))

    return switch_off


def without_header(name: str) -> SwitchOff:
    """Responses lack a header."""

    def switch_off(patch: pytest.MonkeyPatch) -> None:
        whole = response.response_head
        line = re.compile(rb"%b: [^\r]*\r\n" % name.encode())
        patch.setattr(connection, "response_head", lambda *args: line.sub(b"", whole(*args)))

    return switch_off


# ---------------------------------------------------------------------- the gate


def any_port(patch: pytest.MonkeyPatch) -> None:
    """A host is ours, whatever its port."""
    patch.setattr(Gate, "_is_own", lambda self, name, port: name in {host for host, _ in self._own})


def hosts_by_their_beginning(patch: pytest.MonkeyPatch) -> None:
    """A host is ours if it begins like one of ours."""

    def is_ours(self: Gate, text: str) -> bool:
        return any(text.lower().startswith(host) for host, _ in self._own)

    patch.setattr(Gate, "_is_ours", is_ours)


def no_authority(patch: pytest.MonkeyPatch) -> None:
    """A host in the target is ignored."""
    split = head._split_target
    patch.setattr(head, "_split_target", lambda *args: (None, *split(*args)[1:]))


class _Everything(Container[object]):
    """Holds whatever is looked for."""

    def __contains__(self, _: object) -> bool:
        return True


def links_to_everything(patch: pytest.MonkeyPatch) -> None:
    """Other pages may lead anywhere."""
    patch.setattr(gate, "PAGE_PATHS", _Everything())


def ungated_upgrades(patch: pytest.MonkeyPatch) -> None:
    """WebSockets go past the gate."""
    serve = Connection._serve

    def go_past(self: Connection, request: RequestHead) -> None:
        if request.upgrades:
            self._serve_web_socket(request)
        else:
            serve(self, request)

    patch.setattr(Connection, "_serve", go_past)


def no_token(patch: pytest.MonkeyPatch) -> None:
    """Gates want none."""
    init = Gate.__init__
    patch.setattr(Gate, "__init__", lambda self, **options: init(self, **{**options, "token": None}))


def plain_compare(patch: pytest.MonkeyPatch) -> None:
    """The first wrong letter of a token ends the comparison."""
    patch.setattr(Gate, "_is_token", lambda self, text: text == self._token)


def readable_cookie(patch: pytest.MonkeyPatch) -> None:
    """Scripts may read the cookie."""
    cookie = Gate.cookie
    patch.setattr(Gate, "cookie", lambda *args: (cookie(*args) or "").replace("; HttpOnly", "") or None)


def logged_targets(patch: pytest.MonkeyPatch) -> None:
    """The log holds what was asked for as it was sent, with the query."""
    answer = Connection._answer

    def log_and_answer(self: Connection, request: RequestHead) -> None:
        logging.getLogger("fuzzserver").debug("%s", request.target)
        answer(self, request)

    patch.setattr(Connection, "_answer", log_and_answer)


# ---------------------------------------------------------------------- answers


def data_like_pages(patch: pytest.MonkeyPatch) -> None:
    """What is shown may do what the page may."""
    patch.setattr(Policy, "DATA", Policy.OWN_PAGE)


def for_all_origins(patch: pytest.MonkeyPatch) -> None:
    """Scripts of all pages may read answers."""
    allowed = ("access-control-allow-origin", "*")
    patch.setattr(response, "_SAFETY", (*response._SAFETY, allowed))


# ---------------------------------------------------------------------- requests and connections


def one_of_several(patch: pytest.MonkeyPatch) -> None:
    """Of a header that comes twice, the first one counts."""
    patch.setattr(RequestHead, "value", lambda self, name: (self.values(name) or [None])[0])


def deadline_of_each_byte(patch: pytest.MonkeyPatch) -> None:
    """Who sends something has all its time again: enough of it for a client that a busy machine holds up."""

    def receive(self: Connection, _: float) -> bytes:
        self.request.settimeout(4.0)
        return self.request.recv(connection.READ_BYTES)

    patch.setattr(Connection, "_receive", receive)


def open_after_refusal(patch: pytest.MonkeyPatch) -> None:
    """Who was turned away may go on."""
    patch.setattr(
        Connection,
        "_refuse",
        lambda self, status, text, *headers: self._send(self.server.routes.refusal(status, text, *headers)),
    )


def told_resets(patch: pytest.MonkeyPatch) -> None:
    """The log tells of each client that goes away."""
    tell = logging.getLogger("fuzzserver").exception
    patch.setattr(HttpServer, "handle_error", lambda *_: tell("a client has gone"))


def parts_that_wait(patch: pytest.MonkeyPatch) -> None:
    """Another option of the socket is set in place of the right one."""
    patch.setattr(connection.socket, "TCP_NODELAY", socket.TCP_KEEPCNT)


# ---------------------------------------------------------------------- WebSockets


def offered_deflate(patch: pytest.MonkeyPatch) -> None:
    """Viewers may send what becomes a thousand times as long."""
    patch.setattr(handshake, "AcceptConnection", partial(AcceptConnection, extensions=[PerMessageDeflate()]))


def patience_with_silence(patch: pytest.MonkeyPatch) -> None:
    """Clients are asked whether they are there, and need not answer."""
    check = WebSocket._check_alive

    def ask(self: WebSocket) -> None:
        if self._pinged_at is None:
            check(self)

    patch.setattr(WebSocket, "_check_alive", ask)


def cut_off(patch: pytest.MonkeyPatch) -> None:
    """At the end, viewers are not told that it is one."""
    patch.setattr(WebSocket, "stop", lambda self: self._connection.shutdown(socket.SHUT_RDWR))


# ---------------------------------------------------------------------- files


def mapped_coverage(patch: pytest.MonkeyPatch) -> None:
    """Coverage files are mapped and not read."""
    maps: dict[int, mmap.mmap] = {}

    def read(self: SeenPcs, size: int, offset: int) -> bytes:
        if self._fd not in maps:
            maps[self._fd] = mmap.mmap(self._fd, 0, prot=mmap.PROT_READ)
        return maps[self._fd][offset : offset + size]

    patch.setattr(SeenPcs, "_pread", read)


def opened_by_name(patch: pytest.MonkeyPatch) -> None:
    """A source is looked at, and then opened anew by its name."""
    find = SourceFolders.open

    def find_and_open(self: SourceFolders, location: str) -> int:
        os.close(find(self, location))
        return os.open(location, os.O_RDONLY)

    patch.setattr(SourceFolders, "open", find_and_open)


def any_kind_of_file(patch: pytest.MonkeyPatch) -> None:
    """Pipes and folders count as sources."""
    patch.setattr(source_files, "stat", SimpleNamespace(S_ISREG=stat.S_IFMT))


def whole_files_in_archives(patch: pytest.MonkeyPatch) -> None:
    """An archive holds all that is read, however long the file was when it was looked at."""

    def write_file(path: Any, file: Any, status: os.stat_result, write: Callable[[bytes], object]) -> None:
        name = os.fsencode(path.root_dir), os.fsencode(path.sub_path)
        write(sources_tar.tar_header(*name, status.st_size, status.st_mtime))
        data = file.read()
        write(data + bytes(-len(data) % sources_tar.BLOCK))

    patch.setattr(sources_tar, "_write_file", write_file)


def without_flag(name: str) -> SwitchOff:
    """Files are opened without a flag of open(2)."""
    return lambda patch: patch.setattr(os, name, 0)
