"""The exchange: every method in every state against the literal table."""

from __future__ import annotations

import itertools

import pytest

from proxy.errors import InternalError
from proxy.exchange import (
    ANSWER,
    CONNECTING,
    DONE,
    FINISH,
    LINGER,
    MAX_ATTEMPTS,
    PASS_END,
    RELAYING,
    RETRY,
    TRANSITIONS,
    TUNNEL,
    WAITING,
    Exchange,
)

STATES = (CONNECTING, WAITING, RELAYING, TUNNEL, DONE)
EVENTS = (
    "connected",
    "connect_failed",
    "request_ended",
    "response_started",
    "switched",
    "response_ended",
    "upstream_lost",
    "failed",
    "downstream_lost",
)


def variants(event: str) -> list[tuple[bool, ...]]:
    arguments = {"upstream_lost": 2, "connect_failed": 2}
    return list(itertools.product((False, True), repeat=arguments.get(event, 0)))


def reach(event: str, state: int) -> list[tuple[int, int]]:
    """Every outcome of an event in a state, over all that an exchange can know."""
    outcomes = []
    for method, has_body, attempts in itertools.product((b"GET", b"POST"), (False, True), (1, MAX_ATTEMPTS)):
        for arguments in variants(event):
            exchange = Exchange(method, has_body)
            exchange.state, exchange.attempts = state, attempts
            exchange.response_open = not has_body
            outcomes.append((getattr(exchange, event)(*arguments), exchange.state))
    return outcomes


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("event", EVENTS)
def test_methods_do_what_the_table_says(event: str, state: int) -> None:
    """Every pair is either in the table, and then exactly its outcomes occur, or refused with a typed error."""
    allowed = TRANSITIONS.get((state, event))
    if allowed is None:
        with pytest.raises(InternalError):
            reach(event, state)
    else:
        assert set(reach(event, state)) == set(allowed)


def test_table_names_only_events_that_exist() -> None:
    assert {event for _, event in TRANSITIONS} == set(EVENTS)


@pytest.mark.parametrize(
    ("method", "has_body", "any_byte", "may_retry", "action"),
    [
        (b"GET", False, False, True, RETRY),
        (b"HEAD", False, False, True, RETRY),
        (b"OPTIONS", False, False, True, RETRY),
        (b"GET", True, False, True, ANSWER),
        (b"POST", False, False, True, ANSWER),
        (b"DELETE", False, False, True, ANSWER),
        (b"get", False, False, True, ANSWER),
        (b"GET", False, True, True, ANSWER),
        (b"GET", False, False, False, ANSWER),
    ],
)
def test_only_what_may_be_repeated_is_retried(
    method: bytes, has_body: bool, any_byte: bool, may_retry: bool, action: int
) -> None:
    """Contract item 15: GET, HEAD and OPTIONS before the first response byte, within the budget."""
    exchange = Exchange(method, has_body)
    exchange.connected()
    assert exchange.upstream_lost(any_byte, may_retry) == action


def test_a_request_is_retried_once() -> None:
    exchange = Exchange(b"GET", False)
    exchange.connected()
    assert exchange.upstream_lost(False, True) == RETRY
    exchange.connected()
    assert exchange.upstream_lost(False, True) == ANSWER
    assert exchange.attempts == MAX_ATTEMPTS


def test_an_answer_that_ends_before_its_request_ends_the_connection() -> None:
    """Contract item 12."""
    exchange = Exchange(b"POST", True)
    exchange.connected()
    exchange.response_started()
    assert exchange.response_ended() == LINGER


def test_an_answer_to_a_complete_request_keeps_the_connection() -> None:
    exchange = Exchange(b"POST", True)
    exchange.connected()
    exchange.request_ended()
    exchange.response_started()
    assert exchange.response_ended() == FINISH


WAYS = ("request_ended", "response_ended")


@pytest.mark.parametrize(("first", "second"), [WAYS, WAYS[::-1]])
def test_the_ways_of_a_tunnel_end_one_by_one(first: str, second: str) -> None:
    """Contract item 7: the end of one way is passed on and leaves the other open."""
    exchange = Exchange(b"GET", False)
    exchange.connected()
    exchange.switched()
    assert getattr(exchange, first)() == PASS_END
    assert exchange.state == TUNNEL
    assert getattr(exchange, second)() == FINISH
