"""Who may come in, and how many: what is told the server once, when it is made."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["DEFAULT_ACCESS", "DEFAULT_LIMITS", "Access", "Limits"]


@dataclass(frozen=True, slots=True)
class Access:
    """Who may come in."""

    token: bool = False
    """Whether a secret is needed. Without it every local user and program may come in, but no web page. Where
    other machines can reach the server, it is always needed."""
    allow_hosts: tuple[str, ...] = ()
    """Further names under which browsers reach the server, ``NAME`` or ``NAME:PORT``."""
    tls_cert: Path | None = None
    """PEM file with the certificate, and those that it depends on; with it, only HTTPS is spoken."""
    tls_key: Path | None = None
    """PEM file with its key; None if it is in the file of the certificate."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many, how much and how long. Whoever is over a limit is told so, and nobody else notices."""

    connections: int = 1100
    """At once, of any kind. Each has a thread, and about 50 KB of memory."""
    viewers: int = 1000
    """WebSockets at once: the rest of the connections is for requests."""
    archives: int = 8
    """Downloads of ``sources.tar`` at once, which read many files."""
    reports: int = 4
    """Downloads of reports at once, which may be large."""
    head_seconds: float = 5.0
    """From a request's first byte to the end of its head; and how long the first byte is waited for."""
    body_seconds: float = 5.0
    """For a request's body."""
    write_seconds: float = 5.0
    """For each 64 KiB of an answer: a client that reads more slowly is dropped."""
    message_bytes: int = 4096
    """Of a WebSocket message from a viewer, in all its parts. Viewers have nothing to say."""
    messages_per_second: float = 50.0
    """WebSocket frames from a viewer; twice as many may come at once."""


DEFAULT_ACCESS = Access()
DEFAULT_LIMITS = Limits()
