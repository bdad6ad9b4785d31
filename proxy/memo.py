"""Heads seen before are not parsed again: the same bytes mean the same.

A client on a kept connection sends the same fields with each request, and all browsers of one kind send the same ones
but for Cookie. So the lines behind the request line, without the Cookie line, are looked up in a bounded dictionary.
What it holds was read by `http1.parse_request`; the cookie's value is checked each time, and so is a request line that
is not among the last ones.
Nothing of a decision is remembered here, nor any value that is a client's alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.grammar import PLAIN_REQUEST_LINE, PLAIN_VALUE
from proxy.http1 import HeadLimits, Request, Response, parse_request, parse_response

if TYPE_CHECKING:
    from proxy.forward import RequestRules, Told

MAX_BLOCKS: Final = 1024  # kinds of clients at one time; 8 MB at the most, 1 MB with common browsers
MAX_BLOCK_BYTES: Final = 2048  # a browser's fields without cookies have 400 to 1,000
MAX_LINES: Final = 4096  # request lines; 2 MB at the most
MAX_LINE_BYTES: Final = 128
MAX_RESPONSES: Final = 512  # heads; 2 MB at the most
MAX_RESPONSE_BYTES: Final = 1024
MAX_SEEN: Final = 8192  # blocks that came once; only a second one is kept, so that unique ones push nobody out
_SPECIAL: Final = frozenset((b"CONNECT", b"OPTIONS", b"TRACE"))  # their fields mean something else, or nothing

Line = tuple[bytes, bytes, bytes, bytes | None]  # method, target, path, query or None


class Block:
    """What the lines behind a request line mean, Cookie aside.

    Attributes:
        fields: As in `Request.fields`.
        facts: What `facts.Facts` read from the fields for `wanted`, the names that it was asked for.
        told: What `forward.RequestRules` made of the fields, for `rules`.
    """

    __slots__ = (
        "expect_continue", "facts", "fields", "host", "keep_alive", "length", "rules", "te_trailers", "told", "wanted",
    )  # fmt: skip

    def __init__(self, request: Request) -> None:
        self.fields = request.fields
        self.host = request.host
        self.length = request.length
        self.keep_alive = request.keep_alive
        self.expect_continue = request.expect_continue
        self.te_trailers = request.te_trailers
        self.wanted: frozenset[bytes] | None = None
        self.facts: tuple[dict[bytes, bytes], frozenset[bytes]] = ({}, frozenset())
        self.rules: RequestRules | None = None
        self.told: Told = (b"", b"", b"", None, None)


class _Seen:
    """Whether something came before, as far as a bounded memory tells."""

    def __init__(self) -> None:
        self._hashes: set[int] = set()

    def before(self, key: bytes) -> bool:
        mark = hash(key)
        if mark in self._hashes:
            return True
        if len(self._hashes) >= MAX_SEEN:
            self._hashes.clear()
        self._hashes.add(mark)
        return False


class HeadMemo:
    """`http1.parse_request` with a memory.

    Args:
        limits: Of heads.
    """

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self._blocks: dict[bytes, Block] = {}
        self._lines: dict[bytes, Line] = {}
        self._seen = _Seen()

    def parse(self, head: bytes) -> Request:
        """Read the head of a request.

        Raises:
            DownstreamError: As `http1.parse_request`.

        Cost: 2 us for fields seen before.
        """
        line_end = head.find(b"\r\n")
        at = head.find(b"\r\nCookie: ", line_end)
        if at < 0:
            at = head.find(b"\r\ncookie: ", line_end)
        if at < 0:
            cookie, key = None, head[line_end:]
        else:
            end = head.find(b"\r\n", at + 10)
            cookie, key = head[at + 10 : end], head[line_end:at] + head[end:]
        block = self._blocks.get(key)
        if block is None:
            return self._learn(head, key, cookie is not None)
        first = head[:line_end]
        line = self._lines.get(first) or self._read_line(first)
        if line is None or (cookie is not None and not PLAIN_VALUE.fullmatch(cookie)):
            return parse_request(head, self._limits)
        method, target, path, query = line
        return Request(
            method, target, path, query or b"", query is not None, True, block.host, block.fields, block.length,
            block.keep_alive, block.expect_continue, block.te_trailers, None, cookie, block,
        )  # fmt: skip

    def _read_line(self, first: bytes) -> Line | None:
        """Take a plain request line apart, and keep a short one; None for any other line."""
        match = PLAIN_REQUEST_LINE.fullmatch(first)
        if match is None:
            return None
        line: Line = (match[1], match[2], match[3], match[4])
        if line[0] in _SPECIAL or len(line[1]) > self._limits.target_bytes:
            return None
        if len(first) <= MAX_LINE_BYTES:
            if len(self._lines) >= MAX_LINES:
                self._lines.clear()
            self._lines[first] = line
        return line

    def _learn(self, head: bytes, key: bytes, has_cookie: bool) -> Request:
        """Parse, and keep the block if it comes for the second time and is as plain as `parse` takes it for."""
        request = parse_request(head, self._limits)
        if request.first(b"sec-websocket-key") is not None:
            return request  # what these lines mean depends on the method, and a key comes once
        # A Cookie line more must not be one too many. The key begins with one CRLF and ends with two.
        has_room = key.count(b"\r\n") - 2 < self._limits.count
        if len(key) > MAX_BLOCK_BYTES or not has_room or not request.http11:
            return request
        if (
            self._seen.before(key)
            and request.method not in _SPECIAL
            and head.startswith(b"%b %b HTTP/1.1\r\n" % (request.method, request.target))
            and head.lower().count(b"\r\ncookie") == has_cookie
        ):
            if len(self._blocks) >= MAX_BLOCKS:
                self._blocks.clear()
            self._blocks[key] = Block(request)
        return request


class ResponseMemo:
    """`http1.parse_response` with a memory of whole heads: many answers differ in their bodies only.

    Args:
        limits: Of heads.
    """

    def __init__(self, limits: HeadLimits) -> None:
        self._limits = limits
        self._heads: dict[bytes, Response] = {}
        self._seen = _Seen()

    def parse(self, head: bytes, method: bytes) -> Response:
        """Read the head of a response.

        Raises:
            UpstreamError: As `http1.parse_response`.
        """
        if method == b"HEAD":
            return parse_response(head, method, self._limits)
        response = self._heads.get(head)
        if response is not None:
            return response
        response = parse_response(head, method, self._limits)
        if len(head) <= MAX_RESPONSE_BYTES and self._seen.before(head):
            if len(self._heads) >= MAX_RESPONSES:
                self._heads.clear()
            self._heads[head] = response
            response.is_shared = True
        return response
