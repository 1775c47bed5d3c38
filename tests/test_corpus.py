"""The fuzzer's inputs: files cut to size, seeds taken in, finds kept."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzzserver import corpus as module
from fuzzserver.corpus import MAX_INPUT, PAGE, Corpus, SharedCorpus, corpus_of
from fuzzserver.errors import InputError
from fuzzserver.fuzz.turns import Turn, Turns
from fuzzserver.fuzz.worker import FuzzTest, FuzzWorker, WorkerLimits
from fuzzserver.wire.release import NEWEST, OLDEST
from fuzzserver.zig.compile_client import ZigCompileClient
from fuzzserver.zig.process import ChildGroup
from tests.support_fuzzing import lively

pytestmark = pytest.mark.usefixtures("nothing_left")

KEPT = st.binary(min_size=1, max_size=40)


def make(folder: Path, files: dict[int, bytes]) -> Corpus:
    """A corpus with these files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, data in files.items():
        (folder / str(number)).write_bytes(data)
    return Corpus(folder, "main.zig", "main.test.fuzz")


def padded(data: bytes) -> bytes:
    """As the fuzzer leaves it."""
    return data.ljust(PAGE * (len(data) // PAGE + 1), b"\0")


def files(folder: Path) -> dict[str, bytes]:
    """What a folder holds."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_tidy(tmp_path: Path) -> None:
    """What a first worker leaves is cut, numbered without a gap, and rid of what was tried last."""
    corpus = make(tmp_path, {0: padded(b"a\0b"), 2: padded(b"c"), 10: padded(b"d"), 11: padded(b"tried")})
    corpus.tidy()
    assert files(tmp_path) == {"0": b"a\0b", "1": b"c", "2": b"d"}


def test_tidy_when_no_worker_ran(tmp_path: Path) -> None:
    """A worker that ended before it tried anything has left nothing that could be forgotten."""
    corpus = make(tmp_path, {0: b"a", 1: b"b"})
    for _ in range(3):
        corpus.tidy()
    assert files(tmp_path) == {"0": b"a", "1": b"b"}
    assert corpus.current_input() == b""
    assert [each.number for each in corpus.inputs()] == [0, 1]


def test_tidy_leaves_out(tmp_path: Path) -> None:
    """Empty inputs and those that are there already go, and numbers begin where they began."""
    corpus = make(tmp_path, {5: padded(b"a"), 6: padded(b""), 7: b"a", 8: b"", 9: b"b", 10: padded(b"tried")})
    corpus.tidy()
    assert files(tmp_path) == {"5": b"a", "6": b"b"}


def test_only_numbers_are_inputs(tmp_path: Path) -> None:
    """Files with other names are neither read nor removed."""
    corpus = make(tmp_path, {0: b"a"})
    (tmp_path / "notes").write_text("x")
    (tmp_path / "\N{ARABIC-INDIC DIGIT ONE}").write_text("y")
    corpus.tidy()
    assert [each.number for each in corpus.inputs()] == [0]
    assert len(files(tmp_path)) == 3


def test_no_folder(tmp_path: Path) -> None:
    """Before the first worker there is nothing."""
    corpus = Corpus(tmp_path / "none", "main.zig", "main.test.fuzz")
    corpus.tidy()
    corpus.stir()
    assert (corpus.inputs(), corpus.current_input(), corpus.first_number) == ([], b"", None)
    assert not (tmp_path / "none").exists()


@given(st.lists(KEPT, max_size=8), st.binary(max_size=40), st.integers(0, 4))
def test_tidy_keeps_every_input(tmp_path_factory, kept: list[bytes], tried: bytes, first: int) -> None:
    """Whatever was kept is there, once, but for zeros at its end; a second time changes nothing."""
    folder = tmp_path_factory.mktemp("corpus")
    numbers = [first, *range(first + 2, first + 2 + len(kept))]
    corpus = make(folder, dict(zip(numbers, map(padded, [*kept, tried]), strict=True)))
    assert corpus.current_input() == padded(tried)
    corpus.tidy()
    trimmed = [data.rstrip(b"\0") for data in kept]
    expected = list(dict.fromkeys(data for data in trimmed if data))
    assert [corpus.input(each.number) for each in corpus.inputs()] == expected
    assert [each.number for each in corpus.inputs()] == list(range(first, first + len(expected)))
    assert [each.size for each in corpus.inputs()] == list(map(len, expected))
    before = files(folder)
    corpus.tidy()
    assert files(folder) == before


def test_current_input_with_untouched_files_behind(tmp_path: Path) -> None:
    """If the test names fewer inputs than it did, the fuzzer's file comes before those of earlier workers."""
    corpus = make(tmp_path, {1: padded(b"tried"), 2: b"a", 3: b"b"})
    assert corpus.current_input() == padded(b"tried")
    corpus.tidy()
    assert files(tmp_path) == {"1": b"a", "2": b"b"}


def test_add(tmp_path: Path) -> None:
    """New inputs get the next numbers; known and empty ones none."""
    corpus = make(tmp_path, {3: b"a", 4: b"b"})
    assert corpus.add([b"c", b"a", b"", b"c", b"d"], 99) == 2
    assert files(tmp_path) == {"3": b"a", "4": b"b", "5": b"c", "6": b"d"}
    assert make(tmp_path / "empty", {}).add([b"x"], 7) == 1
    assert files(tmp_path / "empty") == {"7": b"x"}


def test_stir(tmp_path: Path) -> None:
    """A random input is there until the next tidy, and each time another one."""
    corpus = make(tmp_path, {0: b"a"})
    seen = set()
    for _ in range(5):
        corpus.stir()
        random = corpus.input(1)
        assert corpus.is_stirred(random) and not corpus.is_stirred(b"a")
        seen.add(random)
        make(tmp_path, {2: padded(b"tried")})
        corpus.tidy()
        assert files(tmp_path) == {"0": b"a"}
    assert len(seen) > 1


def test_number_is_remembered(tmp_path: Path) -> None:
    """Where the fuzzer begins to count is known even when all inputs are gone."""
    corpus = make(tmp_path, {2: padded(b"tried")})
    corpus.tidy()
    assert files(tmp_path) == {}
    assert corpus.first_number == 2
    corpus.stir()
    assert list(files(tmp_path)) == ["2"]


def test_input_that_is_not_there(tmp_path: Path) -> None:
    """The error names test and number."""
    corpus = make(tmp_path, {0: b"a"})
    assert corpus.input(0) == b"a"
    with pytest.raises(InputError, match=r"the corpus of 'main\.test\.fuzz' has no input 1"):
        corpus.input(1)


def make_exact(cache: Path, files: dict[str, bytes]) -> Corpus:
    """A corpus of Zig 0.17's with these files."""
    corpus = corpus_of(NEWEST, cache, "main.zig", "main.test.fuzz a/b")
    corpus.folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (corpus.folder / name).write_bytes(data)
    return corpus


LOCKS = {"readlock": b"", "synclock": b""}


def test_folder_of_a_test(tmp_path: Path) -> None:
    """Zig 0.17 really named the folder of ``faults.test.passes`` like this; 0.15 takes the test's name."""
    new = corpus_of(NEWEST, tmp_path, "main.zig", "faults.test.passes")
    assert new.folder == tmp_path / "f" / "8424cbe0091a8950"
    old = corpus_of(OLDEST, tmp_path, "main.zig", "faults.test.passes")
    assert old.folder == tmp_path / "f" / "faults.test.passes"
    assert (old.form, new.form) == ("bytes", "smith")
    assert corpus_of(NEWEST, tmp_path, "main.zig", "../" + 300 * "x").problem is None


def test_exact_tidy(tmp_path: Path) -> None:
    """Numbers are hexadecimal and without gaps, inputs as they are, zeros at the end included, locks left."""
    corpus = make_exact(tmp_path, {**LOCKS, "0": b"a\0", "2": b"b", "9": b"", "a": b"c" * PAGE, "10": b"d"})
    assert [(each.number, each.size) for each in corpus.inputs()] == [
        *((0, 2), (2, 1), (9, 0), (10, PAGE), (16, 1)),
    ]
    corpus.tidy()
    assert files(corpus.folder) == {**LOCKS, "0": b"a\0", "1": b"b", "2": b"c" * PAGE, "3": b"d"}
    assert corpus.current_input() == b""
    corpus.stir()
    assert corpus.add([b"a", b"d", b"e"], 0) == 2
    assert corpus.input(4) == b"a"
    assert len(files(corpus.folder)) == 8


def test_names_of_no_inputs(tmp_path: Path) -> None:
    """The fuzzer writes neither capitals nor zeros in front."""
    corpus = make_exact(tmp_path, {"00": b"a", "A": b"b", "123456789": b"c", "f": b"d"})
    assert [each.number for each in corpus.inputs()] == [15]


def test_forgotten_inputs(tmp_path: Path) -> None:
    """An input that breaks each worker at its start goes, and those behind it take its place."""
    corpus = make_exact(tmp_path, {"0": b"a", "1": b"bad", "2": b"c"})
    corpus.forget(b"bad")
    corpus.tidy()
    assert files(corpus.folder) == {"0": b"a", "1": b"c"}


def test_exact_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds are there before the first worker, and what is found is saved to its last byte."""
    monkeypatch.setattr(module, "EXPORT_INTERVAL", 0.0)
    user = shared(tmp_path / "seeds", {"one": b"1\0"})
    corpus = make_exact(tmp_path, {})
    assert user.exchange(corpus), "nothing needs to be known of the fuzzer first"
    user.give(corpus)
    assert files(corpus.folder) == {"0": b"1\0"}
    make_exact(tmp_path, {"1": b"found\0"})
    assert not user.exchange(corpus)
    assert list(files(tmp_path / "seeds" / "main.test.fuzz a%2Fb").values()) == [b"found\0"]


def shared(folder: Path, seeds: dict[str, bytes]) -> SharedCorpus:
    """A user's folder with these files."""
    for name, data in seeds.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return SharedCorpus(folder, "main.test.fuzz a/b")


def test_seeds(tmp_path: Path) -> None:
    """Seeds for all tests and for this one are given once, when it is known how the fuzzer counts."""
    folder = tmp_path / "seeds"
    seeds = {
        "one": b"1",
        "big": b"x" * (MAX_INPUT + 1),
        "main.test.fuzz a%2Fb/two": b"2",
        "main.test.other/three": b"3",
    }
    user = shared(folder, seeds)
    corpus = Corpus(tmp_path / "f", "main.zig", "main.test.fuzz a/b")
    assert not user.exchange(corpus)
    user.give(corpus)
    make(tmp_path / "f", {4: padded(b"tried")})
    assert user.exchange(corpus)
    corpus.tidy()
    user.give(corpus)
    assert files(tmp_path / "f") == {"4": b"x" * MAX_INPUT, "5": b"1", "6": b"2"}
    assert not user.exchange(corpus)
    (folder / "later").write_bytes(b"4")
    user.give(corpus)
    assert len(files(tmp_path / "f")) == 3


def test_finds_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the fuzzer keeps is saved, under a name made from the content; what it tries is not."""
    monkeypatch.setattr(module, "EXPORT_INTERVAL", 0.0)
    user = shared(tmp_path / "seeds", {"one": b"1"})
    corpus = make(tmp_path / "f", {0: padded(b"tried")})
    assert user.exchange(corpus)
    corpus.tidy()
    user.give(corpus)
    corpus.stir()
    number = max(map(int, files(tmp_path / "f"))) + 1
    make(tmp_path / "f", {number: padded(b"found"), number + 1: padded(b"tried")})
    assert not user.exchange(corpus)
    folder = tmp_path / "seeds" / "main.test.fuzz a%2Fb"
    name = hashlib.sha256(b"found").hexdigest()[:16]
    assert files(folder) == {name: b"found"}, "seeds of all tests are no finds of this one"
    (folder / name).unlink()
    user.save(corpus)
    assert files(folder) == {}, "what a user removes stays away"


def test_seeds_before_saving(tmp_path: Path) -> None:
    """A folder that cannot be written can be read: seeds are given first, then the error is told."""
    user = shared(tmp_path / "seeds", {"one": b"1", "main.test.fuzz a%2Fb": b"in the place of a folder"})
    corpus = make(tmp_path / "f", {0: padded(b"a"), 2: padded(b"tried")})
    assert user.exchange(corpus)
    corpus.tidy()
    user.give(corpus)
    with pytest.raises(InputError, match=r"cannot write '.*/seeds/main\.test\.fuzz a%2Fb/[0-9a-f]{16}': "):
        user.exchange(corpus)
    assert b"1" in files(tmp_path / "f").values()


@pytest.mark.parametrize(("name", "reason"), [("none", "does not exist"), ("file", "is no folder")])
def test_folder_that_is_none(tmp_path: Path, name: str, reason: str) -> None:
    """A folder that the user named and that is none is an error at once."""
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"^corpus folder '{tmp_path / name}' {reason}$"):
        SharedCorpus(tmp_path / name, "test")


def fuzz(test: FuzzTest, cache: Path, enough: Callable[[FuzzWorker], bool]) -> None:
    """Run one real worker until it did enough."""
    turn = Turn(Turns(1))
    turn.take()

    def look() -> None:
        if enough(worker):
            worker.end()

    with ChildGroup() as children:
        worker = FuzzWorker(
            children,
            test,
            cache,
            cache.parent,
            1,
            WorkerLimits(),
            turn,
            post=lambda _: None,
            set_state=lambda _: None,
            look=look,
            said=lambda _: None,
        )
        assert worker.run().why == "asked"


def test_real_worker(client: ZigCompileClient, work: Path, tmp_path: Path) -> None:
    """A worker leaves padded files; tidied, the next one reads all of them and goes on after them."""
    _, test = lively(client, work, "fuzz many")
    folder = tmp_path / "cache" / "f" / test.name
    corpus = Corpus(folder, "lively.zig", test.name)
    fuzz(test, tmp_path / "cache", lambda _: len(corpus.inputs()) >= 8)
    numbers = sorted(map(int, files(folder)))
    assert numbers[:2] == [0, 2], "the fuzzer leaves out a number"
    assert all(len(data) % PAGE == 0 for data in files(folder).values())
    kept = [corpus.input(each.number) for each in corpus.inputs()]
    corpus.tidy()
    assert [data for _, data in sorted(files(folder).items(), key=lambda item: int(item[0]))] == kept
    fuzz(test, tmp_path / "cache", lambda worker: worker.total_runs > 0 and corpus.current_input() != b"")
    assert sorted(map(int, files(folder)))[: len(kept) + 1] == list(range(len(kept) + 1))
    assert [corpus.input(number) for number in range(len(kept))] == kept
    assert os.path.getsize(folder / str(len(kept))) % PAGE == 0
