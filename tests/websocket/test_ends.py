"""Both ends of tunnels do anything at any time: whatever it is, nothing stays open, and nothing breaks inside."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import socket
import struct

import pytest

from proxy.websocket import accept
from tests.support.dataplane import REPLY, Handler, Proxy, Service, plan, service

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ASK = (
    b"GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: %b\r\n\r\n" % KEY
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept(KEY)
)
QUICK = {
    "timeouts": {"bodyIdle": "700ms", "tunnelIdle": "700ms", "head": "1s", "keepAlive": "1s", "upstreamKeepAlive": "1s"}
}


async def act(rng: random.Random, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A few steps, then the end."""
    transport = writer.transport
    for _ in range(rng.randrange(1, 8)):
        step = rng.random()
        if transport.is_closing():
            break
        if step < 0.6:
            writer.write(os.urandom(rng.choice([1, 5, 200, 70_000, 400_000])))
        elif step < 0.66:
            writer.write(b"\x88\x02\x03\xe8")
        elif step < 0.74:
            with contextlib.suppress(OSError):
                writer.write_eof()
            break
        elif step < 0.8:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            break
        elif step < 0.9:
            reader._transport.pause_reading()  # type: ignore[attr-defined]
        else:
            reader._transport.resume_reading()  # type: ignore[attr-defined]
        await asyncio.sleep(rng.choice([0, 0, 0.001, 0.02]))
    await asyncio.sleep(rng.choice([0, 0.05, 0.3]))
    transport.abort()


def whims(rng: random.Random) -> object:
    """A service that refuses, breaks off within its 101, or switches and does anything."""

    def handler(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            await asyncio.sleep(rng.choice([0, 0, 0.05]))
            mood = rng.random()
            if mood < 0.1:
                writer.write(SWITCH[: rng.randrange(len(SWITCH))])
            elif mood < 0.2:
                writer.write(REPLY)
            else:
                writer.write(SWITCH + os.urandom(rng.choice([0, 10])))
                await act(rng, reader, writer)

        return serve

    return handler


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_stays_open(seed: int, caplog: pytest.LogCaptureFixture) -> None:
    """F31 for tunnels: connections, places and buffered bytes are back to none."""
    rng = random.Random(seed)

    async def client(proxy: Proxy) -> None:
        reader, writer = await proxy.open()
        cut = rng.randrange(len(ASK))
        writer.write(ASK[:cut])
        await asyncio.sleep(0)
        writer.write(ASK[cut:] + os.urandom(rng.choice([0, 0, 0, 10, 50_000, 66_000])))
        await act(rng, reader, writer)

    async with service(whims(rng)) as (_, port), Proxy(QUICK) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], [port], 5_000, users=[{"mint": {}}]))
        for _ in range(3):
            async with asyncio.TaskGroup() as tasks:
                for _ in range(50):
                    tasks.create_task(client(proxy))
        async with asyncio.timeout(30):
            while proxy.server.connections or proxy.server.upstreams:
                await asyncio.sleep(0.05)
        assert proxy.server.buffered == 0
        view = proxy.server.view()
        assert view is not None
        assert [arm.room.busy for arm in view.arms] == [0, 0]
        assert [endpoint.active for arm in view.arms for endpoint in arm.endpoints] == [0, 0]
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
