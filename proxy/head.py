"""Where a message's head ends, faults in heads that are not complete yet, and the exact fault of those that are.

Requests and responses share this; ``fault`` makes the error that blames the right side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from proxy.errors import DownstreamError, ProxyError, UpstreamError
from proxy.grammar import FIELD_VALUE, METHOD_BEGINNING, METHOD_BYTES, REQUEST_LINE, STATUS_LINE, STRAY, TOKEN, VERSION

# Lower-case name; the line to send on, b"Name: value\r\n" with the name as sent and one space; the value without OWS.
Field = tuple[bytes, bytes, bytes]
Fault = Callable[[int, str], ProxyError]
ReadLine = Callable[[bytes], tuple[bytes, bytes, bytes]]

MAX_EMPTY_LINES = 4  # before a request; RFC 9112 section 2.2 asks for one, for clients that end a POST with a CRLF
_FOLDS = (b" ", b"\t")
_LINE_MARGIN: Final = METHOD_BYTES + len("  HTTP/1.1\r\n")  # of a request line, beside its target
_VERSION_START = b"HTTP/1."
_SHOWN_BYTES = 40  # of a peer's bytes in a message


@dataclass(frozen=True, slots=True)
class HeadLimits:
    """Bounds on a head; contract item 17. A block of trailers has the same.

    Attributes:
        block_bytes: From the first line to the last empty line, both included.
        count: Field lines.
        target_bytes: The request target as sent.
    """

    block_bytes: int = 32_768
    count: int = 100
    target_bytes: int = 16_384


def response_fault(status: int, message: str) -> UpstreamError:
    """A fault of the service; the client's status is 502 whatever a client would get for the same fault."""
    return UpstreamError("protocol", message)


def show(data: bytes) -> str:
    """The beginning of a peer's bytes for a message, escaped."""
    return repr(data[:_SHOWN_BYTES])[1:] + ("..." if len(data) > _SHOWN_BYTES else "")


def request_head_end(buf: bytes, limits: HeadLimits, scanned: int = 0) -> int:
    """Find the end of a request's head.

    Args:
        buf: All bytes of the message so far.
        limits: Bounds of the head.
        scanned: How long ``buf`` was when an earlier call answered 0: what was judged then is not judged again, so that
            a head that comes byte by byte costs linear time.

    Returns:
        Bytes up to and including the empty line, with ignored empty lines before the head counted; 0 if incomplete.

    Raises:
        DownstreamError: 400, 414, 431, 501 or 505, as soon as the fault can be seen. A complete head is only held
            against its size; `proxy.http1.parse_request` judges the rest.

    Cost: one search through the bytes that are new, where the head is complete.
    """
    start = skip_empty_lines(buf) if buf.startswith(b"\r\n") else 0
    end = buf.find(b"\r\n\r\n", max(start, scanned - 3) if scanned else start)
    size = (end + 4 if end >= 0 else len(buf)) - start
    if end < 0:
        if not METHOD_BEGINNING.match(buf, start) and buf[start:] not in (b"", b"\r"):
            read_request_line(buf[start : start + 2 * METHOD_BYTES])
        _check_beginning(buf, start, scanned, read_request_line, DownstreamError)
    line_bytes = limits.target_bytes + _LINE_MARGIN
    if size > limits.block_bytes or (end < 0 and size > line_bytes):
        if buf.find(b"\r\n", start, start + line_bytes) < 0:
            raise DownstreamError(414, f"expected a request target of at most {limits.target_bytes} bytes")
        if size > limits.block_bytes:
            raise DownstreamError(431, f"expected a header block of at most {limits.block_bytes} bytes")
    return end + 4 if end >= 0 else 0


def response_head_end(buf: bytes, limits: HeadLimits, scanned: int = 0) -> int:
    """The same for a response, before which nothing may stand, not even an empty line.

    Raises:
        UpstreamError: ``protocol``.
    """
    end = buf.find(b"\r\n\r\n", max(0, scanned - 3))
    if end < 0:
        if scanned < len(_VERSION_START) and not _VERSION_START.startswith(buf[: len(_VERSION_START)]):
            raise response_fault(502, f"expected a response of HTTP/1.1, got {show(buf)}")
        _check_beginning(buf, 0, scanned, read_status_line, response_fault)
    if (end + 4 if end >= 0 else len(buf)) > limits.block_bytes:
        raise response_fault(502, f"expected a header block of at most {limits.block_bytes} bytes")
    return end + 4 if end >= 0 else 0


def skip_empty_lines(buf: bytes) -> int:
    """How many bytes of empty lines stand before a request.

    Raises:
        DownstreamError: 400 for more than `MAX_EMPTY_LINES`.
    """
    start = 0
    while buf.startswith(b"\r\n", start):
        start += 2
        if start > 2 * MAX_EMPTY_LINES:
            raise DownstreamError(400, f"expected a request, got more than {MAX_EMPTY_LINES} empty lines")
    return start


def _check_beginning(buf: bytes, start: int, scanned: int, read_start_line: ReadLine, fault: Fault) -> None:
    """Look for faults in the new bytes of an incomplete head, and in the lines that they complete."""
    new = max(start, scanned - 1)  # the last byte seen may have been a CR
    _check_stray(buf, new, fault)
    last = buf.rfind(b"\r\n", max(start, scanned - 2))
    if last >= 0 and buf[last + 2 : last + 3] in _FOLDS:
        raise fault(400, f"expected a field name, got a folded line {show(buf[last + 2 :])}")
    end = buf.rfind(b"\r\n", new)
    if end < 0:
        return
    before = buf.rfind(b"\r\n", start, scanned) if scanned > start else -1
    lines = buf[before + 2 if before >= 0 else start : end].split(b"\r\n")
    if before < 0:
        read_start_line(lines.pop(0))
    for line in lines:
        plain_line(line, fault)


def _check_stray(data: bytes, start: int, fault: Fault) -> None:
    stray = STRAY.search(data, start)
    if stray is not None:
        name = {13: "a CR without LF", 10: "an LF without CR"}.get(data[stray.start()], "a control byte")
        raise fault(400, f"expected lines that end in CRLF, without controls; got {name} at byte {stray.start()}")


def careful_lines(head: bytes, fault: Fault) -> tuple[bytes, list[bytes]]:
    """Take a complete head apart that is not in the plain spelling, or find out what is wrong with it.

    Args:
        head: From the first line to the last empty line, as `request_head_end` finds it, without empty lines before.
        fault: Makes the error.

    Returns:
        The first line without its CRLF, and the field lines in the plain spelling.

    Raises:
        What ``fault`` makes, with 400.

    Cost: linear, some 1 us a line.
    """
    first, *lines = head[:-4].split(b"\r\n")
    return first, [plain_line(line, fault) for line in lines]


def plain_line(line: bytes, fault: Fault) -> bytes:
    """One field line, given without CRLF, as it is sent on: one space after the colon, none at the end, CRLF."""
    name, colon, value = line.partition(b":")
    if colon and TOKEN.fullmatch(name) and FIELD_VALUE.fullmatch(value):
        return b"%b: %b\r\n" % (name, value.strip(b" \t"))
    if line[:1] in (b" ", b"\t"):
        raise fault(400, f"expected a field name, got a folded line {show(line)}")
    if not colon:
        raise fault(400, f"expected a colon in the field line {show(line)}")
    if not TOKEN.fullmatch(name):
        raise fault(400, f"expected a token as field name, got {show(name)}")
    raise fault(400, f"expected no CR, LF or other control in the value of {show(name)}")


def read_request_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Take a request line apart, given without CRLF.

    Returns:
        Method, target in any form, and the minor version as one digit.

    Raises:
        DownstreamError: 501 for a method that is too long, 505 for another version, 400 for all else.
    """
    match = REQUEST_LINE.fullmatch(line)
    if match is not None:
        return match.groups()  # type: ignore[return-value]  # three groups that always take part
    method, *rest = line.split(b" ")
    if not TOKEN.fullmatch(method):
        raise DownstreamError(400, f"expected a method, got {show(method)}")
    if len(method) > METHOD_BYTES:
        raise DownstreamError(501, f"expected a method of at most {METHOD_BYTES} bytes, got {show(method)}")
    if len(rest) != 2:
        raise DownstreamError(400, f"expected method, target and version with one space between, got {show(line)}")
    if VERSION.fullmatch(rest[1]) and rest[1] not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise DownstreamError(505, f"expected HTTP/1.1 or HTTP/1.0, got {show(rest[1])}")
    raise DownstreamError(400, f"expected a target of visible ASCII, then HTTP/1.1, got {show(line)}")


def read_status_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Take a status line apart, given without CRLF.

    Returns:
        The minor version as one digit, the code as three and the reason, which may be empty.

    Raises:
        UpstreamError: ``protocol``.
    """
    match = STATUS_LINE.fullmatch(line)
    if match is None:
        raise response_fault(502, f"expected HTTP/1.1, a code from 100 to 599 and a reason, got {show(line)}")
    minor, code, reason = match.groups()
    return minor, code, reason or b""
