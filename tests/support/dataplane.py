"""A worker's data plane in this process, scripted services behind it, and raw clients before it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from proxy import shared
from proxy.config import ProxySettings
from proxy.counters import Counters, read
from proxy.document import validate
from proxy.keys import FILE_NAMES, Keys, parse
from proxy.net.accesslog import AccessLog
from proxy.net.credentials import Credentials
from proxy.net.server import Server
from proxy.plan import Plan

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
KEYS: Keys = parse({name: b"%02x" % i * 32 + b"\n" for i, name in enumerate(FILE_NAMES) if "." not in name})
REPLY = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Service:
    """A scripted service: each connection is handed to ``handler``.

    Attributes:
        connections: Connections accepted so far.
        heads: Every request head that `read_head` read, in order.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self.connections = 0
        self.heads: list[bytes] = []

    async def read_head(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        return head

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open[writer] = asyncio.current_task()
        # Cancelled by close() alone; a cancelled task would be logged by asyncio.
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            await self._handler(reader, writer)
        writer.close()
        del self._open[writer]

    def close(self) -> None:
        for writer, task in self._open.items():
            writer.transport.abort()
            if task is not None:
                task.cancel()


@contextlib.asynccontextmanager
async def service(
    handler: Callable[[Service], Handler],
    address: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[Service, int]]:
    """A listening service and its port."""
    running: Service

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await running(reader, writer)

    running = Service(lambda reader, writer: handler(running)(reader, writer))
    server = await asyncio.start_server(forward, address, port, ssl=tls)
    try:
        yield running, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        running.close()
        await server.wait_closed()


def replies(*answers: bytes) -> Callable[[Service], Handler]:
    """A service that answers each request without a body with the next of these, then repeats the last."""

    def handler(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await running.read_head(reader)
                writer.write(answers[min(len(running.heads), len(answers)) - 1])
                await writer.drain()

        return serve

    return handler


def plan(stable: list[int], canary: list[int], canary_bp: int = 0, **changes: Any) -> Plan:
    """A plan over loopback ports."""

    def arm(name: str, revision: str, weight: int, ports: list[int]) -> dict[str, Any]:
        endpoints = [{"address": "127.0.0.1", "port": port} for port in ports]
        return {"name": name, "revision": revision, "weightBp": weight, "endpoints": endpoints}

    document = {
        "rollout": {"namespace": "shop", "name": "checkout", "uid": "11111111-2222-3333-4444-555555555555"},
        "generation": 1,
        "revision": "v2",
        "salt": "5a" * 32,
        "arms": [arm("stable", "v1", 10_000 - canary_bp, stable), arm("canary", "v2", canary_bp, canary)],
        "users": [{"cookie": {"name": "uid"}}],
    }
    return validate(Plan, document | changes)


class Proxy:
    """A running data plane.

    Attributes:
        memory: The counters' region.
        words: Its plan and latch words, as a supervisor would set them.
    """

    def __init__(self, settings: dict[str, Any], credentials: Credentials | None = None) -> None:
        memory = memoryview(bytearray(shared.size(1)))
        self.memory = shared.region(memory, 0)
        self.words = shared.Words(memory)
        self.counters = Counters(self.memory)
        self.server = Server(validate(ProxySettings, settings), KEYS, self.words, self.counters, AccessLog(None, int))
        if credentials is not None:
            self.server.trust(credentials)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._task: asyncio.Task[None] | None = None

    def adopt(self, plan: Plan) -> None:
        sequence = self.words.plan_sequence + 1
        self.server.stage(sequence, plan)
        self.words.plan_sequence = sequence

    async def __aenter__(self) -> Proxy:
        self._task = asyncio.create_task(self.server.serve([(self._socket, 0)]))
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.drain(0, 0)
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._socket.close()

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self, data: bytes) -> bytes:
        """Everything that comes on one connection for these bytes until the proxy closes it."""
        reader, writer = await self.open()
        writer.write(data)
        try:
            async with asyncio.timeout(30):
                return await reader.read()
        finally:
            writer.close()


async def answer(reader: asyncio.StreamReader) -> bytes:
    """One answer with a Content-Length or without a body, head included."""
    async with asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length: "):
                return head + await reader.readexactly(int(line[16:]))
        return head


def series(proxy: Proxy, kind: str) -> dict[tuple[str, ...], int]:
    """The counters of one kind by their labels."""
    found = read([proxy.memory], "11111111-2222-3333-4444-555555555555", "v2").series
    return {labels[1:]: count for labels, count in found.items() if labels[0] == kind}


async def until(look: Callable[[], bool]) -> None:
    """Wait for something that is published now and then; a minute at most, on a machine that does other things."""
    async with asyncio.timeout(60):
        while not look():
            await asyncio.sleep(0.01)
