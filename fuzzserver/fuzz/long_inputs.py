"""Long inputs for the fuzzers since Zig 0.16, which prefer short ones.

Of inputs that reach the same code, those fuzzers keep the one that asks for the fewest values, so that what
only shows in a long one is out of their reach: a list that is moved once it has some thousand items, say.
(Zig: ``Quality`` of ``lib/fuzzer.zig``.) So now and then, a test is given inputs that were found, joined to
a long one. It is run, and forgotten if it fails nowhere and reaches nothing new.

What ``Smith`` has made ends with the answer of ``eos``, one byte, that nothing follows. Without that byte,
the next input goes on where this one ends. (Zig: ``eosWeightedWithHash`` of ``std/testing/Smith.zig``.)
"""

from random import Random

from fuzzserver.corpus import Corpus
from fuzzserver.errors import InputError

__all__ = ["LongInputs"]

RUNS = 1000
"""Runs of a test from one long input to the next: so they take a small part of its time, whether it is quick
or slow."""

MAX_KINDS = 16
"""Different inputs in a long one: reading them takes time."""

MIN_EXPONENT, MAX_EXPONENT = 8, 15
"""Long inputs have at least 256 bytes to 32 KiB, all orders of magnitude equally often."""

END = b"\1"
"""``eos`` said yes."""


class LongInputs:
    """Makes them of the corpus of a test. Used by one thread."""

    def __init__(self, corpus: Corpus, seed: int) -> None:
        """``corpus`` has inputs of ``Smith``, with numbers from 0 on."""
        self._corpus = corpus
        self._random = Random(seed)
        self._runs = 0
        self._known = 0
        """So many inputs were there when it was last looked."""

    def after(self, runs: int) -> bytes:
        """So many runs later: a long input, or an empty one, if it is too early or no input is known."""
        self._runs += runs
        if self._runs < RUNS:
            return b""
        self._runs = 0
        return self._make()

    def _make(self) -> bytes:
        size = int(2 ** self._random.uniform(MIN_EXPONENT, MAX_EXPONENT))
        drawn = [self._draw().removesuffix(END) for _ in range(self._random.randint(1, MAX_KINDS))]
        kinds = [data for data in drawn if 0 < len(data) < size]
        joined = bytearray()
        while kinds and len(joined) < size:
            joined += self._random.choice(kinds)
        return bytes(joined) + END if joined else b""

    def _draw(self) -> bytes:
        """An input of the corpus. Often an empty one: about every second draw looks for what is new."""
        number = self._random.randrange(2 * self._known + 1)
        try:
            data = self._corpus.input(number)
        except InputError:
            self._known = min(self._known, number)
            return b""
        self._known = max(self._known, number + 1)
        return data
