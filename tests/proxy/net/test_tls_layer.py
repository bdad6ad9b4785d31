"""The layer itself, without sockets: any order of what may happen to it."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.net.credentials import Credentials, Presented, upstream_context
from proxy.net.tls import Tls
from tests.support.certificates import Authority

AUTHORITY = Authority()
PAIR = AUTHORITY.issue("a.test")
PRESENTED = Presented((PAIR,), "1.2")
BUFFER = memoryview(bytearray(5_000))  # below a record, so that records are handed up in parts too


class Raw:
    """The transport below."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.calls: list[str] = []
        self.is_paused = False

    def write(self, data: bytes) -> None:
        assert "write_eof" not in self.calls
        self.sent += data

    def take(self) -> bytes:
        sent, self.sent = bytes(self.sent), bytearray()
        return sent

    def get_write_buffer_size(self) -> int:
        return len(self.sent)

    def write_eof(self) -> None:
        self.calls.append("write_eof")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def is_closing(self) -> bool:
        return bool({"close", "abort"} & set(self.calls))

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Above(asyncio.BufferedProtocol):
    """The protocol above: it collects, and pauses after so many bytes.

    Attributes:
        ends: Each end that it was told of.
    """

    def __init__(self, pause_each: int = 0, keeps_open: bool = True) -> None:
        self.got = bytearray()
        self.ends: list[str] = []
        self.is_paused = False
        self._pause_each = pause_each
        self._keeps_open = keeps_open
        self.tls: Any

    def connection_made(self, transport: Any) -> None:
        self.tls = transport

    def buffer_updated(self, nbytes: int) -> None:
        assert not self.is_paused
        before = len(self.got)
        self.got += BUFFER[:nbytes]
        if self._pause_each and before // self._pause_each != len(self.got) // self._pause_each:
            self.is_paused = True
            self.tls.pause_reading()

    def go_on(self) -> None:
        if self.is_paused:
            self.is_paused = False
            self.tls.resume_reading()

    def eof_received(self) -> bool:
        self.ends.append("eof")
        return self._keeps_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.ends.append("lost")


class Waits:
    """Who waits for the handshake."""

    def __init__(self, above: Above) -> None:
        self.above = above
        self.failures: list[Exception | None] = []

    def began(self, tls: Tls) -> None: ...

    def done(self, tls: Tls) -> Above:
        return self.above

    def failed(self, error: Exception | None) -> bytes:
        self.failures.append(error)
        return b""

    def ended(self) -> None: ...


class Pair:
    """The layer on one side, plain OpenSSL on the other."""

    def __init__(self, above: Above, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self.above, self.raw, self.waits = above, Raw(), Waits(above)
        self.tls = Tls(PRESENTED.context, self.waits, BUFFER)
        self.tls.connection_made(self.raw)  # type: ignore[arg-type]  # all that is used of one
        context = AUTHORITY.client()
        context.maximum_version = version
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.peer = context.wrap_bio(self.incoming, self.outgoing, server_hostname="a.test")
        for _ in range(3):
            try:
                self.peer.do_handshake()
            except ssl.SSLWantReadError:
                pass
            self.feed(self.outgoing.read())
            self.incoming.write(self.raw.take())

    def feed(self, data: bytes, step: int = 1_000) -> None:
        """Bytes for the layer, as the loop hands them over."""
        for at in range(0, len(data), step):
            part = data[at : at + step]
            self.tls.get_buffer(-1)[: len(part)] = part
            self.tls.buffer_updated(len(part))

    def hear(self) -> tuple[bytes, bool]:
        """What the other side reads now, and whether that was announced to be the end."""
        self.incoming.write(self.raw.take())
        found = b""
        try:
            while part := self.peer.read(65_536):
                found += part
        except ssl.SSLWantReadError:
            return found, False
        except ssl.SSLZeroReturnError:
            pass
        return found, True


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 40_000), min_size=1, max_size=5),
    step=st.integers(1, 5_000),
    pause_each=st.sampled_from([0, 1, 3_000, 20_000]),
    end=st.sampled_from(["close_notify", "fin", "both"]),
    ends_first=st.booleans(),
    version=st.sampled_from([ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]),
)
def test_all_that_is_sent_is_handed_up_once_in_order_and_then_its_end(
    sizes: list[int], step: int, pause_each: int, end: str, ends_first: bool, version: ssl.TLSVersion
) -> None:
    """Whatever the records, the segments, the pauses, and whether our own way has ended before."""

    async def run() -> None:
        above = Above(pause_each)
        pair = Pair(above, version)
        sent = b""
        for number, size in enumerate(sizes):
            data = bytes([number]) * size
            sent += data
            pair.peer.write(data)
        if end != "fin":
            with pytest.raises(ssl.SSLWantReadError):
                pair.peer.unwrap()
        wire = pair.outgoing.read()
        half = len(wire) // 2
        pair.feed(wire[:half], step)
        if ends_first:
            pair.tls.write_eof()
        for at in range(half, len(wire), step):
            while pair.raw.is_paused:  # as a real transport, which hands over nothing then
                above.go_on()
                await asyncio.sleep(0)
            pair.feed(wire[at : at + step], step)
        if end != "close_notify":
            while pair.raw.is_paused:
                above.go_on()
                await asyncio.sleep(0)
            assert pair.tls.eof_received()
        while above.is_paused:
            above.go_on()
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert bytes(above.got) == sent
        assert above.ends == ["eof"]
        assert pair.raw.calls == ["write_eof"] * ends_first
        if not ends_first:
            pair.tls.write(b"answer")
            assert pair.hear()[0] == b"answer"

    asyncio.run(run())


async def test_either_way_may_end_first() -> None:
    """RFC 8446 section 6.1: what we say is announced to be over, what the other side says still comes."""
    pair = Pair(Above())
    pair.tls.write(b"last")
    pair.tls.write_eof()
    assert pair.hear() == (b"last", True)
    pair.tls.write(b"never")
    pair.peer.write(b"more")
    pair.feed(pair.outgoing.read())
    assert bytes(pair.above.got) == b"more"
    assert pair.raw.calls == ["write_eof"]
    pair.tls.close()
    assert pair.raw.calls == ["write_eof", "close"]
    assert pair.hear() == (b"", True)


async def test_what_is_cut_is_not_announced() -> None:
    pair = Pair(Above())
    pair.tls.is_cut = True
    pair.tls.write(b"part")
    pair.tls.write_eof()
    assert pair.hear() == (b"part", False)
    assert pair.raw.calls == ["write_eof"]


async def test_a_broken_record_after_our_end_closes_without_a_word() -> None:
    pair = Pair(Above())
    pair.tls.write_eof()
    pair.raw.take()
    pair.feed(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert pair.raw.calls == ["write_eof", "close"]
    assert pair.raw.take() == b""
    assert len(pair.waits.failures) == 1


async def test_small_records_go_both_ways() -> None:
    pair = Pair(Above())
    for number in range(200):
        pair.peer.write(b"%d " % number)
        pair.feed(pair.outgoing.read())
        pair.tls.write(b"%d " % number)
    expected = b"".join(b"%d " % number for number in range(200))
    assert (bytes(pair.above.got), pair.hear()) == (expected, (expected, False))


async def test_a_service_whose_end_is_not_announced_is_cut_off() -> None:
    """The client's side of the layer: what is above hears that the connection is lost, not that it has ended."""
    above, raw = Above(), Raw()
    waits = Waits(above)
    tls = Tls(upstream_context(Credentials((), AUTHORITY.pem)), waits, BUFFER, "a.test")
    tls.connection_made(raw)  # type: ignore[arg-type]  # all that is used of one
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    service = PRESENTED.context.wrap_bio(incoming, outgoing, server_side=True)
    for _ in range(3):
        incoming.write(raw.take())
        try:
            service.do_handshake()
        except ssl.SSLWantReadError:
            pass
        data = outgoing.read()
        BUFFER[: len(data)] = data
        tls.buffer_updated(len(data))
    service.write(b"part")
    data = outgoing.read()
    BUFFER[: len(data)] = data
    tls.buffer_updated(len(data))
    assert not tls.eof_received()
    assert (bytes(above.got), above.ends, raw.calls) == (b"part", [], ["abort"])


async def test_a_client_that_has_keys_renewed_without_end_and_reads_nothing_is_cut_off() -> None:
    """Each renewal is answered by OpenSSL: what nobody reads must not pile up. Python's ssl cannot ask for one."""
    pair = Pair(Above())
    for _ in range(1_000):
        pair.tls._outgoing.write(bytes(1_000))
        pair.peer.write(b"x")
        pair.feed(pair.outgoing.read())
        if pair.raw.calls:
            break
    assert pair.raw.calls == ["abort"]
    assert len(pair.raw.sent) < 300_000
