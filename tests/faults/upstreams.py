"""Faults of services: they die, hang, lie, are slow or are not there. F01 to F10, F35 to F38."""

from __future__ import annotations

import asyncio
import time

from tests.faults.ledger import between, failures, only, p99, repeated
from tests.faults.run import Fault, Run


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
        sent = [line[2] for line in stand.canary[0].log if line[1] != "CONNECT"]
        check.exactly("repeated requests", len(repeated(sent)))
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
        check.at_most("p99 of the 503", p99(refused) * 1000, 50, "ms")
        last = max((row.sent for row in failures(load.rows)), default=back)
        check.at_most("recovery", max(0.0, last - back) * 1000, 200, "ms")


FAULTS = {
    "F03": Fault(
        "upstream RST in mid body",
        "truncation visible to every client, never a short body taken for a whole one, no retry, counted by version",
        reset_in_body,
    ),
    "F10": Fault(
        "endpoints empty, then back", "503 with Retry-After at once; recovery within 200 ms, no restart", no_endpoints
    ),
}
