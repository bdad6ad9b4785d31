"""Faults of the API server and of those who decide, as a controller in a cluster meets them. F09, F12, F16.

The API server is a fake one, for it is what misbehaves; proxies and controllers are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from tests.faults.ledger import Row
from tests.faults.replicas import Controller, Replicas, replicas
from tests.faults.run import Fault, Run
from tests.faults.stand import ServiceProcess
from tests.faults.steering import Trace
from tests.integration.programs import RealProxy, until
from tests.support.scripted_api import Object

FOLLOWED = ("WATCH", "GET")
LEASES = "/leases/"
COLLECTIONS = 6  # that a controller watches
WINDOW_S = 0.9  # requests that are sent a second apart may arrive a little closer
TROUBLES = (("killed", None), ("429", 429), ("500", 500), ("hangs", -1))
WEIGHTS = [str(weight) for weight in range(2, 82, 2)]


def steps(weights: Sequence[str], pause: str) -> list[Object]:
    """These weights, a pause after each and an endless one at the end."""
    made: list[Object] = []
    for weight in weights:
        made += [{"setWeight": weight}, {"pause": {"duration": pause}}]
    made[-1] = {"pause": {}}
    return made


@contextlib.asynccontextmanager
async def running(*works: Any) -> AsyncIterator[None]:
    """Something that goes on while the block runs."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# F12


def fail(replicas: Replicas, code: int, only: str = "") -> None:
    """From now on this answer to every request, or to those of one method."""
    replicas.api.fault = lambda method, path: code if only in ("", method) else None


def heal(replicas: Replicas) -> None:
    replicas.api.fault = lambda method, path: None
    replicas.api.echo = False


def most(replicas: Replicas, begin: float, end: float) -> int:
    """The most lists and watches that came in a second, of the one controller there is."""
    asked = [
        one.at
        for one in replicas.api.asked
        if begin <= one.at <= end and one.method in FOLLOWED and LEASES not in one.path
    ]
    return max((sum(at <= other < at + WINDOW_S for other in asked) for at in asked), default=0)


async def server_in_trouble(run: Run) -> None:
    """F12: each kind of trouble in turn in the middle of a rollout, then an abort while the server is away."""
    check, seconds = run.check, run.scale.pick(20, 2.5)
    async with run.stand(stable=1, proxies=1, workers=1) as stand:
        pause = f"{seconds / 2:g}s"
        async with replicas(run.folder, stand, steps(WEIGHTS, pause)) as there:
            trace = Trace(stand.proxies)
            async with running(trace.watch()), stand.load() as load:
                await there.wait_for(lambda status: status["weight"]["programmed"] == "10.00")
                for name, code in TROUBLES[: 2 if run.scale.is_short else None]:
                    await _trouble(run, there, trace, name, code, seconds)
                await _events_in_trouble(run, there)
                await _abort_meanwhile(run, there, seconds)
        run.no_loss(load.rows)
        seen = [weight for weight in trace.seen[0] if weight]
        wanted = [int(weight) * 100 for weight in WEIGHTS]
        check.true("weights as decided, with pauses", seen == wanted[: len(seen)])
        check.true("no exception told", "Traceback" not in there.controllers[0].program.log)
        if not check.holds:
            check.note(f"{seen}; {there.controllers[0].program.log[-3000:]}")


async def _trouble(run: Run, there: Replicas, trace: Trace, name: str, code: int | None, seconds: float) -> None:
    """One kind: weights stay, and on return nobody storms."""
    if code is None:
        seconds = run.scale.pick(60, 4)
        await there.stop_server()
    else:
        fail(there, code)
        await there.api.cut()
    await asyncio.sleep(0.5)
    before = trace.seen[0][-1]
    await asyncio.sleep(seconds)
    run.check.exactly(f"{name}: weight raised meanwhile", trace.seen[0][-1] - before)
    heal(there)
    if code is None:
        await there.start_server()
    back = time.monotonic()
    await there.wait_for(lambda status: float(status["weight"]["programmed"]) * 100 > before, 90)
    await until(lambda: _are_back(there, back), 60)
    most_asked = most(there, back, time.monotonic())
    run.check.at_most(f"{name}: lists and watches within a second on return", most_asked, run.scale.pick(1, 2))


async def _are_back(there: Replicas, since: float) -> bool:
    return len({one.path for one in there.api.asked if one.at >= since and one.method == "WATCH"}) >= COLLECTIONS


async def _events_in_trouble(run: Run, there: Replicas) -> None:
    """Everything twice and in the wrong order; then all of it forgotten."""
    there.api.echo = True
    before = there.status["weight"]["programmed"]
    await there.wait_for(lambda status: status["weight"]["programmed"] != before, 90)
    await there.api.forget()
    before = there.status["weight"]["programmed"]
    await there.wait_for(lambda status: status["weight"]["programmed"] != before, 90)
    heal(there)
    run.check.true("goes on with events twice and in the wrong order, and after 410", holds=True)


async def _abort_meanwhile(run: Run, there: Replicas, seconds: float) -> None:
    await there.stop_server()
    await asyncio.sleep(seconds / 4)
    await there.stand.proxy.abort()
    latched = time.monotonic()
    await asyncio.sleep(seconds / 2)
    await there.start_server()
    status = await there.wait_for(lambda status: status["phase"] == "Aborted", 90)
    run.check.exactly("the abort meanwhile is on record as", status["abort"]["reason"], "Latched")
    latch = (await there.stand.proxy.state())["latch"]
    run.check.true("and stands", latch and latch["id"] == status["abort"]["id"])
    run.check.says("on record after", time.monotonic() - latched, "s")


# F16


async def two_leaders(run: Run) -> None:
    """F16: the holder is stopped while its write is on the way, another takes over, and then the write arrives."""
    check, times = run.check, run.scale.pick(10, 2)
    async with run.stand(stable=1, proxies=2, workers=1) as stand:
        weights = [str(number) for number in (range(10, 100, 10) if run.scale.is_short else range(1, 50))]
        async with replicas(run.folder, stand, steps(weights, f"{run.scale.pick(2.5, 1):g}s")) as there:
            trace = Trace(stand.proxies)
            async with running(trace.watch()), stand.load() as load:
                stale = 0
                while stale < times:
                    stale += await _frozen_while_it_writes(there)
                    # A quiet time, so that the one that was thawed may do what it wants.
                    await asyncio.sleep(run.scale.pick(3, 1))
                await there.wait_for(lambda status: status["phase"] == "Paused" and _is_last(status), 200)
        run.no_loss(load.rows)
        check.at_least("writes of a former holder that arrived", stale, times)
        check.at_least("refused by the fence", there.api.refused[422], times)
        check.at_least("terms", there.status["leader"]["term"], times + 1)
        wanted = [int(weight) * 100 for weight in weights]
        for number, seen in enumerate(trace.seen):
            weights_seen = [weight for weight in seen if weight]
            check.true(f"proxy {number}: the uninterrupted trace", weights_seen == wanted)
            if weights_seen != wanted:
                check.note(f"proxy {number}: {weights_seen}; {there.controllers[number].program.log[-2000:]}")


def _is_last(status: Object) -> bool:
    return bool(status["step"]["index"] + 1 == status["step"]["total"])


async def _frozen_while_it_writes(there: Replicas) -> int:
    """One time; how many writes of another generation arrived late."""
    held, over = asyncio.Event(), asyncio.Event()
    frozen: list[Controller] = []

    async def hold(status: Object) -> None:
        now = there.status
        is_news = (status.get("plan") or {}).get("generation", 0) > now["plan"]["generation"]
        if frozen or not is_news or status["leader"] != now["leader"]:
            return
        frozen.append(there.holder())
        frozen[0].signal(signal.SIGSTOP)
        held.set()
        await over.wait()

    there.api.before_write = hold
    try:
        await asyncio.wait_for(held.wait(), 60)
        before, generation = there.status["leader"], there.status["plan"]["generation"]
        # The next one has taken over, and has decided something itself.
        await there.wait_for(lambda status: status["leader"] != before and status["plan"]["generation"] > generation)
    finally:
        refused = there.api.refused[422]
        over.set()
        there.api.before_write = None
        for controller in frozen:
            controller.signal(signal.SIGCONT)
    await asyncio.sleep(0.2)
    return there.api.refused[422] - refused


# F09


class Endpoints:
    """Which endpoints a proxy had when, as looks at its plan saw them.

    Attributes:
        looks: Time and ports of stable's endpoints, at each look.
    """

    def __init__(self, proxy: RealProxy) -> None:
        self.looks: list[tuple[float, frozenset[int]]] = []
        self._proxy = proxy

    async def watch(self) -> None:
        while True:
            plan = await self._proxy.get("/plan")
            ports = frozenset(one["port"] for one in plan["arms"][0]["endpoints"])
            self.looks.append((time.monotonic(), ports))
            await asyncio.sleep(0.01)

    def absences(self, port: int) -> list[tuple[float, float]]:
        """From the first look without an endpoint to the last one before it is back."""
        found, begun, last = [], 0.0, 0.0
        for at, ports in self.looks:
            if port in ports:
                found += [(begun, last)] if begun else []
                begun = 0.0
            else:
                begun, last = begun or at, at
        return found


async def churn(run: Run) -> None:
    """F09: an endpoint leaves or comes every 200 ms."""
    check, late_s = run.check, run.scale.pick(0.1, 0.4)
    async with run.stand(stable=6, proxies=1, workers=2) as stand:
        async with replicas(run.folder, stand, steps(["20"], "1s")) as there:
            moving = stand.stable[1:]
            for service in moving[:3]:
                await there.shut(service)
            endpoints = Endpoints(stand.proxy)
            async with running(endpoints.watch()), stand.load() as load:
                changes = await _churn(there, moving, run.scale.pick(600, 12))
        run.no_loss(load.rows)
        check.says("changes", changes)
        absences = [(service, *times) for service in moving for times in endpoints.absences(service.port)]
        check.at_least("endpoints seen to leave and come back", len(absences), changes * run.scale.pick(0.4, 0.2))
        late = [at - begin for service, begin, end in absences for at in service.times if begin + late_s < at < end]
        check.exactly(f"requests begun at a removed endpoint later than {late_s * 1000:.0f} ms", len(late))
        check.at_least("long ones whole", len(_long(load.rows)), 1)


def _long(rows: Sequence[Row]) -> list[Row]:
    """Uploads and streams, which outlast many changes."""
    return [row for row in rows if row.kind in ("upload", "stream") and row.outcome == "ok"]


async def _churn(there: Replicas, moving: Sequence[ServiceProcess], seconds: float) -> int:
    """One leaves, one comes, in turn, so that each is away for a while; how many changes there were."""
    begun, changes = time.monotonic(), 0
    while time.monotonic() < begun + seconds:
        place = changes // 2
        if changes % 2:
            await there.shut(moving[(place + 3) % len(moving)])
        else:
            await there.open(moving[place % len(moving)])
        changes += 1
        await asyncio.sleep(max(0.0, begun + changes * 0.2 - time.monotonic()))
    return changes


FAULTS = {
    "F09": Fault(
        "EndpointSlices that change every 200 ms",
        "requests under way finish; none begins at a removed endpoint later than 100 ms after that is applied; 0 lost",
        churn,
    ),
    "F12": Fault(
        "API server killed, answers 500 and 429, hangs, forgets (410), sends events twice and in the wrong order",
        "weights stay, then go on as decided; an abort meanwhile stands; one list or watch a second on return; 0 lost",
        server_in_trouble,
    ),
    "F16": Fault(
        "two leaders: the holder stopped past its Lease with a write on the way",
        "the write is refused; no weight ever goes back; 0 lost",
        two_leaders,
    ),
}
