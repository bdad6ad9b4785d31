"""Who has fallen silent, on a clock that stands still with the watcher."""

from __future__ import annotations

import pytest

from proxy.heart import LOOK_S, SILENT_S, SLOWEST_RESTART_S, START_S, Heart, RunningTime, Usage, restart_delay_s


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


def silent_for(cpu_share: float, runnable: bool, started: bool = True) -> float:
    """Running seconds after which a worker that beats no more is taken for dead; at most a minute is looked at.

    Args:
        cpu_share: What it gets of a processor meanwhile.
    """
    cpu_s = 5.0
    heart = Heart(0, 0.0, lambda: Usage(cpu_s, runnable))
    assert not started or heart.look(1, 0.0)
    for number in range(1, 301):
        cpu_s += LOOK_S * cpu_share
        if not heart.look(int(started), LOOK_S * number):
            return LOOK_S * number
    return 60.0


@pytest.mark.parametrize(
    ("cpu_share", "runnable", "seconds"),
    [
        (0.0, False, SILENT_S),
        (1.0, True, SILENT_S),
        (2.0, True, SILENT_S),
        (0.5, True, 2 * SILENT_S),
        (0.0, True, 60.0),
    ],
    ids=["stopped-or-asleep", "spins", "threads-spin", "spins-beside-others", "waits"],
)
def test_only_silence_in_which_a_worker_could_have_beaten_counts(
    cpu_share: float, runnable: bool, seconds: float
) -> None:
    """design.md, the pieces, 1, on a machine that is too busy: another worker would have to wait as well."""
    assert silent_for(cpu_share, runnable) == pytest.approx(seconds, abs=2 * LOOK_S)


def test_a_start_may_wait_for_a_processor_too() -> None:
    assert silent_for(1.0, runnable=True, started=False) == pytest.approx(START_S, abs=2 * LOOK_S)
    assert silent_for(0.0, runnable=True, started=False) == 60.0


def test_a_beat_forgives_the_silence_before_it() -> None:
    heart = Heart(0, 0.0, lambda: Usage(1.0, is_runnable=False))
    for number in range(1, 100):
        assert heart.look(number, number * (SILENT_S - LOOK_S))
        assert heart.look(number, number * (SILENT_S - LOOK_S) + LOOK_S)


def test_of_a_worker_of_which_nothing_is_known_all_silence_counts() -> None:
    heart = Heart(0, 0.0, lambda: None)
    assert heart.look(1, 0.0)
    assert heart.look(1, SILENT_S)
    assert not heart.look(1, SILENT_S + LOOK_S)


def test_the_first_restart_is_at_once_and_later_ones_wait_longer() -> None:
    """F30: within a second, with back-off."""
    delays = [restart_delay_s(deaths) for deaths in range(1, 100)]
    assert delays[:4] == [0.0, 0.25, 0.5, 1.0]
    assert delays == sorted(delays)
    assert delays[-1] == SLOWEST_RESTART_S
