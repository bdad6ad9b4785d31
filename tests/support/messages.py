"""Messages that tests of the HTTP core start from: good ones of many kinds, and hostile ones of known classes."""

from __future__ import annotations

BROWSER = (
    b"GET /shop/checkout?item=12&lang=de HTTP/1.1\r\nHost: shop.example\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    b"Accept-Language: de,en-US;q=0.7,en;q=0.3\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Referer: https://shop.example/\r\nCookie: cohort_shop=v1.3q2-7w; session=0123456789abcdef\r\n"
    b"Connection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\n\r\n"
)


def request(*lines: bytes, first: bytes = b"POST /a HTTP/1.1", body: bytes = b"", host: bytes = b"Host: t") -> bytes:
    """A request with these field lines."""
    return b"\r\n".join([first, *([host] if host else []), *lines, b"", body])


def response(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK", body: bytes = b"") -> bytes:
    """A response with these field lines."""
    return b"\r\n".join([first, *lines, b"", body])


CHUNKED = b"Transfer-Encoding: chunked"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
SMUGGLED = b"GET /SMUGGLED HTTP/1.1\r\nHost: tt\r\n\r\n"

GOOD_CHUNKED_BODIES = [
    CHUNKS,
    b"0\r\n\r\n",
    b"000A\r\n0123456789\r\n00\r\n\r\n",
    b'5;n=v;q="a b;\\"\\r"\r\nhello\r\n0;x\r\n\r\n',
    b"1\r\n\r\r\n1\r\n\n\r\n4\r\n\r\n\r\n\r\n0\r\n\r\n",
    b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 9\r\nX-Empty:\r\n\r\n",
    b"24\r\n" + SMUGGLED + b"\r\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nContent-Length: 36\r\nHost: evil\r\n\r\n",
]

GOOD_REQUESTS = [
    BROWSER,
    request(first=b"GET /a%2Fb%2e%2E/%c3%A9?x=%26&y=a+b&z=%20&b=\\|{} HTTP/1.1"),
    request(first=b"OPTIONS * HTTP/1.1"),
    request(b"Max-Forwards: 7", first=b"OPTIONS /a HTTP/1.1"),
    request(first=b"GET http://T:80/a?b HTTP/1.1"),
    request(first=b"GET /a HTTP/1.0", host=b""),
    request(b"Connection: keep-alive", first=b"GET /a HTTP/1.0"),
    request(b"Connection: foo, CLOSE", b"Foo: bar", first=b"GET /a HTTP/1.1"),
    request(b"Connection: X-Foo, keep-alive", b"X-Foo: secret", b"X-Bar:\t b  c \t"),
    request(b"Content-Length: 5", body=b"hello"),
    request(b"Content-Length:\t5\t ", b"Expect: 100-continue", body=b"hello"),
    request(b"Content-Length: 5", body=b"hello" + SMUGGLED),
    request(b"X-Name: J\xc3\xbcrgen \xff", b"X-Empty:", b"X-A: 1", b"X-B: z", b"X-A: 2"),
    request(b"TE: gzip;q=0.5, trailers", b"Keep-Alive: timeout=5", b"Trailer: X", first=b"DELETE /a?b HTTP/1.1"),
    *(request(CHUNKED, body=body) for body in GOOD_CHUNKED_BODIES),
    request(b"transfer-ENCODING: Chunked", first=b"GET /a HTTP/1.1", body=CHUNKS + SMUGGLED),
]

# Of each class at least one; what is new is found by mutation. RFC 9112 section 11, and reliability of other parsers.
HOSTILE_REQUESTS = [
    *(request(b"Content-Length: " + value, body=b"hello") for value in (b"+5", b"-0", b"1_0", b"0x5", b"5, 5", b"0 5")),
    request(b"Content-Length: \xd9\xa5", body=b"hello"),
    request(b"Content-Length: 0", b"Content-Length: 36", body=SMUGGLED),
    request(b"Content-Length: 18446744073709551621", body=b"hello"),
    request(b"Content-Length : 36", body=SMUGGLED),
    request(b"Content-Length:\r\n 5", body=b"hello"),
    request(b"Content-Length: 4", CHUNKED, body=b"24\r\n" + SMUGGLED + b"\r\n0\r\n\r\n"),
    request(CHUNKED, b"Content-Length: 4", body=b"24\r\n" + SMUGGLED + b"\r\n0\r\n\r\n"),
    request(b"Transfer-Encoding:", b"Content-Length: 5", body=b"hello"),
    request(b"Transfer-Encoding: identity, chunked", body=CHUNKS),
    request(b"Transfer-Encoding: chunked, gzip", body=CHUNKS),
    request(CHUNKED, CHUNKED, body=CHUNKS),
    request(b"Transfer-Encoding: \x0bchunked", body=CHUNKS),
    request(b"Transfer-Encoding: \xa0chunked\xa0", body=CHUNKS),
    request(b"Transfer-Encoding: chunked;q=1", body=CHUNKS),
    request(b"Transfer_Encoding: chunked", b"Content-Length: 5", body=b"hello"),
    request(b"Transfer-\r\nEncoding: chunked", b"Content-Length: 5", body=CHUNKS),
    request(b"Foo: bar\nTransfer-Encoding: chunked", b"Content-Length: 5", body=CHUNKS),
    request(CHUNKED, first=b"POST /a HTTP/1.0", body=CHUNKS),
    request(b"Connection: Transfer-Encoding", CHUNKED, body=CHUNKS),
    request(b"Connection: Content-Length", b"Content-Length: 36", body=SMUGGLED),
    request(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: 5", body=b"hello"),
    request(b"X: a\rTransfer-Encoding: chunked"),
    request(b"X: a\x00b", b"\xeffoo: bar", b": x"),
    request(host=b"Host: t\r\nHost: evil"),
    request(host=b"Host: a@b"),
    request(first=b"GET  /a  HTTP/1.1"),
    request(first=b"GET /a\tHTTP/1.1"),
    request(first=b"GET /public#/../admin HTTP/1.1"),
    request(first=b"GET http://evil/ HTTP/1.1"),
    request(first=b"GET /a HTTP/2.0"),
    b"GET /a\r\n\r\n",
    b"GET /a HTTP/1.1\nHost: t\n\n" + SMUGGLED,
]

HOSTILE_CHUNKED_BODIES = [
    b"0_2e\r\n\r\n" + SMUGGLED,
    b"+5\r\nhello\r\n0\r\n\r\n",
    b"5 \r\nhello\r\n0\r\n\r\n",
    b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    b"\r\n\r\n",
    b"2;\nxx\r\n28\r\n0\r\n\r\n" + SMUGGLED + b"\r\n0\r\n\r\n",
    b"5\r\r;ABCD\r\n34\r\nE\r\n0\r\n\r\n" + SMUGGLED,
    b"5\r\nhelloXX0\r\n\r\n",
    b"5\r\nhelloAB0\r\nX:GET /SMUGGLED HTTP/1.1\r\n\r\n",
    b"5\nhello\n0\n\n",
    b"a\r\n0123456789\n0\r\n\r\n",
    b"5\r\nhello\r\n0\r\nbadtrailer\r\n\r\n",
    b"0\r\nX: a\x00\r\n\r\n",
    b"0\r\n X: a\r\n\r\n",
    b"0\n\r\n",
]

GOOD_RESPONSES = [
    response(b"Content-Length: 2", b"Content-Type: text/plain", b"Date: Thu, 20 Nov 2025 10:00:00 GMT", body=b"ok"),
    response(b"Content-Length: 8", body=b"SEE-THIS-NOT-THIS"),
    response(body=b"until the end"),
    response(b"Connection: close", first=b"HTTP/1.0 200 OK", body=b"until the end"),
    response(b"Connection: keep-alive", b"Content-Length: 2", first=b"HTTP/1.0 404 ", body=b"no"),
    response(b'ETag: "x"', b"Content-Length: 1000", first=b"HTTP/1.1 304 Not Modified"),
    response(b"X: y", first=b"HTTP/1.1 204"),
    response(b"Set-Cookie: a=1; Path=/", b"Set-Cookie: b=\xfc", CHUNKED, b"Trailer: X-Sum", body=CHUNKS),
    *(response(CHUNKED, body=body) for body in GOOD_CHUNKED_BODIES),
]

HOSTILE_RESPONSES = [
    response(b"Content-Length: 30", CHUNKED, body=CHUNKS),
    response(b"Transfer-Encoding: chunked, gzip", body=CHUNKS),
    response(b"Transfer-Encoding: gzip", body=b"gzip"),
    response(b"Content-Length: 2", b"Content-Length: 2", body=b"ok"),
    response(b"Content-Length: 2, 2", body=b"ok"),
    response(CHUNKED, first=b"HTTP/1.0 200 OK", body=CHUNKS),
    response(b"X: a\rSet-Cookie: evil=1", b"Content-Length: 2", body=b"ok"),
    response(b"X: a\r\n b", b"Content-Length: 2", body=b"ok"),
    response(b"X: a\x00b\x01", b"Content-Length: 2", body=b"ok"),
    response(b"Content-Length: 17", first=b"HTTP/1.1 104 X", body=GOOD_RESPONSES[0]),
    response(b"Content-Length: 2", first=b"HTTP/1.1 999 X", body=b"ok"),
    response(b"Content-Length: 2", first=b"HTTP/1.1 +20 X", body=b"ok"),
    response(b"Content-Length: 2", first=b"HTTP/1.1\t200 X", body=b"ok"),
    b"ICY 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
]
