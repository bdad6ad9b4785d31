"""A controller's own port in a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from controller.net.kube import exposition


@contextlib.asynccontextmanager
async def serving(listen: str) -> AsyncIterator[None]:
    task = asyncio.create_task(exposition.serve(listen, lambda: "cohort_x 1\n"))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def taken() -> tuple[socket.socket, int]:
    """A port, and the socket that has it."""
    sock = socket.create_server(("127.0.0.1", 0))
    return sock, sock.getsockname()[1]


async def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    """Ask until somebody listens."""
    async with asyncio.timeout(60), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.request(method, f"http://127.0.0.1:{port}{path}") as answer:
                    return answer.status, await answer.text()
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("host", ["", "127.0.0.1"])
async def test_numbers_and_health_and_nothing_else(host: str) -> None:
    """What people ask for in a cluster are objects: there is no other API."""
    sock, port = taken()
    sock.close()
    async with serving(f"{host}:{port}"):
        assert await get(port, "/metrics") == (200, "cohort_x 1\n")
        assert (await get(port, "/healthz"))[0] == 200
        assert (await get(port, "/api/v1/rollouts"))[0] == 404
        assert (await get(port, "/metrics", "POST"))[0] == 405


async def test_a_port_that_is_taken_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A controller without its numbers still aborts, so it neither ends nor waits for them."""
    monkeypatch.setattr(exposition, "RETRY_S", 0.02)
    sock, port = taken()
    with caplog.at_level(logging.WARNING, "cohort.kube"):
        async with serving(f"127.0.0.1:{port}"):
            while not caplog.messages:
                await asyncio.sleep(0.01)
            sock.close()
            assert (await get(port, "/healthz"))[0] == 200
    assert [f"127.0.0.1:{port}" in message for message in caplog.messages] == [True]
