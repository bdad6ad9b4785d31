"""What docs/behaviour.md says of the data plane as a whole, where no other test shows it."""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
import time
from collections.abc import Callable

import pytest

from proxy.counters import read
from proxy.net import server as serving
from proxy.net.mirror import Copy
from proxy.net.upstream import Upstream
from proxy.sketch import estimate
from proxy.synthetic import Tag
from tests.proxy.net.test_dataplane import FAST, GET, LAST, gone, scripted
from tests.support.dataplane import KEYS, REPLY, Handler, Proxy, Service, answer, plan, replies, series, service, until

POST = b"POST /a HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"


async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A service that takes everything and says nothing."""
    while await reader.read(65_536):
        pass


async def test_both_sides_are_spoken_to_in_http_1_1() -> None:
    """RFC 9110 section 6.2: a version is a hop's own."""
    async with (
        service(replies(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")) as (backend, port),
        Proxy({}) as proxy,
    ):
        proxy.adopt(plan([port], []))
        assert (await proxy.ask(b"GET /a HTTP/1.0\r\nHost: t\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")
        assert backend.heads[0].startswith(b"GET /a HTTP/1.1\r\n")


async def test_an_old_client_without_a_host_gets_the_configured_one() -> None:
    """Contract item 4."""
    async with service(replies(REPLY)) as (backend, port), Proxy({"defaultHost": "shop.example"}) as proxy:
        proxy.adopt(plan([port], []))
        assert (await proxy.ask(b"GET /a HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert b"\r\nHost: shop.example\r\n" in backend.heads[0]


async def test_our_hop_stands_in_via_where_we_have_a_name() -> None:
    """RFC 9110 section 7.6.3: in what is forwarded either way, not in answers of our own; without a name nowhere."""
    reply = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nVia: 1.0 inner\r\nContent-Length: 2\r\n\r\nok"
    for name, sent, got in (("edge", b"1.0 a, 1.1 edge", b"1.0 inner, 1.1 edge"), ("", b"1.0 a", b"1.0 inner")):
        async with service(replies(reply)) as (backend, port), Proxy({"via": name or None}) as proxy:
            proxy.adopt(plan([port], []))
            answered = await proxy.ask(b"GET /a HTTP/1.1\r\nHost: t\r\nVia: 1.0 a\r\nConnection: close\r\n\r\n")
            hints, _, final = answered.partition(b"\r\n\r\n")
            assert b"\r\nVia: %b\r\n" % sent in backend.heads[0]
            assert b"\r\nVia: %b\r\n" % got in final
            assert hints == b"HTTP/1.1 103 Early Hints" + b"\r\nVia: 1.1 edge" * bool(name)
            own = await proxy.ask(b"OPTIONS * HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            assert b"Via" not in own


async def test_options_for_the_proxy_itself_are_answered() -> None:
    """Contract item 6."""
    async with service(replies(REPLY)) as (backend, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        for head in (b"OPTIONS * HTTP/1.1\r\n", b"OPTIONS /a HTTP/1.1\r\nMax-Forwards: 0\r\n"):
            got = await proxy.ask(head + b"Host: t\r\nConnection: close\r\n\r\n")
            assert got.startswith(b"HTTP/1.1 204 ")
            assert b"\r\nAllow: " in got
        assert backend.connections == 0


async def test_max_forwards_goes_on_decremented() -> None:
    """Contract item 6; for other methods it means nothing (RFC 9110 section 7.6.2)."""
    async with service(replies(REPLY)) as (backend, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        for method in (b"OPTIONS", b"GET"):
            await proxy.ask(method + b" /a HTTP/1.1\r\nHost: t\r\nMax-Forwards: 3\r\nConnection: close\r\n\r\n")
        assert [b"Max-Forwards: 2\r\n" in head for head in backend.heads] == [True, False]
        assert b"Max-Forwards: 3\r\n" in backend.heads[1]


async def test_a_fault_in_a_body_ends_the_services_connection_unfinished() -> None:
    """Contract item 2: what the service has got of it is no request."""
    got = bytearray()
    closed = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                got.extend(data)
        finally:
            closed.set()

    async with service(scripted(take)) as (_, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(b"POST /a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        async with asyncio.timeout(30):
            while b"abc" not in got:
                await asyncio.sleep(0.01)
        writer.write(b"XX\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        async with asyncio.timeout(30):
            await closed.wait()
        assert b"0\r\n\r\n" not in got
        writer.close()


async def test_an_upload_goes_on_under_its_answer() -> None:
    """Contract item 12: full-duplex uploads are real."""
    received = bytearray()

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        for _ in range(3):
            received.extend(await reader.readexactly(3))
            writer.write(received[-3:])

    async with service(scripted(early)) as (_, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(POST + b"Content-Length: 9\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        for part in (b"abc", b"def", b"ghi"):
            writer.write(part)
            assert await reader.readexactly(3) == part
        assert await reader.read() == b""
        writer.close()


async def test_surplus_bytes_are_counted() -> None:
    """Contract item 13."""
    async with service(replies(REPLY + b"X")) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        await proxy.ask(LAST)
        assert series(proxy, "upstream_failures") == {("stable", "protocol"): 1}


async def test_a_truncated_answer_is_a_failure_and_not_tried_again() -> None:
    """Contract items 14 and 15: something of the answer came."""

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CUT)

    async with service(scripted(cut)) as (backend, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        assert (await proxy.ask(LAST)).endswith(b"abc")
        assert series(proxy, "upstream_failures") == {("stable", "truncated"): 1}
        assert [labels[-1] for labels in series(proxy, "requests")] == ["failed"]
        assert backend.connections == 1


@pytest.mark.parametrize(
    ("reply", "kind", "code"),
    [
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", None, "500"),
        (b"", "reset", "502"),
        (b"HTTP/1.1 9\r\n\r\n", "protocol", "502"),
        (None, "timeout", "504"),
    ],
    ids=["5xx", "reset", "protocol", "time-out"],
)
async def test_what_fails_counts_against_its_version(reply: bytes | None, kind: str | None, code: str) -> None:
    """Design: the failures of a version are 5xx, connect failure, time-out, reset and truncation."""

    async def fail(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if reply is None:
            await reader.read()
        else:
            writer.write(reply)

    async with service(scripted(fail)) as (_, port), Proxy(FAST) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        await proxy.ask(POST + b"Content-Length: 0\r\n\r\n")
        assert series(proxy, "upstream_failures") == ({("stable", kind): 1} if kind else {})
        assert [labels[-2:] for labels in series(proxy, "requests")] == [(code, "failed")]


async def test_a_client_that_leaves_is_no_failure() -> None:
    """Design: client aborts are a series of their own; threat S5."""
    taken = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        taken.set()
        await reader.read()

    async with service(scripted(slow)) as (_, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        _, writer = await proxy.open()
        writer.write(GET)
        await taken.wait()
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await gone(proxy)
        assert [labels[-2:] for labels in series(proxy, "requests")] == [("499", "ok")]
        assert series(proxy, "upstream_failures") == {}


@pytest.mark.parametrize(
    "framed",
    [b"Content-Length: 11\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n5\r\nghijk\r\n0\r\n\r\n"],
    ids=["declared", "chunked"],
)
async def test_a_body_above_the_limit_is_refused(framed: bytes) -> None:
    """Contract item 17."""
    async with service(scripted(hang)) as (_, port), Proxy({"limits": {"bodyBytes": 10}}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        assert (await proxy.ask(POST + framed)).startswith(b"HTTP/1.1 413 ")


async def test_a_service_that_pauses_too_long_is_cut() -> None:
    """Contract items 14 and 17."""

    async def pause(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(CUT)
        await reader.read()

    async with service(scripted(pause)) as (_, port), Proxy(FAST) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        assert (await proxy.ask(LAST)).endswith(b"\r\n\r\nabc")
        assert series(proxy, "upstream_failures") == {("stable", "timeout"): 1}


async def test_a_client_that_takes_nothing_is_cut_off() -> None:
    """Contract item 17: the body's pause counts on either side; and it is no fault of the service."""

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65_536)
            await writer.drain()

    async with service(scripted(flood)) as (_, port), Proxy(FAST) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            sock.connect(("127.0.0.1", proxy.port))
            sock.sendall(GET)
            await asyncio.sleep(0.2)
            await gone(proxy)
        assert series(proxy, "rejected") == {("timeout",): 1}
        assert series(proxy, "upstream_failures") == {}


async def test_an_idle_connection_to_a_service_is_closed() -> None:
    """Contract item 17: before the service does, so that no request meets a dead connection."""
    async with service(replies(REPLY)) as (_, port), Proxy({"timeouts": {"upstreamKeepAlive": "300ms"}}) as proxy:
        proxy.adopt(plan([port], []))
        await proxy.ask(LAST)
        assert len(proxy.server.upstreams) == 1
        async with asyncio.timeout(30):
            while proxy.server.upstreams:
                await asyncio.sleep(0.05)


async def test_reading_pauses_when_all_buffers_are_full() -> None:
    """Contract item 17: 32 MiB in all for a worker."""
    sizes = asyncio.Event()

    async def long(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        await sizes.wait()
        writer.write(b"x" * 1_000_000)

    async with service(scripted(long)) as (_, port), Proxy({}) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(LAST)
        await reader.readuntil(b"\r\n\r\n")
        proxy.server.buffered += 2 * proxy.server.most_buffered  # as if others had filled them
        sizes.set()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await reader.readexactly(1_000_000)
        proxy.server.buffered -= 2 * proxy.server.most_buffered
        async with asyncio.timeout(30):
            assert len(await reader.read()) > 0
        writer.close()


async def test_a_service_that_was_not_read_for_want_of_room_is_not_to_blame() -> None:
    """Slow readers of others must not cost an arm its endpoints, nor a rollout its verdict."""
    sizes = asyncio.Event()

    async def long(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        await sizes.wait()
        writer.write(b"x" * 1_000_000)
        await writer.drain()

    settings = {"timeouts": {"bodyIdle": "300ms"}}
    async with service(scripted(long)) as (_, port), Proxy(settings) as proxy:  # type: ignore[arg-type]
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(LAST)
        await reader.readuntil(b"\r\n\r\n")
        proxy.server.buffered += 2 * proxy.server.most_buffered  # as if others had filled them
        sizes.set()
        async with asyncio.timeout(30):
            assert len(await reader.read()) < 1_000_000
        proxy.server.buffered -= 2 * proxy.server.most_buffered
        writer.close()
        assert not series(proxy, "upstream_failures")
        assert [labels[-1] for labels in series(proxy, "requests")] == ["ok"]


async def test_the_limit_of_open_files_lowers_the_limit_of_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contract item 17: always below RLIMIT_NOFILE, where uvloop would accept and close. F23."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    assert serving._most_connections() == (256 - serving.RESERVED_FILES) // 2


async def test_a_mark_of_a_load_test_that_is_not_signed_counts_for_nothing() -> None:
    """Threat S7: nobody leaves the evidence by saying so."""
    async with service(replies(REPLY)) as (backend, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        marked = LAST.replace(b"Host: t", b"Host: t\r\nCookie: uid=1\r\nX-Cohort-Synthetic: 1\r\nx_cohort_synthetic: 1")
        assert (await proxy.ask(marked)).startswith(b"HTTP/1.1 200 ")
        assert b"synthetic" not in backend.heads[0].lower()
        assert [labels[1:3] for labels in series(proxy, "requests")] == [("split", "user")]


async def test_signed_synthetic_requests_are_apart_and_are_no_users() -> None:
    """Contract item 9: read from anyone, then removed in every spelling; heads seen before included."""
    async with service(replies(REPLY)) as (backend, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], [port], 5_000))
        tag = Tag(KEYS.synthetic, "shop/checkout").sign(time.time() + 60)
        marked = GET.replace(b"Host: t", b"Host: t\r\nCookie: uid=%%d\r\nX-Cohort-Synthetic: %b" % tag.encode())
        reader, writer = await proxy.open()
        for number in range(10):
            writer.write(marked % number)
            assert (await answer(reader)).startswith(b"HTTP/1.1 200 ")
        writer.close()
        folded = LAST.replace(b"Host: t", b"Host: t\r\nCookie: uid=11\r\nX_Cohort-Synthetic: %b" % tag.encode())
        await proxy.ask(folded)
        assert not any(b"synthetic" in head.lower() for head in backend.heads)
        counted = series(proxy, "requests")
        assert sum(count for labels, count in counted.items() if labels[2] == "synthetic") == 10
        assert {labels[0] for labels in counted if labels[2] == "synthetic"} == {"stable", "canary"}
        assert sum(count for labels, count in counted.items() if labels[2] == "user") == 1
        found = read([proxy.memory], "11111111-2222-3333-4444-555555555555", "v2")
        assert sum(estimate(users) for users in found.users.values()) == 1


async def test_a_synthetic_request_that_falls_back_stays_synthetic(free_port: Callable[[], int]) -> None:
    """It failed on the canary, and is no user's there either."""
    async with service(replies(REPLY)) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], [free_port()], 10_000))
        tag = Tag(KEYS.synthetic, "shop/checkout").sign(time.time() + 60)
        marked = LAST.replace(b"Host: t", b"Host: t\r\nCookie: uid=1\r\nX-Cohort-Synthetic: %b" % tag.encode())
        assert (await proxy.ask(marked)).startswith(b"HTTP/1.1 200 ")
        assert {labels[:3] for labels in series(proxy, "requests")} == {
            ("canary", "split", "synthetic"), ("stable", "fallback", "synthetic"),
        }  # fmt: skip


async def test_a_fault_of_our_own_costs_its_client_alone_and_holds_no_place(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """F30: an exception once a connection is there, for a request and for a copy."""
    limits = {"armRequests": 1, "mirrorRequests": 1}
    async with service(replies(REPLY)) as (_, port), Proxy({"limits": limits}) as proxy:
        proxy.adopt(plan([port], [port], mirror={"arm": "canary", "percent": 100}))
        asked = LAST.replace(b"Host: t", b"Host: t\r\nCookie: uid=1")
        with monkeypatch.context() as patch:
            patch.setattr(Upstream, "begin", None)
            assert await proxy.ask(asked) == b""
        assert [record.message.split(":")[0] for record in caplog.records] == ["exchange failed"]
        with monkeypatch.context() as patch:
            patch.setattr(Copy, "connect_done", None)
            assert (await proxy.ask(asked)).startswith(b"HTTP/1.1 200 ")
            await until(lambda: ("canary", "failed") in series(proxy, "mirrored"))
        assert (await proxy.ask(asked)).startswith(b"HTTP/1.1 200 ")
        await until(lambda: ("canary", "sent") in series(proxy, "mirrored"))
        assert not any(room.busy for room in proxy.server._rooms.values())
        assert not any(endpoint.active for endpoint in proxy.server._endpoints.values())


async def test_a_redirect_is_the_clients_affair() -> None:
    """Contract item 18."""
    moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    async with service(replies(moved)) as (backend, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        got = await proxy.ask(LAST)
        assert got.startswith(b"HTTP/1.1 302 ")
        assert b"\r\nLocation: http://127.0.0.1:1/\r\n" in got
        assert len(backend.heads) == 1


async def test_the_connection_used_last_is_taken() -> None:
    """The one that the service is least likely to have closed."""
    heads: list[tuple[int, bytes]] = []

    def numbered(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            number = running.connections
            while True:
                heads.append((number, await running.read_head(reader)))
                await asyncio.sleep(0.1 * number if len(heads) <= 2 else 0)
                writer.write(REPLY)

        return serve

    async with service(numbered) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        clients = [await proxy.open() for _ in range(2)]
        for _, writer in clients:
            writer.write(GET)
        for reader, _ in clients:
            await answer(reader)
        for reader, writer in clients:
            writer.write(GET)
            await answer(reader)
            writer.close()
        assert [number for number, _ in heads[2:]] == [2, 2]
