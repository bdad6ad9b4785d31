"""A real controller with real proxies: killed at any time, cut off, overruled."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.integration.programs import RealController, RealProxy, until
from tests.support.dataplane import replies, service

pytestmark = pytest.mark.integration

KILLS = 8
STEPS = [
    {"setWeight": 5},
    {"pause": {"duration": "2s"}},
    {"setWeight": 25},
    {"pause": {"duration": "2s"}},
    {"setWeight": 50},
    {"pause": {}},
]


def document(revision: str = "v2", port: int = 9002) -> dict[str, Any]:
    return {
        "apiVersion": "cohort.dev/v1alpha1",
        "kind": "CanaryRollout",
        "metadata": {"name": "checkout", "namespace": "shop"},
        "spec": {
            "stable": {"addresses": ["127.0.0.1:9001"], "revision": "v1"},
            "canary": {"addresses": [f"127.0.0.1:{port}"], "revision": revision},
            "strategy": {"canary": {"steps": STEPS}},
        },
    }


class Stand:
    """Two proxies and a controller."""

    def __init__(self, root: Path, port: int, spec: dict[str, Any] | None = None) -> None:
        keys = root / "keys"
        self.proxies = [RealProxy(root / f"proxy-{n}", workers=1, keys=keys) for n in range(2)]
        self.controller = RealController(root / "controller", port, self.proxies, keys, [spec or document()])
        self.weights: list[list[tuple[str | None, int]]] = [[], []]

    async def watch(self) -> None:
        """Every plan that each proxy has served, as revision and weight."""
        while True:
            for seen, proxy in zip(self.weights, self.proxies, strict=True):
                with contextlib.suppress(aiohttp.ClientError, OSError, RuntimeError):  # RuntimeError: it is away
                    shown = await proxy.get("/plan")
                    arms = shown.get("arms", [])  # none before the first plan
                    now = (shown.get("revision"), arms[1]["weightBp"] if len(arms) > 1 else 0)
                    seen += [now] if not seen or seen[-1] != now else []
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def standing(made: Stand) -> AsyncIterator[Stand]:
    """Started, and ended afterwards."""
    for proxy in made.proxies:
        await proxy.start()
    await made.controller.start()
    try:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(made.watch())
            try:
                yield made
            finally:
                watching.cancel()
    finally:
        if made.controller.program.process is not None:
            await made.controller.program.stop()
        for proxy in made.proxies:
            if proxy.program.process is not None:
                await proxy.stop()


@pytest.fixture
async def stand(tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[Stand]:
    async with standing(Stand(tmp_path, free_port())) as made:
        yield made


async def test_killed_again_and_again_the_rollout_is_the_same(stand: Stand) -> None:
    """F15: SIGKILL at random times; each proxy serves the weights of the steps, once each and in order."""
    rng = random.Random(7)
    for _ in range(KILLS):
        await asyncio.sleep(rng.uniform(0.05, 1.5))
        await stand.controller.program.stop(signal.SIGKILL)
        await stand.controller.start()
    await stand.controller.wait_for(phase="Paused")
    steps = [("v2", 500), ("v2", 2500), ("v2", 5000)]

    async def have_been_looked_at() -> bool:
        return all(seen[-1:] == steps[-1:] for seen in stand.weights)

    await until(have_been_looked_at)
    assert [seen[-3:] for seen in stand.weights] == [steps, steps], stand.controller.program.log
    assert all(set(seen[:-3]) <= {(None, 0)} for seen in stand.weights)
    status, _ = await stand.controller.act("Promote")
    assert status == 200
    await stand.controller.wait_for(phase="Healthy", revision__stable="v2")

    async def have_ended() -> bool:
        # Full at 100 % lasts some milliseconds, so a look may miss it.
        rest = [[step for step in seen[-2:] if step != ("v2", 10_000)] for seen in stand.weights]
        return all(seen in ([(None, 0)], [("v2", 5000), (None, 0)]) for seen in rest)

    await until(have_ended)


async def test_aborted_while_the_controller_is_dead(stand: Stand) -> None:
    """B8: at one proxy by its own API; the controller finds it, latches the other, and only a retry goes on."""
    await stand.controller.wait_for(weight__programmed="5.00")
    await stand.controller.program.stop(signal.SIGKILL)
    latch = await stand.proxies[1].abort()
    await stand.controller.start()
    status = await stand.controller.wait_for(phase="Aborted", plan__current=2)
    assert status["abort"] == {"id": latch["id"], "revision": "v2", "by": "test", "reason": "Latched"}
    assert [(await proxy.state())["latch"]["id"] for proxy in stand.proxies] == [latch["id"]] * 2
    assert (await stand.controller.act("Retry"))[0] == 200
    await stand.controller.wait_for(weight__programmed="25.00")
    assert [(await proxy.state())["latch"] for proxy in stand.proxies] == [None, None]


async def test_a_proxy_that_is_away_is_waited_for_and_caught_up(stand: Stand) -> None:
    """Killed in mid-rollout: the rollout holds, an abort reaches it on its return, before any plan."""
    await stand.controller.wait_for(weight__programmed="5.00", plan__current=2)
    await stand.proxies[1].stop(signal.SIGKILL)
    await stand.controller.wait_for(phase="Holding", verdict__reason="ProxyUnreachable")
    assert (await stand.controller.act("Promote"))[0] == 409
    code, answer = await stand.controller.act("Abort")
    assert code == 200
    assert "1 of 2 proxies are latched" in answer["message"]
    await stand.controller.wait_for(phase="Degraded")
    await stand.proxies[1].start()
    await stand.controller.wait_for(phase="Aborted", plan__current=2)

    async def is_latched() -> bool:
        return bool((await stand.proxies[1].state())["latch"])

    await until(is_latched)


FAILING = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
WELL = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


async def test_a_breaker_of_one_proxy_aborts_everywhere(tmp_path: Path, free_port: Callable[[], int]) -> None:
    """B8: the proxy acts by itself, the controller latches the other one and tells the proxy's reason."""
    async with service(replies(WELL)) as (_, stable), service(replies(FAILING)) as (_, canary):
        spec = document()
        spec["spec"] |= {
            "stable": {"addresses": [f"127.0.0.1:{stable}"], "revision": "v1"},
            "canary": {"addresses": [f"127.0.0.1:{canary}"], "revision": "v2"},
            "users": [{"header": {"name": "X-User-Id", "trust": "Anyone"}}],
            "strategy": {"canary": {"steps": [{"setWeight": 50}, {"pause": {}}]}},
            "breaker": {"errorPercent": 50, "requests": 10},
        }
        async with standing(Stand(tmp_path, free_port(), spec)) as stand:
            await stand.controller.wait_for(phase="Paused")
            tripping, other = stand.proxies
            async with aiohttp.ClientSession() as session:
                user = 0
                while (await tripping.state())["latch"] is None:
                    user += 1
                    url = f"http://127.0.0.1:{tripping.port}/"
                    async with session.get(url, headers={"X-User-Id": str(user)}) as answer:
                        assert answer.status in (200, 500)
            status = await stand.controller.wait_for(phase="Aborted", plan__current=2)
            latch = (await tripping.state())["latch"]
            assert (latch["by"], latch["revision"]) == ("breaker", "v2")
            assert status["abort"] == {"id": latch["id"], "revision": "v2", "by": "breaker", "reason": "BreakerTripped"}
            assert (await other.state())["latch"]["id"] == latch["id"]
            degraded = next(condition for condition in status["conditions"] if condition["type"] == "Degraded")
            assert latch["reason"] in degraded["message"]
