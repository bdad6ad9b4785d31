"""Bodies: every framing in pieces of any size, its end, its bounds and what is refused."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.body import (
    CHUNK_LINE_BYTES,
    EXTENSION_BYTES,
    FORBIDDEN_TRAILERS,
    LAST_CHUNK,
    BodyReader,
    ChunkedBody,
    CloseBody,
    LengthBody,
    body_reader,
    chunk,
)
from proxy.errors import DownstreamError
from proxy.http1 import CHUNKED, UNTIL_CLOSE, HeadLimits
from tests.support.messages import GOOD_CHUNKED_BODIES, HOSTILE_CHUNKED_BODIES

BEHIND = b"GET /next HTTP/1.1\r\n"


def fault(message: str) -> DownstreamError:
    return DownstreamError(400, message)


def fed(reader: BodyReader, data: bytes, cuts: list[int]) -> bytes:
    """The payload when the data comes cut there; the reader is not fed once it is done, as a connection does."""
    payload = []
    bounds = [0, *cuts, len(data)]
    for start, end in itertools.pairwise(bounds):
        if reader.done:
            reader.rest += data[start:]
            break
        piece = reader.feed(data[start:end])
        assert len(piece) <= end - start
        payload.append(piece)
    return b"".join(payload)


def chunked(data: bytes, cuts: list[int] | None = None, limits: HeadLimits | None = None) -> tuple[bytes, ChunkedBody]:
    reader = ChunkedBody(fault, limits or HeadLimits())
    return fed(reader, data, cuts or []), reader


def bytewise(data: bytes) -> list[int]:
    return list(range(1, len(data)))


def test_a_reader_for_each_framing() -> None:
    """One number tells the framing; see `proxy.http1`."""
    assert isinstance(body_reader(CHUNKED, fault), ChunkedBody)
    assert isinstance(body_reader(UNTIL_CLOSE, fault), CloseBody)
    assert isinstance(body_reader(5, fault), LengthBody)


@given(st.binary(max_size=30), st.binary(max_size=30), st.lists(st.integers(0, 60), max_size=5))
def test_a_length_is_the_body_and_no_byte_more(body: bytes, behind: bytes, cuts: list[int]) -> None:
    """RFC 9112 section 6.3 rule 6, however it comes; what stands behind is the next message."""
    reader = LengthBody(len(body), fault)
    assert reader.done is (not body)
    assert fed(reader, body + behind, sorted(cuts)) == body
    assert (reader.done, reader.rest, reader.trailers) == (True, behind, [])
    reader.eof()


def test_what_comes_after_the_end_is_kept_as_rest() -> None:
    """Feeding a reader that is done loses nothing and changes no body."""
    for reader in (LengthBody(0, fault), chunked(LAST_CHUNK)[1]):
        assert (reader.feed(b"ab"), reader.feed(b"c"), reader.rest) == (b"", b"", b"abc")


def test_a_body_within_one_read_is_not_copied() -> None:
    """Cost: the common path hands on the very bytes that came."""
    data = b"x" * 1000
    chunk_of_5000 = ChunkedBody(fault, HeadLimits())
    chunk_of_5000.feed(b"1388\r\n")
    for reader in (LengthBody(1000, fault), LengthBody(2000, fault), CloseBody(), chunk_of_5000):
        assert reader.feed(data) is data


def test_a_body_until_the_close_ends_with_it() -> None:
    """RFC 9112 section 6.3 rule 8."""
    reader = CloseBody()
    assert fed(reader, b"abc", [1, 2]) == b"abc"
    assert not reader.done
    reader.eof()
    assert (reader.done, reader.rest) == (True, b"")


@pytest.mark.parametrize("data", [b"", b"5", b"5\r", b"5\r\n", b"5\r\nhello", b"5\r\nhello\r\n", b"5\r\nhello\r\n0",
                                  b"0\r\n", b"0\r\n\r", b"0\r\nX: y\r\n", b"0\r\nX: y\r\n\r"])  # fmt: skip
def test_an_end_before_the_end_is_a_fault(data: bytes) -> None:
    """RFC 9112 section 8: an incomplete body is never a shorter one."""
    reader = chunked(data)[1]
    assert not reader.done
    with pytest.raises(DownstreamError, match="closed"):
        reader.eof()
    short = LengthBody(100, fault)
    short.feed(data)
    with pytest.raises(DownstreamError, match=f"closed with {100 - len(data)} bytes"):
        short.eof()


PAYLOADS = {
    b"5\r\nhello\r\n0\r\n\r\n": b"hello",
    b"0\r\n\r\n": b"",
    b"000A\r\n0123456789\r\n00\r\n\r\n": b"0123456789",
    b"a\r\n0123456789\r\nA;x\r\n0123456789\r\n0;y=z\r\n\r\n": b"01234567890123456789",
    b"0000000000000005\r\nhello\r\n0000000000000000\r\n\r\n": b"hello",
    b"2\r\n\r\n\r\n1\r\n0\r\n0\r\n\r\n": b"\r\n0",
    b"5;n=v;q=\"a b\"\r\nhello\r\n0\r\n\r\n": b"hello",
    b"5 \t; a = b\r\nhello\r\n0\r\nX: y\r\n\r\n": b"hello",
}  # fmt: skip


@pytest.mark.parametrize(("data", "payload"), PAYLOADS.items())
def test_chunks_are_joined(data: bytes, payload: bytes) -> None:
    """RFC 9112 section 7.1: sizes in either case and with zeros, extensions dropped (7.1.1)."""
    for cuts in ([], bytewise(data + BEHIND)):
        got, reader = chunked(data + BEHIND, cuts)
        assert (got, reader.done, reader.rest) == (payload, True, BEHIND)
        reader.eof()


@given(st.sampled_from(GOOD_CHUNKED_BODIES), st.lists(st.integers(0, 120), max_size=8))
def test_any_split_of_chunks_gives_the_same(data: bytes, cuts: list[int]) -> None:
    """House rule: any split of the byte stream gives the same payload, trailers and rest."""
    whole, reader = chunked(data + BEHIND)
    split, other = chunked(data + BEHIND, sorted(cuts))
    assert (split, other.done, other.rest, other.trailers) == (whole, True, reader.rest, reader.trailers)


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(0, 300), max_size=8))
def test_what_is_written_in_chunks_is_read_the_same(parts: list[bytes], cuts: list[int]) -> None:
    """House rule: parse and serialise are inverse. An empty part writes no chunk: it would end the body."""
    data = b"".join(chunk(part) for part in parts) + LAST_CHUNK
    payload, reader = chunked(data + BEHIND, sorted(cuts))
    assert (payload, reader.done, reader.rest) == (b"".join(parts), True, BEHIND)


BAD = [
    b"\r\n", b" 5\r\n", b"g\r\n", b"+5\r\n", b"-5\r\n", b"0x5\r\n", b"5_0\r\n", b"\xd9\xa5\r\n", b"5 \r\n", b"5\t\r\n",
    b"5\n", b"5\rh", b"5;\r\n", b"5;\n", b"5;a\rb\r\n", b"5;a\nb\r\n", b"5;a\x00\r\n", b'5;a="\r\n"\r\n',
    b'5;a="b\r\n', b"5,a\r\n", b"5=a\r\n", b"5h\r\n", b"10000000000000005\r\n", b"0" * 17 + b"\r\n",
    b"8000000000000000\r\n", b"ffffffffffffffff\r\n", b"5\r\nhello\n", b"5\r\nhelloX", b"5\r\nhello\rX",
    b"5\r\nhello\r\n\r\n", b"5\r\nhell\r\n0", b"0\n", b"0\r\n\n", b"0\r\n\rX", b"0\r\n X: a\r\n",
    b"0\r\nX: a\r\n b\r\n", b"0\r\nfoo\r\n", b"0\r\n: a\r\n", b"0\r\nX : a\r\n", b"0\r\nX: a\x00", b"0\r\nX: a\n",
    b"0\r\nX: a\rb", b"0\r\nX\x85: a\r\n", b"INVALID!!!\r\n",
]  # fmt: skip


@pytest.mark.parametrize("data", BAD)
def test_faulty_chunks_are_refused_as_soon_as_it_shows(data: bytes) -> None:
    """RFC 9112 section 7.1, contract item 2: by the last of these bytes, in whatever pieces they come."""
    for cuts in ([], bytewise(data)):
        with pytest.raises(DownstreamError) as caught:
            chunked(data, cuts)
        assert caught.value.status == 400


@pytest.mark.parametrize("data", HOSTILE_CHUNKED_BODIES)
def test_hostile_bodies_are_refused(data: bytes) -> None:
    """The classes of chunk smuggling: no payload that another parser might end elsewhere."""
    for cuts in ([], bytewise(data)):
        with pytest.raises(DownstreamError):
            chunked(data, cuts)


def test_a_chunk_line_is_bound() -> None:
    """A line with its extensions takes 256 bytes, CRLF included; one without end is refused there."""
    line = b"1;" + b"a" * (CHUNK_LINE_BYTES - 4) + b"\r\n"
    assert chunked(line + b"x\r\n")[0] == b"x"
    for data in (b"1;a" + line[2:], b"1;" + b"a" * 262144, b"0" * 4_000_000):
        for cuts in ([], list(range(100, 1000, 100))):
            with pytest.raises(DownstreamError, match="in a line of 256 bytes"):
                chunked(data, cuts)


def test_extensions_are_bound_for_the_whole_body() -> None:
    """They cost work and carry nothing: 4 KiB in all, beside the bytes of the sizes."""
    one = b"1;" + b"a" * 127 + b"\r\nx\r\n"
    assert chunked(one * (EXTENSION_BYTES // 128))[0] == b"x" * 32
    with pytest.raises(DownstreamError, match="4096 bytes of chunk extensions"):
        chunked(one * 33)


def test_trailers_are_read_as_fields() -> None:
    """RFC 9112 section 7.1.2: in order, as they came, never part of the payload."""
    data = b"1\r\nx\r\n0\r\nX-Sum:  9 \r\nserver-timing:a\r\nX-E:\r\nX-Sum: \xfc\r\n\r\n"
    for cuts in ([], bytewise(data)):
        payload, reader = chunked(data, cuts)
        assert payload == b"x"
        assert reader.trailers == [
            (b"x-sum", b"X-Sum: 9\r\n", b"9"),
            (b"server-timing", b"server-timing: a\r\n", b"a"),
            (b"x-e", b"X-E: \r\n", b""),
            (b"x-sum", b"X-Sum: \xfc\r\n", b"\xfc"),
        ]


@pytest.mark.parametrize("name", sorted(FORBIDDEN_TRAILERS))
def test_no_trailer_frames_routes_or_authenticates(name: bytes) -> None:
    """RFC 9110 section 6.5.1: dropped in any case of letters; what else is there stays."""
    reader = chunked(b"0\r\nX: y\r\n%b: 36\r\n\r\n" % name.title())[1]
    assert [trailer[0] for trailer in reader.trailers] == [b"x"]


def test_trailers_are_bound_like_a_header_block() -> None:
    """Contract item 17: in bytes and in lines, dropped ones too, and while a line has no end yet."""
    limits = HeadLimits(block_bytes=100, count=5)
    line = b"X: " + b"y" * 93 + b"\r\n"
    assert len(chunked(b"0\r\n" + line + b"\r\n", None, limits)[1].trailers) == 1
    assert len(chunked(b"0\r\n" + b"X: y\r\n" * 5 + b"\r\n", None, limits)[1].trailers) == 5
    for data in (b"X: " + line + b"\r\n", line + b"X: y", b"X: " + b"y" * 98, b"X: y\r\n" * 6, b"Date: y\r\n" * 6):
        for cuts in ([], bytewise(data)):
            with pytest.raises(DownstreamError, match=r"trailers of at most 100 bytes|at most 5 trailers"):
                chunked(b"0\r\n" + data, cuts, limits)


def test_many_tiny_chunks_take_little_time() -> None:
    """House rule: the event loop is never blocked for 100 ms; the largest read, of 256 KB, takes some 17 ms."""
    data = b"1\r\nx\r\n" * 42_000
    start = time.process_time()
    assert chunked(data)[0] == b"x" * 42_000
    assert time.process_time() - start < 1


def test_trailers_byte_by_byte_cost_linear_time() -> None:
    """What was searched is not searched again; 32,000 calls take 0.1 s."""
    data = b"0\r\nX: " + b"y" * 32_000
    start = time.process_time()
    chunked(data, bytewise(data))
    assert time.process_time() - start < 3


def test_an_empty_chunk_is_not_written() -> None:
    """RFC 9112 section 7.1: a chunk of size 0 would end the body."""
    assert chunk(b"") == b""
    assert chunk(b"x" * 26) == b"1a\r\n" + b"x" * 26 + b"\r\n"


def test_a_reader_says_where_it_is() -> None:
    """House rule: a repr is a one-line summary of the state, without payload."""
    reader = ChunkedBody(fault, HeadLimits())
    reader.feed(b"5\r\nhe")
    assert repr(reader) == "<ChunkedBody expects data, 3 bytes left>"
    assert (repr(LengthBody(7, fault)), repr(CloseBody())) == ("<LengthBody 7 bytes left>", "<CloseBody done=False>")
