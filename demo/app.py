"""The example service: a small shop whose version, colour, errors and slowness are told it, and changed while it runs.

``python -m demo.app`` reads ``DEMO_*`` from the environment and prints the port it listens on, on loopback unless
``--host ADDRESS`` names another address, as a container needs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from random import Random
from typing import Any

import aiohttp
from aiohttp import web

VERSION_HEADER = "X-App-Version"
LOOPBACK = "127.0.0.1"
PAGES = {"/": "Everything for the garden", "/product": "A watering can", "/cart": "Your cart", "/payments": "Payment"}
TOLD = ("Arm", "Revision", "Reason", "Generation", "Rollout")  # the fields by which the proxy tells the service
FORWARDED = (
    "Accept",
    "Content-Type",
    "Origin",
    "Sec-Fetch-Site",
    "Host",
)  # what the demo's page is served and checked by
CONSOLE_BODY_BYTES = 65_536
CONSOLE_S = 15.0

_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What one running version is like.

    Attributes:
        colour: As CSS writes it, ``#rrggbb``.
        error_percent: Share of the shop's answers that are a 500.
        latency_ms: Added to each answer of the shop.
    """

    version: str = "v1"
    colour: str = "#3b82f6"
    error_percent: float = 0.1
    latency_ms: float = 5.0


NAMES = {"version": "version", "colour": "colour", "errorPercent": "error_percent", "latencyMs": "latency_ms"}


def as_json(behaviour: Behaviour) -> dict[str, Any]:
    """What `changed` takes."""
    return {name: getattr(behaviour, attribute) for name, attribute in NAMES.items()}


def changed(behaviour: Behaviour, values: object) -> Behaviour:
    """The behaviour with some values replaced.

    Args:
        behaviour: What there is.
        values: As JSON has them: any of ``version``, ``colour``, ``errorPercent``, ``latencyMs``.

    Raises:
        ValueError: An unknown name, or a value that makes no sense.
    """
    if not isinstance(values, Mapping) or not values or not set(values) <= set(NAMES):
        raise ValueError(f"expected an object with any of {', '.join(NAMES)}")
    for name in ("errorPercent", "latencyMs"):
        limit = 100 if name == "errorPercent" else 10_000
        number = values.get(name, 0)
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= limit:
            raise ValueError(f"{name}: expected a number from 0 to {limit}, got {number!r}")
    for name, pattern in (("version", _VERSION), ("colour", _COLOUR)):
        text = values.get(name)
        if name in values and not (isinstance(text, str) and pattern.fullmatch(text)):
            raise ValueError(f"{name}: expected {pattern.pattern}, got {text!r}")
    return replace(behaviour, **{NAMES[name]: value for name, value in values.items()})


def from_environment(env: Mapping[str, str]) -> Behaviour:
    """The behaviour that ``DEMO_VERSION``, ``DEMO_COLOUR``, ``DEMO_ERROR_PERCENT`` and ``DEMO_LATENCY_MS`` tell.

    Raises:
        ValueError: A value that makes no sense.
    """
    told: dict[str, Any] = {}
    for variable, name in (("DEMO_VERSION", "version"), ("DEMO_COLOUR", "colour")):
        if variable in env:
            told[name] = env[variable]
    for variable, name in (("DEMO_ERROR_PERCENT", "errorPercent"), ("DEMO_LATENCY_MS", "latencyMs")):
        if variable in env:
            told[name] = float(env[variable])
    return changed(Behaviour(), told) if told else Behaviour()


class Shop:
    """The service.

    Args:
        rng: Decides which answers are errors; seeded, a run's errors repeat.
        console: URL of the demo's own server, whose page lies below ``/demo/``; empty: none.

    Attributes:
        behaviour: What it is like now.
    """

    def __init__(self, behaviour: Behaviour, rng: Random, console: str = "") -> None:
        self.behaviour = behaviour
        self._rng = rng
        self._console = console

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=CONSOLE_BODY_BYTES)
        for path in PAGES:
            app.router.add_get(path, self._shop(self._page))
        app.router.add_post("/checkout", self._shop(self._checkout))
        app.router.add_get("/api/me", self._me)
        app.router.add_get("/healthz", self._health)
        app.router.add_post("/behaviour", self._change)
        if self._console:
            app.router.add_get("/demo", self._to_console)
            app.router.add_route("*", "/demo/{path:.*}", self._forward)
            app.cleanup_ctx.append(self._with_client)
        return app

    def _shop(self, handler: Callable[[web.Request], web.Response]) -> Handler:
        async def answer(request: web.Request) -> web.Response:
            now = self.behaviour
            if now.latency_ms:
                await asyncio.sleep(now.latency_ms / 1000)
            is_error = self._rng.random() * 100 < now.error_percent
            response = self._sorry() if is_error else handler(request)
            response.headers[VERSION_HEADER] = now.version
            return response

        return answer

    def _page(self, request: web.Request) -> web.Response:
        return self._html(200, PAGES[request.path], _told_as_text(request))

    def _checkout(self, request: web.Request) -> web.Response:
        return web.json_response({"ordered": True, "version": self.behaviour.version})

    def _sorry(self) -> web.Response:
        return self._html(500, "Something went wrong", "This version answers some requests with an error.")

    async def _me(self, request: web.Request) -> web.Response:
        """What the page asks to learn which version this browser has: what the proxy told the service."""
        me: dict[str, Any] = {"version": self.behaviour.version, "colour": self.behaviour.colour}
        me |= {name.lower(): request.headers.get(f"X-Cohort-{name}", "") for name in TOLD}
        me["pinned"] = any(name.startswith("cohort_") and name.endswith("_preview") for name in request.cookies)
        headers = {VERSION_HEADER: self.behaviour.version, "Cache-Control": "no-store"}
        return web.json_response(me, headers=headers)

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"version": self.behaviour.version})

    async def _change(self, request: web.Request) -> web.Response:
        """For the demo's server alone: whoever comes through the proxy is a customer."""
        if "X-Cohort-Arm" in request.headers or request.content_type != "application/json":
            raise web.HTTPNotFound
        try:
            self.behaviour = changed(self.behaviour, await request.json())
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=422)
        return web.json_response(as_json(self.behaviour))

    async def _to_console(self, request: web.Request) -> web.Response:
        raise web.HTTPFound("/demo/")

    async def _with_client(self, app: web.Application) -> Any:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(CONSOLE_S)) as session:
            self._client = session
            yield

    async def _forward(self, request: web.Request) -> web.Response:
        """The demo's page is of one origin with the shop: so it can send headers and cookies through the proxy."""
        headers = {name: request.headers[name] for name in FORWARDED if name in request.headers}
        body, url = await request.read(), self._console + request.raw_path
        try:
            async with self._client.request(
                request.method, url, headers=headers, data=body, allow_redirects=False
            ) as got:
                kept = ("Content-Type", "Cache-Control", "Content-Security-Policy", "X-Content-Type-Options")
                fields = {name: got.headers[name] for name in kept if name in got.headers}
                return web.Response(status=got.status, body=await got.read(), headers=fields)
        except (aiohttp.ClientError, TimeoutError):
            return web.json_response({"error": "the demo's server does not answer: is it still running?"}, status=502)

    def _html(self, status: int, title: str, text: str) -> web.Response:
        now = self.behaviour
        links = "".join(
            f'<a href="{path}">{name}</a> '
            for path, name in (("/", "Shop"), ("/product", "Product"), ("/cart", "Cart"))
        )
        extra = '<p><a href="/demo/">See all users and the rollout</a></p>' if self._console else ""
        body = (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
            '<meta name="viewport" content="width=device-width"><style>'
            f"body{{font:16px/1.5 system-ui,sans-serif;margin:0;background:{escape(now.colour)}22;color:#1e293b}}"
            f"header{{background:{escape(now.colour)};color:#fff;padding:1em 2em;font-size:1.2em}}"
            "main{max-width:40em;margin:2em auto;padding:0 1em}a{color:inherit}</style>"
            f"<header>Shop {escape(now.version)}</header><main><h1>{escape(title)}</h1><p>{escape(text)}</p>"
            f"<nav>{links}</nav>{extra}</main></html>\n"
        )
        return web.Response(status=status, text=body, content_type="text/html", headers={"Cache-Control": "no-store"})


def _told_as_text(request: web.Request) -> str:
    told = [
        f"{name.lower()} {request.headers[f'X-Cohort-{name}']}"
        for name in TOLD
        if f"X-Cohort-{name}" in request.headers
    ]
    return "The proxy says: " + ", ".join(told) if told else "This request came past the proxy."


async def serve(env: Mapping[str, str], host: str = LOOPBACK) -> int:
    """Serve until SIGTERM or SIGINT.

    Args:
        env: With ``DEMO_*``.
        host: Address to listen on.

    Returns:
        The exit code; 2 where the environment makes no sense.
    """
    try:
        behaviour = from_environment(env)
    except ValueError as error:
        sys.stderr.write(f"demo.app: {error}\n")
        return 2
    shop = Shop(behaviour, Random(env.get("DEMO_SEED")), env.get("DEMO_CONSOLE", ""))
    runner = web.AppRunner(shop.application(), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, host, int(env.get("DEMO_PORT", "0")), backlog=1024)
    await site.start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()
    return 0


def main(arguments: Sequence[str]) -> int:
    """Serve as the arguments and the environment say; the exit code."""
    parser = argparse.ArgumentParser(prog="demo.app", description="The demo's shop; DEMO_* in the environment.")
    parser.add_argument("--host", default=LOOPBACK, metavar="ADDRESS", help="address to listen on, %(default)s")
    return asyncio.run(serve(os.environ, parser.parse_args(arguments).host))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
