"""Memory shared by inheritance: a memfd that no path names and nobody can unlink, gone with its last process."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable

from proxy import shared
from proxy.shared import LAYOUT_ID, Board, Words


def create(size: int) -> int:
    """A descriptor of ``size`` zero bytes; pass it on to a child and `attach` it there."""
    descriptor = os.memfd_create("cohort", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, size)
    return descriptor


def grow(descriptor: int, size: int) -> None:
    """Make room for ``size`` bytes at least. What is mapped already stays valid, and sees none of what is new."""
    if os.fstat(descriptor).st_size < size:
        os.ftruncate(descriptor, size)


def attach(descriptor: int) -> memoryview:
    """Map all of it, writable, for as long as the view or one made from it lives."""
    return memoryview(mmap.mmap(descriptor, os.fstat(descriptor).st_size))


class SharedMemory:
    """The memory in use, and what workers of before an upgrade look at if its layout was another.

    Attributes:
        descriptor: Of the memory in use, and ``view`` its mapping.
        board: The words that steer all workers.
        is_new: Its numbers begin at zero.

    Args:
        inherited: What was in use before, with the same or another layout; None at a first start.
        mapped: Descriptors that workers of before have mapped, ``inherited`` among them or not.
    """

    def __init__(self, inherited: int | None = None, mapped: Iterable[int] = ()) -> None:
        self._earlier = {descriptor: Words(attach(descriptor)) for descriptor in set(mapped)}
        self.is_new = inherited is None or Words(attach(inherited)).layout != LAYOUT_ID
        if inherited is None or self.is_new:
            self.descriptor = create(shared.size(0))
            if inherited is not None and inherited not in self._earlier:
                os.close(inherited)
        else:
            self.descriptor = inherited
            self._earlier.pop(inherited, None)
        self._map()
        if self.is_new:
            self._take_over()

    def _map(self) -> None:
        self.view = attach(self.descriptor)
        words = Words(self.view)
        words.layout = LAYOUT_ID
        self.board = Board(words, self._earlier.values())

    def _take_over(self) -> None:
        """Plan and latch as the workers of before know them, so that their words need not change."""
        for words in self._earlier.values():
            self.board.plan_sequence, self.board.latch = words.plan_sequence, words.latch

    def reserve(self, places: int) -> None:
        """Make room for this many workers; to be called before anything else is made from ``view``."""
        grow(self.descriptor, shared.size(places))
        self._map()

    def restore(self, regions: bytes) -> None:
        """Go on with numbers that were kept; to be called before anybody counts."""
        self.view[shared.WORDS_BYTES : shared.WORDS_BYTES + len(regions)] = regions

    def regions(self) -> bytes:
        """All numbers, to be kept."""
        return bytes(self.view[shared.WORDS_BYTES :])

    def words(self, descriptor: int) -> Words:
        """The words that a worker with this memory looks at."""
        return self._earlier.get(descriptor) or Words(self.view)

    def region(self, descriptor: int, place: int) -> memoryview | None:
        """Where a worker with this memory counts; None: where nobody can read it any more."""
        return None if descriptor in self._earlier else shared.region(self.view, place)

    def close(self) -> None:
        """Let go of the descriptors."""
        for descriptor in (self.descriptor, *self._earlier):
            os.close(descriptor)
