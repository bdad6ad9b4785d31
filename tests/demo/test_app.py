"""The example shop: what it is told to be like, it is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer

from demo.app import VERSION_HEADER, Behaviour, Shop, changed, from_environment

Client = TestClient[Any, Any]
THROUGH_PROXY = {
    "X-Cohort-Arm": "canary",
    "X-Cohort-Revision": "v2",
    "X-Cohort-Reason": "preview",
    "X-Cohort-Generation": "7",
    "X-Cohort-Rollout": "demo/shop",
}


@asynccontextmanager
async def serving(behaviour: Behaviour, console: str = "") -> AsyncIterator[Client]:
    shop = Shop(behaviour, Random(1), console)
    async with TestClient(TestServer(shop.application())) as client:
        yield client


GOOD = Behaviour("v2", "#f59e0b", 0.0, 0.0)


async def test_every_answer_names_the_version() -> None:
    """The load generator compares what the service says of itself with what the proxy says."""
    async with serving(GOOD) as shop:
        for path in ("/", "/product", "/cart", "/payments", "/api/me"):
            async with shop.get(path) as response:
                assert (response.status, response.headers[VERSION_HEADER]) == (200, "v2")
        async with shop.post("/checkout") as response:
            assert await response.json() == {"ordered": True, "version": "v2"}
        async with shop.get("/") as response:
            page = await response.text()
    assert "Shop v2" in page
    assert "#f59e0b" in page


async def test_the_service_tells_what_the_proxy_told_it() -> None:
    """surface.md, "On the wire": the decision travels inward."""
    async with serving(GOOD) as shop, shop.get("/api/me", headers=THROUGH_PROXY) as response:
        me = await response.json()
        assert response.headers["Cache-Control"] == "no-store"
    assert me == {
        "version": "v2", "colour": "#f59e0b", "arm": "canary", "revision": "v2", "reason": "preview", "generation": "7",
        "rollout": "demo/shop", "pinned": False,
    }  # fmt: skip
    async with serving(GOOD) as shop, shop.get("/api/me", headers={"Cookie": "cohort_shop_preview=x"}) as response:
        assert (await response.json())["pinned"] is True


async def test_errors_come_at_their_rate_and_repeat_with_the_seed() -> None:
    """3 % of the shop's answers: a seed makes them the same ones."""

    async def errors() -> list[int]:
        async with serving(Behaviour("v2", "#f59e0b", 3.0, 0.0)) as shop:
            statuses = []
            for _ in range(400):
                async with shop.get("/") as response:
                    statuses.append(response.status)
        return [i for i, status in enumerate(statuses) if status == 500]

    first = await errors()
    assert first == await errors()
    assert 4 <= len(first) <= 24  # 12 +- 3.5 sigma


async def test_a_visitor_who_asks_who_he_is_meets_no_error() -> None:
    """Errors are the shop's: the page that shows the versions works with every version."""
    async with serving(Behaviour("v2", "#f59e0b", 100.0, 0.0)) as shop:
        async with shop.get("/api/me") as response:
            assert response.status == 200
        async with shop.get("/") as response:
            assert (response.status, response.headers[VERSION_HEADER]) == (500, "v2")


async def test_it_is_changed_while_it_runs() -> None:
    """By the demo's server, which asks it directly."""
    async with serving(GOOD) as shop:
        async with shop.post("/behaviour", json={"version": "v3", "errorPercent": 100}) as response:
            assert response.status == 200
        async with shop.get("/") as response:
            assert (response.status, response.headers[VERSION_HEADER]) == (500, "v3")


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        pytest.param(THROUGH_PROXY, "application/json", 404, id="a customer through the proxy"),
        pytest.param({}, "text/plain", 404, id="a form of another site"),
        pytest.param({}, "application/json", 422, id="not understood"),
    ],
)
async def test_others_change_nothing(headers: dict[str, str], content: str, status: int) -> None:
    """Whoever comes through the proxy is a customer; another site's form is not JSON."""
    async with serving(GOOD) as shop:
        headers = headers | {"Content-Type": content}
        async with shop.post("/behaviour", data='{"errorPercent": 500}', headers=headers) as response:
            assert response.status == status
        async with shop.get("/") as response:
            assert response.status == 200


@pytest.mark.parametrize(
    "values",
    [
        None, [], {}, {"speed": 1}, {"errorPercent": -1}, {"errorPercent": 101}, {"errorPercent": "1"},
        {"errorPercent": True}, {"latencyMs": float("nan")}, {"latencyMs": 10_001}, {"version": ""},
        {"version": "a\r\nb"}, {"version": 3}, {"colour": "red;}"}, {"colour": "#fff"},
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(values: object) -> None:
    """A colour goes into a style sheet and a version into a header: only plain ones."""
    with pytest.raises(ValueError, match="expected"):
        changed(GOOD, values)


def test_the_environment_sets_it() -> None:
    """The issue, "The demo": version, colour, error rate and latency by environment."""
    told = {"DEMO_VERSION": "v7", "DEMO_COLOUR": "#000000", "DEMO_ERROR_PERCENT": "3", "DEMO_LATENCY_MS": "20"}
    assert from_environment(told) == Behaviour("v7", "#000000", 3.0, 20.0)
    assert from_environment({}) == Behaviour()
    with pytest.raises(ValueError, match="could not convert"):
        from_environment({"DEMO_LATENCY_MS": "soon"})


async def test_the_page_of_the_demo_is_below_the_shop() -> None:
    """One origin for both: so the page's own requests carry headers and cookies through the proxy."""
    seen: list[tuple[str, str, str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.method, request.raw_path, request.headers.get("Origin")))
        return web.Response(text=f"{request.host} {await request.text()}", headers={"X-Internal": "1"})

    console = web.Application()
    console.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(console) as server, serving(GOOD, str(server.make_url("")).rstrip("/")) as shop:
        async with shop.post("/demo/action?x=1", data=b"{}", headers={"Origin": "http://a", "Host": "b:1"}) as response:
            assert await response.text() == "b:1 {}"
            assert "X-Internal" not in response.headers
        async with shop.get("/demo", allow_redirects=False) as response:
            assert (response.status, response.headers["Location"]) == (302, "/demo/")
    assert seen == [("POST", "/demo/action?x=1", "http://a")]


async def test_without_the_demos_server_the_shop_goes_on() -> None:
    """A dead page is no reason for a dead shop."""
    async with serving(GOOD, "http://127.0.0.1:9") as shop:
        async with shop.get("/demo/state") as response:
            assert response.status == 502
        async with shop.get("/") as response:
            assert response.status == 200


@pytest.mark.parametrize(
    ("arguments", "address"), [((), "127.0.0.1"), (("--host", "127.0.0.2"), "127.0.0.2")], ids=["loopback", "host"]
)
async def test_the_port_is_told_on_standard_output(arguments: tuple[str, ...], address: str) -> None:
    """Whoever starts it lets the system choose the port and reads it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "demo.app", *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    port = int(await process.stdout.readline())
    async with ClientSession() as session, session.get(f"http://{address}:{port}/healthz") as response:
        assert await response.json() == {"version": "v1"}
    process.terminate()
    assert await process.wait() == 0
