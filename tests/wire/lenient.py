"""Two services that read requests carelessly, each in ways that real ones have been caught at.

They are the targets of request smuggling: what a proxy writes must mean to them what it means to a strict reader.
`Folding` stands for code behind a CGI-like gateway written with Python's string methods, `Greedy` for servers that look
for ``chunked`` wherever they can and take any line end for one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.wire.strict import Message

Head = tuple[
    bytes, bytes, list[tuple[bytes, bytes]], int
]  # method, target, fields by folded name, where the body begins
Body = tuple[bytes, int]  # payload, where the next message begins


@dataclass(frozen=True)
class Seen:
    """One request as a careless service reads it."""

    method: bytes
    target: bytes
    body: bytes

    @classmethod
    def of(cls, message: Message) -> Seen:
        """The same, as the strict reader has it."""
        return cls(message.method, message.target, bytes(message.body))


class Incomplete(Exception):
    """More bytes are needed."""


def folding(stream: bytes, at: int) -> tuple[Seen, int]:
    """LF ends a line, blanks of all kinds are stripped, ``_`` is ``-``, numbers are what ``int()`` takes, the first
    Content-Length wins over any Transfer-Encoding.

    Raises:
        Incomplete: The stream ends before the message does.
    """
    method, target, fields, at = _head(stream, at, b"\n", b"\r")
    lengths = [value for name, value in fields if name == b"content-length"]
    if lengths:
        size = _python_int(lengths[0], 10)
        if len(stream) < at + size:
            raise Incomplete
        return Seen(method, target, stream[at : at + size]), at + size
    if any(b"chunked" in value.lower() for name, value in fields if name == b"transfer-encoding"):
        body, at = _chunks(stream, at, b"\n", lambda line: _python_int(line.partition(b";")[0], 16))
        return Seen(method, target, body), at
    return Seen(method, target, b""), at


def greedy(stream: bytes, at: int) -> tuple[Seen, int]:
    """CR or LF ends a line, anything that mentions chunked is chunked whatever else is said, the last Content-Length
    counts, a number ends at the first byte that does not fit.

    Raises:
        Incomplete: The stream ends before the message does.
    """
    method, target, fields, at = _head(stream, at, b"\r", b"\n")
    if any(b"chunked" in value.lower() for name, value in fields if name == b"transfer-encoding"):
        body, at = _chunks(stream, at, b"\r", lambda line: _prefix_int(line, rb"[ \t]*(?:0x)?([0-9a-fA-F]*)", 16))
        return Seen(method, target, body), at
    lengths = [value for name, value in fields if name == b"content-length"]
    size = _prefix_int(lengths[-1], rb"\D*(\d*)", 10) if lengths else 0
    if len(stream) < at + size:
        raise Incomplete
    return Seen(method, target, stream[at : at + size]), at + size


PERSONALITIES: dict[str, Callable[[bytes, int], tuple[Seen, int]]] = {"folding": folding, "greedy": greedy}


def read_all(personality: Callable[[bytes, int], tuple[Seen, int]], stream: bytes) -> list[Seen]:
    """Every request that a careless service finds complete in a stream."""
    found, at = [], 0
    try:
        while at < len(stream):
            seen, at = personality(stream, at)
            found.append(seen)
    except Incomplete:
        pass
    return found


def _head(stream: bytes, at: int, ending: bytes, partner: bytes) -> Head:
    """Lines up to an empty one. A byte of ``partner`` beside ``ending`` belongs to the line's end."""
    lines: list[bytes] = []
    while True:
        line, at = _line(stream, at, ending, partner)
        if line:
            lines.append(line)
        elif lines:
            break
    words = lines[0].split()
    fields: list[tuple[bytes, bytes]] = []
    for line in lines[1:]:
        if line[:1] in b" \t" and fields:
            name, value = fields[-1]
            fields[-1] = (name, value + b" " + _strip(line))
        else:
            name, _, value = line.partition(b":")
            fields.append((_strip(name).lower().replace(b"_", b"-"), _strip(value)))
    return words[0] if words else b"", words[1] if len(words) > 1 else b"", fields, at


def _line(stream: bytes, at: int, ending: bytes, partner: bytes) -> tuple[bytes, int]:
    """The next line and where it ends; with LF as ending a CR before it, with CR an LF behind it belongs to the end."""
    if ending == b"\n":
        end = stream.find(b"\n", at)
        if end < 0:
            raise Incomplete
        return stream[at:end].removesuffix(partner), end + 1
    found = re.compile(rb"\r\n|\r|\n").search(stream, at)
    if not found:
        raise Incomplete
    return stream[at : found.start()], found.end()


def _chunks(stream: bytes, at: int, ending: bytes, size_of: Callable[[bytes], int]) -> Body:
    partner = b"\r" if ending == b"\n" else b"\n"
    body = bytearray()
    while True:
        line, at = _line(stream, at, ending, partner)
        size = size_of(line)
        if not size:
            break
        if len(stream) < at + size:
            raise Incomplete
        body += stream[at : at + size]
        rest, at = _line(stream, at + size, ending, partner)
        if rest:
            body += rest  # what runs over its size is taken along
    while _line(stream, at, ending, partner)[0]:
        at = _line(stream, at, ending, partner)[1]
    return bytes(body), _line(stream, at, ending, partner)[1]


def _strip(text: bytes) -> bytes:
    """As `str.strip` does on latin-1: NBSP, NEL and vertical tabs go too."""
    return text.decode("latin-1").strip().encode("latin-1")


def _python_int(text: bytes, base: int) -> int:
    try:
        return max(0, int(text.decode("latin-1").strip(), base))
    except ValueError:
        return 0


def _prefix_int(text: bytes, pattern: bytes, base: int) -> int:
    match = re.match(pattern, text)
    return int(match[1], base) if match and match[1] else 0
