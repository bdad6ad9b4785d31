"""Faults of names: an answer that changes, and a name server in trouble. F07, F08."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

from tests.faults.ledger import between, short
from tests.faults.run import Fault, Run
from tests.faults.stand import ServiceProcess, Stand
from tests.integration.programs import until
from tests.support.dns_stub import PROBLEMS, DnsStub, dns_stub

NAME = "stable.shop.test"
TTL_S = 1


@contextlib.asynccontextmanager
async def named(run: Run) -> AsyncIterator[tuple[Stand, DnsStub, list[ServiceProcess]]]:
    """A stand whose stable version is a name; two services may stand behind it, at one port of two addresses."""
    async with dns_stub() as stub, run.stand(resolver={"servers": [stub.server], "timeout": "1s"}) as stand:
        old = ServiceProcess("stable-old", run.folder, "127.0.0.2")
        new = ServiceProcess("stable-new", run.folder, "127.0.0.3", old.port)
        try:
            await old.start()
            await new.start()
            stub.answer(NAME, "127.0.0.2", ttl=TTL_S)
            plan = stand.plan()
            del plan["arms"][0]["endpoints"]
            plan["arms"][0]["dns"] = {"host": NAME, "port": old.port}
            await stand.adopt(plan)
            yield stand, stub, [old, new]
        finally:
            await old.close()
            await new.close()


async def changed_answer(run: Run) -> None:
    """F07: the name moves from one address to another; the TTL is 1 s."""
    check = run.check
    async with named(run) as (stand, stub, (old, new)):
        async with stand.load() as load:
            await asyncio.sleep(run.scale.pick(40, 1.5))
            changed = time.monotonic()
            stub.answer(NAME, "127.0.0.3", ttl=TTL_S)
            await asyncio.sleep(run.scale.pick(61, 3.5))
        run.no_loss(load.rows)
        times = {
            service.name: [float(line[0]) for line in service.log if line[1] != "CONNECT"] for service in (old, new)
        }
        check.at_least("requests at the old address before", sum(at < changed for at in times["stable-old"]), 50)
        check.exactly("at the new one before", sum(at < changed for at in times["stable-new"]))
        check.at_most("first at the new one after", min(times["stable-new"]) - changed, TTL_S + 1, "s")
        check.at_most("last at the old one after", max(times["stable-old"]) - changed, TTL_S + 1, "s")
        left = (await old.behave())["open"]
        check.exactly("connections to the old one in the end", left)


async def name_server_in_trouble(run: Run) -> None:
    """F08: each kind of trouble in turn, and answers that take 5 s."""
    check = run.check
    kinds = ["SERVFAIL", "5 s delay"] if run.scale.is_short else [*PROBLEMS, "5 s delay"]
    async with named(run) as (stand, stub, _):
        async with stand.load() as load:
            await asyncio.sleep(run.scale.pick(10, 1))
            began = time.monotonic()
            for kind in kinds:
                delay_s, problem = (5.0, "") if kind == "5 s delay" else (0.0, kind)
                stub.answer(NAME, "127.0.0.2", ttl=TTL_S, delay_s=delay_s, problem=problem)
                await asyncio.sleep(run.scale.pick(13, 1.2))
            failures = await stand.metric("cohort_dns_failures_total", arm="stable")
            age = await stand.metric("cohort_dns_age_seconds", arm="stable")
            ended = time.monotonic()
            stub.answer(NAME, "127.0.0.2", ttl=TTL_S)

            async def has_recovered() -> bool:
                return await stand.metric("cohort_dns_age_seconds", arm="stable") < age

            await until(has_recovered, 40)
            check.says("recovered after", time.monotonic() - ended, "s")
        run.no_loss(load.rows)
        check.says("kinds of trouble", ", ".join(kinds))
        check.at_least("cohort_dns_failures_total", failures, run.scale.pick(5, 1))  # with back-off up to 30 s
        check.true("told in the log", "its 1 addresses stay" in stand.proxy.program.log)
        during = short(between(load.rows, began, ended))
        run.quick("", during, 50, between(load.rows, 0, began))


FAULTS = {
    "F07": Fault(
        "DNS answer changes",
        "new connections at the new address within TTL + 1 s, none at the old one after that; 0 lost",
        changed_answer,
    ),
    "F08": Fault(
        "name server in trouble",
        "the last good address stays, counted and told; no request waits for a name; 0 lost",
        name_server_in_trouble,
    ),
}
