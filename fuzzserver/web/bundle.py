"""The scripts of the page as one: to a browser, forty small modules are far more work than their bytes.

*Runs on* connection threads. *Takes* modules that import and export in the few forms that our page has.
*Gives* one module, in which each of them is a function that has run once.
"""

import re
import threading
import time
from pathlib import Path

from fuzzserver.files import read_regular
from fuzzserver.freshness import SETTLED_NS, Stamps

__all__ = ["Bundle", "join_modules"]

MAX_MODULE = 1 << 20
"""Bytes of one module."""

_IMPORT = re.compile(r'^import (?:(\{[^}]*\})|\* as (\w+)) from "\./([\w-]+\.js)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) (\w+)(.*))", re.MULTILINE)
_FURTHER = re.compile(r", ([A-Z_]+) = ")
"""One declaration may hold several constants."""


class Bundle:
    """The scripts of a folder, joined anew when one of them has changed. May be used from any thread."""

    def __init__(self, folder: Path, main: str) -> None:
        """Begin at the module ``main``."""
        self._folder = folder
        self._main = main
        # Guards ``_kept``.
        self._lock = threading.Lock()
        self._kept: tuple[Stamps, bytes] | None = None

    def content(self) -> bytes:
        """All modules as one. OSError if one cannot be read."""
        with self._lock:
            kept = self._kept
        if kept is not None and kept[0].are_current():
            return kept[1]
        settled = time.time_ns() - SETTLED_NS
        texts = self._read()
        content = join_modules(texts).encode()
        stamps = Stamps.of([str(self._folder / name) for name in texts], settled)
        with self._lock:
            self._kept = None if stamps is None else (stamps, content)
        return content

    def _read(self) -> dict[str, str]:
        """The modules by their names, each behind those that it imports."""
        texts: dict[str, str] = {}

        def read(name: str) -> None:
            text = read_regular(self._folder / name, MAX_MODULE).decode()
            for _, _, imported in _IMPORT.findall(text):
                if imported not in texts:
                    read(imported)
            texts[name] = text

        read(self._main)
        return texts


def join_modules(texts: dict[str, str]) -> str:
    """One module that exports what the last of them does."""
    functions = [
        f"const {_name(name)} = (() => {{\n{_body(text)}return {{ {', '.join(_exports(text))} }};\n}})();\n"
        for name, text in texts.items()
    ]
    last, text = list(texts.items())[-1]
    return "".join(functions) + f"export const {{ {', '.join(_exports(text))} }} = {_name(last)};\n"


def _body(text: str) -> str:
    return _EXPORT.sub("", _IMPORT.sub(_declaration, text))


def _declaration(found: re.Match[str]) -> str:
    names, whole, module = found.groups()
    return f"const {whole or names.replace(' as ', ': ')} = {_name(module)};"


def _exports(text: str) -> list[str]:
    found: list[str] = []
    for name, rest in _EXPORT.findall(text):
        found += [name, *_FURTHER.findall(rest)]
    return found


def _name(module: str) -> str:
    """What a module's exports are called; no module has such a name of its own."""
    return "module_" + module.removesuffix(".js").replace("-", "_")
