"""Who has fallen silent, on a clock that stands still with the watcher."""

from __future__ import annotations

import pytest

from proxy.heart import LOOK_S, SILENT_S, SLOWEST_RESTART_S, START_S, Heart, RunningTime, restart_delay_s


def test_a_pause_of_the_watcher_is_no_silence_of_the_worker() -> None:
    """design.md, the pieces, 1: the supervisor's own running time; F22."""
    clock = RunningTime(100.0)
    heart = Heart(0, clock.seconds)
    assert heart.look(1, clock.step(100.2))
    assert heart.look(1, clock.step(3700.0))
    assert clock.seconds <= 4 * LOOK_S


def test_a_clock_that_goes_back_counts_nothing() -> None:
    """Monotonic clocks do not, but a restored machine may."""
    clock = RunningTime(100.0)
    assert clock.step(90.0) == 0.0
    assert clock.step(90.2) == pytest.approx(0.2)


def test_a_worker_is_alive_while_its_beats_differ() -> None:
    """Silent for more than 2 s: no longer."""
    heart = Heart(7, 0.0)
    assert heart.look(8, 1.0)
    assert heart.look(8, 1.0 + SILENT_S)
    assert not heart.look(8, 1.1 + SILENT_S)
    assert heart.look(9, 1.2 + SILENT_S)
    assert heart.age_s(1.5 + SILENT_S) == pytest.approx(0.3)


def test_a_new_worker_has_time_to_start() -> None:
    """Until its first beat, which differs from the last one of the worker before it."""
    heart = Heart(7, 0.0)
    assert heart.look(7, START_S)
    assert not heart.look(7, START_S + 0.1)


def test_the_first_restart_is_at_once_and_later_ones_wait_longer() -> None:
    """F30: within a second, with back-off."""
    delays = [restart_delay_s(deaths) for deaths in range(1, 100)]
    assert delays[:4] == [0.0, 0.25, 0.5, 1.0]
    assert delays == sorted(delays)
    assert delays[-1] == SLOWEST_RESTART_S
