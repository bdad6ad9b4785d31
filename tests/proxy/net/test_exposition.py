"""Metrics and probes, and nothing else."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from proxy.counters import Stats
from proxy.metrics import Snapshot
from proxy.net.exposition import exposition_app
from proxy.net.web import Site
from tests.support.plans import plan
from tests.support.supervised import Answer, exchange, request


class Watched:
    """What the metrics port asks of a supervisor."""

    unready: str | None = None

    def snapshot(self) -> Snapshot:
        return Snapshot(Stats(connections=3), plan(), 1.0, {}, latched=False)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    sock = socket.create_server(("127.0.0.1", 0))
    site = Site(exposition_app(Watched()), [sock])  # type: ignore[arg-type]
    await site.open()
    yield sock.getsockname()[1]
    await site.close()


async def ask(port: int, data: bytes) -> Answer:
    return Answer(await exchange(await asyncio.open_connection("127.0.0.1", port), data))


@pytest.mark.parametrize(
    ("accept", "kind"),
    [("*/*", "text/plain"), ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text")],
)
async def test_metrics_come_in_the_format_asked_for(port: int, accept: str, kind: str) -> None:
    """Prometheus prefers OpenMetrics, a person gets text. Each connection serves one request."""
    answer = await ask(port, f"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n".encode())
    assert answer.status == 200
    assert answer.fields["content-type"].startswith(kind)
    assert answer.fields["connection"] == "close"
    assert b"\ncohort_downstream_connections 3.0\n" in answer.body


async def test_probes_are_answered_whatever_the_host(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kubelet asks by the pod's address."""
    fields = {"Host": "10.0.0.7:8082"}
    assert (await ask(port, request("GET", "/ready", None, fields))).json == {"ready": True}
    assert (await ask(port, request("GET", "/healthz", None, fields))).status == 200
    monkeypatch.setattr(Watched, "unready", "workers are starting")
    answer = await ask(port, request("GET", "/ready", None, fields))
    assert (answer.status, answer.json["reason"]) == (503, "workers are starting")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/plan", 404), ("GET", "/", 404), ("POST", "/abort", 404), ("POST", "/metrics", 405)],
)
async def test_nothing_else_is_there(port: int, method: str, path: str, status: int) -> None:
    """surface.md, Ports: GET /metrics /ready /healthz, nothing else."""
    assert (await ask(port, request(method, path, {"by": "anna"}))).status == status
