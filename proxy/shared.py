"""The layout of the memory that a supervisor shares with its workers: a page of words, then one counter region a place.

A worker has a place of its own for as long as it lives: during a reload two workers share the sockets of one slot, but
never a place. Every word is an unsigned 64-bit number, aligned, written by one process only, so a reader sees the old
or the new value and never a mixture. The first words belong to the supervisor, a heartbeat to the worker in that place.
The page of words is read by workers of an earlier version after an upgrade: it stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from proxy import region as layout
from proxy.region import REGION_BYTES, identity
from proxy.sketch import CELLS

WORDS_BYTES = 4096

PLAN_SEQUENCE: Final = 0
LATCH: Final = 1
_LAYOUT = 2
_HEARTBEATS = 8  # from here one a place; the words between are free
MAX_PLACES = WORDS_BYTES // 8 - _HEARTBEATS  # 504: seven generations of 64 workers and some

# Stands for how the regions read: a supervisor goes on with the numbers of memory that has the same.
LAYOUT_ID = identity(
    "1",  # to be raised where numbers come to mean something else at the same place
    *map(str, (REGION_BYTES, layout.SERIES, layout.HISTOGRAMS, CELLS, layout.ARMS, layout.LABEL_BYTES)),
    *map(str, (layout.REGISTERS, layout.EPOCHS, layout.EPOCH_S, layout.EPOCH_REGISTERS)),
)


def size(places: int) -> int:
    """Bytes of the memory for this many workers at once, 1-504."""
    return WORDS_BYTES + places * REGION_BYTES


def places(memory: memoryview) -> int:
    """For how many workers there is room."""
    return (memory.nbytes - WORDS_BYTES) // REGION_BYTES


def region(memory: memoryview, place: int) -> memoryview:
    """The counter region of one place, as `counters.Counters` and `counters.read` take it."""
    start = WORDS_BYTES + place * REGION_BYTES
    return memory[start : start + REGION_BYTES]


class Words:
    """The words that steer all workers at once.

    Attributes:
        cells: The words themselves. ``cells[PLAN_SEQUENCE]`` and ``cells[LATCH]`` are read at each request, which costs
            25 ns this way and 60 ns as a property.
    """

    __slots__ = ("cells",)

    def __init__(self, memory: memoryview) -> None:
        self.cells = memory[:WORDS_BYTES].cast("Q")

    @property
    def plan_sequence(self) -> int:
        """Which staged plan is in force; 0: none yet."""
        return self.cells[PLAN_SEQUENCE]

    @plan_sequence.setter
    def plan_sequence(self, sequence: int) -> None:
        self.cells[PLAN_SEQUENCE] = sequence

    @property
    def latch(self) -> int:
        """0, or the number of the abort that stands: then everybody is on stable, whatever the plan says."""
        return self.cells[LATCH]

    @latch.setter
    def latch(self, sequence: int) -> None:
        self.cells[LATCH] = sequence

    @property
    def layout(self) -> int:
        """How the regions behind this page read, a `LAYOUT_ID`; 0 in new memory."""
        return self.cells[_LAYOUT]

    @layout.setter
    def layout(self, number: int) -> None:
        self.cells[_LAYOUT] = number

    def beat(self, place: int, now_ms: int) -> None:
        """Note that the worker in a place is alive.

        Args:
            place: The worker's own.
            now_ms: Its monotonic milliseconds: two beats must differ.
        """
        self.cells[_HEARTBEATS + place] = now_ms

    def heartbeat(self, place: int) -> int:
        """The last beat of a place, 0 before the first."""
        return self.cells[_HEARTBEATS + place]


class Board:
    """The first words as their one writer sees them: in the memory in use, and in what earlier workers look at.

    Those of before an upgrade that changed the layout keep their memory; an abort must reach them all the same.
    """

    def __init__(self, words: Words, earlier: Iterable[Words] = ()) -> None:
        self._all = (words, *earlier)

    @property
    def plan_sequence(self) -> int:
        """As of `Words`."""
        return self._all[0].plan_sequence

    @plan_sequence.setter
    def plan_sequence(self, sequence: int) -> None:
        for words in self._all:
            words.plan_sequence = sequence

    @property
    def latch(self) -> int:
        """As of `Words`."""
        return self._all[0].latch

    @latch.setter
    def latch(self, sequence: int) -> None:
        for words in self._all:
            words.latch = sequence
