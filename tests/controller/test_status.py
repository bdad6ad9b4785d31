"""The status: the shape of surface.md, and conditions with the time since when."""

from __future__ import annotations

from typing import Any

import pytest

from controller.analysis import Need, Reading
from controller.events import Verb
from controller.evidence import Share
from controller.state import Phase
from controller.status import Condition, Status, conditions, stamp, status
from tests.controller.world import World, document, template

DOC = document({"setWeight": 5}, {"analysis": {"templates": [{"templateName": "rate"}]}}, {"pause": {}})


def show(world: World, share: Share | None = None, problem: str = "") -> dict[str, Any]:
    found = stamp((), conditions(world.state, world.now, problem), 1, "2026-09-01T12:00:00Z")
    made = status(world.state, world.now, digest="d1", share=share, conditions=found, resource_version=7)
    value: dict[str, Any] = made.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert Status.model_validate_json(made.model_dump_json(by_alias=True)) == made
    return value


def condition(shown: dict[str, Any], kind: str) -> tuple[str, str, str]:
    found = next(c for c in shown["conditions"] if c["type"] == kind)
    return found["status"], found["reason"], found["message"]


def test_the_shape_is_the_surfaces() -> None:
    """surface.md, status: names, and numbers as strings with two decimals."""
    world = World(DOC, 2, template()).run(6)
    world.readings["rate"] = Reading(need=Need(210, 3, 12), note="too few")
    world.run(6)
    shown = show(world, Share(0.0493, 0.0471, 0.0516))
    assert shown["observedGeneration"] == 1
    assert shown["phase"] == "Holding"
    assert shown["plan"] == {"generation": 2, "digest": "d1", "replicas": 2, "current": 2, "pending": []}
    assert shown["revision"] == {"stable": "v1", "canary": "v2"}
    assert shown["step"]["index"] == 1
    assert shown["step"]["total"] == 3
    assert shown["step"]["elapsed"].endswith("s")
    assert shown["weight"] == {"programmed": "5.00", "measured": "4.93", "low": "4.71", "high": "5.16"}
    assert shown["verdict"] == {
        "decision": "Hold",
        "reason": "NotEnoughData",
        "message": "metric rate: too few",
        "need": {"requests": 210, "users": 3, "minutes": 12},
    }
    assert shown["actions"] == []
    assert {c["type"] for c in shown["conditions"]} == {"Accepted", "Programmed", "Progressing", "Ready", "Degraded"}
    assert shown["resourceVersion"] == 7
    assert condition(shown, "Progressing") == ("False", "NotEnoughData", "metric rate: too few")


def test_an_abort_is_shown_with_whom_and_why() -> None:
    """surface.md, status.abort; the rollback's measurement is in the verdict."""
    world = World(DOC, 2, template()).run(4)
    world.readings["rate"] = Reading(0.5)
    world.until(Phase.ABORTED)
    shown = show(world)
    assert world.state.abort is not None
    assert shown["abort"] == {
        "id": world.state.abort.id,
        "revision": "v2",
        "by": "analysis",
        "reason": "AnalysisFailed",
    }
    assert shown["verdict"]["decision"] == "Rollback"
    assert "0.5 does not fulfil" in shown["verdict"]["message"]
    assert shown["weight"] == {"programmed": "0.00"}
    assert condition(shown, "Degraded")[:2] == ("True", "AnalysisFailed")


def test_a_healthy_rollout_has_no_step() -> None:
    """Nothing is on trial, so there is neither a step nor a verdict."""
    shown = show(World(document({"setWeight": 50})).until(Phase.HEALTHY))
    assert {"step", "verdict", "abort"} & set(shown) == set()
    assert shown["revision"] == {"stable": "v2"}
    assert condition(shown, "Ready")[0] == "True"
    assert condition(shown, "Programmed") == ("True", "Acknowledged", "every proxy serves plan 4")


def test_before_anything_is_known_the_status_says_that() -> None:
    """No plan, no weight, no revision."""
    shown = show(World(DOC, 2, template()))
    assert {"plan", "weight", "step"} & set(shown) == set()
    assert (shown["phase"], shown["revision"]) == ("Pending", {"canary": None} if "canary" in shown["revision"] else {})
    assert condition(shown, "Programmed") == ("False", "Pending", "no proxy has answered yet")


@pytest.mark.parametrize("how", ["away", "refusing", "behind"])
def test_programmed_says_which_proxy_is_missing(how: str) -> None:
    """A proxy that cannot be reached, one that refuses, one that simply has not answered yet."""
    world = World(document({"setWeight": 5}, {"pause": {}})).until(Phase.PAUSED)
    if how == "away":
        world.proxies["unix:1"].is_up = False
        world.run(5)
    else:
        world.proxies["unix:1"].refuses_plan = True
        world.ask(Verb.PROMOTE)
        if how == "refusing":
            world.run(3)
    shown = condition(show(world), "Programmed")
    expected = {
        "away": ("False", "ProxyUnreachable", "unix:1: connection refused"),
        "refusing": ("False", "Pending", "plan 3 has not reached unix:1: refuses the plan"),
        "behind": ("False", "Pending", "plan 3 has not reached unix:0; unix:1"),
    }
    assert shown == expected[how]


def test_accepted_says_what_is_wrong_with_the_documents() -> None:
    """The last good one counts."""
    world = World(document({"setWeight": 5}, {"pause": {}})).until(Phase.PAUSED)
    assert condition(show(world), "Accepted") == ("True", "Valid", "")
    assert condition(show(world, problem="a.yaml: spec.stable: required"), "Accepted") == (
        "False",
        "Invalid",
        "a.yaml: spec.stable: required; the last good document counts",
    )


def test_ready_while_a_revision_is_on_trial_and_after_its_abort() -> None:
    """Who deploys waits for it with a limit: every proxy serves what is decided, be the trial over or not."""
    world = World(document({"setWeight": 5}, {"pause": {}})).until(Phase.PAUSED)
    assert condition(show(world), "Ready") == ("True", "Paused", "")
    world.ask(Verb.ABORT)
    world.until(Phase.ABORTED).run(2)
    assert condition(show(world), "Ready") == ("True", "Aborted", "")
    assert condition(show(world), "Degraded")[0] == "True"


def test_not_ready_while_a_proxy_is_missing_or_a_document_does_not_count() -> None:
    """The reason is that of the condition that is missing."""
    world = World(document({"setWeight": 5}, {"pause": {}}))
    assert condition(show(world), "Ready") == ("False", "Pending", "no proxy has answered yet")
    world.until(Phase.PAUSED)
    assert condition(show(world, problem="wrong"), "Ready")[:2] == ("False", "Invalid")
    world.proxies["unix:1"].refuses_latch = True
    world.ask(Verb.ABORT)
    assert condition(show(world), "Ready")[0] == "False"
    world.proxies["unix:1"].is_up = False
    world.run(5)
    assert condition(show(world), "Ready")[:2] == ("False", "ProxyUnreachable")


def test_an_incomplete_abort_names_the_proxies() -> None:
    """Degraded until every proxy is latched."""
    world = World(document({"setWeight": 5}, {"pause": {}})).until(Phase.PAUSED)
    world.proxies["unix:1"].refuses_latch = True
    world.ask(Verb.ABORT)
    assert condition(show(world), "Degraded") == ("True", "AbortIncomplete", "not latched yet: unix:1")


def test_a_condition_keeps_its_time_while_its_status_stays() -> None:
    """Kubernetes: lastTransitionTime is when the status changed, not the message."""
    first = stamp((), [Condition("Ready", False, "Progressing"), Condition("Accepted", True, "Valid")], 1, "t1")
    second = stamp(first, [Condition("Ready", False, "Paused", "x"), Condition("Accepted", False, "Invalid")], 2, "t2")
    assert [(c.type, c.last_transition_time, c.reason, c.observed_generation) for c in second] == [
        ("Ready", "t1", "Paused", 2),
        ("Accepted", "t2", "Invalid", 2),
    ]
