"""What answers a request: content that is made before it is sent, at once or one at a time, or an archive."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

__all__ = ["Answer", "Archive", "Heavy", "Sink", "etag_of"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request."""

    content_type: str
    content: bytes
    headers: tuple[tuple[str, str], ...] = ()
    status: HTTPStatus = HTTPStatus.OK
    is_page: bool = False
    """Whether it is a part of the page, and not what the page shows."""
    etag: str = ""
    """Of the content, if it is known already."""


class Sink(Protocol):
    """Where an archive goes, piece by piece."""

    def write(self, data: bytes) -> object:
        """Send some bytes."""

    def send_file(self, file: int, size: int) -> None:
        """Send the first ``size`` bytes of an open file, which stays as it is meanwhile."""


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar. It may be large, and what goes into it may take time to find out."""

    write_to: Callable[[Sink], None]
    """Sends all of it."""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Heavy:
    """What takes time and memory to make: a report. One is made at a time."""

    make: Callable[[], Answer]


def etag_of(content: bytes) -> str:
    """What stands for the content (RFC 9110, section 8.8.3)."""
    return f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
