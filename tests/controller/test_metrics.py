"""The controller's numbers for Prometheus."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from controller.events import Verb
from controller.metrics import Replica, exposition
from controller.state import Phase
from controller.status import status
from tests.controller.world import World, document

REFERENCE = Path(__file__).parents[2] / "docs/metrics.md"
REPLICA = Replica(
    "shop/checkout",
    is_holder=True,
    fed_age_s=1.5,
    api_age_s=0.25,
    requests={("GET", "ok"): 7, ("POST", "409"): 1},
    watches={("pods", "gone"): 2},
)


def samples(world: World, replica: Replica | None = None) -> dict[tuple[str, ...], float]:
    shown = status(world.state, world.now, digest="", share=None, conditions=(), resource_version=0)
    text = exposition([("shop/checkout", world.state, shown)], replica)
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


def test_a_controller_in_a_cluster_tells_of_itself() -> None:
    """Who holds the Lease, how old the plan and the last word of the API server are, what was asked and what broke."""
    found = samples(World(document({"setWeight": 5})), REPLICA)
    assert found[("cohort_controller_lease_held",)] == 1
    assert found[("cohort_controller_feed_age_seconds",)] == 1.5
    assert found[("cohort_controller_api_age_seconds",)] == 0.25
    assert found[("cohort_controller_api_requests_total", "GET", "ok")] == 7
    assert found[("cohort_controller_api_requests_total", "POST", "409")] == 1
    assert found[("cohort_controller_watch_ends_total", "gone", "pods")] == 2


def test_a_controller_that_does_not_decide_says_nothing_of_the_rollout() -> None:
    """What it knows may be old."""
    names = {family.name for family in text_string_to_metric_families(exposition([], REPLICA)) if family.samples}
    assert names
    assert all(name.startswith("cohort_controller_") for name in names)


def test_the_reference_has_every_name_and_no_other() -> None:
    """docs/metrics.md is held against what is exposed."""
    of_a_controller = REFERENCE.read_text().partition("## Of a controller")[2]
    documented = set(re.findall(r"^\| `(cohort_\w+)`", of_a_controller, re.M))
    assert documented == {key[0] for key in samples(World(document({"setWeight": 5})), REPLICA)}


def test_the_reference_has_every_label() -> None:
    """Queries that join or filter by a label that is not there are empty for ever."""
    of_a_controller = REFERENCE.read_text().partition("## Of a controller")[2]
    world = World(document({"setWeight": 5}))
    shown = status(world.state, world.now, digest="", share=None, conditions=(), resource_version=0)
    text = exposition([("shop/checkout", world.state, shown)], REPLICA)
    found = {
        sample.name: set(sample.labels) for family in text_string_to_metric_families(text) for sample in family.samples
    }
    for name, told in re.findall(r"^\| `(cohort_\w+)` \| \w+ \| ([^|]*)\|", of_a_controller, re.M):
        assert found[name] == {label.strip() for label in told.split(",")}, name
