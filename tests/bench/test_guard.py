from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from proxy.net import compiled
from tests.bench import guard
from tests.bench.bounds import Bound, bounds
from tests.bench.guard import Ratio, ratio
from tests.bench.process import OTHER_CORE, PROXY_CORE
from tests.support.require import require

BOUND = Bound("small-get", "cpu_us", to="nginx", at_most=2.0)


@pytest.fixture
def apart() -> Iterator[None]:
    """This process on the generator's core, as in `make bench`."""
    before = os.sched_getaffinity(0)
    if not {PROXY_CORE, OTHER_CORE} <= before:
        pytest.skip("the measurement needs two cores")
    os.sched_setaffinity(0, {OTHER_CORE})
    yield
    os.sched_setaffinity(0, before)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("apart")
def test_a_small_get_costs_no_more_than_recorded() -> None:
    """The page's promise does not rot: beside Envoy and nginx in one run, with a margin for a busy machine."""
    require("wrk")
    require("nginx")
    if not compiled.folder().is_dir():
        pytest.skip("not compiled, and the bounds are those of what users run: make compiled")
    assert guard.check() == []


def test_one_bad_round_is_noise() -> None:
    """Another program on the core of the proxy for a second must not fail CI."""
    assert ratio([20, 20, 60], [10, 10, 10]) == Ratio(2.0, 2.0)
    assert ratio([20, 60, 60], [10, 10, 10]).is_within(BOUND)
    assert ratio([20, 20, 20], [10, 8, 10]) == Ratio(2.0, 2.5)
    assert not ratio([30, 30, 30], [10, 10, 10]).is_within(BOUND)


def test_the_second_measurement_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once is noise, twice is worse."""
    costs = {"cohort": [30.0], "nginx": [10.0], "envoy": [40.0]}
    asked: list[int] = []

    def measured(peers: list[str], rounds: int) -> dict[str, list[float]]:
        asked.append(rounds)
        return costs if len(asked) == 1 else costs | {"cohort": [10.0]}

    monkeypatch.setattr(guard, "measure", measured)
    assert guard.check() == []
    assert asked == list(guard.ROUNDS)
    monkeypatch.setattr(guard, "measure", lambda peers, rounds: costs)
    assert [line.partition(" is ")[0] for line in guard.check()] == ["cohort : nginx"]


def test_the_guard_has_a_bound_for_each_of_its_two() -> None:
    """Worse than what must hold on a quiet machine, but not by much."""
    assert {bound.to for bound in bounds("guard")} == {"envoy", "nginx"}
    assert all(bound.workload == "small-get" and bound.figure == "cpu_us" for bound in bounds("guard"))
