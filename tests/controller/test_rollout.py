"""The state machine as a whole: the way of a rollout, and every state with every event."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller import rollout, state
from controller.analysis import Reading
from controller.ask import Refused
from controller.events import (
    Asked,
    Documented,
    Event,
    Keyed,
    LatchFailed,
    Measured,
    Missing,
    Observed,
    Publish,
    SetLatch,
    Tell,
    Tick,
    Unanswered,
    Verb,
)
from controller.phase import phase
from controller.state import Latch, Phase, ProxyView, Stage
from tests.controller.world import SECRETS, World, document, template, version

ANALYSED = (
    {"setWeight": 5},
    {"pause": {"duration": "10s"}},
    {"analysis": {"templates": [{"templateName": "rate"}]}},
    {"setWeight": 25},
    {"pause": {}},
    {"setWeight": 100},
)


def analysed() -> World:
    return World(document(*ANALYSED), 2, template())


def test_a_rollout_walks_its_steps_and_promotes() -> None:
    """C1: weights in order, a timed pause, an analysis, a pause for a person, promotion."""
    world = analysed().until(Phase.PAUSED)
    assert world.weights == [0, 500, 2500]
    assert world.ask(Verb.PROMOTE) == "goes on with setWeight 100"
    world.until(Phase.HEALTHY)
    assert world.weights == [0, 500, 2500, 10_000, 0]
    assert (world.state.stable, world.state.trial) == (version("v2", 9002), None)
    assert world.told == [
        "Adopted",
        "Programmed",
        "RolloutStarted",
        *["StepStarted"] * 5,
        "StepStarted",
        "Promote",
        "Promoting",
        "Promoted",
    ]


def test_promotion_is_one_plan_from_everyone_on_the_canary() -> None:
    """Nobody flips: the canary has all users until the one plan in which its addresses are stable's, with weight 0."""
    world = analysed().until(Phase.PAUSED)
    world.ask(Verb.PROMOTE_FULL)
    world.until(Phase.HEALTHY)
    for proxy in world.proxies.values():
        last, before = proxy.history[-1], proxy.history[-2]
        assert [(arm.name, arm.revision, arm.weight_bp) for arm in before.arms] == [
            ("stable", "v1", 0),
            ("canary", "v2", 10_000),
        ]
        assert [(arm.name, arm.revision, arm.weight_bp) for arm in last.arms] == [("stable", "v2", 10_000)]
        assert last.arms[0].endpoints == before.arms[1].endpoints
        assert last.revision is None


def test_a_promoted_revision_is_not_tried_again() -> None:
    """The document still calls it canary; it is stable in the state, after a restart too."""
    world = World(document({"setWeight": 50})).until(Phase.HEALTHY)
    generation = world.state.generation
    world.run(5)
    world.kill()
    world.run(5)
    assert (world.phase, world.state.generation, world.state.attempts) == (Phase.HEALTHY, generation, 1)


def test_every_plan_has_a_later_generation_and_one_salt_a_trial() -> None:
    """Newer is the greater generation; the salt is bound to uid and revision (A3)."""
    world = analysed().until(Phase.PAUSED)
    world.declare(document(*ANALYSED, canary="v3", canary_port=9003))
    world.until(Phase.PAUSED)
    history = world.proxy.history
    assert [plan.generation for plan in history] == sorted({plan.generation for plan in history})
    salts = {plan.revision: plan.salt for plan in history if plan.revision}
    assert len(set(salts.values())) == 2
    assert all(plan.salt == salts[plan.revision] for plan in history if plan.revision)


def test_a_plan_is_new_exactly_when_it_says_something_new() -> None:
    """A step that changes nothing costs no generation: proxies are not made to stage the same plan twice."""
    world = World(document({"setWeight": 5}, {"setWeight": 5}, {"pause": {}})).until(Phase.PAUSED)
    assert world.weights == [0, 500]
    assert len(world.proxy.history) == 2
    assert world.state.trial is not None
    assert world.state.trial.index == 2


def test_the_first_deploy_has_nothing_to_compare_with_and_says_so() -> None:
    """C5: an empty state takes the document's stable over without steps."""
    world = World(document(canary=None)).until(Phase.HEALTHY)
    assert world.told == ["Adopted", "Programmed"]
    assert "without steps: there is nothing to compare it with" in world.messages[0]
    assert [(arm.revision, arm.weight_bp) for arm in world.proxy.history[0].arms] == [("v1", 10_000)]


def test_a_steps_clock_starts_when_every_proxy_has_the_plan() -> None:
    """design.md 3: a proxy that has not acknowledged holds the clock at zero."""
    world = World(document({"setWeight": 5}, {"pause": {"duration": "10s"}}, {"setWeight": 50}, {"pause": {}}))
    world.proxies["unix:1"].refuses_plan = True
    world.run(30)
    assert world.phase is Phase.PENDING
    world.proxies["unix:1"].refuses_plan = False
    world.run(8)
    assert world.weights == [0, 500]
    assert world.state.trial is not None
    before = world.state.trial.elapsed_s
    world.proxies["unix:1"].is_up = False
    world.run(60)
    assert world.phase is Phase.HOLDING
    assert world.state.trial.elapsed_s - before < 5
    world.proxies["unix:1"].is_up = True
    world.until(Phase.PAUSED)
    assert world.weights == [0, 500, 5000]


def test_header_routes_come_and_go_with_steps() -> None:
    """setHeaderRoute as Argo: set, replaced by name, removed without match; gone with an abort and at promotion."""
    match = [{"headerName": "X-QA", "headerValue": {"exact": "yes"}}]
    other = [{"headerName": "X-QA", "headerValue": {"prefix": "y"}}]
    world = World(
        document(
            {"setHeaderRoute": {"name": "qa", "match": match}},
            {"setHeaderRoute": {"name": "staff", "match": match}},
            {"pause": {}},
            {"setHeaderRoute": {"name": "qa", "match": other}},
            {"pause": {}},
            {"setHeaderRoute": {"name": "qa"}},
            {"pause": {}},
        )
    ).until(Phase.PAUSED)

    def routes() -> list[tuple[str, str]]:
        plan = world.proxy.plan
        return [(r.name, r.matches[0].type) for r in plan.header_routes] if plan else []

    assert routes() == [("qa", "Exact"), ("staff", "Exact")]
    world.ask(Verb.PROMOTE)
    world.run(3)
    assert sorted(routes()) == [("qa", "Prefix"), ("staff", "Exact")]
    world.ask(Verb.PROMOTE)
    world.run(3)
    assert routes() == [("staff", "Exact")]
    world.ask(Verb.ABORT)
    world.run(3)
    assert routes() == []


# Analysis


def test_a_bad_measurement_rolls_back_in_the_same_step() -> None:
    """C3: latch, weight 0, and the measurement in the message; nobody has to look."""
    world = analysed()
    world.readings["rate"] = Reading(0.91)
    world.until(Phase.ABORTED, limit_s=25)
    world.run(2)
    assert world.weights == [0, 500, 0]
    abort = world.state.abort
    assert abort is not None
    assert (abort.reason, abort.by, abort.revision) == ("AnalysisFailed", "analysis", "v2")
    assert "0.91 does not fulfil successCondition result[0] >= 0.99" in abort.message
    assert all(proxy.latch and proxy.latch["id"] == abort.id for proxy in world.proxies.values())


def test_no_data_neither_promotes_nor_aborts() -> None:
    """D5: an analysis without data holds for ever, visibly, and goes on when data comes."""
    world = analysed()
    world.readings["rate"] = Reading(error="no proxy has told numbers")
    world.run(600)
    assert (world.phase, world.weights) == (Phase.HOLDING, [0, 500])
    world.readings["rate"] = Reading(1.0)
    world.until(Phase.PAUSED)
    assert world.weights == [0, 500, 2500]
    assert "Holding" in world.told
    assert "HoldEnded" in world.told


def test_an_inconclusive_analysis_waits_for_a_person() -> None:
    """Argo pauses; promote goes on to the next step."""
    world = World(document(*ANALYSED), 2, template(successCondition="result >= 0.99", failureCondition="result < 0.9"))
    world.readings["rate"] = Reading(0.95)
    world.until(Phase.HOLDING)
    world.run(100)
    assert world.phase is Phase.HOLDING
    assert world.ask(Verb.PROMOTE) == "goes on with setWeight 25"
    world.until(Phase.PAUSED)


def test_judging_goes_on_while_paused() -> None:
    """A pause by hand stops what advances, not what protects."""
    world = World(document(*ANALYSED), 2, template(count=9, failureLimit=1)).run(16)
    world.ask(Verb.PAUSE)
    assert world.phase is Phase.PAUSED
    world.readings["rate"] = Reading(0.5)
    world.until(Phase.ABORTED, limit_s=20)


BACKGROUND = {"templates": [{"templateName": "beside"}]}


def beside(*steps: Any, starting: int = 0, **metric: Any) -> World:
    doc = document(*steps, background={**BACKGROUND, "startingStep": starting})
    return World(doc, 2, template("beside", count=None, **metric))


def test_the_background_analysis_rolls_back_during_any_step() -> None:
    """C1: it runs beside the steps from the one named to the end."""
    world = beside({"setWeight": 5}, {"pause": {}}, {"setWeight": 50}).until(Phase.PAUSED)
    world.run(20)
    world.readings["beside"] = Reading(0.1)
    world.until(Phase.ABORTED, limit_s=10)
    assert "AnalysisFailed" in (world.state.abort.reason if world.state.abort else "")


def test_the_background_analysis_begins_at_its_step() -> None:
    """startingStep: from 0, as Argo counts."""
    world = beside({"setWeight": 5}, {"pause": {"duration": "20s"}}, {"pause": {}}, starting=2)
    world.readings["beside"] = Reading(0.1)
    world.run(15)
    assert world.phase is Phase.PROGRESSING
    world.until(Phase.ABORTED, limit_s=20)


def test_more_users_wait_for_the_background_analysis() -> None:
    """No data never promotes: a higher weight needs a measurement of the users who are on the canary by now."""
    world = beside({"setWeight": 5}, {"pause": {"duration": "5s"}}, {"setWeight": 50}, {"setWeight": 20}, {"pause": {}})
    world.readings["beside"] = Reading(error="none")
    world.run(60)
    assert (world.phase, world.weights) == (Phase.HOLDING, [0, 500])
    world.readings["beside"] = Reading(1.0)
    world.until(Phase.PAUSED)
    assert world.weights == [0, 500, 5000, 2000]


def test_promotion_waits_for_the_background_analysis() -> None:
    """The last step is over, yet without data nobody is given to a canary for good."""
    world = beside({"setWeight": 100}, {"pause": {"duration": "2s"}})
    world.readings["beside"] = Reading(error="none")
    world.run(60)
    assert world.phase is Phase.HOLDING
    world.ask(Verb.PROMOTE)
    world.until(Phase.HEALTHY)


def test_promote_begins_an_inconclusive_background_analysis_anew() -> None:
    """A person has judged what it could not; it judges what comes after."""
    world = beside(
        {"setWeight": 5},
        {"pause": {"duration": "60s"}},
        {"setWeight": 50},
        {"pause": {}},
        failureCondition="result < 0.9",
    )
    world.readings["beside"] = Reading(0.95)
    world.until(Phase.HOLDING)
    world.readings["beside"] = Reading(1.0)
    world.run(100)
    assert world.phase is Phase.HOLDING
    world.ask(Verb.PROMOTE)
    world.until(Phase.PAUSED, limit_s=30)
    assert world.weights == [0, 500, 5000]


def test_a_reading_of_a_step_that_is_over_is_left_out() -> None:
    """It was asked for before the step went on; it must not count for the next one."""
    world = analysed().until(Phase.PAUSED)
    trial = world.state.trial
    assert trial is not None
    for stale in (
        Measured(trial.attempt, 2, "rate", Reading(0.0)),
        Measured(trial.attempt - 1, trial.index, "rate", Reading(0.0)),
        Measured(trial.attempt, None, "rate", Reading(0.0)),
    ):
        world.feed(stale)
    assert world.phase is Phase.PAUSED


# Aborts


@pytest.mark.parametrize("at", ["clearing", "steps", "paused", "filling", "swapping"])
def test_an_abort_outranks_everything(at: str) -> None:
    """In every stage: the latch at every proxy, weight 0, and everyone on what was stable before."""
    world = analysed()
    if at == "clearing":
        world.until(Phase.PAUSED)
        world.proxies["unix:1"].refuses_plan = True
        world.declare(document(*ANALYSED, canary="v3", canary_port=9003))
        assert world.state.stage is Stage.CLEARING
    elif at == "steps":
        world.run(8)
    else:
        world.until(Phase.PAUSED)
        if at in ("filling", "swapping"):
            world.ask(Verb.PROMOTE_FULL)
            assert world.state.stage is Stage.FILLING
            if at == "swapping":
                world.poll("unix:0")
                world.poll("unix:1")
                assert world.state.stage is Stage.SWAPPING
    world.ask(Verb.ABORT, reason="it burns")
    assert world.phase is Phase.ABORTED
    assert all(proxy.latch for proxy in world.proxies.values())
    world.proxies["unix:1"].refuses_plan = False
    world.run(3)
    assert world.state.stable == version("v1", 9001)
    for proxy in world.proxies.values():
        assert proxy.plan is not None
        assert [(arm.revision, arm.weight_bp) for arm in proxy.plan.arms] == [("v1", 10_000), ("v2", 0)]
        assert proxy.latch is not None
    world.run(60)
    assert world.phase is Phase.ABORTED


def test_the_latch_comes_before_all_other_commands() -> None:
    """Proxies first: everybody is on stable before the state is even stored."""
    world = analysed().until(Phase.PAUSED)
    after, commands = rollout.step(world.state, Asked(Verb.ABORT, "u", "anna"), world.now)
    assert isinstance(commands[0], SetLatch)
    assert after.abort is not None
    assert commands[0].id == after.abort.id
    assert any(isinstance(command, Publish) for command in commands[1:])


def test_a_retry_starts_again_with_the_same_salt_and_lifts() -> None:
    """Step 0, the same revision, the same people first; the plan names every known latch in lifts."""
    world = analysed().until(Phase.PAUSED)
    salt = world.proxy.plan.salt if world.proxy.plan else ""
    world.ask(Verb.ABORT)
    world.run(3)
    assert world.proxy.latch is not None
    latch_id = world.proxy.latch["id"]
    assert world.ask(Verb.RETRY) == "v2 begins again at the first step"
    world.until(Phase.PAUSED)
    assert world.weights == [0, 500, 2500, 0, 500, 2500]
    assert world.proxy.latch is None
    assert world.proxy.plan is not None
    assert (world.proxy.plan.salt, world.proxy.plan.lifts) == (salt, (latch_id,))


def test_an_abort_ends_only_by_retry_or_a_new_revision() -> None:
    """No plan of an aborted rollout names its latch, whatever else changes."""
    world = analysed().until(Phase.PAUSED)
    world.ask(Verb.ABORT)
    world.declare(document(*ANALYSED, explain="Always"))
    world.run(5)
    assert world.phase is Phase.ABORTED
    assert world.proxy.latch is not None
    assert world.proxy.plan is not None
    assert world.proxy.plan.lifts == ()
    world.declare(document(*ANALYSED, canary="v3", canary_port=9003))
    world.until(Phase.PAUSED)
    assert world.proxy.latch is None
    assert world.state.abort is None


def test_two_aborts_have_two_latches() -> None:
    """A plan that lifts the first never lifts the second."""
    world = analysed().until(Phase.PAUSED)
    world.ask(Verb.ABORT)
    first = world.state.abort
    world.run(2)
    world.ask(Verb.RETRY)
    world.run(3)
    world.ask(Verb.ABORT)
    world.run(2)
    second = world.state.abort
    assert first is not None
    assert second is not None
    assert first.id != second.id
    assert world.proxy.plan is not None
    assert world.proxy.plan.lifts == (first.id,)
    assert world.proxy.latch is not None
    assert world.proxy.latch["id"] == second.id
    assert world.state.aborts == 2


def test_an_abort_that_fails_at_a_proxy_is_shown_counted_and_tried_again() -> None:
    """C8: only an abort that itself fails is worth waking somebody: Degraded until every proxy has it."""
    world = analysed().until(Phase.PAUSED)
    world.proxies["unix:1"].refuses_latch = True
    world.ask(Verb.ABORT)
    assert world.phase is Phase.DEGRADED
    assert world.proxies["unix:0"].latch is not None
    world.run(10)
    assert world.state.abort_failures > 5
    assert world.told.count("AbortFailed") == 1
    world.proxies["unix:1"].refuses_latch = False
    world.until(Phase.ABORTED, limit_s=5)
    assert world.proxies["unix:1"].latch is not None
    assert "Latched" in world.told


def test_a_second_abort_is_the_same_abort() -> None:
    """Idempotent: the latch is asked for again, and nothing else happens."""
    world = analysed().until(Phase.PAUSED)
    world.ask(Verb.ABORT)
    abort, generation = world.state.abort, world.state.generation
    assert world.ask(Verb.ABORT) == "is aborted already, by anna"
    assert (world.state.abort, world.state.generation, world.state.aborts) == (abort, generation, 1)


def test_a_new_revision_in_mid_rollout_starts_clean() -> None:
    """C5: weight 0 for everybody first, acknowledged by every proxy; then step 0 with a salt of its own."""
    world = analysed().until(Phase.PAUSED)
    world.proxies["unix:1"].refuses_plan = True
    world.declare(document(*ANALYSED, canary="v3", canary_port=9003))
    world.run(30)
    assert world.state.stage is Stage.CLEARING
    assert world.weights[-1] == 0
    assert world.proxy.plan is not None
    assert world.proxy.plan.revision == "v2"
    world.proxies["unix:1"].refuses_plan = False
    world.until(Phase.PAUSED)
    revisions = [(plan.revision, plan.arms[-1].weight_bp) for plan in world.proxy.history if len(plan.arms) > 1]
    assert revisions[2:5] == [("v2", 0), ("v3", 500), ("v3", 2500)]


# The table


def every_phase() -> dict[Phase, World]:
    """A rollout in each phase, by real ways."""
    worlds = {Phase.PENDING: World(document(*ANALYSED), 2, template())}
    worlds[Phase.HEALTHY] = World(document(canary=None)).until(Phase.HEALTHY)
    worlds[Phase.PROGRESSING] = analysed().run(6)
    worlds[Phase.PAUSED] = analysed().until(Phase.PAUSED)
    holding = analysed()
    holding.readings["rate"] = Reading(error="none")
    worlds[Phase.HOLDING] = holding.until(Phase.HOLDING)
    worlds[Phase.PROMOTING] = analysed().until(Phase.PAUSED)
    worlds[Phase.PROMOTING].ask(Verb.PROMOTE_FULL)
    worlds[Phase.ABORTED] = analysed().until(Phase.PAUSED)
    worlds[Phase.ABORTED].ask(Verb.ABORT)
    worlds[Phase.DEGRADED] = analysed().until(Phase.PAUSED)
    worlds[Phase.DEGRADED].proxies["unix:1"].refuses_latch = True
    worlds[Phase.DEGRADED].ask(Verb.ABORT)
    return worlds


EVENTS: dict[rollout.Kind, Callable[[World], list[Event]]] = {
    Documented: lambda w: [
        Documented(w.doc, w.templates),
        Documented(document(*ANALYSED, canary="v3", canary_port=9003), w.templates),
        Documented(document(*ANALYSED, canary=None), w.templates),
        Documented(document(*ANALYSED, canary="v1", canary_port=9001), w.templates),
        Documented(document(*ANALYSED, stable="v9", stable_port=9009), w.templates),
        Documented(document(*ANALYSED, stable="v2", stable_port=9009), w.templates),
        Documented(document(*ANALYSED, explain="Always"), w.templates),
    ],
    Missing: lambda w: [Missing()],
    Keyed: lambda w: [Keyed(next(iter(SECRETS)), tuple(SECRETS)), Keyed("other", ("other",))],
    Observed: lambda w: [
        Observed(w.view("unix:0")),
        Observed(ProxyView("unix:0", w.now, answered=True)),
        Observed(ProxyView("unix:9", w.now, answered=True)),
        Observed(ProxyView("unix:0", w.now, answered=True, uid=w.state.uid, generation=99)),
        Observed(ProxyView("unix:0", w.now, answered=True, latch=Latch("aaaaaaaa", None, "bob"))),
        Observed(ProxyView("unix:0", w.now, answered=True, latch=Latch("aaaaaaaa", "v2", "bob"))),
        Observed(ProxyView("unix:0", w.now, answered=True, latch=Latch("aaaaaaaa", "v0", "bob"))),
    ],
    Unanswered: lambda w: [Unanswered("unix:0", "refused"), Unanswered("unix:0", "plan", refused=True)],
    LatchFailed: lambda w: [LatchFailed("unix:0", "disk full"), LatchFailed("unix:1", "disk full")],
    Tick: lambda w: [Tick()],
    Measured: lambda w: [
        Measured(a, i, "rate", r) for a in (0, 1) for i in (None, 2, 4) for r in (Reading(1.0), Reading(0.0))
    ],
    Verb.START: lambda w: [
        Asked(Verb.START, "u", "anna", version=version("v7", 9007)),
        Asked(Verb.START, "u", "anna", version=version("v2", 9008)),
        Asked(Verb.START, "u", "anna", version=version("v1", 9001)),
    ],
    **{
        verb: (lambda w, verb=verb: [Asked(verb, "u", "anna"), Asked(verb, "u", "anna", revision="v0")])  # type: ignore[misc]
        for verb in Verb
        if verb not in (Verb.START, Verb.SET_WEIGHT)
    },
    Verb.SET_WEIGHT: lambda w: [Asked(Verb.SET_WEIGHT, "u", "anna", weight_bp=bp) for bp in (0, 1000, 10_000)],
}


@pytest.fixture(scope="module")
def worlds() -> dict[Phase, World]:
    return every_phase()


@pytest.mark.parametrize("event", EVENTS, ids=str)
@pytest.mark.parametrize("where", Phase, ids=str)
def test_every_phase_with_every_event(worlds: dict[Phase, World], where: Phase, event: rollout.Kind) -> None:
    """The table is exhaustive: an event leads where it says, or is refused with a reason and changes nothing."""
    world = worlds[where]
    assert world.phase is where
    allowed = rollout.TRANSITIONS[where].get(event)
    for happening in EVENTS[event](world):
        for later in (0.0, 10.0):
            try:
                after, commands = rollout.step(world.state, happening, world.now + later)
            except Refused:
                assert isinstance(event, Verb)
                continue
            assert allowed is not None
            starting = phase(world.state, world.now + later)
            assert phase(after, world.now + later) in rollout.TRANSITIONS[starting][event]
            assert after.generation >= world.state.generation
            published = [c.generation for c in commands if isinstance(c, Publish)]
            assert published == ([after.generation] if after.generation != world.state.generation else [])
            assert state.parse(state.serialise(after)) is not None


def test_the_table_names_every_phase_and_every_observation() -> None:
    """What is not asked for by people may happen at any time, so every phase must know it."""
    assert set(rollout.TRANSITIONS) == set(Phase)
    observations = {kind for kind in EVENTS if not isinstance(kind, Verb)}
    for where, row in rollout.TRANSITIONS.items():
        assert observations <= set(row), where
        assert set(row) <= set(EVENTS)


def test_every_entry_of_the_table_is_met() -> None:
    """An entry that nothing leads to would be a promise that nobody keeps: random walks must find each kind."""
    seen: set[tuple[Phase, rollout.Kind]] = set()
    adopted = World(document(*ANALYSED), 2, template())
    adopted.proxy.refuses_plan = True
    for where, world in [*every_phase().items(), (Phase.PENDING, adopted.run(2))]:
        for kind, make in EVENTS.items():
            for happening in make(world):
                try:
                    rollout.step(world.state, happening, world.now)
                except Refused:
                    continue
                seen.add((where, kind))
    assert seen == {(where, kind) for where, row in rollout.TRANSITIONS.items() for kind in row}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_random_walks_keep_the_laws(seed: int) -> None:
    """Whatever happens in whatever order: transitions are the table's, generations grow, an abort stands."""
    rng = random.Random(seed)
    world = World(document(*ANALYSED), 2, template())
    for _ in range(60):
        before = world.state
        choice = rng.random()
        if choice < 0.35:
            world.run(rng.choice([0.2, 1.0, 6.0]))
        elif choice < 0.45:
            proxy = rng.choice(list(world.proxies.values()))
            proxy.is_up, proxy.refuses_latch = rng.random() < 0.7, rng.random() < 0.2
            proxy.refuses_plan = rng.random() < 0.2
        elif choice < 0.5:
            world.kill()
        elif choice < 0.6:
            world.readings["rate"] = rng.choice([Reading(1.0), Reading(0.0), Reading(error="none")])
        elif choice < 0.65:
            world.proxy.abort("bob", f"{rng.randrange(2**32):08x}")
        else:
            kind = rng.choice([k for k in EVENTS if k is not Keyed])
            happening = rng.choice(EVENTS[kind](world))
            if isinstance(happening, Documented):
                world.doc = happening.document
            try:
                world.feed(happening)
            except Refused:
                assert world.state is before
        assert world.state.generation >= before.generation
        _check_laws(world)


def _check_laws(world: World) -> None:
    now = world.state
    if now.stage is Stage.ABORTED:
        assert now.abort is not None
        assert not set(now.latches) & set(now.lifts)
        assert now.trial is None or (now.trial.weight_bp, now.trial.header_routes) == (0, ())
    if now.stage in (Stage.STEPS, Stage.FILLING):
        assert now.trial is not None
        assert now.latches == ()
    if now.stage is Stage.CLEARING:
        assert now.next is not None
        assert now.trial is None or now.trial.weight_bp == 0


def test_the_rarest_entries_are_met_too() -> None:
    """Where random walks seldom get: each by the way that leads there."""
    pause = {"pause": {}}
    analysis = {"analysis": {"templates": [{"templateName": "rate"}]}}

    held = World(document({"setWeight": 5}, analysis, pause), 2, template(count=1))
    held.readings["rate"] = Reading(error="none")
    held.until(Phase.HOLDING)
    trial = held.state.trial
    assert trial is not None
    held.feed(Measured(trial.attempt, trial.index, "rate", Reading(1.0)))
    assert held.phase is Phase.PAUSED

    for first, phase_before in (({"pause": {"duration": "60s"}}, Phase.PROGRESSING), (analysis, Phase.HOLDING)):
        world = World(document(first, pause), 2, template())
        world.readings["rate"] = Reading(error="none")
        world.until(phase_before)
        world.run(3)
        world.declare(document(pause, canary="v2"))
        world.ask(Verb.START, version=version("v3", 9003))
        assert world.phase is Phase.PAUSED

    gated = beside({"setWeight": 5}, {"pause": {"duration": "60s"}}, {"setWeight": 5}, {"setWeight": 50})
    gated.readings["beside"] = Reading(error="none")
    gated.run(10)
    gated.ask(Verb.PROMOTE)
    assert gated.phase is Phase.HOLDING


def test_a_hold_is_told_once() -> None:
    """An event when it begins and one when it ends, not one a second."""
    world = analysed().run(8)
    world.proxies["unix:1"].is_up = False
    world.run(30)
    assert world.told.count("Holding") == 1
    world.proxies["unix:1"].is_up = True
    world.run(3)
    assert world.told.count("HoldEnded") == 1


def test_commands_tell_people_in_words() -> None:
    """Each event has a reason of one word and a sentence."""
    world = analysed().until(Phase.PAUSED)
    _, commands = rollout.step(world.state, Asked(Verb.PROMOTE, "u", "anna"), world.now)
    told = [command for command in commands if isinstance(command, Tell)]
    assert all(tell.reason and " " not in tell.reason and tell.message for tell in told)
