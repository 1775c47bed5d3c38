"""The page as one file with its data inside, to be kept and opened where no server is.

*Runs on* any thread. *Takes* a site. *Gives* HTML that asks nobody for anything: in it are style sheets,
scripts, and an archive of all that the page would ask for and be told. ``report.js`` of the page reads it:

* u32: bytes of the table;
* the table, JSON: ``greeting``, what each viewer is told; ``maps``, what those are told further who want a
  coverage map, by its name; ``first``, the one that is shown without a choice; ``answers``, what is answered
  to requests, by their paths;
* the contents, to which ``at`` and ``size`` in the table point.

In the file it is compressed, and in letters and digits only, so that nothing of it can be markup.
"""

import base64
import gzip
import hashlib
import json
import re
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from fuzzserver.coverage.coverage_map import CoverageMap
from fuzzserver.errors import FuzzServerError, InputError
from fuzzserver.web.answer import Answer
from fuzzserver.web.bundle import Bundle
from fuzzserver.web.fuzz_data import fuzz_data
from fuzzserver.web.map_data import MapData
from fuzzserver.web.routes import BUNDLE, PAGE_WASM_MODE
from fuzzserver.web.session import Moment, Told
from fuzzserver.web.site import Site
from fuzzserver.wire.abi import coverage_file_name

__all__ = ["static_page"]

NO_MAP = -1
"""No coverage file has such an id."""

MAX_INPUTS = 1 << 20
"""Bytes of inputs of corpora that it holds at most, of each corpus the newest first."""
ENTRY = 100
"""Bytes that are counted for the place of one in the table."""

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src '{}' 'wasm-unsafe-eval'",
        "style-src '{}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""That of the server's page, but with nobody to talk to."""

_SERVED = re.compile(r'<link rel="stylesheet".*<script src="main\.js" type="module"></script>', re.DOTALL)
"""The part of our page that has the browser ask the server for more."""
_SHEET = re.compile(r'<link rel="stylesheet" href="([a-z]+\.css)">')
_END = "</body>"


def static_page(site: Site) -> bytes:
    """All that the site shows now, with the newest coverage map of each target.

    The site must have our own page. FuzzServerError if a file of it cannot be read, or its wasm not be built.
    """
    status = site.status()
    # Maps of earlier builds are left out, and so are links to them.
    status = status | {"targets": [target | {"earlier": []} for target in status["targets"]]}
    try:
        return _page(replace(site, status=lambda: status), time.time()).encode()
    except OSError as error:
        raise FuzzServerError(f"failed to read '{error.filename}': {error.strerror}") from error


def _page(site: Site, now: float) -> str:
    folder = site.lib_dir / "fuzzer" / "web"
    html = (folder / "index.html").read_text(encoding="utf-8")
    served = _SERVED.search(html)
    assert served is not None, f"'{folder}' holds another page than ours"
    style = "".join((folder / name).read_text(encoding="utf-8") for name in _SHEET.findall(served[0]))
    script = Bundle(folder, BUNDLE).content().decode() + "start(null);\n"
    policy = _POLICY.format(_hash(script), _hash(style))
    head = (
        f'<meta http-equiv="content-security-policy" content="{policy}">\n'
        f"    <style>{style}</style>\n"
        f'    <script type="module">{script}</script>'
    )
    data = base64.b64encode(gzip.compress(_archive(site), mtime=0)).decode()
    element = f'<script id="report" type="application/octet-stream" data-time="{now}">{data}</script>'
    start, end = html[: served.start()], html[served.end() :]
    return start + head + end.replace(_END, f"  {element}\n  {_END}")


def _hash(text: str) -> str:
    """What stands for a text in a policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _archive(site: Site) -> bytes:
    maps = {coverage_file_name(each.coverage_id): each for each in site.coverage_files.newest()}
    contents = _Contents()
    moment = Moment(site)
    greeting, greeted = moment.messages(Told(NO_MAP, is_ours=True))
    table = {
        "first": next(iter(maps), None),
        "greeting": contents.messages(greeting),
        "maps": {
            name: contents.messages(moment.messages(greeted._replace(target=each.coverage_id))[0])
            for name, each in maps.items()
        },
        "answers": {path: contents.answer(answer) for path, answer in _answers(site, maps)},
    }
    head = json.dumps(table).encode()
    return b"".join((struct.pack("<I", len(head)), head, contents.data))


def _answers(site: Site, maps: dict[str, CoverageMap]) -> Iterator[tuple[str, Answer]]:
    """All that the page may ask for. Of what is not among it, it says so."""
    yield "main.wasm", Answer("application/wasm", site.build_wasm(PAGE_WASM_MODE).read_bytes())
    paths = ["corpus.json"]
    for finding in site.status()["findings"]:
        paths += (f"findings/{finding['id']}.json", f"findings/{finding['id']}.input")
    for path in (*paths, *_inputs(site)):
        with suppress(InputError):  # It cannot be read.
            answer = fuzz_data(site, f"/{path}")
            if isinstance(answer, Answer):
                yield path, answer
    map_data = MapData(site.coverage_files)
    for name, coverage_map in maps.items():
        # The tables name files that have points, and no others.
        files = range(coverage_map.coverage.files_len)
        for path in (f"points/{name}", *(f"source/{name}/{file}" for file in files)):
            answer = map_data.answer(f"/{path}")
            if answer is not None:
                yield path, answer


def _inputs(site: Site) -> Iterator[str]:
    room = MAX_INPUTS
    for index, corpus in enumerate(site.corpora()):
        for each in reversed(corpus.inputs()):
            room -= each.size + ENTRY
            if room < 0:
                return
            yield f"corpus/{index}/{each.number}"


class _Contents:
    """What the archive holds, each thing once: targets have sources in common."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._places: dict[bytes, dict[str, Any]] = {}

    def messages(self, messages: list[bytes | str]) -> list[dict[str, Any]]:
        """How the table tells of messages."""
        return [{"text": each} if isinstance(each, str) else self._place(each) for each in messages]

    def answer(self, answer: Answer) -> dict[str, Any]:
        """How the table tells of an answer."""
        headers = {"content-type": answer.content_type} | dict(answer.headers)
        return {"status": answer.status, "headers": headers} | self._place(answer.content)

    def _place(self, content: bytes) -> dict[str, Any]:
        if content not in self._places:
            self._places[content] = {"at": len(self.data), "size": len(content)}
            self.data += content
        return self._places[content]
