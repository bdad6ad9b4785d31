"""Proxies: what they have, what they lack, and latches that somebody else set."""

from __future__ import annotations

import pytest

from controller.events import Asked, Observed, Verb
from controller.state import Latch, Phase, ProxyView
from controller.status import conditions
from tests.controller.world import World, document, version

LONG = ({"setWeight": 5}, {"pause": {"duration": "30s"}}, {"setWeight": 50}, {"pause": {}})


def under_way() -> World:
    return World(document(*LONG)).run(5)


def test_an_unreachable_proxy_holds_visibly_and_is_caught_up() -> None:
    """Never advance without it; on its return it gets the plan it missed."""
    world = under_way()
    world.proxies["unix:1"].is_up = False
    world.run(2)
    assert world.phase is Phase.PROGRESSING
    world.run(60)
    assert world.phase is Phase.HOLDING
    assert world.told.count("ProxyUnreachable") == 1
    world.proxies["unix:1"].is_up = True
    world.until(Phase.PAUSED)
    assert "ProxyBack" in world.told
    assert world.proxies["unix:1"].plan == world.proxy.plan


def test_a_restarted_proxy_with_an_older_plan_gets_the_current_one() -> None:
    """Its last good one may be of before."""
    world = World(document(*LONG)).until(Phase.PAUSED)
    proxy = world.proxies["unix:1"]
    proxy.plan = proxy.history[0]
    world.run(2)
    assert proxy.plan == world.proxy.plan
    assert proxy.plan is not None
    assert proxy.plan.generation == world.state.generation


def test_a_proxy_without_any_plan_gets_the_current_one() -> None:
    """A new machine, or an emptied state directory."""
    world = World(document(*LONG)).until(Phase.PAUSED)
    world.proxies["unix:1"].plan = None
    world.run(2)
    assert world.proxies["unix:1"].plan == world.proxy.plan


def test_a_proxy_that_is_ahead_is_outranked_not_fought() -> None:
    """The state was restored from a copy, or somebody put a plan by hand: one later generation, and quiet."""
    world = under_way()
    proxy = world.proxies["unix:1"]
    assert proxy.plan is not None
    proxy.plan = proxy.plan.model_copy(update={"generation": 100})
    world.run(2)
    assert world.state.generation == 101
    assert proxy.plan.generation == 101
    assert world.told.count("GenerationAhead") == 1
    world.run(5)
    assert world.state.generation == 101


def test_a_proxy_with_another_plan_of_this_generation_is_outranked() -> None:
    """Equal with other bytes is refused by proxies, so it takes a later number."""
    world = under_way()
    proxy = world.proxies["unix:1"]
    assert proxy.plan is not None
    generation = world.state.generation
    proxy.plan = proxy.plan.model_copy(update={"explain": "Never"})
    world.run(2)
    assert world.state.generation == generation + 1
    assert proxy.plan == world.proxy.plan


def test_a_proxy_of_another_rollout_is_taken_over() -> None:
    """Another uid starts afresh, whatever its generation."""
    world = under_way()
    proxy = world.proxies["unix:1"]
    assert proxy.plan is not None
    other = proxy.plan.rollout.model_copy(update={"uid": "other"})
    proxy.plan = proxy.plan.model_copy(update={"rollout": other, "generation": 999})
    generation = world.state.generation
    world.run(2)
    assert world.state.generation == generation
    assert proxy.plan == world.proxy.plan


def test_a_refused_plan_holds_and_says_why() -> None:
    """A proxy of another version finds fault with it: shown, told once, tried again."""
    world = under_way()
    world.proxies["unix:1"].refuses_plan = True
    world.ask(Verb.PROMOTE)
    world.run(10)
    assert world.phase is Phase.HOLDING
    assert world.told.count("PlanRefused") == 1
    world.proxies["unix:1"].refuses_plan = False
    world.until(Phase.PAUSED)


@pytest.mark.parametrize("revision", ["v2", None])
def test_an_abort_at_a_proxy_aborts_the_rollout(revision: str | None) -> None:
    """B8: whoever aborts at a proxy has aborted everywhere, by that name."""
    world = under_way()
    world.proxies["unix:1"].latch = {"id": "feedbeef", "revision": revision, "by": "bob", "reason": "smoke"}
    world.run(2)
    abort = world.state.abort
    assert abort is not None
    assert (abort.id, abort.by, abort.reason, abort.revision) == ("feedbeef", "bob", "Latched", "v2")
    assert "smoke" in abort.message
    assert world.proxy.latch is not None
    assert world.proxy.latch["id"] == "feedbeef"
    assert world.weights == [0, 500, 0]


def test_a_breaker_that_trips_at_one_proxy_aborts_the_rollout_everywhere() -> None:
    """The proxy's reason is shown as it is; a retry lifts it."""
    world = under_way()
    latch = {"id": "feedbeef", "revision": "v2", "by": "breaker", "reason": "25 of 30 answers failed within 10s"}
    world.proxies["unix:1"].latch = dict(latch)
    world.run(2)
    assert world.phase is Phase.ABORTED
    assert world.proxy.latch is not None
    assert world.proxy.latch["id"] == "feedbeef"
    assert world.state.abort is not None
    assert (world.state.abort.by, world.state.abort.reason) == ("breaker", "BreakerTripped")
    degraded = next(found for found in conditions(world.state, world.now, "") if found.type == "Degraded")
    assert (degraded.is_true, degraded.reason) == (True, "BreakerTripped")
    assert degraded.message == "found at unix:1: 25 of 30 answers failed within 10s"
    world.ask(Verb.RETRY)
    world.run(3)
    assert world.phase is Phase.PROGRESSING
    assert [proxy.latch for proxy in world.proxies.values()] == [None, None]


def test_every_standing_latch_is_lifted_by_a_retry() -> None:
    """Two people aborted at two proxies: both ids are known, and both are named."""
    world = under_way()
    world.proxies["unix:0"].latch = {"id": "aaaaaaaa", "revision": "v2", "by": "ann"}
    world.proxies["unix:1"].latch = {"id": "bbbbbbbb", "revision": "v2", "by": "bob"}
    world.run(2)
    assert set(world.state.latches) == {"aaaaaaaa", "bbbbbbbb"}
    world.ask(Verb.RETRY)
    world.run(3)
    assert [proxy.latch for proxy in world.proxies.values()] == [None, None]
    assert world.phase is Phase.PROGRESSING


def test_a_latch_of_another_revision_is_lifted_for_the_new_one() -> None:
    """A proxy comes back with a state directory of v2's times; v3 is on trial, and a new revision ends an abort."""
    world = under_way()
    world.declare(document(*LONG, canary="v3", canary_port=9003))
    world.run(5)
    away = world.proxies["unix:1"]
    away.latch = {"id": "feedbeef", "revision": "v2", "by": "bob"}
    world.run(5)
    assert away.latch is None
    assert (world.phase, world.state.revision) == (Phase.PROGRESSING, "v3")
    assert "feedbeef" in world.state.lifts


@pytest.mark.parametrize("where", ["clearing", "on trial"])
def test_a_latch_of_an_action_that_is_over_is_lifted(where: str) -> None:
    """A replica latched its proxy for an action at once; that was carried out since, and another revision has come.

    It is heard of by the next controller only: the action says all of it, and does not abort what came after it.
    """
    world = under_way()
    world.feed(Asked(Verb.ABORT, "0a1b2c3d-0000-4000-8000-000000000001", "anna", revision="v2"))
    if where == "on trial":
        world.ask(Verb.RETRY)
        world.run(5)
    world.proxies["unix:1"].is_up = False
    world.run(2)
    world.proxies["unix:1"].latch = {"id": "0a1b2c3d000040008000000000000001", "revision": "v2", "by": "anna"}
    world.declare(document(*LONG, canary="v3", canary_port=9003))
    world.proxies["unix:1"].is_up = True
    world.kill()
    world.run(5)
    assert (world.phase, world.state.revision) == (Phase.PROGRESSING, "v3")
    assert world.proxies["unix:1"].latch is None


def test_an_abort_while_clearing_is_an_abort() -> None:
    """Before v3 has begun the proxies still have v2's plan: whoever aborts then wants everything stopped."""
    world = under_way()
    world.proxies["unix:1"].refuses_plan = True
    world.declare(document(*LONG, canary="v3", canary_port=9003))
    world.run(2)
    world.proxy.abort("bob", "feedbeef")
    world.run(2)
    assert world.phase is Phase.ABORTED
    assert world.state.abort is not None
    assert world.state.abort.revision == "v3"
    world.proxies["unix:1"].refuses_plan = False
    world.ask(Verb.RETRY)
    world.run(5)
    assert (world.phase, world.state.revision) == (Phase.PROGRESSING, "v3")


def test_a_latch_of_before_the_new_revision_does_not_abort_it() -> None:
    """Somebody aborted v2 at a proxy while no controller ran; the next one finds v3 deployed, and then the latch."""
    world = World(document(*LONG)).until(Phase.PAUSED)
    world.proxies["unix:1"].abort("bob", "feedbeef")
    world.declare(document(*LONG, canary="v3", canary_port=9003))
    world.boot()
    world.run(5)
    assert (world.phase, world.state.revision) == (Phase.PROGRESSING, "v3")
    assert "feedbeef" in world.state.lifts
    assert [proxy.latch for proxy in world.proxies.values()] == [None, None]


def test_a_latch_of_before_the_new_revision_stands_until_that_begins() -> None:
    """Nobody goes back to v2's canary meanwhile, not at the proxy that is latched either."""
    world = World(document(*LONG)).until(Phase.PAUSED)
    world.proxies["unix:0"].refuses_plan = True
    world.proxies["unix:1"].abort("bob", "feedbeef")
    world.declare(document(*LONG, canary="v3", canary_port=9003))
    world.run(5)
    assert world.state.next is not None
    assert "feedbeef" in world.state.latches
    assert world.proxies["unix:1"].latch is not None
    world.proxies["unix:0"].refuses_plan = False
    world.run(5)
    assert (world.phase, world.state.revision, world.proxies["unix:1"].latch) == (Phase.PROGRESSING, "v3", None)


def test_a_latch_with_nothing_on_trial_is_noted_and_lifted_by_the_next_revision() -> None:
    """Nobody could be sent back; it must not silently stop the next rollout."""
    world = World(document(*LONG, canary=None)).until(Phase.HEALTHY)
    world.proxy.latch = {"id": "feedbeef", "revision": None, "by": "bob"}
    world.run(5)
    assert world.phase is Phase.HEALTHY
    assert world.told.count("LatchFound") == 1
    world.ask(Verb.START, version=version("v2", 9002))
    world.run(5)
    assert (world.phase, world.proxy.latch) == (Phase.PROGRESSING, None)


def test_a_latch_that_a_proxy_lost_is_set_again() -> None:
    """While an abort stands, every proxy shows it, whatever became of its disk."""
    world = under_way()
    world.ask(Verb.ABORT)
    world.run(2)
    world.proxies["unix:1"].latch = None
    world.run(2)
    assert world.proxies["unix:1"].latch is not None


def test_an_old_latch_found_during_an_abort_stands_for_it() -> None:
    """A proxy that was away during a retry shows the first latch again: a plan must not lift it in this abort."""
    world = under_way()
    away = world.proxies["unix:1"]
    world.ask(Verb.ABORT)
    first = world.state.abort
    world.run(2)
    away.is_up = False
    world.ask(Verb.RETRY)
    world.run(1)
    assert first is not None
    assert first.id in world.state.lifts or first.id in world.state.latches
    world.ask(Verb.ABORT)
    away.is_up = True
    world.run(3)
    assert away.latch is not None
    assert away.plan is not None
    assert first.id not in away.plan.lifts
    world.ask(Verb.RETRY)
    world.run(3)
    assert away.latch is None


def test_a_latch_id_that_is_used_again_is_an_abort_all_the_same() -> None:
    """A script that always aborts with one id: lifted once, it must abort the second time too."""
    world = under_way()
    for _ in range(2):
        world.proxy.abort("script", "0badcafe")
        world.run(4)
        assert world.phase is Phase.ABORTED
        world.ask(Verb.RETRY)
        world.run(4)
        assert (world.phase, world.proxy.latch) == (Phase.PROGRESSING, None)


def test_a_latch_that_is_just_being_lifted_is_no_new_abort() -> None:
    """Between the retry and the plan's arrival a proxy still shows the old latch."""
    world = under_way()
    world.ask(Verb.ABORT)
    world.run(2)
    shown = world.view("unix:1")
    world.ask(Verb.RETRY)
    world.feed(Observed(shown))
    world.feed(Observed(shown))
    assert world.phase is Phase.PROGRESSING


def test_a_view_of_a_proxy_that_is_not_configured_is_left_out() -> None:
    """Settings have changed, and an answer was still under way."""
    world = under_way()
    before = world.state
    world.feed(Observed(ProxyView("unix:gone", world.now, answered=True, latch=Latch("feedbeef", "v2", "x"))))
    assert world.state == before


def test_a_late_proxy_does_not_keep_the_others_waiting_at_the_first_deploy() -> None:
    """Whoever answers gets stable at once; the rollout waits for all."""
    world = World(document(*LONG))
    world.proxies["unix:1"].is_up = False
    world.run(10)
    assert world.phase is Phase.PENDING
    assert world.proxy.plan is not None
    world.proxies["unix:1"].is_up = True
    world.until(Phase.PAUSED)


def test_nothing_is_adopted_while_no_proxy_answers() -> None:
    """A later generation, a promotion or a latch may be at any of them."""
    world = World(document(*LONG))
    for proxy in world.proxies.values():
        proxy.is_up = False
    world.run(30)
    assert (world.phase, world.state.stable, world.told) == (Phase.PENDING, None, ["ProxyUnreachable"] * 2)
