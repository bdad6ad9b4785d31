"""The layout of the memory that a supervisor shares with its workers: a page of words, then one counter region a slot.

Every word is an unsigned 64-bit number, aligned, written by one process only, so a reader sees the old or the new value
and never a mixture. The first two words belong to the supervisor, a heartbeat to the worker in that slot.
"""

from __future__ import annotations

from proxy.region import REGION_BYTES

MAX_SLOTS = 64  # as many as ProxySettings.workers allows
WORDS_BYTES = 4096

PLAN_SEQUENCE = 0
LATCH = 1
_HEARTBEATS = 8  # from here one a slot; the words between are free


def size(slots: int) -> int:
    """Bytes of the memory for this many worker slots, 1-64."""
    return WORDS_BYTES + slots * REGION_BYTES


def region(memory: memoryview, slot: int) -> memoryview:
    """The counter region of one slot, as `counters.Counters` and `counters.read` take it."""
    start = WORDS_BYTES + slot * REGION_BYTES
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

    def beat(self, slot: int, now_ms: int) -> None:
        """Note that the worker in a slot is alive.

        Args:
            slot: The worker's own.
            now_ms: Its monotonic milliseconds: two beats must differ.
        """
        self.cells[_HEARTBEATS + slot] = now_ms

    def heartbeat(self, slot: int) -> int:
        """The last beat of a slot, 0 before the first."""
        return self.cells[_HEARTBEATS + slot]
