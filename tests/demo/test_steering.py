"""The demo's side of the controller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer

from demo.console import Refused
from demo.steering import Steering


@dataclass
class FakeController:
    """Long polls and actions of one rollout, as the API has them."""

    version: int = 1
    polls: list[dict[str, str]] = field(default_factory=list)
    actions: list[dict[str, Any]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False

    async def get(self, request: web.Request) -> web.Response:
        self.polls.append(dict(request.query))
        if self.fails:
            self.fails = False
            return web.Response(status=500)
        if request.query.get("since") == str(self.version):
            self.changed.clear()
            await self.changed.wait()
        return web.json_response({"status": {"resourceVersion": self.version}})

    async def post(self, request: web.Request) -> web.Response:
        self.actions.append(await request.json())
        if self.actions[-1]["verb"] == "Abort":
            return web.json_response({"error": "nothing is on trial"}, status=409)
        return web.json_response({"result": "Done", "message": "going on"})


@pytest.fixture
async def controller() -> AsyncIterator[tuple[FakeController, Steering]]:
    fake = FakeController()
    app = web.Application()
    app.router.add_get("/api/v1/rollouts/demo/shop", fake.get)
    app.router.add_post("/api/v1/rollouts/demo/shop/actions", fake.post)
    async with TestServer(app) as server, ClientSession() as session:
        yield fake, Steering(session, str(server.make_url("")).rstrip("/"), "demo", "shop")


async def test_it_follows_the_rollout(controller: tuple[FakeController, Steering]) -> None:
    """Each change is there as soon as the controller has it; a failure is asked again."""
    fake, steering = controller
    fake.fails = True
    task = asyncio.create_task(steering.follow())
    await steering.change(5)
    assert steering.document == {"status": {"resourceVersion": 1}}
    while len(fake.polls) < 3:
        await asyncio.sleep(0.01)
    fake.version = 2
    fake.changed.set()
    await steering.change(5)
    assert steering.document == {"status": {"resourceVersion": 2}}
    assert fake.polls[2] == {"wait": "1", "since": "1"}
    fake.changed.set()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_acts_and_tells_refusals(controller: tuple[FakeController, Steering]) -> None:
    """The controller's word reaches whoever asked."""
    fake, steering = controller
    assert await steering.act("Start", revision="v2", addresses=["127.0.0.1:1"]) == "going on"
    assert fake.actions == [{"verb": "Start", "by": "demo", "revision": "v2", "addresses": ["127.0.0.1:1"]}]
    with pytest.raises(Refused, match="nothing is on trial"):
        await steering.act("Abort")


async def test_no_controller(free_port: Any) -> None:
    """A controller that is gone is a refusal, not a crash."""
    async with ClientSession() as session:
        steering = Steering(session, f"http://127.0.0.1:{free_port()}", "demo", "shop")
        with pytest.raises(Refused, match="does not answer"):
            await steering.act("Abort")
