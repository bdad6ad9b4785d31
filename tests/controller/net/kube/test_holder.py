"""Who decides: takeovers, what ends deciding, and actions that are refused, whole replicas under virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from controller.errors import Temporary
from controller.net import engine
from controller.net.kube import actions
from controller.net.kube.client import MERGE_PATCH, ApiRefused
from tests.controller.net.kube.stage import PLACES, ROLLOUT, Stage
from tests.support import virtual

STEPS: list[dict[str, Any]] = [{"setWeight": 10}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]


@pytest.fixture(autouse=True)
def few_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "TICK_S", 1.0)


@pytest.fixture(autouse=True)
def nothing_broke(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Faults of ours are caught at the roots of tasks, and would be seen in the log only."""
    yield
    assert not [record.getMessage() for record in caplog.get_records("call") if record.exc_info]


def staged(test: Callable[[Stage], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """The test under virtual time, with two replicas and v2 on trial."""

    def run() -> None:
        async def go() -> None:
            stage = Stage(2)
            await stage.prepare(STEPS)
            async with stage.controllers():
                await stage.until(lambda s: s.get("phase") == "Healthy")
                await stage.behind("web-canary", "v2-a")
                await stage.until(lambda s: s.get("phase") == "Paused")
                await test(stage)

        virtual.run(go())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


def on_record(uid: str) -> Callable[[Any], bool]:
    return lambda status: any(action["uid"] == uid for action in status.get("actions") or ())


@staged
async def test_an_action_that_is_refused_latches_nobody(stage: Stage) -> None:
    """Another revision than the one on trial: on record with the reason, and nothing has happened."""
    uid = await stage.act("Abort", "v1")
    status = await stage.until(on_record(uid))
    await asyncio.sleep(5)
    assert status["actions"][-1]["result"] == "Refused"
    assert "v2" in status["actions"][-1]["message"]
    assert [proxy.aborts for proxy in stage.proxies.values()] == [[], []]
    assert stage.status["phase"] == "Paused"


@staged
async def test_a_replica_that_saw_an_older_status_has_its_latch_lifted(stage: Stage) -> None:
    """It latched its proxy for v2, which it took for the one on trial; the holder knew of v3 and refused."""
    await stage.behind("web-canary", "v3-a")
    await stage.until(lambda s: s.get("phase") == "Paused" and s["revision"]["canary"] == "v3")
    uid = await stage.act("Abort", "v2")
    stage.proxies["cohort-1"].abort("anna", uid.replace("-", ""), "Requested")
    await stage.until(on_record(uid))
    await asyncio.sleep(5)
    assert [proxy.latch for proxy in stage.proxies.values()] == [None, None]
    assert (stage.status["phase"], stage.status["revision"]["canary"]) == ("Paused", "v3")


@staged
async def test_an_abort_is_done_by_all_replicas_and_once_by_the_holder(stage: Stage) -> None:
    """Whoever is first at a proxy: its latch is the abort's."""
    await stage.act("Abort", "v2", reason="slow")
    status = await stage.until(lambda s: s.get("phase") == "Aborted")
    await asyncio.sleep(5)
    assert (status["abort"]["by"], status["abort"]["reason"]) == ("anna", "Requested")
    assert all(proxy.latch for proxy in stage.proxies.values())
    assert len(stage.status["actions"]) == 1


@staged
async def test_an_action_that_cannot_be_read_is_left_alone_and_others_are_done(stage: Stage) -> None:
    """Of another version: told in the log; not in the way."""
    spec = {"rollout": "web", "verb": "Teleport", "revision": "v2", "requestedBy": "anna"}
    await stage.api.ask("POST", PLACES["RolloutAction"], {"metadata": {"name": "a"}, "spec": spec})
    uid = await stage.act("Promote", "v2")
    await stage.until(on_record(uid))
    assert f"{PLACES['RolloutAction']}/a" in stage.api.objects


@staged
async def test_actions_are_collected_an_hour_after(stage: Stage) -> None:
    """By the holder, and not sooner where there are few."""
    uid = await stage.act("Abort", "v2")
    await stage.until(on_record(uid))
    await asyncio.sleep(5)
    (path,) = (path for path in stage.api.objects if "/rolloutactions/" in path)
    stage.ahead_s = actions.KEEP_S - 60
    await asyncio.sleep(5)
    assert path in stage.api.objects
    stage.ahead_s = actions.KEEP_S
    await asyncio.sleep(5)
    assert path not in stage.api.objects


@staged
async def test_a_rollout_made_anew_under_its_name_begins_from_nothing(stage: Stage) -> None:
    """Another uid is another rollout: another salt, numbers from the first on."""
    spec = stage.api.objects[ROLLOUT]["spec"]
    before = stage.proxies["cohort-0"].plan
    assert before
    await stage.api.ask("DELETE", ROLLOUT)
    await stage.make("CanaryRollout", "web", spec=spec)
    await stage.until(lambda s: s.get("phase") == "Paused")
    after = stage.proxies["cohort-0"].plan
    assert after
    assert after.rollout.uid == stage.api.objects[ROLLOUT]["metadata"]["uid"] != before.rollout.uid
    assert after.salt != before.salt
    assert stage.status["leader"]["term"] == 1


def test_deciding_that_fails_at_once_is_tried_once_a_second() -> None:
    """Every takeover is a write that wakes all: without a pause they would chase one another."""

    async def go() -> None:
        stage = Stage(2)
        await stage.prepare(STEPS)
        ask = stage.api.ask

        async def full(method: str, path: str, body: Any = None, **more: Any) -> Any:
            if path.endswith("/status") and isinstance(body, list):
                raise ApiRefused(422, "status: too long")
            return await ask(method, path, body, **more)

        stage.api.ask = full  # type: ignore[method-assign]
        async with stage.controllers():
            await asyncio.sleep(10)
            assert 5 <= stage.status["leader"]["term"] <= 12
            stage.api.ask = ask  # type: ignore[method-assign]
            await stage.until(lambda s: s.get("phase") == "Healthy", limit_s=5)

    virtual.run(go())


@staged
async def test_who_decided_last_spreads_an_abort_until_another_has_taken_over(stage: Stage) -> None:
    """The Lease is another's, and the API server goes before the status is."""
    first, second = sorted(stage.proxies, key=lambda name: name != str(stage.status["leader"]["identity"])[:-2])
    ask = stage.api.ask

    async def no_status(method: str, path: str, body: Any = None, **more: Any) -> Any:
        if path.endswith("/status"):
            raise Temporary("no answer")
        return await ask(method, path, body, **more)

    stage.api.ask = no_status  # type: ignore[method-assign]
    await ask("PATCH", f"{PLACES['Lease']}/cohort-web", {"spec": {"holderIdentity": f"{second}_1"}}, kind=MERGE_PATCH)
    await asyncio.sleep(5)
    stage.proxies[second].abort("anna", "0123456789abcdef", "slow")
    await asyncio.sleep(5)
    assert stage.proxies[first].latch
    stage.api.ask = ask  # type: ignore[method-assign]
    await stage.until(lambda s: s.get("phase") == "Aborted", 30)
    assert stage.status["leader"] == {"identity": f"{second}_1", "term": 2}
    assert stage.status["abort"]["id"] == "0123456789abcdef"


@staged
async def test_endpoints_follow_the_cluster_without_a_holder(stage: Stage) -> None:
    """Each replica sees its own proxy to it: pods that move need no decision."""
    ask = stage.api.ask

    async def no_lease(method: str, path: str, body: Any = None, **more: Any) -> Any:
        if "/leases" in path:
            raise Temporary("no answer")
        return await ask(method, path, body, **more)

    stage.api.ask = no_lease  # type: ignore[method-assign]
    await asyncio.sleep(5)
    generation = stage.status["plan"]["generation"]
    await stage.behind("web-stable", "v1-c", "v1-d", "v1-e")
    await asyncio.sleep(3)
    for proxy in stage.proxies.values():
        assert proxy.plan
        assert len(proxy.plan.arms[0].endpoints) == 3
        assert proxy.plan.generation == generation
