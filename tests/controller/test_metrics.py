"""The controller's numbers for Prometheus."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from controller.events import Verb
from controller.metrics import exposition
from controller.state import Phase
from controller.status import status
from tests.controller.world import World, document


def samples(world: World) -> dict[tuple[str, ...], float]:
    shown = status(world.state, world.now, digest="", share=None, conditions=(), resource_version=0)
    text = exposition([("shop/checkout", world.state, shown)])
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert sample.labels.pop("rollout") == "shop/checkout"
            found[(sample.name, *sample.labels.values())] = sample.value
    return found


def test_phase_step_and_verdict_are_series_of_their_own() -> None:
    """surface.md, metrics: one series a phase and a decision, exactly one of the phases 1."""
    found = samples(World(document({"setWeight": 5}, {"pause": {}})).until(Phase.PAUSED))
    phases = {labels[1]: value for labels, value in found.items() if labels[0] == "cohort_rollout_phase"}
    assert set(phases) == {phase.value for phase in Phase}
    assert [name for name, value in phases.items() if value] == ["Paused"]
    assert found[("cohort_rollout_step",)] == 1
    assert sum(value for labels, value in found.items() if labels[0] == "cohort_verdict") == 0


def test_aborts_and_their_failures_are_counted() -> None:
    """C8: an abort that fails at a proxy is what an alert should be about."""
    world = World(document({"setWeight": 5}, {"pause": {}})).until(Phase.PAUSED)
    world.proxies["unix:1"].refuses_latch = True
    world.ask(Verb.ABORT)
    found = samples(world)
    assert found[("cohort_rollout_aborts_total",)] == 1
    assert found[("cohort_rollout_abort_failures_total",)] == 1
