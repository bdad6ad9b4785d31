"""Names followed with a scripted resolver: what the workers are told, and when."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.config import ResolverSettings
from proxy.names import V4, V6, Failed, Found, Outcome
from proxy.net import discovery
from proxy.net.checks import Target
from proxy.net.discovery import Discovery
from proxy.plan import Plan
from tests.support.plans import arms
from tests.support.plans import plan as plan_of

NXDOMAIN: dict[int, Outcome] = {V4: Failed("nxdomain", "NXDOMAIN"), V6: Failed("nxdomain", "NXDOMAIN")}
EMPTY: dict[int, Outcome] = {V4: Found((), 1.0), V6: Found((), 1.0)}


def found(*addresses: str) -> dict[int, Outcome]:
    return {V4: Found(addresses, 1.0), V6: Found((), 1.0)}


class Script:
    """A resolver that says what it is told, in steps of a hundredth of a second."""

    def __init__(self) -> None:
        self.says: dict[str, dict[int, Outcome]] = {}
        self.asked: list[str] = []
        self.is_silent = False

    async def ask(self, host: str) -> dict[int, Outcome]:
        self.asked.append(host)
        await asyncio.sleep(3600 if self.is_silent else 0)
        if host == "bug.example":
            raise ZeroDivisionError
        return self.says.get(host, NXDOMAIN)


class Sick:
    """A probe that finds fault with one address."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...

    async def ask(self, target: Target) -> str:
        return "status 500" if target.address == "192.0.2.1" else ""


class Desk:
    """A discovery among fakes.

    Attributes:
        told: Every snapshot.
    """

    def __init__(self) -> None:
        self.script = Script()
        self.told: list[Any] = []
        self.now = 100.0
        self.discovery = Discovery(
            self.script,
            Sick(),
            ResolverSettings(),
            lambda text: self.told.append(json.loads(text)),
            lambda: self.now,
            lambda: 0.0,
        )

    async def adopt(self, plan: Plan) -> None:
        await self.discovery.prepare(plan)
        self.discovery.settle(plan)

    async def until_asked(self, times: int) -> None:
        async with asyncio.timeout(30):
            while len(self.script.asked) < times:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(discovery, "wait_s", lambda known, bounds, chance: 0.01)
    desk = Desk()
    running = asyncio.create_task(desk.discovery.run())
    yield desk
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


def named(stable: str | None, canary: str | None = None) -> Plan:
    """A plan whose arms are names at port 80; without a name an arm has one address."""
    listed = arms(2_500)
    for arm, host in zip(listed, (stable, canary), strict=True):
        arm |= {"dns": {"host": host, "port": 80}} if host else {"endpoints": [{"address": "192.0.2.9", "port": 80}]}
    return plan_of(arms=listed)


async def test_a_plan_waits_for_its_names_and_the_workers_hear_of_them_first(desk: Desk) -> None:
    """A change from addresses to a name loses no request."""
    desk.script.says["a.example"] = found("192.0.2.1")
    await desk.discovery.prepare(named("a.example"))
    assert desk.told[-1]["names"] == {"a.example": ["192.0.2.1"]}


async def test_a_plan_waits_a_while_only(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """F39: a name server that is not there keeps no proxy from its start."""
    monkeypatch.setattr(discovery, "PREPARE_S", 0.02)
    desk.script.is_silent = True
    async with asyncio.timeout(5):
        await desk.adopt(named("a.example"))
    assert desk.told[-1]["names"] == {"a.example": []}
    assert desk.discovery.waits_for(named("a.example")) == "a.example"


async def test_a_name_that_fails_at_first_has_no_addresses_until_it_is_answered(desk: Desk) -> None:
    await desk.adopt(plan := named("a.example"))
    assert desk.discovery.waits_for(plan) == "a.example"
    desk.script.says["a.example"] = found("192.0.2.1")
    await desk.until_asked(len(desk.script.asked) + 2)
    assert desk.told[-1]["names"] == {"a.example": ["192.0.2.1"]}
    assert desk.discovery.waits_for(plan) is None


async def test_only_the_first_arm_keeps_a_proxy_from_being_ready(desk: Desk) -> None:
    """A canary without addresses is the canary's trouble."""
    await desk.adopt(plan := named(None, "gone.example"))
    assert desk.discovery.waits_for(plan) is None


async def test_a_changed_answer_is_told_whole(desk: Desk) -> None:
    desk.script.says |= {"a.example": found("192.0.2.1"), "b.example": found("192.0.2.2")}
    await desk.adopt(named("a.example", "b.example"))
    desk.script.says["b.example"] = found("192.0.2.3", "192.0.2.4")
    await desk.until_asked(len(desk.script.asked) + 4)
    assert desk.told[-1]["names"] == {"a.example": ["192.0.2.1"], "b.example": ["192.0.2.3", "192.0.2.4"]}


async def test_a_successor_knows_what_was_known_before_it_asks() -> None:
    """A reload while no name server answers and a check fails: addresses and verdicts stay."""
    plan = named("a.example")
    known: dict[str, Any] = {
        "names": {"a.example": [[[4, ["192.0.2.7"]]], 90.0, 5.0]},
        "failures": [["stable", "servfail", 3]],
    }
    heir = Desk()
    heir.script.is_silent = True
    running = asyncio.create_task(heir.discovery.run())
    await heir.discovery.resume(plan, json.loads(json.dumps(known | {"unhealthy": [["192.0.2.7", 80]]})))
    assert heir.told[-1]["names"] == {"a.example": ["192.0.2.7"]}
    assert heir.discovery.waits_for(plan) is None
    assert heir.discovery.found(plan).dns_failures[("stable", "servfail")] == 3
    assert json.loads(json.dumps(heir.discovery.known()))["names"] == known["names"]
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("trouble", [NXDOMAIN, EMPTY], ids=["nxdomain", "empty"])
async def test_trouble_keeps_the_last_good_answer_and_is_told_once(
    desk: Desk, caplog: pytest.LogCaptureFixture, trouble: dict[int, Outcome]
) -> None:
    """F08: nothing changes for the workers; one line in the log when it begins, one when it ends."""
    desk.script.says["a.example"] = found("192.0.2.1")
    await desk.adopt(plan := named("a.example"))
    said = len(desk.told)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        desk.script.says["a.example"] = trouble
        await desk.until_asked(len(desk.script.asked) + 5)
        desk.script.says["a.example"] = found("192.0.2.1")
        await desk.until_asked(len(desk.script.asked) + 3)
    assert len(desk.told) == said
    kind = "nxdomain" if trouble is NXDOMAIN else "empty"
    assert len(caplog.messages) == 2
    assert f"({kind}); its 1 addresses stay" in caplog.messages[0]
    assert caplog.messages[1] == "a.example: answered again"
    assert desk.discovery.found(plan).dns_failures[("stable", kind)] >= 4


async def test_a_name_that_no_plan_has_is_no_longer_asked(desk: Desk) -> None:
    desk.script.says |= {"a.example": found("192.0.2.1"), "b.example": found("192.0.2.2")}
    await desk.adopt(named("a.example"))
    await desk.discovery.prepare(named("b.example"))
    assert desk.told[-1]["names"] == {"a.example": ["192.0.2.1"], "b.example": ["192.0.2.2"]}
    desk.discovery.settle(named("b.example"))
    assert desk.told[-1]["names"] == {"b.example": ["192.0.2.2"]}
    await asyncio.sleep(0.02)
    asked = desk.script.asked.count("a.example")
    await desk.until_asked(len(desk.script.asked) + 3)
    assert desk.script.asked.count("a.example") == asked


async def test_a_plan_that_was_refused_leaves_nothing_behind(desk: Desk) -> None:
    desk.script.says |= {"a.example": found("192.0.2.1"), "b.example": found("192.0.2.2")}
    await desk.adopt(named("a.example"))
    await desk.discovery.prepare(named("b.example"))
    desk.discovery.settle(named("a.example"))
    assert desk.told[-1]["names"] == {"a.example": ["192.0.2.1"]}


async def test_what_the_resolver_did_not_foresee_does_not_end_the_proxy(desk: Desk) -> None:
    await desk.adopt(plan := named("bug.example"))
    await desk.until_asked(3)
    assert desk.discovery.found(plan).dns_failures[("stable", "network")] >= 2


async def test_the_admin_api_tells_where_addresses_come_from(desk: Desk) -> None:
    desk.script.says["a.example"] = found("192.0.2.1")
    await desk.adopt(plan := named("a.example", "gone.example"))
    desk.now += 5
    desk.script.says["a.example"] = NXDOMAIN
    stable, canary = plan.arms
    assert desk.discovery.document(stable)["endpoints"] == [
        {"address": "192.0.2.1", "port": 80, "healthy": None, "error": None}
    ]
    assert desk.discovery.document(stable)["dns"] == {
        "host": "a.example", "port": 80, "ageS": 5.0, "ttlS": 1.0, "failures": 0, "error": None,
    }  # fmt: skip
    source = desk.discovery.document(canary)["dns"]
    assert (source["ageS"], source["ttlS"], source["error"]) == (None, None, "nxdomain: NXDOMAIN")
    assert source["failures"] >= 1
    listed = desk.discovery.document(named(None).arms[0])
    assert listed == {
        "dns": None,
        "endpoints": [{"address": "192.0.2.9", "port": 80, "healthy": None, "error": None}],
    }


async def test_metrics_count_addresses_and_the_age_of_answers(desk: Desk) -> None:
    desk.script.says["a.example"] = found("192.0.2.1", "192.0.2.2")
    await desk.adopt(plan := named("a.example", "gone.example"))
    desk.now += 2
    numbers = desk.discovery.found(plan)
    assert numbers.endpoints == {"stable": 2, "canary": 0}
    assert numbers.dns_ages_s == {"stable": 2.0}
    assert numbers.unhealthy == {}
    assert numbers.dns_failures[("stable", "servfail")] == 0  # so that an increase can be seen
    assert desk.discovery.found(None).endpoints == {}


def checked(plan: Plan, **check: Any) -> Plan:
    """The same plan with fast checks of stable."""
    listed = [arm.model_dump(mode="json", by_alias=True) for arm in plan.arms]
    listed[0]["healthCheck"] = {"interval": "100ms", "timeout": "50ms", "unhealthy": 1} | check
    return plan_of(arms=listed)


async def test_who_fails_its_checks_is_told_with_the_names(desk: Desk) -> None:
    """And to the metrics and the admin API."""
    desk.script.says["a.example"] = found("192.0.2.1", "192.0.2.2")
    await desk.adopt(plan := checked(named("a.example")))
    async with asyncio.timeout(30):
        while not desk.told[-1]["unhealthy"]:
            desk.now += 0.1
            desk.discovery._checks._woken.set()
            await asyncio.sleep(0.01)
    assert desk.told[-1] == {"names": {"a.example": ["192.0.2.1", "192.0.2.2"]}, "unhealthy": [["192.0.2.1", 80]]}
    assert desk.discovery.found(plan).unhealthy == {"stable": 1}
    assert [(e["healthy"], e["error"]) for e in desk.discovery.document(plan.arms[0])["endpoints"]] == [
        (False, "status 500"), (True, None),
    ]  # fmt: skip
    await desk.adopt(named("a.example"))
    assert desk.told[-1]["unhealthy"] == []


def test_host_is_the_name_or_the_endpoints_own_address() -> None:
    """As a kubelet sends it."""
    arm = checked(named("a.example")).arms[0]
    assert arm.health_check is not None
    assert discovery._target(arm, arm.health_check, "192.0.2.1", 80).host == "a.example:80"
    arm = checked(named(None)).arms[0]
    assert arm.health_check is not None
    assert discovery._target(arm, arm.health_check, "2001:db8::1", 80).host == "[2001:db8::1]:80"
