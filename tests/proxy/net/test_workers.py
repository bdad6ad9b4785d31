"""Worker processes as their supervisor sees them, with a scripted data plane; `test_supervisor` has the real one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.config import ProxySettings
from proxy.latch import Latch
from proxy.net import workers, workline
from proxy.net.credentials import Credentials
from proxy.net.keeper import Keeper, Refused
from proxy.net.memory import SharedMemory
from proxy.net.sockets import listen_slots
from proxy.net.workers import Workers
from proxy.plan import Plan
from tests.support.plans import plan
from tests.support.supervised import until

pytestmark = pytest.mark.integration


class Nowhere:
    """Keeps nothing."""

    def write_plan(self, plan: Plan) -> None: ...
    def write_latch(self, latch: Latch) -> None: ...
    def remove_latch(self) -> None: ...


class Crew:
    """Workers and what they need."""

    def __init__(self, behaviour: str, count: int) -> None:
        slots = listen_slots("127.0.0.1:0", count, "x")
        self.port = slots[0][0].getsockname()[1]
        self.memory = SharedMemory()
        start = {
            "settings": ProxySettings().model_dump(mode="json", by_alias=True),
            "keysDir": "unused",
            "credentials": Credentials().document(),
        }
        command = (sys.executable, "-m", "tests.support.standin", behaviour)
        sockets = [[(sock, 0) for sock in slot] for slot in slots]
        self.workers = Workers(sockets, self.memory, start, time.monotonic, command)
        self.keeper = Keeper(self.memory.board, Nowhere(), self.workers.stage, time.monotonic, time.time)

    async def adopt(self, generation: int) -> None:
        await self.keeper.adopt(plan(generation=generation), "a test")

    async def ask(self) -> list[int]:
        """Process, generation and latch of whoever answers."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(30):
                return [int(number) for number in (await reader.read()).split()]
        finally:
            writer.close()

    def pids(self) -> list[int]:
        return [worker.pid for worker in self.workers.live if worker.is_serving]

    async def until_serving(self, count: int) -> list[int]:
        async def serving() -> list[int]:
            return self.pids() if len(self.pids()) == count else []

        found: list[int] = await until(serving)
        return found


@contextlib.asynccontextmanager
async def crew(behaviour: str = "", count: int = 1) -> AsyncIterator[Crew]:
    found = Crew(behaviour or "none", count)
    running = asyncio.create_task(found.workers.run(found.keeper))
    found.workers.serve()
    try:
        yield found
    finally:
        leaving = asyncio.create_task(found.workers.drain(0, 0))
        async with asyncio.timeout(30):
            await running
        leaving.cancel()
        found.memory.close()


@pytest.fixture(autouse=True)
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the stand-in is found."""
    monkeypatch.chdir(Path(__file__).parents[3])


async def test_workers_stage_what_is_in_force_before_they_serve() -> None:
    """design.md, the pieces, 1: no request meets a worker without the plan."""
    async with crew(count=2) as found:
        await found.adopt(3)
        await found.until_serving(2)
        assert {(await found.ask())[1] for _ in range(8)} == {3}
        await found.adopt(5)
        assert {(await found.ask())[1] for _ in range(8)} == {5}


async def test_a_worker_that_refuses_a_plan_refuses_it_for_all() -> None:
    """All or none; the faults come back with their paths."""
    async with crew("refuses-even", 2) as found:
        await found.adopt(1)
        with pytest.raises(Refused) as caught:
            await found.adopt(2)
        assert caught.value.status == 422
        assert [str(fault) for fault in caught.value.faults] == ["generation: is even"]
        await found.until_serving(2)
        assert {(await found.ask())[1] for _ in range(8)} == {1}


async def test_a_plan_that_kills_every_worker_is_not_kept() -> None:
    """They come back with the one before."""
    async with crew("dies-staging-even", 2) as found:
        await found.adopt(1)
        await found.until_serving(2)
        with pytest.raises(Refused, match="no worker lived") as caught:
            await found.adopt(2)
        assert (caught.value.status, caught.value.may_recover) == (503, True)
        await found.until_serving(2)
        assert (await found.ask())[1] == 1


async def test_a_worker_that_hangs_while_staging_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The PUT is answered all the same."""
    monkeypatch.setattr(workline, "STAGE_S", 1.0)
    async with crew("hangs-staging-even") as found:
        await found.adopt(1)
        [pid] = await found.until_serving(1)
        with pytest.raises(Refused, match="no worker lived"):
            await found.adopt(2)

        async def replaced() -> bool:
            return found.pids() not in ([], [pid])

        await until(replaced)


@pytest.mark.parametrize("behaviour", ["hangs-staging-even", "spins-staging-even"])
async def test_a_silent_worker_is_killed_before_anybody_gives_it_up(
    behaviour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asleep or at work, it could have beaten."""
    monkeypatch.setattr(workline, "STAGE_S", 600.0)
    async with crew(behaviour) as found:
        await found.adopt(1)
        await found.until_serving(1)
        async with asyncio.timeout(60):
            with pytest.raises(Refused, match="no worker lived"):
                await found.adopt(2)
        await found.until_serving(1)


async def test_a_dead_worker_is_replaced_at_once() -> None:
    """F30; what clients do meanwhile waits on the socket."""
    async with crew() as found:
        await found.adopt(1)
        [pid] = await found.until_serving(1)
        await found.ask()
        os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        assert (await found.ask())[0] != pid
        assert time.monotonic() - began < 5
        assert found.workers.slots[0].restarts == 1
        assert (await found.ask())[1:] == [1, 0]


@pytest.mark.parametrize("behaviour", ["dies-at-start", "dies-serving"])
async def test_workers_that_keep_dying_are_started_ever_more_slowly(behaviour: str) -> None:
    """Back-off; the supervisor goes on, and leaves when it is told."""
    async with crew(behaviour) as found:

        async def some() -> bool:
            return found.workers.slots[0].restarts >= 3

        await until(some)
    assert found.workers.slots[0].restarts < 8


async def test_a_worker_that_does_not_leave_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the margin beyond lame duck and drain."""
    monkeypatch.setattr(workers, "DRAIN_MARGIN_S", 0.5)
    async with crew("hangs-leaving") as found:
        await found.adopt(1)
        await found.until_serving(1)


async def test_the_port_is_free_when_all_have_left() -> None:
    """Nothing holds the sockets any more."""
    async with crew(count=2) as found:
        await found.adopt(1)
        await found.until_serving(2)
    with pytest.raises(ConnectionRefusedError):
        await found.ask()
    for slot in listen_slots(f"127.0.0.1:{found.port}", 1, "x"):
        for sock in slot:
            sock.close()


async def test_a_machine_that_starts_no_process_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    """EAGAIN from fork: tried again with back-off."""
    real: Any = asyncio.create_subprocess_exec
    failures = [OSError(11, "Resource temporarily unavailable")] * 2

    async def starts(*arguments: Any, **options: Any) -> Any:
        if failures:
            raise failures.pop()
        return await real(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", starts)
    async with crew() as found:
        await found.adopt(1)
        await found.until_serving(1)
        assert found.workers.slots[0].restarts == 2
