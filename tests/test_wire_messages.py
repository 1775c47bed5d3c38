"""The --listen protocol: streams cut anywhere, bodies that lie."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzserver.errors import MessageError
from fuzzserver.wire.messages import (
    HEADER,
    MAX_BODY,
    ClientTag,
    EmitDigest,
    FileSystemInput,
    Message,
    MessageReader,
    PathPrefix,
    TestMetadata,
    TestResults,
    client_message,
    parse_emit_bin_path,
    parse_file_system_inputs,
    parse_u64,
)
from fuzzserver.wire.release import OLDEST

MESSAGES = [
    Message(0, b"0.14.1"),
    Message(1, bytes(8)),
    Message(2, bytes(range(17))),
    Message(4242, b""),
    Message(6, bytes(range(8))),
]


def encode(messages: list[Message]) -> bytes:
    """The stream of these messages."""
    return b"".join(HEADER.pack(message.tag, len(message.body)) + message.body for message in messages)


STREAM = encode(MESSAGES)

any_messages = st.lists(st.builds(Message, st.integers(0, 2**32 - 1), st.binary(max_size=40)), max_size=6)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (client_message(ClientTag.EXIT), "00000000 00000000"),
        (client_message(ClientTag.UPDATE), "01000000 00000000"),
        (client_message(ClientTag.QUERY_TEST_METADATA), "04000000 00000000"),
        (client_message(ClientTag.RUN_TEST, 258), "05000000 04000000 02010000"),
        (client_message(ClientTag.START_FUZZING, 0), "06000000 04000000 00000000"),
    ],
)
def test_messages_to_the_child(message, text):
    """A message is tag, length and arguments of four bytes each."""
    assert message == bytes.fromhex(text)


def test_a_whole_stream_gives_its_messages():
    """All messages come out of one feed, unknown tags too."""
    reader = MessageReader()
    assert reader.feed(STREAM) == MESSAGES
    reader.finish()


def test_a_stream_byte_by_byte_gives_its_messages():
    """Each message comes out with its last byte, not earlier."""
    reader = MessageReader()
    ends = []
    for position in range(len(STREAM)):
        for message in reader.feed(STREAM[position : position + 1]):
            assert message == MESSAGES[len(ends)]
            ends.append(position + 1)
    reader.finish()
    assert ends == [len(encode(MESSAGES[: count + 1])) for count in range(len(MESSAGES))]


@pytest.mark.parametrize("split", range(len(STREAM) + 1))
def test_a_stream_split_anywhere_gives_its_messages(split):
    """Two feeds give together what one gives."""
    reader = MessageReader()
    assert reader.feed(STREAM[:split]) + reader.feed(STREAM[split:]) == MESSAGES
    reader.finish()


@given(any_messages, st.data())
def test_any_stream_in_any_pieces_gives_its_messages(messages, data):
    """Pieces of any size do not matter, empty ones neither."""
    stream = encode(messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = MessageReader()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:end])
    reader.finish()
    assert found == messages


def test_an_empty_stream_is_a_clean_end():
    """A child that says nothing breaks no rule."""
    reader = MessageReader()
    assert reader.feed(b"") == []
    reader.finish()


@pytest.mark.parametrize("length", range(1, 8))
def test_a_stream_that_ends_in_a_header_is_an_error_with_counts(length):
    """The error tells how much of the header came."""
    reader = MessageReader()
    reader.feed(STREAM + STREAM[:length])
    with pytest.raises(MessageError, match=f"after {length} of the 8 bytes of a message header"):
        reader.finish()


@pytest.mark.parametrize("length", [0, 1, 16])
def test_a_stream_that_ends_in_a_body_is_an_error_with_counts(length):
    """The error tells how much of the body came, and of which message."""
    reader = MessageReader()
    assert reader.feed(HEADER.pack(2, 17) + bytes(length)) == []
    with pytest.raises(MessageError, match=rf"after {length} of the 17 bytes of a message body \(tag 2\)"):
        reader.finish()


def test_messages_before_junk_are_given_first():
    """Trailing junk does not take whole messages away; it shows at the end."""
    reader = MessageReader()
    assert reader.feed(STREAM + b"\x01\x02\x03") == MESSAGES
    with pytest.raises(MessageError, match="after 3 of the 8"):
        reader.finish()


@pytest.mark.parametrize("length", [MAX_BODY + 1, 2**31, 2**32 - 1])
def test_an_absurd_length_is_refused_at_once(length):
    """A length beyond every real message is an error before a byte of the body came."""
    with pytest.raises(MessageError, match=f"tag 7 claims a body of {length} bytes; the limit is {MAX_BODY}"):
        MessageReader().feed(HEADER.pack(7, length))


def test_text_in_place_of_messages_is_refused():
    """What a program prints on its stdout is no message."""
    with pytest.raises(MessageError, match="claims a body of"):
        MessageReader().feed(b"Hello, world!\n")


def test_the_greatest_length_is_awaited():
    """The limit itself is still believed."""
    reader = MessageReader()
    assert reader.feed(HEADER.pack(1, MAX_BODY)) == []
    with pytest.raises(MessageError, match=f"after 0 of the {MAX_BODY} bytes"):
        reader.finish()


@pytest.mark.parametrize(("text", "value"), [("49e67756ea1c6d82", 0x826D1CEA5677E649), ("00" * 8, 0)])
def test_u64_bodies(text, value):
    """fuzz_start_addr is eight bytes, lowest first."""
    assert parse_u64(bytes.fromhex(text), "fuzz_start_addr") == value


@pytest.mark.parametrize("length", [0, 7, 9, 32])
def test_u64_bodies_of_other_lengths_are_refused(length):
    """The error names message and length."""
    with pytest.raises(MessageError, match=f"fuzz_start_addr must have 8 bytes, got {length}"):
        parse_u64(bytes(length), "fuzz_start_addr")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (EmitDigest(True, bytes(range(16))), "01000102030405060708090a0b0c0d0e0f"),
        (EmitDigest(False, b"\xff" * 16), "00" + "ff" * 16),
    ],
)
def test_emit_digest_in_both_directions(value, text):
    """A flag byte, and the digest as it is."""
    assert value.serialize().hex() == text
    assert EmitDigest.parse(bytes.fromhex(text)) == value


def test_emit_digest_uses_one_bit_of_its_flags():
    """Reserved bits do not turn a miss into a hit."""
    assert not EmitDigest.parse(b"\xfe" + bytes(16)).cache_hit
    assert EmitDigest.parse(b"\xff" + bytes(16)).cache_hit


@pytest.mark.parametrize("length", [0, 1, 16, 18, 33])
def test_emit_digest_of_another_length_is_refused(length):
    """Hex digits, as Zig's comment has it, are no digest."""
    with pytest.raises(MessageError, match=f"emit_digest must have 17 bytes, got {length}"):
        EmitDigest.parse(bytes(length))


def test_emit_bin_path():
    """Before 0.14 the path itself was sent, in any bytes."""
    assert parse_emit_bin_path(b"\x01/cache/o/1f/test") == (True, "/cache/o/1f/test")
    assert parse_emit_bin_path(b"\x00/c/\xff") == (False, "/c/\udcff")


@pytest.mark.parametrize("body", [b"", b"\x01"])
def test_emit_bin_path_without_a_path_is_refused(body):
    """A flag alone is no result."""
    with pytest.raises(MessageError, match=f"at least 2 bytes, got {len(body)}"):
        parse_emit_bin_path(body)


@pytest.mark.parametrize(
    ("body", "inputs"),
    [
        (b"", []),
        (b"\0\0", []),
        (b"\x01src/main.zig", [FileSystemInput(PathPrefix.CWD, "src/main.zig")]),
        (
            b"\x02std/std.zig\0\x03a\0\x04b\0\x02\0",
            [
                FileSystemInput(PathPrefix.ZIG_LIB, "std/std.zig"),
                FileSystemInput(PathPrefix.LOCAL_CACHE, "a"),
                FileSystemInput(PathPrefix.GLOBAL_CACHE, "b"),
                FileSystemInput(PathPrefix.ZIG_LIB, ""),
            ],
        ),
        (b"\x01caf\xe9\0", [FileSystemInput(PathPrefix.CWD, "caf\udce9")]),
    ],
)
def test_file_system_inputs(body, inputs):
    """Prefix and path of each file, with or without a last NUL, in any bytes."""
    assert parse_file_system_inputs(body, OLDEST.path_prefixes) == inputs


@pytest.mark.parametrize("prefix", [5, 47, 255])
def test_file_system_inputs_with_an_unknown_prefix_are_refused(prefix):
    """A folder that we do not know is an error, not a wrong path."""
    with pytest.raises(MessageError, match=f"unknown path prefix {prefix}"):
        parse_file_system_inputs(b"\x01ok\0" + bytes([prefix]) + b"lost\0", OLDEST.path_prefixes)


def test_test_metadata_in_both_directions():
    """Names of any length and in any bytes; serialised as the test runner does it."""
    names = ("main.test.fuzz sum", "", "caf\u00e9", "bad\udcff")
    body = TestMetadata.serialize(names)
    assert TestMetadata.parse(body) == TestMetadata(names)
    assert TestMetadata.serialize(["a"]).hex(" ", -4) == "03000000 01000000 01000000 00000000 006100"
    assert TestMetadata.parse(TestMetadata.serialize([])) == TestMetadata(())


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"))))
def test_any_test_names_survive_the_wire(names):
    """What is serialised is parsed to the same."""
    assert TestMetadata.parse(TestMetadata.serialize(names)).names == tuple(names)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "needs 8 bytes, got 0"),
        (bytes(7), "needs 8 bytes, got 7"),
        (struct.pack("<II", 0, 1), "1 tests and 0 string bytes must have 16 bytes, got 8"),
        (struct.pack("<II", 5, 0) + b"abcd", "must have 13 bytes, got 12"),
        (struct.pack("<II", 0, 0) + b"x", "must have 8 bytes, got 9"),
        (struct.pack("<II", 2**32 - 1, 2**32 - 1), "got 8"),
        (struct.pack("<IIII", 2, 1, 2, 0) + b"a\0", "offset 2 does not end within 2"),
        (struct.pack("<IIII", 2, 1, 0, 0) + b"ab", "offset 0 does not end within 2"),
        (struct.pack("<IIII", 2, 1, 2**32 - 1, 0) + b"a\0", "offset 4294967295"),
    ],
)
def test_test_metadata_that_lies_is_refused(body, message):
    """Every length and offset is checked before it is used."""
    with pytest.raises(MessageError, match=message):
        TestMetadata.parse(body)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0000000000000000", TestResults(0, False, False, False, False, 0)),
        ("0200000008000000", TestResults(2, False, False, False, True, 0)),
        ("ffffffff31000000", TestResults(0xFFFFFFFF, True, False, False, False, 3)),
        ("01000000f6ffffff", TestResults(1, False, True, True, False, 2**28 - 1)),
    ],
)
def test_test_results_in_both_directions(text, value):
    """Index, four flags, and the count of logged errors above them."""
    assert TestResults.parse(bytes.fromhex(text)) == value
    assert value.serialize().hex() == text


@pytest.mark.parametrize("length", [0, 7, 9, 12])
def test_test_results_of_another_length_are_refused(length):
    """Zig 0.16 sends another layout under another length: it is no result that we could read."""
    with pytest.raises(MessageError, match=f"test_results must have 8 bytes, got {length}"):
        TestResults.parse(bytes(length))


@given(st.binary(max_size=64))
def test_random_bodies_raise_message_errors_only(body):
    """No bytes make a parser raise anything else."""
    parsers = (
        EmitDigest.parse,
        parse_emit_bin_path,
        lambda data: parse_file_system_inputs(data, OLDEST.path_prefixes),
        TestMetadata.parse,
        TestResults.parse,
        lambda data: parse_u64(data, "fuzz_start_addr"),
    )
    for parse in parsers:
        try:
            parse(body)
        except MessageError:
            pass
