"""HTTP/1.1 heads, strictly: bytes in, `Request` or `Response` out, or the error with the status that the client gets.

A head in the spelling that nearly all clients use is matched by one regular expression; any other takes the careful
way, which puts its lines into that spelling or finds the fault. Both ways end in the same few lines of meaning.
Framing is told by one number: the length of the body, `CHUNKED` or `UNTIL_CLOSE`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from proxy.errors import DownstreamError
from proxy.grammar import CONTENT_LENGTH, MAX_FORWARDS, REQUEST_HEAD, RESPONSE_HEAD, TOKEN
from proxy.head import (
    Fault,
    Field,
    HeadLimits,
    careful_lines,
    read_request_line,
    read_status_line,
    request_head_end,
    response_fault,
    response_head_end,
    show,
    skip_empty_lines,
)
from proxy.target import read_host, read_target
from proxy.websocket import asked_key

if TYPE_CHECKING:
    from proxy.forward import ResponseRules, ToldAnswer
    from proxy.memo import Block

# A connection deals with heads through this module alone.
__all__ = [
    "CHUNKED",
    "UNTIL_CLOSE",
    "Field",
    "HeadLimits",
    "Request",
    "Response",
    "parse_request",
    "parse_response",
    "request_head_end",
    "response_head_end",
]

CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2

_MAX_LENGTH: Final = 2**63 - 1  # what services keep in a signed 64-bit number

# Fields that this connection alone is concerned with; a proxy says its own. RFC 9110 section 7.6.1, and the older
# Keep-Alive and Proxy-Connection. Content-Length and Transfer-Encoding are here because `length` tells it.
_CONNECTION_FIELDS = (
    b"connection",
    b"content-length",
    b"http2-settings",
    b"keep-alive",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
)
# With "_" they mean nothing to us and are dropped: services that read fields as CGI variables take them for the same.
_HOP_BY_HOP: Final = frozenset(_CONNECTION_FIELDS) | {name.replace(b"-", b"_") for name in _CONNECTION_FIELDS}
_REQUEST_OWN: Final = _HOP_BY_HOP | {b"cookie", b"expect", b"host"}
# What Connection cannot remove, beside what is never passed on as it came: contract item 8.
_KEPT: Final = frozenset((b"authorization", b"cookie"))
_KEEP_ALIVE: Final = frozenset((b"keep-alive", b"Keep-Alive"))  # as browsers spell it
_REFUSED: Final = frozenset((b"CONNECT", b"TRACE"))  # contract item 6


@dataclass(slots=True, eq=False)
class Request:
    """A request's head. Never changed once it is made; not frozen because that costs 1 us a request.

    Attributes:
        method: As sent; methods are case-sensitive.
        target: Origin form, byte for byte as it came; ``*`` for the whole server.
        path: The target before the first ``?``.
        query: What stands behind it; empty if none.
        has_query: A ``?`` stands in the target.
        http11: HTTP/1.1, else 1.0.
        host: Of the authority in an absolute target, else of Host, as sent; empty for HTTP/1.0 without either.
        fields: End-to-end fields in order. Never in it: Host, Cookie, Expect, framing, hop-by-hop fields and what
            Connection names; for OPTIONS no Max-Forwards either.
        length: Of the body in bytes, or `CHUNKED`.
        keep_alive: The client means to send more on this connection.
        expect_continue: The client waits for 100 before it sends the body; never for HTTP/1.0 or without a body.
        te_trailers: The client takes trailers.
        max_forwards: Of an OPTIONS request that has it.
        cookie: The Cookie field, several lines joined by ``; ``; None without one.
        block: What is remembered of the lines behind the first one, if they were seen before; see `memo`.
        websocket_key: Of a request to switch to WebSocket, contract item 7; empty for any other, whose Upgrade means
            nothing.
    """

    method: bytes
    target: bytes
    path: bytes
    query: bytes
    has_query: bool
    http11: bool
    host: bytes
    fields: list[Field] = field(repr=False)  # may hold secrets
    length: int
    keep_alive: bool
    expect_continue: bool = False
    te_trailers: bool = False
    max_forwards: int | None = None
    cookie: bytes | None = field(default=None, repr=False)
    block: Block | None = None
    websocket_key: bytes = b""

    def first(self, name: bytes) -> bytes | None:
        """The first value of an end-to-end field, by its lower-case name."""
        for own, _, value in self.fields:
            if own == name:
                return value
        return None


@dataclass(slots=True, eq=False)
class Response:
    """A response's head, as the answer to one method.

    Attributes:
        status: 100-599.
        reason: As sent, possibly empty.
        http11: HTTP/1.1, else 1.0.
        fields: End-to-end fields in order, without framing and what Connection names.
        length: Of the body in bytes, `CHUNKED` or `UNTIL_CLOSE`; 0 where there cannot be a body.
        content_length: As declared, also in answers to HEAD and in 304; None in 1xx and 204, which must not have it.
        keep_alive: The service leaves the connection open.
        upgrade: What a 101 switches to, lower-case, if it says so as it must; empty in any other answer.
        is_shared: Remembered by `memo.ResponseMemo`, and then `told` is what `rules` made of the fields.
        said: The head that clients got last, behind the ``Date`` and framing lines that it was made with.
    """

    status: int
    reason: bytes
    http11: bool
    fields: list[Field] = field(repr=False)  # may hold secrets
    length: int
    content_length: int | None
    keep_alive: bool
    upgrade: bytes = b""
    is_shared: bool = False
    rules: ResponseRules | None = None
    told: ToldAnswer = (b"", b"", None, b"")
    said: tuple[bytes, bytes, bytes] = (b"", b"", b"")


def parse_request(head: bytes, limits: HeadLimits) -> Request:
    """Read the head of a request.

    Args:
        head: What `request_head_end` delimited.
        limits: Its count and its target; the size of the block was held against its limit there.

    Raises:
        DownstreamError: 400, or 405 (CONNECT, TRACE), 414, 417, 431, 501, 505.

    Cost: 4.5 us for a browser's GET of nine fields.
    """
    match = REQUEST_HEAD.fullmatch(head)
    authority: bytes | None = None
    if match is not None:
        method, target, path, query, minor, block = match.groups()
        lines = block.splitlines(True)
    else:
        first, lines = careful_lines(head[skip_empty_lines(head) :], DownstreamError)
        method, target, minor = read_request_line(first)
    if method in _REFUSED:
        raise DownstreamError(405, f"{show(method)} is not served")
    if len(target) > limits.target_bytes:
        raise DownstreamError(414, f"expected a request target of at most {limits.target_bytes} bytes")
    if len(lines) > limits.count:
        raise DownstreamError(431, f"expected at most {limits.count} header fields, got {len(lines)}")
    if match is None:
        target, path, query, authority = read_target(method, target)
    fields, own = _split(lines, _REQUEST_OWN)
    http11 = minor == b"1"
    length = _framing(own, http11, DownstreamError)
    host = read_host(own.get(b"host"), http11, authority)
    keep_alive = http11
    if b"connection" in own:
        fields, keep_alive, is_valid = _apply_connection(own[b"connection"], fields, http11)
        if not is_valid:
            raise DownstreamError(400, f"expected tokens in Connection, got {show(own[b'connection'])}")
    request = Request(
        method, target, path, query or b"", query is not None, http11, host, fields, length or 0, keep_alive
    )
    request.cookie = own.get(b"cookie")
    if b"expect" in own:
        # RFC 9110 section 10.1.1: to be ignored in HTTP/1.0, and without a body there is nothing to wait for.
        request.expect_continue = _expects_continue(own[b"expect"]) and http11 and request.length != 0
    if b"te" in own:
        request.te_trailers = b"trailers" in _members(own[b"te"])
    if method == b"OPTIONS":
        _take_max_forwards(request)
    elif b"upgrade" in own and method == b"GET" and http11 and not length:
        keys = [value for name, _, value in fields if name == b"sec-websocket-key"]
        request.websocket_key = asked_key(own[b"upgrade"], _members(own.get(b"connection", b"")), keys)
    return request


def _split(lines: list[bytes], own_names: frozenset[bytes]) -> tuple[list[Field], dict[bytes, bytes]]:
    """Tell the fields that go on from those that concern this connection.

    The values of equal names in the second part are joined by a comma (RFC 9110 section 5.3). A comma stands in no
    valid Host or Content-Length and in no Transfer-Encoding that we take, so a repeated one is refused.
    """
    fields: list[Field] = []
    own: dict[bytes, bytes] = {}
    for line in lines:
        at = line.index(b": ")
        name = line[:at].lower()
        value = line[at + 2 : -2]
        if name not in own_names:
            fields.append((name, line, value))
        elif name not in own:
            own[name] = value
        else:
            own[name] += (b"; " if name == b"cookie" else b",") + value
    return fields, own


def _framing(own: dict[bytes, bytes], http11: bool, fault: Fault) -> int | None:
    """The body's length or `CHUNKED`; None where the head says nothing. RFC 9112 section 6.3, contract item 3."""
    length = own.get(b"content-length")
    coding = own.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise fault(400, "expected Content-Length or Transfer-Encoding, got both")
        if not http11:
            raise fault(400, "Transfer-Encoding is not part of HTTP/1.0")
        if not coding:
            raise fault(400, "expected a transfer coding, got none")
        if coding.lower() != b"chunked":
            raise fault(501, f"expected chunked as the only transfer coding, got {show(coding)}")
        return CHUNKED
    if length is None:
        return None
    if not CONTENT_LENGTH.fullmatch(length) or (number := int(length)) > _MAX_LENGTH:
        raise fault(400, f"expected one Content-Length of at most {_MAX_LENGTH}, got {show(length)}")
    return number


def _members(value: bytes) -> set[bytes]:
    """The members of a list in lower case; empty ones are legal (RFC 9110 section 5.6.1) and count as one."""
    return {member.strip(b" \t") for member in value.lower().split(b",")}


def _apply_connection(value: bytes, fields: list[Field], http11: bool) -> tuple[list[Field], bool, bool]:
    """Do what Connection says; RFC 9110 section 7.6.1, RFC 9112 section 9.3, contract item 8.

    Returns:
        The fields that it does not name, whether the connection stays open, and whether all options are tokens.
        Close beats keep-alive, which counts for HTTP/1.0 only.
    """
    if value in _KEEP_ALIVE:
        return fields, True, True
    options = _members(value)
    stays_open = b"close" not in options and (http11 or b"keep-alive" in options)
    fields = [line for line in fields if line[0] not in options or line[0] in _KEPT]
    return fields, stays_open, all(not option or TOKEN.fullmatch(option) for option in options)


def _expects_continue(value: bytes) -> bool:
    members = _members(value)
    if members - {b"", b"100-continue"}:
        raise DownstreamError(417, f"expected 100-continue, got {show(value)}")
    return b"100-continue" in members


def _take_max_forwards(request: Request) -> None:
    """Contract item 6: this proxy counts, so the field does not go on as it came."""
    values = [value for name, _, value in request.fields if name == b"max-forwards"]
    if values:
        value = b",".join(values)
        if not MAX_FORWARDS.fullmatch(value):
            raise DownstreamError(400, f"expected one number in Max-Forwards, got {show(value)}")
        request.max_forwards = int(value)
        request.fields = [line for line in request.fields if line[0] != b"max-forwards"]


def parse_response(head: bytes, method: bytes, limits: HeadLimits) -> Response:
    """Read the head of a response, interim ones included.

    Args:
        head: What `response_head_end` delimited.
        method: Of the request that it answers.
        limits: Its count; the size of the block was held against its limit before.

    Raises:
        UpstreamError: ``protocol``.

    Cost: 3 us for five fields.
    """
    match = RESPONSE_HEAD.fullmatch(head)
    if match is not None:
        minor, code, reason, block = match.groups()
        lines = block.splitlines(True)
    else:
        first, lines = careful_lines(head, response_fault)
        minor, code, reason = read_status_line(first)
    if len(lines) > limits.count:
        raise response_fault(502, f"expected at most {limits.count} header fields, got {len(lines)}")
    fields, own = _split(lines, _HOP_BY_HOP)
    http11 = minor == b"1"
    status = int(code)
    length, content_length = _answer_length(status, method, _framing(own, http11, response_fault))
    keep_alive = http11
    if b"connection" in own:
        # A faulty option leaves the answer itself in no doubt, only what comes behind it.
        fields, keep_alive, is_valid = _apply_connection(own[b"connection"], fields, http11)
        keep_alive = keep_alive and is_valid
    keep_alive = keep_alive and length != UNTIL_CLOSE
    response = Response(status, reason or b"", http11, fields, length, content_length, keep_alive)
    if status == 101 and http11 and b"upgrade" in _members(own.get(b"connection", b"")):
        response.upgrade = own.get(b"upgrade", b"").lower()
    return response


def _answer_length(status: int, method: bytes, framing: int | None) -> tuple[int, int | None]:
    """How long the body is and what Content-Length says to the client. RFC 9112 section 6.3, RFC 9110 section 8.6."""
    if status < 200 or status == 204:
        return 0, None
    content_length = None if framing == CHUNKED else framing
    if status == 304 or method == b"HEAD":
        return 0, content_length
    return UNTIL_CLOSE if framing is None else framing, content_length
