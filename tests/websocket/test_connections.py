"""WebSocket between a library's two ends through the proxy: what they agree on, many at once, slow ones."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol

from proxy.net.server import Server
from tests.support.dataplane import Proxy, plan, series
from tests.websocket.ends import SILENT, echo

Handler = Callable[[ServerConnection], Awaitable[None]]


@contextlib.asynccontextmanager
async def between(handler: Handler, **options: Any) -> AsyncIterator[tuple[Proxy, str]]:
    """A service, a proxy before it, and the URL to connect to."""
    async with (
        asyncio.timeout(30),
        serve(handler, "127.0.0.1", 0, max_size=None, close_timeout=1, logger=SILENT, **options) as server,
        Proxy({}) as proxy,
    ):
        proxy.adopt(plan([next(iter(server.sockets)).getsockname()[1]], []))
        yield proxy, f"ws://127.0.0.1:{proxy.port}/chat?room=1"


def opened(url: str, **options: Any) -> connect:
    """A client; compression is off unless asked for, so that bytes on the wire are those of the message."""
    return connect(url, max_size=None, proxy=None, logger=SILENT, **{"compression": None} | options)


async def test_both_ends_agree_on_what_they_offer() -> None:
    """Subprotocol, extension and path are theirs: the proxy changes nothing of them."""
    seen: list[tuple[str, str | None]] = []

    async def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append((connection.request.path, connection.request.headers.get("Origin")))
        await echo(connection)

    chat = Subprotocol("chat.v2")
    async with between(handler, subprotocols=[chat]) as (_, url):
        options = {"subprotocols": [Subprotocol("chat.v1"), chat], "compression": "deflate", "origin": "https://a.test"}
        async with opened(url, **options) as client:
            assert client.subprotocol == chat
            assert [extension.name for extension in client.protocol.extensions] == ["permessage-deflate"]
            text = "äöü" * 10_000
            await client.send(text)
            assert await client.recv() == text
    assert seen == [("/chat?room=1", "https://a.test")]


async def test_a_service_that_refuses_is_heard() -> None:
    async def refuse(connection: ServerConnection, _: object) -> Any:
        return connection.respond(401, "no\n")

    async with between(echo, process_request=refuse) as (_, url):
        with pytest.raises(InvalidStatus) as caught:
            await opened(url)
    assert caught.value.response.status_code == 401
    assert caught.value.response.body == b"no\n"


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1008, 1009, 1011, 3000, 4999])
@pytest.mark.parametrize("first", ["client", "service"])
async def test_who_closes_is_heard_with_his_reason(code: int, first: str) -> None:
    """RFC 6455 section 7.4, both ways."""
    heard: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    async def listen(connection: ServerConnection | ClientConnection) -> None:
        with pytest.raises(ConnectionClosed) as caught:
            await connection.recv()
        assert caught.value.rcvd is not None
        heard.set_result((caught.value.rcvd.code, caught.value.rcvd.reason))

    async def close(connection: ServerConnection | ClientConnection) -> None:
        await connection.close(code, "because")

    async with between(listen if first == "client" else close) as (proxy, url):
        async with opened(url) as client:
            await (close if first == "client" else listen)(client)
        assert await heard == (code, "because")
        while proxy.server.connections or proxy.server.upstreams:
            await asyncio.sleep(0.01)
        assert not any(series(proxy, "upstream_failures").values())


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 1_048_576])
async def test_messages_of_any_size_come_back_whole(size: int) -> None:
    """Whole and in fragments, one message behind another."""
    data = os.urandom(size)

    async def fragments() -> AsyncIterator[bytes]:
        for at in range(0, max(size, 1), max(size // 5, 1)):
            yield data[at : at + max(size // 5, 1)]

    async with between(echo) as (_, url), opened(url) as client:
        await client.send(data)
        await client.send(fragments())
        await client.send(data.hex())
        assert await client.recv() == data
        assert await client.recv() == data
        assert await client.recv() == data.hex()


@pytest.mark.parametrize("way", ["to-the-service", "to-the-client"])
async def test_a_frame_may_come_byte_by_byte(way: str) -> None:
    """Each byte in a write of its own; a ping stands between two fragments."""
    frames = b"".join(
        Frame(opcode, data, fin).serialize(mask=way == "to-the-service")
        for opcode, data, fin in [
            (Opcode.TEXT, b"hel", False), (Opcode.PING, b"p", True), (Opcode.CONT, b"lo", True),
        ]
    )  # fmt: skip
    got: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def drip(connection: ServerConnection | ClientConnection) -> None:
        for at in range(len(frames)):
            connection.transport.write(frames[at : at + 1])
            await asyncio.sleep(0.001)
        await connection.wait_closed()

    async def listen(connection: ServerConnection | ClientConnection) -> None:
        got.set_result(str(await connection.recv()))

    is_client = way == "to-the-service"
    async with between(listen if is_client else drip) as (_, url), opened(url) as client:
        await (drip if is_client else listen)(client)
    assert await got == "hello"


async def test_a_slow_reader_gets_everything_and_holds_little() -> None:
    """16 MiB for a client that takes them by and by: the worker buffers what one connection may, not the message."""
    total = 16 << 20

    async def handler(connection: ServerConnection) -> None:
        for _ in range(total >> 16):
            await connection.send(bytes(1 << 16))

    async with between(handler) as (proxy, url), opened(url, max_queue=1) as client:
        got = most = 0
        with contextlib.suppress(ConnectionClosed):
            while True:
                got += len(await client.recv())
                most = max(most, proxy.server.buffered)
                if got % (1 << 20) == 0:
                    await asyncio.sleep(0.01)
        assert got == total
        assert most <= 65_536 + 2048


async def test_many_connections_are_kept_apart() -> None:
    """300 at once, each with messages of its own."""
    async with between(echo) as (proxy, url):

        async def talk(number: int) -> None:
            async with opened(url, open_timeout=20) as client:
                for turn in range(10):
                    text = f"{number}/{turn}" * 50
                    await client.send(text)
                    assert await client.recv() == text

        async with asyncio.TaskGroup() as tasks:
            for number in range(300):
                tasks.create_task(talk(number))
        while proxy.server.connections:
            await asyncio.sleep(0.01)
        assert series(proxy, "requests") == {("stable", "unkeyed", "forced", "101", "ok"): 300}
        assert server_is_empty(proxy.server)


@pytest.mark.parametrize("who", ["client", "service"])
async def test_an_abrupt_end_is_an_abrupt_end(who: str) -> None:
    """Without a Close frame both see 1006, and nothing stays open."""
    code: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    async def vanish(connection: ServerConnection | ClientConnection) -> None:
        connection.transport.abort()

    async def listen(connection: ServerConnection | ClientConnection) -> None:
        await connection.wait_closed()
        code.set_result(connection.close_code)

    async with between(listen if who == "client" else vanish) as (proxy, url):
        async with opened(url) as client:
            await (vanish if who == "client" else listen)(client)
        assert await code == 1006
        while proxy.server.connections or proxy.server.upstreams:
            await asyncio.sleep(0.01)


def server_is_empty(server: Server) -> bool:
    """No connection on either side, and nothing counted as buffered."""
    return not server.connections and not server.upstreams and not server.buffered
