"""What a hostile peer tries against a data plane: memory, ends that look whole, and callbacks that must not break."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from proxy.errors import UpstreamError
from proxy.net.upstream import Upstream
from tests.support.dataplane import REPLY, Handler, Proxy, Service, answer, plan, replies, service, until

GET = b"GET /a HTTP/1.1\r\nHost: t\r\n\r\n"
PAGE = b"GET /.cohort/preview HTTP/1.1\r\nHost:a\r\n\r\n"
PUBLIC = {"path": "/.cohort/preview", "access": "Public"}


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with a body that ends with the connection, which does not end."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\n\r\npart")
    await reader.read()


def unread(port: int) -> socket.socket:
    """A connected client that will take next to nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(("127.0.0.1", port))
    client.setblocking(False)
    return client


async def test_our_own_answers_to_a_pipeline_do_not_pile_up() -> None:
    """Contract item 17: 64 KiB of small requests for a page of ours ask for more than 1 MB, of a client that does not
    read; what it has not taken is bounded by one answer."""
    async with Proxy({}) as proxy:
        proxy.adopt(plan([1], [1], preview=PUBLIC))
        client = unread(proxy.port)
        sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(client, PAGE * 20_000))
        await until(lambda: any(c.is_held for c in proxy.server.connections))
        await asyncio.sleep(0.2)
        (held,) = proxy.server.connections
        transport: Any = held._transport
        assert transport.get_write_buffer_size() < 16_384
        sending.cancel()
        client.close()


async def test_a_pipeline_of_our_own_answers_goes_on_when_the_client_reads() -> None:
    """Nothing is lost or left by the pauses."""
    async with Proxy({}) as proxy:
        proxy.adopt(plan([1], [1], preview=PUBLIC))
        reader, writer = await proxy.open()
        writer.write(PAGE * 5_000)
        await until(lambda: any(c.is_held for c in proxy.server.connections))
        async with asyncio.timeout(20):
            for _ in range(5_000):
                assert (await answer(reader)).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_an_answer_without_length_that_the_drain_cuts_is_no_whole_one() -> None:
    """Contract item 14: where the end of the connection is the end of the body, only RST tells."""
    async with service(lambda _: hang) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        await reader.readuntil(b"part")
        await proxy.server.drain(0.0, 0.3)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)
        writer.close()


async def test_an_answer_without_length_that_is_whole_ends_in_order() -> None:
    """The RST that is kept ready for its cut is not sent, however late the client reads."""
    body = b"x" * 1_000_000

    async def whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + body)
        await writer.drain()

    async with service(lambda _: whole) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        await asyncio.sleep(0.3)
        async with asyncio.timeout(30):
            assert (await reader.read()).endswith(b"\r\n\r\n" + body)
        writer.close()


async def test_a_client_is_read_again_after_a_service_that_answered_before_it_took_all() -> None:
    """A request that is complete here may still wait for the service: the client's next one does not."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.1)
        writer.write(REPLY)
        await reader.read()

    async with service(lambda _: slow) as (backend, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nhi")
        await until(lambda: any(u.relay is not None for u in proxy.server.upstreams))
        (upstream,) = proxy.server.upstreams
        upstream.pause_writing()  # as if the kernel had not taken the last bytes
        assert (await answer(reader)).endswith(b"ok")
        writer.write(GET)
        assert (await answer(reader)).endswith(b"ok")
        assert backend.connections == 2  # who has not taken a request whole gets no second one
        writer.close()


async def test_the_preview_page_tells_of_a_cohort_in_front() -> None:
    """Every reason has words, that of a rollout in front too."""
    async with Proxy({"trustedPeers": ["127.0.0.0/8"]}) as proxy:
        proxy.adopt(plan([1], [1], preview=PUBLIC))
        reader, writer = await proxy.open()
        writer.write(PAGE.replace(b"Host", b"X-Cohort-Arm: canary\r\nHost"))
        assert b"the rollout in front" in await answer(reader)
        writer.close()


async def test_a_service_that_is_gone_before_its_request_is_no_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection may end between its making and its use, and says nothing any more: the request goes elsewhere."""
    made = Upstream.connection_made
    first: list[Upstream] = []

    def lost_at_once(self: Upstream, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        if not first:
            first.append(self)
            transport.close()
            self.connection_lost(None)

    monkeypatch.setattr(Upstream, "connection_made", lost_at_once)
    async with service(replies(REPLY)) as (_, one), service(replies(REPLY)) as (_, two), Proxy({}) as proxy:
        proxy.adopt(plan([one, two], []))
        reader, writer = await proxy.open()
        writer.write(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\n\r\n")
        async with asyncio.timeout(30):
            assert (await answer(reader)).endswith(b"ok")
        assert first
        writer.close()


async def test_an_exchange_that_breaks_does_not_end_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """F30: what goes wrong in one request's hands is one request's."""

    def broken(self: object, error: UpstreamError) -> None:
        raise RuntimeError("for this test")

    with monkeypatch.context() as patch, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        patch.setattr("proxy.net.relay.Relay.connect_failed", broken)
        async with service(replies(REPLY)) as (_, port), Proxy({}) as proxy:
            proxy.adopt(plan([closed.getsockname()[1]], []))
            _, first = await proxy.open()
            first.write(GET)
            await asyncio.sleep(0.2)
            proxy.adopt(plan([port], []))
            reader, writer = await proxy.open()
            writer.write(GET)
            assert (await answer(reader)).endswith(b"ok")
            first.close()
            writer.close()


async def test_surplus_behind_a_full_read_is_not_the_next_answer() -> None:
    """Contract item 13: an answer that ends where a read ends leaves its surplus with the kernel, and the client's next
    request must not find it there."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    size = 65_536 - len(head % 65_536)
    surplus = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"

    def split(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if running.connections == 1:
                await running.read_head(reader)
                writer.write(head % size + b"x" * size + surplus)
            while True:
                await running.read_head(reader)
                writer.write(REPLY)

        return serve

    async with service(split) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(GET * 2)
        assert (await answer(reader)).endswith(b"x")
        assert (await answer(reader)).endswith(b"ok")
        writer.close()
