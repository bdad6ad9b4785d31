"""Which plan follows which."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.plan import Plan
from proxy.succession import Order, at_start, order
from tests.support.plans import plan

OTHER = {"name": "checkout", "uid": "another"}


def version(generation: int, endpoints: int = 0, **fields: Any) -> Plan:
    return plan(generation=generation, endpointsVersion=endpoints, **fields)


@pytest.mark.parametrize(
    ("offered", "expected"),
    [
        (version(6), Order.NEWER),
        (version(5, 4), Order.NEWER),
        (version(5, 3), Order.SAME),
        (version(5, 3, explain="Always"), Order.CONFLICT),
        (version(5, 2), Order.OLDER),
        (version(4, 9), Order.OLDER),
        (version(1, 0, rollout=OTHER), Order.NEWER),
    ],
    ids=["generation", "endpoints", "same", "conflict", "older endpoints", "older generation", "another uid"],
)
def test_newer_is_the_greater_generation_and_endpoints_version(offered: Plan, expected: Order) -> None:
    """surface.md, Plan: an older one is refused, another uid starts afresh, equal with other bytes is refused."""
    assert order(version(5, 3), offered) is expected


def test_the_first_plan_is_newer_than_none() -> None:
    """Nothing in force."""
    assert order(None, version(1)) is Order.NEWER


@pytest.mark.parametrize(
    ("last_good", "file", "expected"),
    [
        (None, None, []),
        ((5, 0.0), None, [5]),
        (None, (5, 0.0), [5]),
        ((5, 0.0), (6, 0.0), [6, 5]),
        ((6, 0.0), (5, 9.0), [6, 5]),
    ],
    ids=["none", "last good", "file", "newer file", "newer last good, whatever the clock says"],
)
def test_the_newer_one_goes_first_at_a_start(
    last_good: tuple[int, float] | None, file: tuple[int, float] | None, expected: list[int]
) -> None:
    """surface.md, Plan: the newer of plan file and last good one wins."""

    def made(item: tuple[int, float] | None) -> tuple[Plan, float] | None:
        return (version(item[0]), item[1]) if item else None

    assert [found.generation for found in at_start(made(last_good), made(file))] == expected


def test_of_two_rollouts_the_one_written_later_goes_first() -> None:
    """Generations of two rollouts have no order."""
    mine, other = version(9), version(1, rollout=OTHER)
    assert at_start((mine, 10.0), (other, 11.0)) == [other, mine]
    assert at_start((mine, 11.0), (other, 10.0)) == [mine, other]
