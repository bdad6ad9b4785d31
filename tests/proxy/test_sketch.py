"""The histogram of seconds and the distinct users."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import sketch

SECONDS = st.floats(1e-6, 127.9)


@given(SECONDS)
def test_a_middle_is_within_five_per_cent_of_every_value_in_its_cell(seconds: float) -> None:
    """design.md, the pieces, 6: relative error <= 5 %, here from a microsecond to two minutes."""
    assert abs(sketch.middle(sketch.cell(seconds)) - seconds) <= 0.033 * seconds


@given(SECONDS)
def test_a_value_lies_within_the_bounds_of_its_cell(seconds: float) -> None:
    """Bounds are closed below and open above."""
    low, high = sketch.bounds(sketch.cell(seconds))
    assert low <= seconds < high


@pytest.mark.parametrize(
    ("seconds", "cell"),
    [
        (0.0, 0),
        (-1.0, 0),
        (5e-324, 0),
        (128.0, sketch.CELLS - 1),
        (1e9, sketch.CELLS - 1),
        (math.inf, sketch.CELLS - 1),
    ],
)
def test_what_is_out_of_range_counts_at_its_end(seconds: float, cell: int) -> None:
    """A clock's oddity is a count at the edge, never an exception on the request path."""
    assert sketch.cell(seconds) == cell


def test_cells_cover_every_duration_once() -> None:
    """Each cell begins where the one before ends."""
    bounds = [sketch.bounds(cell) for cell in range(sketch.CELLS)]
    assert [low for low, _ in bounds[1:]] == [high for _, high in bounds[:-1]]
    assert (bounds[0][0], bounds[-1][1]) == (0.0, math.inf)


@given(st.lists(SECONDS, min_size=1), st.floats(0, 1))
def test_a_quantile_is_that_of_the_values_within_five_per_cent(values: list[float], q: float) -> None:
    """The smallest value that a share q does not exceed."""
    exact = sorted(values)[max(1, math.ceil(q * len(values))) - 1]
    found = sketch.quantile(_counted(values), q)
    assert found is not None
    assert abs(found - exact) <= 0.033 * exact


def _counted(values: list[float]) -> list[tuple[int, int]]:
    cells = [sketch.cell(value) for value in values]
    return [(cell, cells.count(cell)) for cell in sorted(set(cells), reverse=True)]


def test_nothing_counted_has_no_quantile() -> None:
    """No data is None, not zero: reliability.md C9."""
    assert sketch.quantile([], 0.5) is None
    assert sketch.quantile([(7, 0)], 0.5) is None


@pytest.mark.parametrize("count", [0, 1, 10, 100, 1000, 5000, 11_000, 30_000])
def test_an_estimate_is_within_four_standard_errors(count: int) -> None:
    """4,096 registers: 1.04 / sqrt(4096) = 1.6 %, over all sizes, the change-over of the formula of 2007 included."""
    registers = bytearray(4096)
    rng = random.Random(count)
    for _ in range(count):
        sketch.add(registers, rng.randbytes(16))
    assert abs(sketch.estimate(bytes(registers)) - count) <= 4 * 0.016 * count


def test_one_user_counts_once_wherever_he_is_seen() -> None:
    """Merged by maximum, never summed: design.md, the pieces, 6."""
    rng = random.Random(7)
    keys = [rng.randbytes(16) for _ in range(2000)]
    here, there, both = bytearray(1024), bytearray(1024), bytearray(1024)
    for index, key in enumerate(keys):
        if index < 1500:
            sketch.add(here, key)
        if index >= 500:
            sketch.add(there, key)
        sketch.add(both, key)
    assert sketch.merge([bytes(here), bytes(there)]) == bytes(both)
    assert sketch.merge([bytes(here), bytes(here)]) == bytes(here)


def test_the_estimate_of_full_registers_is_a_number() -> None:
    """The largest rank that a key can have in every register."""
    assert sketch.place(bytes(16)) == (0, 65)
    assert sketch.estimate(bytes([65]) * 4096) > 1e15
