"""What answers a request: content that is small enough to be made before it is sent, or an archive."""

import hashlib
from dataclasses import dataclass
from http import HTTPStatus

from fuzzserver.step import SourcePath

__all__ = ["Answer", "SourcesTar", "etag_of"]


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
class SourcesTar:
    """An archive that is made while it is sent."""

    paths: tuple[SourcePath, ...]


def etag_of(content: bytes) -> str:
    """What stands for the content (RFC 9110, section 8.8.3)."""
    return f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
