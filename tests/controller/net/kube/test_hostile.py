"""What nobody expects of a cluster: objects that are gone, edited by hand, too large, or made anew by the same name."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.controller.net.kube.stage import PLACES, ROLLOUT, Stage
from tests.support import virtual

STEPS: list[Any] = [{"setWeight": 10}, {"pause": {"duration": "20s"}}, {"setWeight": 50}, {"pause": {}}]
MERGE = "application/merge-patch+json"


def played(during: Callable[[Stage], Awaitable[None]]) -> Stage:
    """Something is done at the first of two steps, with 10 % of users on the canary."""

    async def play() -> Stage:
        stage = Stage(2)
        await stage.prepare(STEPS)
        async with stage.controllers():
            await stage.until(lambda s: s.get("phase") == "Healthy" and s["plan"]["current"] == 2)
            await stage.behind("web-canary", "v2-a")
            await stage.until(lambda s: s.get("weight", {}).get("programmed") == "10.00" and s["plan"]["current"] == 2)
            await during(stage)
        return stage

    return virtual.run(play())


def condition(status: Any, kind: str) -> Any:
    return next((each for each in status.get("conditions", ()) if each["type"] == kind), {})


async def edited(stage: Stage, **status: Any) -> None:
    """An admin edits the status by hand."""
    await stage.api.ask("PATCH", f"{ROLLOUT}/status", {"status": status}, kind=MERGE)


@pytest.mark.parametrize("what", ["slices", "Service"])
def test_nothing_advances_while_the_replicas_cannot_be_found(what: str) -> None:
    """They serve users all the same, and nobody has heard how those fare."""

    async def during(stage: Stage) -> None:
        if what == "slices":
            await stage.behind("web-control")
        else:
            await stage.api.ask("DELETE", f"{PLACES['Service']}/web-control")
        await asyncio.sleep(120)
        assert stage.status["weight"]["programmed"] == "10.00"
        assert "web-control" in condition(stage.status, "Progressing")["message"]
        if what == "slices":
            await stage.behind("web-control", *stage.proxies)
        else:
            await stage.make("Service", "web-control", spec={"ports": [{"name": "http", "port": 8083}]})
        await stage.until(lambda s: s["phase"] == "Paused" and s["plan"]["current"] == 2)

    played(during)


def test_an_abort_while_the_replicas_cannot_be_found_is_whole_when_they_are() -> None:
    async def during(stage: Stage) -> None:
        await stage.behind("web-control")
        await asyncio.sleep(5)
        await stage.act("Abort", "v2")
        await stage.until(lambda s: s["phase"] in ("Aborted", "Degraded"))
        assert all(proxy.latch for proxy in stage.proxies.values())  # each by its own controller
        await stage.behind("web-control", *stage.proxies)
        await stage.until(lambda s: s["phase"] == "Aborted" and s["plan"]["current"] == 2)

    played(during)


def test_a_rollout_that_does_not_fit_into_a_status_is_refused_and_the_last_good_plan_stays() -> None:
    async def during(stage: Stage) -> None:
        matches = [{"path": {"value": "/" + "x" * 900 + str(n)}} for n in range(8)]
        routes = [{"name": f"r{n}", "matches": matches, "arm": "stable"} for n in range(32)]
        await stage.api.ask("PATCH", ROLLOUT, {"spec": {"routes": routes}}, kind=MERGE)
        await stage.until(lambda s: condition(s, "Accepted").get("status") == "False", 60)
        said = condition(stage.status, "Accepted")["message"]
        assert "spec.routes" in said
        assert all(proxy.plan and not proxy.plan.routes for proxy in stage.proxies.values())
        await stage.act("Abort", "v2")
        await stage.until(lambda s: s["phase"] == "Aborted", 60)
        await stage.api.ask("PATCH", ROLLOUT, {"spec": {"routes": []}}, kind=MERGE)
        await stage.until(lambda s: condition(s, "Accepted").get("status") == "True", 60)

    played(during)


def test_a_rollout_that_never_fitted_says_so() -> None:
    async def play() -> None:
        stage = Stage(1)
        await stage.prepare(STEPS)
        matches = [{"path": {"value": "/" + "x" * 900 + str(n)}} for n in range(8)]
        routes = [{"name": f"r{n}", "matches": matches, "arm": "stable"} for n in range(32)]
        await stage.api.ask("PATCH", ROLLOUT, {"spec": {"routes": routes}}, kind=MERGE)
        async with stage.controllers():
            await stage.until(lambda s: condition(s, "Accepted").get("status") == "False", 60)
            terms = stage.status["leader"]["term"]
            await asyncio.sleep(30)
            assert stage.status["leader"]["term"] == terms

    virtual.run(play())


def test_a_rollout_made_anew_in_mid_rollout_begins_anew_and_repeats_no_action() -> None:
    async def during(stage: Stage) -> None:
        await stage.act("Pause", "v2")
        await stage.until(lambda s: s["phase"] == "Paused")
        await asyncio.sleep(5)
        spec = stage.api.objects[ROLLOUT]["spec"]
        await stage.api.ask("DELETE", ROLLOUT)
        await asyncio.sleep(5)
        assert all(proxy.plan and proxy.plan.arms[1].weight_bp == 1000 for proxy in stage.proxies.values())
        await stage.make("CanaryRollout", "web", spec=spec)
        await stage.until(lambda s: s.get("weight", {}).get("programmed") == "50.00" and s["plan"]["current"] == 2)
        assert not stage.status.get("actions")

    played(during)


def test_after_an_abort_a_rollout_made_anew_is_aborted_as_well_until_somebody_retries() -> None:
    """The proxies' latches stand, whatever was done to the object."""

    async def during(stage: Stage) -> None:
        await stage.act("Abort", "v2")
        await stage.until(lambda s: s["phase"] == "Aborted")
        await asyncio.sleep(5)
        spec = stage.api.objects[ROLLOUT]["spec"]
        await stage.api.ask("DELETE", ROLLOUT)
        await asyncio.sleep(5)
        await stage.make("CanaryRollout", "web", spec=spec)
        await stage.until(lambda s: s.get("phase") == "Aborted")
        await asyncio.sleep(2)
        await stage.act("Retry", "v2")
        await stage.until(lambda s: s.get("weight", {}).get("programmed") == "50.00" and s["plan"]["current"] == 2)

    played(during)


@pytest.mark.parametrize("what", ["document", "garbage", "conditions", "evidence"])
def test_a_status_edited_by_hand_is_written_again(what: str) -> None:
    async def during(stage: Stage) -> None:
        before = stage.status
        edits: dict[str, Any] = {
            "document": {"plan": {**before["plan"], "document": None}},
            "garbage": {"plan": {**before["plan"], "document": {"arms": 7, "rollout": None}}},
            "conditions": {"conditions": []},
            "evidence": {"evidence": "no evidence"},
        }
        await edited(stage, **edits[what])
        await stage.until(lambda s: s["phase"] == "Paused" and s["plan"]["current"] == 2)
        assert stage.status["plan"]["document"]["arms"]
        assert condition(stage.status, "Accepted")["status"] == "True"

    played(during)


def test_a_plan_that_somebody_took_out_of_the_status_is_there_again_soon() -> None:
    """A proxy that starts meanwhile would have everyone on stable."""

    async def during(stage: Stage) -> None:
        await edited(stage, plan={"document": None})
        await stage.until(lambda s: s["plan"].get("document"), 5)

    played(during)


@pytest.mark.parametrize("state", ["garbage", None])
def test_a_state_edited_by_hand_is_that_of_the_controller_again(state: Any) -> None:
    async def during(stage: Stage) -> None:
        await edited(stage, state=state)
        await stage.until(lambda s: s["phase"] == "Paused" and s["plan"]["current"] == 2)
        assert len(stage.status["state"]) > 100

    played(during)


def test_a_lease_that_is_gone_or_names_nobody_known_changes_nothing() -> None:
    async def during(stage: Stage) -> None:
        lease = next(path for path in stage.api.objects if "/leases/" in path)
        await stage.api.ask("DELETE", lease)
        await asyncio.sleep(10)
        spec = {"holderIdentity": "an-admin", "leaseDurationSeconds": 5}
        await stage.api.ask("PATCH", lease, {"spec": spec}, kind=MERGE)
        await stage.until(lambda s: s["phase"] == "Paused" and s["plan"]["current"] == 2)
        terms = [(each["status"]["leader"]["term"], each["status"]["leader"]["identity"]) for each in stage.api.written]
        assert terms == sorted(terms)

    played(during)


@pytest.mark.parametrize("are_proxies_new", [False, True])
@pytest.mark.parametrize("lost", ["no state", "garbage, and then no state"])
def test_a_state_that_was_lost_while_nobody_decided_is_made_anew(lost: str, are_proxies_new: bool) -> None:
    async def play() -> None:
        stage = Stage(2)
        await stage.prepare(STEPS)
        async with stage.controllers():
            await stage.until(lambda s: s.get("phase") == "Healthy" and s["plan"]["current"] == 2)
            await stage.behind("web-canary", "v2-a")
            before = await stage.until(lambda s: s["phase"] == "Paused" and s["plan"]["current"] == 2)
        await edited(stage, state=None if lost == "no state" else "garbage")
        for proxy in stage.proxies.values() if are_proxies_new else ():
            proxy.plan = None
        async with stage.controllers():
            if lost != "no state":
                await asyncio.sleep(20)
                assert stage.status["plan"] == before["plan"]
                await edited(stage, state=None)
            await stage.until(lambda s: s["plan"]["generation"] > before["plan"]["generation"])
            await stage.until(lambda s: s["phase"] == "Paused" and s["plan"]["current"] == 2)

    virtual.run(play())
