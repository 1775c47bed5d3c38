"""The messages of the pages since Zig 0.15: as compilers lay them out, and as Zig's server sent them."""

import re
import subprocess
from pathlib import Path

import pytest

from fuzzserver.wire.abi import CoverageUpdateHeader, EntryPointHeader, SourceIndexHeader
from fuzzserver.wire.build_web_abi import (
    REBUILD,
    BuildStatus,
    Hello,
    StatusUpdate,
    StepStatus,
    StepUpdate,
    ToClientTag,
    fuzz_message,
    fuzz_source_index,
)
from fuzzserver.wire.release import release_of
from tests.zigs import every_zig, zig_of

HERE = Path(__file__).parent

since_0_15 = pytest.mark.parametrize(
    "version", [each for each in every_zig.args[1] if each.values[0] > "0.15"]
)
"""Earlier ones have no such page."""

SENT = (
    "0003 0000 8a9a 0389 1400 0000 0500 0000 0400 0000 0800 0000 1900 0000 0800 0000 1800 0000 "
    "7465 7374 7275 6e20 7465 7374 636f 6d70 696c 6520 7465 7374 2064 6562 7567 206e 6174 6976 "
    "6572 756e 2074 6573 7463 6f6d 7069 6c65 2074 6573 7420 7361 6665 206e 6174 6976 65aa 02"
)
"""What Zig 0.17's own server said to a viewer first: two tests, of ``zig init``, were built and run."""


def test_hello_is_that_of_zigs_server() -> None:
    """Byte for byte."""
    names = (
        *("test", "run test", "compile test debug native"),
        *("run test", "compile test safe native"),
    )
    hello = Hello(BuildStatus.FUZZ_INIT, 0x1489039A8A, names, (StepStatus.SUCCESS,) * 5)
    assert hello.serialize() == bytes.fromhex(SENT)


@pytest.mark.parametrize(
    ("statuses", "bits"),
    [
        ((), ""),
        ((StepStatus.FAILURE,), "03"),
        ((StepStatus.PENDING, StepStatus.WIP, StepStatus.SUCCESS, StepStatus.FAILURE), "e4"),
        ((StepStatus.WIP,) * 5, "5501"),
    ],
)
def test_status_bits(statuses: tuple[StepStatus, ...], bits: str) -> None:
    """Four steps to a byte, the first in its lowest bits."""
    hello = Hello(BuildStatus.IDLE, 0, ("",) * len(statuses), statuses).serialize()
    assert hello[16 + 4 * len(statuses) :].hex() == bits


def test_names_need_not_be_ascii() -> None:
    """Their lengths count bytes, and what is no text is written as if it were."""
    hello = Hello(BuildStatus.IDLE, 0, ("ä", "\udcff"), (StepStatus.PENDING,) * 2).serialize()
    assert hello[16:].hex() == "0200000006000000" + "c3a4" + b"\\udcff".hex() + "00"


def test_messages_are_documented() -> None:
    """Each with its tag and the size of its head."""
    text = (HERE.parent / "docs" / "protocol.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| tag (\d), (\d+):", text, re.MULTILINE)
    newest = SourceIndexHeader.LAYOUT.size + 8
    layouts = (Hello, StatusUpdate, StepUpdate, None, CoverageUpdateHeader, EntryPointHeader)
    sizes = [newest if layout is None else layout.LAYOUT.size for layout in layouts]
    assert rows == [
        (tag.name.lower(), str(tag.value), str(size)) for tag, size in zip(ToClientTag, sizes, strict=True)
    ]


@since_0_15
def test_layouts_are_those_of_the_compiler(version: str, zig_cache: Path) -> None:
    """Sizes, offsets and tags."""
    release = release_of(version)
    assert release is not None
    index = SourceIndexHeader(1, 2, 3, 4, -5).serialize() + b"tables"
    ours = {
        "hello": Hello(BuildStatus.FUZZ_INIT, -2, ("",) * 5, (StepStatus.PENDING,) * 5).serialize()[:16],
        "idle": StatusUpdate(BuildStatus.IDLE).serialize(),
        "watching": StatusUpdate(BuildStatus.WATCHING).serialize(),
        "running": StatusUpdate(BuildStatus.RUNNING).serialize(),
        "pending": StepUpdate(0x01020304, StepStatus.PENDING).serialize(),
        "wip": StepUpdate(1, StepStatus.WIP).serialize(),
        "success": StepUpdate(2, StepStatus.SUCCESS).serialize(),
        "failure": StepUpdate(3, StepStatus.FAILURE).serialize(),
        "index": fuzz_source_index(index, 6 if release.index_has_runs else None).removesuffix(b"tables"),
        "update": fuzz_message(ToClientTag.FUZZ_COVERAGE_UPDATE, CoverageUpdateHeader(7, 8).serialize()),
        "entry_points": fuzz_message(ToClientTag.FUZZ_ENTRY_POINTS, EntryPointHeader(0x123456).serialize()),
        "rebuild": bytes((REBUILD,)),
    }
    caches = ("--cache-dir", str(zig_cache), "--global-cache-dir", str(zig_cache))
    argv = [str(zig_of(version).path), "test", str(HERE / "build_web_facts.zig"), *caches]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said = dict(line.split() for line in done.stderr.splitlines() if line.split(" ")[0] in ours)
    assert said == {name: message.hex() for name, message in ours.items()}
