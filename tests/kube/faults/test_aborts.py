"""The oracle sees a request that gets round an abort."""

from __future__ import annotations

from tests.kube.faults.aborts import Held, Sent, problems

HELD = Held("a kill", latched=10.0, lifted=20.0)


def test_everyone_on_stable_is_well_whatever_was_before_and_after() -> None:
    sent = [Sent(9.9, "canary", "split"), Sent(10.0, "stable", "abort"), Sent(20.0, "canary", "split")]
    assert problems(sent, [HELD]) == []


def test_one_request_on_the_canary_is_seen() -> None:
    sent = [Sent(10.0, "stable", "abort"), Sent(19.9, "canary", "split")]
    (problem,) = problems(sent, [HELD])
    assert "a kill: 1 of 2" in problem


def test_an_abort_that_nobody_has_tried_proves_nothing() -> None:
    assert problems([], [HELD]) == ["a kill: nobody came while it stood"]
