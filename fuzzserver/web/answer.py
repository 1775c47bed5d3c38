"""What answers a request: content that is small enough to be made before it is sent, or an archive."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

__all__ = ["Answer", "Archive", "etag_of"]


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


@dataclass(frozen=True, slots=True)
class Archive:
    """A tar, made while it is sent. It may be large, and what goes into it may take time to find out."""

    write_to: Callable[[Callable[[bytes], object]], None]
    """Hands all of it, piece by piece, to a function."""
    headers: tuple[tuple[str, str], ...] = ()


def etag_of(content: bytes) -> str:
    """What stands for the content (RFC 9110, section 8.8.3)."""
    return f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
