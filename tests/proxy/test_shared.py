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
    """The last place's heartbeat, and every region, have bytes of their own and end with the memory."""
    count = 64
    memory = memoryview(bytearray(shared.size(count)))
    assert shared.places(memory) == count
    words = shared.Words(memory)
    words.layout = shared.LAYOUT_ID
    words.beat(shared.MAX_PLACES - 1, 99)
    for place in range(count):
        words.beat(place, place + 1)
        region = shared.region(memory, place)
        assert not any(region)
        region[:] = bytes([place + 1]) * REGION_BYTES
    assert [words.heartbeat(place) for place in range(count)] == list(range(1, count + 1))
    assert (words.plan_sequence, words.latch, words.layout) == (0, 0, shared.LAYOUT_ID)
    assert all(set(shared.region(memory, place)) == {place + 1} for place in range(count))


def test_an_abort_reaches_the_memory_of_earlier_workers_too() -> None:
    """F29: after an upgrade that changed the layout the old ones still look at theirs."""
    now, before = (shared.Words(memoryview(bytearray(shared.size(1)))) for _ in range(2))
    board = shared.Board(now, [before])
    board.latch, board.plan_sequence = 3, 7
    assert [(words.latch, words.plan_sequence) for words in (now, before)] == [(3, 7), (3, 7)]
    assert (board.latch, board.plan_sequence) == (3, 7)
