"""Who gets which version: the order of precedence as a whole."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.assign import BUCKETS, arm_index, bucket
from proxy.errors import DownstreamError
from proxy.keys import Secret
from proxy.synthetic import Tag
from tests.support.plans import KEYS, MINTED, NOW, SALT, arms, cookie_of, decide, plan, request, splitter

ANYONE: dict[str, Any] = {"header": {"name": "X-User-Id", "trust": "Anyone"}}
USERS = [ANYONE, {"mint": {}}]
ALWAYS = {"name": "never", "matches": [{"cookies": [{"name": "never", "value": "1"}]}], "arm": "stable", "always": True}
STAFF = {"name": "staff", "matches": [{"cookies": [{"name": "staff", "value": "1"}]}], "arm": "canary"}
FRANCE = {"name": "france", "matches": [{"cookies": [{"name": "fr", "value": "1"}]}], "split": {"atLeast": 50}}
STEP = {"name": "qa", "matches": [{"name": "X-QA", "value": "1"}, {"name": "X-Team", "type": "Present"}]}


def user_of(low: int, high: int = BUCKETS) -> tuple[str, bytes]:
    """A user id whose bucket lies in [low, high), and its key."""
    chosen = splitter(users=[ANYONE])
    for number in range(100_000):
        name = f"user-{number}"
        found = decide(chosen, "/", f"X-User-Id: {name}").key
        assert found is not None
        if low <= bucket(found, bytes.fromhex(SALT)) < high:
            return name, found
    raise AssertionError("no such user")


LOW, LOW_KEY = user_of(0, 100)
MIDDLE, _ = user_of(4_000, 5_000)
HIGH, _ = user_of(9_900)


def pin(arm: str, **fields: Any) -> str:
    """The cookie pair of a browser that the preview pinned."""
    chosen = splitter(preview={"access": "Public"}, **fields)
    local = decide(chosen, f"/.cohort/preview?arm={arm}", method="POST").local
    assert local is not None
    line = re.search(rb"Set-Cookie: (cohort_checkout_preview=[^;]+)", local.lines)
    assert line is not None
    return line[1].decode()


@pytest.mark.parametrize(
    ("latched", "never", "outer", "pinned", "step", "staff", "france", "keyed"), list(product([False, True], repeat=8))
)
def test_the_first_hit_decides_and_its_name_is_the_reason(
    latched: bool, never: bool, outer: bool, pinned: bool, step: bool, staff: bool, france: bool, keyed: bool
) -> None:
    """surface.md, the order, in all 256 combinations."""
    chosen = splitter(
        users=[ANYONE],
        routes=[STAFF, FRANCE, ALWAYS],
        headerRoutes=[STEP],
        preview={"access": "Public"},
        arms=arms(1_000),
    )
    cookies = [pin("canary")] * pinned + ["never=1"] * never + ["staff=1"] * staff + ["fr=1"] * france
    lines = [f"Cookie: {'; '.join(cookies)}"] * bool(cookies) + ["X-QA: 1", "X-Team: web"] * step
    lines += [f"X-User-Id: {MIDDLE}"] * keyed + ["X-Cohort-Arm: canary"] * outer
    decision = decide(chosen, "/", *lines, latched=latched, trusted=outer)
    expected = next(
        outcome
        for holds, outcome in (
            (latched, (0, "abort", "user" if keyed else "forced")),
            (never, (0, "route/never", "forced")),
            (outer, (1, "outer", "forced")),
            (pinned, (1, "preview", "forced")),
            (step, (1, "header/qa", "forced")),
            (staff, (1, "route/staff", "forced")),
            (not keyed, (0, "unkeyed", "forced")),
            (france, (1, "split/france", "user")),
            (True, (0, "split", "user")),
        )
        if holds
    )
    assert (decision.arm, decision.reason, decision.source) == expected
    assert (decision.key is not None) == keyed


# Synthetic users

GENUINE = Tag(KEYS.synthetic, "shop/checkout").sign(NOW + 60)


def test_the_load_generators_requests_have_a_source_of_their_own_and_the_version_that_anybody_would_have() -> None:
    """surface.md, contract item 9: the tag is read from anyone, and says nothing of the version."""
    chosen = splitter(users=[ANYONE], routes=[STAFF], arms=arms(1_000), mirror={"arm": "canary", "percent": 100})
    for lines in ([f"X-User-Id: {LOW}"], [f"X-User-Id: {HIGH}"], ["Cookie: staff=1"], []):
        for latched in (False, True):
            plain = decide(chosen, "/", *lines, latched=latched)
            marked = decide(chosen, "/", *lines, f"X-Cohort-Synthetic: {GENUINE}", latched=latched)
            assert (marked.arm, marked.reason, marked.key) == (plain.arm, plain.reason, plain.key)
            assert marked.source == "synthetic"
            assert not marked.is_mirrored
    assert decide(chosen, "/", f"X-User-Id: {HIGH}").is_mirrored


@pytest.mark.parametrize(
    "lines",
    [
        [f"X-Cohort-Synthetic: {Tag(Secret(b'?' * 32), 'shop/checkout').sign(NOW + 60)}"],
        [f"X-Cohort-Synthetic: {Tag(KEYS.preview, 'shop/checkout').sign(NOW + 60)}"],
        [f"X-Cohort-Synthetic: {Tag(KEYS.synthetic, 'shop/cart').sign(NOW + 60)}"],
        [f"X-Cohort-Synthetic: {Tag(KEYS.synthetic, 'shop/checkout').sign(NOW)}"],
        [f"X-Cohort-Synthetic: {GENUINE[:-1]}"],
        [f"X-Cohort-Synthetic: {GENUINE}="],
        [f"X-Cohort-Synthetic: {GENUINE}, {GENUINE}"],
        [f"X-Cohort-Synthetic: {GENUINE}"] * 2,
        ["X-Cohort-Synthetic: 1", f"X-Cohort-Synthetic: {GENUINE}"],
        [f"X_Cohort_Synthetic: {GENUINE}"],
        ["Connection: X-Cohort-Synthetic", f"X-Cohort-Synthetic: {GENUINE}"],
        ["X-Cohort-Synthetic:"],
        ["X-Cohort-Synthetic: 1"],
    ],
    ids=["forged", "other-key", "other-rollout", "expired", "cut", "padded", "list", "twice", "one-of-two", "folded",
         "named-by-connection", "empty", "word"],
)  # fmt: skip
@pytest.mark.parametrize("trusted", [False, True])
def test_who_has_no_good_tag_is_a_user(lines: list[str], trusted: bool) -> None:
    """S7: nobody leaves the evidence by saying so, whoever he is."""
    chosen = splitter(users=[ANYONE], arms=arms(1_000))
    decision = decide(chosen, "/", f"X-User-Id: {LOW}", *lines, trusted=trusted)
    assert (decision.arm, decision.reason, decision.source) == (1, "split", "user")


def test_a_synthetic_user_who_logs_in_is_not_counted_as_rekeyed() -> None:
    chosen = splitter(users=[ANYONE, {"mint": {}}])
    [line] = decide(chosen).set_cookies
    login = (cookie_of(line), f"X-User-Id: {LOW}")
    assert decide(chosen, "/", *login).rekeyed
    marked = decide(chosen, "/", *login, f"X-Cohort-Synthetic: {GENUINE}")
    assert not marked.rekeyed
    assert marked.set_cookies


def test_a_copy_of_a_cohort_in_front_stays_one() -> None:
    chosen = splitter(users=[ANYONE])
    copy = ("X-Cohort-Arm: canary", "X-Cohort-Reason: mirror", f"X-Cohort-Synthetic: {GENUINE}")
    assert decide(chosen, "/", *copy, trusted=True).source == "mirror"


# A cohort in front


@pytest.mark.parametrize(
    ("lines", "arm"),
    [
        (["X-Cohort-Arm: stable"], 0),
        (["X-Cohort-Arm: canary"], 1),
        (["x-cohort-arm:   baseline "], 2),
        (["baggage: cohort.arm=canary"], 1),
        (["baggage: a=1", "baggage: cohort.arm=can%61ry;p=1"], 1),
        (["X-Cohort-Arm: stable", "baggage: cohort.arm=canary"], 0),
        (["X-Cohort-Arm: blue"], None),
        (["X-Cohort-Arm: blue", "baggage: cohort.arm=canary"], None),
        (["X-Cohort-Arm: Canary"], None),
        (["X-Cohort-Arm:"], None),
        (["X-Cohort-Arm: canary", "X-Cohort-Arm: canary"], None),
        (["X-Cohort-Arm: canary", "X-Cohort-Arm: stable", "baggage: cohort.arm=canary"], None),
        (["X_Cohort_Arm: canary"], None),
        (["baggage: cohort.arm=canary", "baggage: cohort.arm=stable"], None),
        (["Connection: X-Cohort-Arm", "X-Cohort-Arm: canary"], None),
    ],
)
def test_a_cohort_in_front_is_obeyed_if_it_is_trusted(lines: list[str], arm: int | None) -> None:
    """A9: the arm it says, by the header before the baggage; a name that is no arm here says nothing."""
    chosen = splitter(users=[ANYONE], arms=arms(1_000, 1_000))
    user = f"X-User-Id: {MIDDLE}"
    decision = decide(chosen, "/", user, *lines, trusted=True)
    split = (0, "split", "user")
    assert (decision.arm, decision.reason, decision.source) == (split if arm is None else (arm, "outer", "forced"))
    assert decision.key is not None
    other = decide(chosen, "/", user, *lines)
    assert (other.arm, other.reason, other.source) == split


def test_a_cohort_in_front_changes_no_cookie() -> None:
    """The key is found or minted as ever, for the day when nobody stands in front."""
    chosen = splitter(users=USERS)
    plain = decide(chosen, trusted=True)
    led = decide(chosen, "/", "X-Cohort-Arm: canary", trusted=True)
    assert (led.key, led.set_cookies) == (plain.key, plain.set_cookies) == (MINTED, plain.set_cookies)
    assert plain.set_cookies


def test_without_a_revision_on_trial_an_outer_canary_means_stable() -> None:
    chosen = splitter(users=[ANYONE], revision=None, arms=arms(0))
    decision = decide(chosen, "/", "X-Cohort-Arm: canary", trusted=True)
    assert (decision.arm, decision.reason) == (0, "outer")


@pytest.mark.parametrize(
    "lines",
    [
        ["X-Cohort-Arm: canary", "X-Cohort-Reason: mirror"],
        ["X-Cohort-Arm: canary", "X-Cohort-Reason: outer", "baggage: cohort.arm=canary;mirror"],
        ["baggage: cohort.arm=canary;mirror"],
    ],
)
@pytest.mark.parametrize("latched", [False, True])
def test_an_outer_cohorts_copy_is_no_users_request_and_is_not_copied_again(lines: list[str], latched: bool) -> None:
    mirror = {"arm": "canary", "percent": 100}
    chosen = splitter(users=[ANYONE], arms=arms(0), mirror=mirror)
    user = f"X-User-Id: {MIDDLE}"
    copy = decide(chosen, "/", user, *lines, trusted=True, latched=latched)
    assert (copy.source, copy.is_mirrored) == ("mirror", False)
    stray = decide(chosen, "/", user, "X-Cohort-Arm: blue", "X-Cohort-Reason: mirror", trusted=True)
    assert (stray.reason, stray.source, stray.is_mirrored) == ("split", "mirror", False)
    forged = decide(chosen, "/", user, *lines, latched=latched)
    assert (forged.source, forged.is_mirrored) == ("user", not latched)


def test_routes_of_one_kind_count_as_listed() -> None:
    """surface.md: the other routes as listed; unconditional ones among themselves too."""
    every = [{"method": "GET"}]
    chosen = splitter(routes=[{"name": n, "matches": every, "arm": a} for n, a in (("a", "stable"), ("b", "canary"))])
    assert decide(chosen).reason == "route/a"
    routes = [{"name": n, "matches": every, "arm": "canary", "always": n != "a"} for n in ("a", "b", "c")]
    assert decide(splitter(routes=routes)).reason == "route/b"


def test_a_request_without_a_key_gets_stable_where_a_split_route_matches_first() -> None:
    """A share needs a user; routes that pick an arm apply to everyone."""
    later = {"name": "all", "matches": [{"method": "GET"}], "arm": "canary"}
    chosen = splitter(users=[ANYONE], routes=[FRANCE, later])
    assert decide(chosen, "/", "Cookie: fr=1").reason == "unkeyed"
    assert decide(chosen).reason == "route/all"


# The split


def test_the_split_is_the_published_assignment() -> None:
    """surface.md, assignment: what `whoami` and the load generator compute from outside."""
    chosen = splitter(users=[ANYONE], arms=arms(2_500, 1_000))
    for number in range(2_000):
        decision = decide(chosen, "/", f"X-User-Id: {number}")
        assert decision.key is not None
        assert decision.arm == arm_index(bucket(decision.key, bytes.fromhex(SALT)), 2_500, 1_000)


@pytest.mark.parametrize(
    ("common", "third", "bounds", "canary"),
    [
        (1_000, 0, {}, 1_000),
        (1_000, 0, {"atLeast": 50}, 5_000),
        (1_000, 0, {"atMost": 5}, 500),
        (1_000, 0, {"atMost": 0}, 0),
        (0, 0, {"atLeast": "0.25"}, 25),
        (7_000, 0, {"atLeast": 50}, 7_000),
        (7_000, 0, {"atLeast": 10, "atMost": 20}, 2_000),
        (10_000, 0, {"atMost": 50}, 5_000),
        (1_000, 2_000, {"atLeast": 100}, 8_000),
        (1_000, 2_000, {"atMost": 0}, 0),
    ],
)
def test_a_split_route_takes_the_common_weight_within_its_bounds(
    common: int, third: int, bounds: dict[str, Any], canary: int
) -> None:
    """surface.md: atLeast and atMost bound it for that group; a third arm keeps what it has."""
    chosen = splitter(
        users=[ANYONE],
        routes=[{"name": "all", "matches": [{"method": "GET"}], "split": bounds}],
        arms=arms(common, third) if third else arms(common),
    )
    for number in range(500):
        decision = decide(chosen, "/", f"X-User-Id: {number}")
        assert decision.key is not None
        assert decision.arm == arm_index(bucket(decision.key, bytes.fromhex(SALT)), canary, third)
        assert (decision.reason, decision.source) == ("split/all", "user")


def test_raising_the_weight_only_adds_users() -> None:
    """product.md A1, through the whole decision and with bounds: nobody leaves the canary on the way up."""
    before: set[int] = set()
    for weight in (0, 1, 500, 2_500, 5_000, 10_000):
        chosen = splitter(users=[ANYONE], arms=arms(weight), routes=[FRANCE])
        now = {
            (number, cookie)
            for number in range(400)
            for cookie in ("", "fr=1")
            if decide(chosen, "/", f"X-User-Id: {number}", f"Cookie: {cookie}").arm == 1
        }
        assert before <= now
        before = now
    assert len(before) == 800


def test_replicas_agree_about_everybody() -> None:
    """A pure function of plan and keys: product.md A1, no shared state; each replica reads the cookies of the other."""
    one, two = splitter(rng=b"1" * 16), splitter(rng=b"2" * 16)
    first = decide(one)
    again = decide(two, "/", cookie_of(first.set_cookies[0]))
    assert (again.arm, again.key, again.set_cookies) == (first.arm, first.key, ())


def test_rotating_the_cookie_secret_moves_nobody() -> None:
    """reliability.md F40: the salt and the identity secret are others; the answer signs with the current secret."""
    rotated = KEYS.__class__(
        Secret(b"n" * 32, KEYS.cookie.current), *(getattr(KEYS, name) for name in KEYS.__slots__[1:])
    )
    for seed in range(50):
        first = decide(splitter(rng=bytes([seed]) * 16))
        later = decide(splitter(keys=rotated), "/", cookie_of(first.set_cookies[0]))
        assert (later.key, later.arm, later.rekeyed, len(later.set_cookies)) == (first.key, first.arm, False, 1)
        after = decide(splitter(keys=rotated), "/", cookie_of(later.set_cookies[0]))
        assert (after.key, after.set_cookies) == (first.key, ())


def test_another_revision_deals_all_users_anew() -> None:
    """product.md A3: the salt belongs to the revision on trial, so that the same people are not always first."""
    canary = [
        {n for n in range(1_000) if decide(splitter(users=[ANYONE], salt=salt), "/", f"X-User-Id: {n}").arm}
        for salt in (SALT, "0" * 64)
    ]
    assert 20 < len(canary[0] & canary[1]) < 120  # 62 expected of 250


# No revision on trial, no second arm


@pytest.mark.parametrize("weights", [(), (0,), (0, 0)], ids=["one-arm", "two", "three"])
def test_without_a_revision_on_trial_every_arm_means_stable(weights: tuple[int, ...]) -> None:
    """surface.md: `arm: canary` means stable then; the reason stays."""
    chosen = splitter(
        revision=None, arms=arms(*weights), routes=[STAFF, FRANCE], headerRoutes=[STEP], preview={"access": "Public"}
    )
    for lines, reason in (
        (["Cookie: staff=1"], "route/staff"),
        (["Cookie: fr=1"], "split/france"),
        (["X-QA: 1", "X-Team: a"], "header/qa"),
        ([f"Cookie: {pin('canary')}"], "preview"),
        ([], "split"),
    ):
        decision = decide(chosen, "/", *lines)
        assert (decision.arm, decision.reason) == (0, reason)


def test_canary_and_stable_mean_the_second_and_first_arm_whatever_their_names() -> None:
    """A plan's arms may have names of their own."""
    named = [
        {"name": "blue", "revision": "v1", "weightBp": 10_000},
        {"name": "green", "revision": "v2", "weightBp": 0},
        {"name": "fresh", "revision": "v1", "weightBp": 0},
    ]
    routes = [
        {"name": arm, "matches": [{"path": {"value": f"/{arm}"}}], "arm": arm}
        for arm in ("stable", "canary", "blue", "green", "fresh")
    ]
    chosen = splitter(arms=named, routes=routes)
    found = [decide(chosen, f"/{arm}").arm for arm in ("stable", "canary", "blue", "green", "fresh")]
    assert found == [0, 1, 0, 1, 2]


# Answers and prefixes


def test_answer_and_prefix_hold_whatever_picked_the_arm() -> None:
    """surface.md: of the first route that matches, also under an abort and a pin."""
    every = [{"method": "GET"}]
    gone = {"name": "gone", "matches": [{"path": {"value": "/gone"}}], "answer": 410}
    pre = {"name": "pre", "matches": every, "arm": "canary", "stripPrefix": "/pre"}
    chosen = splitter(routes=[gone, pre], preview={"access": "Public"}, headerRoutes=[STEP])
    cookie = f"Cookie: {pin('stable')}"
    cases: list[tuple[list[str], bool, int, str]] = [
        ([], True, 0, "abort"),
        ([cookie], False, 0, "preview"),
        (["X-QA: 1", "X-Team: a"], False, 1, "header/qa"),
    ]
    for lines, latched, arm, reason in cases:
        answered = decide(chosen, "/gone/x", *lines, latched=latched)
        assert (answered.answer, answered.arm, answered.reason) == (410, arm, reason)
        stripped = decide(chosen, "/pre/x?y", *lines, latched=latched)
        assert (stripped.target, stripped.strip_prefix, stripped.answer) == (b"/x?y", b"/pre", 0)
        assert (stripped.arm, stripped.reason) == (arm, reason)
    assert decide(chosen, "/gone").reason == "route/gone"


def test_an_unconditional_answer_outranks_the_routes_listed_before_it() -> None:
    """The first route that matches, in the order in which routes count."""
    every = [{"method": "GET"}]
    closed = {"name": "closed", "matches": every, "answer": 403, "always": True}
    chosen = splitter(routes=[{"name": "all", "matches": every, "arm": "canary", "stripPrefix": "/a"}, closed])
    decision = decide(chosen, "/a/b")
    assert (decision.answer, decision.reason, decision.arm, decision.strip_prefix) == (403, "route/closed", 0, b"")
    assert decide(chosen, "/a/b", latched=True).answer == 403


def test_an_answered_request_keeps_its_user() -> None:
    """The very first answer is sticky, whoever gives it."""
    gone = {"name": "gone", "matches": [{"method": "GET"}], "answer": 410}
    decision = decide(splitter(routes=[gone]))
    assert (decision.key, len(decision.set_cookies), decision.source) == (MINTED, 1, "forced")


# Abort


def test_an_abort_outranks_everything_and_keeps_cookies() -> None:
    """surface.md: an abort ends all; then nobody is on the canary."""
    always = {"name": "always", "matches": [{"method": "GET"}], "arm": "canary", "always": True}
    for routes in ([], [always], [STAFF], [FRANCE]):
        chosen = splitter(users=USERS, routes=routes, arms=arms(10_000), preview={"access": "Public"})
        decision = decide(chosen, "/", f"Cookie: {pin('canary')}; staff=1; fr=1", latched=True)
        assert (decision.arm, decision.reason, len(decision.set_cookies)) == (0, "abort", 1)


def test_weight_zero_ends_only_the_split() -> None:
    """surface.md: chosen people keep the canary at weight 0."""
    chosen = splitter(users=USERS, arms=arms(0), routes=[STAFF])
    assert decide(chosen, "/", f"X-User-Id: {LOW}").arm == 0
    assert decide(chosen, "/", f"X-User-Id: {LOW}", "Cookie: staff=1").arm == 1


# What the shell needs beside it


@pytest.mark.parametrize(
    ("setting", "line", "explained"),
    [
        ("OnRequest", "X-Cohort-Explain: 1", True),
        ("OnRequest", "x-cohort-explain:1", True),
        ("OnRequest", "X-Cohort-Explain: 0", False),
        ("OnRequest", "X-Cohort-Explain: true", False),
        ("OnRequest", "X-Other: 1", False),
        ("Always", "X-Other: 1", True),
        ("Never", "X-Cohort-Explain: 1", False),
    ],
)
def test_the_answer_is_explained_as_the_document_says(setting: str, line: str, explained: bool) -> None:
    """surface.md: OnRequest (X-Cohort-Explain: 1) | Always | Never."""
    assert decide(splitter(explain=setting), "/", line).explain is explained


def test_reserved_fields_are_those_that_count_from_trusted_peers_only() -> None:
    """design.md, wire contract 9, in every spelling; what every client sends for other reasons is left alone."""
    by_header = [
        {"headers": [{"name": "X-Staff", "value": "y"}]},
        {"headers": [{"name": "User-Agent", "value": "y"}, {"name": "X_Team", "value": "y"}]},
    ]
    chosen = splitter(
        users=[{"header": {"name": "X-User_Id"}}, {"jwt": {"header": "X-Token", "claim": "sub"}}, {"mint": {}}],
        routes=[
            {"name": "a", "matches": by_header, "arm": "canary"},
            {
                "name": "b",
                "matches": [{"headers": [{"name": "X-Canary", "value": "y"}]}],
                "arm": "canary",
                "trust": "Anyone",
            },
        ],
        headerRoutes=[STEP],
    )
    assert chosen.reserved == {b"x-user-id", b"x-staff", b"x-team"}
    assert splitter(users=[ANYONE]).reserved == frozenset()


def test_a_field_that_one_route_takes_from_anyone_is_not_reserved() -> None:
    """It is a client's to send; an identity stays reserved whatever routes say."""
    staff = [{"headers": [{"name": "X-Staff", "value": "y"}]}]
    user = [{"headers": [{"name": "X-User", "value": "y"}]}]
    chosen = splitter(
        users=[{"header": {"name": "X-User"}}],
        routes=[
            {"name": "a", "matches": staff, "arm": "canary"},
            {"name": "b", "matches": staff + user, "arm": "canary", "trust": "Anyone"},
        ],
    )
    assert chosen.reserved == {b"x-user"}


def test_a_header_route_needs_all_its_headers_and_takes_them_from_anyone() -> None:
    """As in Argo: whoever sends them."""
    chosen = splitter(headerRoutes=[STEP])
    assert decide(chosen, "/", "x-qa: 1", "x-team: a").reason == "header/qa"
    assert decide(chosen, "/", "X-QA: 1").reason == "split"
    assert decide(chosen, "/", "X-QA: 2", "X-Team: a").reason == "split"


def test_a_decision_tells_itself_in_one_line() -> None:
    """For logs and failing tests."""
    assert repr(decide(splitter(users=[ANYONE]), "/", f"X-User-Id: {LOW}")) == "<Decision arm=1 split user>"


def test_a_plan_of_the_largest_size_compiles_and_decides() -> None:
    """64 routes with 16 matches each, every kind of condition."""
    match = {
        "path": {"type": "RegularExpression", "value": "/a+"},
        "headers": [{"name": f"X-{n}", "type": "RegularExpression", "value": "(a|b)*"} for n in range(4)],
        "cookies": [{"name": "c", "type": "Suffix", "value": "x"}],
        "queryParams": [{"name": "q", "type": "Prefix", "value": "x"}],
        "clientNetworks": ["192.0.2.0/24"],
        "hostnames": ["*.example"],
    }
    routes = [{"name": f"r{n}", "matches": [match] * 16, "arm": "canary"} for n in range(64)]
    chosen = splitter(routes=routes)
    assert decide(chosen, "/aaa", "X-0: a", "X-1: b", "X-2: ab").reason == "split"
    assert plan(routes=routes).routes[63].name == "r63"


def test_now_is_only_for_cookies() -> None:
    """The version is computed: no clock, no state."""
    chosen = splitter(users=[ANYONE])
    assert {decide(chosen, "/", f"X-User-Id: {HIGH}", now=NOW * n).arm for n in range(2)} == {0}
    assert decide(chosen, "/", f"X-User-Id: {LOW}").key == LOW_KEY


FULL: dict[str, Any] = {
    "users": [ANYONE, {"jwt": {"claim": "sub"}}, {"cookie": {"name": "uid"}}, {"mint": {}}],
    "routes": [
        {"name": "path", "matches": [{"path": {"value": "/a"}}], "arm": "canary", "stripPrefix": "/a"},
        {"name": "regex", "matches": [{"path": {"type": "RegularExpression", "value": "/(b|%C3)+"}}], "answer": 404},
        {"name": "query", "matches": [{"queryParams": [{"name": "q", "type": "Present"}]}], "split": {"atLeast": 50}},
        {"name": "host", "matches": [{"hostnames": ["*.example"], "method": "BREW"}], "arm": "stable"},
        {"name": "net", "matches": [{"clientNetworks": ["::/0"]}], "arm": "canary", "always": True},
    ],
    "headerRoutes": [STEP],
    "preview": {"access": "Public"},
}  # fmt: skip
visible = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=30)
value = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=60)
words = st.sampled_from(
    ["/a", "/b", "%2F", "%5c", "..", "%C3", "?q", "&q=1", "/.cohort/preview", "?arm=canary", "?token=", "%", "//", ";"]
)
names = st.sampled_from(
    ["X-User-Id", "Authorization", "Cookie", "Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "X-QA", "X-Forwarded-Host"]
)
CHOSEN = splitter(**FULL)


@given(
    st.lists(words | visible, max_size=6).map("".join),
    st.lists(st.tuples(names, value), max_size=6),
    st.sampled_from(["GET", "POST", "OPTIONS", "BREW"]),
    visible,
    st.booleans(),
)
def test_whatever_the_parser_accepts_is_decided_or_refused_with_400(
    target: str, lines: list[tuple[str, str]], method: str, client: str, trusted: bool
) -> None:
    """No input of a peer is an exception of another kind, and nothing of it is in a line that we write."""
    try:
        asked = request(f"/{target}", *(f"{name}: {text}" for name, text in lines), method=method)
    except DownstreamError:
        return
    try:
        decision = CHOSEN.decide(asked, client, trusted, False, False, NOW)
    except DownstreamError as error:
        if error.status == 400:
            return
        raise
    assert decision.target.startswith(b"/")
    assert decision.arm in (0, 1)
    written = b"".join(decision.set_cookies) + (decision.local.lines if decision.local else b"")
    assert all(re.fullmatch(rb"[A-Za-z-]+: [\x21-\x7e][\x20-\x7e]*", line) for line in written.split(b"\r\n")[:-1])
