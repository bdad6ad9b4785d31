"""Every way to say Content-Length with every way to say Transfer-Encoding, in both orders, before a hidden request."""

from __future__ import annotations

from collections.abc import Iterator

from tests.wire.attack import Attack

HIDDEN = b"GET /SMUGGLED HTTP/1.1\r\nHost: t\r\n\r\n"
_BODY = b"5\r\nhello\r\n0\r\n\r\n" + HIDDEN
_ZERO = b"0\r\n\r\n" + HIDDEN

LENGTHS = (
    b"", b"Content-Length: %d\r\n", b"content-length:%d\r\n", b"Content-Length: 0%d\r\n", b"Content-Length: +%d\r\n",
    b"Content-Length: -%d\r\n", b"Content-Length: %d, %d\r\n", b"Content-Length: %d\r\nContent-Length: %d\r\n",
    b"Content-Length: %d\r\nContent-Length: 0\r\n", b"Content-Length: %d;x\r\n", b"Content-Length : %d\r\n",
    b"Content-Length:\r\n %d\r\n", b"Content_Length: %d\r\n", b"Content-Length: \x0b%d\r\n",
    b"Content-Length: %d\x85\r\n", b"Content-Length: 0x%d\r\n", b"Content-Length: %d.0\r\n", b"Content-Length: %d \r\n",
    b"X: y\nContent-Length: %d\r\n", b"Content-Length\x00: %d\r\n", b"Content-Length: \r\n",
    b"Connection: Content-Length\r\nContent-Length: %d\r\n",
)  # fmt: skip
CODINGS = (
    b"", b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:CHUNKED\r\n", b"Transfer-Encoding:\tchunked\t\r\n",
    b"Transfer-Encoding: chunked, identity\r\n", b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding: identity, chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding:\r\n",
    b"Transfer-Encoding: ,chunked\r\n", b"Transfer-Encoding: chunked,\r\n", b"Transfer-Encoding: \x0bchunked\r\n",
    b"Transfer-Encoding: chunked\x0c\r\n", b'Transfer-Encoding: "chunked"\r\n', b"Transfer-Encoding: chunked;q=1\r\n",
    b"Transfer-Encoding : chunked\r\n", b"Transfer_Encoding: chunked\r\n", b"Transfer-Encoding:\r\n chunked\r\n",
    b"X: y\nTransfer-Encoding: chunked\r\n", b"X: y\rTransfer-Encoding: chunked\r\n",
    b" Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding: xchunked\r\n",
    b"Transfer-Encoding: chun\xa0ked\r\n", b"Transfer-Encoding\x85: chunked\r\n",
    b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", b"TE: chunked\r\n",
)  # fmt: skip


def permutations() -> Iterator[Attack]:
    """All of them: a body that is short by the one reading, and one that is empty by the other."""
    for length in LENGTHS:
        for coding in CODINGS:
            for body, size in ((_BODY, 15), (_ZERO, len(_ZERO))):
                filled = length.replace(b"%d", b"%d" % size)
                for fields in {filled + coding, coding + filled}:
                    yield Attack((b"POST /a HTTP/1.1\r\nHost: t\r\n%b\r\n%b" % (fields, body),))
