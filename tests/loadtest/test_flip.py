"""The flip oracle against hand-written histories and against a model of a true proxy and of broken ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.flip import Answer, Flip, Ledger, PlanFacts, Track
from proxy.assign import arm_index, bucket

STABLE, CANARY = "stable", "canary"


def stable(generation: int, reason: str = "split", revision: str = "v1") -> Answer:
    return Answer(generation, revision, STABLE, reason, "shop/checkout")


def canary(generation: int, reason: str = "split", revision: str = "v2") -> Answer:
    return Answer(generation, revision, CANARY, reason, "shop/checkout")


def weight(generation: int, bp: int, trial: str | None = "v2") -> PlanFacts:
    return PlanFacts(generation, trial, {CANARY: bp}, "shop/checkout")


def judge(*answers: Answer, facts: tuple[PlanFacts, ...] = ()) -> list[bool]:
    """Whether each answer of one user is a flip."""
    ledger, user = Ledger(), Track()
    for item in facts:
        ledger.learn(item)
    return [ledger.see(user, answer) is not None for answer in answers]


@pytest.mark.parametrize(
    ("answers", "facts"),
    [
        pytest.param([stable(1), stable(1), stable(2), canary(3), canary(4)], [], id="to the canary as weights rise"),
        pytest.param([canary(1), stable(2), stable(3)], [weight(1, 500), weight(2, 100)], id="back: weight lowered"),
        pytest.param([canary(1), stable(1, "abort"), stable(1, "abort"), stable(2)], [], id="back at an abort"),
        pytest.param([canary(1), stable(1, "abort"), canary(2)], [], id="an abort that a newer plan lifts"),
        pytest.param([stable(1, "abort"), stable(2, "abort"), canary(2)], [], id="an abort that lasts into its lift"),
        pytest.param([canary(1), stable(2), canary(3, revision="v3")], [], id="another revision deals anew"),
        pytest.param([canary(1), stable(1, "fallback"), canary(1)], [], id="the canary was down"),
        pytest.param([canary(1), stable(1, "route/payments"), canary(1)], [], id="a route by path"),
        pytest.param([stable(1), canary(1, "header/qa"), stable(1)], [], id="a header route"),
        pytest.param([stable(1), canary(1, "preview"), stable(1)], [], id="the preview"),
        pytest.param([canary(1), stable(2, revision="v2"), stable(3, revision="v2")], [], id="promotion"),
        pytest.param([stable(1, "unkeyed"), stable(1, "unkeyed")], [], id="never keyed"),
        pytest.param([stable(1), canary(1, "split/vip"), stable(1)], [], id="a share of its own"),
    ],
)
def test_allowed_moves_are_no_flips(answers: list[Answer], facts: list[PlanFacts]) -> None:
    """surface.md, "A flip": the moves that it lists."""
    assert not any(judge(*answers, facts=tuple(facts)))


@pytest.mark.parametrize(
    ("answers", "facts"),
    [
        pytest.param([canary(1), stable(1)], [], id="out within one generation"),
        pytest.param([stable(1), canary(1)], [], id="in within one generation"),
        pytest.param([canary(1), stable(2), canary(2)], [], id="back in within one generation"),
        pytest.param([canary(1, "split/vip"), stable(1, "split/vip")], [], id="within a share of its own"),
        pytest.param([canary(1), stable(2)], [weight(1, 500), weight(2, 500)], id="out at an equal weight"),
        pytest.param([canary(1), stable(2)], [weight(1, 500), weight(2, 2500)], id="out at a higher weight"),
        pytest.param([stable(1), canary(2)], [weight(1, 500), weight(2, 100)], id="in at a lower weight"),
        pytest.param([canary(1)], [weight(1, 0)], id="in at weight 0"),
        pytest.param([stable(1)], [weight(1, 10_000)], id="out at 100 %"),
        pytest.param([canary(1), stable(1, "abort"), canary(1)], [], id="canary after an abort"),
        pytest.param([stable(2), stable(2, "abort"), canary(1)], [], id="canary of an older plan after an abort"),
        pytest.param([stable(2), stable(2, "abort"), canary(2, "route/staff")], [], id="a route does not outrank it"),
        pytest.param([canary(1, "abort")], [], id="abort on the canary"),
        pytest.param([canary(1), stable(1, "unkeyed")], [], id="the key was lost"),
        pytest.param([canary(1, "unkeyed")], [], id="unkeyed on the canary"),
        pytest.param([stable(1), stable(1, revision="v9")], [], id="another revision under one plan"),
        pytest.param([canary(1, "route/staff"), stable(1, "route/staff")], [], id="one route, two arms"),
        pytest.param([replace(stable(1), served="v2")], [], id="the service is another version than said"),
    ],
)
def test_other_moves_are_flips(answers: list[Answer], facts: list[PlanFacts]) -> None:
    """surface.md, "A flip": an answer from another version than the plan of its generation gives that user."""
    assert judge(*answers, facts=tuple(facts)) == [False] * (len(answers) - 1) + [True]


def test_one_move_counts_once() -> None:
    """After a flip the user starts afresh: staying on the wrong version is not a flip again, going back is."""
    assert judge(canary(1), stable(1), stable(1), stable(1), canary(1)) == [False, True, False, False, True]


@pytest.mark.parametrize(("now", "is_flip"), [(11.9, False), (12.0, True)], ids=["at once", "late"])
def test_an_abort_reaches_several_replicas_one_after_the_other(now: float, is_flip: bool) -> None:
    """For a moment one of them has it and another has not; who lags behind for longer has lost it."""
    ledger, user = Ledger(spread_s=2.0), Track()
    for answer in (canary(1), stable(1, "abort")):
        assert ledger.see(user, answer, now=10.0) is None
    assert (ledger.see(user, canary(1), now=now) is not None) is is_flip
    assert ledger.behind == (not is_flip)


def test_one_user_shows_another_that_a_plan_was_aborted() -> None:
    """Who comes after an abort cannot know whether this plan lifts it; who was there before can."""
    ledger, there, later = Ledger(), Track(), Track()
    assert [ledger.see(there, answer) for answer in (canary(1), stable(1, "abort"))] == [None, None]
    assert ledger.see(later, stable(1, "abort")) is None
    assert ledger.see(later, canary(1)) is not None
    assert ledger.see(later, canary(1)) is None  # one move counts once


def test_a_login_may_move_a_user_once() -> None:
    """surface.md, "One user, one key": counted rekeyed, and no second time."""
    ledger, user = Ledger(), Track()
    assert ledger.see(user, canary(1)) is None
    assert ledger.see(user, stable(1), rekeyed=True) is None
    assert ledger.see(user, canary(1)) is not None


def test_other_users_show_that_a_weight_was_not_lowered() -> None:
    """Arms are nested: one user shows that generation 2 has more users than 1, so nobody left the canary with it."""
    ledger, first, second = Ledger(), Track(), Track()
    assert ledger.see(first, stable(1)) is None
    assert ledger.see(second, canary(1)) is None
    assert ledger.see(first, canary(2)) is None
    flip = ledger.see(second, stable(2))
    assert flip is not None
    assert str(flip) == (
        "canary v2 (split, generation 1) then stable v1 (split, generation 2): "
        "canary has at least as many users in generation 2 as in 1, so nobody leaves it"
    )


def test_facts_that_come_late_still_convict() -> None:
    """Plans are fetched beside the traffic: what is learnt after an answer counts at the user's next one."""
    ledger, user = Ledger(), Track()
    assert ledger.see(user, canary(1)) is None
    assert ledger.see(user, stable(2)) is None
    ledger.learn(weight(1, 500))
    ledger.learn(weight(2, 2500))
    assert ledger.see(user, stable(2)) is not None


def test_answers_of_a_replica_that_lags_are_reported_and_no_flip() -> None:
    """surface.md: between the first and the last acknowledgement of one generation replicas may differ."""
    ledger, user = Ledger(), Track()
    answers = [stable(1), canary(2), stable(1), canary(2)]
    assert [ledger.see(user, answer) for answer in answers] == [None] * 4
    assert ledger.behind == 1


def test_shares_count_each_user_once_a_plan() -> None:
    """The share of users at a step is counted over users, not over requests."""
    ledger, users = Ledger(), [Track() for _ in range(10)]
    ledger.learn(weight(1, 2000))
    for _ in range(3):
        for number, user in enumerate(users):
            ledger.see(user, canary(1) if number < 2 else stable(1))
    assert ledger.shares() == [(("shop/checkout", 1, "split"), {CANARY: 2, STABLE: 8}, {CANARY: 2000})]


# A model of true proxies: plans with weights and revisions, aborts and lifts, users with real buckets.


@dataclass(frozen=True)
class ModelPlan:
    generation: int
    trial: str
    weight_bp: int
    third_bp: int = 0

    def answer(self, key: bytes) -> Answer:
        place = bucket(key, self.trial.encode().ljust(32))
        arm = arm_index(place, self.weight_bp, self.third_bp)
        if arm == 0:
            return stable(self.generation)
        return (
            canary(self.generation, revision=self.trial) if arm == 1 else replace(stable(self.generation), arm="base")
        )


KEYS = [bytes([n]) * 16 for n in range(24)]
WEIGHTS = st.sampled_from([0, 1, 500, 2500, 5000, 7500, 10_000])
PLANS = st.lists(st.tuples(st.sampled_from(["v2", "v3"]), WEIGHTS), min_size=2, max_size=8).map(
    lambda rows: [ModelPlan(i + 1, trial, bp) for i, (trial, bp) in enumerate(rows)]
)
# (user, plan, whether the plan's facts are learnt first)
REQUESTS = st.lists(st.tuples(st.integers(0, len(KEYS) - 1), st.integers(0, 7), st.booleans()), max_size=150)


@given(PLANS, REQUESTS, st.booleans())
def test_a_true_proxy_never_flips(plans: list[ModelPlan], requests: list[tuple[int, int, bool]], third: bool) -> None:
    """No false alarm: whatever weights do, in whatever order users ask and replicas lag, and whenever facts arrive."""
    if third:
        plans = [replace(plan, third_bp=(10_000 - plan.weight_bp) // 2) for plan in plans]
    ledger, users = Ledger(), [Track() for _ in KEYS]
    for number, place, fact in requests:
        plan = plans[place % len(plans)]
        if fact:
            ledger.learn(PlanFacts(plan.generation, plan.trial, {CANARY: plan.weight_bp}, "shop/checkout"))
        flip = ledger.see(users[number], plan.answer(KEYS[number]))
        assert flip is None, str(flip)


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 4)),
        st.tuples(st.just("plan"), st.tuples(st.sampled_from(["v2", "v3"]), WEIGHTS)),
        st.tuples(st.sampled_from(["abort", "lift", "clear"]), st.none()),
    ),
    max_size=120,
)


@given(EVENTS)
def test_a_true_proxy_under_aborts_never_flips(events: list[tuple[str, Any]]) -> None:
    """A latch stands over plans; one that lifts it is taken first, and then the latch goes, with answers in between."""
    ledger, users = Ledger(), [Track() for _ in KEYS]
    plan, latched, lifts = ModelPlan(1, "v2", 5000), False, False
    for what, value in events:
        if what == "ask":
            answer = stable(plan.generation, "abort") if latched else plan.answer(KEYS[value])
            flip = ledger.see(users[value], answer)
            assert flip is None, str(flip)
        elif what == "plan":
            plan, lifts = ModelPlan(plan.generation + 1, *value), False
        elif what == "abort":
            latched, lifts = True, False
        elif what == "lift":
            plan, lifts = replace(plan, generation=plan.generation + 1), latched
        elif lifts:
            latched = False


@given(PLANS, st.integers(0, len(KEYS) - 1), st.integers(0, 7), st.booleans())
def test_one_wrong_answer_is_found(plans: list[ModelPlan], victim: int, place: int, known: bool) -> None:
    """Everybody asks under every plan; then one user gets the other version once: found, with or without facts."""
    ledger, users = Ledger(), [Track() for _ in KEYS]
    for plan in plans:
        if known:
            ledger.learn(PlanFacts(plan.generation, plan.trial, {CANARY: plan.weight_bp}, "shop/checkout"))
        for number, user in enumerate(users):
            assert ledger.see(user, plan.answer(KEYS[number])) is None
    plan = plans[place % len(plans)]
    right = plan.answer(KEYS[victim])
    wrong = stable(plan.generation) if right.arm == CANARY else canary(plan.generation, revision=plan.trial)
    assert ledger.see(users[victim], wrong) is not None


@given(st.integers(0, 10**6), st.sampled_from([500, 2500, 5000]))
def test_users_dealt_anew_under_one_revision_are_found(seed: int, weight_bp: int) -> None:
    """A proxy that loses its secret between two plans moves users both ways, which no weights explain."""
    ledger, users = Ledger(), [Track() for _ in KEYS]
    flips: list[Flip | None] = []
    arms = []
    for generation in (1, 2):
        salt = f"{seed}.{generation}".encode().ljust(32)
        arms.append([arm_index(bucket(key, salt), weight_bp) for key in KEYS])
        for user, arm in zip(users, arms[-1], strict=True):
            flips.append(ledger.see(user, canary(generation) if arm else stable(generation)))
    moves = {after - before for before, after in zip(*arms, strict=True)}
    assert any(flips) == (moves >= {1, -1})
