"""Documents under way: what counts at once, what waits, and what the state knows better."""

from __future__ import annotations

from controller.events import Keyed, Missing, Verb
from controller.state import Phase, Stage
from tests.controller.world import SECRETS, World, document, template, version

LONG = ({"setWeight": 5}, {"pause": {"duration": "60s"}}, {"setWeight": 50}, {"pause": {}})


def under_way() -> World:
    return World(document(*LONG)).run(5)


def promoted() -> World:
    world = under_way()
    world.ask(Verb.PROMOTE_FULL)
    return world.until(Phase.HEALTHY)


def test_the_same_document_again_changes_nothing() -> None:
    """It is told anew at every look and every start."""
    world = under_way()
    before = world.state
    world.declare(world.doc)
    assert world.state == before


def test_routes_preview_and_explain_count_at_once() -> None:
    """A6: changed while running; a new plan, the same step."""
    world = under_way()
    routes = [{"name": "staff", "matches": [{"headers": [{"name": "X-Staff"}]}], "arm": "canary"}]
    routes[0]["matches"][0]["headers"][0]["value"] = "yes"  # type: ignore[index]
    world.declare(document(*LONG, routes=routes, explain="Always", preview={"access": "Public"}))
    world.run(2)
    assert world.proxy.plan is not None
    assert [route.name for route in world.proxy.plan.routes] == ["staff"]
    assert (world.proxy.plan.explain, world.proxy.plan.preview.access) == ("Always", "Public")
    assert world.state.document_generation == 2
    assert world.state.attempts == 1


def test_users_count_from_the_next_revision() -> None:
    """A change of keys would deal everybody anew in mid-rollout."""
    world = under_way()
    users = [{"cookie": {"name": "uid"}}, {"mint": {}}]
    world.declare(document(*LONG, users=users))
    world.run(2)
    assert world.proxy.plan is not None
    assert [user.label for user in world.proxy.plan.users] == ["mint"]
    assert any("users count from the next revision" in message for message in world.messages)
    world.ask(Verb.ABORT)
    world.ask(Verb.RETRY)
    world.run(2)
    assert [user.label for user in world.proxy.plan.users] == ["mint"]
    world.declare(document(*LONG, users=users, canary="v3", canary_port=9003))
    world.run(5)
    assert [user.label for user in world.proxy.plan.users] == ["cookie:uid", "mint"]


def test_steps_count_from_the_next_revision_or_a_retry() -> None:
    """An index into steps that changed beneath it would mean another step."""
    world = under_way()
    world.declare(document({"setWeight": 1}, {"pause": {}}))
    world.run(60)
    world.until(Phase.PAUSED)
    assert world.weights == [0, 500, 5000]
    world.ask(Verb.ABORT)
    world.run(2)
    world.ask(Verb.RETRY)
    world.until(Phase.PAUSED)
    assert world.weights[-1] == 100


def test_templates_count_from_the_next_revision_or_a_retry() -> None:
    """What a trial is judged by is what it began with."""
    doc = document({"setWeight": 5}, {"analysis": {"templates": [{"templateName": "rate"}]}}, {"pause": {}})
    world = World(doc, 2, template()).run(3)
    before = world.state.trial
    world.known = [template(successCondition="result >= 2")]
    world.declare(doc)
    assert before is not None
    assert world.state.trial is not None
    assert world.state.trial.templates == before.templates
    world.until(Phase.PAUSED)


def test_addresses_follow_the_document() -> None:
    """The same revisions elsewhere: a new plan, the same step."""
    world = under_way()
    world.declare(document(*LONG, stable_port=9101, canary_port=9102))
    world.run(2)
    assert world.proxy.plan is not None
    assert [arm.endpoints[0].port for arm in world.proxy.plan.arms] == [9101, 9102]
    assert world.state.attempts == 1


def test_the_state_wins_for_what_was_promoted() -> None:
    """The document still calls v2 the canary and v1 stable; v2 is stable, at the canary's addresses."""
    world = promoted()
    world.declare(document(*LONG, explain="Always"))
    world.run(3)
    assert (world.phase, world.state.stable) == (Phase.HEALTHY, version("v2", 9002))
    world.declare(document(*LONG, canary_port=9012))
    assert world.state.stable == version("v2", 9012)


def test_a_document_that_caught_up_says_where_stable_is() -> None:
    """The team has moved v2 to stable's place: its addresses there count; then v3 is tried where v2 was."""
    world = promoted()
    world.declare(document(*LONG, stable="v2", canary="v2"))
    assert world.state.stable == version("v2", 9001)
    world.run(3)
    assert world.phase is Phase.HEALTHY
    world.declare(document(*LONG, stable="v2", canary="v3"))
    world.run(5)
    assert (world.state.revision, world.phase) == ("v3", Phase.PROGRESSING)


def test_both_at_once_never_send_stable_users_to_the_canary() -> None:
    """One document moves v2 to port 9001 and v3 to 9002: no plan has stable at 9002 and v3 there too."""
    world = promoted()
    world.declare(document(*LONG, stable="v2", canary="v3"))
    world.until(Phase.PAUSED)
    for plan in world.proxy.history:
        ports = [arm.endpoints[0].port for arm in plan.arms]
        assert len(set(ports)) == len(ports)


def test_a_canary_where_stable_listens_is_refused_visibly() -> None:
    """After a promotion v2 is stable at 9002; v3 at 9002 cannot be told from it."""
    world = promoted()
    world.declare(document(*LONG, canary="v3", canary_port=9002))
    world.run(5)
    assert world.phase is Phase.HEALTHY
    assert "127.0.0.1:9002 is where stable v2 listens" in world.state.refusal
    assert "CanaryRefused" in world.told
    world.declare(document(*LONG, canary="v3", canary_port=9003))
    assert world.state.refusal == ""


def test_another_stable_is_taken_over_as_it_is() -> None:
    """The document declares what runs there; the trial begins again, for its baseline is another one."""
    world = under_way()
    world.declare(document(*LONG, stable="v9", stable_port=9009))
    world.run(3)
    assert "StableChanged" in world.told
    assert world.state.stable == version("v9", 9009)
    assert (world.state.revision, world.state.attempts) == ("v2", 2)


def test_another_stable_with_nothing_on_trial_is_one_plan() -> None:
    """Everyone goes to what is declared."""
    world = World(document(canary=None)).until(Phase.HEALTHY)
    world.declare(document(canary=None, stable="v9", stable_port=9009))
    world.run(2)
    assert world.proxy.plan is not None
    assert [(arm.revision, arm.weight_bp) for arm in world.proxy.plan.arms] == [("v9", 10_000)]
    assert world.phase is Phase.HEALTHY


def test_a_canary_declared_stable_ends_its_trial() -> None:
    """Promoted by hand in the document: one plan, everyone on it."""
    world = under_way()
    world.declare(document(*LONG, stable="v2", stable_port=9002))
    world.run(3)
    assert (world.phase, world.state.stable) == (Phase.HEALTHY, version("v2", 9002))
    assert world.weights == [0, 500, 0]


def test_a_withdrawn_canary_sends_everyone_back() -> None:
    """The document's canary is stable's revision again, or none: nothing is on trial."""
    for doc in (document(*LONG, canary="v1", canary_port=9001), document(*LONG, canary=None)):
        world = under_way()
        world.declare(doc)
        world.run(3)
        assert (world.phase, world.weights) == (Phase.HEALTHY, [0, 500, 0])
        assert "Withdrawn" in world.told


def test_a_withdrawn_canary_takes_its_abort_with_it() -> None:
    """A Git revert after an abort ends in Healthy: there is nobody left whom the latch could send back."""
    world = under_way()
    world.ask(Verb.ABORT)
    world.run(2)
    assert world.proxy.latch is not None
    world.declare(document(*LONG, canary="v1", canary_port=9001))
    world.run(3)
    assert (world.phase, world.proxy.latch) == (Phase.HEALTHY, None)
    assert world.proxy.plan is not None
    assert world.proxy.plan.revision is None


def test_a_newer_revision_while_clearing_takes_the_place() -> None:
    """v4 before v3 could begin: v3 never gets a user."""
    world = under_way()
    world.proxies["unix:1"].refuses_plan = True
    world.declare(document(*LONG, canary="v3", canary_port=9003))
    world.run(3)
    world.declare(document(*LONG, canary="v4", canary_port=9004))
    world.proxies["unix:1"].refuses_plan = False
    world.run(5)
    assert {plan.revision for plan in world.proxy.history} == {None, "v2", "v4"}


def test_a_missing_document_holds() -> None:
    """Nobody says any more that the rollout is wanted; an abort still goes, and the document's return goes on."""
    world = under_way()
    world.feed(Missing())
    world.feed(Missing())
    world.run(200)
    assert (world.phase, world.weights) == (Phase.HOLDING, [0, 500])
    assert world.told.count("DocumentMissing") == 1
    world.declare(world.doc)
    world.until(Phase.PAUSED)


def test_a_lost_split_key_starts_clean() -> None:
    """With another secret users would be dealt anew at 5 %: everyone goes back first."""
    world = under_way()
    assert world.state.split_key == next(iter(SECRETS))
    world.feed(Keyed("other", ("other",)))
    assert (world.state.stage, world.state.generation) == (Stage.CLEARING, 3)
    world.run(3)
    assert world.state.trial is not None
    assert (world.state.split_key, world.state.attempts) == ("other", 2)


def test_a_rotated_split_key_counts_from_the_next_revision() -> None:
    """surface.md: the secret's rotation counts from the next revision; a retry deals as before."""
    old = next(iter(SECRETS))
    world = under_way()
    world.feed(Keyed("new", ("new", old)))
    world.ask(Verb.ABORT)
    world.run(2)
    world.ask(Verb.RETRY)
    assert world.state.split_key == old
    world.declare(document(*LONG, canary="v3", canary_port=9003))
    world.run(3)
    assert world.state.split_key == "new"
