"""Copies of requests: what they say, when none is made, and that nobody feels them."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from proxy.assign import bucket, mirror_salt
from proxy.document import DocumentError
from proxy.net.mirror import Copy
from tests.support.dataplane import REPLY, Handler, Proxy, Service, plan, replies, series, service, until
from tests.support.plans import decide, splitter

GET = b"GET /a?b=1 HTTP/1.1\r\nHost: t\r\nCookie: uid=1\r\nX-Mine: 1\r\nConnection: close\r\n\r\n"
ALL: dict[str, Any] = {"arm": "canary", "percent": 100}


def post(body: bytes) -> bytes:
    return (
        b"POST /a HTTP/1.1\r\nHost: t\r\nCookie: uid=1\r\nExpect: 100-continue\r\nConnection: close\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    )


def copies(proxy: Proxy) -> dict[str, int]:
    """What became of them, by result."""
    return {result: count for (_, result), count in series(proxy, "mirrored").items()}


def hang(running: Service) -> Handler:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await running.read_head(reader)
        await reader.read()

    return serve


async def test_a_copy_says_what_it_is_and_else_what_the_request_said() -> None:
    """A10: the same head for the other arm, marked by its reason."""
    async with service(replies(REPLY)) as (old, stable), service(replies(REPLY)) as (new, canary), Proxy({}) as proxy:
        proxy.adopt(plan([stable], [canary], mirror=ALL))
        assert (await proxy.ask(GET)).startswith(b"HTTP/1.1 200 ")
        await until(lambda: copies(proxy) == {"sent": 1})
        [head], [copy] = old.heads, new.heads
        told = {
            b"X-Cohort-Arm: canary",
            b"X-Cohort-Revision: v2",
            b"X-Cohort-Reason: mirror",
            b"baggage: cohort.arm=canary;mirror",
        }
        meant = {
            b"X-Cohort-Arm: stable",
            b"X-Cohort-Revision: v1",
            b"X-Cohort-Reason: split",
            b"baggage: cohort.arm=stable",
        }
        assert set(copy.split(b"\r\n")) ^ set(head.split(b"\r\n")) == told | meant


async def test_copies_are_no_evidence_and_no_users() -> None:
    """They are counted under a source of their own, which nothing judges."""
    async with service(replies(REPLY)) as (_, stable), service(replies(REPLY)) as (_, canary), Proxy({}) as proxy:
        proxy.adopt(plan([stable], [canary], mirror=ALL))
        await proxy.ask(GET)
        await until(lambda: copies(proxy) == {"sent": 1})
        assert series(proxy, "requests") == {
            ("stable", "split", "user", "200", "ok"): 1,
            ("canary", "mirror", "mirror", "200", "ok"): 1,
        }


async def test_a_body_is_copied_whole_and_framed_anew() -> None:
    """Nobody waits for a 100 on behalf of a copy: its body is known."""
    got = asyncio.Event()

    def take(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            running.heads.append(await reader.readexactly(5))
            writer.write(REPLY)
            got.set()

        return serve

    def primary(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            await reader.readuntil(b"0\r\n\r\n")
            writer.write(REPLY)

        return serve

    async with service(primary) as (_, stable), service(take) as (new, canary), Proxy({}) as proxy:
        proxy.adopt(plan([stable], [canary], mirror=ALL | {"methods": ["POST"]}))
        assert (await proxy.ask(post(b"hello"))).startswith(b"HTTP/1.1 200 ")
        await got.wait()
        head, body = new.heads
        assert body == b"hello"
        assert b"\r\nContent-Length: 5\r\n" in head
        assert b"chunked" not in head
        assert b"Expect" not in head
        await until(lambda: copies(proxy) == {"sent": 1})


async def test_a_body_above_the_limit_is_not_copied() -> None:
    """`limits.mirrorBodyBytes`; the request itself goes on."""

    def primary(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            await reader.readuntil(b"0\r\n\r\n")
            writer.write(REPLY)

        return serve

    limits = {"limits": {"mirrorBodyBytes": 4}}
    async with service(primary) as (_, stable), service(replies(REPLY)) as (new, canary), Proxy(limits) as proxy:
        proxy.adopt(plan([stable], [canary], mirror=ALL | {"methods": ["POST"]}))
        assert (await proxy.ask(post(b"hello"))).startswith(b"HTTP/1.1 200 ")
        await until(lambda: copies(proxy) == {"dropped": 1})
        assert not new.connections


async def test_a_target_that_hangs_costs_nobody_anything_and_holds_so_many() -> None:
    """F38: what finds no room is dropped and counted."""
    limits = {"limits": {"mirrorRequests": 2, "mirrorPending": 1}}
    async with service(replies(REPLY)) as (_, stable), service(hang) as (new, canary), Proxy(limits) as proxy:
        proxy.adopt(plan([stable], [canary], mirror=ALL))
        for _ in range(10):
            assert (await proxy.ask(GET)).startswith(b"HTTP/1.1 200 ")
        await until(lambda: copies(proxy) == {"dropped": 7})
        assert len(new.heads) == 2


async def test_a_copy_that_takes_too_long_ends_and_one_that_waited_too_long_is_dropped() -> None:
    settings = {"limits": {"mirrorRequests": 1}, "timeouts": {"responseHead": "500ms", "connect": "100ms"}}
    async with service(replies(REPLY)) as (_, stable), service(hang) as (_, canary), Proxy(settings) as proxy:
        proxy.adopt(plan([stable], [canary], mirror=ALL))
        for _ in range(2):
            await proxy.ask(GET)
        await until(lambda: copies(proxy) == {"failed": 1, "dropped": 1})
        assert not proxy.server._rooms[("canary", True)].busy


async def test_a_dead_target_is_a_failed_copy_and_never_repeated() -> None:
    """Nothing was asked of us: 502 goes to nobody."""
    closed = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"

    def half(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            writer.write(closed)

        return serve

    async with service(replies(REPLY)) as (_, stable), service(half) as (new, canary), Proxy({}) as proxy:
        proxy.adopt(plan([stable], [canary], mirror=ALL))
        await proxy.ask(GET)
        await until(lambda: copies(proxy) == {"failed": 1})
        assert len(new.heads) == 1
        assert not series(proxy, "retries")


async def test_an_endless_answer_is_cut_off() -> None:
    """Reading it to the end would cost more than it is worth."""
    gone = asyncio.Event()

    def endless(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            try:
                while True:
                    writer.write(b"10000\r\n%b\r\n" % bytes(65536))
                    await writer.drain()
            except ConnectionError:
                gone.set()

        return serve

    async with service(replies(REPLY)) as (_, stable), service(endless) as (_, canary), Proxy({}) as proxy:
        proxy.adopt(plan([stable], [canary], mirror=ALL))
        await proxy.ask(GET)
        await gone.wait()
        await until(lambda: copies(proxy) == {"sent": 1})


async def test_after_an_abort_nothing_is_copied_to_the_canary() -> None:
    """An abort ends all: nobody and nothing is on the canary, copies that wait included."""
    limits = {"limits": {"mirrorRequests": 1}}
    async with service(replies(REPLY)) as (_, stable), service(hang) as (new, canary), Proxy(limits) as proxy:
        proxy.adopt(plan([stable], [canary], mirror=ALL))
        for _ in range(2):
            await proxy.ask(GET)
        await until(lambda: len(proxy.server._rooms[("canary", True)].waiting) == 1)
        proxy.words.latch = 1
        new.close()
        await until(lambda: copies(proxy) == {"failed": 1, "dropped": 1})
        await proxy.ask(GET)
        await asyncio.sleep(0.05)
        assert copies(proxy) == {"failed": 1, "dropped": 1}


async def test_unfinished_uploads_hold_no_more_copies_than_may_wait() -> None:
    """Slow uploads must not pin the memory of ten thousand copies; one that breaks off frees its place."""
    limits = {"limits": {"mirrorPending": 1}}
    head = b"POST /a HTTP/1.1\r\nHost: t\r\nCookie: uid=1\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"

    def upload(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            await reader.readexactly(2)
            writer.write(REPLY)

        return serve

    async with service(upload) as (_, stable), service(upload) as (new, canary), Proxy(limits) as proxy:
        proxy.adopt(plan([stable], [canary], mirror=ALL | {"methods": ["POST"]}))
        _, first = await proxy.open()
        first.write(head % 2 + b"o")
        await until(lambda: len(proxy.server.collecting) == 1)
        assert (await proxy.ask(head % 2 + b"ok")).startswith(b"HTTP/1.1 200 ")
        assert copies(proxy) == {"dropped": 1}
        first.close()
        await until(lambda: copies(proxy) == {"dropped": 2})
        assert (await proxy.ask(head % 100_000 + b"ok")).startswith(b"HTTP/1.1 200 ")
        assert copies(proxy) == {"dropped": 3}
        assert not proxy.server.collecting
        assert (await proxy.ask(head % 2 + b"ok")).startswith(b"HTTP/1.1 200 ")
        await until(lambda: copies(proxy) == {"dropped": 3, "sent": 1})
        assert len(new.heads) == 1


async def test_a_body_in_tiny_parts_takes_no_more_memory_than_its_bytes() -> None:
    async with service(replies(REPLY)) as (_, stable), Proxy({}) as proxy:
        proxy.adopt(plan([stable], [1], mirror=ALL))
        view = proxy.server.view()
        assert view is not None
        assert view.mirror is not None
        copy = Copy(proxy.server, view.mirror)
        for _ in range(30_000):
            copy.add(b"ab")
        assert sys.getsizeof(copy._body) < 70_000


async def test_a_dead_target_is_not_knocked_at_for_each_copy() -> None:
    """F38: an attempt costs more than a request; the endpoint stays as it was for users."""
    async with service(replies(REPLY)) as (_, stable), Proxy({}) as proxy:
        async with service(replies(REPLY)) as (_, canary):
            pass
        proxy.adopt(plan([stable], [canary], mirror=ALL))
        await proxy.ask(GET)
        await until(lambda: copies(proxy) == {"failed": 1})
        for _ in range(5):
            assert (await proxy.ask(GET)).startswith(b"HTTP/1.1 200 ")
        await until(lambda: copies(proxy) == {"failed": 1, "dropped": 5})
        view = proxy.server.view()
        assert view is not None
        assert not view.arms[1].endpoints[0].standing.is_out
        assert not series(proxy, "upstream_failures")


async def test_copies_under_way_end_some_time_after_an_abort() -> None:
    """abortDrain holds for them too."""
    settings = {"timeouts": {"abortDrain": "250ms"}}
    async with service(replies(REPLY)) as (_, stable), service(hang) as (_, canary), Proxy(settings) as proxy:
        proxy.adopt(plan([stable], [canary], mirror=ALL))
        await proxy.ask(GET)
        await until(lambda: proxy.server._rooms[("canary", True)].busy == 1)
        proxy.words.latch = 1
        await until(lambda: copies(proxy) == {"failed": 1})
        assert not proxy.server._rooms[("canary", True)].busy


async def test_a_request_to_switch_is_not_copied() -> None:
    """Nobody would speak on the tunnel."""
    ask = (
        b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    )
    refused = b"HTTP/1.1 403 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    async with service(replies(refused)) as (_, stable), service(replies(REPLY)) as (new, canary), Proxy({}) as proxy:
        proxy.adopt(plan([stable], [canary], mirror=ALL))
        reader, writer = await proxy.open()
        writer.write(b"GET /a HTTP/1.1\r\nHost: t\r\nCookie: uid=1\r\n" + ask + b"\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 403 ")
        writer.close()
        await asyncio.sleep(0.05)
        assert not copies(proxy)
        assert not new.connections


async def test_copies_have_connections_and_room_of_their_own() -> None:
    """A slow mirror never takes what users of that arm need."""
    async with service(replies(REPLY)) as (_, stable), service(hang) as (_, canary), Proxy({}) as proxy:
        proxy.adopt(plan([stable], [canary], mirror=ALL))
        await proxy.ask(GET)
        await until(lambda: proxy.server._rooms[("canary", True)].busy == 1)
        assert proxy.server._rooms[("canary", False)].busy == 0
        assert not proxy.server._endpoints[("127.0.0.1", canary, None, False)].active


USERS = [{"header": {"name": "X-User-Id", "trust": "Anyone"}}]


def test_users_are_drawn_independently_of_the_split() -> None:
    """surface.md: the split's own bucket would pick just those who are on the canary already."""
    chosen = splitter(users=USERS, mirror={"arm": "canary", "percent": 20})
    decisions = [decide(chosen, "/", f"X-User-Id: u{n}") for n in range(4000)]
    stable = [d for d in decisions if d.arm == 0]
    share = sum(d.is_mirrored for d in stable) / len(stable)
    assert share == pytest.approx(0.2, abs=0.03)
    assert not any(d.is_mirrored for d in decisions if d.arm == 1)
    salt = mirror_salt(chosen._salt)
    assert all(d.is_mirrored == (bucket(d.key, salt) < 2000) for d in stable if d.key)
    again = [decide(chosen, "/", f"X-User-Id: u{n}") for n in range(100)]
    assert [d.is_mirrored for d in again] == [d.is_mirrored for d in decisions[:100]]


def test_what_a_route_keeps_on_stable_is_not_copied() -> None:
    """A6: the payment gateway never, not even as a copy; nor anything without a key, nor under an abort."""
    routes = [{"name": "pay", "matches": [{"path": {"value": "/pay"}}], "arm": "stable"}]
    chosen = splitter(users=USERS, routes=routes, mirror=ALL, preview={"access": "Public"})
    line = f"X-User-Id: {next(f'u{n}' for n in range(100) if decide(chosen, '/', f'X-User-Id: u{n}').arm == 0)}"
    assert decide(chosen, "/", line).is_mirrored
    assert not decide(chosen, "/pay/x", line).is_mirrored
    assert not decide(chosen, "/").is_mirrored
    assert not decide(chosen, "/", line, method="POST").is_mirrored
    assert not decide(chosen, "/", line, latched=True).is_mirrored
    assert not decide(chosen, "/.cohort/preview", line).is_mirrored


def test_without_a_revision_on_trial_nothing_is_copied() -> None:
    """There is no canary then."""
    weights = [{"name": "stable", "revision": "v1", "weightBp": 10_000, "endpoints": []}]
    chosen = splitter(users=USERS, mirror=ALL, revision=None, arms=weights)
    assert not decide(chosen, "/", "X-User-Id: u1").is_mirrored


@pytest.mark.parametrize("arm", ["stable", "green"])
def test_only_another_arm_gets_copies(arm: str) -> None:
    with pytest.raises(DocumentError, match=r"mirror\.arm: expected one of canary"):
        plan([1], [2], mirror={"arm": arm, "percent": 1})
