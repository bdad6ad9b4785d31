"""Bodies: one small reader for each framing, and the writing of chunks. RFC 9112 sections 6 and 7.

A reader takes bytes as they come, in pieces of any size, and gives the payload in them. A fault is made by the
``fault`` argument, since requests and responses blame different sides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from proxy.errors import InternalError, ProxyError
from proxy.grammar import CHUNK_LINE, CHUNK_LINE_BEGINNING, CHUNK_LINE_EXTENDED, STRAY
from proxy.head import plain_line, show
from proxy.http1 import CHUNKED, UNTIL_CLOSE, Field, HeadLimits

Fault = Callable[[str], ProxyError]
Payload = bytes | memoryview  # a view's memory is used again as soon as a call with it returns

LAST_CHUNK = b"0\r\n\r\n"
CHUNK_LINE_BYTES = 256  # with extensions; known ones are shorter than 40 bytes, and clients of browsers send none
EXTENSION_BYTES = 4096  # of one message: extensions cost us work and tell us nothing
DEFAULT_LIMITS = HeadLimits()
_MAX_CHUNK = 2**63 - 1

# What must not stand in trailers: framing, routing, authentication, request modifiers, response control and how to
# read the content. RFC 9110 section 6.5.1. Such a trailer is dropped, as a recipient may.
FORBIDDEN_TRAILERS = frozenset(
    (
        b"age", b"authorization", b"cache-control", b"connection", b"content-encoding", b"content-length",
        b"content-location", b"content-range", b"content-type", b"cookie", b"date", b"expect", b"expires",
        b"forwarded", b"host", b"http2-settings", b"if-match", b"if-modified-since", b"if-none-match", b"if-range",
        b"if-unmodified-since", b"keep-alive", b"location", b"max-forwards", b"pragma", b"proxy-authenticate",
        b"proxy-authorization", b"proxy-connection", b"range", b"retry-after", b"set-cookie", b"te", b"trailer",
        b"transfer-encoding", b"upgrade", b"vary", b"via", b"www-authenticate",
    )
)  # fmt: skip


class BodyReader(Protocol):
    """What every framing offers.

    Attributes:
        done: The body is complete.
        rest: Bytes behind the body once it is complete.
        trailers: Fields behind the last chunk, as far as they have come; empty for other framings.
    """

    done: bool
    rest: bytes
    trailers: list[Field]

    def feed(self, data: bytes) -> bytes:
        """The payload in the bytes that came next; never longer than they are. Raises what ``fault`` makes."""

    def eof(self) -> None:
        """The peer sends no more. Raises what ``fault`` makes if the body is incomplete."""


class LengthBody:
    """A body of a known length."""

    __slots__ = ("_fault", "_left", "done", "rest", "trailers")

    def __init__(self, length: int, fault: Fault) -> None:
        self._left = length
        self._fault = fault
        self.done = not length
        self.rest = b""
        self.trailers: list[Field] = []

    def __repr__(self) -> str:
        return f"<LengthBody {self._left} bytes left>"

    def feed(self, data: bytes) -> bytes:
        """As `BodyReader`. Cost: no copy unless the body ends within ``data``."""
        left = self._left
        if len(data) <= left:
            self._left = left = left - len(data)
            self.done = not left
            return data
        self._left = 0
        self.done = True
        self.rest += data[left:]
        return data[:left]

    def view(self, data: memoryview) -> memoryview:
        """As `feed`, for bytes that nobody keeps. Cost: no copy, but of bytes behind the body."""
        size = min(len(data), self._left)
        self._left -= size
        self.done = not self._left
        if size < len(data):
            self.rest += data[size:]
            return data[:size]
        return data

    def eof(self) -> None:
        """As `BodyReader`."""
        if not self.done:
            raise self._fault(f"closed with {self._left} bytes of the body missing")


# A body of which nothing is to come; for whoever has all of it already. Shared, so never to be fed.
COMPLETE: BodyReader = LengthBody(0, InternalError)


class CloseBody:
    """A body that ends with its connection; of responses only."""

    __slots__ = ("done", "rest", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self.trailers: list[Field] = []

    def __repr__(self) -> str:
        return f"<CloseBody done={self.done}>"

    def feed(self, data: bytes) -> bytes:
        """As `BodyReader`."""
        return data

    def eof(self) -> None:
        """As `BodyReader`: the end of the body."""
        self.done = True


# What a chunked body is to be continued with.
_SIZE, _DATA, _DATA_END, _TRAILERS, _NOTHING = range(5)


class ChunkedBody:
    """A body in chunks. Extensions are checked and dropped; trailers are kept if they may be trailers.

    Args:
        fault: Makes the error.
        limits: The block of trailers is bound as a header block is.
    """

    __slots__ = ("_extension_bytes", "_fault", "_left", "_limits", "_pending", "_state", "_trailer_bytes",
                 "_trailer_count", "done", "rest", "trailers")  # fmt: skip

    def __init__(self, fault: Fault, limits: HeadLimits) -> None:
        self._fault = fault
        self._limits = limits
        self._state = _SIZE
        self._left = 0  # bytes of the chunk
        self._pending = b""  # the beginning of a line
        self._extension_bytes = 0
        self._trailer_bytes = 0
        self._trailer_count = 0
        self.done = False
        self.rest = b""
        self.trailers: list[Field] = []

    def __repr__(self) -> str:
        state = ("size", "data", "end of data", "trailers", "nothing")[self._state]
        return f"<ChunkedBody expects {state}, {self._left} bytes left>"

    def feed(self, data: bytes) -> bytes:
        """As `BodyReader`. Cost: no copy within one chunk, else one of the payload; some 0.5 us a chunk."""
        if self._state == _DATA and len(data) < self._left:
            self._left -= len(data)
            return data
        seen = len(self._pending)
        if seen:
            data = self._pending + data
            self._pending = b""
        payload: list[bytes] = []
        at = 0
        while at < len(data):
            if self._state == _SIZE:
                at = self._chunks(data, at, payload)
            elif self._state == _DATA:
                end = min(at + self._left, len(data))
                payload.append(data[at:end])
                self._left -= end - at
                at = end
                if not self._left:
                    self._state = _DATA_END
            elif self._state == _DATA_END:
                at = self._end_of_data(data, at)
            elif self._state == _TRAILERS:
                at = self._trailer(data, at, max(at, seen - 1))
            else:
                self.rest += data[at:]
                break
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def eof(self) -> None:
        """As `BodyReader`."""
        if not self.done:
            raise self._fault("closed before the last chunk")

    def _chunks(self, data: bytes, at: int, payload: list[bytes]) -> int:
        """Take all chunks that lie within ``data``, then the line of the next one."""
        while (line := CHUNK_LINE.match(data, at)) is not None:
            start = line.end()
            size = int(line[1], 16)
            end = start + size
            if not size or data[end : end + 2] != b"\r\n":
                self._begin_chunk(size)
                return start
            payload.append(data[start:end])
            at = end + 2
        return self._extended_line(data, at) if at < len(data) else at

    def _begin_chunk(self, size: int) -> None:
        if size > _MAX_CHUNK:
            raise self._fault(f"expected a chunk of at most {_MAX_CHUNK} bytes, got {size}")
        self._left = size
        self._state = _DATA if size else _TRAILERS

    def _extended_line(self, data: bytes, at: int) -> int:
        """The line of a chunk that has extensions, is not complete yet, or is no such line."""
        end = data.find(b"\r\n", at, at + CHUNK_LINE_BYTES)
        if end < 0:
            beginning = data[at : at + CHUNK_LINE_BYTES]
            if len(beginning) == CHUNK_LINE_BYTES or not CHUNK_LINE_BEGINNING.fullmatch(beginning):
                raise self._fault(f"expected a chunk size in a line of {CHUNK_LINE_BYTES} bytes, got {show(beginning)}")
            self._pending = beginning
            return len(data)
        line = CHUNK_LINE_EXTENDED.fullmatch(data, at, end)
        if line is None:
            raise self._fault(f"expected a chunk size and extensions, got {show(data[at:end])}")
        self._extension_bytes += len(line[2])
        if self._extension_bytes > EXTENSION_BYTES:
            raise self._fault(f"expected at most {EXTENSION_BYTES} bytes of chunk extensions")
        self._begin_chunk(int(line[1], 16))
        return end + 2

    def _end_of_data(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            self._state = _SIZE
            return at + 2
        if data[at:] != b"\r":
            raise self._fault(f"expected CRLF behind a chunk, got {show(data[at : at + 2])}")
        self._pending = b"\r"
        return len(data)

    def _trailer(self, data: bytes, at: int, unseen: int) -> int:
        """One line of the trailers. ``unseen`` is where a CR or LF may first stand that no earlier call has seen."""
        end = data.find(b"\r\n", unseen)
        used = self._trailer_bytes + (end + 2 if end >= 0 else len(data)) - at
        if used > self._limits.block_bytes:
            raise self._fault(f"expected trailers of at most {self._limits.block_bytes} bytes")
        if end < 0:
            if STRAY.search(data, unseen):
                raise self._fault("expected trailers that end in CRLF, without control bytes")
            self._pending = data[at:]
            return len(data)
        self._trailer_bytes = used
        if end == at:
            self._state = _NOTHING
            self.done = True
        else:
            self._keep_trailer(data[at:end])
        return end + 2

    def _keep_trailer(self, text: bytes) -> None:
        self._trailer_count += 1
        if self._trailer_count > self._limits.count:
            raise self._fault(f"expected at most {self._limits.count} trailers")
        line = plain_line(text, lambda status, message: self._fault(message))
        name, _, value = line.partition(b": ")
        name = name.lower()
        if name not in FORBIDDEN_TRAILERS:
            self.trailers.append((name, line, value[:-2]))


def body_reader(length: int, fault: Fault, limits: HeadLimits = DEFAULT_LIMITS) -> BodyReader:
    """The reader for a body.

    Args:
        length: In bytes, or `CHUNKED` or `UNTIL_CLOSE`, as `proxy.http1.Request` and `Response` have it.
        fault: Makes the error from a message.
        limits: Of trailers.
    """
    if length == CHUNKED:
        return ChunkedBody(fault, limits)
    return CloseBody() if length == UNTIL_CLOSE else LengthBody(length, fault)


def chunk(data: Payload) -> bytes:
    """The bytes as one chunk; nothing for no bytes, because an empty chunk would end the body."""
    return b"".join((b"%x\r\n" % len(data), data, b"\r\n")) if data else b""
