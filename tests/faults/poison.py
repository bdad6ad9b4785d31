"""A version that does harm, and a mirror target that does: stable users must not notice. F35, F38."""

from __future__ import annotations

import asyncio
import signal
import time

from tests.faults.ledger import between, failures
from tests.faults.run import FLAT_MIB, Fault, Run
from tests.faults.stand import Stand, rss_mib
from tests.integration.programs import until

BREAKER = {"errorPercent": 50, "requests": 10, "window": "10s"}
POISONS = ("error", "hang", "garbage", "interims", "big head", "reset", "truncate")
DEADLINE_S = 2.0


async def poisonous_canary(run: Run) -> None:
    """F35: each poison until the proxy's own breaker trips, then a new plan; and a canary that keeps no connection."""
    check = run.check
    poisons = ("garbage", "big head") if run.scale.is_short else POISONS
    settings = {"timeouts": {"responseHead": f"{DEADLINE_S:g}s"}, "endpoints": {"longestEjection": "1s"}}
    async with run.stand(**settings) as stand:
        await stand.adopt(stand.plan(breaker=BREAKER))
        async with stand.load(upload_s=0, stream_s=0, sockets=0) as load:
            pids = await stand.workers()
            await asyncio.sleep(run.scale.pick(30, 2))
            memory, poisoned = rss_mib(*pids), time.monotonic()
            trips = {poison: await _trip(stand, poison, run.scale.pick(5, 0.5)) for poison in poisons}
            await stand.canary[0].behave(mode="storm")
            await asyncio.sleep(run.scale.pick(20, 1))
            ended, grown = time.monotonic(), rss_mib(*pids) - memory
        stable = [row for row in load.rows if row.arm != "canary"]
        check.says("requests of stable", len(stable))
        check.exactly("errors of stable", len(failures(stable)))
        run.steady("stable's", between(stable, 0, poisoned), between(stable, poisoned, ended), 0.1)
        for poison, (began, tripped, lifted) in trips.items():
            check.at_most(f"{poison}: trips after", tripped - began, 10, "s")
            # As clients sent them: the canary itself notes a request when it gets round to reading it.
            late = [row for row in load.rows if row.arm == "canary" and tripped + 0.2 < row.sent < lifted]
            check.exactly("sent later than 200 ms after, served by the canary", len(late))
        check.at_most("RSS grown by", grown, FLAT_MIB, "MiB")
        for row in failures(stable)[:3]:
            check.note(str(row))


async def _trip(stand: Stand, poison: str, calm_s: float) -> tuple[float, float, float]:
    """When the canary was poisoned, when the proxy had latched itself, and when a new plan lifted that."""
    canary = stand.canary[0]
    await canary.behave(mode=poison)
    began = time.monotonic()

    async def latch() -> object:
        return (await stand.proxy.state())["latch"]

    found = await until(latch, 30, every=0.02)
    assert isinstance(found, dict)
    tripped = time.monotonic()
    await asyncio.sleep(calm_s)
    await canary.behave(mode="ok")
    lifted = time.monotonic()
    await stand.adopt(stand.plan(breaker=BREAKER, lifts=[found["id"]]))
    await asyncio.sleep(calm_s)
    return began, tripped, lifted


async def bad_mirror(run: Run) -> None:
    """F38: everybody's requests are copied to a target that is slow, then hangs, then is dead."""
    check = run.check
    limits = {"mirrorRequests": 8, "mirrorPending": 8}
    async with run.stand(limits=limits) as stand:
        await stand.adopt(stand.plan(0))
        async with stand.load() as load:
            pids = await stand.workers()
            await asyncio.sleep(run.scale.pick(30, 2))
            mirror = {"arm": "canary", "percent": 100}
            await stand.adopt(stand.plan(0, mirror=mirror))
            await asyncio.sleep(run.scale.pick(5, 0.5))
            copied = await stand.metric("cohort_mirrored_total", result="sent")
            memory, began = rss_mib(*pids), time.monotonic()
            dropped = {}
            for trouble in ("slow", "hang", "dead"):
                before = await stand.metric("cohort_mirrored_total") - await _sent(stand)
                await _trouble(stand, trouble)
                await asyncio.sleep(run.scale.pick(22, 1.5))
                dropped[trouble] = await stand.metric("cohort_mirrored_total") - await _sent(stand) - before
            ended, grown = time.monotonic(), rss_mib(*pids) - memory
        run.no_loss(load.rows)
        check.at_least("copies while all is well", copied, 10)
        for trouble, count in dropped.items():
            check.at_least(f"{trouble}: copies dropped or failed, counted", count, 10)
        run.steady("primary's", between(load.rows, 0, began), between(load.rows, began, ended), 0.05)
        check.exactly("primary served by the target", sum(row.endpoint.startswith("canary") for row in load.rows))
        check.at_most("RSS grown by", grown, FLAT_MIB, "MiB")


async def _sent(stand: Stand) -> float:
    return await stand.metric("cohort_mirrored_total", result="sent")


async def _trouble(stand: Stand, trouble: str) -> None:
    target = stand.canary[0]
    if trouble == "slow":
        await target.behave(latency_s=2.0)
    elif trouble == "hang":
        await target.behave(mode="hang")
    else:
        await target.end(signal.SIGKILL)


FAULTS = {
    "F35": Fault(
        "poisonous canary: 5xx, hangs, garbage, 1xx flood, 100 MB of head, RST, truncation, connection storm",
        "stable: 0 errors, p99 steady; the proxy's breaker trips within its window, by itself",
        poisonous_canary,
    ),
    "F38": Fault(
        "mirror target slow, silent, dead",
        "0 lost, the primary's p99 steady, copies dropped and counted, memory flat",
        bad_mirror,
    ),
}
