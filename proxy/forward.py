"""Heads as they go on: what a request tells the service, what an answer tells the client. Bytes in, bytes out.

Nothing of a peer's framing is passed on: the first line, Host, framing and Connection are always written anew, and the
fields that this proxy speaks for itself (``X-Cohort-*``, identities, the forwarded set) are taken out first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from proxy.baggage import replace as with_member
from proxy.http1 import CHUNKED, UNTIL_CLOSE, Field, Request, Response

_KEEP: Final = 0
_DROP: Final = 1
_HOP: Final = 2
_REQUEST_ID: Final = 3
_TRACE: Final = 4
_STATE: Final = 5
_BAGGAGE: Final = 6
_PATH: Final = 7

# What a request's fields tell: the lines that go on as they came; the value of X-Request-Id, empty if it is not one;
# the lines of a trace, empty if none is valid; the value of baggage; and those of the forwarded set by name, None where
# the peer is not to be believed.
Told = tuple[bytes, bytes, bytes, bytes | None, dict[bytes, bytes] | None]

OWN_PREFIX: Final = b"x-cohort-"
# What only a trusted peer may say about the hops before us. RFC 7239 and the de-facto set.
FORWARDED_FIELDS: Final = frozenset(
    (
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-real-ip",
    )
)
_SPOKEN: Final = {b"x-request-id": _REQUEST_ID, b"traceparent": _TRACE, b"tracestate": _STATE, b"baggage": _BAGGAGE}
# Said again with our own hop behind it; the rest of a trusted peer's set goes on as it came.
_CONTINUED: Final = frozenset((b"x-forwarded-for", b"forwarded", b"x-forwarded-proto", b"x-forwarded-host"))
# What an answer's fields tell: the lines that go on as they came, Date lines, the Cache-Control value (None without
# one), and the lines that only caches on the way read.
ToldAnswer = tuple[bytes, bytes, bytes | None, bytes]
MAX_NAMES: Final = 1024  # names whose treatment is remembered; a client may invent any number of them

_REQUEST_ID_TEXT: Final = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}")
# W3C Trace Context section 3.2: neither id all zeros, version ff invalid; of a version above 00 what 00 has must be
# there, and more may follow a dash.
_TRACEPARENT: Final = re.compile(
    rb"(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?", re.DOTALL
)
MAX_STATES: Final = 32  # members of tracestate; section 3.3.1.1


class RequestRules:
    """How the fields of requests go on under one plan, for peers of one degree of trust.

    Args:
        trusted: What they say of the hops before us is believed.
        identity_fields: Lower-case names that count from trusted peers only.
        via: Our name in ``Via``; empty: the field is not ours to speak of, and goes on as it came.
    """

    def __init__(self, trusted: bool, identity_fields: frozenset[bytes], via: bytes = b"") -> None:
        self._trusted = trusted
        self._via = via
        self._spoken = _SPOKEN | {b"via": _PATH} if via else _SPOKEN
        self._dropped = identity_fields | FORWARDED_FIELDS
        self._actions: dict[bytes, int] = {}

    def _classify(self, name: bytes) -> int:
        """What to do with a field; a name with ``_`` counts as the one with ``-``, as CGI-like services read it."""
        folded = name.replace(b"_", b"-")
        action = self._spoken.get(name, _KEEP)
        if folded.startswith(OWN_PREFIX):
            action = _DROP
        elif self._trusted and folded != name and folded in self._dropped:
            action = _DROP  # whoever is trusted means the name with "-", and may not have looked at the other
        elif self._trusted:
            action = _HOP if name in _CONTINUED else action
        elif folded in self._dropped or (folded != name and folded in _SPOKEN):
            action = _DROP
        if len(self._actions) >= MAX_NAMES:
            self._actions.clear()
        self._actions[name] = action
        return action

    def head(self, request: Request, target: bytes, host: bytes, peer: bytes, fresh_id: bytes, lines: bytes,
             baggage: bytes, prefix: bytes, secure: bool) -> tuple[bytes, bytes]:  # fmt: skip
        """The head of the request to the service.

        Args:
            request: As parsed.
            target: In origin form, after a route has stripped its prefix.
            host: The Host to send, never empty.
            peer: The address of the connection's other end, as text.
            fresh_id: 32 hexadecimal digits, used where the client sent no id of its own.
            lines: The decision as complete ``X-Cohort-*`` lines.
            baggage: Our own baggage member.
            prefix: What a route stripped, else empty.
            secure: Whether the client's connection is TLS.

        Returns:
            The head with its last empty line, and the request id in force. Cost: one dictionary look-up a field, none
            for fields seen before.
        """
        block = request.block
        if block is None:
            told = self._read(request)
        else:
            if block.rules is not self:
                block.rules, block.told = self, self._read(request)
            told = block.told
        kept, request_id, trace, baggage_before, forwarded = told
        cookie = request.cookie
        extra = b"" if cookie is None else b"Cookie: %b\r\n" % cookie
        if prefix:
            extra += b"X-Forwarded-Prefix: %b\r\n" % prefix
        length = request.length
        if length > 0 or (length == 0 and request.method in _WITH_BODY):
            extra += b"Content-Length: %d\r\n" % length
        elif length == CHUNKED:
            extra += b"Transfer-Encoding: chunked\r\n"
        if request.max_forwards is not None:
            extra += b"Max-Forwards: %d\r\n" % (request.max_forwards - 1)
        if request.websocket_key:
            extra += SWITCH_LINES
        elif request.te_trailers:
            extra += b"Connection: TE\r\nTE: trailers\r\n"
        if request.expect_continue:
            extra += b"Expect: 100-continue\r\n"
        if forwarded is None:
            extra += _FORWARDED % (peer, b"https" if secure else b"http", host)
        else:
            extra += _appended(forwarded, peer, secure, host)
        if baggage_before is not None:
            baggage = with_member(baggage_before, baggage)
        request_id = request_id or fresh_id
        return _REQUEST % (
            request.method, target, host, kept, extra, lines, request_id,
            trace or b"traceparent: 00-%b-%b-00\r\n" % (fresh_id, fresh_id[:16]), baggage,
        ), request_id  # fmt: skip

    def _read(self, request: Request) -> Told:
        """Sort the fields: what goes on as it came, and what is said together with our own words."""
        kept, request_id, traces, states, baggage, path = [], b"", [], None, None, None
        forwarded: dict[bytes, bytes] | None = {} if self._trusted else None
        for name, line, value in request.fields:
            action = self._actions.get(name)
            if action is None:
                action = self._classify(name)
            if action == _KEEP:
                kept.append(line)
            elif action == _REQUEST_ID:
                if not request_id and _REQUEST_ID_TEXT.fullmatch(value):
                    request_id = value
            elif action == _TRACE:
                traces.append(value)
            elif action == _STATE:
                states = _joined(states, value)
            elif action == _BAGGAGE:
                baggage = _joined(baggage, value)
            elif action == _HOP:
                assert forwarded is not None  # untrusted peers' are dropped
                forwarded[name] = _joined(forwarded.get(name), value)
            elif action == _PATH:
                path = _joined(path, value)
        if self._via:
            kept.append(_via_line(path, request.http11, self._via))
        return b"".join(kept), request_id, _trace_lines(traces, states or b""), baggage, forwarded or None


_REQUEST: Final = b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b%bX-Request-Id: %b\r\n%bbaggage: %b\r\n\r\n"
SWITCH_LINES: Final = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"  # the only protocol that is switched to
_FORWARDED: Final = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n"


def _appended(before: dict[bytes, bytes], peer: bytes, secure: bool, host: bytes) -> bytes:
    """What a trusted peer said of the hops before it, and ours behind it."""
    hops = before.get(b"x-forwarded-for")
    proto = before.get(b"x-forwarded-proto", b"https" if secure else b"http")
    lines = _FORWARDED % (
        peer if hops is None else b"%b, %b" % (hops, peer),
        proto,
        before.get(b"x-forwarded-host", host),
    )
    if (forwarded := before.get(b"forwarded")) is not None:
        lines += b"Forwarded: %b, for=%b\r\n" % (forwarded, b'"[%b]"' % peer if b":" in peer else peer)
    return lines


_WITH_BODY: Final = frozenset((b"POST", b"PUT", b"PATCH"))  # RFC 9110 section 8.6: a length is expected, zero too


def _joined(before: bytes | None, value: bytes) -> bytes:
    return value if before is None else b"%b, %b" % (before, value)


def _via_line(path: bytes | None, http11: bool, via: bytes) -> bytes:
    """The way of a message with our hop behind it, and the version in which we received it. RFC 9110 section 7.6.3."""
    return b"Via: %b\r\n" % _joined(path or None, b"1.%d %b" % (http11, via))


def _trace_lines(parents: list[bytes], states: bytes) -> bytes:
    """The lines of one valid trace as they came; empty for any other, whose state belongs to nothing."""
    if len(parents) != 1 or not _TRACEPARENT.fullmatch(parents[0]):
        return b""
    lines = b"traceparent: %b\r\n" % parents[0]
    if 0 < sum(1 for state in states.split(b",") if state.strip(b" \t")) <= MAX_STATES:
        lines += b"tracestate: %b\r\n" % states
    return lines


def sent_id(request: Request) -> bytes:
    """The id that a client gave its request; empty if it gave none that is one."""
    for name, _, value in request.fields:
        if name == b"x-request-id" and _REQUEST_ID_TEXT.fullmatch(value):
            return value
    return b""


def passed_on(fields: Iterable[Field]) -> bytes:
    """The lines of an interim response, or of trailers, without those in which a service speaks for us."""
    return b"".join(line for name, line, _ in fields if not name.replace(b"_", b"-").startswith(OWN_PREFIX))


def decision_lines(arm: str, rollout: str, revision: str, reason: str, generation: int) -> bytes:
    """The decision as header lines, the same for the service and, when it is explained, for the client."""
    return (
        f"X-Cohort-Arm: {arm}\r\nX-Cohort-Rollout: {rollout}\r\nX-Cohort-Revision: {revision}\r\n"
        f"X-Cohort-Reason: {reason}\r\nX-Cohort-Generation: {generation}\r\n"
    ).encode()


class ResponseRules:
    """How the fields of answers go on under one plan.

    Args:
        cookie_names: Cookies that are ours: a service that sets one is ignored.
        via: As of `RequestRules`.
    """

    def __init__(self, cookie_names: Iterable[str], via: bytes = b"") -> None:
        self._via = via
        self._inspected = _INSPECTED | {b"via": _WAY} if via else _INSPECTED
        names = b"|".join(re.escape(name.encode()) for name in cookie_names)
        self._own_cookie = re.compile(rb"[ \t]*(?:%b)[ \t]*(?:=|;|\Z)" % names)
        self._actions: dict[bytes, int] = {}

    def _classify(self, name: bytes) -> int:
        action = _PLAIN
        if name.replace(b"_", b"-").startswith(OWN_PREFIX):
            action = _OURS
        elif name in self._inspected:
            action = self._inspected[name]
        elif name.endswith(b"-cache-control") or name == b"surrogate-control":
            action = _TARGETED
        if len(self._actions) >= MAX_NAMES:
            self._actions.clear()
        self._actions[name] = action
        return action

    def head(self, response: Response, explained: bytes, cookies: bytes, date: bytes, prefix: bytes,
             framing: bytes) -> bytes:  # fmt: skip
        """The head of an answer to the client.

        Args:
            response: As parsed.
            explained: `decision_lines`, or empty.
            cookies: Our own ``Set-Cookie`` lines; with them the answer is made private.
            date: The ``Date`` line for a service that sent none (RFC 9110 section 6.6.1).
            prefix: What a route stripped from the target, given back to ``Location``.
            framing: Lines that `framing_lines` wrote.

        Returns:
            The head with its last empty line. Cost: one dictionary look-up a field; none for a remembered answer with
            nothing of this request's own, once a second.
        """
        if not response.is_shared:
            told = self._read(response)
        elif response.rules is self:
            told = response.told
        else:
            told = response.told = self._read(response)
            response.rules = self
            response.said = (b"", b"", b"")
        is_plain = not (cookies or explained or prefix)
        if is_plain and response.is_shared and response.said[0] == date and response.said[1] == framing:
            return response.said[2]
        kept, own_date, cache, targeted = told
        if cookies:
            cookies = b"Cache-Control: %b\r\n%b" % (private_cache(cache or b""), cookies)
        elif cache is not None:
            cookies = b"Cache-Control: %b\r\n%b" % (cache, targeted)
        elif targeted:
            cookies = targeted
        if prefix:
            kept = self._with_prefix(response, prefix)
        head = b"HTTP/1.1 %d %b\r\n%b%b%b%b%b" % (
            response.status, response.reason, kept, cookies, explained, own_date or date, framing,
        )  # fmt: skip
        if is_plain and response.is_shared:
            response.said = (date, framing, head)
        return head

    def interim(self, response: Response) -> bytes:
        """The lines of an interim response that go on."""
        if not self._via:
            return passed_on(response.fields)
        others = [field for field in response.fields if field[0] != b"via"]
        path = b", ".join(value for name, _, value in response.fields if name == b"via")
        return passed_on(others) + _via_line(path, response.http11, self._via)

    def _read(self, response: Response) -> ToldAnswer:
        """Sort the fields: what goes on as it came, Date, Cache-Control, and what is only for caches on the way."""
        kept, date, cache, targeted, path = [], b"", None, b"", None
        for name, line, value in response.fields:
            action = self._actions.get(name)
            if action is None:
                action = self._classify(name)
            if action == _PLAIN:
                kept.append(line)
            elif action == _DATE:
                date += line
            elif action == _SET_COOKIE:
                if not self._own_cookie.match(value):
                    kept.append(line)
            elif action == _CACHE:
                cache = _joined(cache, value)
            elif action == _TARGETED:
                targeted += line
            elif action == _WAY:
                path = _joined(path, value)
        if self._via:
            kept.append(_via_line(path, response.http11, self._via))
        return b"".join(kept), date, cache, targeted

    def _with_prefix(self, response: Response, prefix: bytes) -> bytes:
        """The lines that go on, with the prefix that a route took from the target given back to Location."""
        fields = [
            (name, _location(line, value, prefix), value) if name == b"location" else (name, line, value)
            for name, line, value in response.fields
        ]
        return self._read(replace(response, fields=fields, is_shared=False))[0]


# Targeted cache fields (RFC 9213, Edge Architecture) would override the private that goes with our cookie.
_PLAIN: Final = 0
_OURS: Final = 1
_DATE: Final = 2
_SET_COOKIE: Final = 3
_CACHE: Final = 4
_TARGETED: Final = 5
_WAY: Final = 6
_INSPECTED: Final = {b"date": _DATE, b"set-cookie": _SET_COOKIE, b"cache-control": _CACHE}


def _location(line: bytes, value: bytes, prefix: bytes) -> bytes:
    if value.startswith(b"/") and not value.startswith(b"//"):
        return b"Location: %b%b\r\n" % (prefix, value)
    return line


# A quoted list of field names may stand behind private= and no-cache=, and holds commas (RFC 9111 section 5.2.2).
_DIRECTIVE = re.compile(rb'[ \t,]*([^=,"\s]+)[ \t]*(=[ \t]*(?:"(?:[^"\\]|\\.)*"|[^,"]*))?[^,]*')
_SHARED_ONLY = frozenset((b"public", b"s-maxage", b"private", b"proxy-revalidate"))


def private_cache(value: bytes) -> bytes:
    """A Cache-Control value under which no shared cache keeps the answer, and which is weaker in nothing else."""
    kept = []
    for name, argument in _DIRECTIVE.findall(value):
        lower = name.lower()
        if lower == b"no-store" or (lower == b"private" and not argument):
            return value
        if lower not in _SHARED_ONLY:
            kept.append(name + argument.rstrip())
    return b", ".join([b"private", *kept])


def framing_lines(response: Response, method: bytes, http11: bool, keep_alive: bool) -> tuple[bytes, int]:
    """How the body of an answer is delimited for this client.

    Args:
        response: As parsed for ``method``.
        method: Of the request.
        http11: Whether the client speaks HTTP/1.1.
        keep_alive: Whether the connection may stay open by the client's and our own wish.

    Returns:
        The framing and Connection lines with the head's last empty line, and the length of the body on the wire to
        the client: a number of bytes, `CHUNKED` or `UNTIL_CLOSE`.
    """
    length = response.length
    if length >= 0:
        lines = b""
        if method == b"HEAD" or response.status == 304:
            if response.content_length is not None:
                lines = b"Content-Length: %d\r\n" % response.content_length
        elif response.status != 204:
            lines = b"Content-Length: %d\r\n" % length
    elif http11:
        lines, length = b"Transfer-Encoding: chunked\r\n", CHUNKED
    else:
        lines, length, keep_alive = b"", UNTIL_CLOSE, False
    if not keep_alive:
        return lines + b"Connection: close\r\n\r\n", length
    return lines + (b"\r\n" if http11 else b"Connection: keep-alive\r\n\r\n"), length


_REASONS = {
    204: b"No Content", 303: b"See Other", 400: b"Bad Request", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 413: b"Content Too Large", 414: b"URI Too Long",
    417: b"Expectation Failed", 421: b"Misdirected Request", 431: b"Request Header Fields Too Large",
    500: b"Internal Server Error", 501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable",
    504: b"Gateway Timeout", 505: b"HTTP Version Not Supported",
}  # fmt: skip


def reason_phrase(status: int) -> bytes:
    """The phrase of a status that this proxy answers by itself; empty for one that only a route names."""
    return _REASONS.get(status, b"")


def own_answer(status: int, request_id: bytes, date: bytes, extra: bytes, keep_alive: bool, with_body: bool,
               body: bytes | None = None) -> bytes:  # fmt: skip
    """A complete answer of the proxy's own: constant text and the request id, nothing about the cause.

    Args:
        status: 200-599.
        request_id: Goes into the body and a field.
        date: The ``Date`` line.
        extra: Further complete lines.
        keep_alive: Else the answer announces the close.
        with_body: False for HEAD, which still gets the length.
        body: Instead of the constant text.
    """
    if body is None:
        body = b"" if status == 204 else b"%d %b\nrequest %b\n" % (status, reason_phrase(status), request_id)
        extra += b"" if status == 204 else b"Content-Type: text/plain; charset=utf-8\r\n"
        extra += b"Cache-Control: no-store\r\n"
    if status != 204:
        extra += b"Content-Length: %d\r\n" % len(body)
    if not keep_alive:
        extra += b"Connection: close\r\n"
    head = b"HTTP/1.1 %d %b\r\n%bX-Request-Id: %b\r\n%b\r\n" % (status, reason_phrase(status), date, request_id, extra)
    return head + body if with_body else head
