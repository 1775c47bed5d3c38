"""The shared layouts: the compiler is asked for each size, offset, tag and a few values."""

import dataclasses
import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzserver.errors import CoverageFileError, MessageError
from fuzzserver.wire.abi import (
    CoverageDeltaHeader,
    CoverageUpdateHeader,
    CurrentTime,
    EntryPointHeader,
    File,
    FileIndex,
    HistoryHeader,
    HistorySample,
    OwnTag,
    PointsHeader,
    SeenPcsHeader,
    SourceIndexHeader,
    SourceLocation,
    StringIndex,
    ToClientTag,
    coverage_file_name,
    seen_elems_len,
)
from fuzzserver.wire.messages import (
    HEADER,
    ClientTag,
    EmitDigest,
    TestMetadata,
    TestResults,
    client_message,
)
from fuzzserver.wire.release import OLDEST
from tests.support_native import HERE, zig_run

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
TIME = st.floats(allow_nan=False)

LAYOUTS = {
    "SeenPcsHeader": SeenPcsHeader,
    "CurrentTime": CurrentTime,
    "SourceIndexHeader": SourceIndexHeader,
    "CoverageUpdateHeader": CoverageUpdateHeader,
    "File": File,
    "SourceLocation": SourceLocation,
}

VALUES = [
    (SeenPcsHeader(1 << 40, 7, 65), "000000000001000007000000000000004100000000000000"),
    (CurrentTime(-2), "00feffffffffffffff"),
    (
        SourceIndexHeader(1, 2, 3, 0xFFFFFFFF, -1755000000000000000),
        "01000000010000000200000003000000ffffffff00803063ccfca4e7",
    ),
    (CoverageUpdateHeader(1 << 63, 2), "020000000000000000000000000000800200000000000000"),
    (EntryPointHeader(0x123456), "03563412"),
    (File(5, StringIndex(0x01020304)), "0500000004030201"),
    (SourceLocation(FileIndex(9), 80, 4000000000), "090000005000000000286bee"),
    (SourceLocation.INVALID, "ffffffff0000000000000000"),
    (TestResults(3, True, False, True, False, 0x234567), "0300000075563402"),
    (TestResults(2, False, False, False, True, 0), "0200000008000000"),
]
"""Values that ``abi_facts.zig`` prints, too, in their order."""

ROUND_TRIPS = st.one_of(
    st.builds(SeenPcsHeader, U64, U64, U64),
    st.builds(CurrentTime, I64),
    st.builds(SourceIndexHeader, U32, U32, U32, U32, I64),
    st.builds(CoverageUpdateHeader, U64, U64),
    st.builds(EntryPointHeader, st.integers(0, EntryPointHeader.MAX_LOCS)),
    st.builds(File, U32, U32),
    st.builds(SourceLocation, U32, U32, U32),
    st.builds(TestResults, U32, *[st.booleans()] * 4, st.integers(0, 2**28 - 1)),
    st.builds(CoverageDeltaHeader, U32, U64, U64, TIME),
    st.builds(HistoryHeader, st.booleans(), U32),
    st.builds(HistorySample, TIME, U64, U64, U32, U32),
    st.builds(PointsHeader, U32, U32, U32),
    st.builds(EmitDigest, st.booleans(), st.binary(min_size=16, max_size=16)),
)


@pytest.fixture(scope="module")
def facts(client) -> dict[str, str]:
    """What the compiler says: name to value."""
    return dict(line.split(" ", 1) for line in zig_run(client, HERE / "abi_facts.zig").splitlines())


def tags_of(facts: dict[str, str], name: str) -> dict[str, int]:
    """The compiler's tags of one enum, named as ours are."""
    found = [(key.split("."), value) for key, value in facts.items()]
    return {key[1].upper(): int(value) for key, value in found if key[0] == name}


def first_difference(one: bytes, other: bytes) -> int:
    """Index of the first byte in which two strings of bytes differ."""
    return next(index for index, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)


def field_names(cls: type) -> list[str]:
    """The fields of a layout, in its order."""
    return [field.name for field in dataclasses.fields(cls)]


def all_zero(cls: type) -> bytes:
    """A layout whose fields are all 0."""
    return cls(*[0] * len(field_names(cls))).serialize()


def our_offset(cls: type, field: str) -> int:
    """Where a layout has a field: the first byte that changes with it."""
    zero = dict.fromkeys(field_names(cls), 0)
    return first_difference(cls(**zero).serialize(), cls(**{**zero, field: 1}).serialize())


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_are_those_of_the_compiler(facts, name):
    """Size and offsets of each layout are what the compiler says."""
    cls = LAYOUTS[name]
    assert cls.LAYOUT.size == int(facts[name])
    assert len(all_zero(cls)) == int(facts[name])
    for field in field_names(cls):
        assert our_offset(cls, field) == int(facts[f"{name}.{field}"]), field


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_have_all_fields_of_the_compiler(facts, name):
    """No field of the compiler is missing in ours, but for the tag, which comes first."""
    theirs = {key.split(".")[1] for key in facts if re.fullmatch(rf"{name}\.\w+", key)}
    assert theirs - set(field_names(LAYOUTS[name])) <= {"tag", "flags"}
    assert facts.get(f"{name}.tag", "0") == facts.get(f"{name}.flags", "0") == "0"


def test_entry_point_header_packs_tag_and_length_in_one_word(facts):
    """The tag has the low 8 bits, the length the others."""
    assert EntryPointHeader.LAYOUT.size == int(facts["EntryPointHeader"])
    assert facts["EntryPointHeader.Flags.tag"] == "0"
    shift = int(facts["EntryPointHeader.Flags.locs_len"])
    word = int.from_bytes(EntryPointHeader(1).serialize(), "little")
    assert word == ToClientTag.ENTRY_POINTS | 1 << shift


def test_tags_are_those_of_the_compiler(facts):
    """The compiler has the same tags under the same names, and no others."""
    assert {tag.name: int(tag) for tag in ToClientTag} == tags_of(facts, "ToClientTag")
    prefixes = {prefix.name: number - 1 for number, prefix in OLDEST.path_prefixes.items()}
    assert prefixes == tags_of(facts, "PathPrefix")


def test_message_headers_are_those_of_the_compiler(facts):
    """Both directions of the --listen protocol have tag, then length."""
    for name in ("ServerHeader", "ClientHeader"):
        assert [facts[name], facts[f"{name}.tag"], facts[f"{name}.bytes_len"]] == ["8", "0", "4"]
    assert HEADER.size == 8
    assert client_message(ClientTag.RUN_TEST, 6).hex() == facts["hex.run_test"] + "06000000"


def test_bodies_are_those_of_the_compiler(facts):
    """Sizes, offsets and flag bits of the message bodies are what the compiler says."""
    assert TestMetadata.LAYOUT.size == int(facts["TestMetadata"])
    assert (facts["TestMetadata.string_bytes_len"], facts["TestMetadata.tests_len"]) == ("0", "4")
    assert (facts["ErrorBundle"], facts["ErrorBundle.extra_len"], facts["ErrorBundle.string_bytes_len"]) == (
        "8",
        "0",
        "4",
    )
    assert TestResults.LAYOUT.size == int(facts["TestResults"])
    for bit, name in enumerate(("fail", "skip", "leak", "fuzz", "log_err_count")):
        assert facts[f"TestResults.Flags.{name}"] == str(bit)
    assert EmitDigest.SIZE == int(facts["EmitDigest"]) + int(facts["bin_digest_len"])
    assert facts["EmitDigest.Flags.cache_hit"] == "0"
    assert EmitDigest(True, bytes(16)).serialize()[:1].hex() == facts["hex.EmitDigest"]


def test_values_are_those_of_the_compiler(facts):
    """The table of values below is what the compiler prints for the same values."""
    theirs = [value for key, value in facts.items() if key.startswith("hex.")]
    assert theirs[: len(VALUES)] == [text for _, text in VALUES]


@pytest.mark.parametrize(("value", "text"), VALUES)
def test_values_in_both_directions(value, text):
    """Each value has one serialisation, which gives the value back."""
    assert value.serialize().hex() == text
    assert type(value).parse(bytes.fromhex(text)) == value


@given(ROUND_TRIPS)
def test_any_value_survives_the_wire(value):
    """Whatever is serialised is parsed to the same."""
    assert type(value).parse(value.serialize()) == value


@given(ROUND_TRIPS, st.data())
def test_what_is_too_short_is_refused(value, data):
    """Every truncation of a layout is an error, and it tells both lengths."""
    whole = value.serialize()
    length = data.draw(st.integers(0, len(whole) - 1))
    error = CoverageFileError if isinstance(value, SeenPcsHeader) else MessageError
    with pytest.raises(error, match=rf"\b{len(whole)}\b.*\b{length}\b"):
        type(value).parse(whole[:length])


@pytest.mark.parametrize(
    "cls",
    [
        CurrentTime,
        SourceIndexHeader,
        CoverageUpdateHeader,
        EntryPointHeader,
        CoverageDeltaHeader,
        HistoryHeader,
        PointsHeader,
    ],
)
def test_a_message_with_another_tag_is_refused(cls):
    """A header that is parsed as another message's is an error that names both tags."""
    whole = bytearray(all_zero(cls))
    right = whole[0]
    whole[0] = 77
    with pytest.raises(MessageError, match=f"expected message tag {right}.*got 77"):
        cls.parse(bytes(whole))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            CoverageDeltaHeader(3, 1 << 40, 7, 0.5),
            "100000000300000000000000000100000700000000000000000000000000e03f",
        ),
        (HistoryHeader(True, 258), "1101000002010000"),
        (HistoryHeader(False, 0), "1100000000000000"),
        (
            HistorySample(-2.0, 1, 1 << 63, 5, HistorySample.START),
            "00000000000000c0010000000000000000000000000000800500000001000000",
        ),
        (PointsHeader(1, 2, 0xFFFFFFFF), "120000000100000002000000ffffffff"),
    ],
)
def test_our_own_messages_are_laid_out_so(value, text):
    """Byte by byte: the page reads them at these offsets."""
    assert value.serialize().hex() == text
    assert type(value).parse(bytes.fromhex(text)) == value


def test_our_own_tags_are_none_of_zigs():
    """There is room between them for those that Zig may add."""
    assert {tag.name: int(tag) for tag in OwnTag} == {"COVERAGE_DELTA": 16, "HISTORY": 17, "POINTS": 18}
    assert max(ToClientTag) < 8 < min(OwnTag)


def test_trailing_bytes_are_left_to_the_caller():
    """Headers are followed by their trailing data, which parse does not look at."""
    assert SeenPcsHeader.parse(SeenPcsHeader(1, 2, 3).serialize() + b"junk") == SeenPcsHeader(1, 2, 3)
    assert File.parse(File(1, StringIndex(2)).serialize() + b"junk") == File(1, StringIndex(2))


def test_seen_bits_come_in_whole_words(facts):
    """One bit for each PC, rounded up to words of 64, as the compiler computes it."""
    for length, words in tags_of(facts, "seenElemsLen").items():
        assert seen_elems_len(int(length)) == words


@given(st.integers(0, 2**40))
def test_coverage_file_size_counts_bits_and_addresses(pcs_len):
    """The size of a coverage file follows from the number of PCs."""
    header = SeenPcsHeader(0, 0, pcs_len)
    assert header.pc_addrs_offset == 24 + -(-pcs_len // 64) * 8
    assert header.file_size == header.pc_addrs_offset + 8 * pcs_len


@pytest.mark.parametrize(
    ("coverage_id", "name"),
    [
        (0x826D1CEA5677E649, "49e67756ea1c6d82"),
        (0x0409638EE2BDE459, "59e4bde28e630904"),
        (0, "0" * 16),
        (2**64 - 1, "f" * 16),
    ],
)
def test_coverage_files_are_named_in_memory_order(coverage_id, name):
    """The name is the id's bytes, lowest first, with leading zeros."""
    assert coverage_file_name(coverage_id) == name


@given(U64)
def test_coverage_file_names_can_be_read_back(coverage_id):
    """Each id has a name of its own, of 16 digits."""
    name = coverage_file_name(coverage_id)
    assert struct.unpack("<Q", bytes.fromhex(name)) == (coverage_id,)


def test_a_fuzzer_names_its_file_so(debug_pair):
    """The file of a real fuzzer has the name that its id gives."""
    assert debug_pair.coverage_file.name == coverage_file_name(debug_pair.coverage_id)
    assert debug_pair.coverage_file.is_file()
