"""The arithmetic of the soak."""

from __future__ import annotations

import pytest

from tests.faults.soak import slope


def test_the_slope_of_a_line_is_its_own() -> None:
    """Whatever it starts from."""
    assert slope([0.0, 1.0, 2.0], [5.0, 7.0, 9.0]) == pytest.approx(2.0)


def test_what_goes_up_and_down_has_none() -> None:
    """Nor has one point."""
    assert slope([0.0, 1.0, 2.0], [1.0, 9.0, 1.0]) == pytest.approx(0.0)
    assert slope([1.0], [5.0]) == 0.0
