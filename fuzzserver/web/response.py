"""The head of a response, with what each of them says to browsers: what may be done with it, and by whom."""

import re
from collections.abc import Iterable
from http import HTTPStatus

__all__ = ["Policy", "response_head"]


class Policy:
    """Content security policies: what a browser may do with an answer if it shows it."""

    _PAGE = "; ".join(
        (
            "default-src 'none'",
            "script-src 'self' 'wasm-unsafe-eval'",
            "style-src 'self'{}",
            "img-src 'self' data:",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    OWN_PAGE = _PAGE.format("") + "; require-trusted-types-for 'script'; trusted-types 'none'"
    """All that our own page needs. It makes no HTML of texts, so it needs no policy for Trusted Types."""
    FOREIGN_PAGE = _PAGE.format(" 'unsafe-inline'")
    """For pages such as Zig's, which have a style sheet in their HTML, and make HTML of texts."""
    BUILD_WEB_PAGE = FOREIGN_PAGE + "; script-src-attr 'unsafe-inline'"
    """For the page of Zig 0.15 and later, which besides has a script in each link to a source."""
    DATA = "default-src 'none'; frame-ancestors 'none'; sandbox"
    """For what is no page: sources, inputs, errors. Whatever is in them, it is nothing to run."""


_SAFETY = (
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("x-frame-options", "DENY"),
)
_NAME = re.compile(r"[a-z0-9-]+")
_VALUE = re.compile(r"[\x20-\x7e]*")


def response_head(status: HTTPStatus, headers: Iterable[tuple[str, str]], policy: str) -> bytes:
    """The head as it is sent. ValueError if a header could become two: no client puts any there."""
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    for name, value in (*headers, ("content-security-policy", policy), *_SAFETY):
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise ValueError(f"not a header: {name!r}: {value!r}")
        lines.append(f"{name}: {value}")
    return "\r\n".join((*lines, "", "")).encode("ascii")
