"""Faults of services: they die, hang, lie, are slow or are not there. F01 to F06, F10, F36, F37."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence

from tests.faults.ledger import Row, between, failures, only, repeated, short
from tests.faults.run import FLAT_MIB, Fault, Run
from tests.faults.stand import Blackhole, Stand, rss_mib
from tests.integration.programs import until

EVENTUALLY_S = 40.0  # longer than the longest ejection


async def killed(run: Run) -> None:
    """F01: one of three services, while each answer takes it 50 ms; started again, it comes back."""
    check = run.check
    kills: list[float] = []
    ejected = float("inf")
    async with run.stand(endpoints={"longestEjection": "2s"}) as stand:
        victim = stand.stable[0]
        for service in stand.stable:
            await service.behave(latency_s=0.05)
        async with stand.load() as load:
            for _ in range(round(run.scale.pick(8, 1))):
                await asyncio.sleep(run.scale.pick(2, 1))
                kills.append(time.monotonic())
                await victim.end(signal.SIGKILL)
                await asyncio.sleep(run.scale.pick(5, 1.5))
                ejected = min(ejected, await stand.metric("cohort_ejected_endpoints", arm="stable"))
                await victim.start()
                started = time.monotonic()
                await victim.behave(latency_s=0.05)
                await _serves_again(victim.name, stand, started)
                await asyncio.sleep(run.scale.pick(3, 0))
        lost = failures(load.rows)
        sent = set(victim.nonces)
        check.says("requests", len(load.rows))
        check.says("kills", len(kills))
        check.at_least("workers that ejected it, of two", ejected, 1)
        check.says("lost", len(lost))
        check.exactly("of them GET", sum(row.kind in ("get", "new") for row in lost))
        # One may be in a kernel's queue when the process dies, before that has noted it.
        stray = [row for row in lost if row.nonce not in sent and not _near(row, kills, 0.05)]
        check.exactly("lost that were not in flight on it", len(stray))
        check.exactly("lost later than 1 s", sum(not _near(row, kills, 1) for row in lost))
        check.exactly("POST sent twice", len(repeated(stand.posts())))
        for row in lost[:3]:
            check.note(str(row))


def _near(row: Row, moments: Sequence[float], within_s: float) -> bool:
    """Under way at one of these moments, or begun shortly after."""
    return any(row.sent <= moment + within_s and row.done >= moment for moment in moments)


async def _serves_again(name: str, stand: Stand, since: float) -> float:
    """Wait until a service has got requests again; returns after how many seconds."""
    service = next(service for service in stand.services if service.name == name)

    async def has_new() -> bool:
        return any(at > since for at in service.times)

    await until(has_new, EVENTUALLY_S)
    return time.monotonic() - since


async def stopped(run: Run) -> None:
    """F02: one of three services stands still: connections are made, nothing is answered. The deadline is 1 s.

    The least loaded is chosen, so that a silent service holds no more requests than the others have under way: with
    100 ms for each answer some four a worker, of which three in a row without an answer eject it.
    """
    check = run.check
    deadline_s = 1.0
    rules = {"failures": 3, "longestEjection": "2s"}
    async with run.stand(timeouts={"responseHead": f"{deadline_s:g}s"}, endpoints=rules) as stand:
        victim = stand.stable[0]
        for service in stand.stable:
            await service.behave(latency_s=0.1)
        async with stand.load(rate=300) as load:
            await asyncio.sleep(run.scale.pick(20, 2))
            began = time.monotonic()
            victim.signal(signal.SIGSTOP)
            try:
                await until(lambda: _are_ejected(stand, 2), 10, every=0.02)
                ejected_s = time.monotonic() - began
                await asyncio.sleep(run.scale.pick(12, 2))
            finally:
                victim.signal(signal.SIGCONT)
            continued = time.monotonic()
            rejoined_s = await _serves_again(victim.name, stand, continued + 0.5)
            await asyncio.sleep(run.scale.after_s)
        run.losses(load.rows, began, continued + deadline_s + 1, only("504"))
        late = [row for row in short(failures(load.rows)) if row.what == "504" and row.latency > deadline_s + 0.8]
        check.exactly("504 later than the deadline", len(late))
        for row in late[:2]:
            check.note(f"{row.sent - began:.2f} s after: {row}")
        check.at_most("ejected by both workers after", ejected_s, 2 * deadline_s, "s")
        check.says("rejoined after", rejoined_s + 0.5, "s")
        others = [row for row in load.rows if row.endpoint != victim.name]
        run.steady("others'", between(others, 0, began), between(others, began, continued), 0.2)
        check.exactly("POST sent twice", len(repeated(stand.posts())))


async def _are_ejected(stand: Stand, count: int) -> bool:
    return await stand.metric("cohort_ejected_endpoints", arm="stable") >= count


async def slow_canary(run: Run) -> None:
    """F04: the canary takes 2 s more; each worker gives an arm 10 requests at once and 5 places to wait."""
    check = run.check
    async with run.stand(limits={"armRequests": 10, "armPending": 5}) as stand:
        async with stand.load(upload_s=0, stream_s=0, sockets=0) as load:
            pids = await stand.workers()
            await asyncio.sleep(run.scale.pick(30, 2))
            memory, began = rss_mib(*pids), time.monotonic()
            await stand.canary[0].behave(latency_s=2.0)
            pending = 0.0
            while time.monotonic() < began + run.scale.pick(60, 4):
                pending = max(pending, await stand.metric("cohort_pending_requests", arm="canary"))
                await asyncio.sleep(0.25)
            grown, ended = rss_mib(*pids) - memory, time.monotonic()
            await stand.canary[0].behave()
            await stand.canary[0].behave(mode="ok")
            await asyncio.sleep(run.scale.after_s)
        stable = [row for row in load.rows if row.arm == "stable"]
        check.exactly("lost of stable", len(failures(stable)))
        run.steady("stable's", between(stable, 0, began), between(stable, began + 0.2, ended), 0.1)
        canary = [row for row in load.rows if row.arm != "stable"]
        run.losses(canary, began, ended + 3, only("503"), "canary: other than 503")
        check.at_most("pending of the canary", pending, 2 * (10 + 5))
        check.at_least("503 of the canary", sum(row.what == "503" for row in canary), 1)
        check.at_most("RSS grown by", grown, FLAT_MIB, "MiB")


async def blackhole(run: Run) -> None:
    """F05: a fourth endpoint of stable whose listener's queue is full; the connect deadline is 1 s."""
    check = run.check
    hole = Blackhole()
    try:
        async with run.stand(endpoints={"slowStart": "0s"}) as stand, stand.load() as load:
            await asyncio.sleep(run.scale.pick(20, 1))
            plan = stand.plan()
            plan["arms"][0]["endpoints"].append({"address": "127.0.0.1", "port": hole.port})
            began = time.monotonic()
            await stand.adopt(plan)
            await asyncio.sleep(run.scale.pick(81, 3))
            met = await stand.metric("cohort_upstream_failures_total", arm="stable", kind="connect")
    finally:
        hole.close()
    run.no_loss(load.rows)
    slow = [row for row in short(between(load.rows, began)) if row.latency > 0.7]
    check.at_least("requests that met it", met, 1)
    check.at_most("added latency at most", max((row.latency for row in slow), default=0.0), run.scale.pick(1.5, 3), "s")
    check.exactly("slow ones later than 1.5 s", sum(row.intended > began + 1.5 for row in slow))


async def closed_ports(run: Run) -> None:
    """F06: the canary's only endpoint refuses connections; first with the default fallback, then without."""
    check = run.check
    async with run.stand() as stand:
        await stand.canary[0].end(signal.SIGKILL)
        async with stand.load() as load:
            await asyncio.sleep(run.scale.pick(50, 2))
            turned = time.monotonic()
            await stand.adopt(stand.plan(onArmDown="Error"))
            turned_end = time.monotonic()
            await asyncio.sleep(run.scale.pick(50, 2))
            back = time.monotonic()
            await stand.canary[0].start()
            again_s = await _serves_again("canary-0", stand, back)
            await asyncio.sleep(1)
        first = [row for row in load.rows if row.done < turned]
        fallen = [row for row in first if row.reason == "fallback"]
        check.exactly("lost with the fallback", len(failures(first)))
        check.at_least("users of the canary given stable", len(fallen), 10)
        run.quick("their", fallen, 50, [row for row in first if row.reason != "fallback"])
        then = [row for row in load.rows if turned_end < row.intended and row.done < back]
        refused = failures(then)
        check.exactly("lost of stable", sum(row.arm == "stable" for row in refused))
        check.exactly("codes without it", ",".join(sorted({row.what for row in refused})), "502")
        run.quick("of those", refused, 50, [row for row in then if row.outcome == "ok"])
        check.at_most("serves after its return within", again_s, 5, "s")


async def all_failing(run: Run) -> None:
    """F36: every service resets each request."""
    check = run.check
    async with run.stand() as stand:
        async with stand.load(rate=300, upload_s=0, stream_s=0, sockets=0) as load:
            await asyncio.sleep(run.scale.pick(10, 1))
            began = time.monotonic()
            for service in stand.services:
                await service.behave(mode="reset")
            await asyncio.sleep(run.scale.pick(60, 4))
            ended = time.monotonic()
            for service in stand.services:
                await service.behave(mode="ok")
            back = time.monotonic()
            await asyncio.sleep(run.scale.after_s)
        run.losses(load.rows, began, back + 1, only("502", "503"))
        asked = between(load.rows, began - 10, ended)  # the budget's window, which those before have filled
        inside = {row.nonce for row in asked}
        sent = sum(nonce in inside for service in stand.services for nonce in service.nonces)
        check.at_least("client requests", len(asked), 100)
        spare = 2 * 10 / len(asked)  # each of two workers may always repeat ten within 10 s
        check.at_most("upstream requests for each", round(sent / len(asked), 4), round(1.1 + spare, 4))
        check.exactly("POST sent twice", len(repeated(stand.posts())))


async def restart_together(run: Run) -> None:
    """F37: all services of stable are killed and come back at once; each worker may open 20 connections a second."""
    check = run.check
    cap, workers = 20, 2
    rules = {"longestEjection": "1s"}
    async with run.stand(limits={"armConnectsPerSecond": cap}, endpoints=rules, workers=workers) as stand:
        async with stand.load(upload_s=0, stream_s=0, sockets=0, connections=200) as load:
            for service in stand.stable:
                await service.behave(latency_s=0.2)
            await asyncio.sleep(run.scale.pick(15, 2))
            down = time.monotonic()
            await asyncio.gather(*(service.end(signal.SIGKILL) for service in stand.stable))
            await asyncio.sleep(run.scale.pick(5, 1))
            await asyncio.gather(*(service.start() for service in stand.stable))
            up = time.monotonic()
            await asyncio.gather(*(service.behave(latency_s=0.2) for service in stand.stable))
            await asyncio.sleep(run.scale.pick(30, 5))
        opened = sorted(at for service in stand.stable for at in service.connects if at > up - 1)
        most = max((sum(start <= at < start + 1 for at in opened) for start in opened), default=0)
        probes = workers * len(stand.stable)
        check.at_least("connections opened anew", len(opened), 10)
        check.at_most("within any second", most, workers * cap * 1.25 + probes)
        late = [row for row in failures(load.rows) if row.sent > up + 4]
        check.exactly("lost later than 4 s after their return", len(late))
        check.exactly("lost before", len(failures(row for row in load.rows if row.done < down)))


async def reset_in_body(run: Run) -> None:
    """F03: a third of the canary's answers end in RST after 64 KiB of 200 kB, by each framing in turn."""
    check = run.check
    async with run.stand(stable=1) as stand:
        async with stand.load() as load:
            await asyncio.sleep(1)
            await stand.canary[0].behave(mode="reset in body", share=0.3)
            began = time.monotonic()
            await asyncio.sleep(run.scale.pick(60, 3))
            await stand.canary[0].behave(mode="ok")
            ended = time.monotonic()
            await asyncio.sleep(1)
        cut = [row for row in load.rows if row.outcome in ("truncated", "reset")]
        run.losses(load.rows, began, ended + 1, only("truncated", "reset"))
        check.exactly("short bodies taken for whole ones", sum("short body" in row.detail for row in load.rows))
        check.at_least("clients that saw it", len(cut), run.scale.pick(100, 5))
        check.exactly("of stable among them", sum(row.arm == "stable" for row in cut))
        check.exactly("repeated requests", len(repeated(stand.canary[0].nonces)))
        counted = await stand.metric("cohort_upstream_failures_total", arm="canary", kind="truncated")
        check.exactly("counted for the canary", int(counted), len(cut))


async def no_endpoints(run: Run) -> None:
    """F10: both versions lose all endpoints, then get them back."""
    check = run.check
    async with run.stand() as stand:
        async with stand.load() as load:
            await asyncio.sleep(1)
            plan = stand.plan()
            for arm in plan["arms"]:
                arm["endpoints"] = []
            began = time.monotonic()
            await stand.adopt(plan)
            empty = time.monotonic()
            await asyncio.sleep(run.scale.pick(10, 1))
            back = time.monotonic()
            await stand.adopt(stand.plan())
            await asyncio.sleep(run.scale.after_s)
        run.losses(load.rows, began, back + 0.2, only("503"))
        during = [row for row in between(load.rows, empty, back) if row.kind in ("get", "new", "post")]
        refused = failures(during)
        check.exactly("503 while there are none", len(refused), len(during))
        check.true("all with Retry-After", all(row.detail == "retry after 1" for row in refused))
        run.quick("of the 503", refused, 50, between(load.rows, 0, began))
        last = max((row.sent for row in failures(load.rows)), default=back)
        check.at_most("recovery", max(0.0, last - back) * 1000, 200, "ms")


FAULTS = {
    "F01": Fault(
        "one of three services SIGKILL",
        "GET in flight goes elsewhere, a sent POST gets 502; losses at most those in flight on it, none after 1 s; "
        "no POST twice; ejected",
        killed,
    ),
    "F02": Fault(
        "one of three services SIGSTOP, then SIGCONT",
        "504 at the deadline, ejected within two; the others' p99 steady; rejoins by a probe",
        stopped,
    ),
    "F03": Fault(
        "upstream RST in mid body",
        "truncation visible to every client, never a short body taken for a whole one, no retry, counted by version",
        reset_in_body,
    ),
    "F04": Fault(
        "2 s more latency on the canary",
        "pending bounded, then 503; stable unharmed; memory flat",
        slow_canary,
    ),
    "F05": Fault(
        "connect blackhole",
        "the connect deadline once, then the next endpoint and ejection; 0 lost",
        blackhole,
    ),
    "F06": Fault(
        "ports of a version closed",
        "stable for its users within 50 ms, or an error as fast; stable's share intact",
        closed_ports,
    ),
    "F10": Fault(
        "endpoints empty, then back", "503 with Retry-After at once; recovery within 200 ms, no restart", no_endpoints
    ),
    "F36": Fault("all services failing", "upstream requests at most 1.1 for each client request", all_failing),
    "F37": Fault(
        "services restart together", "new connections a second at most the limit, all served again", restart_together
    ),
}
