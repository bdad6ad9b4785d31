"""A controller's own port in a cluster: ``GET /metrics /healthz``, for whoever can reach it, and nothing else.

What people ask for are objects, so there is no other API here. Health is that the process answers, never that the API
server does: a controller that is started anew for its sake would forget what it knows.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web

from controller.net.kube.once import Once
from proxy.net.web import Site

RETRY_S = 5.0  # a port that is taken: aborts do not wait for it
NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)

log = logging.getLogger("cohort.kube")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def serve(listen: str, render: Callable[[], str]) -> None:
    """Answer until cancelled.

    Args:
        listen: ``HOST:PORT``; an empty host is every address of both families.
        render: Makes the text that Prometheus reads.
    """
    problems = Once()
    while True:
        try:
            sock = opened(listen)
            break
        except OSError as error:
            problems.say(f"kube.metrics.listen {listen}: {error.strerror or error}: no metrics, tried again")
        await asyncio.sleep(RETRY_S)
    site = Site(application(render), [sock])
    try:
        await site.open()
        log.info("metrics on %s", listen)
        await asyncio.Event().wait()
    finally:
        await site.close()


def opened(listen: str) -> socket.socket:
    """A listening socket; raises `OSError`."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    if not host and socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in NO_IPV6:
                raise
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family)


def application(render: Callable[[], str]) -> web.Application:
    """The routes; each connection serves one request."""

    async def metrics(_: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=render().encode(), headers=headers)

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"healthy": True})

    app = web.Application(middlewares=[_one_request], client_max_size=1024)
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz)])
    return app


@web.middleware
async def _one_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    response.force_close()
    return response
