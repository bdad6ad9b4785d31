"""The API server goes at any write, and then somebody aborts at one proxy: the holder carries it to all of them."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.controller.net.kube.stage import Kill, Stage
from tests.controller.net.kube.test_resume import STEPS, few_turns, rollouts, story, trial
from tests.support import virtual

__all__ = ["few_turns"]
SPREAD_S = 5.0
LATCH = "0123456789abcdef"
AFTER_S = 2.0  # the abort, after the server has gone
DEATH = "event StepStarted: step 3 of 4: setWeight 50", "before"
WRITES = 48  # different ones until the second trial is at its last step


async def away(kills: list[Kill]) -> Stage:
    """From the kill on without an API server, and aborted at the second proxy if there is somebody on a canary."""
    stage = Stage(2, kills)
    await stage.prepare(STEPS)
    async with stage.controllers():
        told = asyncio.create_task(story(stage))
        while not stage.is_away and not told.done():
            await asyncio.sleep(0.01)
        told.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await told
        await asyncio.sleep(AFTER_S)
        if is_on_trial(stage):
            await aborted(stage, kills)
    assert not stage.kills
    return stage


def is_on_trial(stage: Stage) -> bool:
    """Whether every proxy has users on a canary, and the team has replaced neither version meanwhile."""
    for proxy in stage.proxies.values():
        arms = proxy.plan.arms if proxy.plan and not proxy.latch else ()
        if len(arms) < 2 or not arms[1].weight_bp:
            return False
        behind = [stage.placed[f"web-{arm.name}"][0].partition("-")[0] for arm in arms]
        if behind != [arm.revision for arm in arms]:
            return False
    return True


async def aborted(stage: Stage, kills: list[Kill]) -> None:
    stage.proxies["cohort-1"].abort("anna", LATCH, "slow")
    await asyncio.sleep(SPREAD_S)
    assert all(proxy.latch for proxy in stage.proxies.values()), kills
    stage.is_away = False
    await stage.until(lambda s: s.get("phase") == "Aborted", 30)
    assert stage.status["abort"]["id"] == LATCH
    told = [event["reason"] for path, event in stage.api.objects.items() if "/events/" in path]
    assert "ProxyUnreachable" not in told  # it was the API server


@pytest.mark.slow
@pytest.mark.parametrize("when", ["gone", "lost"])
def test_an_abort_at_one_proxy_reaches_all_whenever_the_api_server_goes(when: str) -> None:
    """At each write up to the second trial, in turn before and after it; the third and the fourth are like it."""
    tried = 0
    for write in list(dict.fromkeys(virtual.run(rollouts()).writes))[when == "lost" : WRITES : 2]:
        stage = virtual.run(away([(write, when)]))
        tried += bool(stage.proxies["cohort-1"].latch)
    assert tried > WRITES / 4


async def bereft() -> None:
    """The holder dies without an API server, and somebody aborts at the second proxy."""
    stage = Stage(2)
    await stage.prepare(STEPS)
    async with stage.controllers():
        await stage.until(lambda s: s.get("phase") == "Healthy")
        await trial(stage, "v2")
        assert is_on_trial(stage)
        stage.is_away = True
        stage.processes[stage.status["leader"]["identity"].partition("_")[0]].kill()
        stage.proxies["cohort-1"].abort("anna", LATCH, "slow")
        await asyncio.sleep(60)
        assert [name for name, proxy in stage.proxies.items() if proxy.latch] == ["cohort-1"]
        stage.is_away = False
        await stage.until(lambda s: s.get("phase") == "Aborted", 30)
        assert all(proxy.latch for proxy in stage.proxies.values())
        assert stage.status["abort"]["id"] == LATCH


def test_where_the_holder_dies_meanwhile_the_others_hear_of_it_when_the_server_is_back() -> None:
    """docs/critiques.md: a new holder needs the server; until then the abort stands where it was asked for."""
    virtual.run(bereft())


@pytest.mark.slow
@pytest.mark.parametrize("when", ["gone", "lost"])
def test_also_of_a_holder_that_has_only_just_taken_over(when: str) -> None:
    """From its first write on; a takeover itself that fails leaves nobody who decides."""
    writes = virtual.run(rollouts([DEATH])).writes
    at = writes.index(DEATH[0])
    taken = next(index for index, write in enumerate(writes) if index > at and write.startswith("takeover"))
    tried = [write for write in writes[taken + 1 : taken + 6] if write not in writes[:at]]
    for write in tried:
        stage = virtual.run(away([DEATH, (write, when)]))
        assert stage.proxies["cohort-1"].latch, write
    assert tried
