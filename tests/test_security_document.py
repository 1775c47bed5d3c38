"""What SECURITY.md, the README and docs/protocol.md say of limits is so."""

import re
from pathlib import Path

from fuzzserver import paths
from fuzzserver.access import DEFAULT_LIMITS
from fuzzserver.web import body, connection, gate, head, source_files

ROOT = Path(__file__).resolve().parent.parent
SECURITY = " ".join((ROOT / "SECURITY.md").read_text().split())
PROTOCOL = " ".join((ROOT / "docs" / "protocol.md").read_text().split())


def test_numbers() -> None:
    """Limits in the documents are those of the code."""
    limits = DEFAULT_LIMITS
    assert f"{limits.connections:,} connections are all there are" in SECURITY
    assert f"(default: {limits.connections})" in (ROOT / "docs" / "usage.md").read_text()
    assert f"head may have {head.MAX_HEAD >> 10} KiB, its lines {head.MAX_LINE >> 10} KiB" in PROTOCOL
    assert f"{head.MAX_HEADERS} of them headers" in PROTOCOL
    assert f"whole {limits.head_seconds:g} seconds after its first byte" in PROTOCOL
    assert f"Bodies up to {connection.MAX_BODY >> 10} KiB are read" in PROTOCOL
    assert (
        f"Each {body.PIECE >> 10} KiB of an answer must be read within "
        f"{limits.write_seconds:g} seconds" in PROTOCOL
    )
    assert f"messages up to {limits.message_bytes >> 10} KiB" in PROTOCOL
    assert f"{limits.messages_per_second:g} frames a second" in PROTOCOL
    assert limits.archives == 8 and "Eight patient readers" in SECURITY


def test_places() -> None:
    """The files that SECURITY.md names are there."""
    named = re.findall(r"`((?:fuzzserver|scripts|tests|docs)/[\w./]+)`", SECURITY)
    assert {Path(gate.__file__).name, Path(source_files.__file__).name} <= {Path(each).name for each in named}
    for each in named:
        assert (ROOT / each).exists(), each


def test_page_has_no_other_files_than_are_served() -> None:
    """What SECURITY.md says of the names of the page's files goes for all of them."""
    web = paths.lib_dir() / "fuzzer" / "web"
    names = [path.name for path in web.iterdir() if path.suffix in (".js", ".css")]
    assert names and all(re.fullmatch(r"[a-z_]+\.(?:js|css)", name) for name in names)
