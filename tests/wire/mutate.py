"""A search for bytes that the proxy reads differently: known cases, changed a little, again and again."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence

from tests.wire.attack import Attack
from tests.wire.case import Case, Write
from tests.wire.permute import permutations
from tests.wire.reply import Reply
from tests.wire.strict import ClientRequestReader, Message

LARGEST = 16_384  # bytes of a seed: larger ones test limits, which the cases do
SEGMENTS = 6
REDUCTIONS = 80  # attempts to make a finding shorter
TOKENS = (
    b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b"\0", b" ", b"\t", b"\x0b", b"\x0c", b"\x85", b"\xa0", b"\x7f",
    b"\xff", b":", b";", b",", b"_", b"-", b"+", b"0", b"1", b"5", b"f", b"0x", b"00000000", b"chunked", b"identity",
    b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
    b"Connection: Host\r\n", b"Host: t\r\n", b"Expect: 100-continue\r\n", b"Upgrade: websocket\r\n",
    b"TE: trailers\r\n", b"0\r\n\r\n", b"5\r\nhello\r\n", b";a=b", b' ; a = "b"', b"HTTP/1.0", b"HTTP/1.1", b"HEAD ",
    b"GET /b HTTP/1.1\r\nHost: t\r\n\r\n", b"http://t", b"*", b"?", b"#", b"//", b"..", b"%2f", b"X: ",
    b"X-Cohort-Arm: canary\r\n",
)  # fmt: skip
BASIC = (
    b"GET /a HTTP/1.1\r\nHost: t\r\n\r\nGET /b?x HTTP/1.1\r\nHost: t\r\nX-A: 1\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\nHost: t\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX-T: 1\r\n\r\n"
    b"PUT /b HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\nabcGET /c HTTP/1.0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\nOPTIONS /a HTTP/1.1\r\nHost: t\r\nMax-Forwards: 0\r\n\r\n"
    b"DELETE /a HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET http://t/a HTTP/1.1\r\nHost: t\r\nConnection: keep-alive, X-A\r\nX-A: 1\r\nCookie: a=b\r\n\r\n"
    b"HEAD /b HTTP/1.1\r\nHost: t\r\n\r\n",
)
REQUESTS = (
    b"GET /a HTTP/1.1\r\nHost: t\r\n\r\n", b"HEAD /a HTTP/1.1\r\nHost: t\r\n\r\n",
    b"GET /a HTTP/1.0\r\nHost: t\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello",
    b"GET /a HTTP/1.1\r\nHost: t\r\nTE: trailers\r\nConnection: TE\r\n\r\n",
)  # fmt: skip
BASIC_ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX-T: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\nhello", b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\nno",
    b"HTTP/1.1 204 No Content\r\n\r\n", b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\nContent-Length: 9\r\n\r\n',
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nraw",
)  # fmt: skip
Given = Attack | Reply
_NUMBER = re.compile(rb"(?im)(?<=content-length: )\d{1,15}|^[0-9a-f]{1,8}(?=(?:;[^\r\n]*)?\r?$)")


def seeds(cases: Sequence[Case]) -> list[bytes]:
    """What the search starts from: plain requests, what cases send to a service that just echoes, permutations."""
    found = list(BASIC)
    for case in cases:
        if case.up is None and case.port == "data" and case.profile == "base" and case.phase == "1":
            writes = [
                step for step in case.send if isinstance(step, Write) and step.times == 1 and "<<" not in step.text
            ]
            data = b"".join(step.data for step in writes)
            if data and len(data) <= LARGEST and len(writes) == len(case.send):
                found.append(data)
    return found + [given.data for given in permutations()][::17]


def answers(cases: Sequence[Case]) -> list[bytes]:
    """The same for services: what scripts of cases write."""
    found = list(BASIC_ANSWERS)
    for case in cases:
        writes = [step for step in case.up or () if isinstance(step, Write)]
        if writes and "<<" not in writes[0].text and sum(step.times * len(step.text) for step in writes) <= LARGEST:
            found.append(b"".join(step.data for step in writes))
    return found


def attacks(rng: random.Random, starts: Sequence[bytes]) -> Iterator[Attack]:
    """Without end: a start, one to four changes, and another segmentation."""
    while True:
        data = _changed(rng, starts)
        if data:
            yield Attack(segmented(rng, data))


def replies(rng: random.Random, starts: Sequence[bytes]) -> Iterator[Reply]:
    """The same for what a service answers; it seldom leaves the connection open, because that takes a time-out."""
    while True:
        data = _changed(rng, starts)
        if data:
            end = rng.choice(("close", "close", "rst")) if rng.random() < 0.97 else ""
            yield Reply(rng.choice(REQUESTS), segmented(rng, data), end)


def _changed(rng: random.Random, starts: Sequence[bytes]) -> bytes:
    data = rng.choice(starts)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        data = rng.choice(CHANGES)(rng, data, starts)
    return data[: 2 * LARGEST]


def segmented(rng: random.Random, data: bytes) -> tuple[bytes, ...]:
    """Cut in up to `SEGMENTS` pieces, mostly where lines end."""
    if rng.random() < 0.5:
        return (data,)
    ends = [match.end() for match in re.finditer(rb"[\r\n]", data)] or [len(data)]
    cuts = {
        rng.choice(ends) if rng.random() < 0.7 else rng.randrange(len(data)) for _ in range(rng.randrange(1, SEGMENTS))
    }
    places = [0, *sorted(cuts - {0, len(data)}), len(data)]
    return tuple(data[start:end] for start, end in itertools.pairwise(places))


def _span(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 1, 1, 2, 4, 16, 64)))


def delete(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """Without some bytes."""
    start, end = _span(rng, data)
    return data[:start] + data[end:]


def insert(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """With something that means something, at a line's end more often than not."""
    ends = [match.end() for match in re.finditer(rb"\r\n|:", data)]
    at = rng.choice(ends) if ends and rng.random() < 0.5 else rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(TOKENS) + data[at:]


def replace_byte(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """With another byte."""
    at = rng.randrange(len(data) + 1)
    return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def duplicate(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """With a line twice, or any bytes."""
    lines = data.splitlines(True)
    if lines and rng.random() < 0.6:
        at = rng.randrange(len(lines))
        return b"".join([*lines[: at + 1], *lines[at:]])
    start, end = _span(rng, data)
    return data[:end] + data[start:]


def swap(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """With two lines in each other's place."""
    lines = data.splitlines(True)
    if len(lines) < 2:
        return data
    one, other = rng.sample(range(len(lines)), 2)
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def shift(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """With a length that is off by a little, or wildly."""
    numbers = list(_NUMBER.finditer(data))
    if not numbers:
        return data
    match = rng.choice(numbers)
    is_length = data[: match.start()].lower().endswith(b"content-length: ")
    value = int(match[0], 10 if is_length else 16) + rng.choice((-2, -1, 1, 2, 5, -5, 16, 1 << 16, 1 << 32, 1 << 64))
    return data[: match.start()] + (b"%d" if is_length else b"%x") % max(0, value) + data[match.end() :]


def rechunk(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    """With the first body framed in another way, which means the same."""
    reader = ClientRequestReader()
    reader.feed(data)
    for message in reader.messages:
        if message.complete and message.body:
            return data[: message.begin] + _reframed(rng, message) + data[message.end :]
    return data


def _reframed(rng: random.Random, message: Message) -> bytes:
    fields = [
        b"%b: %b\r\n" % field
        for field in message.fields
        if field[0].lower() not in (b"content-length", b"transfer-encoding")
    ]
    body = bytes(message.body)
    if rng.random() < 0.3:
        framed = (b"Content-Length: %d\r\n" % len(body), body)
    else:
        chunks, at = [], 0
        while at < len(body):
            size = rng.choice((1, 2, 3, 7, 16, len(body)))
            part = body[at : at + size]
            chunks.append(b"%x%b\r\n%b\r\n" % (len(part), rng.choice((b"", b"", b";a", b";a=b", b';a="b;c"')), part))
            at += size
        framed = (b"Transfer-Encoding: chunked\r\n", b"".join(chunks) + b"0\r\n\r\n")
    fields.insert(rng.randint(0, len(fields)), framed[0])
    return message.start_line + b"\r\n" + b"".join(fields) + b"\r\n" + framed[1]


def splice(rng: random.Random, data: bytes, starts: Sequence[bytes]) -> bytes:
    """With the end of another start."""
    other = rng.choice(starts)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


CHANGES: tuple[Callable[[random.Random, bytes, Sequence[bytes]], bytes], ...] = (
    delete, insert, insert, replace_byte, duplicate, swap, shift, shift, rechunk, splice,
)  # fmt: skip


async def reduced(given: Given, is_wrong: Callable[[Given], Awaitable[bool]]) -> Given:
    """A shorter attack that is still wrong: pieces are left out as long as that holds."""
    size = max(1, len(given.data) // 2)
    tries = 0
    while size and tries < REDUCTIONS:
        for start in range(0, len(given.data), size):
            tries += 1
            data = given.data
            shorter = given.with_data(data[:start] + data[start + size :])
            if shorter.data and tries <= REDUCTIONS and await is_wrong(shorter):
                given = shorter
                break
        else:
            size //= 2
    return given
