"""The strict readers accept what RFC 9112 says and nothing else, however the bytes are cut."""

from __future__ import annotations

import pytest

from tests.wire.strict import ClientRequestReader, RequestReader, ResponseReader, is_authority, is_extension

GOOD = {
    "none": b"GET /a?b HTTP/1.1\r\nHost: t\r\n\r\n",
    "length": b"POST /a HTTP/1.1\r\nHost: t:80\r\nContent-Length: 5\r\n\r\nhello",
    "chunked": b"POST /a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    "obs-text": b"GET /a HTTP/1.1\r\nHost: t\r\nX: J\xc3\xbc\xff\t1\r\n\r\n",
}
BAD = {
    "both": b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "two lengths": b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
    "sign": b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: +5\r\n\r\n",
    "empty length": b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length:\r\n\r\n",
    "coding": b"POST /a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "no host": b"GET /a HTTP/1.1\r\nX: y\r\n\r\n",
    "two hosts": b"GET /a HTTP/1.1\r\nHost: t\r\nHost: t\r\n\r\n",
    "userinfo": b"GET /a HTTP/1.1\r\nHost: a@t\r\n\r\n",
    "bare LF": b"GET /a HTTP/1.1\r\nHost: t\nX: y\r\n\r\n",
    "only LF": b"GET /a HTTP/1.1\nHost: t\n\n",
    "bare CR": b"GET /a HTTP/1.1\r\nHost: t\r\nX: a\rb\r\n\r\n",
    "CR before CRLF": b"GET /a HTTP/1.1\r\nHost: t\r\nX: a\r\r\n\r\n",
    "NUL": b"GET /a HTTP/1.1\r\nHost: t\r\nX: a\0b\r\n\r\n",
    "fold": b"GET /a HTTP/1.1\r\nHost: t\r\nX: a\r\n b\r\n\r\n",
    "blank before colon": b"GET /a HTTP/1.1\r\nHost: t\r\nX : a\r\n\r\n",
    "no colon": b"GET /a HTTP/1.1\r\nHost: t\r\nX\r\n\r\n",
    "empty name": b"GET /a HTTP/1.1\r\nHost: t\r\n: a\r\n\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\nHost: t\r\n\r\n",
    "raw non-ASCII": b"GET /\xc3\xa9 HTTP/1.1\r\nHost: t\r\n\r\n",
    "two blanks": b"GET  /a HTTP/1.1\r\nHost: t\r\n\r\n",
    "version": b"GET /a HTTP/1.2\r\nHost: t\r\n\r\n",
    "0.9": b"GET /a\r\n\r\n",
    "chunk size": b"POST /a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\n",
    "no size": b"POST /a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n\r\n",
    "spill": b"POST /a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloXX",
    "LF behind a chunk": b"POST /a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n",
    "framing trailer": b"PUT / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 1\r\n\r\n",
}
OF_A_PROXY = {  # what a client may do and a proxy must not pass on
    "absolute": b"GET http://t/a HTTP/1.1\r\nHost: t\r\n\r\n",
    "1.0": b"GET /a HTTP/1.0\r\n\r\n",
    "empty line before": b"\r\nGET /a HTTP/1.1\r\nHost: t\r\n\r\n",
    "extension": b'PUT /a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5;a;b="c\\"" \r\nhello\r\n0\r\n\r\n',
    "empty host": b"GET /a HTTP/1.1\r\nHost:\r\n\r\n",
}
TWO = GOOD["chunked"] + GOOD["length"] + GOOD["none"]


@pytest.mark.parametrize("data", GOOD.values(), ids=GOOD)
@pytest.mark.parametrize("reader", [RequestReader, ClientRequestReader])
def test_good_request_is_read(reader: type[RequestReader], data: bytes) -> None:
    """One complete message, nothing left."""
    read = reader()
    read.feed(data)
    assert read.fault is None
    assert [message.complete for message in read.messages] == [True]
    assert not read.is_partial


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_bad_request_is_a_fault(data: bytes) -> None:
    """Whatever a lenient parser would make of it."""
    read = RequestReader()
    read.feed(data)
    assert read.fault is not None


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
def test_reader_of_clients_refuses_the_same(data: bytes) -> None:
    """But for a forbidden trailer, which RFC 9110 section 6.5.1 has a recipient ignore."""
    read = ClientRequestReader()
    read.feed(data)
    assert (read.fault is None) == (data == BAD["framing trailer"])


@pytest.mark.parametrize("data", OF_A_PROXY.values(), ids=OF_A_PROXY)
def test_a_proxy_says_less_than_a_client_may(data: bytes) -> None:
    """What RFC 9112 lets a client say, and what goes on to a service, are read by two readers."""
    of_client, of_proxy = ClientRequestReader(), RequestReader()
    of_client.feed(data)
    of_proxy.feed(data)
    assert of_client.fault is None
    assert of_client.messages[0].complete
    assert of_proxy.fault is not None


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_any_split_reads_the_same(size: int) -> None:
    """Bytes come in pieces of any size."""
    whole, pieces = RequestReader(), RequestReader()
    whole.feed(TWO)
    for at in range(0, len(TWO), size):
        pieces.feed(TWO[at : at + size])
    assert whole.messages == pieces.messages
    assert [bytes(message.body) for message in whole.messages] == [b"hello", b"hello", b""]
    assert whole.messages[0].trailers == [(b"X-T", b"1")]


def test_nothing_follows_a_close() -> None:
    """RFC 9112 section 9.6."""
    read = ClientRequestReader()
    read.feed(b"GET /a HTTP/1.1\r\nHost: t\r\nConnection: x, Close\r\n\r\n" + GOOD["none"])
    assert [message.target for message in read.messages] == [b"/a"]


def response(data: bytes, *methods: bytes, exact: bool = True) -> ResponseReader:
    reader = ResponseReader(exact=exact)
    for method in methods:
        reader.expect(method)
    reader.feed(data)
    return reader


def test_answer_to_head_has_no_body() -> None:
    """RFC 9112 section 6.3 rule 1: the next answer begins behind the head."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    read = response(head + head, b"HEAD", b"HEAD")
    assert [message.complete for message in read.finals] == [True, True]


@pytest.mark.parametrize(
    ("data", "is_reset", "complete"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", False, False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", False, False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", False, True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", True, False),
    ],
    ids=["length", "chunked", "close", "reset"],
)
def test_cut_answer_is_incomplete(data: bytes, is_reset: bool, complete: bool) -> None:
    """RFC 9112 section 8; a close-delimited body is whole unless the connection was reset."""
    read = response(data, b"GET")
    read.end(is_reset)
    assert read.fault is None
    assert read.finals[0].complete is complete


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 600 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello",
        b"HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 Early\r\nContent-Length: 3\r\n\r\n",
        b"SSH-2.0-x\r\n\r\n",
    ],
    ids=["1.0", "600", "no blank", "unannounced close", "204", "1xx", "no HTTP"],
)
def test_answer_of_a_proxy_must_be_exact(data: bytes) -> None:
    """A good proxy writes none of these."""
    assert response(data, b"GET").fault is not None


def test_surplus_of_a_service_is_a_fault() -> None:
    """Contract item 13: bytes that answer no request."""
    good = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    assert response(good, b"GET", exact=False).fault is None
    assert response(good + b"H", b"GET", exact=False).fault is not None


def test_interim_answers_are_not_final() -> None:
    """They owe the final one."""
    read = response(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\n\r\n", b"GET")
    assert (read.finals, read.owed) == ([], 1)
    read.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (len(read.finals), read.owed) == (1, 0)


def test_switch_ends_http() -> None:
    """What stands behind 101 is another protocol."""
    read = response(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n\x81\x00", b"GET")
    assert read.tunnel
    assert read.finals[0].status == 101


@pytest.mark.parametrize("text", [b"t", b"t:80", b"[::1]", b"[::1]:8080", b"a-b.c_d", b"t:"])
def test_authority_is_accepted(text: bytes) -> None:
    """``uri-host [":" port]``, the port possibly empty; RFC 3986 section 3.2."""
    assert is_authority(text)


@pytest.mark.parametrize("text", [b"", b":80", b"a b", b"a@b", b"t:80a", b"t:123456", b"[::1", b"a/b", b"a:b:c"])
def test_no_authority_is_refused(text: bytes) -> None:
    """Everything else."""
    assert not is_authority(text)


@pytest.mark.parametrize("text", [b"a", b" a = b ", b"a;b=c", b'a="b;c\\"d"', b"a=\t1"])
def test_extension_is_accepted(text: bytes) -> None:
    """RFC 9112 section 7.1.1, blanks by RFC 9110 section 5.6.3."""
    assert is_extension(text)


@pytest.mark.parametrize("text", [b"", b"=", b"a=", b'a="b', b"a;", b"a b", b'a="b"c', b"\x0b"])
def test_no_extension_is_refused(text: bytes) -> None:
    """Everything else."""
    assert not is_extension(text)
