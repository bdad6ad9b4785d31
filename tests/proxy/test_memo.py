"""Heads that are remembered: what they must never be mistaken for."""

from __future__ import annotations

import itertools

import pytest

from proxy.errors import DownstreamError
from proxy.http1 import HeadLimits, parse_request
from proxy.memo import HeadMemo

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
LINES = b"Host: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: %b\r\n\r\n" % KEY
FIRST = {b"GET": b"GET / HTTP/1.1\r\n", b"POST": b"POST / HTTP/1.1\r\n", b"GET/1.0": b"GET / HTTP/1.0\r\n"}


@pytest.mark.parametrize("order", list(itertools.permutations(FIRST)), ids=str)
def test_lines_that_may_ask_for_websocket_are_read_each_time(order: tuple[bytes, ...]) -> None:
    """The same lines ask for it with GET and HTTP/1.1 alone, whatever came before how often."""
    memo = HeadMemo(HeadLimits())
    for _ in range(4):
        for name in order:
            for _ in range(3):
                request = memo.parse(FIRST[name] + LINES)
                assert request.websocket_key == (KEY if name == b"GET" else b"")
                assert request.block is None


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket"])
def test_other_upgrades_are_remembered_as_plain_requests(upgrade: bytes) -> None:
    """Some clients ask for HTTP/2 with every request."""
    memo = HeadMemo(HeadLimits())
    head = b"GET / HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: %b\r\n\r\n" % upgrade
    requests = [memo.parse(head) for _ in range(3)]
    assert [request.websocket_key for request in requests] == [b""] * 3
    assert requests[2].block is not None


def test_a_remembered_line_means_what_it_says_under_other_fields() -> None:
    """Lines are remembered apart from the fields behind them, and neither the long nor the special ones at all."""
    memo = HeadMemo(HeadLimits(target_bytes=300))
    blocks = [b"\r\nHost: a\r\n\r\n", b"\r\nHost: b\r\nCookie: uid=1\r\n\r\n"]
    targets = [b"/", b"/a?b", b"/a?", b"/" + b"x" * 200, b"/" + b"x" * 299]
    for _ in range(4):
        for method in (b"GET", b"DELETE", b"OPTIONS"):
            for target in targets:
                for block in blocks:
                    head = b"%b %b HTTP/1.1%b" % (method, target, block)
                    got, fresh = memo.parse(head), parse_request(head, HeadLimits(target_bytes=300))
                    names = ("method", "target", "path", "query", "has_query", "host", "cookie", "max_forwards")
                    assert [getattr(got, name) for name in names] == [getattr(fresh, name) for name in names]
    with pytest.raises(DownstreamError):
        memo.parse(b"GET /%b HTTP/1.1%b" % (b"x" * 300, blocks[0]))
