"""Verdicts of active checks: a table of results, and what holds for every sequence of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.health import Health, first_wait_s, judge, wait_s
from proxy.plan import HealthCheck

CHECK = HealthCheck(unhealthy=3, healthy=2)


def verdicts(results: str, check: HealthCheck = CHECK) -> str:
    """The verdict after each result, both as ``+`` and ``-``."""
    health, found = Health(), ""
    for result in results:
        health = judge(health, "" if result == "+" else "status 500", check)
        found += "+" if health.is_healthy else "-"
    return found


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ("+++", "+++"),
        ("--+--", "+++++"),
        ("---", "++-"),
        ("----+-++", "++-----+"),
        ("---++---", "++--+++-"),
    ],
    ids=["well", "never-three-in-a-row", "out", "one-pass-is-not-enough", "out-and-back"],
)
def test_so_many_in_a_row_change_the_verdict(results: str, expected: str) -> None:
    assert verdicts(results) == expected


def test_the_last_error_is_kept() -> None:
    health = judge(Health(), "status 503", CHECK)
    assert health == Health(True, 1, "status 503")
    assert judge(health, "", CHECK) == Health()


@given(st.text("+-", max_size=60), st.integers(1, 5), st.integers(1, 5))
def test_a_verdict_changes_exactly_after_a_row_that_contradicts_it(results: str, unhealthy: int, healthy: int) -> None:
    found = verdicts(results, HealthCheck(unhealthy=unhealthy, healthy=healthy))
    for i, (before, after) in enumerate(zip("+" + found, found, strict=False)):
        needed = unhealthy if before == "+" else healthy
        row = results[max(0, i + 1 - needed) : i + 1]
        since = len(found[: i + 1]) - len(found[:i].rstrip(before)) if i else 1
        is_due = len(row) == needed and set(row) == {"-" if before == "+" else "+"} and since >= needed
        assert (before != after) == is_due


def test_checks_are_spread_over_the_interval_and_drift_apart() -> None:
    check = HealthCheck(interval=10.0)
    assert [first_wait_s(check, chance) for chance in (0.0, 0.5)] == [0.0, 5.0]
    assert [wait_s(check, chance) for chance in (0.0, 0.5, 1.0)] == pytest.approx([9.0, 10.0, 11.0])
