"""TLS to services: whom the proxy believes, what it shows them, and how their connections end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.counters import read
from proxy.net.credentials import Credentials, Pair
from tests.support.certificates import Authority
from tests.support.dataplane import REPLY, Handler, Proxy, Service, answer, plan, replies, service

AUTHORITY = Authority()
PAIR = AUTHORITY.issue("shop.test", "127.0.0.1")
TRUSTING = Credentials(((),), AUTHORITY.pem)
SERVING = replies(REPLY)
GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def tls_plan(ports: list[int], generation: int = 1, **tls: Any) -> Any:
    """A plan whose stable arm speaks TLS."""
    found = plan(ports, []).model_dump(mode="json", by_alias=True)
    found["arms"][0]["tls"] = tls
    return plan([], [], arms=found["arms"], generation=generation)


@contextlib.asynccontextmanager
async def secure_service(
    folder: Path, handler: Callable[[Service], Handler] = SERVING, pair: Pair = PAIR, **options: Any
) -> AsyncIterator[tuple[Service, int]]:
    """A service with TLS; options are set on its context."""
    context = AUTHORITY.server(pair, folder)
    for name, value in options.items():
        setattr(context, name, value)
    async with service(handler, tls=context) as found:
        yield found


def failures(proxy: Proxy, kind: str) -> int:
    series = read([proxy.memory], "11111111-2222-3333-4444-555555555555", "v2").series
    return series.get(("upstream_failures", "stable", kind), 0)


async def test_a_service_that_proves_its_name_is_served_over_kept_connections(tmp_path: Path) -> None:
    """TLS 1.2 and 1.3; also the first unsafe request of a client, which looks at the connection first."""
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        async with secure_service(tmp_path, maximum_version=version) as (backend, port), Proxy({}, TRUSTING) as proxy:
            proxy.adopt(tls_plan([port], serverName="shop.test"))
            for request in (LAST, LAST, POST, LAST):
                assert (await proxy.ask(request)).startswith(b"HTTP/1.1 200 ")
                await asyncio.sleep(0.05)
            assert backend.connections == 1
            assert b"\r\nX-Forwarded-Proto: http\r\n" in backend.heads[0]


async def test_without_a_name_the_address_must_be_proven(tmp_path: Path) -> None:
    async with secure_service(tmp_path) as (_, port), Proxy({}, TRUSTING) as proxy:
        proxy.adopt(tls_plan([port]))
        assert (await proxy.ask(LAST)).endswith(b"ok")


@pytest.mark.parametrize(
    ("pair", "name", "credentials", "reason"),
    [
        (AUTHORITY.expired("shop.test"), "shop.test", TRUSTING, "certificate has expired"),
        (PAIR, "other.test", TRUSTING, "Hostname mismatch, certificate is not valid for 'other.test'"),
        (AUTHORITY.issue("shop.test"), None, TRUSTING, "IP address mismatch, certificate is not valid for '127.0.0.1'"),
        (PAIR, "shop.test", Credentials(((),), Authority().pem), "self-signed certificate in certificate chain"),
        (PAIR, "shop.test", Credentials(), "self-signed certificate in certificate chain"),
    ],
    ids=["expired", "wrong name", "wrong address", "unknown authority", "system's authorities"],
)
async def test_a_service_that_proves_nothing_gets_no_request(
    tmp_path: Path,
    pair: Pair,
    name: str | None,
    credentials: Credentials,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """F32: 502, counted as `connect`, and the log says why."""
    caplog.set_level(logging.INFO)
    async with secure_service(tmp_path, pair=pair) as (backend, port), Proxy({}) as proxy:
        proxy.server.trust(Credentials(((),), credentials.authorities))
        proxy.adopt(tls_plan([port], **({"serverName": name} if name else {})))
        assert (await proxy.ask(LAST)).startswith(b"HTTP/1.1 502 ")
        assert backend.heads == []
        assert failures(proxy, "connect") >= 1
    assert f"TLS: {reason}" in caplog.text
    assert not [record for record in caplog.records if record.exc_info and record.name.startswith("cohort")]


async def test_a_service_without_tls_is_not_spoken_to_in_plain(caplog: pytest.LogCaptureFixture) -> None:
    async with service(replies(REPLY)) as (backend, port), Proxy({}, TRUSTING) as proxy:
        proxy.adopt(tls_plan([port]))
        caplog.set_level(logging.CRITICAL, "asyncio")
        with contextlib.suppress(TimeoutError):
            assert (await proxy.ask(LAST)).split(b" ")[1] in (b"502", b"504")
        assert backend.heads == []


async def test_a_handshake_that_never_ends_is_given_up_in_time(tmp_path: Path) -> None:
    """The connect time-out holds for both together: 504."""

    def silent(_: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()

        return serve

    async with service(silent) as (_, port), Proxy({"timeouts": {"connect": "200ms"}}, TRUSTING) as proxy:
        proxy.adopt(tls_plan([port]))
        assert (await proxy.ask(LAST)).startswith(b"HTTP/1.1 504 ")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
async def test_a_service_that_asks_for_a_certificate_gets_ours(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """Mutual TLS; without a certificate nobody is served."""
    seen: list[Any] = []

    def who(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(writer.get_extra_info("peercert"))
            while True:
                await running.read_head(reader)
                writer.write(REPLY)

        return serve

    strict = {"verify_mode": ssl.CERT_REQUIRED, "maximum_version": version}
    async with secure_service(tmp_path, who, **strict) as (backend, port), Proxy({}) as proxy:
        proxy.server.trust(Credentials(((),), AUTHORITY.pem, AUTHORITY.issue("proxy.test")))
        proxy.adopt(tls_plan([port]))
        assert (await proxy.ask(LAST)).endswith(b"ok")
        assert ("DNS", "proxy.test") in seen[0]["subjectAltName"]
        proxy.server.trust(TRUSTING)
        assert (await proxy.ask(POST)).startswith(b"HTTP/1.1 502 ")
        assert len(backend.heads) == 1


async def test_a_refusal_of_our_certificate_is_a_failure_to_connect(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """RFC 8446 section 4.4.2.4: its alert comes after our side of the handshake, when the request is on its way."""
    context = AUTHORITY.server(PAIR, tmp_path)
    context.verify_mode = ssl.CERT_REQUIRED

    def refuse(listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        secure = context.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        with contextlib.suppress(ssl.SSLError):
            secure.do_handshake()  # unlike asyncio's it sends the alert
        with socket.socket(fileno=secure.detach()) as raw:
            while raw.recv(65_536):  # a reset for what is not read would overtake it
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with Proxy({}, TRUSTING) as proxy:
            proxy.adopt(tls_plan([listener.getsockname()[1]]))
            answered, _ = await asyncio.gather(proxy.ask(POST), asyncio.to_thread(refuse, listener))
            assert answered.startswith(b"HTTP/1.1 502 ")
            assert (failures(proxy, "connect"), failures(proxy, "reset")) == (1, 0)
    assert "TLS broke off: tlsv13 alert certificate required" in caplog.text


@pytest.mark.parametrize("is_announced", [True, False])
async def test_an_end_that_is_not_announced_is_a_truncation(tmp_path: Path, is_announced: bool) -> None:
    """RFC 9112 section 9.8: a body that ends with the connection is whole only after close_notify."""

    def until_close(_: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n\r\npart")
            await writer.drain()
            await asyncio.sleep(0.1)
            if not is_announced:
                with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as raw:
                    raw.shutdown(socket.SHUT_WR)
                await asyncio.sleep(0.2)

        return serve

    async with secure_service(tmp_path, until_close) as (_, port), Proxy({}, TRUSTING) as proxy:
        proxy.adopt(tls_plan([port]))
        assert (await proxy.ask(LAST)).endswith(b"part\r\n0\r\n\r\n") == is_announced
        assert failures(proxy, "truncated") == (not is_announced)


async def test_with_and_without_tls_an_address_is_two_endpoints(tmp_path: Path) -> None:
    """Or a connection of one kind would be used for the other when a plan changes."""
    async with secure_service(tmp_path) as (backend, port), Proxy({}, TRUSTING) as proxy:
        proxy.adopt(tls_plan([port], serverName="shop.test"))
        assert (await proxy.ask(LAST)).endswith(b"ok")
        proxy.adopt(tls_plan([port], 2, serverName="other.test"))
        assert (await proxy.ask(LAST)).startswith(b"HTTP/1.1 502 ")
        proxy.adopt(tls_plan([port], 3))
        assert (await proxy.ask(LAST)).endswith(b"ok")
        assert len(backend.heads) == 2


async def test_new_authorities_count_from_the_next_connection(tmp_path: Path) -> None:
    """F32: idle connections made under the old ones are closed."""
    async with secure_service(tmp_path) as (backend, port), Proxy({}, TRUSTING) as proxy:
        proxy.adopt(tls_plan([port]))
        assert (await proxy.ask(LAST)).endswith(b"ok")
        proxy.server.trust(Credentials(((),), Authority().pem))
        assert (await proxy.ask(LAST)).startswith(b"HTTP/1.1 502 ")
        proxy.server.trust(TRUSTING)
        async with asyncio.timeout(30):
            while not (await proxy.ask(LAST)).endswith(b"ok"):
                await asyncio.sleep(0.1)
        assert len(backend.heads) == 2


async def test_large_bodies_go_through_both_ways(tmp_path: Path) -> None:
    """Back-pressure through two layers of TLS below and above."""
    size = 8 * 1_048_576

    def echo(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            left = size
            while left:
                data = await reader.read(min(left, 300_000))
                left -= len(data)
                writer.write(data)
                await writer.drain()

        return serve

    block = os.urandom(65_536)
    async with secure_service(tmp_path, echo) as (_, port), Proxy({}, TRUSTING) as proxy:
        proxy.adopt(tls_plan([port]))
        reader, writer = await proxy.open()
        writer.write(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % size)

        async def upload() -> None:
            for _ in range(size // len(block)):
                writer.write(block)
                await writer.drain()

        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(upload())
            await reader.readuntil(b"\r\n\r\n")
            for _ in range(size // len(block)):
                assert await reader.readexactly(len(block)) == block
                assert proxy.server.buffered <= 4 * 65_536
        writer.close()


async def test_an_idle_connection_that_the_service_ends_is_forgotten(tmp_path: Path) -> None:
    def once(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            writer.write(REPLY)
            await writer.drain()

        return serve

    async with secure_service(tmp_path, once) as (backend, port), Proxy({}, TRUSTING) as proxy:
        proxy.adopt(tls_plan([port]))
        reader, writer = await proxy.open()
        for _ in range(3):
            writer.write(GET)
            assert (await answer(reader)).endswith(b"ok")
            await asyncio.sleep(0.1)
        writer.close()
        assert backend.connections == 3
        assert failures(proxy, "reset") == 0
