"""Killed at any moment, a controller resumes the same step: nothing is skipped, repeated, or forgotten."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from controller import rollout, state
from controller.analysis import Reading
from controller.events import Asked, SetLatch, Verb
from controller.state import Phase, Stage
from tests.controller.world import World, document, template, version

SCRIPT = (
    {"setHeaderRoute": {"name": "qa", "match": [{"headerName": "X-QA", "headerValue": {"exact": "yes"}}]}},
    {"setWeight": 5},
    {"pause": {"duration": "4s"}},
    {"analysis": {"templates": [{"templateName": "rate"}]}},
    {"setWeight": 25},
    {"pause": {}},
    {"setWeight": 100},
)


def world() -> World:
    doc = document(*SCRIPT, background={"templates": [{"templateName": "beside"}], "startingStep": 2})
    made = World(doc, 2, template(), template("beside", count=None))
    made.tick_s = 1.0  # fewer places to be killed at, each of another kind all the same
    return made


def good(world: World) -> None:
    """A good version: through all steps, promoted once at the pause."""
    world.until(Phase.PAUSED)
    world.ask(Verb.PROMOTE)
    world.until(Phase.HEALTHY)


def bad(world: World) -> None:
    """A bad version: rolled back by its analysis, retried, aborted by hand, then another revision."""
    world.readings["rate"] = Reading(0.5)
    world.until(Phase.ABORTED)
    world.readings["rate"] = Reading(1.0)
    world.run(2)
    world.ask(Verb.RETRY)
    world.until(Phase.PAUSED)
    world.ask(Verb.ABORT)
    world.run(2)
    world.declare(document(*SCRIPT, canary="v3", canary_port=9003))
    world.until(Phase.PAUSED)


Scenario = Callable[[World], None]


def transitions(scenario: Scenario) -> int:
    """How many events the scenario has when nobody disturbs it."""
    count = 0

    def counting() -> bool:
        nonlocal count
        count += 1
        return False

    undisturbed = world()
    undisturbed.kill_after = counting
    scenario(undisturbed)
    return count


def trace(found: World) -> list[tuple[str | None, int, int]]:
    """Revision, weight and header routes of every plan that came into force, repetitions left out."""
    steps: list[tuple[str | None, int, int]] = []
    for plan in found.proxy.history:
        weight = plan.arms[1].weight_bp if len(plan.arms) > 1 else 0
        step = (plan.revision, weight, len(plan.header_routes))
        steps += [step] if not steps or steps[-1] != step else []
    return steps


@pytest.mark.parametrize("scenario", [good, bad], ids=["good", "bad"])
def test_killed_after_every_transition_the_trace_is_the_same(scenario: Scenario) -> None:
    """F15, C4: for every k the controller is killed after its k-th transition was stored, before any command of it."""
    undisturbed = world()
    scenario(undisturbed)
    expected = trace(undisturbed)
    seen = set()
    for k in range(transitions(scenario)):
        disturbed = world()
        left = k

        def at_k() -> bool:
            nonlocal left
            left -= 1
            return left == -1

        disturbed.kill_after = at_k
        scenario(disturbed)
        assert trace(disturbed) == expected, f"killed after transition {k}"
        assert disturbed.state.generation == undisturbed.state.generation
        seen.add(disturbed.phase)
    assert seen == {undisturbed.phase}


@pytest.mark.parametrize("scenario", [good, bad], ids=["good", "bad"])
def test_killed_after_each_of_many_transitions_the_trace_is_the_same(scenario: Scenario) -> None:
    """A controller that crashes again and again still ends where it should."""
    undisturbed = world()
    scenario(undisturbed)
    crashing = world()
    count = 0

    def every_seventh() -> bool:
        nonlocal count
        count += 1
        return count % 7 == 0

    crashing.kill_after = every_seventh
    scenario(crashing)
    assert trace(crashing) == trace(undisturbed)


def test_a_pause_goes_on_with_the_time_it_has_had() -> None:
    """Elapsed time is stored, not clock times: neither the downtime nor another clock counts."""
    paused = World(document({"setWeight": 5}, {"pause": {"duration": "100s"}}, {"setWeight": 50}, {"pause": {}})).run(
        42
    )
    trial = paused.state.trial
    assert trial is not None
    paused.kill()
    assert paused.state.trial is not None
    assert paused.state.trial.elapsed_s == pytest.approx(trial.elapsed_s)
    assert paused.state.trial.index == 1
    paused.run(100 - trial.elapsed_s - 2)
    assert paused.weights == [0, 500]
    paused.until(Phase.PAUSED, limit_s=5)
    assert paused.weights == [0, 500, 5000]


def test_a_stopped_controller_does_not_count_the_time_it_slept() -> None:
    """SIGSTOP for an hour is not an hour of bake time: nobody watched."""
    slept = World(document({"setWeight": 5}, {"pause": {"duration": "60s"}}, {"setWeight": 50}, {"pause": {}})).run(10)
    slept.now += 3600
    slept.run(5)
    assert slept.weights == [0, 500]
    assert slept.state.trial is not None
    assert slept.state.trial.elapsed_s < 25


def test_an_abort_cut_short_between_latch_and_state_is_completed() -> None:
    """The latch comes first; a controller that finds its own latch knows the abort again, with its reason."""
    cut = world()
    cut.until(Phase.PAUSED)
    before = cut.stored
    after, commands = rollout.step(cut.state, Asked(Verb.ABORT, "u", "anna", reason="it burns"), cut.now)
    latch = next(command for command in commands if isinstance(command, SetLatch))
    cut.proxy.abort(latch.by, latch.id)
    assert cut.proxy.latch is not None
    cut.proxy.latch["reason"] = latch.reason
    assert cut.stored == before
    cut.kill()
    cut.run(3)
    assert cut.phase is Phase.ABORTED
    assert cut.state.abort == after.abort
    assert cut.proxies["unix:1"].latch is not None
    assert cut.proxies["unix:1"].latch["id"] == latch.id


def test_nothing_is_lost_with_the_state_but_the_place_in_the_steps() -> None:
    """A lost state is rebuilt from documents and proxies: a later generation, the same uid, stable as it was."""
    lost = world()
    good(lost)
    generation = lost.state.generation
    lost.stored = ""
    lost.state = state.new(lost.doc, lost.templates)
    lost.boot()
    lost.run(5)
    assert lost.phase is Phase.HEALTHY
    assert lost.state.stable == version("v2", 9002)
    assert lost.state.generation > generation
    assert lost.proxy.plan is not None
    assert lost.proxy.plan.generation == lost.state.generation


def test_a_state_lost_in_mid_rollout_begins_again_from_stable() -> None:
    """Everyone goes back first; the same revision keeps its salt, as uid and secret are the same."""
    lost = world()
    lost.until(Phase.PAUSED)
    salt = lost.proxy.plan.salt if lost.proxy.plan else ""
    lost.stored = ""
    lost.state = state.new(lost.doc, lost.templates)
    lost.boot()
    lost.until(Phase.PAUSED)
    assert lost.weights == [0, 500, 2500, 0, 500, 2500]
    assert lost.proxy.plan is not None
    assert lost.proxy.plan.salt == salt


def test_a_state_lost_after_an_abort_stays_aborted() -> None:
    """The latch is at the proxies, and they are asked before anything begins."""
    lost = world()
    lost.until(Phase.PAUSED)
    lost.ask(Verb.ABORT)
    lost.run(2)
    lost.stored = ""
    lost.state = state.new(lost.doc, lost.templates)
    lost.boot()
    lost.run(30)
    assert lost.phase is Phase.ABORTED
    assert lost.weights == [0, 500, 2500, 0]
    lost.ask(Verb.RETRY)
    lost.until(Phase.PAUSED)
    assert lost.proxy.latch is None


@pytest.mark.parametrize("where", [Stage.CLEARING, Stage.STEPS, Stage.FILLING, Stage.SWAPPING, Stage.ABORTED])
def test_a_state_survives_being_stored(where: Stage) -> None:
    """serialise then parse is the identity but for what is learnt anew."""
    found = world()
    found.until(Phase.PAUSED)
    if where is Stage.CLEARING:
        found.declare(document(*SCRIPT, canary="v3", canary_port=9003))
    elif where is Stage.ABORTED:
        found.ask(Verb.ABORT)
    elif where is not Stage.STEPS:
        found.ask(Verb.PROMOTE_FULL)
    if where is Stage.SWAPPING:
        found.poll("unix:0")
        found.poll("unix:1")
    assert found.state.stage is where
    text = state.serialise(found.state)
    assert state.serialise(state.parse(text)) == text
