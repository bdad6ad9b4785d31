"""Two small summaries that can be added up over workers and replicas: a histogram of seconds, and distinct users.

The histogram is log-linear: every octave of time is cut into 16 equal cells, so that the middle of a cell is at most
3.2 % away from any value in it, from a microsecond to two minutes. Distinct users are HyperLogLog registers (Flajolet
et al., 2007) merged by maximum: 4,096 registers have a standard error of 1.6 %, 1,024 have 3.3 %, and both less than
that below some thousand users. A user key is a keyed hash or random already, so it is not hashed again.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Final

OCTAVE_CELLS: Final = 16  # a middle is then at most 1/32 away: the 5 % that design.md allows, with room
LOWEST_OCTAVE: Final = -20  # 2**-20 s is a microsecond
OCTAVES: Final = 27  # up to 128 s: a response head may take 60 s twice, once retried
EDGES_S: Final = [
    math.ldexp(OCTAVE_CELLS + part, octave) / OCTAVE_CELLS
    for octave in range(LOWEST_OCTAVE, LOWEST_OCTAVE + OCTAVES)
    for part in range(OCTAVE_CELLS)
]
EDGES_S.append(math.ldexp(1, LOWEST_OCTAVE + OCTAVES))
CELLS: Final = len(EDGES_S) + 1  # cell 0 lies below the first edge, the last one above the last edge

_PAIR: Final = Struct("<QQ")


def cell(seconds: float) -> int:
    """The cell of a duration: 0 to ``CELLS - 1``. Cost: 0.1 us."""
    return bisect_right(EDGES_S, seconds)


def bounds(cell: int) -> tuple[float, float]:
    """Seconds where a cell begins and where the next one does; the last ends at infinity."""
    return (EDGES_S[cell - 1] if cell else 0.0, EDGES_S[cell] if cell < CELLS - 1 else math.inf)


def middle(cell: int) -> float:
    """The value that stands for all of a cell; the last cell's is its lower bound."""
    low, high = bounds(cell)
    return low if math.isinf(high) else (low + high) / 2


def quantile(cells: Iterable[tuple[int, int]], q: float) -> float | None:
    """The duration that a share ``q`` of all counted ones does not exceed.

    Args:
        cells: Pairs of cell and count, in any order, a cell at most once.
        q: 0 to 1.

    Returns:
        Seconds, at most 3.2 % off between a microsecond and 128 s; None if nothing was counted.
    """
    ordered = sorted(cells)
    rank = max(1, math.ceil(q * sum(count for _, count in ordered)))
    for index, count in ordered:
        rank -= count
        if rank <= 0 and count:
            return middle(index)
    return None


def place(key: bytes) -> tuple[int, int]:
    """Where a user key counts: a number whose low bits choose the register, and the rank to raise that register to.

    Args:
        key: 16 uniform bytes.

    Returns:
        A number below 2**64 (register ``number % registers``, for any power of two), and a rank of 1-65.
    """
    number, rest = _PAIR.unpack(key)
    return number, 65 - rest.bit_length()


def add(registers: bytearray | memoryview, key: bytes) -> None:
    """Count one user.

    Args:
        registers: One byte each; their number is a power of two.
        key: 16 uniform bytes.
    """
    number, rank = place(key)
    index = number & (len(registers) - 1)
    if registers[index] < rank:
        registers[index] = rank


def merge(sets: Sequence[bytes]) -> bytes:
    """The registers of the union: the greatest of each. Never summed, so a user seen twice is one user.

    Args:
        sets: Registers of one size; not empty.
    """
    merged = sets[0]
    for other in sets[1:]:
        merged = bytes(map(max, merged, other))
    return merged


def estimate(registers: bytes) -> int:
    """How many distinct users were counted, rounded; exact zero for none.

    Args:
        registers: 128 registers or more, one byte each.

    Source: Ertl, New cardinality estimation algorithms for HyperLogLog sketches (2017), algorithm 6. The formula of
    2007 with linear counting for small numbers is 2 % too high where it changes over, at 2.5 users a register.
    """
    size = len(registers)
    harmonic = sum(registers.count(rank) / (1 << rank) for rank in set(registers) if rank)
    harmonic += size * _sigma(registers.count(0) / size)
    return round(size * size / (2 * math.log(2) * harmonic))


def _sigma(x: float) -> float:
    """What the share of empty registers stands for: x + x**2 + 2 x**4 + 4 x**8 + ..., endless for 1."""
    total, power, weight = x, x * x, 1.0
    while power * weight > total * 1e-12:
        total += power * weight
        power *= power
        weight += weight
        if x == 1:
            return math.inf
    return total
