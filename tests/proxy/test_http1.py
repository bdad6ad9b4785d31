"""Heads of requests and responses: what they mean, and the status of what is refused."""

from __future__ import annotations

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import DownstreamError, UpstreamError
from proxy.http1 import (
    CHUNKED,
    UNTIL_CLOSE,
    Field,
    HeadLimits,
    Request,
    Response,
    parse_request,
    parse_response,
    request_head_end,
)
from tests.support.messages import BROWSER, GOOD_REQUESTS, GOOD_RESPONSES

LIMITS = HeadLimits()


def of(*lines: bytes, first: bytes = b"GET /a HTTP/1.1", host: bytes = b"Host: t") -> Request:
    """The request with these field lines, beside Host."""
    return parse_request(b"\r\n".join([first, *([host] if host else []), *lines, b"", b""]), LIMITS)


def answer(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK", method: bytes = b"GET") -> Response:
    """The response with these field lines."""
    return parse_response(b"\r\n".join([first, *lines, b"", b""]), method, LIMITS)


def refused(*lines: bytes, first: bytes = b"GET /a HTTP/1.1", host: bytes = b"Host: t") -> int:
    """The status with which the request is refused."""
    with pytest.raises(DownstreamError) as caught:
        of(*lines, first=first, host=host)
    return caught.value.status


def names(fields: list[Field]) -> list[bytes]:
    return [name for name, _, _ in fields]


def test_a_browsers_request() -> None:
    """The common path: one regular expression, all fields in order and as they came."""
    request = parse_request(BROWSER, LIMITS)
    assert (request.method, request.target, request.path) == (
        b"GET",
        b"/shop/checkout?item=12&lang=de",
        b"/shop/checkout",
    )
    assert (request.query, request.has_query, request.http11, request.host) == (
        b"item=12&lang=de",
        True,
        True,
        b"shop.example",
    )
    assert names(request.fields) == [
        b"user-agent", b"accept", b"accept-language", b"accept-encoding", b"referer", b"upgrade-insecure-requests",
    ]  # fmt: skip
    assert request.fields[4] == (
        b"referer", b"Referer: https://shop.example/\r\n", b"https://shop.example/",
    )  # fmt: skip
    assert request.cookie == b"cohort_shop=v1.3q2-7w; session=0123456789abcdef"
    assert (request.length, request.keep_alive, request.expect_continue, request.te_trailers) == (0, True, False, False)


def test_fields_keep_their_order_bytes_and_repetition() -> None:
    """RFC 9110 section 5.3; obs-text passes byte-exact, an empty value is legal, OWS is dropped."""
    request = of(b"X-A: 1", b"x-b:z", b"X-A:\t 2 \t", b"X-Name: J\xc3\xbcrgen \xff", b"X-E:", b"X-F: a \t b")
    assert request.fields == [
        (b"x-a", b"X-A: 1\r\n", b"1"),
        (b"x-b", b"x-b: z\r\n", b"z"),
        (b"x-a", b"X-A: 2\r\n", b"2"),
        (b"x-name", b"X-Name: J\xc3\xbcrgen \xff\r\n", b"J\xc3\xbcrgen \xff"),
        (b"x-e", b"X-E: \r\n", b""),
        (b"x-f", b"X-F: a \t b\r\n", b"a \t b"),
    ]
    assert (request.first(b"x-a"), request.first(b"x-e"), request.first(b"x-g")) == (b"1", b"", None)


def test_cookie_lines_are_one() -> None:
    """RFC 9113 section 8.2.3 joins by "; " what came on several lines, which services understand."""
    assert of(b"Cookie: a=1", b"X: y", b"cookie: b=2").cookie == b"a=1; b=2"
    assert of().cookie is None
    assert of(b"Cookie:").cookie == b""


def test_methods_are_relayed_as_sent() -> None:
    """RFC 9110 section 9.1: any token, case-sensitive."""
    for method in (b"get", b"FROB", b"M-SEARCH", b"PATCH", b"x" * 32):
        assert of(first=method + b" /a HTTP/1.1").method == method


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (b"CONNECT t:80 HTTP/1.1", 405),
        (b"CONNECT /a HTTP/1.1", 405),
        (b"TRACE /a HTTP/1.1", 405),
        (b"TRACE * HTTP/1.0", 405),
        (b"M" * 33 + b" /a HTTP/1.1", 501),
        (b"GET /a", 400),
        (b"GET /a HTTP/2.0", 505),
        (b"GET /a HTTP/1.2", 505),
        (b"GET /a HTTP/0.9", 505),
        (b"GET /a HTTP/1.01", 400),
        (b"GET /a HTTP/1.", 400),
        (b"GET /a http/1.1", 400),
        (b"GET /a HTTP/1.1 ", 400),
        (b" GET /a HTTP/1.1", 400),
        (b"GET  /a HTTP/1.1", 400),
        (b"GET /a\tHTTP/1.1", 400),
        (b"GET\x0b/a HTTP/1.1", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET /\xc3\xa9 HTTP/1.1", 400),
        (b"GET /\xc3\xa9 HTTP/2.0", 505),
        (b"GET /a\x00 HTTP/1.1", 400),
        (b"GET * HTTP/1.1", 400),
        (b"GET t:80 HTTP/1.1", 400),
        (b"GET /a#b HTTP/1.1", 400),
        (b"GET http://evil/ HTTP/1.1", 400),
        (b"GE(T /a HTTP/1.1", 400),
        (b"", 400),
        (b"GET /" + b"a" * 16384 + b" HTTP/1.1", 414),
        (b"GET http://t/" + b"a" * 16384 + b" HTTP/1.1", 414),
    ],
)
def test_a_faulty_request_line_has_its_status(first: bytes, status: int) -> None:
    """Contract items 2 to 6: 405, 501, 505 and 414 for what they are for, 400 for all else."""
    assert refused(first=first) == status


def test_one_target_is_at_the_limit() -> None:
    """Contract item 17: 16 KiB."""
    assert len(of(first=b"GET /" + b"a" * 16383 + b" HTTP/1.1").target) == 16384


@pytest.mark.parametrize(
    "line",
    [b"X : y", b" X: y", b"\tX: y", b"X", b": y", b"X y: z", b"X\x85: y", b"\xa0X: y", b"X\x00: y", b"X: a\rb",
     b"X: a\nb", b"X: a\x00b", b"X: a\x0b", b"X: \x1b[31m", b"X: a\x7f", b"X: y\r\n z", b"X: y\r\n\tz", b"\xefX: y",
     b"(X): y", b""],
)  # fmt: skip
def test_a_faulty_field_line_is_refused(line: bytes) -> None:
    """RFC 9112 sections 2.2 and 5: both as the first and as a later line, where no folding may hide anything."""
    assert refused(line) == 400
    assert refused(line, b"Host: t", host=b"") == 400
    with pytest.raises(UpstreamError) as caught:
        answer(b"Content-Length: 0", line)
    assert caught.value.kind == "protocol"


def test_the_count_of_fields_is_bound() -> None:
    """Contract item 17: 100 fields, Host included; 431, and 502 for a service."""
    assert len(of(*[b"X: y"] * 99).fields) == 99
    assert refused(*[b"X: y"] * 100) == 431
    assert len(answer(*[b"X: y"] * 100).fields) == 100
    with pytest.raises(UpstreamError):
        answer(*[b"X: y"] * 101)


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        ([], 0),
        ([b"Content-Length: 0"], 0),
        ([b"Content-Length: 0005"], 5),
        ([b"Content-Length:\t5\t "], 5),
        ([b"content-LENGTH: 9223372036854775807"], 2**63 - 1),
        ([b"Transfer-Encoding: chunked"], CHUNKED),
        ([b"TRANSFER-encoding:\tCHUNKED "], CHUNKED),
        ([b"Connection: Transfer-Encoding", b"Transfer-Encoding: chunked"], CHUNKED),
        ([b"Connection: content-length, close", b"Content-Length: 5"], 5),
        ([b"Transfer_Encoding: chunked", b"Content-Length: 5"], 5),
        ([b"Content_Length: 7"], 0),
    ],
)
def test_framing(lines: list[bytes], length: int) -> None:
    """RFC 9112 section 6.3: it depends neither on the method nor on what Connection names; no other spelling counts."""
    for method in (b"GET", b"POST", b"OPTIONS"):
        request = of(*lines, first=method + b" /a HTTP/1.1")
        assert request.length == length
        assert request.fields == []


@pytest.mark.parametrize(
    "value",
    [b"", b"+5", b"-48", b"-0", b"1_0", b"\xd9\xa5", b"\xb2", b"0x5", b"5abc", b"5e0", b"5.0", b"0 5", b"5,5", b"5, 5",
     b"5,", b",5", b"18446744073709551621", b"9223372036854775808", b"0" * 20, b"\xa05", b"5\x85", b'"5"'],
)  # fmt: skip
def test_a_faulty_length_is_refused(value: bytes) -> None:
    """RFC 9110 section 8.6: 1*DIGIT, in ASCII, and what fits into 63 bits."""
    assert refused(b"Content-Length: " + value) == 400
    with pytest.raises(UpstreamError):
        answer(b"Content-Length: " + value)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ([b"Content-Length: 5", b"Content-Length: 5"], 400),
        ([b"Content-Length: 0", b"Content-Length: 36"], 400),
        ([b"Content-Length:", b"Content-Length: 36"], 400),
        ([b"Content-Length: 5", b"Transfer-Encoding: chunked"], 400),
        ([b"Transfer-Encoding: chunked", b"Content-Length: 5"], 400),
        ([b"Transfer-Encoding:", b"Content-Length: 5"], 400),
        ([b"Transfer-Encoding: identity", b"Content-Length: 5", b"Transfer-Encoding: chunked"], 400),
        ([b"Transfer-Encoding:"], 400),
        ([b"Transfer-Encoding: \t"], 400),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], 501),
        ([b"Transfer-Encoding:", b"Transfer-Encoding: chunked"], 501),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"], 501),
        ([b"Transfer-Encoding: chunked, chunked"], 501),
        ([b"Transfer-Encoding: chunked,"], 501),
        ([b"Transfer-Encoding: ,chunked"], 501),
        ([b"Transfer-Encoding: gzip, chunked"], 501),
        ([b"Transfer-Encoding: chunked, gzip"], 501),
        ([b"Transfer-Encoding: identity"], 501),
        ([b"Transfer-Encoding: chunked;q=1"], 501),
        ([b"Transfer-Encoding: \xa0chunked"], 501),
        ([b'Transfer-Encoding: "chunked"'], 501),
        ([b"Transfer-Encoding: chunke\xe4"], 501),
        ([b"Transfer-Encoding: \x0bchunked"], 400),
        ([b"Transfer-Encoding: chunked\x00"], 400),
        ([b"Transfer-Encoding : chunked"], 400),
    ],
)
def test_contradictory_or_unknown_framing_is_refused(lines: list[bytes], status: int) -> None:
    """Contract item 3; in a response each of them is the service's fault, whatever the method and the code."""
    assert refused(*lines, first=b"POST /a HTTP/1.1") == status
    for first, method in ((b"HTTP/1.1 200 OK", b"GET"), (b"HTTP/1.1 200 OK", b"HEAD"), (b"HTTP/1.1 304 X", b"GET")):
        with pytest.raises(UpstreamError) as caught:
            answer(*lines, first=first, method=method)
        assert (caught.value.kind, caught.value.status) == ("protocol", 502)


def test_http_1_0_has_no_transfer_encoding() -> None:
    """Contract item 3, RFC 9112 section 6.1: faulty framing, in a response as well."""
    for value in (b"chunked", b"identity"):
        assert refused(b"Transfer-Encoding: " + value, first=b"POST /a HTTP/1.0") == 400
        with pytest.raises(UpstreamError):
            answer(b"Transfer-Encoding: " + value, first=b"HTTP/1.0 200 OK")


@pytest.mark.parametrize(
    "host", [b"", b"Host:", b"Host: t\r\nHost: t", b"Host: t\r\nX: y\r\nhost: evil", b"Host: t\r\nHost:", b"Host: a@b"]
)
def test_one_host_exactly(host: bytes) -> None:
    """Contract item 4."""
    assert refused(host=host) == 400


def test_http_1_0_without_a_host() -> None:
    """Contract item 4: legal; but one that is there must be good."""
    assert of(first=b"GET /a HTTP/1.0", host=b"").host == b""
    assert of(first=b"GET http://t:1/a HTTP/1.0", host=b"").host == b"t:1"
    assert refused(first=b"GET /a HTTP/1.0", host=b"Host:") == 400
    assert refused(first=b"GET /a HTTP/1.0", host=b"Host: t\r\nHost: t") == 400


def test_an_absolute_target_is_cut() -> None:
    """Contract item 4: to origin form, byte for byte."""
    request = of(first=b"GET hTTp://T:80/a%2f?b HTTP/1.1")
    assert (request.target, request.path, request.query, request.host) == (b"/a%2f?b", b"/a%2f", b"b", b"t")


@pytest.mark.parametrize(
    ("first", "connection", "keep_alive"),
    [
        (b"HTTP/1.1", None, True),
        (b"HTTP/1.0", None, False),
        (b"HTTP/1.1", b"keep-alive", True),
        (b"HTTP/1.0", b"keep-alive", True),
        (b"HTTP/1.0", b"Keep-Alive", True),
        (b"HTTP/1.0", b"KEEP-alive, foo", True),
        (b"HTTP/1.1", b"close", False),
        (b"HTTP/1.1", b"foo, CLOSE", False),
        (b"HTTP/1.1", b"keep-alive, close", False),
        (b"HTTP/1.0", b"keep-alive\r\nConnection: close", False),
        (b"HTTP/1.1", b"", True),
        (b"HTTP/1.0", b",,", False),
        (b"HTTP/1.1", b",close ,", False),
        (b"HTTP/1.1", b"closed", True),
    ],
)
def test_persistence(first: bytes, connection: bytes | None, keep_alive: bool) -> None:
    """RFC 9112 section 9.3, in both directions: close beats keep-alive, which 1.0 needs; empty members are legal."""
    lines = [] if connection is None else [b"Connection: " + connection]
    assert of(*lines, first=b"GET /a " + first).keep_alive is keep_alive
    assert answer(*lines, b"Content-Length: 0", first=first + b" 200 OK").keep_alive is keep_alive


def test_faulty_options() -> None:
    """RFC 9110 section 7.6.1: options are tokens. A client gets 400, a service's connection is not used again."""
    for value in (b"close;", b'"close"', b"keep alive", b"clo\xa0se"):
        assert refused(b"Connection: " + value) == 400
        response = answer(b"Connection: X-Foo, " + value, b"X-Foo: a", b"X-Bar: b", b"Content-Length: 0")
        assert not response.keep_alive
        assert names(response.fields) == [b"x-bar"]


def test_hop_by_hop_fields_end_here() -> None:
    """Contract item 8: the classic set and what Connection names, in every spelling, in both directions."""
    lines = [
        b"Keep-Alive: timeout=5", b"Proxy-Connection: keep-alive", b"Trailer: X", b"Upgrade: foo", b"TE: gzip;q=0.5",
        b"HTTP2-Settings: AAM", b"Connection: X-Foo", b"X-Foo: a", b"X-foo: b", b"X-Bar: c", b"Connection: ,x-BAZ ,",
        b"X-Baz: d", b"Keep_Alive: e", b"Proxy_Connection: e", b"Proxy-Authorization: f",
    ]  # fmt: skip
    assert names(of(*lines).fields) == [b"x-bar", b"proxy-authorization"]
    assert names(answer(*lines).fields) == [b"x-bar", b"proxy-authorization"]


def test_what_connection_cannot_remove() -> None:
    """Contract item 8: else a client could take away what the service decides by."""
    request = of(b"Connection: Host, Cookie, Authorization, Content-Length", b"Cookie: a=1", b"Authorization: b",
                 b"Content-Length: 5")  # fmt: skip
    assert (request.host, request.cookie, request.first(b"authorization"), request.length) == (b"t", b"a=1", b"b", 5)


@pytest.mark.parametrize(
    ("lines", "first", "expected"),
    [
        ([b"Expect: 100-continue", b"Content-Length: 5"], b"POST /a HTTP/1.1", True),
        ([b"Expect: 100-Continue, 100-continue", b"Transfer-Encoding: chunked"], b"POST /a HTTP/1.1", True),
        ([b"Expect: 100-continue"], b"POST /a HTTP/1.1", False),
        ([b"Expect: 100-continue", b"Content-Length: 5"], b"POST /a HTTP/1.0", False),
        ([b"Expect:", b"Content-Length: 5"], b"POST /a HTTP/1.1", False),
    ],
)
def test_expect(lines: list[bytes], first: bytes, expected: bool) -> None:
    """RFC 9110 section 10.1.1: ignored in HTTP/1.0, and nobody waits where there is no body."""
    request = of(*lines, first=first)
    assert request.expect_continue is expected
    assert request.fields == []


@pytest.mark.parametrize("value", [b"200-maybe", b"y 100-continue", b"100-continue;q=1", b"100-continue, x", b"100"])
def test_an_unknown_expectation_is_417(value: bytes) -> None:
    """RFC 9110 section 10.1.1; never half-matched, and not overlooked where little else is in the head."""
    assert refused(b"Expect: " + value) == 417
    assert refused(b"Expect: " + value, b"Content-Length: 5", first=b"POST /a HTTP/1.1") == 417


@pytest.mark.parametrize(
    ("value", "takes"),
    [(b"trailers", True), (b"gzip;q=0.5, Trailers", True), (b"trailers;q=0", False), (b"gzip", False), (b"", False)],
)
def test_who_takes_trailers(value: bytes, takes: bool) -> None:
    """RFC 9110 section 10.1.4."""
    assert of(b"TE: " + value).te_trailers is takes


def test_max_forwards_counts_for_options_only() -> None:
    """RFC 9110 section 7.6.2, contract item 6."""
    request = of(b"Max-Forwards: 07", b"X: y", first=b"OPTIONS /a HTTP/1.1")
    assert (request.max_forwards, names(request.fields)) == (7, [b"x"])
    request = of(b"Max-Forwards: 0")
    assert (request.max_forwards, names(request.fields)) == (None, [b"max-forwards"])
    for lines in (
        [b"Max-Forwards: 1", b"Max-Forwards: 1"],
        [b"Max-Forwards:"],
        [b"Max-Forwards: -1"],
        [b"Max-Forwards: x"],
    ):
        assert refused(*lines, first=b"OPTIONS /a HTTP/1.1") == 400


def test_empty_lines_before_a_request_are_ignored() -> None:
    """RFC 9112 section 2.2."""
    head = b"\r\n\r\n" + BROWSER
    assert parse_request(head[: request_head_end(head, LIMITS)], LIMITS).host == b"shop.example"


def test_secrets_stay_out_of_a_repr() -> None:
    """Error reports print values; fields may hold credentials."""
    assert "geheim" not in repr(of(b"Authorization: geheim", b"Cookie: a=geheim"))
    assert "geheim" not in repr(answer(b"Set-Cookie: a=geheim"))


# --- responses


@pytest.mark.parametrize(
    ("first", "status", "reason", "http11"),
    [
        (b"HTTP/1.1 200 OK", 200, b"OK", True),
        (b"HTTP/1.0 404 ", 404, b"", False),
        (b"HTTP/1.1 599", 599, b"", True),
        (b"HTTP/1.1 100 Continue", 100, b"Continue", True),
        (b"HTTP/1.1 200  a\t\xfc:b ", 200, b" a\t\xfc:b ", True),
    ],
)
def test_a_status_line(first: bytes, status: int, reason: bytes, http11: bool) -> None:
    """RFC 9112 section 4; the SP before an empty reason may be missing, as many servers have it."""
    response = answer(b"X: y", first=first)
    assert (response.status, response.reason, response.http11) == (status, reason, http11)


@pytest.mark.parametrize(
    "first",
    [b"HTTP/1.1 99 X", b"HTTP/1.1 099 X", b"HTTP/1.1 600 X", b"HTTP/1.1 999 X", b"HTTP/1.1 2000 X", b"HTTP/1.1 +20 X",
     b"HTTP/1.1 2_0 X", b"HTTP/1.1 20\xb2 X", b"HTTP/1.1  200 X", b"HTTP/1.1\t200 X", b"HTTP/1.1 200X", b"ICY 200 OK",
     b"HTTP/1.2 200 X", b"HTTP/2.0 200 X", b"HTTP/2 200", b"http/1.1 200 X", b"SSH-2.0-OpenSSH_9", b"", b"HTTP/1.1",
     b"\r\nHTTP/1.1 200 X", b"HTTP/1.1 200 a\rb", b"HTTP/1.1 200 a\x00"],
)  # fmt: skip
def test_a_faulty_status_line_is_refused(first: bytes) -> None:
    """RFC 9112 section 4, RFC 9110 section 15: three ASCII digits from 100 to 599."""
    with pytest.raises(UpstreamError) as caught:
        answer(b"Content-Length: 0", first=first)
    assert (caught.value.kind, caught.value.status) == ("protocol", 502)


LENGTH = b"Content-Length: 17"
CODING = b"Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("status", "method", "lines", "length", "declared"),
    [
        (200, b"GET", [LENGTH], 17, 17),
        (200, b"GET", [CODING], CHUNKED, None),
        (200, b"GET", [], UNTIL_CLOSE, None),
        (205, b"GET", [], UNTIL_CLOSE, None),
        (200, b"head", [LENGTH], 17, 17),
        (200, b"HEAD", [LENGTH], 0, 17),
        (200, b"HEAD", [CODING], 0, None),
        (200, b"HEAD", [], 0, None),
        (304, b"GET", [LENGTH], 0, 17),
        (304, b"GET", [CODING], 0, None),
        (304, b"GET", [], 0, None),
        (204, b"GET", [LENGTH], 0, None),
        (204, b"GET", [CODING], 0, None),
        (100, b"POST", [], 0, None),
        (103, b"GET", [LENGTH], 0, None),
        (104, b"GET", [CODING], 0, None),
        (101, b"GET", [LENGTH], 0, None),
    ],
)
def test_where_a_response_has_a_body(
    status: int, method: bytes, lines: list[bytes], length: int, declared: int | None
) -> None:
    """RFC 9112 section 6.3: rule 1 before all others. HEAD and 304 relay the length, 1xx and 204 must not have one."""
    response = answer(*lines, first=b"HTTP/1.1 %d X" % status, method=method)
    assert (response.length, response.content_length, response.fields) == (length, declared, [])


def test_a_body_that_ends_with_the_connection_leaves_none() -> None:
    """RFC 9112 section 9.3: whatever Connection says."""
    assert not answer(b"Connection: keep-alive").keep_alive
    assert answer(b"Connection: keep-alive", method=b"HEAD").keep_alive


# --- laws


def serialise(request: Request) -> bytes:
    """The request's head as it would be sent on, with the client's own framing said anew."""
    lines = [line for _, line, _ in request.fields]
    if request.cookie is not None:
        lines.append(b"Cookie: %b\r\n" % request.cookie)
    if request.host or request.http11:
        lines.append(b"Host: %b\r\n" % request.host)
    if request.length == CHUNKED:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    elif request.length:
        lines.append(b"Content-Length: %d\r\n" % request.length)
    if request.keep_alive != request.http11:
        lines.append(b"Connection: %b\r\n" % (b"keep-alive" if request.keep_alive else b"close"))
    if request.expect_continue:
        lines.append(b"Expect: 100-continue\r\n")
    if request.te_trailers:
        lines.append(b"TE: trailers\r\n")
    if request.max_forwards is not None:
        lines.append(b"Max-Forwards: %d\r\n" % request.max_forwards)
    return b"%b %b HTTP/1.%d\r\n%b\r\n" % (request.method, request.target, request.http11, b"".join(lines))


TOKENS = st.from_regex(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,12}", fullmatch=True)
VALUES = st.from_regex(rb"[\t\x20-\x7e\x80-\xff]{0,20}", fullmatch=True)
HEADS = st.builds(
    lambda method, path, query, minor, fields: (
        b"%b /%b%b HTTP/1.%d\r\nHost: t\r\n%b\r\n"
        % (method, path, query, minor, b"".join(b"%b:%b\r\n" % field for field in fields))
    ),
    TOKENS,
    st.from_regex(rb"[!-\"$->@-\[\]-~]{0,20}", fullmatch=True),
    st.from_regex(rb"(\?[!\"$-~]{0,20})?", fullmatch=True),
    st.integers(0, 1),
    st.lists(st.tuples(TOKENS, VALUES), max_size=8),
)


def heads(messages: list[bytes]) -> list[bytes]:
    return [message[: message.index(b"\r\n\r\n") + 4] for message in messages]


@given(st.one_of(st.sampled_from(heads(GOOD_REQUESTS)), HEADS))
def test_what_is_parsed_and_written_is_parsed_the_same(head: bytes) -> None:
    """House rule: parse then serialise is the identity, whatever grammatical head came."""
    try:
        request = parse_request(head, LIMITS)
    except DownstreamError as error:
        assert error.status in (400, 405, 417, 501)  # noqa: PT017  # such a field or method was drawn
        return
    again = parse_request(serialise(request), LIMITS)
    assert state(again) == state(request)


def state(message: Request) -> dict[str, object]:
    return {field.name: getattr(message, field.name) for field in fields(message)}


@given(HEADS)
def test_a_grammatical_head_keeps_every_field(head: bytes) -> None:
    """Nothing is lost or invented: each line goes on, or is one of those that end here."""
    try:
        request = parse_request(head, LIMITS)
    except DownstreamError:
        return
    sent = [line.partition(b":") for line in head[:-4].split(b"\r\n")[1:]]
    kept = [(name, value.strip(b" \t")) for name, _, value in sent if name.lower() in names(request.fields)]
    assert kept == [(line.partition(b":")[0], value) for _, line, value in request.fields]
    gone = {name.lower() for name, _, _ in sent} - set(names(request.fields))
    named = {name for line in sent if line[0].lower() == b"connection" for name in line[2].lower().split(b",")}
    assert gone <= {b"host", b"te", b"connection", b"cookie", b"expect", b"trailer", b"upgrade"} | {
        name.strip(b" \t") for name in named
    }


@pytest.mark.parametrize("head", heads(GOOD_RESPONSES))
def test_good_responses_are_taken(head: bytes) -> None:
    """The seeds of the fuzzers are what they are meant to be."""
    assert 200 <= parse_response(head, b"GET", LIMITS).status < 500


KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ASKS = (b"Connection: keep-alive, Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: " + KEY)


def test_a_request_for_websocket_has_its_key() -> None:
    """Contract item 7; RFC 6455 section 4.1. What concerns the connection is no field that goes on, the rest is."""
    request = of(*ASKS, b"Sec-WebSocket-Version: 13")
    assert request.websocket_key == KEY
    assert names(request.fields) == [b"sec-websocket-key", b"sec-websocket-version"]
    assert of(b"connection: UPGRADE", b"upgrade: WebSocket", b"sec-websocket-key:" + KEY).websocket_key == KEY
    assert of(*ASKS, b"Content-Length: 0").websocket_key == KEY


@pytest.mark.parametrize(
    ("first", "lines"),
    [
        (b"POST /a HTTP/1.1", ASKS),
        (b"HEAD /a HTTP/1.1", ASKS),
        (b"OPTIONS /a HTTP/1.1", ASKS),
        (b"GET /a HTTP/1.0", ASKS),
        (b"GET /a HTTP/1.1", ASKS[1:]),
        (b"GET /a HTTP/1.1", (b"Connection: keep-alive", *ASKS[1:])),
        (b"GET /a HTTP/1.1", (ASKS[0], ASKS[2])),
        (b"GET /a HTTP/1.1", (ASKS[0], b"Upgrade: h2c", ASKS[2])),
        (b"GET /a HTTP/1.1", (ASKS[0], b"Upgrade: websocket, h2c", ASKS[2])),
        (b"GET /a HTTP/1.1", (ASKS[0], b"Upgrade: websocket/13", ASKS[2])),
        (b"GET /a HTTP/1.1", (*ASKS, ASKS[1])),
        (b"GET /a HTTP/1.1", (*ASKS, b"Upgrade:")),
        (b"GET /a HTTP/1.1", ASKS[:2]),
        (b"GET /a HTTP/1.1", (*ASKS, ASKS[2])),
        (b"GET /a HTTP/1.1", (*ASKS[:2], b"Sec-WebSocket-Key: ")),
        (b"GET /a HTTP/1.1", (*ASKS[:2], b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ")),
        (b"GET /a HTTP/1.1", (*ASKS[:2], b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSE=")),
        (b"GET /a HTTP/1.1", (*ASKS[:2], b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j_Q==")),
        (b"GET /a HTTP/1.1", (*ASKS[:2], b"Sec_WebSocket_Key: " + KEY)),
        (b"GET /a HTTP/1.1", (b"Connection: Upgrade, Sec-WebSocket-Key", *ASKS[1:])),
        (b"GET /a HTTP/1.1", (*ASKS, b"Content-Length: 1")),
        (b"GET /a HTTP/1.1", (*ASKS, b"Transfer-Encoding: chunked")),
    ],
    ids=[
        "post", "head", "options", "http-1.0", "no-connection", "connection-without-upgrade", "no-upgrade", "h2c",
        "list", "version", "twice", "empty-too", "no-key", "two-keys", "empty-key", "no-padding", "17-bytes",
        "url-alphabet", "underscores", "key-named-in-connection", "length", "chunked",
    ],
)  # fmt: skip
def test_anything_else_asks_for_nothing(first: bytes, lines: tuple[bytes, ...]) -> None:
    """Contract item 7: then Upgrade is stripped like every field of this connection alone."""
    request = of(*lines, first=first)
    assert request.websocket_key == b""
    assert b"upgrade" not in names(request.fields)


@pytest.mark.parametrize(
    ("first", "lines", "upgrade"),
    [
        (b"HTTP/1.1 101 S", (b"Connection: Upgrade", b"Upgrade: WebSocket"), b"websocket"),
        (b"HTTP/1.1 101 S", (b"Connection: upgrade", b"Upgrade: h2c"), b"h2c"),
        (b"HTTP/1.1 101 S", (b"Connection: Upgrade", b"Upgrade: websocket", b"Upgrade: h2c"), b"websocket,h2c"),
        (b"HTTP/1.1 101 S", (b"Upgrade: websocket",), b""),
        (b"HTTP/1.1 101 S", (b"Connection: Upgrade",), b""),
        (b"HTTP/1.0 101 S", (b"Connection: Upgrade", b"Upgrade: websocket"), b""),
        (b"HTTP/1.1 426 U", (b"Connection: Upgrade", b"Upgrade: websocket"), b""),
        (b"HTTP/1.1 200 O", (b"Connection: Upgrade", b"Upgrade: websocket"), b""),
    ],
)
def test_what_an_answer_switches_to(first: bytes, lines: tuple[bytes, ...], upgrade: bytes) -> None:
    """RFC 9110 section 7.8: Upgrade counts with its word in Connection, and switches in a 101 alone."""
    response = answer(*lines, first=first)
    assert response.upgrade == upgrade
    assert response.fields == []
