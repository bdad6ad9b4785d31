"""A WebSocket service and a client of the library `websockets`, each as Autobahn's cases want them: they echo."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from websockets.asyncio.client import connect
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

AGENT = "echo"
# Peers that break the protocol are what the cases are about; the library reports each with a traceback.
SILENT = logging.getLogger("tests.websocket")
SILENT.addHandler(logging.NullHandler())
SILENT.propagate = False


async def echo(connection: Connection) -> None:
    """Send back every message until the connection ends, in whatever way."""
    with contextlib.suppress(ConnectionClosed):
        async for message in connection:
            await connection.send(message)


@contextlib.asynccontextmanager
async def echo_service() -> AsyncIterator[int]:
    """A service that echoes, and its port."""

    async def handler(connection: ServerConnection) -> None:
        await echo(connection)

    async with serve(
        handler, "127.0.0.1", 0, max_size=None, ping_interval=None, close_timeout=1, logger=SILENT
    ) as server:
        yield next(iter(server.sockets)).getsockname()[1]


async def run_cases(port: int) -> None:
    """Be the client of a fuzzing server: ask how many cases there are, take each, and end the run."""
    base = f"ws://127.0.0.1:{port}"
    async with connect(f"{base}/getCaseCount", proxy=None) as connection:
        count = int(await connection.recv())
    turns = asyncio.Semaphore(8)

    async def run(case: int) -> None:
        url = f"{base}/runCase?case={case}&agent={AGENT}"
        async with (
            turns,
            connect(url, max_size=None, ping_interval=None, close_timeout=1, proxy=None, logger=SILENT) as connection,
        ):
            await echo(connection)

    async with asyncio.TaskGroup() as tasks:
        for case in range(1, count + 1):
            tasks.create_task(run(case))
    async with connect(f"{base}/updateReports?agent={AGENT}", proxy=None):
        pass
