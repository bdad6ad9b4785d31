"""The supervisor's own HTTP servers: whoever may not ask cannot keep out those who may."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from proxy.net.sockets import listen_unix
from proxy.net.web import Site
from tests.support.supervised import Answer, exchange, request

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Door:
    """A site that admits requests for ``/known``."""

    def __init__(self, sock: socket.socket) -> None:
        async def answer(asked: web.Request) -> web.Response:
            if asked.path == "/known":
                self.site.admit(asked)
            return web.Response(text="here")

        app = web.Application()
        app.add_routes([web.get("/{name:.*}", answer)])
        self.site = Site(app, [sock])
        self.address = sock.getsockname()

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.address, str):
            return await asyncio.open_unix_connection(self.address)
        return await asyncio.open_connection(*self.address)


@pytest.fixture(params=["tcp", "unix"])
async def door(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Door]:
    is_unix = request.param == "unix"
    found = Door(listen_unix(tmp_path / "x.sock", "x") if is_unix else socket.create_server(("127.0.0.1", 0)))
    await found.site.open()
    yield found
    await found.site.close()


async def test_a_stranger_is_closed_after_a_while_and_who_was_admitted_is_not(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiohttp itself would wait for the rest of a head for ever."""
    monkeypatch.setattr("proxy.net.web.STRANGER_S", 0.2)
    known, half, answered = [await door.open() for _ in range(3)]
    known[1].write(HEAD.replace(b"/ ", b"/known "))
    half[1].write(HEAD[:-2])
    answered[1].write(HEAD)
    assert await known[0].readuntil(b"here")
    async with asyncio.timeout(30):
        assert await half[0].read() == b""
        assert (await answered[0].read()).endswith(b"here")
    known[1].write(HEAD)
    assert await known[0].readuntil(b"here")
    for _, writer in (known, half, answered):
        writer.close()


async def test_connections_are_bounded(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is closed at once; when one ends there is room again."""
    monkeypatch.setattr("proxy.net.web.CONNECTIONS", 3)
    held = [await door.open() for _ in range(4)]
    async with asyncio.timeout(30):
        assert await held[3][0].read() == b""
    for _, writer in held:
        writer.close()

    async def heard() -> bool:
        with contextlib.suppress(ConnectionError):
            return (await exchange(await door.open(), request("GET", "/"))).endswith(b"here")
        return False

    async with asyncio.timeout(30):
        while not await heard():
            await asyncio.sleep(0.01)


async def test_versions_of_our_libraries_are_nobodys_business(door: Door) -> None:
    """The metrics port is open to whoever can reach it."""
    answer = Answer(await exchange(await door.open(), request("GET", "/")))
    assert answer.fields["server"] == "cohort"


@pytest.mark.parametrize("field", ["Authorization: Bearer s3cret-of-ours\x01", "Authorization : Bearer s3cret-of-ours"])
async def test_a_faulty_head_is_repeated_nowhere(field: str, caplog: pytest.LogCaptureFixture) -> None:
    """C3: a token in a head that cannot be read goes neither into the answer nor into the log."""
    sock = socket.create_server(("127.0.0.1", 0))
    site = Site(web.Application(), [sock])
    await site.open()
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    writer.write(f"GET / HTTP/1.1\r\nHost: localhost\r\n{field}\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await site.close()
    assert answer.split(b" ")[1] == b"400"
    assert b"application/json" in answer
    assert b"aiohttp" not in answer
    assert b"s3cret" not in answer
    assert "s3cret" not in caplog.text
