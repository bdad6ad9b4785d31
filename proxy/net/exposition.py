"""Metrics and probes, for whoever can reach the port: ``GET /metrics /ready /healthz`` and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from proxy.metrics import CohortCollector
from proxy.net.admin import Handler, errors_are_json, probes

if TYPE_CHECKING:
    from proxy.net.supervisor import Supervisor


def exposition_app(supervisor: Supervisor) -> web.Application:
    """The application of the metrics port; each connection serves one request."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(CohortCollector(supervisor.snapshot))

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    app = web.Application(middlewares=[_one_request, errors_are_json], client_max_size=1024)
    app.add_routes([*probes(supervisor), web.get("/metrics", metrics)])
    return app


@web.middleware
async def _one_request(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    response.force_close()
    return response
