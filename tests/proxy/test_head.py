"""The end of a head, and faults that can be seen before it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import DownstreamError, ProxyError, UpstreamError
from proxy.head import HeadLimits, careful_lines, request_head_end, response_fault, response_head_end, show
from tests.support.messages import GOOD_REQUESTS, GOOD_RESPONSES

LIMITS = HeadLimits()
GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
HeadEnd = Callable[..., int]


def fed(head_end: HeadEnd, data: bytes, cuts: list[int], limits: HeadLimits = LIMITS) -> int:
    """The answer to the last piece, as a connection asks: with what it had before."""
    scanned = 0
    for cut in (*cuts, len(data)):
        end = head_end(data[:cut], limits, scanned)
        if end:
            return end
        scanned = cut
    return 0


def refused(head_end: HeadEnd, data: bytes, cuts: list[int], limits: HeadLimits = LIMITS) -> int:
    """The status of the fault that feeding the data raises, else 0."""
    try:
        fed(head_end, data, cuts, limits)
    except ProxyError as error:
        return error.status
    return 0


@pytest.mark.parametrize("data", [GET, b"\r\n" + GET, b"\r\n" * 4 + GET])
@pytest.mark.parametrize("behind", [b"", b"\r\n\r\n", GET, b"\x00"], ids=repr)
def test_a_request_ends_behind_its_empty_line(data: bytes, behind: bytes) -> None:
    """RFC 9112 section 2.1; a few empty lines before it are counted in, section 2.2."""
    assert request_head_end(data + behind, LIMITS) == len(data)


def test_a_head_that_has_not_ended_is_waited_for() -> None:
    """Every beginning of a good head is the beginning of a head."""
    for head, head_end in ((b"\r\n\r\n" + GET, request_head_end), (OK, response_head_end)):
        assert [head_end(head[:i], LIMITS) for i in range(len(head))] == [0] * len(head)
        assert fed(head_end, head, list(range(len(head)))) == len(head)


@given(st.sampled_from(GOOD_REQUESTS + GOOD_RESPONSES), st.lists(st.integers(0, 200), max_size=6))
def test_any_split_gives_the_same_end(message: bytes, cuts: list[int]) -> None:
    """House rule: any split of the byte stream gives the same result."""
    head_end = response_head_end if message in GOOD_RESPONSES else request_head_end
    assert fed(head_end, message, sorted(cuts)) == head_end(message, LIMITS)


FAULTS = {
    "TLS": (b"\x16", 400),
    "NUL": (b"\x00", 400),
    "space before the method": (b" ", 400),
    "SP line before the method": (b"\r\n ", 400),
    "lone LF": (b"\n", 400),
    "lone CR": (b"\rG", 400),
    "empty lines": (b"\r\n" * 5, 400),
    "no method byte": (b"GE(", 400),
    "non-ASCII method": (b"G\xc3", 400),
    "method without end": (b"M" * 33, 501),
    "bare LF in the request line": (b"GET / HTTP/1.1\n", 400),
    "bare CR in the request line": (b"GET /\ra", 400),
    "NUL in the target": (b"GET /a\x00", 400),
    "HTTP/0.9": (b"GET /a\r\n", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\n", 505),
    "other protocol": (b"OPTIONS / RTSP/1.0\r\n", 400),
    "version in small letters": (b"GET / http/1.1\r\n", 400),
    "bare LF in a field": (b"GET / HTTP/1.1\r\nHost: t\n", 400),
    "bare CR in a field": (b"GET / HTTP/1.1\r\nX: a\rb", 400),
    "control in a field": (b"GET / HTTP/1.1\r\nX: a\x07", 400),
    "DEL in a field": (b"GET / HTTP/1.1\r\nX: a\x7f", 400),
    "line without colon": (b"GET / HTTP/1.1\r\nfoo\r\n", 400),
    "space before the colon": (b"GET / HTTP/1.1\r\nfoo : bar\r\n", 400),
    "0x85 before the colon": (b"GET / HTTP/1.1\r\nfoo\x85: bar\r\n", 400),
    "folded line": (b"GET / HTTP/1.1\r\nX: a\r\n ", 400),
    "fold before the first field": (b"GET / HTTP/1.1\r\n\t", 400),
    "empty name": (b"GET / HTTP/1.1\r\n: a\r\n", 400),
}


@pytest.mark.parametrize(("data", "status"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_seen_before_the_head_is_complete(data: bytes, status: int) -> None:
    """Contract item 2: answered as soon as it is visible, which is at the last byte here, however the bytes come."""
    assert refused(request_head_end, data, []) == status
    assert refused(request_head_end, data, list(range(len(data)))) == status
    assert refused(request_head_end, data[:-1], list(range(len(data) - 1))) == 0


def test_the_first_byte_of_a_response_is_enough_to_refuse_it() -> None:
    """Contract item 13: nothing stands before a response, and what is not HTTP/1 never gets to its deadline."""
    for data in (b"S", b"\r", b"\r\nHTTP/1.1 200 OK", b"HTTP/2", b"HTTP/1.1 abc\r\n", b"HTTP/1.1 200 OK\r\nX: \x01"):
        for cuts in ([], list(range(len(data)))):
            with pytest.raises(UpstreamError) as caught:
                fed(response_head_end, data, cuts)
            assert caught.value.kind == "protocol"


SMALL = HeadLimits(block_bytes=200, count=5, target_bytes=100)
LINE = b"GET /" + b"a" * 99 + b" HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (LINE + b"Host: t\r\n\r\n", 0),
        (b"\r\n" * 4 + LINE + b"X: " + b"x" * (200 - len(LINE) - 7) + b"\r\n\r\n", 0),
        (LINE + b"X: " + b"x" * (201 - len(LINE) - 7) + b"\r\n\r\n", 431),
        (LINE + b"X: " + b"x" * 200, 431),
        (LINE + b"X: a\r\n" * 50, 431),
        (b"GET /" + b"a" * 150, 414),
        (b"GET /" + b"a" * 500 + b" HTTP/1.1\r\nHost: t\r\n\r\n", 414),
    ],
    ids=["target at its limit", "block at its limit", "one more", "no end", "lines", "target without end", "target"],
)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_too_much_is_refused_by_what_is_too_much(data: bytes, status: int, step: int) -> None:
    """Contract item 17: 414 for the target and 431 for the block, also for one that never ends."""
    assert refused(request_head_end, data, list(range(step, len(data), step)), SMALL) == status


def test_a_response_head_has_the_same_bound() -> None:
    """Contract item 17; the service's fault is 502 to the client."""
    assert refused(response_head_end, b"HTTP/1.1 200 OK\r\n" + b"X-H: v\r\n" * 50, [], SMALL) == 502
    assert refused(response_head_end, OK[:-2] + b"X: " + b"v" * 200 + b"\r\n\r\n", [], SMALL) == 502


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nX: " + b"x" * 32000, b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5300])
def test_a_head_byte_by_byte_costs_linear_time(data: bytes) -> None:
    """``scanned`` spares what was judged before: 32,000 calls take 0.1 s; judging all of it anew took over 10 s."""
    start = time.process_time()
    assert fed(request_head_end, data, list(range(len(data)))) == 0
    assert time.process_time() - start < 3


def test_careful_lines_are_put_into_the_plain_spelling() -> None:
    """RFC 9110 section 5.5: OWS around a value is no part of it; other blanks are."""
    head = b"line\r\na:\r\nB:b\r\nc: \t c  c\t \r\nd: \xa0d\x85\r\n\r\n"
    lines = [b"a: \r\n", b"B: b\r\n", b"c: c  c\r\n", b"d: \xa0d\x85\r\n"]
    assert careful_lines(head, response_fault) == (b"line", lines)


def test_a_message_shows_the_beginning_of_what_came() -> None:
    """House rule: an error says what came; escaped, so that it is safe in a log line, and never long."""
    assert show(b"a\r\nb\x1b\xff") == "'a\\r\\nb\\x1b\\xff'"
    assert show(b"x" * 1000) == "'" + "x" * 40 + "'..."
    with pytest.raises(DownstreamError, match=r"expected a colon in the field line 'foo bar'"):
        careful_lines(b"GET / HTTP/1.1\r\nfoo bar\r\n\r\n", DownstreamError)
