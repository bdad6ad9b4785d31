from __future__ import annotations

import asyncio
import copy
import itertools
import random
from typing import Any

import pytest

from controller.errors import Temporary
from controller.net.kube.client import ApiRefused
from controller.net.kube.lease import ASIDE_SHARE, RENEW_SHARE, RETRY_SHARE, Elector

D = 15


class Server:
    """One Lease, with optimistic locking."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.is_up = True
        self.versions = itertools.count(1)

    async def ask(self, method: str, path: str, body: Any = None, *, limit_s: float = 1.0) -> dict[str, Any]:
        if not self.is_up:
            raise Temporary("refused")
        if method == "GET":
            if self.lease is None:
                raise ApiRefused(404, "not found")
            return copy.deepcopy(self.lease)
        if method == "POST" and self.lease:
            raise ApiRefused(409, "exists")
        if method == "PUT" and self.lease and body["metadata"]["resourceVersion"] != self.version:
            raise ApiRefused(409, "conflict")
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(next(self.versions))
        return self.lease

    @property
    def version(self) -> str:
        assert self.lease
        return str(self.lease["metadata"]["resourceVersion"])


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def elector(server: Server, clock: Clock, identity: str) -> Elector:
    return Elector(server, "shop", "cohort-web", identity, D, monotonic=clock, wall=lambda: 0.0)


async def test_the_first_takes_it_and_the_second_waits(server: Server, clock: Clock) -> None:
    a, b = elector(server, clock, "a"), elector(server, clock, "b")
    await a.look()
    await b.look()
    assert (a.is_held, b.is_held) == (True, False)
    assert b.holder == "a"


async def test_a_holder_that_cannot_renew_stops_before_another_may_take_it(server: Server, clock: Clock) -> None:
    a, b = elector(server, clock, "a"), elector(server, clock, "b")
    await a.look()
    await b.look()  # sees the record, at its own time
    began = clock.now
    while not b.is_held:
        clock.now += 0.5
        assert clock.now - began < 4 * D
        if not a.is_held:
            await b.look()
            continue
        await b.look()
        assert not b.is_held
    assert clock.now - began > D > D * RENEW_SHARE


async def test_a_renewal_counts_from_before_it_was_sent(server: Server, clock: Clock) -> None:
    a = elector(server, clock, "a")
    ask = server.ask

    async def slow(*args: Any, **more: Any) -> dict[str, Any]:
        answer = await ask(*args, **more)
        clock.now += 3.0
        return answer

    server.ask = slow  # type: ignore[method-assign]
    await a.look()
    assert a.is_held
    clock.now += D * RENEW_SHARE - 3.0
    assert not a.is_held


async def test_a_restarted_container_of_the_same_pod_retakes_at_once(server: Server, clock: Clock) -> None:
    await elector(server, clock, "pod_1").look()
    again = elector(server, clock, "pod_1")
    await again.look()
    assert again.is_held


async def test_release_lets_the_next_one_take_it_at_once(server: Server, clock: Clock) -> None:
    a, b = elector(server, clock, "a"), elector(server, clock, "b")
    await a.look()
    await b.look()
    await a.release()
    assert not a.is_held
    await b.look()
    assert b.is_held


async def test_who_gives_way_leaves_it_to_others_for_a_while_and_comes_back(server: Server, clock: Clock) -> None:
    """Two versions of cohort beside each other: one of them can read what there is to decide on."""
    a, b = elector(server, clock, "a"), elector(server, clock, "b")
    await a.look()
    await a.give_way()
    clock.now += D * ASIDE_SHARE - 0.1
    await a.look()
    assert not a.is_held
    await b.look()
    assert b.is_held
    await b.release()
    clock.now += 0.2
    await a.look()
    assert a.is_held


async def test_ending_releases(server: Server, clock: Clock) -> None:
    a = elector(server, clock, "a")
    task = asyncio.create_task(a.run())
    while not a.is_held:
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert server.lease
    assert server.lease["spec"]["holderIdentity"] == ""


async def test_a_lease_that_another_took_is_not_released(server: Server, clock: Clock) -> None:
    a = elector(server, clock, "a")
    await a.look()
    assert server.lease
    server.lease["spec"]["holderIdentity"] = "b"
    await a.release()
    assert server.lease["spec"]["holderIdentity"] == "b"


async def test_an_api_server_that_is_away_takes_it_away_with_time(server: Server, clock: Clock) -> None:
    a = elector(server, clock, "a")
    await a.look()
    server.is_up = False
    clock.now += D * RETRY_SHARE
    await a.look()
    assert a.is_held
    clock.now += D * RENEW_SHARE
    await a.look()
    assert not a.is_held
    server.is_up = True
    await a.look()
    assert a.is_held


async def test_a_lease_that_is_deleted_is_made_anew(server: Server, clock: Clock) -> None:
    a = elector(server, clock, "a")
    await a.look()
    server.lease = None
    await a.look()
    assert a.is_held


@pytest.mark.parametrize("seed", range(20))
async def test_never_two_at_once_whatever_fails(server: Server, clock: Clock, seed: int) -> None:
    """Candidates that look, freeze, lose the API server and release, at random times, under virtual time."""
    rng = random.Random(seed)
    all_of = [elector(server, clock, name) for name in "abc"]
    held = 0
    for _ in range(1500):
        clock.now += rng.choice((0.1, 0.5, 1.0, 2.0))
        server.is_up = rng.random() < 0.8
        await rng.choice(all_of).look()
        if rng.random() < 0.02:
            await rng.choice(all_of).release()
        holders = [each.identity for each in all_of if each.is_held]
        assert len(holders) <= 1
        held += len(holders)
    assert held > 300
