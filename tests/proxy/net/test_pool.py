"""Endpoints of an arm: which are usable, which is chosen, and the room that the arm has."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import pytest

from proxy.net.pool import Endpoint, Room, admitted, least_loaded, usable
from proxy.standing import Rules

RULES = Rules(failures=1, first_s=1.0, longest_s=30.0)


def endpoints(count: int) -> list[Endpoint]:
    return [Endpoint("192.0.2.1", 1000 + i) for i in range(count)]


def eject(endpoint: Endpoint) -> None:
    endpoint.standing.failed(0.0, RULES, 1.0)


def lose(endpoint: Endpoint, refused: bool = True) -> None:
    endpoint.standing.unreachable(refused, 0.0, RULES, 1.0)


def test_the_least_loaded_is_chosen_and_ties_are_drawn() -> None:
    """The word of the field for it is least request."""
    found = endpoints(4)
    found[0].active = 2
    found[3].active = 1
    chosen = Counter(least_loaded(found, None) for _ in range(200))
    assert set(chosen) == {found[1], found[2]}
    assert min(chosen.values()) > 50


def test_the_one_that_failed_is_avoided_unless_it_is_the_only_one() -> None:
    found = endpoints(2)
    assert {least_loaded(found, found[0]) for _ in range(20)} == {found[1]}
    assert least_loaded(found[:1], found[0]) is found[0]


def test_of_many_the_better_of_those_drawn_is_chosen() -> None:
    found = endpoints(100)
    for endpoint in found[:50]:
        endpoint.active = 10
    chosen = Counter(least_loaded(found, None) in found[50:] for _ in range(400))
    assert chosen[True] > 300


def test_those_out_are_left_out_while_enough_are_left() -> None:
    found = endpoints(4)
    eject(found[0])
    lose(found[1])
    assert usable(found, 50, 0.0) == found[2:]


def test_an_unhealthy_endpoint_is_left_out() -> None:
    """Active checks and what requests met count alike."""
    found = endpoints(3)
    found[2].is_healthy = False
    assert usable(found, 50, 0.0) == found[:2]


def test_panic_uses_all_that_can_be_reached() -> None:
    """With most of an arm out, the endpoints are not what is wrong; Envoy's panic threshold."""
    found = endpoints(4)
    for endpoint in found[:3]:
        eject(endpoint)
    assert usable(found, 50, 0.0) == found
    lose(found[0])
    assert usable(found, 50, 0.0) == found[1:]


def test_the_only_endpoint_is_never_ejected_for_failing() -> None:
    found = endpoints(1)
    eject(found[0])
    assert usable(found, 50, 0.0) == found


def test_with_nothing_else_those_that_refuse_are_tried_and_silent_ones_are_not() -> None:
    """Refusing costs a moment, silence costs the whole time-out."""
    found = endpoints(2)
    lose(found[0], refused=True)
    lose(found[1], refused=False)
    assert usable(found, 50, 0.25) == found[:1]
    lose(found[0], refused=False)
    assert usable(found, 50, 0.25) == []
    assert all(endpoint.standing.until <= 0.25 for endpoint in found)


def test_a_newcomer_gets_a_growing_share() -> None:
    """Slow start: half the time gone, half the chance."""
    old, new = endpoints(2)
    old.since = -100.0

    def share(age: float) -> float:
        return sum(new in admitted([old, new], age, 10.0) for _ in range(2000)) / 2000

    assert share(1.0) == pytest.approx(0.1, abs=0.04)
    assert share(5.0) == pytest.approx(0.5, abs=0.06)
    assert share(10.0) == 1.0


def test_on_probation_there_is_one_request_at_a_time() -> None:
    found = endpoints(2)
    eject(found[0])
    found[0].standing.reached()
    assert admitted(found, 100.0, 10.0) == found
    found[0].active = 1
    assert admitted(found, 100.0, 10.0) == found[1:]


def test_if_none_is_admitted_all_are() -> None:
    """A plan's first endpoints are all newcomers."""
    found = endpoints(2)
    assert all(admitted(found, 0.0, 10.0) == found for _ in range(20))


def test_an_endpoint_that_comes_back_by_a_plan_is_as_good_as_new() -> None:
    """F10: an address that was taken out and comes back is used at once."""
    endpoint = Endpoint("192.0.2.1", 80)
    endpoint.enlist("canary", 0.0)
    lose(endpoint)
    endpoint.enlist("canary", 1.0)
    assert endpoint.standing.is_out
    endpoint.retire()
    endpoint.retire()
    endpoint.enlist("canary", 5.0)
    assert not endpoint.standing.is_out
    assert endpoint.since == 5.0


class Waiter:
    """Stands for a request that waits; ``again`` times there is no connection for it."""

    def __init__(self, room: Room, again: int = 0) -> None:
        self.room = room
        self.again = again
        self.calls = 0

    def admitted(self) -> None:
        self.calls += 1
        if self.calls <= self.again:
            self.room.waiting[cast(Any, self)] = None
        else:
            self.room.busy += 1


def wait(room: Room, *waiters: Waiter) -> None:
    room.waiting.update(cast(Any, dict.fromkeys(waiters)))


def test_those_who_wait_are_admitted_in_order_as_far_as_there_is_room() -> None:
    room = Room(most_busy=2, most_waiting=3, connects_per_s=100)
    waiters = [Waiter(room) for _ in range(3)]
    wait(room, *waiters)
    assert room.is_full
    room.admit()
    assert [waiter.calls for waiter in waiters] == [1, 1, 0]
    room.busy -= 1
    room.admit()
    assert [waiter.calls for waiter in waiters] == [1, 1, 1]


def test_admitting_ends_when_no_connection_is_to_be_had() -> None:
    """Else the loop would go round for ever."""
    room = Room(most_busy=10, most_waiting=3, connects_per_s=100)
    waiters = [Waiter(room, again=5), Waiter(room)]
    wait(room, *waiters)
    room.admit()
    assert [waiter.calls for waiter in waiters] == [1, 0]
    room.admit()
    assert [waiter.calls for waiter in waiters] == [2, 1]


def test_connections_are_counted_by_the_second_and_not_saved_up() -> None:
    room = Room(most_busy=10, most_waiting=3, connects_per_s=100)
    for _ in range(10):
        room.refill(0.25)
    assert room.connects == 25.0
    slow = Room(most_busy=10, most_waiting=3, connects_per_s=1)
    slow.refill(0.25)
    assert slow.connects == 1.0
