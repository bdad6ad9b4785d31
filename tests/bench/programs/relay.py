"""A relay of bytes on uvloop, a floor for proxies in Python: ``python -m tests.bench.programs.relay PORT BACKEND``."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop


class _Side(asyncio.Protocol):
    """One of the two connections; what it reads goes to the other one."""

    transport: asyncio.Transport

    def __init__(self, other: _Side | None, port: int = 0) -> None:
        self.other, self._port = other, port
        self._early = b""  # uvloop reads before there is a connection to the other side, and cannot be paused yet

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.other is None:
            task = asyncio.get_running_loop().create_task(self._connect())
            task.add_done_callback(lambda done: done.exception())
        else:
            self.other.other = self
            self.transport.write(self.other._early)

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: _Side(self), "127.0.0.1", self._port)
        except OSError:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early += data
        else:
            self.other.transport.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.close()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None:
            self.other.transport.resume_reading()


async def main(port: int, backend: int) -> None:
    """Serve until the process is ended."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Side(None, backend), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
