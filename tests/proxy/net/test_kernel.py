"""What the loop does not tell of sockets, and long answers that leave at once."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from proxy.body import LAST_CHUNK, ChunkedBody, chunk
from proxy.errors import UpstreamError
from proxy.http1 import HeadLimits
from proxy.net.kernel import queued, room
from proxy.net.upstream import UNSENT_BYTES
from tests.support.dataplane import Handler, Proxy, Service, plan, series, service, until

GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
# Around one read, around the longest read, and many.
SIZES = (16_383, 16_384, 65_236, 65_536, 65_800, 262_144, 300_000, 3_000_000)
BYTES = random.Random(7).randbytes(5_000_000)


def test_the_kernel_takes_what_there_is_room_for() -> None:
    """As much as `room` says is written at once, again and again, until there is none."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as accepted,
    ):
        accepted.setblocking(False)
        while (size := room(accepted.fileno())) > 4096:
            assert accepted.send(bytes(size)) == size
        assert queued(accepted.fileno())
        assert client.recv(1) == b"\0"


def sized(interim: bytes) -> Callable[[Service], Handler]:
    """A service whose answer is as long as the target says: no two alike."""

    def handler(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                size = int((await running.read_head(reader)).split()[1][1:])
                writer.write(interim + b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body(size))
                await writer.drain()

        return serve

    return handler


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    """One answer's body, whatever interim responses come before it."""
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " in head.split(b"\r\n")[0]:
            length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
            return await reader.readexactly(int(length))


@pytest.fixture(params=[b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"], ids=["plain", "behind-an-interim"])
async def proxy(request: pytest.FixtureRequest) -> AsyncIterator[Proxy]:
    async with service(sized(request.param)) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        yield proxy


def body(size: int) -> bytes:
    """Of an answer of `sized`."""
    return BYTES[len(BYTES) - size :]


def get(size: int) -> bytes:
    return b"GET /%d HTTP/1.1\r\nHost: t\r\n\r\n" % size


async def test_answers_of_all_sizes_come_whole(proxy: Proxy) -> None:
    """One after another on the same connections, so that each finds what the last has left behind; then pipelined."""
    reader, writer = await proxy.open()
    sizes = [*SIZES, *reversed(SIZES), 5, *SIZES]
    for size in sizes:
        writer.write(get(size))
        assert await read_answer(reader) == body(size)
    writer.write(b"".join(map(get, sizes)))
    for size in sizes:
        assert await read_answer(reader) == body(size)
    writer.close()
    assert not series(proxy, "upstream_failures")


async def test_slow_readers_get_every_byte_and_are_held_to_one_read_each(proxy: Proxy) -> None:
    """Contract item 17: what their kernels do not take waits here, at most `bufferBytes` of it, each its own."""

    async def read(size: int) -> None:
        nonlocal most
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", proxy.port))
            sock.setblocking(False)
            loop, found = asyncio.get_running_loop(), b""
            await loop.sock_sendall(sock, get(size))
            while len(found) < size or not found.endswith(body(size)):
                found += await loop.sock_recv(sock, 100_000)
                most = max(most, proxy.server.buffered)

    most = 0
    proxy._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 300_000)  # accepted ones have it too
    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        for size in (4_800_000, 4_900_000, 5_000_000):
            tasks.create_task(read(size))
    assert 0 < most <= 3 * (65_536 + UNSENT_BYTES + 1024)


@pytest.mark.parametrize("sizes", [(100_000, 5), (70_000, 16_384), (1_000, 300_000)], ids=str)
async def test_long_bodies_in_chunks_come_whole(sizes: tuple[int, int]) -> None:
    """Heads of long answers leave with the beginning of the body, whatever its framing; twice on each connection."""

    def handler(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await running.read_head(reader)
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                writer.write(b"".join(map(chunk, parts)) + LAST_CHUNK)

        return serve

    parts = [body(size) for size in sizes]
    async with service(handler) as (running, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        answers = await proxy.ask(GET + GET + LAST)
        whole = b"".join(parts)
        found = []
        while answers:
            reader = ChunkedBody(lambda message: UpstreamError("protocol", message), HeadLimits())
            found.append(reader.feed(answers.partition(b"\r\n\r\n")[2]))
            answers = reader.rest
        assert found == [whole] * 3
        assert running.connections == 1


async def test_bytes_behind_a_long_body_are_surplus() -> None:
    """Contract item 13: they never reach the client, and their connection is not used again."""

    def handler(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await running.read_head(reader)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + BYTES[:50_000] + b"HTTP/1.1 200 OK\r\n"
                )

        return serve

    async with service(handler) as (running, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        for _ in range(3):
            writer.write(GET)
            assert await read_answer(reader) == BYTES[:50_000]
        writer.close()
        assert running.connections == 3
        assert series(proxy, "upstream_failures") == {("stable", "protocol"): 3}


@pytest.mark.parametrize("sent", [20_000, 65_536, 400_000])
async def test_a_long_body_cut_short_is_never_finished(sent: int) -> None:
    """Contract item 14: what came goes on, then FIN on the unfinished message."""

    def handler(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + BYTES[:sent])

        return serve

    async with service(handler) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        answer = await proxy.ask(LAST)
        assert answer.partition(b"\r\n\r\n")[2] == BYTES[:sent]
        assert series(proxy, "upstream_failures") == {("stable", "truncated"): 1}


async def test_clients_that_leave_within_a_long_answer_leave_nothing_behind(proxy: Proxy) -> None:
    """Whatever is written to a socket that is closing goes to nobody else's, and all is released."""
    for number in range(40):
        reader, writer = await proxy.open()
        writer.write(get(3_000_000))
        await reader.readexactly(1000 + 9000 * number)
        writer.transport.abort()
        reader, writer = await proxy.open()
        writer.write(get(70_000))
        assert await read_answer(reader) == body(70_000)
        writer.close()
    await until(lambda: not proxy.server.connections)
    assert proxy.server.buffered == 0
