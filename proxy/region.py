"""The layout of one counter region: a directory of labels and, beside it, the numbers.

In this order: a header of words, labels and cells of the series, labels and cells of the histograms, names and
registers of the user sets. Words and cells are aligned signed 64-bit numbers: a reader sees the old or the new one,
never a mixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from proxy.sketch import CELLS

SERIES: Final = 2048  # two arms, 30 reasons, two sources and 15 codes are 1,800
SPARE: Final = 128  # of them for what has few labels: outcomes of requests that found no room, retries, gauges
HISTOGRAMS: Final = 32  # three arms and four sources are 15
ARMS: Final = 4  # user sets; a plan has at most three arms
REGISTERS: Final = 4096  # of one arm and revision: 1.6 % standard error
EPOCHS: Final = 12  # the last two minutes
EPOCH_S: Final = 10
EPOCH_REGISTERS: Final = 1024  # of one arm and epoch: 3.3 % standard error
FAILURE_CELLS: Final = 64  # of one arm: users whose answers failed, told apart well enough to count up to a dozen
LABEL_BYTES: Final = 192  # the longest series needs 160

# Words of the header.
ROLLOUT: Final = 0  # whose numbers these are: a hash of the rollout's uid
TRIAL: Final = 1  # whose users: a hash of uid and revision
SERIES_COUNT: Final = 2
HISTOGRAM_COUNT: Final = 3
ARM_COUNT: Final = 4
CONNECTIONS: Final = 5
LOG_DROPPED: Final = 6

_HEADER_BYTES: Final = 64
_SERIES: Final = _HEADER_BYTES
_CELLS: Final = _SERIES + SERIES * LABEL_BYTES
_HISTOGRAMS: Final = _CELLS + SERIES * 8
_TIMES: Final = _HISTOGRAMS + HISTOGRAMS * LABEL_BYTES
_ARMS: Final = _TIMES + HISTOGRAMS * CELLS * 8
_USERS: Final = _ARMS + ARMS * LABEL_BYTES
_USER_BYTES: Final = (EPOCHS + FAILURE_CELLS) * 8 + REGISTERS + EPOCHS * EPOCH_REGISTERS
REGION_BYTES: Final = -(-(_USERS + ARMS * _USER_BYTES) // 4096) * 4096  # whole pages

Labels = tuple[str, ...]


def identity(*parts: str | None) -> int:
    """A number from 1 to 2**63 - 1 that stands for these texts in a word of the header."""
    text = "\0".join("-" if part is None else f"+{part}" for part in parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1 | 1


class Directory:
    """Labels in the order in which they were first met. Their number is a word of the header, written last."""

    def __init__(self, region: memoryview, start: int, room: int, count_word: int) -> None:
        self._labels = region[start : start + room * LABEL_BYTES]
        self._header = region[:_HEADER_BYTES].cast("q")
        self._word = count_word
        self._room = room

    def __iter__(self) -> Iterator[tuple[int, Labels]]:
        for index in range(min(self._header[self._word], self._room)):
            entry = bytes(self._labels[index * LABEL_BYTES : (index + 1) * LABEL_BYTES])
            yield index, tuple(entry[1 : 1 + entry[0]].decode("utf-8", "replace").split("\0"))

    def add(self, labels: Labels, spare: int = 0) -> int:
        """Append labels; returns their index, or -1 if they are too long or no more than ``spare`` places are left."""
        text = "\0".join(labels).encode("utf-8", "replace")
        index = self._header[self._word]
        if index >= self._room - spare or len(text) >= LABEL_BYTES:
            return -1
        start = index * LABEL_BYTES
        self._labels[start : start + 1 + len(text)] = bytes((len(text),)) + text
        self._header[self._word] = index + 1  # last: a reader, or the next writer, sees an entry whole or not at all
        return index

    def clear(self) -> None:
        """Forget all labels; what they stood for must be cleared beside."""
        self._header[self._word] = 0


class UserSet:
    """The registers of one arm: for the whole revision, and for each of the last epochs.

    Attributes:
        epoch: The epoch that ``window`` is for, -1 before the first `turn`.
        failures: Failed answers by a few bits of the user key.
    """

    __slots__ = ("epoch", "epochs", "failures", "ring", "total", "window")

    def __init__(self, region: memoryview, index: int) -> None:
        start = _USERS + index * _USER_BYTES
        self.epochs = region[start : start + EPOCHS * 8].cast("q")
        start += EPOCHS * 8
        self.failures = region[start : start + FAILURE_CELLS * 8].cast("q")
        start += FAILURE_CELLS * 8
        self.total = region[start : start + REGISTERS]
        self.ring = region[start + REGISTERS : start + REGISTERS + EPOCHS * EPOCH_REGISTERS]
        self.window = self.registers(0)
        self.epoch = -1

    def registers(self, position: int) -> memoryview:
        """The registers at one position of the ring."""
        return self.ring[position * EPOCH_REGISTERS : (position + 1) * EPOCH_REGISTERS]

    def turn(self, epoch: int) -> None:
        """Make ``window`` the registers of an epoch, dropping those of an older one that had the same position."""
        position = epoch % EPOCHS
        self.window = self.registers(position)
        if self.epochs[position] != epoch:
            self.epochs[position] = 0  # a reader leaves them out until they are the new ones
            self.window[:] = bytes(EPOCH_REGISTERS)
            self.epochs[position] = epoch
        self.epoch = epoch

    def clear(self) -> None:
        """Forget everybody."""
        for position in range(EPOCHS):
            self.epochs[position] = 0
        for cell in range(FAILURE_CELLS):
            self.failures[cell] = 0
        self.total[:] = bytes(REGISTERS)
        self.epoch = -1


class Region:
    """All parts of one region.

    Attributes:
        header: Words, by the constants above.
        series, cells: Labels of the series, and their numbers by the same index.
        histograms, times: Labels of the histograms, and `sketch.CELLS` numbers for each.
        arms: Names of the user sets, by the index that `users` takes.
    """

    __slots__ = ("_memory", "arms", "cells", "header", "histograms", "series", "times")

    def __init__(self, memory: memoryview) -> None:
        self._memory = memory
        self.header = memory[:_HEADER_BYTES].cast("q")
        self.series = Directory(memory, _SERIES, SERIES, SERIES_COUNT)
        self.cells = memory[_CELLS:_HISTOGRAMS].cast("q")
        self.histograms = Directory(memory, _HISTOGRAMS, HISTOGRAMS, HISTOGRAM_COUNT)
        self.times = memory[_TIMES:_ARMS].cast("q")
        self.arms = Directory(memory, _ARMS, ARMS, ARM_COUNT)

    def users(self, index: int) -> UserSet:
        """The user set at an index below `ARMS`."""
        return UserSet(self._memory, index)
