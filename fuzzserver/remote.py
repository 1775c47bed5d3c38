"""Asking a server that runs, of this machine or of another, for what it knows."""

import http.client
import time
import urllib.error
import urllib.request
from urllib.parse import parse_qs, urlsplit

from fuzzserver.errors import InputError

__all__ = ["RemoteServer"]

MAX_ANSWER = 1 << 30
"""Bytes of an answer."""

MAX_TEXT = 300
"""Characters of what a server says of an error."""

PIECE = 1 << 20

PATIENCE = 300.0
"""Seconds for one answer, all in all: a page takes a compile."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """We have none, and where another server sends us, the token must not go."""

    def redirect_request(self, *_: object) -> None:
        """Take it for an error."""


class RemoteServer:
    """One server, by the address that it has printed, with its token if it has one."""

    def __init__(self, url: str) -> None:
        """InputError if that is no address."""
        try:
            parts = urlsplit(url)
            self._token = parse_qs(parts.query).get("token", [""])[0]
            # Nothing secret: this is what messages show.
            bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
            is_odd = not parts.hostname or parts.port == 0 or not url.isprintable() or " " in url
            if is_odd or parts.scheme not in ("http", "https"):
                raise ValueError
        except ValueError:
            raise InputError(
                "--url takes the address of a server as it was printed, such as http://127.0.0.1:8000/"
            ) from None
        self.address = bare._replace(path="").geturl()
        self._base = bare._replace(path=bare.path.rstrip("/")).geturl()
        # The address of this machine is for no proxy.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects)

    def get(self, path: str) -> bytes:
        """What it answers to a path. InputError says what went wrong."""
        address = f"{self._base}/{path}"
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            request = urllib.request.Request(address, headers=headers)
            with self._opener.open(request, timeout=PATIENCE) as response:
                return _read(response)
        except urllib.error.HTTPError as error:
            text = error.read(MAX_TEXT).decode(errors="replace").strip()
            raise InputError(f"'{address}' answers {error.code}: {text}") from error
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            why = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
            raise InputError(f"cannot get '{address}': {why}") from error


def _read(response: http.client.HTTPResponse) -> bytes:
    """The whole answer; ValueError if it is cut, too long, or comes too slowly."""
    deadline = time.monotonic() + PATIENCE
    data = bytearray()
    while piece := response.read1(PIECE):
        data += piece
        if len(data) > MAX_ANSWER:
            raise ValueError(f"the answer has more than {MAX_ANSWER >> 20} MiB")
        if time.monotonic() > deadline:
            raise ValueError(f"the answer is not there after {PATIENCE:g} s")
    if response.length:
        raise ValueError(f"the answer was cut: {response.length} bytes are missing")
    return bytes(data)
