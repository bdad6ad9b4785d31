"""Fuzz against llhttp and h11: no message that we accept is read differently by either of them.

``COHORT_FUZZ_EXAMPLES`` sets how many mutated messages of each kind are tried, ``COHORT_FUZZ_SEED`` the draw.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from dataclasses import fields

import pytest

from proxy.body import FORBIDDEN_TRAILERS
from proxy.errors import ProxyError
from proxy.http1 import HeadLimits, Request, Response, parse_request, parse_response, request_head_end
from proxy.memo import HeadMemo, ResponseMemo
from tests.support.messages import (
    CHUNKED,
    GOOD_CHUNKED_BODIES,
    GOOD_REQUESTS,
    GOOD_RESPONSES,
    HOSTILE_CHUNKED_BODIES,
    HOSTILE_REQUESTS,
    HOSTILE_RESPONSES,
    request,
)
from tests.support.oracles import Fields, Reading, h11_reading, llhttp, ours

EXAMPLES = int(os.environ.get("COHORT_FUZZ_EXAMPLES", "20000"))
SEED = int(os.environ.get("COHORT_FUZZ_SEED", "1"))
LIMITS = HeadLimits()

# What a mutation puts somewhere: bytes that parsers disagree about, and whole lines that change the framing.
FRAGMENTS = [
    *(bytes((code,)) for code in b"\x00\x01\t\n\x0b\x0c\r\x1b \"#%+,-./0159:;<=>?@AF[\\]_`af{|}~\x7f\x80\x85\xa0\xff"),
    b"\r\n", b"\r\n\r\n", b"\n\n", b"\r\r\n", b"\n\r", b"\r\n ", b"\r\n\t", b"  ", b" \t", b"0x", b"00", b"//", b"%00",
    b"\xc2\xa0", b"\xef\xbc\x95", b"chunked", b"identity", b", ", b",,", b"HTTP/1.1", b"HTTP/1.0", b"0\r\n\r\n",
    b";a=b", b"Content-Length: 5\r\n", b"Content-Length: 0\r\n", b"content-length:05\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding:chunked \r\n", b"Transfer-Encoding: identity\r\n",
    b"Transfer_Encoding: chunked\r\n",
    b"Host: evil\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Connection: host,x\r\n",
    b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"TE: trailers\r\n", b"Cookie: a=1\r\n",
    b"GET /SMUGGLED HTTP/1.1\r\nHost: t\r\n\r\n", b"5\r\nhello\r\n", b"HTTP/1.1 200 OK\r\n", b"X: a \r\n", b"X:\r\n",
]  # fmt: skip


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    """A seed with one to four changes."""
    message = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        at = rng.randrange(len(message) + 1)
        end = min(len(message), at + rng.choice((1, 1, 1, 2, 4, 16)))
        kind = rng.randrange(8)
        if kind < 3:
            message = message[:at] + rng.choice(FRAGMENTS) + message[at:]
        elif kind == 3:
            message = message[:at] + message[end:]
        elif kind == 4:
            message = message[:at] + rng.choice(FRAGMENTS) + message[end:]
        elif kind == 5:
            message = message[:end] + message[at:]
        elif kind == 6:
            other = rng.choice(seeds)
            message = message[:at] + other[rng.randrange(len(other) + 1) :]
        else:
            lines = message.split(b"\r\n")
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
            message = b"\r\n".join(lines)
    return message


def values(fields: Fields, name: bytes) -> list[bytes]:
    return [value for own, value in fields if own == name]


def members(fields: Fields, name: bytes) -> set[bytes]:
    return {member.strip(b" \t") for value in values(fields, name) for member in value.lower().split(b",")}


# What ends with the connection, as RFC 9110 section 7.6.1 has it, and what we tell in another form than a field.
ENDING_HERE = {
    b"connection", b"content-length", b"content_length", b"http2-settings", b"http2_settings", b"keep-alive",
    b"keep_alive", b"proxy-connection", b"proxy_connection", b"te", b"trailer", b"transfer-encoding",
    b"transfer_encoding", b"upgrade",
}  # fmt: skip


def differences(mine: Reading, message: Request | Response, other: Reading) -> list[str]:
    """What two readings of one stream disagree about, beside what is meant to differ:

    - an absolute target is cut to origin form, and its authority may spell Host in another way;
    - fields end here (`ENDING_HERE`, Host, Cookie, Expect, what Connection names, Max-Forwards of OPTIONS);
    - forbidden trailers are dropped;
    - "keep-alive" may be less than another parser thinks, as we close after a body without length and never for less.
    """
    found = []
    if mine.first != other.first and not is_cut(message, other.first):
        found.append(f"first {mine.first} != {other.first}")
    kept = {name for name, _ in mine.fields}
    if mine.fields != [(name, value) for name, value in other.fields if name in kept]:
        found.append("fields")
    gone = {name for name, _ in other.fields} - kept - ENDING_HERE - members(other.fields, b"connection")
    if isinstance(message, Request):
        gone -= {b"host", b"expect", b"cookie"} | ({b"max-forwards"} if message.method == b"OPTIONS" else set())
        hosts = values(other.fields, b"host")
        if hosts != ([message.host] if hosts or message.http11 else []):
            found.append(f"host {message.host!r} != {hosts}")
        cookies = values(other.fields, b"cookie")
        if message.cookie != (b"; ".join(cookies) if cookies else None):
            found.append("cookie")
    if gone:
        found.append(f"fields lost: {gone}")
    if (mine.body, mine.end) != (other.body, other.end):
        found.append(f"body {mine.body!r} to {mine.end} != {other.body!r} to {other.end}")
    if mine.end is not None and mine.trailers != [
        (name, value) for name, value in other.trailers if name not in FORBIDDEN_TRAILERS
    ]:
        found.append("trailers")
    if mine.keep_alive and other.keep_alive is False:
        found.append("keep-alive")
    return found


def is_cut(message: Request | Response, first: tuple[bytes, ...]) -> bool:
    """Whether the other parser has the absolute form of our target."""
    if not isinstance(message, Request) or first[0] != message.method or b"://" not in first[1]:
        return False
    scheme, _, rest = first[1].partition(b"://")
    at = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
    cut = rest[at:] if rest[at : at + 1] == b"/" else b"/" + rest[at:]
    return scheme.lower() in (b"http", b"https") and message.target in (cut, b"*" if not rest[at:] else cut)


# Where an oracle is wrong, each with its reason; nothing else may be waved through.
TAB_BEHIND_CHUNKED = re.compile(rb"transfer-encoding:[\t ]*chunked[\t ]*\t[\t ]*\r\n", re.IGNORECASE)


def llhttp_is_wrong(stream: bytes, message: Request | Response, other: Reading) -> bool:
    """What llhttp and its binding misread.

    - Upgrade: the binding leaves HTTP before any consent, and drops the body.
    - 1xx: it reads a body after some of them (RFC 9112 section 6.3 rule 1).
    - a response's ``chunked`` with HTAB behind it, which is OWS (RFC 9110 section 5.6.3), is not known to it.
    """
    if members(other.fields, b"upgrade") and b"upgrade" in members(other.fields, b"connection"):
        return True
    return isinstance(message, Response) and (message.status < 200 or TAB_BEHIND_CHUNKED.search(stream) is not None)


def compare(stream: bytes, is_request: bool) -> tuple[int, list[str]]:
    """How many oracles accept what we accept, and what they read differently."""
    read = ours(stream, is_request)
    if read is None:
        return 0, []
    agreed, found = 0, []
    for name, oracle in (("llhttp", llhttp), ("h11", h11_reading)):
        other = oracle(stream, is_request)
        if other is None:
            continue
        different = differences(*read, other)
        if not different:
            agreed += 1
        elif oracle is not llhttp or not llhttp_is_wrong(stream, read[1], other):
            found.append(f"{name}: {'; '.join(different)}")
    return agreed, found


def chunked_messages(bodies: list[bytes]) -> list[bytes]:
    return [request(CHUNKED, body=body) for body in bodies]


def fuzz(name: str, seeds: list[bytes], is_request: bool) -> None:
    rng = random.Random(f"{name} {SEED}")
    agreed = 0
    for i in range(EXAMPLES):
        stream = mutated(rng, seeds)
        count, found = compare(stream, is_request)
        agreed += count
        assert not found, f"example {i} of seed {SEED}: {stream!r}: {found}"
    # A fuzzer whose messages are all refused would find nothing.
    assert agreed > EXAMPLES // 10


def test_requests_are_read_as_the_oracles_read_them() -> None:
    """design.md, data plane: never a message that we accept and read differently."""
    fuzz("requests", GOOD_REQUESTS + HOSTILE_REQUESTS, True)


def test_responses_are_read_as_the_oracles_read_them() -> None:
    """The same for answers to GET; HEAD is beyond the binding of llhttp."""
    fuzz("responses", GOOD_RESPONSES + HOSTILE_RESPONSES, False)


def test_chunked_bodies_are_read_as_the_oracles_read_them() -> None:
    """The same, with mutations in the chunks alone."""
    head = request(CHUNKED)
    rng = random.Random(f"chunks {SEED}")
    bodies = GOOD_CHUNKED_BODIES + HOSTILE_CHUNKED_BODIES
    agreed = 0
    for i in range(EXAMPLES):
        stream = head + mutated(rng, bodies)
        count, found = compare(stream, True)
        agreed += count
        assert not found, f"example {i} of seed {SEED}: {stream!r}: {found}"
    assert agreed > EXAMPLES // 10


@pytest.mark.parametrize("stream", GOOD_REQUESTS + GOOD_RESPONSES)
def test_the_good_seeds_are_read_alike_by_all(stream: bytes) -> None:
    """The comparison works on what everybody takes: at least one oracle agrees, none contradicts."""
    agreed, found = compare(stream, stream in GOOD_REQUESTS)
    assert (agreed > 0, found) == (True, [])


@pytest.mark.parametrize("stream", HOSTILE_REQUESTS + chunked_messages(HOSTILE_CHUNKED_BODIES))
def test_the_hostile_seeds_are_refused_or_read_alike(stream: bytes) -> None:
    """Each class by itself, without mutation."""
    assert compare(stream, True)[1] == []


@pytest.mark.parametrize(
    ("mine", "other"),
    [
        (request(b"Content-Length: 5", body=b"hello!"), request(b"Content-Length: 6", body=b"hello!")),
        (request(CHUNKED, body=b"1\r\na\r\n0\r\n\r\n"), request(CHUNKED, body=b"1\r\nb\r\n0\r\n\r\n")),
        (request(b"X: a"), request(b"X: b")),
        (request(b"X: a"), request(b"X: a", b"Y: b")),
        (request(host=b"Host: a"), request(host=b"Host: b")),
        (request(b"Cookie: a=1"), request(b"Cookie: a=2")),
        (request(), request(b"Connection: close")),
        (request(CHUNKED, body=b"0\r\nX: a\r\n\r\n"), request(CHUNKED, body=b"0\r\nX: b\r\n\r\n")),
        (request(first=b"GET /a HTTP/1.1"), request(first=b"GET /b HTTP/1.1")),
        (request(first=b"GET /a HTTP/1.1"), request(first=b"GET http://t/ab HTTP/1.1")),
    ],
)
def test_the_comparison_sees_each_kind_of_difference(mine: bytes, other: bytes) -> None:
    """A check that cannot fail proves nothing."""
    read, reading = ours(mine, True), llhttp(other, True)
    assert read is not None
    assert reading is not None
    assert differences(*read, reading)


def test_llhttp_is_strict_here() -> None:
    """An oracle with its leniency on would excuse ours."""
    for stream in (b"GET /a HTTP/1.1\nHost: t\n\n", request(b"Content-Length: 5", CHUNKED), request(b"X: a\rb")):
        assert llhttp(stream, True) is None


# --- the memory of heads against the parser


def outcome(parse: Callable[[bytes], Request | Response], head: bytes) -> object:
    try:
        message = parse(head)
    except ProxyError as error:
        return error.status, str(error)
    ignored = ("block", "is_shared", "rules", "told", "said")
    return {field.name: getattr(message, field.name) for field in fields(message) if field.name not in ignored}


def some_heads(messages: list[bytes]) -> list[bytes]:
    return [message[: message.index(b"\r\n\r\n") + 4] for message in messages if b"\r\n\r\n" in message]


def test_a_remembered_head_means_what_the_parser_says() -> None:
    """Whatever came before: mutations of few heads, so that parts of them are known, are read as if nothing were."""
    rng = random.Random(f"memo {SEED}")
    seeds = some_heads(GOOD_REQUESTS + HOSTILE_REQUESTS)
    memo = HeadMemo(LIMITS)
    hits = 0
    for i in range(2 * EXAMPLES):
        stream = mutated(rng, seeds) if i % 3 else rng.choice(seeds)
        try:
            end = request_head_end(stream, LIMITS)
        except ProxyError:
            continue
        head = stream[:end] if end else stream + b"\r\n\r\n"
        expected = outcome(lambda head: parse_request(head, LIMITS), head)
        assert outcome(memo.parse, head) == expected, f"example {i} of seed {SEED}: {head!r}"
        hits += isinstance(expected, dict) and memo.parse(head).block is not None
    assert hits > EXAMPLES // 10


def test_a_remembered_answer_means_what_the_parser_says() -> None:
    """The same for answers, for which the method counts."""
    rng = random.Random(f"answers {SEED}")
    seeds = some_heads(GOOD_RESPONSES + HOSTILE_RESPONSES)
    memo = ResponseMemo(LIMITS)
    for i in range(EXAMPLES):
        head = mutated(rng, seeds) if i % 3 else rng.choice(seeds)
        if head.find(b"\r\n\r\n") != len(head) - 4:
            continue
        for method in (b"GET", b"HEAD"):
            expected = outcome(lambda head, method=method: parse_response(head, method, LIMITS), head)
            got = outcome(lambda head, method=method: memo.parse(head, method), head)
            assert got == expected, f"example {i} of seed {SEED}: {head!r}"
