"""TLS with clients: who gets which certificate, how connections end, and what is no TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import ssl
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.certificate import read_certificate
from proxy.counters import read
from proxy.net.credentials import Credentials
from proxy.websocket import accept
from tests.support.certificates import Authority, listening
from tests.support.dataplane import REPLY, Handler, Proxy, Service, answer, plan, replies, service

AUTHORITY = Authority()
SETTINGS, CREDENTIALS = listening(AUTHORITY.issue("a.test"), AUTHORITY.issue("b.test", "*.c.test"))
FAST = {"timeouts": {"head": "300ms", "responseHead": "300ms", "bodyIdle": "300ms"}}
GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"


def tls_proxy(**settings: Any) -> Proxy:
    return Proxy(SETTINGS | settings, CREDENTIALS)


def rejected(proxy: Proxy, cause: str) -> int:
    return read([proxy.memory], "", None).series.get(("rejected", cause), 0)


async def until(look: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not look():
            await asyncio.sleep(0.01)


async def open_tls(
    proxy: Proxy, name: str = "a.test", context: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(
        "127.0.0.1", proxy.port, ssl=context or AUTHORITY.client(), server_hostname=name
    )


class Client:
    """A client that sees how its connection ends, which asyncio's hides; its calls block, so they run in a thread."""

    def __init__(self, port: int, name: str | None = "a.test", context: ssl.SSLContext | None = None) -> None:
        raw = socket.create_connection(("127.0.0.1", port), 10)
        try:
            self.sock = (context or AUTHORITY.client()).wrap_socket(
                raw, server_hostname=name, suppress_ragged_eofs=False
            )
        except BaseException:
            raw.close()
            raise

    def rest(self) -> tuple[bytes, str]:
        """All that comes, and how it ends: ``announced`` by close_notify, or ``cut``."""
        data = b""
        try:
            while got := self.sock.recv(65_536):
                data += got
        except ssl.SSLError as error:
            return data, "cut" if error.reason in (None, "UNEXPECTED_EOF_WHILE_READING") else error.reason
        return data, "announced"


async def ask(proxy: Proxy, data: bytes, **options: Any) -> tuple[bytes, str]:
    def run() -> tuple[bytes, str]:
        client = Client(proxy.port, **options)
        with client.sock:
            client.sock.sendall(data)
            return client.rest()

    return await asyncio.to_thread(run)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
async def test_requests_over_tls_are_served_and_told_as_such(version: ssl.TLSVersion) -> None:
    """TL-06: X-Forwarded-Proto says https, a cookie of ours is Secure; the end is announced."""
    context = AUTHORITY.client()
    context.maximum_version = context.minimum_version = version
    async with service(replies(REPLY)) as (backend, port), tls_proxy() as proxy:
        proxy.adopt(plan([port], [], users=[{"mint": {}}]))
        data, end = await ask(proxy, GET + LAST, context=context)
        assert data.count(b"HTTP/1.1 200 ") == 2
        assert b"; Secure" in data
        assert end == "announced"
        assert all(b"\r\nX-Forwarded-Proto: https\r\n" in head for head in backend.heads)
        assert backend.connections == 1


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a.test", "a.test"), ("b.test", "b.test"), ("x.c.test", "b.test"), ("d.test", "a.test"), (None, "a.test")],
)
async def test_the_name_asked_for_chooses_the_certificate(name: str | None, shown: str) -> None:
    """RFC 6066 section 3: exact, then wildcard, else the first."""
    context = AUTHORITY.client()
    context.check_hostname = False
    async with tls_proxy() as proxy:

        def look() -> bytes:
            client = Client(proxy.port, name, context)
            with client.sock:
                return client.sock.getpeercert(binary_form=True) or b""

        der = await asyncio.to_thread(look)
    assert shown in read_certificate(ssl.DER_cert_to_PEM_cert(der).encode()).names


async def test_http11_is_agreed_upon_and_sessions_are_resumed() -> None:
    """RFC 7301; tickets of RFC 8446 section 4.6.1."""
    context = AUTHORITY.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with service(replies(REPLY)) as (_, port), tls_proxy() as proxy:
        proxy.adopt(plan([port], []))

        def twice() -> tuple[str | None, bool | None]:
            first = Client(proxy.port, "a.test", context)
            with first.sock:
                first.sock.sendall(LAST)
                first.rest()
                raw = socket.create_connection(("127.0.0.1", proxy.port), 10)
                with context.wrap_socket(raw, server_hostname="a.test", session=first.sock.session) as second:
                    return second.selected_alpn_protocol(), second.session_reused

        assert await asyncio.to_thread(twice) == ("http/1.1", True)


async def test_tickets_of_earlier_contexts_count_for_nothing() -> None:
    """Their keys are gone: a full handshake, as if there were none."""
    context = AUTHORITY.client()
    async with service(replies(REPLY)) as (_, port), tls_proxy() as proxy:
        proxy.adopt(plan([port], []))

        def ask_once(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None]:
            raw = socket.create_connection(("127.0.0.1", proxy.port), 10)
            with context.wrap_socket(raw, server_hostname="a.test", session=session) as client:
                client.sendall(LAST)
                while client.recv(65_536):
                    pass
                return client.session, client.session_reused

        session, _ = await asyncio.to_thread(ask_once, None)
        proxy.server.trust(CREDENTIALS)
        assert (await asyncio.to_thread(ask_once, session))[1] is False


@pytest.mark.parametrize(
    ("context", "least"),
    [("old", "1.2"), ("weak", "1.2"), ("1.2", "1.3")],
)
async def test_old_versions_and_weak_ciphers_are_refused(context: str, least: str) -> None:
    """TL-04, RFC 8996, RFC 9325: counted, and nothing reaches a service."""
    client = AUTHORITY.client()
    if context == "old":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that is the point
            client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
        client.set_ciphers("ALL:@SECLEVEL=0")
    else:
        client.maximum_version = ssl.TLSVersion.TLSv1_2
        client.set_ciphers("AES256-GCM-SHA384" if context == "weak" else "ECDHE+AESGCM")
    settings, credentials = listening(AUTHORITY.issue("a.test"))
    settings["listeners"][0]["tls"]["minVersion"] = least
    async with Proxy(settings, credentials) as proxy:
        with pytest.raises(ssl.SSLError):
            await ask(proxy, GET, context=client)
        await until(lambda: rejected(proxy, "tls") == 1)
        await until(lambda: not proxy.server.connections)


async def test_plain_http_gets_400() -> None:
    """TL-01: readable for a person who took the wrong port."""
    async with tls_proxy() as proxy:
        answered = await proxy.ask(GET)
        assert answered.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert (await proxy.ask(b"CONNECT a.test:443 HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert b"\r\nConnection: close\r\n" in answered
        assert rejected(proxy, "tls") == 2


async def test_bytes_that_are_no_handshake_end_in_an_alert() -> None:
    """RFC 8446 section 6: and the connection does not stay."""
    async with tls_proxy() as proxy:
        assert not (await proxy.ask(b"\x00\x01garbage" * 50)).startswith(b"HTTP")
        await until(lambda: not proxy.server.connections)
        assert rejected(proxy, "tls") == 1


async def test_a_handshake_has_the_time_of_a_head() -> None:
    """LM-01 for TLS: silence, and a hello that never ends."""
    async with tls_proxy(**FAST) as proxy:
        assert await proxy.ask(b"") == b""
        assert await proxy.ask(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") == b""
        assert rejected(proxy, "timeout") == 2
        assert not proxy.server.connections


async def test_a_look_at_the_port_is_not_counted() -> None:
    """Load balancers open and close connections to see whether somebody listens."""
    async with tls_proxy() as proxy:
        _, writer = await proxy.open()
        await until(lambda: proxy.server.connections)
        writer.close()
        await until(lambda: not proxy.server.connections)
        assert rejected(proxy, "tls") == 0


async def test_connections_in_handshake_count_against_the_limit() -> None:
    """Contract item 17: or a flood of them would have no bound."""
    async with tls_proxy(limits={"connections": 2}) as proxy:
        opened = [await proxy.open() for _ in range(2)]
        await until(lambda: len(proxy.server.connections) == 2)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await open_tls(proxy)
        for _, writer in opened:
            writer.close()
        _, writer = await open_tls(proxy)
        writer.close()


@pytest.mark.parametrize("how", ["reset", "fin", "close_notify"])
async def test_a_request_cut_short_is_not_finished(how: str) -> None:
    """TL-05, RFC 9112 section 9.8: with or without close_notify an incomplete request stays incomplete."""
    seen: list[bytes] = []

    def collect(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            seen.append(await reader.read())

        return serve

    def cut(client: Client) -> None:
        if how == "reset":
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sock.close()
        elif how == "fin":
            client.sock.shutdown(socket.SHUT_WR)
            socket.socket(fileno=client.sock.detach()).close()
        else:
            with client.sock, contextlib.suppress(ssl.SSLError):  # an answer is there before their close_notify
                client.sock.unwrap()

    async with service(collect) as (backend, port), tls_proxy() as proxy:
        proxy.adopt(plan([port], []))
        client = await asyncio.to_thread(Client, proxy.port)
        client.sock.sendall(b"POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await until(lambda: backend.heads)
        await asyncio.to_thread(cut, client)
        await until(lambda: seen and not proxy.server.connections)
        assert not seen[0].endswith(b"0\r\n\r\n")


async def test_a_client_that_ends_its_side_gets_its_answer() -> None:
    """RFC 8446 section 6.1: close_notify ends one direction."""

    def slow(_: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.1)
            writer.write(REPLY)

        return serve

    async with service(slow) as (_, port), tls_proxy() as proxy:
        proxy.adopt(plan([port], []))
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = AUTHORITY.client().wrap_bio(incoming, outgoing, server_hostname="a.test")
        reader, writer = await proxy.open()
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65_536))
        client.write(GET)
        with pytest.raises(ssl.SSLWantReadError):
            client.unwrap()
        writer.write(outgoing.read())
        writer.write_eof()
        incoming.write(await reader.read())
        assert client.read().endswith(b"ok")
        with pytest.raises(ssl.SSLZeroReturnError):  # their close_notify
            client.read()
        writer.close()


@pytest.mark.parametrize("head", [b"Content-Length: 100\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n64\r\n"])
async def test_a_truncated_answer_has_no_announced_end(head: bytes) -> None:
    """Contract item 14: what came is sent, then FIN without close_notify."""

    def cut(_: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"part")
            await writer.drain()

        return serve

    async with service(cut) as (_, port), tls_proxy() as proxy:
        proxy.adopt(plan([port], []))
        data, end = await ask(proxy, GET)
        assert b"part" in data
        assert end == "cut"


async def test_a_truncated_answer_to_an_old_client_is_reset() -> None:
    """Contract item 14: where the end of the connection is the end of the body, even a careless client must notice."""

    def cut(_: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\npart")
            await writer.drain()
            await asyncio.sleep(0.2)

        return serve

    async with service(cut) as (_, port), tls_proxy() as proxy:
        proxy.adopt(plan([port], []))

        def run() -> None:
            client = Client(proxy.port)
            client.sock.sendall(b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n")
            with socket.socket(fileno=client.sock.detach()) as raw:  # Python's ssl makes one error of both ends
                raw.settimeout(30)
                while raw.recv(65_536):
                    pass

        with pytest.raises(ConnectionResetError):
            await asyncio.to_thread(run)


async def test_an_early_answer_reaches_a_client_that_still_sends() -> None:
    """Contract item 12 over TLS: close_notify and FIN behind the answer, then what comes is discarded."""
    async with service(replies(REPLY)) as (_, port), tls_proxy() as proxy:
        proxy.adopt(plan([port], []))

        def run() -> tuple[bytes, str]:
            client = Client(proxy.port)
            with client.sock:
                client.sock.sendall(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000000\r\n\r\n")
                data = client.sock.recv(65_536)
                for _ in range(20):
                    client.sock.sendall(b"x" * 100_000)
                more, end = client.rest()
                return data + more, end

        data, end = await asyncio.to_thread(run)
        assert data.endswith(b"ok")
        assert end == "announced"
        await until(lambda: not proxy.server.connections)


async def test_any_segmentation_of_records_gives_the_same_requests() -> None:
    """One byte a segment, one byte a record, many records a segment."""

    def echo(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await running.read_head(reader)
                body = await reader.readexactly(40_000)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n" + body)
                await writer.drain()

        return serve

    body = os.urandom(40_000)
    request = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 40000\r\n\r\n" + body
    async with service(echo) as (_, port), tls_proxy() as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await open_tls(proxy)
        for step in (len(request), 7_000, 1_000):
            for at in range(0, len(request), step):
                writer.write(request[at : at + step])
                await writer.drain()
            assert (await answer(reader)).endswith(body)
        for at in range(80):  # records of one byte
            writer.write(request[at : at + 1])
        writer.write(request[80:] + request * 5)
        for _ in range(6):
            assert (await answer(reader)).endswith(body)
        writer.close()


async def test_a_slow_reader_of_a_large_answer_costs_little_memory() -> None:
    """Contract item 17: 64 MiB to a client that reads slowly; pauses go through to the service, and all of it comes."""
    size = 64 * 1_048_576
    sent = 0

    def large(_: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            block = bytes(range(256)) * 1024
            while sent < size:
                writer.write(block)
                await writer.drain()
                sent += len(block)

        return serve

    async with service(large) as (_, port), tls_proxy() as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await open_tls(proxy)
        writer.write(GET)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        await asyncio.sleep(1)  # nothing is read
        assert sent < 24 * 1_048_576  # what kernels take: their buffers grow to some MiB each
        assert proxy.server.buffered <= 2 * 65_536
        got = 0
        while got < size:
            data = await reader.readexactly(min(262_144, size - got))
            assert data == bytes(range(256)) * (len(data) // 256)
            got += len(data)
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 24 * 1024
        writer.close()


async def test_a_slow_service_holds_an_upload_over_tls_back() -> None:
    """The other direction: what is decrypted but not taken is bounded, and arrives whole."""
    size = 16 * 1_048_576
    may_read = asyncio.Event()
    got = 0

    def slow(_: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal got
            await reader.readuntil(b"\r\n\r\n")
            await may_read.wait()
            while got < size:
                data = await reader.read(262_144)
                assert data == (bytes(range(256)) * 1026)[got % 256 :][: len(data)]
                got += len(data)
            writer.write(REPLY)

        return serve

    async with service(slow) as (_, port), tls_proxy() as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await open_tls(proxy)
        writer.write(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n\r\n" % size)

        async def upload() -> None:
            for _ in range(0, size, 65_536):
                writer.write(bytes(range(256)) * 256)
                await writer.drain()

        uploading = asyncio.create_task(upload())
        await asyncio.sleep(0.7)
        assert not uploading.done()
        assert proxy.server.buffered <= 2 * 65_536
        may_read.set()
        await uploading
        assert (await answer(reader)).endswith(b"ok")
        writer.close()


async def test_new_certificates_count_from_the_next_handshake() -> None:
    """F32: a connection that is there stays."""
    async with service(replies(REPLY)) as (_, port), tls_proxy() as proxy:
        proxy.adopt(plan([port], []))
        reader, writer = await open_tls(proxy)
        other = Authority()
        proxy.server.trust(Credentials(((other.issue("a.test"),),)))
        writer.write(GET)
        assert (await answer(reader)).endswith(b"ok")
        with pytest.raises(ssl.SSLCertVerificationError):
            await open_tls(proxy)
        again = await open_tls(proxy, context=other.client())
        for opened in (writer, again[1]):
            opened.close()


@pytest.mark.parametrize(
    ("name", "host", "trusted", "status"),
    [
        ("a.test", b"a.test", [], b"200"),
        ("a.test", b"A.TEST.:8443", [], b"200"),
        ("a.test", b"b.test", [], b"421"),
        ("b.test", b"x.c.test", [], b"200"),
        ("b.test", b"y.x.c.test", [], b"421"),
        ("d.test", b"d.test", [], b"200"),
        ("a.test", b"192.0.2.1", [], b"421"),
        (None, b"b.test", [], b"200"),
        ("a.test", b"b.test", ["127.0.0.0/8"], b"200"),
    ],
)
async def test_a_request_for_a_host_that_the_handshake_was_not_for_is_421(
    name: str | None, host: bytes, trusted: list[str], status: bytes
) -> None:
    """RFC 9110 section 15.5.20. Without SNI nothing was promised; a trusted peer speaks for many hosts."""
    context = AUTHORITY.client()
    context.check_hostname = False
    async with service(replies(REPLY)) as (backend, port), tls_proxy(trustedPeers=trusted) as proxy:
        proxy.adopt(plan([port], []))
        data, _ = await ask(proxy, LAST.replace(b"a.test", host), name=name, context=context)
        assert data.split(b" ")[1] == status
        assert len(backend.heads) == (status == b"200")
        assert rejected(proxy, "misdirected") == (status == b"421")


async def test_a_tampered_record_ends_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    """RFC 8446 section 5.2: bad_record_mac; counted, and not a word of it is an exception's."""
    async with service(replies(REPLY)) as (backend, port), tls_proxy() as proxy:
        proxy.adopt(plan([port], []))
        client = await asyncio.to_thread(Client, proxy.port)
        with socket.socket(fileno=client.sock.detach()) as raw:
            raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            raw.settimeout(30)
            await asyncio.to_thread(raw.recv, 65_536)
            await until(lambda: not proxy.server.connections)
        assert rejected(proxy, "tls") == 1
        assert not backend.heads
    assert not [record for record in caplog.records if record.exc_info or "Fatal" in record.message]


async def test_a_client_that_resets_at_any_byte_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """F31 for TLS: in the handshake, the request, the answer."""
    async with service(replies(REPLY)) as (_, port), tls_proxy() as proxy:
        proxy.adopt(plan([port], []))
        cut = 1
        while True:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = AUTHORITY.client().wrap_bio(incoming, outgoing, server_hostname="a.test")
            reader, writer = await proxy.open()
            left, is_done = cut, False
            while left and not is_done:
                try:
                    client.do_handshake()
                    client.write(GET)
                    is_done = True
                except ssl.SSLWantReadError:
                    pass
                part = outgoing.read()[:left]
                left -= len(part)
                writer.write(part)
                if left and not is_done:
                    incoming.write(await reader.read(65_536))
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            if is_done and left:
                break
            cut += 13
        await until(lambda: not proxy.server.connections)
        assert cut > 500
        assert (await ask(proxy, LAST))[0].endswith(b"ok")
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_drain_closes_connections_on_which_nothing_came() -> None:
    """They would hold the proxy until the head's deadline."""
    async with tls_proxy() as proxy:
        reader, writer = await proxy.open()
        await until(lambda: proxy.server.connections)
        async with asyncio.timeout(2):
            await proxy.server.drain(0, 20)
        assert await reader.read() == b""
        writer.close()


async def test_a_websocket_goes_over_tls_on_both_sides(tmp_path: Path) -> None:
    """Item 7: frames both ways, and the service's end reaches the client as an announced one."""
    ask = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n"
    key = b"dGhlIHNhbXBsZSBub25jZQ=="
    switch = b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %b\r\n\r\n"

    def switching(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            writer.write(switch % accept(key))
            writer.write(await reader.readexactly(6) * 20_000)
            await writer.drain()

        return serve

    tls = AUTHORITY.server(AUTHORITY.issue("127.0.0.1"), tmp_path)
    credentials = Credentials(CREDENTIALS.listeners, AUTHORITY.pem)
    async with service(switching, tls=tls) as (_, port), Proxy(SETTINGS, credentials) as proxy:
        document = plan([port], []).model_dump(mode="json", by_alias=True)
        document["arms"][0]["tls"] = {}
        proxy.adopt(plan([], [], arms=document["arms"]))

        def run() -> tuple[bytes, str]:
            client = Client(proxy.port)
            with client.sock:
                client.sock.sendall(GET[:-2] + ask % key)
                assert client.sock.recv(65_536).startswith(b"HTTP/1.1 101 ")
                client.sock.sendall(b"frames")
                return client.rest()

        assert await asyncio.to_thread(run) == (b"frames" * 20_000, "announced")
        await until(lambda: not proxy.server.connections)


async def test_many_certificates_are_taken_over_beside_requests() -> None:
    """64 contexts take some 200 ms to make: the loop must not stand still meanwhile, and the last ones count."""
    other = Authority()
    settings, _ = listening(*[AUTHORITY.issue("a.test")] * 64)
    first, second = (Credentials(((authority.issue("a.test"),) * 64,)) for authority in (AUTHORITY, other))
    turns, is_over = 0, asyncio.Event()

    async def watch() -> None:
        nonlocal turns
        while not is_over.is_set():
            await asyncio.sleep(0.005)
            turns += 1

    async with Proxy(settings, first) as proxy, asyncio.TaskGroup() as tasks:
        tasks.create_task(watch())
        await asyncio.gather(*(proxy.server.trust_anew(one) for one in (second, first, second)))
        is_over.set()
        _, writer = await open_tls(proxy, context=other.client())
        writer.close()
    assert turns > 10
