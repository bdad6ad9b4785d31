"""What the supervisor finds out about endpoints, as a worker's requests meet it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.plan import Plan
from tests.support.dataplane import Handler, Proxy, Service, answer, plan, replies, service, until

GET = b"GET /a HTTP/1.1\r\nHost: t\r\nCookie: uid=1\r\n\r\n"
LAST = b"GET /a HTTP/1.1\r\nHost: t\r\nCookie: uid=1\r\nConnection: close\r\n\r\n"
NAME = "shop.example"


def reply(text: str) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text.encode())


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Two services on one port of two addresses, each answering with its own last digit."""
    async with (
        service(replies(reply("1")), "127.0.0.1") as (_, port),
        service(replies(reply("2")), "127.0.0.2", port),
    ):
        yield port


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async with Proxy({"endpoints": {"slowStart": "0s"}}) as running:
        yield running


def named(port: int, generation: int = 1, host: str = NAME) -> Plan:
    """A plan whose stable version is a name; there is no canary."""
    arm = {"name": "stable", "revision": "v1", "weightBp": 10_000, "dns": {"host": host, "port": port}}
    return plan([], [], arms=[arm], revision=None, generation=generation)


def found(*addresses: str, **others: list[str]) -> dict[str, Any]:
    return {"names": {NAME: list(addresses)} | others, "unhealthy": []}


async def status(proxy: Proxy) -> int:
    return int((await proxy.ask(LAST)).split()[1])


async def bodies(proxy: Proxy, times: int = 12) -> set[bytes]:
    return {(await proxy.ask(LAST)).rpartition(b"\r\n\r\n")[2] for _ in range(times)}


async def test_a_name_without_addresses_is_503_until_it_has_some(proxy: Proxy, port: int) -> None:
    """F39: the worker need not be told anything but the addresses."""
    proxy.adopt(named(port))
    assert await status(proxy) == 503
    proxy.server.discovered(found("127.0.0.1"))
    assert await bodies(proxy) == {b"1"}


async def test_a_plan_finds_addresses_that_were_told_before_it(proxy: Proxy, port: int) -> None:
    proxy.server.discovered(found("127.0.0.1", "127.0.0.2"))
    proxy.adopt(named(port))
    assert await bodies(proxy, 40) == {b"1", b"2"}


async def test_new_addresses_are_used_at_once_and_old_idle_connections_closed(proxy: Proxy, port: int) -> None:
    """F07: no request goes to the old address after that, not even by a connection that is open already."""
    proxy.server.discovered(found("127.0.0.1"))
    proxy.adopt(named(port))
    reader, writer = await proxy.open()
    writer.write(GET)
    assert (await answer(reader)).endswith(b"1")
    assert len(proxy.server.upstreams) == 1
    proxy.server.discovered(found("127.0.0.2"))
    writer.write(GET)
    assert (await answer(reader)).endswith(b"2")
    await until(lambda: len(proxy.server.upstreams) == 1)
    writer.close()


async def test_a_request_under_way_ends_at_the_old_address_and_closes_its_connection(proxy: Proxy, port: int) -> None:
    go_on = asyncio.Event()

    def slow(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            await go_on.wait()
            writer.write(reply("3"))
            assert await reader.read() == b""

        return serve

    async with service(slow, "127.0.0.3", port) as (old, _):
        proxy.server.discovered(found("127.0.0.3"))
        proxy.adopt(named(port))
        asking = asyncio.create_task(proxy.ask(LAST))
        await until(lambda: len(old.heads) == 1)
        proxy.server.discovered(found("127.0.0.1"))
        assert await bodies(proxy, 3) == {b"1"}
        go_on.set()
        assert (await asking).endswith(b"3")
        await until(lambda: all(upstream.endpoint.address == "127.0.0.1" for upstream in proxy.server.upstreams))


async def test_an_address_that_stays_keeps_its_connections_and_its_standing(proxy: Proxy, port: int) -> None:
    proxy.server.discovered(found("127.0.0.1"))
    proxy.adopt(named(port))
    await bodies(proxy, 1)
    before = set(proxy.server.upstreams)
    assert before
    proxy.server.discovered(found("127.0.0.1", "127.0.0.2"))
    proxy.server.discovered(found("127.0.0.1"))
    assert await bodies(proxy) == {b"1"}
    assert before <= set(proxy.server.upstreams)


async def test_a_plan_on_its_way_has_its_addresses_before_it_is_in_force(proxy: Proxy, port: int) -> None:
    """Every staged plan follows; one that is left keeps what it had, for the requests that live under it."""
    proxy.server.discovered(found("127.0.0.1"))
    proxy.adopt(named(port))
    proxy.server.discovered(found("127.0.0.1", **{"new.example": ["127.0.0.2"]}))
    proxy.server.stage(2, named(port, 2, "new.example"))
    proxy.server.discovered({"names": {"new.example": ["127.0.0.2"]}, "unhealthy": []})
    assert await bodies(proxy) == {b"1"}
    proxy.words.plan_sequence = 2
    assert await bodies(proxy) == {b"2"}


async def test_endpoints_that_nobody_names_are_forgotten(proxy: Proxy, port: int) -> None:
    """A name whose answer is another one each time costs no memory."""
    proxy.adopt(named(port))
    for number in range(100):
        proxy.server.discovered(found(f"127.0.1.{number}"))
    assert len(proxy.server._endpoints) == 1


async def test_an_endpoint_that_fails_its_checks_gets_no_request_until_it_passes(proxy: Proxy, port: int) -> None:
    proxy.server.discovered(found("127.0.0.1", "127.0.0.2"))
    proxy.adopt(named(port))
    proxy.server.discovered(found("127.0.0.1", "127.0.0.2") | {"unhealthy": [["127.0.0.1", port]]})
    assert await bodies(proxy, 20) == {b"2"}
    proxy.adopt(named(port, 2))
    assert await bodies(proxy, 20) == {b"2"}
    proxy.server.discovered(found("127.0.0.1", "127.0.0.2"))
    assert await bodies(proxy, 40) == {b"1", b"2"}


async def test_an_address_that_comes_back_unhealthy_is_not_used(proxy: Proxy, port: int) -> None:
    proxy.adopt(named(port))
    proxy.server.discovered(found("127.0.0.2") | {"unhealthy": [["127.0.0.1", port]]})
    proxy.server.discovered(found("127.0.0.1", "127.0.0.2") | {"unhealthy": [["127.0.0.1", port]]})
    assert await bodies(proxy, 20) == {b"2"}


async def test_when_most_endpoints_fail_their_checks_all_are_used(proxy: Proxy, port: int) -> None:
    """Panic: then something else than the endpoints is likely to blame."""
    proxy.server.discovered(found("127.0.0.1", "127.0.0.2") | {"unhealthy": [["127.0.0.1", port], ["127.0.0.2", port]]})
    proxy.adopt(named(port))
    assert await bodies(proxy, 40) == {b"1", b"2"}
