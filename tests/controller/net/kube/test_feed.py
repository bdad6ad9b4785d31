"""What a replica does for its own proxy: aborts at once, and the published plan, completed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from controller import planner
from controller.endpoints import Unusable
from controller.net.kube.feed import CONFIRM_S, Feed
from controller.published import publish
from controller.version import ServiceRef
from proxy.plan import Endpoint, Plan
from tests.controller.net.kube.stage import SPLIT, Line, Process, Stage
from tests.controller.world import SECRETS, World, document
from tests.support import virtual
from tests.support.fake_proxy import FakeProxy

UID = "0a1b2c3d-0000-4000-8000-000000000001"
LATCH = UID.replace("-", "")


class Fed:
    """A feed with one proxy, and what it sees of the cluster."""

    def __init__(self) -> None:
        self.stage = Stage(1)
        self.process = Process(self.stage, "cohort-0")
        self.places: dict[str, tuple[Endpoint, ...]] = {}
        self.broken = ""
        line = Line(self.process, self.stage, "cohort-0", is_fed=False)
        self.feed = Feed(line, {planner.key_id(SPLIT): SPLIT}, self.find, self.stage.loop.time)
        self.rollout: dict[str, Any] = {"metadata": {"name": "web"}, "status": {}}
        self.actions: dict[str, Any] = {}

    def find(self, ref: ServiceRef, revision: str | None) -> tuple[Endpoint, ...]:
        if self.broken:
            raise Unusable(self.broken)
        return self.places.get(ref.name, ())

    @property
    def proxy(self) -> FakeProxy:
        return self.stage.proxies["cohort-0"]

    @property
    def puts(self) -> int:
        return sum(write.startswith("plan") for write in self.stage.writes)

    @property
    def latches(self) -> int:
        return sum(write.startswith("latch") for write in self.stage.writes)

    def ask(self, verb: str = "Abort", **more: Any) -> None:
        spec = {"rollout": "web", "verb": verb, "revision": "v2", "requestedBy": "anna", **more}
        self.actions["a"] = {"metadata": {"name": "a", "uid": UID}, "spec": spec}

    def show(self, **status: Any) -> None:
        """The watch has brought another status."""
        self.rollout = {**self.rollout, "status": {**self.rollout["status"], **status}}

    def publish(self, weight: int, generation: int = 0) -> Plan:
        """The holder has decided."""
        world = World(document({"setWeight": weight}, {"pause": {}}), 1).run(3)
        plan = world.plan
        assert plan is not None
        value = publish(world.state, plan, tuple(SECRETS))
        value["generation"] = generation or value["generation"]
        for arm in value["arms"]:
            arm.pop("endpoints", None)
            arm["service"] = {"name": arm["name"], "port": "http"}
        self.show(plan={"document": value})
        return plan

    async def abort(self) -> None:
        await self.feed.abort(self.rollout, self.actions)

    async def level(self) -> None:
        await self.feed.level(self.rollout)


def fed(test: Callable[[Fed], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """The test under virtual time."""

    def run() -> None:
        async def go() -> None:
            await test(Fed())

        virtual.run(go())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@fed
async def test_an_abort_is_latched_at_once_and_once(it: Fed) -> None:
    """By the one who asked, in his words, under the action's uid."""
    it.show(revision={"canary": "v2"})
    it.ask(reason="slow")
    await it.abort()
    await it.abort()
    assert it.latches == 1
    assert it.proxy.latch
    assert (it.proxy.latch["id"], it.proxy.latch["by"], it.proxy.latch["reason"]) == (LATCH, "anna", "Requested: slow")


@fed
async def test_an_abort_of_a_revision_not_heard_of_yet_is_latched_when_it_is(it: Fed) -> None:
    """The action came before the status that puts the revision on trial."""
    it.show(revision={"canary": "v1"})
    it.ask()
    await it.abort()
    it.show(revision={})
    await it.abort()
    assert it.proxy.latch is None
    it.show(revision={"canary": "v2"})
    await it.abort()
    assert it.proxy.latch


@pytest.mark.parametrize("result", ["Done", "Refused"])
def test_an_action_on_record_is_never_latched(result: str) -> None:
    """What was refused stays refused, and what was done is in the status; a retry since then is not undone."""

    @fed
    async def go(it: Fed) -> None:
        it.show(revision={"canary": "v2"}, actions=[{"uid": UID, "verb": "Abort", "result": result}])
        it.ask()
        await it.abort()
        assert it.latches == 0

    go()


@pytest.mark.parametrize(
    "spec", [{"verb": "Promote"}, {"rollout": "cart"}, {"revision": "v1"}], ids=["verb", "rollout", "revision"]
)
def test_other_actions_latch_nothing(spec: dict[str, str]) -> None:
    """Another verb, another rollout, another revision."""

    @fed
    async def go(it: Fed) -> None:
        it.show(revision={"canary": "v2"})
        it.ask(**spec)
        await it.abort()
        it.actions["a"]["spec"] = "nonsense"
        await it.abort()
        assert it.latches == 0

    go()


@fed
async def test_a_latch_that_failed_is_tried_again(it: Fed) -> None:
    """A full disk, or a proxy that does not answer."""
    it.show(revision={"canary": "v2"})
    it.ask()
    it.proxy.refuses_latch = True
    await it.abort()
    it.proxy.is_up, it.proxy.refuses_latch = False, False
    await it.abort()
    assert it.proxy.latch is None
    it.proxy.is_up = True
    await it.abort()
    assert it.proxy.latch


@fed
async def test_nothing_published_leaves_the_proxy_with_what_it_has(it: Fed) -> None:
    """Its last good plan, or the initial one."""
    await it.level()
    assert it.puts == 0


@fed
async def test_a_plan_is_put_once_and_confirmed_now_and_then(it: Fed) -> None:
    """Its age tells a controller that is cut off."""
    plan = it.publish(10)
    await it.level()
    await it.level()
    assert it.puts == 1
    assert it.proxy.plan
    assert it.proxy.plan.salt == plan.salt
    await asyncio.sleep(CONFIRM_S)
    await it.level()
    assert it.puts == 2
    assert len(it.proxy.history) == 1


@fed
async def test_endpoints_that_changed_are_another_version_of_the_same_plan(it: Fed) -> None:
    """Also those that changed while the API server was away, and are seen all at once."""
    it.publish(10)
    it.places["stable"] = (Endpoint(address="10.0.0.1", port=80),)
    await it.level()
    it.places["stable"] = (Endpoint(address="10.0.0.2", port=80), Endpoint(address="10.0.0.3", port=80))
    it.places["canary"] = (Endpoint(address="10.0.0.9", port=80),)
    await it.level()
    assert [plan.endpoints_version for plan in it.proxy.history] == [0, 1]
    assert [e.address for e in it.proxy.history[-1].arms[0].endpoints] == ["10.0.0.2", "10.0.0.3"]
    assert len({plan.core_digest for plan in it.proxy.history}) == 1


@fed
async def test_a_proxy_that_was_restarted_gets_what_it_lacks(it: Fed) -> None:
    """It comes back with an older plan from its disk, or with none."""
    it.publish(10)
    await it.level()
    before = it.proxy.plan
    assert before
    it.proxy.restart("boot-2")
    it.proxy.plan = None
    await it.level()
    assert it.proxy.plan == before
    it.publish(10, generation=before.generation + 1)
    await it.level()
    it.proxy.restart("boot-3")
    it.proxy.plan = before
    await it.level()
    assert it.proxy.plan.generation == before.generation + 1


@fed
async def test_a_later_plan_at_the_proxy_is_left_there(it: Fed) -> None:
    """The status that this replica sees is the older one: the holder has the say, and this one waits for it."""
    it.publish(10, generation=9)
    await it.level()
    it.publish(10, generation=8)
    await it.level()
    assert it.proxy.plan
    assert it.proxy.plan.generation == 9
    it.publish(50, generation=10)
    await it.level()
    assert it.proxy.plan.generation == 10


def test_what_cannot_be_completed_is_told_once_and_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A Service that is gone: the proxy keeps the plan that it has."""

    @fed
    async def go(it: Fed) -> None:
        it.publish(10)
        await it.level()
        at = it.feed.current_at
        it.broken = "there is no Service stable"
        await asyncio.sleep(1)
        await it.level()
        await it.level()
        assert it.puts == 1
        assert it.feed.current_at == at
        assert caplog.text.count("there is no Service stable") == 1
        it.broken = ""
        await it.level()
        assert it.feed.current_at > at

    go()
