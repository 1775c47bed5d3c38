"""Long inputs made of those that were found: of what, how long, and how often."""

import re

import pytest

from fuzzserver.corpus import ExactCorpus
from fuzzserver.fuzz.long_inputs import MAX_EXPONENT, MAX_KINDS, MIN_EXPONENT, RUNS, LongInputs


@pytest.fixture
def corpus(tmp_path) -> ExactCorpus:
    """One without inputs."""
    return ExactCorpus(tmp_path / "corpus", "target", "test", "smith")


def test_joined(corpus: ExactCorpus) -> None:
    """They go on where one that was found ends, and only the last one says that this is the end."""
    corpus.add([b"\1", b"\0one\1", b"\0\1", b"\0eleven\1", b"\0not the end"], 0)
    long_inputs = LongInputs(corpus, 1)
    made = [data for data in (long_inputs.after(RUNS) for _ in range(200)) if data]
    assert all(re.fullmatch(rb"(\0(one|eleven|not the end)?)+\x01", data) for data in made)
    assert {size for size in (300, 1000, 3000, 10_000) if any(len(data) > size for data in made)} == {
        300, 1000, 3000, 10_000,
    }  # fmt: skip
    assert all(1 << MIN_EXPONENT <= len(data) < (1 << MAX_EXPONENT) + 20 for data in made)
    kinds = [set(re.findall(rb"\0[a-z ]*", data)) for data in made]
    assert {1, 4} <= {len(each) for each in kinds}
    other = LongInputs(corpus, 2)
    assert made != [data for data in (other.after(RUNS) for _ in range(200)) if data]


def test_they_are_rare(corpus: ExactCorpus) -> None:
    """However quick or slow the test is."""
    corpus.add([b"\0one\1"], 0)
    long_inputs = LongInputs(corpus, 1)
    while not long_inputs.after(RUNS):  # It has not found the input yet.
        pass
    made = [runs for runs in range(1, 50 * RUNS + 1) if long_inputs.after(1)]
    assert set(made) <= set(range(RUNS, 50 * RUNS + 1, RUNS))
    assert len(made) > 25


def test_corpus_changes(corpus: ExactCorpus) -> None:
    """Nothing comes of nothing; what is new is used soon, and what the fuzzer has removed is not any more."""
    long_inputs = LongInputs(corpus, 1)
    assert [long_inputs.after(RUNS) for _ in range(20)] == [b""] * 20
    numbers = range(100)
    corpus.add([b"\0%d\1" % number for number in numbers], 0)
    used = set(b"".join(long_inputs.after(RUNS) for _ in range(300)).replace(b"\1", b"").split(b"\0")[1:])
    assert used == {b"%d" % number for number in numbers}
    for number in numbers[2:]:
        (corpus.folder / f"{number:x}").unlink()
    for _ in range(MAX_KINDS):
        long_inputs.after(RUNS)
    used = set(b"".join(long_inputs.after(RUNS) for _ in range(20)).replace(b"\1", b"").split(b"\0")[1:])
    assert used == {b"0", b"1"}


def test_inputs_that_are_long_already(corpus: ExactCorpus) -> None:
    """They are left as they are."""
    corpus.add([bytes(1 << MAX_EXPONENT)], 0)
    long_inputs = LongInputs(corpus, 1)
    assert [long_inputs.after(RUNS) for _ in range(20)] == [b""] * 20
