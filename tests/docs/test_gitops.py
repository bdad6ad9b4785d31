"""docs/gitops.md: Argo CD's health check over documents of every phase, and manifests that name what there is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml

from controller.analysis import Need, Reading
from controller.events import Verb
from controller.state import Phase
from tests.chart.schema import CHART
from tests.controller.test_status import show
from tests.controller.world import World, document, template
from tests.docs.gitops import health, manifest

MEASURED = document({"setWeight": 5}, {"analysis": {"templates": [{"templateName": "rate"}]}}, {"pause": {}})


def _measuring() -> World:
    world = World(MEASURED, 2, template()).run(6)
    world.readings["rate"] = Reading(need=Need(210, 3, 12), note="too few")
    return world.run(6)


def _promoting() -> World:
    world = World(document({"setWeight": 50}))
    return next(world for _ in range(1000) if world.run(world.tick_s).phase is Phase.PROMOTING)


def _aborted() -> World:
    world = World(document({"setWeight": 5}, {"pause": {}})).until(Phase.PAUSED)
    world.ask(Verb.ABORT, reason="slow")
    return world.until(Phase.ABORTED)


def _degraded() -> World:
    world = World(document({"setWeight": 5}, {"pause": {}})).until(Phase.PAUSED)
    world.proxies["unix:1"].refuses_latch = True
    world.ask(Verb.ABORT)
    return world


# A rollout in each phase, what its health is, and what a person reads.
PHASES: dict[Phase, tuple[Callable[[], World], str, str]] = {
    Phase.PENDING: (
        lambda: World(MEASURED, 2, template()),
        "Progressing",
        "Pending: Pending: no proxy has answered yet",
    ),
    Phase.HEALTHY: (lambda: World(document({"setWeight": 50})).until(Phase.HEALTHY), "Healthy", "Healthy"),
    Phase.PROGRESSING: (lambda: World(document()).until(Phase.PROGRESSING).run(3), "Progressing", "Progressing"),
    Phase.PAUSED: (lambda: World(document({"pause": {}})).until(Phase.PAUSED), "Suspended", "Paused: Paused"),
    Phase.HOLDING: (_measuring, "Suspended", "Holding: NotEnoughData: metric rate: too few"),
    Phase.PROMOTING: (_promoting, "Progressing", "Promoting"),
    Phase.ABORTED: (_aborted, "Degraded", "Aborted: Requested: slow"),
    Phase.DEGRADED: (_degraded, "Degraded", "Degraded: AbortIncomplete: not latched yet: unix:1"),
}


def rollout(status: dict[str, Any] | None, generation: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = {"apiVersion": "cohort.dev/v1alpha1", "kind": "CanaryRollout"}
    found |= {"metadata": {"name": "checkout", "generation": generation}, "spec": {}}
    return found | ({} if status is None else {"status": status})


@pytest.mark.parametrize("phase", Phase)
def test_every_phase_has_its_health(phase: Phase) -> None:
    """The page's table, by the page's own script, on what the controller writes."""
    make, expected, text = PHASES[phase]
    status = show(make())
    assert status["phase"] == phase
    said, message = health(rollout(status))
    assert said == expected
    assert message.startswith(text)


def test_what_no_controller_has_seen_is_progressing() -> None:
    """No status, the one that the definition makes, and one of an earlier generation."""
    unseen = {"observedGeneration": 0, "phase": "Pending", "revision": {}}
    earlier = show(World(document({"setWeight": 50})).until(Phase.HEALTHY))
    for found in (rollout(None), rollout({}), rollout(unseen), rollout(earlier, generation=2)):
        assert health(found) == ("Progressing", "no controller has seen this generation yet")


def test_a_document_that_does_not_count_is_degraded() -> None:
    """Whatever the phase: Git says something that is not in force."""
    for world in (World(document()), World(document({"pause": {}})).until(Phase.PAUSED)):
        status = show(world, problem="spec.canary: names no Service")
        said, message = health(rollout(status, generation=2))
        assert said == "Degraded"
        assert "Invalid: spec.canary: names no Service" in message


def test_healthy_but_not_everywhere_is_progressing() -> None:
    """A proxy that does not answer does not serve the plan."""
    world = World(document({"setWeight": 50})).until(Phase.HEALTHY)
    world.proxies["unix:1"].is_up = False
    assert health(rollout(show(world.run(5))))[0] == "Progressing"


@pytest.mark.parametrize(
    ("kind", "path"), [("Application", ("source", "helm", "valuesObject")), ("HelmRelease", ("values",))]
)
def test_values_on_the_page_are_the_chart_s(kind: str, path: tuple[str, ...]) -> None:
    """A value that the chart does not have is refused at the first sync."""
    given: Any = manifest(kind)["spec"]
    for key in path:
        given = given[key]
    known = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(given) <= set(known)
    assert set(given["rollout"]) <= set(known["rollout"])
