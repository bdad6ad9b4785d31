"""The careless services read what strict ones read where a message is clean, and are fooled where it is not."""

from __future__ import annotations

import pytest

from tests.wire.lenient import PERSONALITIES, Seen, read_all
from tests.wire.strict import RequestReader

CLEAN = (
    b"POST /a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\n\r\n\n\r\n0\r\n\r\n"
    b"POST /b HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhelloGET /c HTTP/1.1\r\nHost: t\r\nX: a\r\n\r\n"
)
HIDDEN = b"GET /SMUGGLED HTTP/1.1\r\nHost: t\r\n\r\n"


def targets(name: str, data: bytes) -> list[bytes]:
    return [seen.target for seen in read_all(PERSONALITIES[name], data)]


@pytest.mark.parametrize("name", PERSONALITIES)
def test_clean_messages_are_read_as_the_strict_reader_does(name: str) -> None:
    """So that a difference means a dirty message."""
    strict = RequestReader()
    strict.feed(CLEAN)
    assert read_all(PERSONALITIES[name], CLEAN) == [Seen.of(message) for message in strict.messages]


@pytest.mark.parametrize("name", PERSONALITIES)
@pytest.mark.parametrize("cut", range(1, 40))
def test_message_that_has_not_ended_is_not_there(name: str, cut: int) -> None:
    """A service waits for the rest."""
    data = b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello"
    assert read_all(PERSONALITIES[name], data[:-cut]) == []


def test_folding_takes_the_length_and_greedy_the_coding() -> None:
    """The two halves of CL.TE."""
    data = b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (
        5 + len(HIDDEN)
    )
    assert targets("folding", data + HIDDEN) == [b"/a"]
    assert targets("greedy", data + HIDDEN) == [b"/a", b"/SMUGGLED"]


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("folding", b"Transfer_Encoding: chunked"),
        ("folding", b"Transfer-Encoding : chunked"),
        ("folding", b"X: y\nTransfer-Encoding: chunked"),
        ("greedy", b"Transfer-Encoding: xchunked"),
        ("greedy", b"X: y\rTransfer-Encoding: chunked"),
        ("greedy", b"Transfer-Encoding: chunked, identity"),
    ],
)
def test_obfuscated_coding_is_believed(name: str, field: bytes) -> None:
    """Each has been found in a real server (sources in cases.yaml)."""
    data = b"POST /a HTTP/1.1\r\nHost: t\r\n%b\r\n\r\n0\r\n\r\n%b" % (field, HIDDEN)
    assert targets(name, data) == [b"/a", b"/SMUGGLED"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("folding", b"0_5\r\n"),
        ("folding", b"+5\r\n"),
        ("folding", b"0x5\n"),
        ("greedy", b"5;\r"),
        ("greedy", b"5x\r\n"),
    ],
)
def test_careless_chunk_sizes(name: str, line: bytes) -> None:
    """``int(text, 16)``, the longest prefix of digits, and an extension that ends at a CR."""
    data = b"POST /a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n%bhello\r\n0\r\n\r\n" % line
    assert [seen.body for seen in read_all(PERSONALITIES[name], data)] == [b"hello"]
