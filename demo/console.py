"""The demo's own server: the page with the grid of users, and what its buttons ask of the app and the controller.

The page is reached through the proxy (the shop forwards ``/demo/``), so that what it sends are a visitor's requests.
"""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from aiohttp import web

from demo.board import Board

PAGE = Path(__file__).parent / "page"
FILES = {
    "": ("index.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
}
VERBS = ("Promote", "PromoteFull", "Pause", "Resume", "Abort", "Retry")
COLOURS = ("#3b82f6", "#f59e0b", "#10b981", "#a855f7", "#ec4899", "#14b8a6")  # no red: that is a flip
TURNED = frozenset(("errorPercent", "latencyMs", "colour"))  # of the canary, by the page
QUALITIES = {"good": 0.1, "bad": 3.0}  # per cent of errors
OWN_HOSTS = ("localhost", "127.0.0.1", "[::1]")
MAX_BODY_BYTES = 4 * 1_048_576  # a report of 2,000 users is 0.5 MB
SECURITY = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class Refused(Exception):
    """What a button asked for cannot be done; the message is for the person who pressed it."""


class Rollout(Protocol):
    """The controller, as far as the page needs it."""

    @property
    def document(self) -> dict[str, Any]:
        """The rollout with its status; empty while the controller has not answered."""

    async def act(self, verb: str, **values: Any) -> str:
        """Carry out an action; the controller's message, or `Refused`."""


@dataclass(slots=True)
class App:
    """One running instance of the shop.

    Attributes:
        behaviour: What it is like now, as its ``POST /behaviour`` spells it.
        tell: Tells it a new behaviour and returns the whole; `Refused` if it makes no sense.
    """

    port: int
    behaviour: dict[str, Any]
    tell: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

    @property
    def version(self) -> str:
        """The revision that it is."""
        return str(self.behaviour["version"])

    async def change(self, values: dict[str, Any]) -> None:
        """Make it another."""
        self.behaviour = await self.tell(values)


@dataclass(slots=True)
class Console:
    """What the page shows and does.

    Attributes:
        secret: Part of the path by which the load generator reports.
        links: Addresses to show, by name.
    """

    apps: list[App]
    rollout: Rollout
    secret: str
    links: dict[str, str] = field(default_factory=dict)
    board: Board = field(default_factory=Board)

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_only_own_hosts])
        app.router.add_get("/", self._to_page)
        app.router.add_get("/demo/{file:|page.js|page.css}", self._file)
        app.router.add_get("/demo/state", self._state)
        app.router.add_post("/demo/action", self._button(self._act))
        app.router.add_post("/demo/canary", self._button(self._make))
        app.router.add_post(f"/report/{self.secret}", self._report)
        return app

    def canary(self) -> App:
        """The app that is not stable: on trial, or next to be."""
        stable = _at(self.rollout.document, "status", "revision", "stable")
        return next((app for app in self.apps if app.version != stable), self.apps[-1])

    async def start(self, version: str | None = None) -> str:
        """Put the canary's app on trial, as a new version or as the one it is."""
        app = self.canary()
        if version:
            colour = COLOURS[(int(version[1:]) - 1) % len(COLOURS)]
            await app.change({"version": version, "colour": colour})
        return await self.rollout.act("Start", revision=app.version, addresses=[f"127.0.0.1:{app.port}"])

    async def _next(self) -> str:
        phase = _at(self.rollout.document, "status", "phase")
        if phase not in ("Healthy", "Aborted", "Degraded"):
            raise Refused(f"a rollout is under way ({phase}): promote or abort it first")
        newest = max(int(app.version[1:]) for app in self.apps)
        return await self.start(f"v{newest + 1}")

    async def _act(self, values: dict[str, Any]) -> str:
        verb = values.get("verb")
        if verb == "Next":
            return await self._next()
        if verb not in VERBS:
            raise Refused(f"expected one of {', '.join((*VERBS, 'Next'))}, got {verb!r}")
        return await self.rollout.act(verb)

    async def _make(self, values: dict[str, Any]) -> str:
        if not values or not set(values) <= TURNED:
            raise Refused(f"expected any of {', '.join(sorted(TURNED))}")
        app = self.canary()
        await app.change(values)
        now = app.behaviour
        return f"{now['version']} answers {now['errorPercent']:g} % with an error, after {now['latencyMs']:g} ms"

    def _button(
        self, act: Callable[[dict[str, Any]], Awaitable[str]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def press(request: web.Request) -> web.Response:
            values = await _own_json(request)
            try:
                return web.json_response({"message": await act(values)})
            except Refused as refusal:
                return web.json_response({"error": str(refusal)}, status=409)

        return press

    async def _to_page(self, request: web.Request) -> web.Response:
        raise web.HTTPFound(self.links.get("page", "/demo/"))

    async def _file(self, request: web.Request) -> web.Response:
        name, kind = FILES[request.match_info["file"]]
        body = (PAGE / name).read_bytes()
        return web.Response(body=body, content_type=kind, charset="utf-8", headers=SECURITY)

    async def _state(self, _: web.Request) -> web.Response:
        canary = self.canary()
        state = {
            "board": self.board.view(),
            "rollout": self.rollout.document,
            "apps": [app.behaviour for app in self.apps],
            "canary": canary.version,
            "links": self.links,
        }
        return web.json_response(state, headers={"Cache-Control": "no-store"})

    async def _report(self, request: web.Request) -> web.Response:
        try:
            self.board.take(json.loads(await request.read()), time.monotonic())
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=422)
        return web.Response(status=204)


@web.middleware
async def _only_own_hosts(
    request: web.Request, handler: Callable[..., Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """A name that somebody else's DNS points at this machine must not reach it (DNS rebinding)."""
    if _hostname(request.host) not in OWN_HOSTS:
        raise web.HTTPMisdirectedRequest(text="this is only for " + " and ".join(OWN_HOSTS))
    return await handler(request)


async def _own_json(request: web.Request) -> dict[str, Any]:
    """The object that the page itself sends: no other site can send this kind of content without being asked first.

    Raises:
        web.HTTPException: Another origin, or no JSON object.
    """
    origin = request.headers.get("Origin")
    if origin is None or urlsplit(origin).netloc.lower() != request.host.lower():
        raise web.HTTPForbidden(text="only the demo's own page may press its buttons")
    if request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(text="expected application/json")
    try:
        values = await request.json()
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise web.HTTPUnprocessableEntity(text="expected a JSON object")
    return values


def _hostname(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdecimal() else host).lower()


def _at(value: Any, *path: str) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


async def serve(console: Console, port: int) -> web.AppRunner:
    """Listen on a port of loopback; the caller cleans up what is returned.

    Raises:
        OSError: The port is taken.
    """
    runner = web.AppRunner(console.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner
