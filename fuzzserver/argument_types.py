"""What values of options may be, and how they are read. Each error says what would be right."""

import argparse
import re
from pathlib import Path

__all__ = [
    "address",
    "categories",
    "count",
    "duration",
    "large_count",
    "percent",
    "port",
    "report_path",
    "seconds",
]

_CATEGORIES = ("crash", "hang", "oom")
_FORMATS = ("lcov", "cobertura", "json", "junit", "sarif", "markdown", "html")


def address(text: str) -> int:
    """Decimal or ``0x`` hexadecimal, 64 bits."""
    try:
        value = int(text, 16) if text.lower().startswith("0x") else int(text, 10)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}' is no address: give a decimal or a 0x hexadecimal number"
        ) from None
    if not 0 <= value < 1 << 64:
        raise argparse.ArgumentTypeError(f"address '{text}' does not fit into 64 bits")
    return value


def port(text: str) -> int:
    """0 to 65535."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is no port: give a number from 0 to 65535")
    return int(text)


def seconds(text: str) -> float:
    """A number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"'{text}' is no time: give seconds, more than 0")
    return value


def duration(text: str) -> float:
    """Seconds of ``90``, ``90s``, ``5m``, ``1h30m``."""
    match = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", text, re.ASCII)
    hours, minutes, rest = (
        match.groups(default="0") if match is not None and len(text) < 20 else ("0", "0", "0")
    )
    value = 3600 * int(hours) + 60 * int(minutes) + float(rest)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no time: give seconds, or 90s, 5m, 1h30m")
    return value


def count(text: str) -> int:
    """A whole number, more than 0."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 31:
        raise argparse.ArgumentTypeError(f"'{text}' is no count: give a whole number, more than 0")
    return int(text)


def large_count(text: str) -> int:
    """The same, as ``5000``, ``50K``, ``1.5M`` or ``2G``."""
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,9})?)([KMG]?)", text, re.ASCII | re.IGNORECASE)
    value = 0.0 if match is None else float(match[1]) * 1000 ** " KMG".index(match[2].upper() or " ")
    if not 1 <= value < 1 << 63 or value != int(value):
        raise argparse.ArgumentTypeError(f"'{text}' is no count: give a whole number, or 50K, 1.5M, 2G")
    return int(value)


def percent(text: str) -> float:
    """A number from 0 to 100, with or without ``%``."""
    match = re.fullmatch(r"(\d{1,3}(?:\.\d{1,6})?)%?", text, re.ASCII)
    if match is None or float(match[1]) > 100:
        raise argparse.ArgumentTypeError(f"'{text}' is no share: give a number from 0 to 100, such as 40%")
    return float(match[1])


def categories(text: str) -> frozenset[str]:
    """Kinds of findings, with commas between; ``none`` for none at all."""
    chosen = frozenset() if text == "none" else frozenset(text.split(","))
    if unknown := sorted(chosen.difference(_CATEGORIES)):
        raise argparse.ArgumentTypeError(
            f"'{unknown[0]}' is no kind of finding: give some of {', '.join(_CATEGORIES)} with commas "
            "between, or none"
        )
    return chosen


def report_path(text: str) -> tuple[str, Path]:
    """``FORMAT=PATH``."""
    name, _, path = text.partition("=")
    if name not in _FORMATS:
        raise argparse.ArgumentTypeError(
            f"there is no report format '{name}': choose one of {', '.join(_FORMATS)}"
        )
    if not path:
        raise argparse.ArgumentTypeError(f"'{text}' names no file: give {name}=PATH, or {name}=- for stdout")
    return name, Path(path)
