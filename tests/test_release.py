"""The table of releases: what is in it is what each compiler says of itself."""

import struct
import subprocess
from pathlib import Path

import pytest

from fuzzserver.errors import MessageError
from fuzzserver.wire.messages import (
    HEADER,
    BroadcastFuzzInput,
    ClientTag,
    CoverageId,
    PathPrefix,
    ServerTag,
    StartFuzzing,
    TestResults,
    client_bytes,
    parse_file_system_inputs,
    parse_u32,
)
from fuzzserver.wire.release import NEWEST, OLDEST, RELEASES, ServerReader, is_newer, release_of
from tests.zigs import every_zig, zig_of

HERE = Path(__file__).parent


@pytest.fixture
def facts(version: str, zig_cache: Path) -> dict[str, int]:
    """What a compiler says of its messages: name to number."""
    source = HERE / "protocol_facts.zig"
    caches = ("--cache-dir", str(zig_cache), "--global-cache-dir", str(zig_cache))
    argv = [str(zig_of(version).path), "test", str(source), *caches]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [line.rpartition("...")[2].split() for line in done.stderr.splitlines()]
    return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}


@every_zig
def test_the_table_is_what_the_compiler_says(version: str, facts: dict[str, int]) -> None:
    """All tags that it has are in the table under the same numbers, and no others; so are the flags of a
    test's results."""
    release = release_of(version)
    assert release is not None and version.startswith(release.name)
    theirs = {
        name.removeprefix("ServerTag."): number for name, number in facts.items() if "ServerTag." in name
    }
    ours = {tag.value: number for number, tag in release.server_tags.items()}
    assert ours == {name: number for name, number in theirs.items() if not name.startswith("bsp_")}
    asked = {
        name.removeprefix("ClientTag."): number for name, number in facts.items() if "ClientTag." in name
    }
    for tag in ClientTag:
        if tag.name.lower() in asked:
            assert asked[tag.name.lower()] == tag
        else:
            assert tag is ClientTag.NEW_FUZZ_INPUT and release.fuzzes == "one test"

    flags = 1 << facts["TestResults.fuzz"] | 5 << facts["TestResults.log_err_count"]
    body = struct.pack("<IQ" if facts["TestResults"] == 64 else "<II", 7, flags)
    assert release.parse_test_results(body) == TestResults(7, False, False, False, True, 5)


@pytest.mark.parametrize("release", RELEASES, ids=lambda release: release.name)
def test_tags_are_read_as_the_version_says(release) -> None:
    """The first message chooses the table for those that follow, however the stream is cut."""
    version = f"{release.name}.0".encode()
    stream = HEADER.pack(0, len(version)) + version
    stream += b"".join(HEADER.pack(number, 1) + b"x" for number in release.server_tags if number)
    stream += HEADER.pack(4242, 0)
    reader = ServerReader()
    messages = [message for byte in stream for message in reader.feed(bytes([byte]))]
    reader.finish()
    assert reader.release is release
    assert [message.tag for message in messages] == [*release.server_tags.values(), None]


def test_a_child_that_tells_no_version_is_read_as_it_was_expected() -> None:
    """What no compiler would send as its version changes nothing."""
    reader = ServerReader(NEWEST)
    (version, message) = reader.feed(HEADER.pack(0, 4) + b"junk" + HEADER.pack(5, 0))
    assert (version.tag, message.tag) == (ServerTag.ZIG_VERSION, ServerTag.TEST_STARTED)


@pytest.mark.parametrize(
    ("version", "name", "newer"),
    [
        ("0.14.0", "0.14", False),
        ("0.15.0-dev.77+abc", "0.15", False),
        ("0.17.9", "0.17", False),
        ("0.18.0", "0.17", True),
        ("2.0.0", "0.17", True),
    ],
)
def test_releases_of_versions(version: str, name: str, newer: bool) -> None:
    """Patches and builds of a release are that release; the future is the newest, and known to be it."""
    release = release_of(version)
    assert release is not None
    assert (release.name, is_newer(version)) == (name, newer)


@pytest.mark.parametrize(
    "version",
    [
        "",
        "0.13.0",
        "0.14",
        "0.14.",
        "zig 0.14.1",
        "0.14.1\nx",
        "0.14.1 \x1b[31m",
        "0.١٤.0",
        "\xff",
        f"{'9' * 5000}.1.0",
    ],
)
def test_versions_that_are_none_of_ours(version: str) -> None:
    """Older ones, and what is no version."""
    assert release_of(version) is None
    assert not is_newer(version)


def test_results_since_0_16() -> None:
    """Two bits for pass, fail and skip; leaks are counted."""
    parse = NEWEST.parse_test_results
    assert parse(bytes.fromhex("01000000 0400000000000000")) == TestResults(1, False, False, False, True, 0)
    assert parse(struct.pack("<IQ", 2, 1 | 3 << 3)) == TestResults(2, True, False, False, False, 3)
    assert parse(struct.pack("<IQ", 3, 2 | 1 << 33)) == TestResults(3, False, True, True, False, 0)
    with pytest.raises(MessageError, match="test_results must have 12 bytes, got 8"):
        parse(bytes(8))


def test_coverage_ids() -> None:
    """The id alone, or with what was in the file before; another size is refused."""
    assert CoverageId.parse(bytes.fromhex("49e67756ea1c6d82"), OLDEST.coverage_id_size) == CoverageId(
        0x826D1CEA5677E649
    )
    assert CoverageId.parse(struct.pack("<4Q", 1, 2, 3, 4), NEWEST.coverage_id_size) == CoverageId(1, 2, 3, 4)
    for release, size in ((OLDEST, 32), (NEWEST, 8), (NEWEST, 0)):
        with pytest.raises(MessageError, match=f"coverage_id must have .* bytes, got {size}"):
            CoverageId.parse(bytes(size), release.coverage_id_size)


def test_what_an_instance_is_told() -> None:
    """As Zig's build runner sends it to the instances 0 and 1 of one test."""
    for instance in range(2):
        body = StartFuzzing(0, instance, ("main.test.fuzz example",)).serialize()
        assert (
            body
            == bytes.fromhex(f"00 0{instance}00000000000000 01000000 16000000") + b"main.test.fuzz example"
        )
    assert client_bytes(ClientTag.NEW_FUZZ_INPUT, b"ab") == bytes.fromhex("07000000 02000000") + b"ab"


def test_what_an_instance_tells() -> None:
    """Which test it is at, and what it found."""
    assert parse_u32(bytes.fromhex("02000000"), "fuzz_test_change") == 2
    assert BroadcastFuzzInput.parse(b"\x01\0\0\0ab") == BroadcastFuzzInput(1, b"ab")
    assert BroadcastFuzzInput.parse(bytes(4)) == BroadcastFuzzInput(0, b"")
    for length in (0, 3):
        with pytest.raises(MessageError, match=f"needs 4 bytes, got {length}"):
            BroadcastFuzzInput.parse(bytes(length))
        with pytest.raises(MessageError, match=f"fuzz_test_change must have 4 bytes, got {length}"):
            parse_u32(bytes(length), "fuzz_test_change")


def test_build_root_and_names_that_come_twice() -> None:
    """Zig 0.17 has one folder more; a file that is named twice is one file."""
    body = b"\x05src/main.zig\0\x02std/std.zig\0\x05src/main.zig\0"
    inputs = parse_file_system_inputs(body, NEWEST.path_prefixes)
    assert [(each.prefix, each.sub_path) for each in inputs] == [
        (PathPrefix.BUILD_ROOT, "src/main.zig"),
        (PathPrefix.ZIG_LIB, "std/std.zig"),
    ]
    with pytest.raises(MessageError, match="unknown path prefix 5"):
        parse_file_system_inputs(body, OLDEST.path_prefixes)
