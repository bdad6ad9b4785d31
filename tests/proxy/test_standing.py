"""Passive ejection: every method against the table, and the back-off."""

from __future__ import annotations

import pytest

from proxy.standing import EJECTED, GOOD, PROBATION, REFUSING, SILENT, TRANSITIONS, Rules, Standing

RULES = Rules(failures=3, first_s=1.0, longest_s=30.0)
EVENTS = ("answered", "failed", "unreachable", "reached")
STATES = (GOOD, EJECTED, REFUSING, SILENT, PROBATION)


def standing(state: int) -> Standing:
    """A standing brought into a state by the events that lead there."""
    found = Standing()
    if state in (EJECTED, PROBATION):
        for _ in range(RULES.failures):
            found.failed(0.0, RULES, 1.0)
    if state in (REFUSING, SILENT):
        found.unreachable(state == REFUSING, 0.0, RULES, 1.0)
    if state == PROBATION:
        found.reached()
    assert found.state == state
    return found


def happen(found: Standing, event: str, refused: bool = True, now: float = 5.0) -> None:
    if event == "answered":
        found.answered(now)
    elif event == "failed":
        found.failed(now, RULES, 1.0)
    elif event == "unreachable":
        found.unreachable(refused, now, RULES, 1.0)
    else:
        found.reached()


@pytest.mark.parametrize("refused", [True, False])
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("state", STATES)
def test_every_method_keeps_to_the_table(state: int, event: str, refused: bool) -> None:
    """The literal table and the methods say the same."""
    found = standing(state)
    happen(found, event, refused)
    assert found.state in TRANSITIONS[(state, event)]


def test_the_table_knows_every_event_in_every_state() -> None:
    assert set(TRANSITIONS) == {(state, event) for state in STATES for event in EVENTS}


def test_a_row_of_failures_ejects_and_one_answer_breaks_the_row() -> None:
    """Consecutive, not cumulative: 1 % of failures is a matter for the verdict."""
    found = Standing()
    for _ in range(10):
        found.failed(0.0, RULES, 1.0)
        found.failed(0.0, RULES, 1.0)
        assert (found.state, found.failures) == (GOOD, 2)
        found.answered(0.0)
    assert found.failures == 0


def test_a_refused_connection_counts_at_once() -> None:
    found = Standing()
    found.unreachable(True, 0.0, RULES, 1.0)
    assert found.is_out


def test_the_back_off_doubles_up_to_the_longest() -> None:
    """Each probe that fails waits twice as long."""
    found = Standing()
    now, waits = 100.0, []
    for _ in range(8):
        found.unreachable(False, now, RULES, 1.0)
        waits.append(found.until - now)
        now = found.until
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]


def test_failures_of_the_same_moment_are_one_ejection() -> None:
    """Fifty requests meet the same dead endpoint: the back-off must not jump to its end."""
    found = Standing()
    for _ in range(50):
        found.unreachable(True, 0.0, RULES, 1.0)
    assert found.until == 1.0


def test_one_that_failed_lately_is_out_for_longer() -> None:
    """A flapping endpoint is not as good as new after one answer."""
    found = standing(REFUSING)
    found.reached()
    found.answered(2.0)
    found.unreachable(True, 3.0, RULES, 1.0)
    assert found.until == 5.0


def test_a_long_good_time_is_a_new_start() -> None:
    found = standing(REFUSING)
    found.reached()
    found.answered(2.0)
    found.unreachable(True, 100.0, RULES, 1.0)
    assert found.until == 101.0


def test_the_last_resort_is_probed_sooner() -> None:
    found = standing(SILENT)
    found.hurry(0.5)
    assert found.until == 0.5
    found.hurry(3.0)
    assert found.until == 0.5
