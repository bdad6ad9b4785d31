"""Tunnels over real sockets: when they begin, how each way ends, and what they cost their sides."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.websocket import TO_CLIENT, TO_SERVICE, accept
from tests.support.dataplane import REPLY, Handler, Proxy, Service, answer, plan, replies, series, service

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ASK = (
    b"GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: %b\r\nCookie: uid=1\r\n\r\n" % KEY
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept(KEY)
)
HELLO = b"\x81\x05hello"
CLOSE = b"\x88\x02\x03\xe8"
GET = b"GET /a HTTP/1.1\r\nHost: t\r\n\r\n"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Switching:
    """A service that answers the first request on each connection with a 101 and leaves the rest to the test."""

    def __init__(self, head: bytes = SWITCH) -> None:
        self._head = head
        self.ends: asyncio.Queue[Streams] = asyncio.Queue()

    def __call__(self, running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            writer.write(self._head)
            await self.ends.put((reader, writer))
            await asyncio.Event().wait()

        return serve


@contextlib.asynccontextmanager
async def tunnel(settings: dict[str, Any] | None = None) -> AsyncIterator[tuple[Proxy, Streams, Streams]]:
    """A proxy, the client's end of a tunnel through it to the canary, and the service's."""
    async with asyncio.timeout(30):
        switching = Switching()
        async with service(switching) as (_, port), Proxy(settings or {}) as proxy:
            proxy.adopt(plan([port], [port], 10_000))
            reader, writer = await proxy.open()
            writer.write(ASK)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            yield proxy, (reader, writer), await switching.ends.get()
            writer.transport.abort()


def reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def counted(proxy: Proxy) -> dict[tuple[str, ...], int]:
    """The requests once there is one."""
    while not series(proxy, "requests"):
        await asyncio.sleep(0.01)
    return series(proxy, "requests")


def is_stopped(proxy: Proxy) -> bool:
    """Whether the proxy reads no more from one of its sides."""
    return any(c.is_held for c in proxy.server.connections) or any(u._holds for u in proxy.server.upstreams)


async def fill(proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes = b"") -> int:
    """Stop reading at one end, and write at the other until the proxy has stopped too; how often was written."""
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    turns = written = 0
    while turns < 10 and proxy.server.connections:
        turns += 1
        if not is_stopped(proxy):
            turns = 0
            writer.write(data or bytes(1 << 20))
            written += 1
        await asyncio.sleep(0.01)
    return written


FINE = {("canary", "split", "user", "101", "ok"): 1}
FAILED = {("canary", "split", "user", "101", "failed"): 1}


async def test_bytes_go_both_ways_as_they_come() -> None:
    """UP-01. Also what no WebSocket would send: the proxy looks at nothing but where frames end."""
    async with tunnel() as (_, (reader, writer), (up_reader, up_writer)):
        for data in (HELLO, b"\r\n\r\n", os.urandom(100_000), b"GET / HTTP/1.1\r\n\r\n"):
            writer.write(data)
            assert await up_reader.readexactly(len(data)) == data
            up_writer.write(data)
            assert await reader.readexactly(len(data)) == data


async def test_the_service_hears_of_the_decision_and_the_client_of_the_answer() -> None:
    more = b"\r\nSec-WebSocket-Protocol: chat\r\nX-Cohort-Arm: x\r\nContent-Length: 4\r\n\r\n"
    switching = Switching(SWITCH.replace(b"\r\n\r\n", more))
    async with service(switching) as (backend, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], [port], 10_000, users=[{"mint": {}}], explain="Always"))
        reader, writer = await proxy.open()
        writer.write(ASK)
        got = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        lines = got.split(b"\r\n")
        assert lines[0] == b"HTTP/1.1 101 Switching Protocols"
        for line in (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Protocol: chat"):
            assert lines.count(line) == 1
        assert b"X-Cohort-Arm: canary" in lines
        assert b"Set-Cookie: cohort_checkout=" in got
        assert b"Content-Length" not in got
        asked = backend.heads[0].split(b"\r\n")
        for line in (b"Connection: Upgrade", b"Upgrade: websocket", b"X-Cohort-Arm: canary"):
            assert asked.count(line) == 1
        assert b"Sec-WebSocket-Key: " + KEY in asked


async def test_bytes_right_behind_the_101_are_the_services_first() -> None:
    switching = Switching(SWITCH + HELLO)
    async with service(switching) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(ASK)
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(len(HELLO)) == HELLO
        writer.close()


@pytest.mark.parametrize(
    "head",
    [
        SWITCH.replace(b"websocket", b"h2c"),
        SWITCH.replace(b"websocket", b"websocket, h2c"),
        SWITCH.replace(b"Upgrade: websocket\r\n", b""),
        SWITCH.replace(b"Connection: Upgrade\r\n", b""),
        SWITCH.replace(b"HTTP/1.1", b"HTTP/1.0"),
        SWITCH.replace(b"s3pP", b"S3pP"),
        SWITCH.replace(b"Sec-WebSocket-Accept", b"X-Other"),
    ],
    ids=["other", "list", "no-upgrade", "no-connection", "old", "wrong-accept", "no-accept"],
)
async def test_a_101_that_does_not_grant_what_was_asked_for_is_502(head: bytes) -> None:
    """UP-10; RFC 6455 section 4.1. Nothing of what stands behind it reaches the client."""
    async with service(replies(head + b"raw")) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        got = await proxy.ask(ASK + GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert got.startswith(b"HTTP/1.1 502 ")
        assert b"raw" not in got
        assert series(proxy, "upstream_failures")[("stable", "protocol")] >= 1


async def test_a_101_to_a_plain_request_is_502() -> None:
    """The same lines with POST ask for nothing."""
    async with service(replies(SWITCH)) as (backend, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(ASK.replace(b"GET", b"POST", 1))
        assert (await answer(reader)).startswith(b"HTTP/1.1 502 ")
        writer.close()
        assert b"pgrade:" not in backend.heads[0]


async def test_bytes_sent_before_the_101_wait_for_it() -> None:
    """Contract item 7: the service gets none of them before it has agreed."""
    asked, agree = asyncio.Event(), asyncio.Event()
    early = b""

    def handler(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal early
            await running.read_head(reader)
            asked.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    early = await reader.read(1)
            agree.set()
            writer.write(SWITCH)
            writer.write(await reader.readexactly(60_000))

        return serve

    async with service(handler) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        data = os.urandom(60_000)
        writer.write(ASK + data[:10])
        await asked.wait()
        writer.write(data[10:])
        await agree.wait()
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(60_000) == data
        writer.close()
        assert early == b""


async def test_too_much_before_the_101_ends_the_connection() -> None:
    """Contract item 7: 64 KiB are held."""
    asked, closed = asyncio.Event(), asyncio.Event()

    def handler(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            asked.set()
            assert await reader.read() == b""
            closed.set()

        return serve

    async with asyncio.timeout(30), service(handler) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(ASK + bytes(65_536))
        await asked.wait()
        writer.write(b"x")
        got = await reader.read()
        writer.close()
        assert got.startswith(b"HTTP/1.1 400 ")
        assert b"Connection: close\r\n" in got
        await closed.wait()
        assert not any(series(proxy, "upstream_failures").values())
        assert series(proxy, "rejected") == {("limit",): 1}


async def test_interim_answers_may_come_before_the_101() -> None:
    """RFC 9110 section 15.2."""
    switching = Switching(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + SWITCH + HELLO)
    async with service(switching) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(ASK)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 103 ")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert await reader.readexactly(len(HELLO)) == HELLO
        writer.close()


async def test_a_refusal_leaves_http_as_it_was() -> None:
    """UP-02, 03: what the client has sent meanwhile are requests, routed as such, and the connection stays."""
    refusal = b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno"

    def handler(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            await asyncio.sleep(0.05)
            writer.write(refusal)

        return serve

    async with service(handler) as (backend, port), Proxy({}) as proxy:
        route = {"name": "no", "matches": [{"path": {"value": "/no"}}], "answer": 404}
        proxy.adopt(plan([port], [], routes=[route]))
        reader, writer = await proxy.open()
        writer.write(ASK + b"GET /no/SMUGGLED HTTP/1.1\r\nHost: t\r\n\r\n")
        assert (await answer(reader)).startswith(b"HTTP/1.1 426 ")
        assert (await answer(reader)).startswith(b"HTTP/1.1 404 ")
        writer.close()
        assert len(backend.heads) == 1


async def test_frames_behind_a_refusal_are_no_request() -> None:
    async with service(replies(REPLY)) as (backend, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        got = await proxy.ask(ASK + b"\x81\x85\x00\x00\x00\x00hello")
        assert got.startswith(b"HTTP/1.1 200 ")
        assert b"HTTP/1.1 400 " in got
        assert len(backend.heads) == 1


@pytest.mark.parametrize("first", ["client", "service"])
async def test_one_way_ends_and_the_other_goes_on(first: str) -> None:
    """Half-close is passed on, and bytes before it come before it."""
    async with tunnel() as (proxy, client, end):
        (reader, writer), (up_reader, up_writer) = (client, end) if first == "client" else (end, client)
        writer.write(bytes(300_000))
        writer.write_eof()
        assert len(await up_reader.read()) == 300_000
        for _ in range(3):
            up_writer.write(HELLO)
            assert await reader.readexactly(len(HELLO)) == HELLO
            await asyncio.sleep(0.05)
        expected = FINE if first == "client" else FAILED  # a service ends by a Close frame
        assert series(proxy, "requests") == expected
        up_writer.write(bytes(300_000))
        up_writer.write_eof()
        assert len(await reader.read()) == 300_000
        assert series(proxy, "requests") == expected
        while proxy.server.connections or proxy.server.upstreams:
            await asyncio.sleep(0.01)


async def test_a_client_that_ended_before_the_101_ends_its_way() -> None:
    def handler(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            await asyncio.sleep(0.1)
            writer.write(SWITCH)
            writer.write(await reader.read())

        return serve

    async with asyncio.timeout(30), service(handler) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(ASK + HELLO)
        writer.write_eof()
        assert (await reader.read()).endswith(b"\r\n\r\n" + HELLO)
        writer.close()


async def test_a_service_that_breaks_ends_the_client_and_counts_against_it() -> None:
    """UP-16: what came is delivered, then the connection ends, at once."""
    async with tunnel() as (proxy, (reader, _), (_, up_writer)):
        up_writer.write(HELLO)
        assert await reader.readexactly(len(HELLO)) == HELLO
        reset(up_writer)
        async with asyncio.timeout(1):
            assert await reader.read() == b""
        assert await counted(proxy) == FAILED
        assert series(proxy, "upstream_failures") == {("canary", "reset"): 1}


@pytest.mark.parametrize("closing", ["nobody", "client", "service"])
@pytest.mark.parametrize("end", ["fin", "rst"])
async def test_a_service_that_ends_without_a_word_has_failed(closing: str, end: str) -> None:
    """RFC 6455 section 7.1.5: a killed process's connections end by FIN too, which says nothing by itself."""
    async with tunnel() as (proxy, (reader, writer), (up_reader, up_writer)):
        if closing == "client":
            writer.write(CLOSE)
            assert await up_reader.readexactly(len(CLOSE)) == CLOSE
        elif closing == "service":
            up_writer.write(CLOSE)
            assert await reader.readexactly(len(CLOSE)) == CLOSE
        if end == "fin":
            up_writer.close()
        else:
            reset(up_writer)
        assert await reader.read() == b""
        assert await counted(proxy) == (FAILED if closing == "nobody" else FINE)
        kinds = {"fin": "truncated", "rst": "reset"}
        failures = {("canary", kinds[end]): 1} if closing == "nobody" else {}
        assert series(proxy, "upstream_failures") == failures


async def test_what_breaks_later_is_a_failure_of_the_upstream_alone() -> None:
    """The request was served: it counts as soon as that is known, not when it ends."""
    async with tunnel({"timeouts": {"tunnelIdle": "500ms"}}) as (proxy, (reader, _), (_, up_writer)):
        assert not series(proxy, "requests")
        assert await counted(proxy) == FINE
        reset(up_writer)
        assert await reader.read() == b""
        while not series(proxy, "upstream_failures"):
            await asyncio.sleep(0.01)
        assert series(proxy, "upstream_failures") == {("canary", "reset"): 1}
        assert series(proxy, "requests") == FINE


async def test_a_tunnel_is_never_mirrored() -> None:
    """A copy would ask for a tunnel that nobody holds."""
    switching = Switching()
    async with service(switching) as (backend, port), service(replies(REPLY)) as (mirror, other), Proxy({}) as proxy:
        rules = {"arm": "canary", "percent": 100, "methods": ["GET"]}
        proxy.adopt(plan([port], [other], mirror=rules))
        reader, writer = await proxy.open()
        writer.write(ASK)
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        reader, writer = await proxy.open()
        writer.write(ASK.replace(b"Upgrade: websocket", b"Upgrade: h2c"))
        async with asyncio.timeout(30):
            while not mirror.heads:
                await asyncio.sleep(0.01)
        writer.close()
        assert len(mirror.heads) == 1
        assert b"pgrade:" not in mirror.heads[0]
        assert len(backend.heads) == 2


async def test_a_tunnel_is_under_way_until_it_ends() -> None:
    """It takes one of the arm's places, as long as it holds a connection of the service."""
    async with tunnel() as (proxy, (_, writer), (up_reader, up_writer)):
        (connection,) = proxy.server.connections
        assert connection.relay is not None
        room = connection.relay.arm.room
        assert room.busy == 1
        writer.write_eof()
        assert await up_reader.read() == b""
        assert room.busy == 1
        up_writer.close()
        while room.busy:
            await asyncio.sleep(0.01)


async def test_a_tunnel_is_logged_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, with the bytes of both ways."""
    async with tunnel() as (proxy, (reader, writer), (up_reader, up_writer)):
        lines: list[tuple[int, int, int, bytes, float]] = []

        def note(_: float, relay: Any, seconds: float) -> None:
            lines.append((relay.status, relay.received, relay.sent, relay.request.target, seconds))

        monkeypatch.setattr(proxy.server._log, "exchange", note)
        writer.write(HELLO + HELLO)
        await up_reader.readexactly(2 * len(HELLO))
        up_writer.write(HELLO)
        await reader.readexactly(len(HELLO))
        await asyncio.sleep(0.2)
        assert lines == []
        writer.write_eof()
        up_writer.write_eof()
        while not lines:
            await asyncio.sleep(0.01)
        ((*line, seconds),) = lines
        assert line == [101, 2 * len(HELLO), len(HELLO), b"/ws"]
        assert seconds >= 0.2


async def test_a_client_that_breaks_ends_the_service_and_counts_against_nobody() -> None:
    async with tunnel() as (proxy, (_, writer), (up_reader, _)):
        writer.write(HELLO)
        assert await up_reader.readexactly(len(HELLO)) == HELLO
        reset(writer)
        async with asyncio.timeout(1):
            assert await up_reader.read() == b""
        assert await counted(proxy) == FINE
        assert not any(series(proxy, "upstream_failures").values())


async def test_a_service_that_has_ended_and_hears_no_more_has_not_failed() -> None:
    """It closed its connection; what the client still sends meets nobody there."""
    async with tunnel() as (proxy, (reader, writer), (_, up_writer)):
        up_writer.write(CLOSE)
        up_writer.close()
        assert await reader.read() == CLOSE
        with contextlib.suppress(ConnectionError):
            while proxy.server.upstreams:
                writer.write(HELLO)
                await asyncio.sleep(0.02)
        assert await counted(proxy) == FINE


@pytest.mark.parametrize("slow", ["client", "service"])
async def test_a_side_that_does_not_read_stops_the_other(slow: str) -> None:
    """Back-pressure both ways; then every byte arrives."""
    async with tunnel() as (proxy, client, end):
        (reader, _), (_, writer) = (client, end) if slow == "client" else (end, client)
        data = os.urandom(1 << 20)
        sent = await fill(proxy, reader, writer, data)
        assert sent < 100
        assert proxy.server.buffered <= 65_536 + 2048
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        writer.write_eof()
        assert await reader.read() == data * sent


async def test_a_client_that_resets_while_it_is_held_is_noticed() -> None:
    """Trap: a paused reader never notices a reset by itself."""
    async with tunnel() as (proxy, (_, writer), (up_reader, _)):
        await fill(proxy, up_reader, writer)
        assert any(connection.is_held for connection in proxy.server.connections)
        reset(writer)
        while proxy.server.connections:
            await asyncio.sleep(0.01)


async def test_what_a_held_client_sent_before_it_ended_still_arrives() -> None:
    """Both ways have ended as the kernel sees them, and bytes wait there: that is no reset."""
    async with tunnel() as (_, (reader, writer), (up_reader, up_writer)):
        up_reader._transport.pause_reading()  # type: ignore[attr-defined]
        up_writer.write_eof()
        assert await reader.read() == b""
        size = 12 << 20
        writer.write(bytes(size))
        writer.write_eof()
        await asyncio.sleep(2.5)
        up_reader._transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await up_reader.read()) == size


IDLE = {"timeouts": {"tunnelIdle": "500ms", "bodyIdle": "500ms"}}


@pytest.mark.parametrize("half", [False, True], ids=["open", "half-closed"])
async def test_silence_ends_a_tunnel(half: bool) -> None:
    """In order, and as nobody's failure; a way that has ended does not change that."""
    async with tunnel(IDLE) as (proxy, (reader, writer), (up_reader, up_writer)):
        if half:
            writer.write_eof()
            assert await up_reader.read() == b""
        for _ in range(4):
            up_writer.write(HELLO)
            assert await reader.readexactly(len(HELLO)) == HELLO
            await asyncio.sleep(0.3)
        async with asyncio.timeout(3):
            assert await reader.read() == TO_CLIENT
            assert await up_reader.read() == (b"" if half else TO_SERVICE)
        assert await counted(proxy) == FINE


@pytest.mark.parametrize("slow", ["client", "service"])
async def test_a_side_that_takes_nothing_for_long_is_given_up(slow: str) -> None:
    """It is to blame, not the side that waits for it."""
    async with tunnel({"timeouts": {"tunnelIdle": "1s", "bodyIdle": "1s"}}) as (proxy, client, end):
        (reader, _), (_, writer) = (client, end) if slow == "client" else (end, client)
        await fill(proxy, reader, writer)
        while proxy.server.connections:
            await asyncio.sleep(0.01)
        assert await counted(proxy) == FINE
        blamed = [("timeout",)] if slow == "client" else [("canary", "timeout")]
        kind = "rejected" if slow == "client" else "upstream_failures"
        assert list(series(proxy, kind)) == blamed


ABORT = {"timeouts": {"abortDrain": "600ms"}}


async def test_an_abort_closes_the_canarys_tunnels_within_its_limit() -> None:
    """Design item 5. Between two frames the client is told why; the service has the end of the connection."""
    async with tunnel(ABORT) as (proxy, (reader, writer), (up_reader, up_writer)):
        up_writer.write(HELLO)
        assert await reader.readexactly(len(HELLO)) == HELLO
        proxy.words.latch = 1
        async with asyncio.timeout(0.9):  # its limit, and what a busy machine adds
            assert await reader.read() == TO_CLIENT
        assert await up_reader.read() == TO_SERVICE
        writer.close()
        assert await counted(proxy) == FINE


@pytest.mark.parametrize("data", [HELLO[:4], b"\x88\x02\x03\xe8"], ids=["within-a-frame", "behind-a-close"])
async def test_no_frame_of_ours_stands_where_none_may(data: bytes) -> None:
    """RFC 6455 sections 5.4 and 5.5.1."""
    async with tunnel(ABORT) as (proxy, (reader, writer), (up_reader, up_writer)):
        up_writer.write(data)
        assert await reader.readexactly(len(data)) == data
        writer.write(data)
        assert await up_reader.readexactly(len(data)) == data
        proxy.words.latch = 1
        assert await reader.read() == b""
        assert await up_reader.read() == b""


async def test_tunnels_to_stable_outlive_an_abort() -> None:
    switching = Switching()
    async with service(switching) as (_, port), Proxy(ABORT) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(ASK)
        await reader.readuntil(b"\r\n\r\n")
        _, up_writer = await switching.ends.get()
        proxy.words.latch = 1
        await asyncio.sleep(1.2)
        up_writer.write(HELLO)
        assert await reader.readexactly(len(HELLO)) == HELLO
        writer.close()


async def test_a_proxy_that_leaves_lets_tunnels_live_until_shortly_before_its_end() -> None:
    """F27: WebSockets get a close, within the drain's limit."""
    async with tunnel() as (proxy, (reader, writer), (up_reader, up_writer)):
        began = asyncio.get_running_loop().time()
        draining = asyncio.create_task(proxy.server.drain(0.1, 2))
        await asyncio.sleep(0.7)
        up_writer.write(HELLO)
        assert await reader.readexactly(len(HELLO)) == HELLO
        assert await reader.read() == TO_CLIENT
        assert 1 <= asyncio.get_running_loop().time() - began < 2
        assert await up_reader.read() == TO_SERVICE
        writer.close()
        await draining
        assert asyncio.get_running_loop().time() - began < 2
        assert await counted(proxy) == FINE


async def test_a_service_that_never_reads_its_end_is_cut_off() -> None:
    """What is left to send is given up by the time-out for bodies, so a stuck service holds no connection."""
    async with tunnel({"timeouts": {"bodyIdle": "500ms"}}) as (proxy, (_, writer), (up_reader, _)):
        await fill(proxy, up_reader, writer)
        reset(writer)
        while proxy.server.connections or proxy.server.upstreams:
            await asyncio.sleep(0.01)


async def test_pipelined_requests_that_are_answered_at_once_leave_the_connection_readable() -> None:
    """Reading stops when too many wait, and goes on when none does."""
    async with Proxy({}) as proxy:
        proxy.adopt(plan([], []))
        reader, writer = await proxy.open()
        writer.write(GET * 100)
        for _ in range(100):
            assert (await answer(reader)).startswith(b"HTTP/1.1 503 ")
        writer.write(GET)
        assert (await answer(reader)).startswith(b"HTTP/1.1 503 ")
        writer.close()
