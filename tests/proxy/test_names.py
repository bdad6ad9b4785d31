"""What is known of a name: good answers count, bad ones only postpone the next question."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.names import (
    KINDS,
    MOST_ADDRESSES,
    NOTHING,
    V4,
    V6,
    Bounds,
    Failed,
    Found,
    Known,
    Outcome,
    is_usable,
    learn,
    parse_hosts,
    wait_s,
)

BOUNDS = Bounds(1.0, 300.0)
NONE = Found((), 60.0)
SERVFAIL = Failed("servfail", "SERVFAIL")
GOOD = Known({V4: ("192.0.2.1",), V6: ("2001:db8::1",)}, 10.0, 30.0)


def found(*addresses: str, ttl_s: float = 30.0) -> Found:
    return Found(addresses, ttl_s)


def test_an_answer_replaces_the_last_one_whole() -> None:
    known = learn(GOOD, {V4: found("192.0.2.9", "192.0.2.2", "192.0.2.9"), V6: NONE}, 20.0)
    assert known.addresses == ("192.0.2.2", "192.0.2.9")
    assert (known.answered_s, known.failures, known.problem) == (20.0, 0, None)


def test_of_too_many_addresses_all_proxies_take_the_same() -> None:
    many = [f"10.0.{number >> 8}.{number & 255}" for number in range(2 * MOST_ADDRESSES)]
    known = learn(NOTHING, {V4: found(*many), V6: found("2001:db8::1")}, 0.0)
    assert known.addresses == (*sorted(many)[:MOST_ADDRESSES], "2001:db8::1")
    assert known == learn(NOTHING, {V4: found(*reversed(many)), V6: found("2001:db8::1")}, 0.0)


def test_the_shortest_ttl_of_an_answer_with_addresses_counts() -> None:
    known = learn(NOTHING, {V4: found("192.0.2.1", ttl_s=30.0), V6: found("2001:db8::1", ttl_s=5.0)}, 0.0)
    assert known.ttl_s == 5.0
    assert learn(NOTHING, {V4: found("192.0.2.1"), V6: Found((), 1.0)}, 0.0).ttl_s == 30.0


@pytest.mark.parametrize(
    ("outcomes", "kind"),
    [
        ({V4: SERVFAIL, V6: SERVFAIL}, "servfail"),
        ({V4: Failed("nxdomain", ""), V6: Failed("nxdomain", "")}, "nxdomain"),
        ({V4: NONE, V6: NONE}, "empty"),
        ({V4: NONE, V6: Failed("timeout", "")}, "timeout"),
        ({V4: found("0.0.0.0"), V6: NONE}, "unusable"),
    ],
    ids=["servfail", "nxdomain", "empty", "half-empty", "unusable"],
)
def test_a_round_without_an_address_keeps_the_last_good_answer(outcomes: dict[int, Outcome], kind: str) -> None:
    """F08: SERVFAIL, NXDOMAIN, empty and silence."""
    known = learn(learn(GOOD, outcomes, 20.0), outcomes, 30.0)
    assert (known.by_family, known.answered_s, known.ttl_s) == (GOOD.by_family, GOOD.answered_s, GOOD.ttl_s)
    assert known.failures == 2
    assert known.problem is not None
    assert known.problem.kind == kind
    assert kind in KINDS


def test_a_family_that_fails_keeps_its_addresses_beside_the_other_ones_answer() -> None:
    known = learn(GOOD, {V4: found("192.0.2.2"), V6: SERVFAIL}, 20.0)
    assert known.addresses == ("192.0.2.2", "2001:db8::1")
    assert (known.failures, known.problem) == (0, SERVFAIL)


def test_a_family_that_is_no_longer_asked_is_forgotten() -> None:
    assert learn(GOOD, {V4: found("192.0.2.1")}, 20.0).addresses == ("192.0.2.1",)


@pytest.mark.parametrize(
    ("ttl_s", "chance", "expected"),
    [(0.0, 0.0, 1.0), (1.0, 1.0, 1.1), (30.0, 0.0, 30.0), (30.0, 1.0, 30.5), (86_400.0, 0.5, 300.25)],
)
def test_the_ttl_counts_within_bounds_and_never_more_than_half_a_second_late(
    ttl_s: float, chance: float, expected: float
) -> None:
    """F07: a change counts within TTL + 1 s."""
    assert wait_s(learn(NOTHING, {V4: found("192.0.2.1", ttl_s=ttl_s)}, 0.0), BOUNDS, chance) == pytest.approx(expected)


def test_failures_are_tried_again_with_back_off() -> None:
    known, waits = GOOD, []
    for _ in range(8):
        known = learn(known, {V4: SERVFAIL}, 0.0)
        waits.append(wait_s(known, BOUNDS, 0.0))
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    assert wait_s(known, BOUNDS, 1.0) == 22.5
    known = NOTHING
    for _ in range(2000):
        known = learn(known, {V4: SERVFAIL}, 0.0)
    assert wait_s(known, BOUNDS, 0.0) == 5  # nobody serves meanwhile


@pytest.mark.parametrize(
    ("address", "usable"),
    [
        ("127.0.0.1", True), ("10.0.0.1", True), ("::1", True), ("2001:db8::1", True), ("::ffff:192.0.2.1", True),
        ("0.0.0.0", False), ("::", False), ("224.0.0.1", False), ("ff02::1", False), ("255.255.255.255", False),
        ("169.254.169.254", False), ("fe80::1", False), ("::ffff:169.254.169.254", False),
    ],
)  # fmt: skip
def test_only_addresses_that_can_be_a_service_count(address: str, usable: bool) -> None:
    """D8: who answers for a name must not lead us to a metadata service."""
    assert is_usable(address) is usable


def test_a_hosts_file_gives_every_address_of_a_name() -> None:
    text = "127.0.0.1 localhost Shop # shop2\n\n::1\tlocalhost\nnonsense shop\n# 192.0.2.1 x\n192.0.2.1\n"
    assert parse_hosts(text) == {"localhost": ("127.0.0.1", "::1"), "shop": ("127.0.0.1",)}


FAILURE = st.sampled_from([Failed("servfail", ""), Failed("nxdomain", ""), Failed("timeout", "")])
ANSWER = {
    V4: st.builds(
        Found, st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2", "0.0.0.0"])).map(tuple), st.floats(0, 1e6)
    ),
    V6: st.builds(Found, st.lists(st.sampled_from(["2001:db8::1", "fe80::1"])).map(tuple), st.floats(0, 1e6)),
}
ROUNDS = st.lists(st.fixed_dictionaries({family: FAILURE | answer for family, answer in ANSWER.items()}))


@given(ROUNDS)
def test_a_name_that_ever_had_an_address_has_one_for_ever(rounds: list[dict[int, Outcome]]) -> None:
    """F08, for every sequence of answers; and it is always asked for again, within bounds."""
    known = NOTHING
    for number, outcomes in enumerate(rounds):
        before, known = known, learn(known, outcomes, float(number))
        assert known.addresses or not before.addresses
        assert all(is_usable(address) for address in known.addresses)
        assert (known.answered_s == number) == (known.failures == 0)
        assert known.problem is not None or known.failures == 0
        assert 0.75 <= wait_s(known, BOUNDS, 0.5) <= 300.5
