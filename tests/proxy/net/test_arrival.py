"""Connections that begin with a header of the PROXY protocol, with TLS behind it or without."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest

from proxy.counters import read
from proxy.net.credentials import Credentials
from tests.support.certificates import Authority, listening
from tests.support.dataplane import REPLY, Proxy, Service, answer, plan, replies, service

AUTHORITY = Authority()
V1 = b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 443\r\n"
LOCAL = b"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"
GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
FORGED = LAST.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 203.0.113.9\r\nX-User-Id: somebody\r\n\r\n")


def proxy_for(trusted: list[str] | None = None, **settings: Any) -> Proxy:
    """A proxy whose listener wants the header from loopback."""
    trust = ["127.0.0.0/8"] if trusted is None else trusted
    return Proxy({"listeners": [{"proxyProtocol": True}], "trustedPeers": trust} | settings, Credentials(((),)))


def rejected(proxy: Proxy, cause: str) -> int:
    return read([proxy.memory], "", None).series.get(("rejected", cause), 0)


def told(backend: Service, name: bytes) -> list[bytes]:
    """The values of a field of the last request."""
    lines = backend.heads[-1].lower().split(b"\r\n")
    return [line.partition(b": ")[2] for line in lines if line.startswith(name.lower() + b": ")]


async def until(look: Any) -> None:
    async with asyncio.timeout(30):
        while not look():
            await asyncio.sleep(0.01)


async def test_the_address_in_the_header_is_the_clients() -> None:
    """And what the client itself says of it counts for nothing."""
    async with service(replies(REPLY)) as (backend, port), proxy_for() as proxy:
        proxy.adopt(plan([port], [], users=[{"header": {"name": "X-User-Id"}}]))
        assert (await proxy.ask(V1 + FORGED)).endswith(b"ok")
        assert told(backend, b"X-Forwarded-For") == [b"192.0.2.1"]
        assert told(backend, b"X-User-Id") == []


async def test_trust_is_a_matter_of_the_address_in_the_header() -> None:
    """A balancer before proxies of ours: those are trusted, their clients not."""
    async with service(replies(REPLY)) as (backend, port), proxy_for(["127.0.0.1/32", "192.0.2.0/24"]) as proxy:
        proxy.adopt(plan([port], [], users=[{"header": {"name": "X-User-Id"}}]))
        assert (await proxy.ask(V1 + FORGED)).endswith(b"ok")
        assert told(backend, b"X-Forwarded-For") == [b"203.0.113.9, 192.0.2.1"]
        assert told(backend, b"X-User-Id") == [b"somebody"]


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", LOCAL], ids=["unknown", "local"])
async def test_a_balancer_that_does_not_say_who_is_not_believed_itself(header: bytes) -> None:
    """Else every client that it cannot name would have its trust."""
    async with service(replies(REPLY)) as (backend, port), proxy_for() as proxy:
        proxy.adopt(plan([port], [], users=[{"header": {"name": "X-User-Id"}}]))
        assert (await proxy.ask(header + FORGED)).endswith(b"ok")
        assert told(backend, b"X-Forwarded-For") == [b"127.0.0.1"]
        assert told(backend, b"X-User-Id") == []


async def test_a_header_may_come_in_any_parts() -> None:
    async with service(replies(REPLY)) as (backend, port), proxy_for() as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        for at in range(len(V1 + GET)):
            writer.write((V1 + GET)[at : at + 1])
            await asyncio.sleep(0)
        assert (await answer(reader)).endswith(b"ok")
        writer.write(GET)
        assert (await answer(reader)).endswith(b"ok")
        writer.close()
        assert len(backend.heads) == 2


async def test_much_behind_the_header_is_not_lost() -> None:
    """More than one read holds."""
    body = bytes(range(256)) * 1024

    def take(running: Service) -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            assert await reader.readexactly(len(body)) == body
            writer.write(REPLY)

        return serve

    async with service(take) as (_, port), proxy_for() as proxy:
        proxy.adopt(plan([port], []))
        head = b"POST / HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        reader, writer = await proxy.open()
        writer.write(V1[:40])
        await asyncio.sleep(0.05)
        writer.write(V1[40:] + head + body)
        assert (await reader.read()).endswith(b"ok")
        writer.close()


@pytest.mark.parametrize("data", [LAST, V1[:-2] + b"\n" + LAST, V1[:20], b"PROXY " + b"x" * 200], ids=str)
async def test_a_connection_without_a_header_is_closed(data: bytes) -> None:
    """Without an answer: nobody has said who asks."""
    async with service(replies(REPLY)) as (backend, port), proxy_for() as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await proxy.open()
        writer.write(data)
        writer.write_eof()
        try:
            assert await reader.read() == b""
        except ConnectionResetError:
            pass
        writer.close()
        await until(lambda: not proxy.server.connections)
        assert rejected(proxy, "preface") == 1
        assert backend.heads == []


async def test_only_trusted_peers_may_say_who_their_clients_are() -> None:
    async with service(replies(REPLY)) as (backend, port), proxy_for(["192.0.2.0/24"]) as proxy:
        proxy.adopt(plan([port], []))
        try:
            assert await proxy.ask(V1 + LAST) == b""
        except ConnectionResetError:
            pass
        await until(lambda: not proxy.server.connections)
        assert rejected(proxy, "untrusted") == 1
        assert backend.heads == []


async def test_a_header_has_the_time_of_a_head_and_a_look_at_the_port_is_nothing() -> None:
    async with proxy_for(timeouts={"head": "300ms"}) as proxy:
        assert await proxy.ask(V1[:10]) == b""
        assert rejected(proxy, "timeout") == 1
        _, writer = await proxy.open()
        writer.close()
        await until(lambda: not proxy.server.connections)
        assert rejected(proxy, "preface") == 0


async def test_arrivals_count_against_the_limit() -> None:
    async with service(replies(REPLY)) as (_, port), proxy_for(limits={"connections": 2}) as proxy:
        proxy.adopt(plan([port], []))
        opened = [await proxy.open() for _ in range(2)]
        await until(lambda: len(proxy.server.connections) == 2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await proxy.ask(V1 + LAST)
        for _, writer in opened:
            writer.close()
        assert (await proxy.ask(V1 + LAST)).endswith(b"ok")


@pytest.mark.parametrize("together", [True, False])
async def test_tls_comes_behind_the_header(together: bool) -> None:
    """The header is not encrypted; whether the handshake comes with it or after."""
    settings, credentials = listening(AUTHORITY.issue("a.test"))
    settings["listeners"][0]["proxyProtocol"] = True
    async with (
        service(replies(REPLY)) as (backend, port),
        Proxy(settings | {"trustedPeers": ["127.0.0.0/8"]}, credentials) as proxy,
    ):
        proxy.adopt(plan([port], []))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = AUTHORITY.client().wrap_bio(incoming, outgoing, server_hostname="a.test")
        reader, writer = await proxy.open()
        writer.write(V1)
        if not together:
            await asyncio.sleep(0.05)
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65_536))
        client.write(LAST.replace(b"Host: t", b"Host: a.test"))
        writer.write(outgoing.read())
        incoming.write(await reader.read())
        assert client.read().endswith(b"ok")
        writer.close()
        assert told(backend, b"X-Forwarded-For") == [b"192.0.2.1"]
        assert told(backend, b"X-Forwarded-Proto") == [b"https"]
        await until(lambda: not proxy.server.connections)


async def test_a_handshake_without_the_header_is_closed() -> None:
    settings, credentials = listening(AUTHORITY.issue("a.test"))
    settings["listeners"][0]["proxyProtocol"] = True
    async with Proxy(settings | {"trustedPeers": ["127.0.0.0/8"]}, credentials) as proxy:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", proxy.port, ssl=AUTHORITY.client(), server_hostname="a.test")
        await until(lambda: rejected(proxy, "preface") == 1)
        assert (await proxy.ask(V1 + LAST)).startswith(b"HTTP/1.1 400 ")
        assert rejected(proxy, "tls") == 1
