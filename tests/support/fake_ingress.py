"""A proxy that splits users as the contract says, with one service behind each arm, and lies or breaks on demand."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from proxy.assign import bucket

COOKIE = "cohort_shop"
Fault = Callable[
    [int, str], str
]  # request number and path to one of: "", flip, misrouted, 500, 503, truncate, reset, stale, silent


@dataclass
class FakeProxy:
    """One plan that tests may change between requests.

    Attributes:
        fault: Asked at each request; the number counts from 1.
        explain: Whether answers are explained to who asks.
    """

    generation: int = 1
    weight_bp: int = 2500
    revision: str = "v2"
    explain: bool = True
    aborted: bool = False
    fault: Fault = lambda number, path: ""
    url: str = ""
    keys: set[str] = field(default_factory=set)
    connections: set[object] = field(default_factory=set)
    paths: list[str] = field(default_factory=list)
    reports: list[dict[str, object]] = field(default_factory=list)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def plan(self) -> dict[str, object]:
        """As a proxy's ``GET /plan`` tells it."""
        canary = {"name": "canary", "revision": self.revision, "weightBp": self.weight_bp}
        stable = {"name": "stable", "revision": "v1", "weightBp": 10_000 - self.weight_bp}
        return {
            "rollout": {"namespace": "shop", "name": "checkout", "uid": "1"},
            "generation": self.generation,
            "revision": self.revision,
            "arms": [stable, canary],
        }

    async def answer(self, request: web.Request) -> web.StreamResponse:
        number = next(self.numbers)
        is_reused = request.transport in self.connections
        self.connections.add(request.transport)
        self.paths.append(f"{request.method} {request.path}")
        key = request.headers.get("X-User-Id") or request.cookies.get(COOKIE) or f"minted-{number}"
        self.keys.add(key)
        fault = self.fault(number, request.path)
        transport = request.transport
        assert transport is not None
        if fault == "silent":
            await asyncio.sleep(0.6)
        if fault in ("reset", "silent") or (fault == "stale" and is_reused):
            transport.abort()
            return web.Response()
        response = web.StreamResponse(status=int(fault) if fault.isdecimal() else 200)
        in_canary = bucket(key.encode().ljust(16)[:16], self.revision.encode().ljust(32)) < self.weight_bp
        if (in_canary and not self.aborted) != (fault == "flip"):
            arm, revision, reason = "canary", self.revision, "split"
        else:
            arm, revision, reason = "stable", "v1", "abort" if self.aborted else "split"
        if self.explain and request.headers.get("X-Cohort-Explain") == "1":
            response.headers.update(
                {"X-Cohort-Arm": arm, "X-Cohort-Revision": revision, "X-Cohort-Reason": reason}
                | {"X-Cohort-Generation": str(self.generation), "X-Cohort-Rollout": "shop/checkout"}
            )
        if fault not in ("502", "503", "504"):
            response.headers["X-Version"] = "v9" if fault == "misrouted" else revision
        if key.startswith("minted"):
            response.set_cookie(COOKIE, key, path="/", httponly=True)
        response.content_length = 200
        await response.prepare(request)
        await response.write(b"x" * 100)
        if fault == "truncate":
            transport.close()
            return response
        await response.write(b"x" * 100)
        await response.write_eof()
        return response

    async def tell_plan(self, request: web.Request) -> web.Response:
        return web.json_response(self.plan)

    async def report(self, request: web.Request) -> web.Response:
        self.reports.extend((await request.json())["users"])
        return web.Response(status=204)


@asynccontextmanager
async def running(proxy: FakeProxy) -> AsyncIterator[FakeProxy]:
    """Serve on a free loopback port."""
    app = web.Application()
    app.router.add_get("/fake/plan", proxy.tell_plan)
    app.router.add_post("/fake/report", proxy.report)
    app.router.add_route("*", "/{path:.*}", proxy.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield proxy
    finally:
        await runner.cleanup()
