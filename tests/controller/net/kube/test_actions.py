"""What people ask for is carried out once, however much of it there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from controller.ask import Refused
from controller.errors import Temporary
from controller.events import Asked, Verb
from controller.net.engine import Engine
from controller.net.kube.actions import Actions
from controller.net.kube.client import ApiRefused
from controller.net.kube.namespace import Namespace
from controller.spec import Kube
from controller.state import Action, acted
from tests.controller.world import World

BEFORE, BORN, LATER = "2026-01-01T00:00:00Z", "2026-01-01T10:00:00Z", "2026-01-01T10:00:01Z"


@dataclass
class Desk:
    """A namespace whose actions are carried out by an engine that only notes them."""

    done: list[tuple[Verb, str]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    problem: Exception | None = None
    is_watch_late: bool = False
    wall: float = 0.0

    def __post_init__(self) -> None:
        rollout = {"metadata": {"name": "web", "creationTimestamp": BORN}}
        self.objects: dict[str, dict[str, Any]] = {}
        self.namespace = SimpleNamespace(rollout=rollout, actions=SimpleNamespace(objects=self.objects))
        self.engine = SimpleNamespace(state=World().state, act=self.act)
        self.restart()

    def restart(self) -> None:
        """Another controller: all that it knows is the status and the objects."""
        kube = Kube(namespace="shop", rollout="web")
        self.actions = Actions(self, cast(Namespace, self.namespace), kube, lambda: self.wall)

    def add(self, name: str, verb: str = "Pause", created: str = LATER, **metadata: Any) -> None:
        spec = {"rollout": "web", "verb": verb, "revision": "v2", "requestedBy": "anna"}
        version = str(100 + len(self.objects))
        about = {"name": name, "uid": f"uid-{name}", "creationTimestamp": created, "resourceVersion": version}
        self.objects[name] = {"metadata": about | metadata, "spec": spec}

    async def act(self, asked: Asked) -> str:
        self.done.append((asked.verb, asked.uid))
        self.engine.state = acted(self.engine.state, Action(asked.uid, asked.verb, "Done"))
        if asked.verb is Verb.RESUME:
            raise Refused("it is not paused")
        return ""

    async def ask(
        self, method: str, path: str, body: Any = None, *, query: Mapping[str, str] | None = None, **_: Any
    ) -> dict[str, Any]:
        assert method == "DELETE"
        if self.problem:
            raise self.problem
        name = path.rpartition("/")[2]
        assert body == {"preconditions": {"uid": f"uid-{name}"}}
        self.removed.append(name)
        if not self.is_watch_late:
            del self.objects[name]
        return {}

    async def look(self) -> None:
        engine = cast(Engine, self.engine)
        await self.actions.carry_out(engine)
        await self.actions.collect(engine)

    @property
    def uids(self) -> list[str]:
        return [uid for _, uid in self.done]


@pytest.mark.parametrize("verb", ["Pause", "Abort", "Resume"])
@pytest.mark.parametrize("is_watch_late", [False, True])
async def test_of_a_burst_of_actions_each_is_carried_out_once(verb: str, is_watch_late: bool) -> None:
    desk = Desk(is_watch_late=is_watch_late)
    for i in range(200):
        desk.add(f"a-{i:03}", verb)
    await desk.look()
    await desk.look()
    assert desk.uids == [f"uid-a-{i:03}" for i in range(200)]
    assert len(desk.objects) == (200 if is_watch_late else 12)


async def test_the_next_holder_carries_out_nothing_of_a_burst_again() -> None:
    desk = Desk()
    for i in range(200):
        desk.add(f"a-{i:03}")
    await desk.look()
    desk.restart()
    await desk.look()
    assert len(desk.uids) == 200


async def test_where_nothing_can_be_removed_nothing_is_done_twice() -> None:
    desk = Desk(problem=ApiRefused(403, "forbidden"))
    for i in range(30):
        desk.add(f"a-{i:03}")
    for _ in range(5):
        with pytest.raises(Temporary):
            await desk.look()
    assert desk.uids == [f"uid-a-{i:03}" for i in range(13)]  # what one more would push off the record waits


async def test_an_abort_waits_for_no_removal() -> None:
    desk = Desk(problem=Temporary("no answer"))
    for i in range(13):
        desk.add(f"a-{i:03}")
    desk.add("b", "Abort")
    with pytest.raises(Temporary):
        await desk.look()
    with pytest.raises(Temporary):
        await desk.look()
    assert desk.uids[-1] == "uid-b"


async def test_actions_of_one_second_are_carried_out_in_the_order_in_which_they_were_taken() -> None:
    desk = Desk()
    desk.add("z", "Pause")
    desk.add("a", "Abort")
    await desk.look()
    assert desk.uids == ["uid-z", "uid-a"]


async def test_an_action_on_a_rollout_that_had_the_name_before_is_not_carried_out() -> None:
    desk = Desk()
    desk.add("old", "Promote", created=BEFORE)
    desk.add("new", "Promote", created=BORN)
    await desk.look()
    assert desk.uids == ["uid-new"]


async def test_an_action_that_is_being_deleted_is_not_carried_out() -> None:
    desk = Desk()
    desk.add("gone", "Promote", deletionTimestamp=LATER)
    await desk.look()
    assert desk.done == []


@pytest.mark.parametrize("status", [404, 409])
async def test_an_action_that_somebody_else_has_removed_is_no_fault(status: int) -> None:
    desk = Desk(problem=ApiRefused(status, "gone"))
    for i in range(20):
        desk.add(f"a-{i:03}")
    await desk.look()
    assert len(desk.uids) == 20


async def test_an_hour_after_its_end_an_action_is_removed() -> None:
    desk = Desk(wall=1_767_261_601.0 + 3599)
    desk.add("a")
    await desk.look()
    assert desk.removed == []
    desk.wall += 2
    await desk.look()
    assert desk.removed == ["a"]
