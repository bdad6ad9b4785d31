"""What people ask: each verb, when it makes sense, and the reason when it does not."""

from __future__ import annotations

import pytest

from controller.events import Verb
from controller.state import MAX_ACTIONS, Phase, Stage
from tests.controller.world import World, document, version

LONG = ({"setWeight": 5}, {"pause": {"duration": "60s"}}, {"setWeight": 50}, {"pause": {}})


def under_way() -> World:
    return World(document(*LONG)).run(5)


def test_promote_skips_the_current_step() -> None:
    """C2: a timed pause or an indefinite one ends, and the next step begins."""
    world = under_way()
    assert world.ask(Verb.PROMOTE) == "goes on with setWeight 50"
    world.until(Phase.PAUSED, limit_s=5)
    assert world.ask(Verb.PROMOTE) == "everyone goes to v2"
    world.until(Phase.HEALTHY, limit_s=5)


def test_promote_full_goes_straight_to_promotion() -> None:
    """All steps and analyses that are left are skipped; the canary still fills before it becomes stable."""
    world = under_way()
    assert world.ask(Verb.PROMOTE_FULL) == "everyone goes to v2"
    assert world.phase is Phase.PROMOTING
    world.until(Phase.HEALTHY, limit_s=5)
    assert world.weights == [0, 500, 10_000, 0]


@pytest.mark.parametrize("verb", [Verb.PROMOTE, Verb.PROMOTE_FULL])
def test_promotion_under_way_is_not_promoted_twice(verb: Verb) -> None:
    """Idempotent."""
    world = under_way()
    world.ask(Verb.PROMOTE_FULL)
    before = world.state.generation
    assert world.ask(verb) == "the canary is becoming stable already"
    assert world.state.generation == before


@pytest.mark.parametrize("verb", [Verb.PROMOTE, Verb.PROMOTE_FULL])
def test_nothing_is_promoted_past_a_proxy_that_is_away(verb: Verb) -> None:
    """Proxies unreachable: never advance, not by hand either; an abort always goes."""
    world = under_way()
    world.proxies["unix:1"].is_up = False
    world.run(6)
    assert "nothing advances while a proxy does not answer: unix:1" in world.refusal(verb)
    assert "nothing advances" in world.refusal(Verb.SET_WEIGHT, weight_bp=5000)
    world.ask(Verb.SET_WEIGHT, weight_bp=100)
    world.ask(Verb.ABORT)
    assert world.phase is Phase.DEGRADED


def test_pause_stops_the_clock_and_resume_lets_it_go_on() -> None:
    """By hand, in any step; the time that the step has had stays."""
    world = under_way()
    assert world.state.trial is not None
    before = world.state.trial.elapsed_s
    world.ask(Verb.PAUSE)
    world.run(100)
    assert (world.phase, world.weights) == (Phase.PAUSED, [0, 500])
    assert world.state.trial.elapsed_s == before
    assert world.ask(Verb.PAUSE) == "is paused already, by anna"
    assert world.ask(Verb.RESUME) == "goes on with pause 1m"
    world.run(50)
    assert world.weights == [0, 500]
    world.run(15)
    assert world.weights == [0, 500, 5000]


def test_resume_ends_an_indefinite_pause() -> None:
    """Whoever reads Paused and says resume means it."""
    world = under_way()
    world.ask(Verb.PROMOTE)
    world.until(Phase.PAUSED)
    assert world.ask(Verb.RESUME) == "everyone goes to v2"


def test_a_pause_by_hand_at_an_indefinite_pause_is_resumed_first() -> None:
    """Two pauses, one after the other."""
    world = under_way()
    world.ask(Verb.PROMOTE)
    world.until(Phase.PAUSED)
    world.ask(Verb.PAUSE)
    assert world.ask(Verb.RESUME) == "goes on with pause"
    assert world.phase is Phase.PAUSED
    world.ask(Verb.RESUME)
    assert world.phase is Phase.PROMOTING


def test_resume_of_what_is_not_paused_changes_nothing() -> None:
    """Idempotent."""
    world = under_way()
    assert world.ask(Verb.RESUME) == "is not paused"
    assert world.phase is Phase.PROGRESSING


def test_a_weight_by_hand_pauses_there() -> None:
    """Until resume; then the steps go on from where they were, and the next setWeight counts again."""
    world = under_way()
    assert world.ask(Verb.SET_WEIGHT, weight_bp=1234) == "12.34 % of users go to v2, and it is paused there"
    world.run(100)
    assert (world.phase, world.weights) == (Phase.PAUSED, [0, 500, 1234])
    world.ask(Verb.SET_WEIGHT, weight_bp=200)
    world.run(3)
    world.ask(Verb.RESUME)
    world.until(Phase.PAUSED)
    assert world.weights == [0, 500, 1234, 200, 5000]


@pytest.mark.parametrize("verb", [Verb.PROMOTE, Verb.PROMOTE_FULL, Verb.PAUSE, Verb.RESUME, Verb.ABORT, Verb.RETRY])
def test_with_nothing_on_trial_only_a_start_makes_sense(verb: Verb) -> None:
    """The reason says so."""
    world = World(document(canary=None)).until(Phase.HEALTHY)
    assert world.refusal(verb) == "no revision is on trial: everyone is on stable"
    assert world.refusal(Verb.SET_WEIGHT, weight_bp=100) == "no revision is on trial: everyone is on stable"


@pytest.mark.parametrize("verb", [Verb.PROMOTE, Verb.PROMOTE_FULL, Verb.PAUSE, Verb.RESUME])
def test_an_aborted_rollout_goes_on_by_retry_only(verb: Verb) -> None:
    """No other verb undoes an abort."""
    world = under_way()
    world.ask(Verb.ABORT)
    assert world.refusal(verb) == "it is aborted: retry, or start another revision"


def test_what_is_not_aborted_is_not_retried() -> None:
    """A retry would send everyone back."""
    assert "not aborted" in under_way().refusal(Verb.RETRY)


@pytest.mark.parametrize("verb", [Verb.PROMOTE, Verb.PROMOTE_FULL, Verb.PAUSE])
def test_what_is_going_back_is_left_alone(verb: Verb) -> None:
    """While everyone goes back to stable before a new revision, there is no step to steer."""
    world = under_way()
    world.proxies["unix:1"].refuses_plan = True
    world.ask(Verb.START, version=version("v3", 9003))
    assert "everyone is going back to stable before v3 begins" in world.refusal(verb)
    assert "everyone is going back" in world.refusal(Verb.SET_WEIGHT, weight_bp=100)


@pytest.mark.parametrize("verb", [v for v in Verb if v is not Verb.START])
def test_another_revision_than_the_one_on_trial_is_refused(verb: Verb) -> None:
    """Who promotes or aborts v1 has not seen that v2 is on trial."""
    world = under_way()
    if verb is Verb.RETRY:
        world.ask(Verb.ABORT, revision="v2")
    assert world.refusal(verb, revision="v1") == "v1 is meant, but v2 is on trial"


def test_start_puts_a_revision_on_trial() -> None:
    """C5, F1: by name and addresses, without a document that knows of it."""
    world = World(document(*LONG, canary=None)).until(Phase.HEALTHY)
    assert world.ask(Verb.START, version=version("v3", 9003)) == "v3 begins as soon as everyone is on v1"
    world.run(3)
    assert world.weights == [0, 500]
    assert world.proxy.plan is not None
    assert world.proxy.plan.arms[1].endpoints[0].port == 9003


def test_a_document_that_never_knew_of_it_does_not_end_what_was_started_by_hand() -> None:
    """What counts is what changes in the document."""
    world = World(document(*LONG, canary=None)).until(Phase.HEALTHY)
    world.ask(Verb.START, version=version("v3", 9003))
    world.run(3)
    world.declare(document(*LONG, canary=None, explain="Always"))
    world.run(3)
    world.kill()
    world.run(3)
    assert world.state.revision == "v3"


def test_start_of_what_is_on_trial_takes_its_addresses_only() -> None:
    """Idempotent: the steps go on."""
    world = under_way()
    assert world.ask(Verb.START, version=version("v2", 9002)) == "v2 is on trial already"
    generation = world.state.generation
    world.ask(Verb.START, version=version("v2", 9022))
    assert world.state.generation == generation + 1
    world.run(3)
    assert world.proxy.plan is not None
    assert world.proxy.plan.arms[1].endpoints[0].port == 9022
    assert world.state.attempts == 1


@pytest.mark.parametrize(
    ("revision", "port", "reason"),
    [("v1", 9009, "v1 is stable already"), ("v3", 9001, "127.0.0.1:9001 is where stable v1 listens")],
)
def test_start_of_what_is_stable_is_refused(revision: str, port: int, reason: str) -> None:
    """Nothing could be compared."""
    assert reason in under_way().refusal(Verb.START, version=version(revision, port))


def test_start_of_what_is_aborted_is_refused() -> None:
    """Retry says what happens then; start would look like a fresh one."""
    world = under_way()
    world.ask(Verb.ABORT)
    assert "retry it" in world.refusal(Verb.START, version=version("v2", 9002))


def test_start_while_promoting_comes_after_the_promotion() -> None:
    """In SWAPPING stable has changed already, so that is finished first."""
    world = under_way()
    world.ask(Verb.PROMOTE_FULL)
    world.poll("unix:0")
    world.poll("unix:1")
    assert world.state.stage is Stage.SWAPPING
    world.ask(Verb.START, version=version("v3", 9003))
    world.run(5)
    assert (world.state.stable, world.state.revision) == (version("v2", 9002), "v3")
    assert world.weights == [0, 500, 10_000, 0, 500]


def test_start_while_filling_sends_everyone_back() -> None:
    """Not promoted yet, so it is superseded."""
    world = under_way()
    world.ask(Verb.PROMOTE_FULL)
    world.ask(Verb.START, version=version("v3", 9003))
    world.run(5)
    assert (world.state.stable, world.state.revision) == (version("v1", 9001), "v3")


def test_the_last_actions_are_on_record() -> None:
    """surface.md: the last 16, each with its result."""
    world = under_way()
    for _ in range(20):
        world.ask(Verb.PAUSE)
    assert len(world.state.actions) == MAX_ACTIONS
    assert {(action.verb, action.result, action.by) for action in world.state.actions} == {("Pause", "Done", "anna")}


def test_before_anything_is_known_nothing_starts() -> None:
    """No proxy has answered, so nobody knows what is stable."""
    assert World().refusal(Verb.START, version=version("v3", 9003)) == "no proxy has answered yet"
    assert "no revision is on trial" in World(document(canary=None)).refusal(Verb.ABORT)
