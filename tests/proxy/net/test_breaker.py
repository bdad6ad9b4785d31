"""The local breaker, acting: on counters in memory, and as a whole proxy before a broken version."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from proxy import shared
from proxy.counters import Counters, tallies
from proxy.latch import Abort, Latch
from proxy.net.breaker import BY, LocalBreaker
from proxy.net.keeper import Keeper
from proxy.plan import Plan
from tests.support.dataplane import REPLY, Proxy, plan, replies, service
from tests.support.supervised import proxy_process, until

BROKEN = b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n"
UID = "11111111-2222-3333-4444-555555555555"


class Bench:
    """A breaker with a keeper, on the counters of two workers; the clock stands unless it is told to go on."""

    def __init__(self) -> None:
        memory = memoryview(bytearray(shared.size(2)))
        self.places = [shared.region(memory, slot) for slot in range(2)]
        self.workers = [Counters(place) for place in self.places]
        self.now = 0.0
        self.full = False
        self.keeper = Keeper(shared.Words(memory), self, self._stage, lambda: self.now, lambda: 1_788_264_000.0)
        self.breaker = LocalBreaker(self.keeper, lambda: self.places, lambda: self.now)

    async def _stage(self, sequence: int, document: str) -> None:
        for worker in self.workers:
            made = Plan.model_validate_json(document)
            worker.new_revision(made.rollout.uid, made.revision)

    def write_plan(self, plan: Plan) -> None: ...

    def remove_latch(self) -> None: ...

    def write_latch(self, latch: Latch) -> None:
        if self.full:
            raise OSError(28, "No space left on device")

    async def adopt(self, generation: int = 1, **changes: Any) -> None:
        changes = {"breaker": {"window": "10s"}} | changes
        await self.keeper.adopt(plan([1], [2], 5_000, generation=generation, **changes), "test")

    async def look(self, seconds: float = 0.25) -> Latch | None:
        self.now += seconds
        await self.breaker.look()
        return self.keeper.latch

    def fail(self, count: int, users: int = 10, source: str = "user", code: int = 500, failed: bool = True) -> None:
        """So many failed answers of the canary, over both workers and so many users."""
        for number in range(count):
            worker = self.workers[number % 2]
            worker.request("canary", "split", source, code, failed)
            if failed:
                worker.user_failed("canary", bytes((number % users,)) * 16)


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_it_aborts_by_itself_once_and_says_why(bench: Bench) -> None:
    """B8: the latch, with the figures; whoever watches the proxy learns it from there."""
    await bench.adopt()
    assert await bench.look() is None
    bench.fail(30)
    latch = await bench.look()
    assert latch is not None
    assert (latch.by, latch.revision) == (BY, "v2")
    assert latch.reason.startswith("canary: 30 of 30 answers within 10s failed (100.00 %), for at least 10 users")
    assert await bench.look() is latch
    assert bench.breaker.trips == {"canary": 1}


async def test_without_a_line_it_is_off(bench: Bench) -> None:
    await bench.adopt(breaker=None)
    for _ in range(3):
        assert await bench.look() is None
        bench.fail(30)


async def test_a_line_that_a_new_plan_draws_counts_from_then_on(bench: Bench) -> None:
    await bench.adopt(breaker=None)
    await bench.look()
    bench.fail(30)
    await bench.adopt(2)
    assert await bench.look() is None
    assert await bench.look() is None
    bench.fail(30)
    assert await bench.look()


async def test_a_lifted_abort_does_not_come_back_by_old_failures(bench: Bench) -> None:
    """Neither those that led to it, nor those that came while it stood."""
    await bench.adopt()
    await bench.look()
    bench.fail(30)
    latch = await bench.look()
    assert latch is not None
    bench.fail(30)
    await bench.look()
    await bench.adopt(2, lifts=[latch.id])
    assert await bench.look() is None
    assert await bench.look() is None
    bench.fail(30)
    assert await bench.look()
    assert bench.breaker.trips == {"canary": 2}


async def test_a_new_revision_starts_with_a_clean_slate(bench: Bench) -> None:
    await bench.adopt()
    await bench.look()
    bench.fail(19)
    arms = plan([1], [2], 5_000).model_dump(mode="json", by_alias=True)["arms"]
    arms[1]["revision"] = "v3"
    await bench.adopt(2, revision="v3", arms=arms)
    assert await bench.look() is None
    bench.fail(19)
    assert await bench.look() is None
    bench.fail(1)
    assert await bench.look()


@pytest.mark.parametrize(
    "other",
    [
        {"source": "mirror"},
        {"source": "synthetic"},
        {"code": 499, "failed": False},
        {"users": 1},
        {"code": 404, "failed": False},
    ],
)
async def test_what_tells_nothing_of_a_version_does_not_trip_it(bench: Bench, other: dict[str, Any]) -> None:
    """Copies, synthetic requests, clients that left, one user alone (S5), and 4xx, which are the clients' own."""
    await bench.adopt()
    await bench.look()
    bench.fail(200, **other)
    assert await bench.look() is None


async def test_clients_that_leave_do_not_hide_failures(bench: Bench) -> None:
    await bench.adopt()
    await bench.look()
    bench.fail(100, code=499, failed=False)
    bench.fail(20)
    assert await bench.look()


async def test_requests_without_a_key_count_as_users_of_their_own(bench: Bench) -> None:
    """Forced ones; nothing more is known of them."""
    await bench.adopt()
    await bench.look()
    for _ in range(20):
        bench.workers[0].request("canary", "route/staff", "forced", 502, True)
        bench.workers[0].user_failed("canary", None)
    assert await bench.look()


async def test_failures_of_stable_abort_nothing(bench: Bench) -> None:
    await bench.adopt()
    await bench.look()
    for number in range(40):
        bench.workers[0].request("stable", "split", "user", 500, True)
        bench.workers[0].user_failed("stable", bytes((number,)) * 16)
    assert await bench.look() is None


async def test_a_full_disk_does_not_keep_it_from_aborting(bench: Bench) -> None:
    """The latch is in force, and stored as soon as there is room."""
    bench.full = True
    await bench.adopt()
    await bench.look()
    bench.fail(30)
    assert await bench.look()
    assert not bench.keeper.is_stored
    assert bench.breaker.trips == {"canary": 1}


async def test_somebody_elses_abort_is_not_its_own(bench: Bench) -> None:
    await bench.adopt()
    await bench.look()
    bench.fail(30)
    await bench.keeper.abort(Abort(by="anna"))
    latch = await bench.look()
    assert latch is not None
    assert latch.by == "anna"
    assert bench.breaker.trips == {"canary": 0}


async def test_users_who_fell_back_count_against_the_version_that_was_down() -> None:
    """They got their answer from stable, and the canary is broken all the same."""
    async with service(replies(REPLY)) as (_, stable), Proxy({}) as proxy:
        async with service(replies(REPLY)) as (_, canary):
            pass
        proxy.adopt(plan([stable], [canary], 10_000))
        for number in range(6):
            ask = b"GET / HTTP/1.1\r\nHost: t\r\nCookie: uid=%d\r\nConnection: close\r\n\r\n" % number
            assert (await proxy.ask(ask)).startswith(b"HTTP/1.1 200 ")
        tally = tallies([proxy.memory], UID, "v2", ["canary"])["canary"]
        assert (tally.answers, tally.failed) == (6, 6)
        assert tally.users >= 3


async def test_a_broken_canary_is_aborted_by_the_proxy_alone(tmp_path: Path) -> None:
    """F35: no controller, nobody at the admin API; within the window and a second all users have stable."""
    async with service(replies(REPLY)) as (_, stable), service(replies(BROKEN)) as (_, canary):
        made = plan([stable], [canary], 10_000, breaker={"window": "2s"})
        async with proxy_process(tmp_path, made, workers=2) as proxy:
            await proxy.until_ready()
            await asyncio.sleep(0.5)  # for one reading of the counters before
            began = time.monotonic()
            for number in range(24):
                assert (await proxy.get(user=str(number))).status in (500, 200)

            async def latched() -> Any:
                return (await proxy.state())["latch"]

            latch = await until(latched)
            assert time.monotonic() - began < 3.0
            assert latch["by"] == "breaker"
            assert "answers within 2s failed (100.00 %)" in latch["reason"]
            assert (await proxy.get()).status == 200
            assert list((await proxy.metric("cohort_breaker_trips_total")).values()) == [1]
            assert (await proxy.state())["latchStored"]
            await proxy.put(
                plan([stable], [canary], 10_000, generation=2, breaker={"window": "2s"}, lifts=[latch["id"]])
            )
            await asyncio.sleep(0.6)
            assert (await proxy.state())["latch"] is None
