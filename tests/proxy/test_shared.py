"""The words that steer all workers, and where each slot's region lies."""

from __future__ import annotations

from proxy import shared
from proxy.region import REGION_BYTES


def test_words_start_at_zero_and_are_seen_by_everybody_who_maps_them() -> None:
    """Zero is: no plan yet, no abort, no heartbeat."""
    memory = memoryview(bytearray(shared.size(2)))
    mine, theirs = shared.Words(memory), shared.Words(memory)
    assert (mine.plan_sequence, mine.latch, mine.heartbeat(0)) == (0, 0, 0)
    mine.plan_sequence, mine.latch = 7, 3
    mine.beat(1, 1234)
    assert (theirs.plan_sequence, theirs.latch, theirs.heartbeat(1)) == (7, 3, 1234)
    assert (theirs.cells[shared.PLAN_SEQUENCE], theirs.cells[shared.LATCH]) == (7, 3)


def test_every_word_holds_64_bits() -> None:
    """A sequence never wraps in practice."""
    words = shared.Words(memoryview(bytearray(shared.size(1))))
    words.latch = 2**64 - 1
    assert words.latch == 2**64 - 1


def test_no_two_parts_overlap() -> None:
    """The last slot's heartbeat, and every region, have bytes of their own and end with the memory."""
    memory = memoryview(bytearray(shared.size(shared.MAX_SLOTS)))
    words = shared.Words(memory)
    for slot in range(shared.MAX_SLOTS):
        words.beat(slot, slot + 1)
        region = shared.region(memory, slot)
        assert not any(region)
        region[:] = bytes([slot + 1]) * REGION_BYTES
    assert [words.heartbeat(slot) for slot in range(shared.MAX_SLOTS)] == list(range(1, shared.MAX_SLOTS + 1))
    assert (words.plan_sequence, words.latch) == (0, 0)
    assert all(set(shared.region(memory, slot)) == {slot + 1} for slot in range(shared.MAX_SLOTS))
