"""Compile errors: rendered as the compiler prints them, and never trusted."""

import re
import struct
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzserver.errors import MessageError
from fuzzserver.wire.error_bundle import MAX_NOTE_DEPTH, ErrorBundle
from fuzzserver.wire.messages import ClientTag, ServerTag, client_message
from fuzzserver.wire.release import ServerReader
from fuzzserver.zig.process import PipedChild
from tests.support_native import write_files

SOURCES = {
    "syntax": "pub fn main() void {\n    const x = ;\n}\n",
    "note": 'fn takes(x: u8) void { _ = x; }\npub fn main() void {\n\ttakes("abc");\n}\n',
    "compile_log": 'pub fn main() void {\n    @compileLog("hi", 42);\n    @compileLog(@as(u8, 3));\n}\n',
    "references": (
        'fn a() void { @compileError("no"); }\nfn b() void { a(); }\nfn c() void { b(); }\n'
        "fn d() void { c(); }\npub fn main() void { d(); }\n"
    ),
    "many_lines": 'pub fn main() void {\n    @compileError("one\\ntwo \\u{e9}\\n\\nfour");\n}\n',
    "wide": 'pub fn main() void {\n    const s = "\u00e9\u6f22"; s.nothing();\n}\n',
    "several": "const a = 1;\nconst a = 2;\nconst b = 1;\nconst b = 2;\npub fn main() void {}\n",
    "long_span": "pub fn main() void {\n    const x: u8 = .{\n        1,\n    };\n    _ = x;\n}\n",
}


@pytest.fixture(scope="module")
def folder(work) -> Path:
    """Erroneous sources, and one that does not link."""
    folder = work / "erroneous"
    write_files(folder, {f"{name}.zig": text for name, text in SOURCES.items()})
    write_files(folder, {"link.zig": "extern fn nope() void;\nexport fn _start() void { nope(); }\n"})
    return folder


@pytest.fixture(scope="module")
def both(zig, zig_cache, folder):
    """Gives for arguments what the compiler prints, and the error bundle that it sends."""
    caches = ("--cache-dir", str(zig_cache), "--global-cache-dir", str(zig_cache))

    def run(*args: str) -> tuple[str, bytes]:
        argv = [str(zig.path), "build-exe", *args, *caches]
        plain = subprocess.run(argv, cwd=folder, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        return plain.stderr, error_bundle_of([*argv, "--listen=-"], folder)

    return run


def error_bundle_of(argv: list[str], cwd: Path) -> bytes:
    """The body of the one error bundle that a compile sends."""
    reader, bodies = ServerReader(), []
    with PipedChild(argv, cwd) as child:
        child.send(client_message(ClientTag.UPDATE) + client_message(ClientTag.EXIT))
        for name, data in child.output(time.monotonic() + 120):
            if name == "stdout":
                bodies += [msg.body for msg in reader.feed(data) if msg.tag is ServerTag.ERROR_BUNDLE]
    reader.finish()
    (body,) = bodies
    return body


@pytest.mark.parametrize("name", SOURCES)
def test_errors_look_as_the_compiler_prints_them(both, name):
    """The rendered bundle is, byte for byte, the stderr of the same compile."""
    printed, body = both(f"{name}.zig", "-fno-emit-bin")
    assert "error: " in printed
    assert ErrorBundle.parse(body).render() == printed


@pytest.mark.parametrize("option", ["-freference-trace=1", "-freference-trace", "-fno-reference-trace"])
def test_reference_traces_look_as_the_compiler_prints_them(both, option):
    """However many references are asked for, the same are shown and the same number is hidden."""
    printed, body = both("references.zig", "-fno-emit-bin", option)
    assert "referenced by:" in printed
    assert ErrorBundle.parse(body).render() == printed


def test_a_missing_file_is_an_error_without_a_place(both):
    """Under --listen the compiler misses the file before it reads the source that names it."""
    printed, body = both("missing.zig", "-fno-emit-bin")
    assert re.search(r"error: .*missing\.zig.*: FileNotFound", printed)
    assert re.fullmatch(r"error: .*missing\.zig.* FileNotFound\n", ErrorBundle.parse(body).render())


def test_link_errors_look_as_the_compiler_prints_them(both):
    """Errors without a place: their notes are indented. The object's folder is told in one only."""
    # Without what needs a runtime, which would be compiled for it.
    alone = ("-target", "x86_64-freestanding", "-fno-compiler-rt", "-fno-ubsan-rt")
    printed, body = both("link.zig", "--name", "link", *alone)
    assert "undefined symbol: nope" in printed
    text = ErrorBundle.parse(body).render()
    assert re.sub(r"\S*/link\.o", "link.o", text) == re.sub(r"\S*/link\.o", "link.o", printed)
    assert all(message.src_loc is None for message in ErrorBundle.parse(body).messages)


def test_a_compile_without_errors_sends_an_empty_bundle(both, folder):
    """It is no error and renders as nothing."""
    (folder / "fine.zig").write_text("pub fn main() void {}\n")
    printed, body = both("fine.zig", "-fno-emit-bin")
    assert (printed, ErrorBundle.parse(body), ErrorBundle.parse(body).render()) == ("", ErrorBundle(), "")


def test_every_truncation_of_a_real_bundle_is_refused(both):
    """The body's length must be the one that its header tells."""
    _, body = both("note.zig", "-fno-emit-bin")
    for length in range(len(body)):
        with pytest.raises(MessageError, match=f"got {length}$"):
            ErrorBundle.parse(body[:length])
    with pytest.raises(MessageError, match=f"got {len(body) + 1}$"):
        ErrorBundle.parse(body + b"\0")


def test_every_damaged_word_of_a_real_bundle_is_read_or_refused(both):
    """A word of a bundle that is replaced gives MessageError or some text, nothing else."""
    _, body = both("references.zig", "-fno-emit-bin")
    refused = 0
    for place in range(8, len(body) - 3, 4):
        for word in (0, 1, 3, 77, 10_000, 0xFFFFFFFF):
            damaged = body[:place] + struct.pack("<I", word) + body[place + 4 :]
            refused += not parses(damaged)
    assert refused > 20


def parses(body: bytes) -> bool:
    """Whether a bundle can be read and rendered; any error but MessageError is the test's."""
    try:
        text = ErrorBundle.parse(body).render()
    except MessageError:
        return False
    assert len(text) < 10_000_000, "a bundle of a few bytes must not fill the memory"
    return True


class Bundle:
    """Writes a bundle by hand. Its list of messages comes first, as the layout demands."""

    def __init__(self) -> None:
        self.extra = [0, 0, 0]
        self.strings = bytearray(b"\0")

    def string(self, text: str) -> int:
        """Add a string; its offset."""
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text.encode()) - 1

    def words(self, *words: int) -> int:
        """Add a record; its index."""
        self.extra += words
        return len(self.extra) - len(words)

    def location(
        self, trace: tuple[tuple[int, int], ...] = (), line: str | None = None, **fields: int
    ) -> int:
        """Add a source location, whose trace has pairs of name and location."""
        place = {"line": 0, "column": 0, "start": 0, "main": 0, "end": 0, **fields}
        source_line = 0 if line is None else self.string(line)
        flat = [word for pair in trace for word in pair]
        return self.words(self.string("a.zig"), *place.values(), source_line, len(trace), *flat)

    def message(self, text: str, *notes: int, count: int = 1, location: int = 0) -> int:
        """Add a message."""
        return self.words(self.string(text), count, location, len(notes), *notes)

    def body(self, *messages: int, log: int = 0) -> bytes:
        """The whole bundle with these messages at the root."""
        start = self.words(*messages)
        self.extra[:3] = [len(messages), start, log]
        header = struct.pack("<II", len(self.extra), len(self.strings))
        return header + struct.pack(f"<{len(self.extra)}I", *self.extra) + bytes(self.strings)

    def render(self, *messages: int, log: int = 0) -> str:
        """The text of these messages."""
        return ErrorBundle.parse(self.body(*messages, log=log)).render()


def test_hidden_references_are_counted():
    """The option that would show all of them includes those that are shown."""
    bundle = Bundle()
    caller = bundle.location(line=None)
    src = bundle.location(trace=((bundle.string("f"), caller), (7, 0)))
    text = bundle.render(bundle.message("bad", location=src))
    assert text == (
        "a.zig:1:1: error: bad\nreferenced by:\n    f: a.zig:1:1\n"
        "    7 reference(s) hidden; use '-freference-trace=8' to see all references\n"
    )


def test_an_unknown_number_of_hidden_references_is_told():
    """A sentinel that counts 0 stands for all references."""
    bundle = Bundle()
    src = bundle.location(trace=((0, 0),))
    assert bundle.render(bundle.message("bad", location=src)) == (
        "a.zig:1:1: error: bad\nreferenced by:\n"
        "    remaining reference traces hidden; use '-freference-trace' to see all reference traces\n"
    )


def test_repeated_errors_are_counted():
    """With and without a place; notes of a message without one are indented."""
    bundle = Bundle()
    note = bundle.message("see there", count=2)
    src = bundle.location()
    assert bundle.render(
        bundle.message("twice", note, count=2), bundle.message("thrice", note, count=3, location=src)
    ) == (
        "error: twice (2 times)\n    note: see there (2 times)\n"
        "a.zig:1:1: error: thrice (3 times)\nnote: see there (2 times)\n"
    )


def test_the_caret_stands_below_the_main_token():
    """What comes before and after it in the span is underlined; tabs are one column wide."""
    bundle = Bundle()
    src = bundle.location(line="\ta + b", column=3, start=11, main=13, end=16)
    text = bundle.render(bundle.message("x", location=src))
    assert text.splitlines()[1:] == [" a + b", " ~~^~~"]


def test_compile_log_text_comes_last():
    """The log follows all errors."""
    bundle = Bundle()
    log = bundle.string("@as(u8, 1)\n")
    assert bundle.render(bundle.message("found"), log=log) == (
        "error: found\n\nCompile Log Output:\n@as(u8, 1)\n"
    )


def test_notes_may_be_nested_but_not_for_ever():
    """A note that is its own note, or a chain that is too deep, is refused."""
    bundle = Bundle()
    chain = bundle.message("leaf")
    for _ in range(MAX_NOTE_DEPTH):
        chain = bundle.message("deeper", chain)
    assert bundle.render(chain).count("deeper") == MAX_NOTE_DEPTH
    with pytest.raises(MessageError, match="form a loop"):
        bundle.render(bundle.message("too deep", chain))
    bundle = Bundle()
    own = len(bundle.extra)
    bundle.message("I", own)
    with pytest.raises(MessageError, match="form a loop"):
        bundle.render(own)


@pytest.mark.timeout(60)
def test_notes_that_fan_out_are_refused_in_time():
    """Two notes that each have two of the next kind, and so on: few words, but 2**30 messages."""
    bundle = Bundle()
    note = bundle.message("leaf")
    for _ in range(30):
        note = bundle.message("n", note, note)
    with pytest.raises(MessageError, match="form a loop"):
        bundle.render(note)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ([0], "index 0 \\+ 3 is beyond its 1 words"),
        ([1, 3, 0], "index 3 \\+ 1 is beyond"),
        ([2**32 - 1, 0, 0], "beyond its 3 words"),
        ([1, 3, 0, 2**32 - 1], "index 4294967295 \\+ 4 is beyond"),
        ([1, 3, 0, 4, 0, 1, 0, 1], "index 8 \\+ 1 is beyond its 8 words"),
        ([1, 3, 0, 4, 0, 1, 2**31, 0], "index 2147483648 \\+ 8 is beyond"),
        ([1, 3, 0, 4, 99, 1, 0, 0], "string at 99 does not end within 1 bytes"),
        ([0, 0, 5], "string at 5 does not end within 1 bytes"),
        ([1, 3, 0, 4, 0, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 9], "index 16 \\+ 18 is beyond its 16 words"),
    ],
)
def test_indexes_beyond_the_bundle_are_refused(extra, message):
    """Each index and each length is checked before it is followed."""
    body = struct.pack(f"<II{len(extra)}I", len(extra), 1, *extra) + b"\0"
    with pytest.raises(MessageError, match=message):
        ErrorBundle.parse(body)


def test_a_lying_column_does_not_fill_the_memory():
    """A column or span of four thousand millions is shown as some other, not as so many blanks."""
    bundle = Bundle()
    huge = 2**32 - 1
    column = bundle.message("x", location=bundle.location(line="a", column=huge))
    before = bundle.message("x", location=bundle.location(line="a", column=huge, main=huge))
    after = bundle.message("x", location=bundle.location(line="a", end=huge))
    assert parses(bundle.body(column, before, after))


@given(st.binary(max_size=200))
def test_random_bytes_raise_message_errors_only(body):
    """No body makes the reader raise anything else."""
    parses(body)


@given(
    st.lists(st.one_of(st.integers(0, 40), st.integers(0, 2**32 - 1)), max_size=60), st.binary(max_size=30)
)
def test_random_words_raise_message_errors_only(extra, strings):
    """Nor does one whose lengths are right, which gets further."""
    parses(struct.pack(f"<II{len(extra)}I", len(extra), len(strings), *extra) + strings)
