"""When the local breaker trips: the line, the window, and who may cross it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.breaker import Window, is_over
from proxy.counters import Tally
from proxy.document import DocumentError, validate
from proxy.plan import Breaker
from proxy.region import FAILURE_CELLS

RULES = Breaker()


def tally(answers: int, *by_user: int) -> Tally:
    """Failures by user, each with a cell of his own."""
    return Tally(answers, sum(by_user), (*by_user, *[0] * (FAILURE_CELLS - len(by_user))))


@pytest.mark.parametrize(
    ("found", "rules", "over"),
    [
        (tally(20, 4, 3, 3), {}, True),
        (tally(19, 7, 6, 6), {}, False),
        (tally(21, 4, 3, 3), {}, False),
        (tally(20, *[1] * 20), {}, True),
        (tally(220, 200, 4, 3, 3), {}, True),
        (tally(230, 200, 4, 3, 3), {}, True),
        (tally(231, 200, 4, 3, 3), {}, False),
        (tally(20, 10, 10), {}, False),
        (tally(20, 20), {}, False),
        (tally(20, 20), {"minimumUsers": 1}, True),
        (tally(20, 10, 10), {"minimumUsers": 2}, True),
        (tally(20), {}, False),
        (tally(0), {}, False),
        (tally(10_000, *[10] * 20), {"errorPercent": 2}, True),
        (tally(10_000, *[10] * 20), {"errorPercent": "2.01"}, False),
        (tally(5, 1, 1, 1), {"requests": 5}, True),
    ],
)
def test_the_line_is_crossed_by_so_many_failures_of_so_many_answers(
    found: Tally, rules: dict[str, Any], over: bool
) -> None:
    """errorPercent of at least `requests` answers, and failures of at least minimumUsers users."""
    assert is_over(found, validate(Breaker, rules)) is over


@given(
    st.integers(0, 2000), st.lists(st.integers(0, 3), max_size=20), st.integers(0, 200),
)  # fmt: skip
def test_one_user_alone_never_trips_it(flood: int, others: list[int], good: int) -> None:
    """S5, rollback griefing: however many failures one user provokes, the others' own decide."""
    own = sum(others)
    found = tally(own + good + flood, *others, flood)
    assert not is_over(found, RULES) or 2 * own >= good or flood <= own


def readings(*found: tuple[float, Tally], rules: Breaker = RULES, window: Window | None = None) -> list[bool]:
    """Whether each reading trips."""
    window = window or Window()
    return [window.look(now, "v2", {"canary": tally}, rules) is not None for now, tally in found]


BAD = tally(40, 10, 10, 10)


def test_what_was_there_at_the_first_look_counts_for_nothing() -> None:
    """Counters only grow, and go on over a restart of the supervisor."""
    assert readings((0.0, BAD), (0.25, BAD)) == [False, False]
    assert readings((0.0, tally(0)), (0.25, BAD)) == [False, True]


def test_failures_leave_with_the_window() -> None:
    """Sixty seconds of a few failures are no outage."""
    slow = [(n * 0.5, tally(2 * n, n // 3, n // 3, n - 2 * (n // 3))) for n in range(80)]
    assert not any(readings(*slow, rules=validate(Breaker, {"requests": 60})))
    assert any(readings(*slow, rules=validate(Breaker, {"requests": 30})))
    old = [(0.0, tally(0)), (0.25, tally(18, 6, 6, 6)), (11.0, tally(18, 6, 6, 6)), (11.25, tally(38, 6, 6, 6))]
    assert readings(*old) == [False, False, False, False]


def test_it_trips_within_the_window_of_a_version_that_breaks_under_load() -> None:
    """F35: good until 60 s, then nothing but failures: half of the window later the line is crossed."""
    trips = []
    window = Window()
    for step in range(400):
        now, bad = step / 4, max(0, step - 240)
        found = tally(25 * step, *[bad * 5] * 5)
        if window.look(now, "v2", {"canary": found}, RULES):
            trips.append(now)
    assert trips[0] == pytest.approx(60 + 5.0, abs=0.5)


def test_another_subject_and_a_restart_begin_anew() -> None:
    """A new revision does not pay for the one before; a lifted abort does not come back."""
    window = Window()
    assert window.look(0.0, "v2", {"canary": tally(0)}, RULES) is None
    assert window.look(0.25, "v3", {"canary": BAD}, RULES) is None
    window.restart()
    assert window.look(0.5, "v3", {"canary": tally(80, 20, 20, 20)}, RULES) is None
    assert window.look(0.75, "v3", {"canary": tally(81, 20, 20, 20)}, RULES) is None


def test_counters_that_begin_anew_begin_the_window_anew() -> None:
    """Another rollout's uid clears them."""
    assert readings((0.0, tally(90, 30)), (0.25, tally(3, 3)), (0.5, tally(23, 9, 7, 7))) == [False, False, True]


def test_the_reason_tells_the_figures() -> None:
    window = Window()
    window.look(0.0, "v2", {"canary": tally(0), "third": tally(0)}, RULES)
    trip = window.look(0.25, "v2", {"canary": tally(30), "third": tally(30, 10, 10, 3)}, RULES)
    assert trip is not None
    assert (trip.arm, trip.reason) == (
        "third",
        "third: 23 of 30 answers within 10s failed (76.66 %), for at least 3 users; the line is 50.00 % of at least 20",
    )


@pytest.mark.parametrize(
    "rules", [{"errorPercent": 0}, {"errorPercent": 101}, {"requests": 0}, {"window": "500ms"}, {"minimumUsers": 0}]
)
def test_a_line_that_is_none_is_refused(rules: dict[str, Any]) -> None:
    with pytest.raises(DocumentError):
        validate(Breaker, rules)


def test_memory_is_bounded_by_the_window() -> None:
    window = Window()
    for step in range(1000):
        window.look(step / 4, "v2", {"canary": tally(step)}, RULES)
    assert len(window._readings) <= 10 * 4 + 2
