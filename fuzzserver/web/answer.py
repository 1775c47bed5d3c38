"""The answer to one request that is small enough to be made before it is sent."""

from dataclasses import dataclass
from http import HTTPStatus

__all__ = ["Answer"]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request."""

    content_type: str
    content: bytes
    headers: tuple[tuple[str, str], ...] = ()
    status: HTTPStatus = HTTPStatus.OK
