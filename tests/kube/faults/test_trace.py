"""The oracle takes what the steps say, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kube.faults.trace import Trace

STEPS = [1000, 5000]


def rollout(version: int, generation: int, weight: int, trial: Any = "v2", **status: Any) -> Any:
    arms = [{"name": "stable"}, {"name": "canary", "revision": trial, "weightBp": weight}][: 2 if trial else 1]
    plan = {"generation": generation, "digest": f"d{generation}{weight}", "document": {"arms": arms}}
    return {"metadata": {"resourceVersion": str(version)}, "status": {"phase": "Progressing", "plan": plan} | status}


def trace(*rollouts: Any) -> Trace:
    made = Trace(STEPS)
    for each in rollouts:
        made.add(each)
    return made


ABORTED = {"phase": "Aborted", "abort": {"id": "a1"}}
WHOLE = [
    rollout(1, 1, 0, ""),
    rollout(5, 2, 1000),
    rollout(7, 3, 5000),
    rollout(9, 4, 10_000, phase="Promoting"),
    rollout(11, 5, 0, ""),
]


def test_a_whole_rollout_in_whatever_order_it_was_learnt() -> None:
    made = trace(*reversed(WHOLE), WHOLE[2])
    assert made.problems() == []
    assert made.weights("v2") == [1000, 5000, 10_000]
    assert made.foreign([(3, "d35000"), (2, "d21000")]) == []


def test_an_abort_and_another_try() -> None:
    made = trace(*WHOLE[:3], rollout(8, 4, 0, **ABORTED), rollout(9, 5, 1000), rollout(10, 6, 5000))
    assert made.problems() == []
    assert made.aborts == ["a1"]


def test_a_weight_that_somebody_asked_for() -> None:
    made = trace(*WHOLE[:2], rollout(8, 4, 700))
    assert made.problems()
    made.asked.add(700)
    assert made.problems() == []


def test_a_new_revision_in_mid_rollout() -> None:
    assert trace(*WHOLE[:3], rollout(8, 4, 0, ""), rollout(9, 5, 1000, "v3")).problems() == []
    assert trace(*WHOLE[:3], rollout(8, 4, 1000, "v3")).problems() == []


@pytest.mark.parametrize(
    "wrong",
    [
        rollout(8, 4, 1000),
        rollout(8, 4, 2500),
        rollout(8, 4, 0),
        rollout(8, 4, 5000, "v3"),
        rollout(8, 4, 1000, **ABORTED),
        rollout(8, 2, 10_000, phase="Promoting"),
        rollout(8, 3, 10_000, phase="Promoting"),
    ],
    ids=["a step back", "between steps", "nothing without an abort", "another's weight", "a weight under an abort",
         "an older generation", "one generation twice"],
)  # fmt: skip
def test_what_nobody_decided_is_seen(wrong: Any) -> None:
    assert trace(*WHOLE[:3], wrong).problems()


def test_a_step_that_was_left_out_is_seen() -> None:
    assert trace(WHOLE[1], WHOLE[3]).problems()


def test_a_plan_that_was_never_published_is_seen() -> None:
    assert trace(*WHOLE).foreign([(2, "d21000"), (2, "other")]) == [(2, "other")]
