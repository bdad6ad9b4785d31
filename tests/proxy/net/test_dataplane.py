"""Exchanges over real sockets: connections, bodies, what breaks, and who is told."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import time

import pytest

from proxy.net.upstream import Upstream
from tests.support.dataplane import REPLY, Handler, Proxy, Service, answer, plan, replies, series, service, until

GET = b"GET /a HTTP/1.1\r\nHost: t\r\n\r\n"
LAST = b"GET /a HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
FAST = {"timeouts": {"connect": "500ms", "head": "300ms", "responseHead": "300ms", "bodyIdle": "300ms"}}


def scripted(script: Handler) -> object:
    return lambda _: script


async def test_a_connection_is_kept_on_both_sides() -> None:
    """RFC 9112 section 9.3."""
    async with service(replies(REPLY)) as (backend, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        for _ in range(5):
            writer.write(GET)
            assert (await answer(reader)).startswith(b"HTTP/1.1 200")
        writer.close()
        assert backend.connections == 1


async def test_pipelined_requests_are_answered_in_order() -> None:
    """RFC 9112 section 9.3.2; far more than the bound that stops reading."""

    def echo(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                path = (await running.read_head(reader)).split(b" ")[1]
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

        return serve

    async with service(echo) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: t\r\n\r\n" % i for i in range(500)))
        for i in range(500):
            assert (await answer(reader)).endswith(b"\r\n\r\n/%d" % i)
        writer.close()


async def test_a_client_that_closes_its_side_gets_its_answer() -> None:
    """Trap: eof_received returning None would close the transport."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.1)
        writer.write(REPLY)

    async with service(scripted(slow)) as (_, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(GET)
        writer.write_eof()
        assert (await reader.read()).endswith(b"ok")
        writer.close()


@pytest.mark.parametrize(
    "request_bytes",
    [b"GET / HTTP/1.1\r\nHos", b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nabc"],
    ids=["head", "body"],
)
async def test_a_request_cut_short_is_refused(request_bytes: bytes) -> None:
    """RFC 9112 section 8: an incomplete request is not a shorter one."""
    async with service(replies(REPLY)) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(request_bytes)
        writer.write_eof()
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def gone(proxy: Proxy) -> None:
    """Wait until no client connection is left."""
    async with asyncio.timeout(30):
        while proxy.server.connections:
            await asyncio.sleep(0.01)


async def test_a_client_that_resets_frees_the_service() -> None:
    """CN-10: the upstream connection is closed soon, and nothing is retried."""
    closed = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read()
        closed.set()

    async with service(scripted(hang)) as (backend, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        _, writer = await proxy.open()
        writer.write(GET)
        async with asyncio.timeout(30):
            while not backend.connections:
                await asyncio.sleep(0.01)
        reset(writer)
        async with asyncio.timeout(30):
            await closed.wait()
        await gone(proxy)
        assert backend.connections == 1


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 10\r\n\r\nabc", b"abc"),
        (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"3\r\nabc\r\n"),
    ],
    ids=["length", "chunked"],
)
async def test_a_truncated_answer_is_not_finished(head: bytes, body: bytes) -> None:
    """Contract item 14: what came is delivered, then FIN on an unfinished message."""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + head)
        await writer.drain()

    async with service(scripted(cut)) as (_, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        got = await proxy.ask(GET)
        assert got.startswith(b"HTTP/1.1 200 ")
        assert got.endswith(b"\r\n\r\n" + body)


async def test_a_truncated_answer_to_an_old_client_is_reset() -> None:
    """Contract item 14: where the end of the connection is the end of the body, only RST tells."""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await writer.drain()
        await asyncio.sleep(0.1)

    async with service(scripted(cut)) as (_, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        with pytest.raises(ConnectionResetError):
            await proxy.ask(b"GET /a HTTP/1.0\r\nHost: t\r\n\r\n")


async def test_an_early_answer_ends_the_connection_in_order() -> None:
    """Contract item 12: the client gets the whole answer although it is still sending."""

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
        await writer.drain()

    async with service(scripted(early)) as (_, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 8000000\r\n\r\n")

        async def upload() -> None:
            with contextlib.suppress(ConnectionError):
                for _ in range(100):
                    writer.write(b"x" * 20_000)
                    await writer.drain()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(upload())
            got = await reader.read()
        assert got.startswith(b"HTTP/1.1 413 ")
        assert b"Connection: close" in got
        assert got.endswith(b"no")
        writer.close()


async def test_a_stale_pooled_connection_costs_a_get_nothing() -> None:
    """Contract item 15."""

    def once(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            writer.write(REPLY)
            await writer.drain()
            await reader.readuntil(b"\r\n\r\n")  # takes a second request, and closes instead of answering

        return serve

    async with service(once) as (backend, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        for _ in range(4):
            writer.write(GET)
            assert (await answer(reader)).startswith(b"HTTP/1.1 200")
        writer.close()
        assert backend.connections == 4
        assert any(b"X-Cohort-Attempt: 2" in head for head in backend.heads)


async def test_what_may_have_been_done_is_not_done_twice() -> None:
    """Contract item 15: a POST that reached the service is not sent again."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with service(scripted(swallow)) as (backend, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        got = await proxy.ask(b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 502 ")
        assert backend.connections == 1


async def test_the_first_post_of_a_client_does_not_meet_a_dead_connection() -> None:
    """Contract item 16: the pooled connection is asked whether it still lives."""

    def short(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            writer.write(REPLY)

        return serve

    async with service(short) as (backend, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        await proxy.ask(LAST)
        got = await proxy.ask(b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 200 ")
        assert backend.connections == 2


async def test_a_refused_endpoint_is_passed_over() -> None:
    """Contract item 15: nothing was sent, so any method may go elsewhere."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = closed.getsockname()[1]
    async with service(replies(REPLY)) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([dead, port], []))
        for _ in range(10):
            got = await proxy.ask(b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            assert got.startswith(b"HTTP/1.1 200 ")


async def test_nobody_behind_an_arm_is_503_at_once() -> None:
    async with Proxy({}) as proxy:
        proxy.adopt(plan([], []))
        got = await proxy.ask(LAST)
        assert got.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1\r\n" in got


async def test_before_the_first_plan_everything_is_503() -> None:
    async with Proxy({}) as proxy:
        assert (await proxy.ask(LAST)).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: t\r\n", b"408"),
        (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nabc", b"408"),
        (LAST, b"504"),
    ],
    ids=["head", "body", "response-head"],
)
async def test_slow_peers_are_given_up(data: bytes, status: bytes) -> None:
    """Contract item 17."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with service(scripted(hang)) as (_, port), Proxy(FAST) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        assert (await proxy.ask(data)).startswith(b"HTTP/1.1 " + status)


async def test_an_idle_connection_is_closed_without_an_answer() -> None:
    async with service(replies(REPLY)) as (_, port), Proxy({"timeouts": {"keepAlive": "300ms"}}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(GET)
        await answer(reader)
        async with asyncio.timeout(30):
            assert await reader.read() == b""
        writer.close()


async def test_connections_above_the_limit_wait() -> None:
    """Those that are open are served; the next one is as soon as there is room."""
    async with service(replies(REPLY)) as (_, port), Proxy({"limits": {"connections": 10}}) as proxy:
        proxy.adopt(plan([port], []))
        clients = [await proxy.open() for _ in range(12)]
        for reader, writer in clients[:10]:
            writer.write(GET)
            await answer(reader)
        assert len(proxy.server.connections) == 10
        for _, writer in clients[:10]:
            writer.close()
        reader, writer = clients[11]
        writer.write(GET)
        await answer(reader)
        clients[10][1].close()
        writer.close()


async def test_an_abort_moves_everybody_at_once() -> None:
    """The latch is read at each request, on a connection that is open as well."""
    async with service(replies(REPLY)) as (old, stable), service(replies(REPLY)) as (new, canary), Proxy({}) as proxy:
        proxy.adopt(plan([stable], [canary], 10_000))
        reader, writer = await proxy.open()
        request = b"GET /a HTTP/1.1\r\nHost: t\r\nCookie: uid=1\r\nX-Cohort-Explain: 1\r\n\r\n"
        writer.write(request)
        assert b"X-Cohort-Arm: canary\r\n" in await answer(reader)
        proxy.words.latch = 1
        writer.write(request)
        got = await answer(reader)
        assert b"X-Cohort-Arm: stable\r\n" in got
        assert b"X-Cohort-Reason: abort\r\n" in got
        writer.close()
        assert (len(old.heads), len(new.heads)) == (1, 1)


async def test_a_retry_looks_at_the_latch_again() -> None:
    """Design: a request ends with the plan it began with, but never goes to an aborted canary a second time."""
    taken = asyncio.Event()

    taken_head = []

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken_head.append(await reader.readuntil(b"\r\n\r\n"))
        taken.set()
        await asyncio.sleep(0.1)

    async with (
        service(replies(REPLY)) as (old, stable),
        service(scripted(hang)) as (new, canary),  # type: ignore[arg-type]
        Proxy({}) as proxy,
    ):
        proxy.adopt(plan([stable], [canary], 10_000))
        reader, writer = await proxy.open()
        writer.write(b"GET /a HTTP/1.1\r\nHost: t\r\nCookie: uid=1\r\n\r\n")
        await taken.wait()
        proxy.words.latch = 1
        assert (await answer(reader)).startswith(b"HTTP/1.1 200 ")
        writer.close()
        assert (old.connections, new.connections) == (1, 1)
        assert b"X-Cohort-Reason: abort\r\n" in old.heads[0]
        assert b"baggage: cohort.arm=canary\r\n" in taken_head[0]
        assert b"baggage: cohort.arm=stable\r\n" in old.heads[0]
        assert told(taken_head[0], b"traceparent") == told(old.heads[0], b"traceparent")
        assert told(taken_head[0], b"X-Request-Id") == told(old.heads[0], b"X-Request-Id")


def told(head: bytes, name: bytes) -> bytes:
    """The value of a field that must be there once."""
    [value] = re.findall(rb"(?im)^%b: (.*)\r$" % re.escape(name), head)
    return bytes(value)


async def test_a_cohort_in_front_is_obeyed_from_trusted_peers_only() -> None:
    """A9: end to end, with the same request id in the explained answer."""
    ask = (
        b"GET /a HTTP/1.1\r\nHost: t\r\nCookie: uid=1\r\nX-Cohort-Arm: canary\r\nX-Cohort-Explain: 1\r\n"
        b"X-Request-Id: mine\r\nConnection: close\r\n\r\n"
    )
    for trusted, arm, reason in (([], b"stable", b"split"), (["127.0.0.0/8"], b"canary", b"outer")):
        async with (
            service(replies(REPLY)) as (_, stable),
            service(replies(REPLY)) as (_, canary),
            Proxy({"trustedPeers": trusted}) as proxy,
        ):
            proxy.adopt(plan([stable], [canary]))
            got = await proxy.ask(ask)
            assert (told(got, b"X-Cohort-Arm"), told(got, b"X-Cohort-Reason")) == (arm, reason)
            assert told(got, b"X-Request-Id") == b"mine"
            source = "user" if reason == b"split" else "forced"
            assert series(proxy, "requests") == {(arm.decode(), reason.decode(), source, "200", "ok"): 1}


async def test_a_services_own_request_id_stands_alone() -> None:
    """An explained answer tells one id, and only an explained one."""
    theirs = REPLY.replace(b"\r\n\r\n", b"\r\nX-Request-Id: theirs\r\n\r\n")
    for reply, explain, ids in ((theirs, b"1", [b"theirs"]), (theirs, b"0", [b"theirs"]), (REPLY, b"0", [])):
        async with service(replies(reply)) as (_, stable), Proxy({}) as proxy:
            proxy.adopt(plan([stable], []))
            ask = b"GET /a HTTP/1.1\r\nHost: t\r\nX-Request-Id: mine\r\nX-Cohort-Explain: %b\r\n" % explain
            got = await proxy.ask(ask + b"Connection: close\r\n\r\n")
            assert re.findall(rb"X-Request-Id: (\S+)", got) == ids


async def test_our_own_answers_tell_the_requests_own_id() -> None:
    """A route's answer, nobody behind, and no plan yet: who asked finds the log line by the id he chose."""
    teapot = {"name": "tea", "matches": [{"path": {"value": "/tea"}}], "answer": 418}
    ask = b"GET %b HTTP/1.1\r\nHost: t\r\nX-Request-Id: mine\r\nConnection: close\r\n\r\n"
    async with Proxy({}) as proxy:
        assert told(await proxy.ask(ask % b"/"), b"X-Request-Id") == b"mine"
        proxy.adopt(plan([], [], routes=[teapot]))
        for path, status in ((b"/", b"503"), (b"/tea", b"418")):
            got = await proxy.ask(ask % path)
            assert got.startswith(b"HTTP/1.1 " + status)
            assert told(got, b"X-Request-Id") == b"mine"


async def test_streams_on_an_aborted_canary_end() -> None:
    """Design item 5: within abortDrain."""

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"3\r\nabc\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with (
        service(scripted(stream)) as (_, canary),  # type: ignore[arg-type]
        Proxy({"timeouts": {"abortDrain": "300ms"}}) as proxy,
    ):
        proxy.adopt(plan([], [canary], 10_000))
        reader, writer = await proxy.open()
        writer.write(b"GET /a HTTP/1.1\r\nHost: t\r\nCookie: uid=1\r\n\r\n")
        await reader.readuntil(b"abc\r\n")
        proxy.words.latch = 1
        async with asyncio.timeout(30):
            rest = await reader.read()
        assert not rest.endswith(b"0\r\n\r\n")
        writer.close()


async def test_a_slow_reader_holds_the_service_back() -> None:
    """Back-pressure: what is buffered stays below one read."""
    written = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()
            written += 65_536

    async with service(scripted(flood)) as (_, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, ("127.0.0.1", proxy.port))
        await loop.sock_sendall(sock, GET)
        before = -1
        async with asyncio.timeout(30):
            while written != before or not written:
                before = written
                await asyncio.sleep(0.3)
        assert proxy.server.buffered <= 2 * 65_536
        assert written < 100_000_000
        sock.close()
        await gone(proxy)
        assert proxy.server.buffered == 0


async def test_a_slow_service_holds_an_upload_back() -> None:
    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with service(scripted(stuck)) as (_, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        _, writer = await proxy.open()
        writer.write(b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 200000000\r\n\r\n")
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 100_000_000:
                async with asyncio.timeout(1):
                    writer.write(b"x" * 65_536)
                    await writer.drain()
                sent += 65_536
        assert sent < 100_000_000
        assert proxy.server.buffered <= 2 * 65_536
        reset(writer)
        await gone(proxy)


async def test_a_client_that_resets_while_its_upload_is_held_is_noticed() -> None:
    """Trap: a paused reader never notices a reset by itself."""
    closed = asyncio.Event()

    async def stuck(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await asyncio.sleep(0.5)
            while await reader.read(1000):
                await asyncio.sleep(0.05)
        closed.set()

    async with service(scripted(stuck)) as (_, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        _, writer = await proxy.open()
        writer.write(b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 200000000\r\n\r\n")
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(0.3):
                    writer.write(b"x" * 65_536)
                    await writer.drain()
        assert any(connection.is_held for connection in proxy.server.connections)
        reset(writer)
        await gone(proxy)


async def test_local_answers_leave_the_rest_of_the_pipeline_in_order() -> None:
    """CN-12, 13: the body of a request that a route answers is not the next request."""
    async with service(replies(REPLY)) as (backend, port), Proxy({}) as proxy:
        route = {"name": "no", "matches": [{"path": {"value": "/no"}}], "answer": 404}
        proxy.adopt(plan([port], [], routes=[route]))
        body = b"GET /SMUGGLED HTTP/1.1\r\nHost: t\r\n\r\n"
        post = b"POST /no HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        got = await proxy.ask(post + post + LAST)
        assert got.count(b"HTTP/1.1 404 ") == 2
        assert got.count(b"HTTP/1.1 200 ") == 1
        assert len(backend.heads) == 1
        partial = b"GET /no HTTP/1.1\r\nHost: t\r\nContent-Length: 99\r\n\r\nGET /SMUGGLED HTTP/1.1\r\nX: "
        got = await proxy.ask(partial)
        assert got.startswith(b"HTTP/1.1 404 ")
        assert b"Connection: close" in got
        assert len(backend.heads) == 1


@pytest.mark.parametrize(
    "surplus", [b"X", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nEVIL!"], ids=["byte", "response"]
)
async def test_surplus_bytes_reach_nobody(surplus: bytes) -> None:
    """Contract item 13: the connection is dropped, the next request gets its own answer."""
    async with service(replies(REPLY + surplus, REPLY)) as (backend, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        for _ in range(2):
            writer.write(GET)
            assert (await answer(reader)).endswith(b"\r\n\r\nok")
        writer.close()
        assert backend.connections == 2


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: upgrade\r\n\r\nraw",
        b"HTTP/1.1 103 E\r\n\r\n" * 100,
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    ],
    ids=["two-lengths", "te-and-cl", "unasked-101", "interim-flood", "garbage", "bare-lf"],
)
async def test_a_response_that_can_be_read_in_two_ways_is_502(head: bytes) -> None:
    async with service(replies(head)) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        got = await proxy.ask(LAST)
        assert b"HTTP/1.1 502 " in got
        assert b"raw" not in got


async def test_interim_responses_reach_new_clients_only() -> None:
    """RFC 9110 section 15.2."""
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nX-Cohort-Arm: forged\r\n\r\n"
    async with service(replies(hints + REPLY)) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        got = await proxy.ask(LAST)
        assert got.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\n")
        assert b"forged" not in got
        assert not (await proxy.ask(b"GET / HTTP/1.0\r\nHost: t\r\n\r\n")).startswith(b"HTTP/1.1 103")


async def test_expect_is_answered_by_the_service() -> None:
    """Contract item 11."""

    def waits(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert b"Expect: 100-continue\r\n" in await running.read_head(reader)
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            assert await reader.readexactly(5) == b"hello"
            writer.write(REPLY)

        return serve

    async with service(waits) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(b"POST /a HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await answer(reader)).endswith(b"ok")
        writer.close()


async def test_draining_closes_idle_clients_and_lets_the_others_finish() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.5)
        writer.write(REPLY)

    async with service(scripted(slow)) as (_, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        idle_reader, idle = await proxy.open()
        reader, writer = await proxy.open()
        writer.write(GET)
        await asyncio.sleep(0.05)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(proxy.server.drain(0.1, 5))
            got = await reader.read()
        assert got.startswith(b"HTTP/1.1 200 ")
        assert b"Connection: close\r\n" in got
        assert await idle_reader.read() == b""
        writer.close()
        idle.close()


async def test_retiring_loses_no_client() -> None:
    """F28: who is queued is served, who is idle is told to come back by the next answer, the rest finishes."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            await asyncio.sleep(0.3)
            writer.write(REPLY)

    async with service(scripted(slow)) as (_, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        idle_reader, idle = await proxy.open()
        forgotten_reader, forgotten = await proxy.open()
        reader, writer = await proxy.open()
        writer.write(GET)
        await asyncio.sleep(0.05)
        late = socket.create_connection(("127.0.0.1", proxy.port))  # the loop has not turned since: it is queued
        async with asyncio.TaskGroup() as tasks:
            retiring = tasks.create_task(proxy.server.retire(2, 10))
            late.sendall(GET)
            late.setblocking(False)
            late_reader, late_writer = await asyncio.open_connection(sock=late)
            for answers in (await reader.read(), await late_reader.read()):
                assert answers.startswith(b"HTTP/1.1 200 ")
                assert b"Connection: close\r\n" in answers
            await asyncio.sleep(0.5)
            assert not idle_reader.at_eof()
            idle.write(GET)
            assert b"Connection: close\r\n" in await idle_reader.read()
            assert await forgotten_reader.read() == b""
            assert not retiring.done() or not proxy.server.connections
        for each in (writer, late_writer, idle, forgotten):
            each.close()


async def test_retiring_ends_by_its_limit() -> None:
    """F29: whatever is still under way then."""

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with service(scripted(never)) as (_, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(GET)
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await proxy.server.retire(5, 0.5)
        assert 0.4 < time.monotonic() - began < 3
        assert await reader.read() == b""
        writer.close()


async def test_a_plan_that_leaves_out_an_endpoint_closes_its_connections() -> None:
    async with service(replies(REPLY)) as (old, first), service(replies(REPLY)) as (new, second), Proxy({}) as proxy:
        proxy.adopt(plan([first], []))
        reader, writer = await proxy.open()
        writer.write(GET)
        await answer(reader)
        proxy.adopt(plan([second], [], generation=2))
        writer.write(GET)
        await answer(reader)
        writer.close()
        assert (len(old.heads), len(new.heads)) == (1, 1)
        async with asyncio.timeout(30):
            while len(proxy.server.upstreams) > 1:
                await asyncio.sleep(0.01)


async def test_trailers_reach_a_client_that_takes_them_without_words_for_us() -> None:
    """Contract items 9 and 10."""
    trailers = b"X-Sum: 9\r\nX_Cohort_Arm: forged\r\n"
    reply = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n%b\r\n" % trailers
    async with service(replies(reply)) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        takes = b"GET /a HTTP/1.1\r\nHost: t\r\nTE: trailers\r\nConnection: TE, close\r\n\r\n"
        assert (await proxy.ask(takes)).endswith(b"2\r\nok\r\n0\r\nX-Sum: 9\r\n\r\n")
        assert (await proxy.ask(LAST)).endswith(b"2\r\nok\r\n0\r\n\r\n")


async def test_a_refused_head_has_no_body() -> None:
    """RFC 9110 section 9.3.2, also where the request is not one."""
    async with Proxy({}) as proxy:
        got = await proxy.ask(b"HEAD / HTTP/1.1\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 400 ")
        assert got.endswith(b"\r\n\r\n")


async def test_requests_under_way_are_pending_and_broken_ones_are_no_evidence() -> None:
    """A request that its client broke before anything was sent is not a request of the arm."""
    taken, released = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        taken.set()
        await released.wait()
        writer.write(REPLY)

    async with service(scripted(hang)) as (_, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(GET)
        await taken.wait()
        await until(lambda: series(proxy, "pending").get(("stable",)) == 1)
        released.set()
        await answer(reader)
        await until(lambda: not any(series(proxy, "pending").values()))
        writer.close()
        before = series(proxy, "requests")
        broken = b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"
        assert (await proxy.ask(broken)).startswith(b"HTTP/1.1 400 ")
        assert series(proxy, "requests") == before


def sized(head: bytes) -> object:
    """A service that sends as many bytes as the path says, and says more in its head."""

    def handler(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                left = int((await running.read_head(reader)).split(b" ")[1][1:])
                writer.write(b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (head, left))
                while left:
                    writer.write(bytes(min(left, 65_536)))
                    left -= min(left, 65_536)
                    await writer.drain()
                if head:
                    return

        return serve

    return handler


@pytest.mark.parametrize("head", [b"", b"Connection: close\r\n"], ids=["kept", "closed"])
async def test_a_client_that_pipelines_and_takes_nothing_pins_no_memory(head: bytes) -> None:
    """Back-pressure holds across requests; then every answer comes."""
    sizes = [60_000] * 400 + [50_000_000]
    async with service(sized(head)) as (backend, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: t\r\n\r\n" % size for size in sizes))
        (connection,) = proxy.server.connections or [None]
        while connection is None or not connection.is_full:
            await asyncio.sleep(0.01)
            (connection,) = proxy.server.connections
        await asyncio.sleep(0.5)
        assert len(backend.heads) < 200
        assert connection._transport is not None
        assert connection._transport.get_write_buffer_size() <= 2 * 65_536
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        for size in sizes:
            assert len((await answer(reader)).partition(b"\r\n\r\n")[2]) == size
        writer.close()


async def test_a_connection_that_was_held_for_one_client_serves_the_next() -> None:
    """The end of an answer may be what its client does not take any more."""
    async with service(sized(b"")) as (backend, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        reader, stuck = await proxy.open()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        stuck.write(b"GET /60000 HTTP/1.1\r\nHost: t\r\n\r\n" * 200)
        await asyncio.sleep(0.5)
        assert any(connection.is_full for connection in proxy.server.connections)
        other, writer = await proxy.open()
        writer.write(b"GET /5 HTTP/1.1\r\nHost: t\r\n\r\n")
        assert (await answer(other)).startswith(b"HTTP/1.1 200 ")
        assert backend.connections == 1
        writer.close()
        stuck.transport.abort()


async def test_a_client_that_takes_nothing_makes_no_service_look_slow() -> None:
    """What it has asked for next has not begun, so no time-out of the service's runs."""
    async with service(sized(b"")) as (_, port), Proxy(FAST) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(b"GET /60000 HTTP/1.1\r\nHost: t\r\n\r\n" * 400)
        await asyncio.sleep(1.5)
        assert not proxy.server.connections
        assert not any(series(proxy, "upstream_failures").values())
        assert not any(labels[-1] == "failed" for labels in series(proxy, "requests"))
        assert series(proxy, "rejected")[("timeout",)] == 1
        writer.transport.abort()


async def test_a_slow_reader_of_many_answers_is_let_be() -> None:
    """While it takes anything within the time-out for bodies, whatever waits behind."""
    slow = {"timeouts": {"head": "300ms", "bodyIdle": "1s"}}
    async with service(sized(b"")) as (_, port), Proxy(slow) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(b"GET /60000 HTTP/1.1\r\nHost: t\r\n\r\n" * 300)
        writer.write_eof()
        got = 0
        for _ in range(20):
            got += len(await reader.read(100_000))
            await asyncio.sleep(0.1)
        while data := await reader.read(1 << 20):
            got += len(data)
        assert got > 300 * 60_000
        writer.close()


async def test_requests_that_wait_begin_after_a_look_at_the_connection_just_used() -> None:
    """Contract item 13: surplus right behind an answer is found before the next pipelined request is sent."""

    def silent_at_last(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            is_first = running.connections == 1
            while True:
                await running.read_head(reader)
                if not is_first or len(running.heads) == 1:
                    writer.write(REPLY)

        return serve

    async with service(silent_at_last) as (backend, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(GET)
        await answer(reader)
        writer.write(GET + GET)
        await until(lambda: len(backend.heads) == 2)
        (upstream,) = proxy.server.upstreams
        for data in (REPLY, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nEVIL!"):
            proxy.server.read_buffer[: len(data)] = data
            upstream.buffer_updated(len(data))
            assert upstream.relay is None
        for _ in range(2):
            assert (await answer(reader)).endswith(b"\r\n\r\nok")
        writer.close()
        assert backend.connections == 2


async def test_a_client_that_closes_its_side_while_requests_wait_gets_all_answers() -> None:
    """RFC 9112 section 9.6: what was sent completely is answered, also between two of them."""
    async with service(replies(REPLY)) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        for _ in range(20):
            reader, writer = await proxy.open()
            writer.write(GET * 5)
            writer.write_eof()
            got = await asyncio.wait_for(reader.read(), 5)
            assert got.count(b"HTTP/1.1 200 OK") == 5
            writer.close()


async def test_a_waiting_client_gets_one_100_however_many_the_service_sends() -> None:
    """RFC 9110 section 15.2.1: who waits for 100 waits for one."""
    go_on = b"HTTP/1.1 100 Continue\r\n\r\n"

    async def many(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(go_on * 3)
        await reader.readexactly(2)
        writer.write(REPLY)
        await reader.read()

    async with service(scripted(many)) as (_, port), Proxy({}) as proxy:  # type: ignore[arg-type]  # ignores its service
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(b"POST /a HTTP/1.1\r\nHost: t\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await reader.readexactly(len(go_on)) == go_on
        writer.write(b"hi")
        assert (await answer(reader)).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_connection_that_nobody_waits_for_any_more_is_closed() -> None:
    """The time-out for connecting may pass while the loop is late, just when the connection is there."""
    async with (
        service(replies(REPLY)) as (_, port),
        Proxy({"timeouts": {"upstreamKeepAlive": "300ms"}}) as proxy,
    ):
        proxy.adopt(plan([port], []))
        await proxy.ask(LAST)
        (upstream,) = proxy.server.upstreams
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: Upstream(proxy.server, upstream.endpoint), "127.0.0.1", port)
        assert len(proxy.server.upstreams) == 2
        async with asyncio.timeout(30):
            while proxy.server.upstreams:
                await asyncio.sleep(0.01)


async def test_every_request_has_an_id_of_its_own() -> None:
    """32 hexadecimal digits, taken from many drawn at once."""
    async with Proxy({}) as proxy:
        ids = [proxy.server.fresh_id() for _ in range(1000)]
        assert len(set(ids)) == 1000
        assert all(re.fullmatch(rb"[0-9a-f]{32}", one) for one in ids)
