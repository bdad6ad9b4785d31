"""A `FakeProxy` on a socket, as the real admin API would answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from proxy.plan import parse_plan
from tests.support.fake_proxy import FakeProxy


class FakeAdmin:
    """The admin API of one fake proxy.

    Attributes:
        delay_s: How long every answer takes; a hanging proxy has a large one.
        before_put: Awaited before a plan comes into force.
        requests: Method and path of each request.
    """

    def __init__(self, proxy: FakeProxy, token: str | None = None) -> None:
        self.proxy = proxy
        self.delay_s = 0.0
        self.before_put: Callable[[], Any] | None = None
        self.requests: list[str] = []
        self._token = token

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._doors])
        app.add_routes(
            [
                web.get("/state", self._state),
                web.get("/stats", self._stats),
                web.get("/plan", self._plan),
                web.put("/plan", self._put),
                web.post("/abort", self._abort),
            ]
        )
        return app

    @web.middleware
    async def _doors(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        if self._token and request.headers.get("Authorization") != f"Bearer {self._token}":
            return web.json_response({"error": "token"}, status=401)
        if request.method != "GET" and request.content_type != "application/json":
            return web.json_response({"error": "content type"}, status=415)
        await asyncio.sleep(self.delay_s)
        if not self.proxy.is_up:
            assert request.transport is not None
            request.transport.abort()
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _state(self, request: web.Request) -> web.Response:
        return web.json_response(self.proxy.state())

    async def _stats(self, request: web.Request) -> web.Response:
        return web.json_response(self.proxy.stats(time.time()))

    async def _plan(self, request: web.Request) -> web.Response:
        plan = self.proxy.plan
        if plan is None:
            return web.json_response({"error": "no plan"}, status=404)
        return web.Response(text=plan.model_dump_json(by_alias=True), content_type="application/json")

    async def _put(self, request: web.Request) -> web.Response:
        if_match = request.headers.get("If-Match")
        if if_match is None:
            return web.json_response({"error": "If-Match"}, status=428)
        plan = parse_plan(await request.read())
        if self.before_put:
            await self.before_put()
        status, body = self.proxy.put(plan, if_match)
        return web.json_response(body, status=status)

    async def _abort(self, request: web.Request) -> web.Response:
        body = await request.json()
        status, answer = self.proxy.abort(body["by"], body["id"], body.get("reason", ""))
        return web.json_response(answer, status=status)


@asynccontextmanager
async def serving(admin: FakeAdmin, path: str) -> AsyncIterator[str]:
    """Serve on a Unix socket; gives the address as settings have it."""
    runner = web.AppRunner(admin.application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.UnixSite(runner, path).start()
        yield f"unix:{path}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def serving_port(admin: FakeAdmin) -> AsyncIterator[str]:
    """Serve on a loopback port; gives the address as settings have it."""
    runner = web.AppRunner(admin.application(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
