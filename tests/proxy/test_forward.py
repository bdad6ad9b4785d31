"""Heads in both directions: what is taken out, what is said anew."""

from __future__ import annotations

import pytest

from proxy.forward import (
    MAX_NAMES,
    RequestRules,
    ResponseRules,
    decision_lines,
    framing_lines,
    own_answer,
    private_cache,
)
from proxy.http1 import CHUNKED, UNTIL_CLOSE, HeadLimits, parse_request, parse_response
from proxy.memo import HeadMemo, ResponseMemo

LIMITS = HeadLimits()
ID = b"0123456789abcdef0123456789abcdef"
LINES = decision_lines("canary", "shop/checkout", "v2", "split", 7)


def request(*lines: str, first: str = "GET /a?b HTTP/1.1", trusted: bool = False, via: bytes = b"",
            **changes: object) -> bytes:  # fmt: skip
    head = "\r\n".join((first, "Host: t", *lines, "", "")).encode("latin-1")
    arguments = {
        "target": b"/a?b", "host": b"t", "peer": b"192.0.2.1", "fresh_id": ID, "lines": LINES,
        "baggage": b"cohort.arm=canary", "prefix": b"", "secure": False,
    } | changes  # fmt: skip
    rules = RequestRules(trusted, frozenset() if trusted else frozenset({b"x-user-id"}), via)
    return rules.head(parse_request(head, LIMITS), **arguments)[0]  # type: ignore[arg-type]


def values(head: bytes, name: bytes) -> list[bytes]:
    return [line.split(b": ", 1)[1] for line in head.split(b"\r\n") if line.lower().startswith(name + b": ")]


def test_head_is_complete_and_parses() -> None:
    """What goes to the service is read by our own strict parser, with every field on one line."""
    head = request("Accept: */*", "Cookie: a=1; b=2")
    parsed = parse_request(head, LIMITS)
    assert (parsed.method, parsed.target, parsed.host) == (b"GET", b"/a?b", b"t")
    assert values(head, b"x-cohort-arm") == [b"canary"]
    assert values(head, b"x-cohort-generation") == [b"7"]
    assert values(head, b"cookie") == [b"a=1; b=2"]
    assert values(head, b"accept") == [b"*/*"]


@pytest.mark.parametrize(
    "line",
    [
        "X-Cohort-Arm: stable",
        "x-cohort-override: canary",
        "X_Cohort_Arm: stable",
        "X-Cohort_Reason: preview",
        "X-User-Id: anna",
        "x_user_id: anna",
        "X_User-Id: anna",
        "X-Forwarded-For: 10.9.8.7",
        "X_Forwarded_For: 10.9.8.7",
        "X-Forwarded-Host: evil",
        "X-Forwarded-Prefix: /evil",
        "X-Forwarded-Port: 1",
        "X-Real-IP: 10.9.8.7",
        "Forwarded: for=10.9.8.7",
        "X_Request_Id: evil",
    ],
)
def test_reserved_fields_of_untrusted_peers_are_removed_in_every_spelling(line: str) -> None:
    """Contract item 9."""
    assert request(line) == request()


def test_forwarded_set_of_a_trusted_peer_is_kept_and_ours_appended() -> None:
    head = request(
        "X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 198.51.100.2", "X-Forwarded-Proto: https",
        "X-Forwarded-Host: shop.example", "Forwarded: for=203.0.113.9", "X-User-Id: anna", trusted=True,
    )  # fmt: skip
    assert values(head, b"x-forwarded-for") == [b"203.0.113.9, 198.51.100.2, 192.0.2.1"]
    assert values(head, b"x-forwarded-proto") == [b"https"]
    assert values(head, b"x-forwarded-host") == [b"shop.example"]
    assert values(head, b"forwarded") == [b"for=203.0.113.9, for=192.0.2.1"]
    assert values(head, b"x-user-id") == [b"anna"]


def test_cohort_fields_of_a_trusted_peer_are_removed_too() -> None:
    """An outer cohort is obeyed, and then it is this one that tells the service."""
    assert values(request("X-Cohort-Arm: stable", trusted=True), b"x-cohort-arm") == [b"canary"]


def test_ipv6_peers_are_quoted_in_forwarded() -> None:
    """RFC 7239 section 6."""
    head = request("Forwarded: for=a", trusted=True, peer=b"2001:db8::1")
    assert values(head, b"forwarded") == [b'for=a, for="[2001:db8::1]"']
    assert values(head, b"x-forwarded-for") == [b"2001:db8::1"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), ID),
        (("X-Request-Id: abc-1",), b"abc-1"),
        (("X-Request-Id: abc", "X-Request-Id: def"), b"abc"),
        (('X-Request-Id: a"b',), ID),
        (("X-Request-Id: " + "a" * 129,), ID),
    ],
)
def test_request_id_is_passed_on_if_it_is_one(lines: tuple[str, ...], expected: bytes) -> None:
    assert values(request(*lines), b"x-request-id") == [expected]


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ((TRACE,), True),
        ((TRACE.replace("-01", "-ff"),), True),
        ((TRACE, TRACE), False),
        ((f"{TRACE},{TRACE}",), False),
        (("00-00000000000000000000000000000000-00f067aa0ba902b7-01",), False),
        (("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",), False),
        ((TRACE.upper(),), False),
        ((TRACE + "-",), False),
        ((TRACE + "-x",), False),
        ((TRACE + "0",), False),
        ((TRACE[:-1],), False),
        (("ff" + TRACE[2:],), False),
        (("0g" + TRACE[2:],), False),
        (("01" + TRACE[2:],), True),
        (("fe" + TRACE[2:] + "-",), True),
        (("01" + TRACE[2:] + "-what the-future-brings",), True),
        (("01" + TRACE[2:] + "0",), False),
        (("01" + TRACE[2:] + ".x",), False),
        (("01" + TRACE[2:-3],), False),
        (("",), False),
        ((), False),
    ],
)
def test_a_valid_trace_goes_on_and_otherwise_one_begins(lines: tuple[str, ...], kept: bool) -> None:
    """W3C Trace Context section 3.2: one valid traceparent goes on as it came, of higher versions too; else the trace
    is restarted, and then the state of the old one belongs to nothing."""
    head = request(*(f"Traceparent: {line}" for line in lines), "tracestate: a=1")
    fresh = b"00-%b-%b-00" % (ID, ID[:16])
    assert values(head, b"traceparent") == [lines[0].encode() if kept else fresh]
    assert values(head, b"tracestate") == ([b"a=1"] if kept else [])


@pytest.mark.parametrize(
    ("states", "sent"),
    [
        (("a=1,b@c=2",), [b"a=1,b@c=2"]),
        (("a=1 , b=2", "c=3"), [b"a=1 , b=2, c=3"]),
        ((",".join(f"k{n}=1" for n in range(32)) + ",,",), [b",".join(b"k%d=1" % n for n in range(32)) + b",,"]),
        ((",".join(f"k{n}=1" for n in range(33)),), []),
        (("", " , "), []),
    ],
)
def test_the_state_of_a_trace_goes_on_as_one_line(states: tuple[str, ...], sent: list[bytes]) -> None:
    """W3C Trace Context section 3.3: several lines are one list of at most 32 members, opaque to who takes no part."""
    head = request(f"traceparent: {TRACE}", *(f"tracestate: {state}" for state in states))
    assert values(head, b"tracestate") == sent
    assert values(head, b"traceparent") == [TRACE.encode()]


@pytest.mark.parametrize(
    "lines", [b"", b"X-Request-Id: a\r\n", b"traceparent: %b\r\ntracestate: a=1\r\n" % TRACE.encode()]
)
def test_nothing_of_one_request_is_remembered_for_the_next(lines: bytes) -> None:
    """The same fields again, not parsed again: what a client said stays, what we say is fresh each time."""
    memo, rules = HeadMemo(LIMITS), [RequestRules(False, frozenset()), RequestRules(True, frozenset())]
    data = b"GET / HTTP/1.1\r\nHost: t\r\n%bbaggage: cohort.arm=x,k=v\r\n\r\n" % lines
    for number in range(1, 7):
        parsed = memo.parse(data)
        assert (parsed.block is not None) == (number > 2)
        fresh, own = b"%032x" % number, b"cohort.arm=%d" % number
        head, told = rules[number % 2].head(parsed, b"/", b"t", b"192.0.2.1", fresh, b"", own, b"", False)
        assert told == (b"a" if b"Id" in lines else fresh)
        restarted = b"00-%b-%b-00" % (fresh, fresh[:16])
        assert values(head, b"traceparent") == [TRACE.encode() if b"trace" in lines else restarted]
        assert values(head, b"tracestate") == [b"a=1"] * (b"trace" in lines)
        assert values(head, b"baggage") == [b"k=v," + own]


@pytest.mark.parametrize("trusted", [False, True])
def test_via_goes_on_as_it_came_unless_we_are_told_our_name(trusted: bool) -> None:
    """Contract item 6: off by default."""
    assert values(request("Via: 1.0 a", "Via: 1.1 b", trusted=trusted), b"via") == [b"1.0 a", b"1.1 b"]
    assert values(request(trusted=trusted), b"via") == []


@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(
    ("first", "lines", "expected"),
    [
        ("GET / HTTP/1.1", (), b"1.1 edge"),
        ("GET / HTTP/1.0", (), b"1.0 edge"),
        ("GET / HTTP/1.1", ("Via: 1.0 a, 1.1 b (c)",), b"1.0 a, 1.1 b (c), 1.1 edge"),
        ("GET / HTTP/1.0", ("via: 1.0 a", "X-A: 1", "VIA: HTTP/1.1 b"), b"1.0 a, HTTP/1.1 b, 1.0 edge"),
        ("GET / HTTP/1.1", ("Via:",), b"1.1 edge"),
        ("GET / HTTP/1.1", ("Connection: via", "Via: 1.0 a"), b"1.1 edge"),
    ],
)
def test_our_hop_is_appended_to_via(trusted: bool, first: str, lines: tuple[str, ...], expected: bytes) -> None:
    """RFC 9110 section 7.6.3: the version in which the message was received, in the order of the hops, on one line."""
    assert values(request(*lines, first=first, trusted=trusted, via=b"edge"), b"via") == [expected]


def test_our_hop_stands_once_in_a_head_seen_before() -> None:
    memo, rules = HeadMemo(LIMITS), RequestRules(False, frozenset(), b"edge:8080")
    for number in range(5):
        parsed = memo.parse(b"GET /%d HTTP/1.1\r\nHost: t\r\nVia: 1.0 a\r\n\r\n" % number)
        head, _ = rules.head(parsed, b"/", b"t", b"192.0.2.1", ID, b"", b"cohort.arm=a", b"", False)
        assert values(head, b"via") == [b"1.0 a, 1.1 edge:8080"]


def test_baggage_of_others_is_kept_and_our_member_is_ours() -> None:
    """Of whomever it comes; see `test_baggage`."""
    lines = ("baggage: user=1;p=2 , cohort.arm=stable", "baggage: cohort.arm;x=1,k=v,, cohort.army=2")
    for trusted in (False, True):
        assert values(request(*lines, trusted=trusted), b"baggage") == [
            b"user=1;p=2 , k=v, cohort.army=2,cohort.arm=canary".replace(b"2 , ", b"2 ,")
        ]


@pytest.mark.parametrize(
    ("first", "lines", "expected"),
    [
        ("GET /a HTTP/1.1", (), b""),
        ("POST /a HTTP/1.1", (), b"Content-Length: 0\r\n"),
        ("POST /a HTTP/1.1", ("Content-Length: 5",), b"Content-Length: 5\r\n"),
        ("GET /a HTTP/1.1", ("Transfer-Encoding: chunked",), b"Transfer-Encoding: chunked\r\n"),
    ],
)
def test_framing_is_written_anew(first: str, lines: tuple[str, ...], expected: bytes) -> None:
    head = request(*lines, first=first)
    rest = b"".join(
        line + b"\r\n"
        for line in head.split(b"\r\n")
        if line.lower().startswith((b"content-length", b"transfer-encoding"))
    )
    assert rest == expected


def test_of_te_only_trailers_goes_on() -> None:
    """Contract item 8."""
    head = request("Connection: TE", "TE: gzip;q=0.5, trailers")
    assert values(head, b"te") == [b"trailers"]
    assert values(request("Connection: TE", "TE: gzip"), b"te") == []


def test_expect_goes_to_the_service_with_a_body_only() -> None:
    assert values(request("Expect: 100-continue", "Content-Length: 3", first="POST /a HTTP/1.1"), b"expect")
    assert not values(request("Expect: 100-continue"), b"expect")


def test_stripped_prefix_is_told() -> None:
    assert values(request(prefix=b"/canary"), b"x-forwarded-prefix") == [b"/canary"]


def test_names_that_clients_invent_are_not_remembered_for_ever() -> None:
    rules = RequestRules(False, frozenset())
    for i in range(MAX_NAMES + 10):
        parsed = parse_request(b"GET / HTTP/1.1\r\nHost: t\r\nX-%d: 1\r\n\r\n" % i, LIMITS)
        rules.head(parsed, b"/", b"t", b"192.0.2.1", ID, b"", b"cohort.arm=a", b"", False)
    assert len(rules._actions) <= MAX_NAMES


# --- responses


def response(*lines: str, cookies: bytes = b"", explained: bytes = b"", prefix: bytes = b"", via: bytes = b"",
             version: str = "1.1") -> bytes:  # fmt: skip
    head = "\r\n".join((f"HTTP/{version} 200 OK", *lines, "Content-Length: 2", "", "")).encode("latin-1")
    rules = ResponseRules(("cohort_checkout", "cohort_checkout_preview"), via)
    return rules.head(parse_response(head, b"GET", LIMITS), explained, cookies, b"Date: now\r\n", prefix, b"\r\n")


@pytest.mark.parametrize("line", ["X-Cohort-Arm: forged", "x-cohort-generation: 999", "X_Cohort_Version: forged"])
def test_a_service_cannot_speak_for_us(line: str) -> None:
    """Contract item 9."""
    assert response(line) == response()


@pytest.mark.parametrize("value", ["cohort_checkout=x; Path=/", "cohort_checkout_preview=x", " cohort_checkout ;x"])
def test_a_service_cannot_set_our_cookies(value: str) -> None:
    head = response(f"Set-Cookie: {value}", "Set-Cookie: app=1", "Set-Cookie: cohort_checkout2=1")
    assert values(head, b"set-cookie") == [b"app=1", b"cohort_checkout2=1"]


@pytest.mark.parametrize(
    ("version", "lines", "expected"),
    [
        ("1.1", (), b"1.1 edge"),
        ("1.0", (), b"1.0 edge"),
        ("1.1", ("Via: 1.1 a", "Date: then", "via: 2 b"), b"1.1 a, 2 b, 1.1 edge"),
    ],
)
@pytest.mark.parametrize("prefix", [b"", b"/canary"])
def test_answers_get_our_hop_too(version: str, lines: tuple[str, ...], expected: bytes, prefix: bytes) -> None:
    """RFC 9110 section 7.6.3: in the other direction as well, with the version that the service speaks."""
    assert values(response(*lines, via=b"edge", version=version, prefix=prefix), b"via") == [expected]
    kept = [line.split(": ")[1].encode() for line in lines if line.lower().startswith("via")]
    assert values(response(*lines, version=version, prefix=prefix), b"via") == kept


def test_interim_responses_get_our_hop_too() -> None:
    head = b"HTTP/1.1 103 Early Hints\r\nVia: 1.1 a\r\nLink: </a>\r\nX-Cohort-Arm: x\r\n\r\n"
    parsed = parse_response(head, b"GET", LIMITS)
    assert ResponseRules(()).interim(parsed) == b"Via: 1.1 a\r\nLink: </a>\r\n"
    assert ResponseRules((), b"edge").interim(parsed) == b"Link: </a>\r\nVia: 1.1 a, 1.1 edge\r\n"


def test_date_is_added_where_there_is_none() -> None:
    """RFC 9110 section 6.6.1."""
    assert values(response(), b"date") == [b"now"]
    assert values(response("Date: then"), b"date") == [b"then"]


def test_location_gets_the_stripped_prefix_back() -> None:
    assert values(response("Location: /x", prefix=b"/canary"), b"location") == [b"/canary/x"]
    assert values(response("Location: //other/x", prefix=b"/canary"), b"location") == [b"//other/x"]
    assert values(response("Location: https://other/x", prefix=b"/canary"), b"location") == [b"https://other/x"]
    assert values(response("Location: /x"), b"location") == [b"/x"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", b"private"),
        (b"public, max-age=60", b"private, max-age=60"),
        (b"max-age=60, s-maxage=600", b"private, max-age=60"),
        (b"no-store", b"no-store"),
        (b"no-store, max-age=0", b"no-store, max-age=0"),
        (b"private, max-age=60", b"private, max-age=60"),
        (b'private="set-cookie", max-age=9', b"private, max-age=9"),
        (b'no-cache="a, public", immutable', b'private, no-cache="a, public", immutable'),
        (b"PUBLIC", b"private"),
        (b"x-public=1", b"private, x-public=1"),
    ],
)
def test_an_answer_with_our_cookie_enters_no_shared_cache(value: bytes, expected: bytes) -> None:
    """RFC 9111 section 5.2.2; nothing else of the service's wish is weakened."""
    assert private_cache(value) == expected


def test_caches_on_the_way_get_no_word_of_their_own_beside_our_cookie() -> None:
    """RFC 9213: a targeted field would override Cache-Control."""
    lines = ("CDN-Cache-Control: max-age=600", "Surrogate-Control: max-age=600", "Cache-Control: public")
    head = response(*lines, cookies=b"Set-Cookie: c=1\r\n")
    assert values(head, b"cache-control") == [b"private"]
    assert not values(head, b"cdn-cache-control")
    assert not values(head, b"surrogate-control")
    assert values(response(*lines), b"cdn-cache-control") == [b"max-age=600"]


@pytest.mark.parametrize(
    ("status", "lines", "method", "http11", "keep_alive", "expected", "length"),
    [
        (200, "Content-Length: 2\r\n", b"GET", True, True, b"Content-Length: 2\r\n\r\n", 2),
        (200, "Content-Length: 2\r\n", b"GET", True, False, b"Content-Length: 2\r\nConnection: close\r\n\r\n", 2),
        (200, "Content-Length: 2\r\n", b"GET", False, True, b"Content-Length: 2\r\nConnection: keep-alive\r\n\r\n", 2),
        (200, "Content-Length: 9\r\n", b"HEAD", True, True, b"Content-Length: 9\r\n\r\n", 0),
        (200, "", b"HEAD", True, True, b"\r\n", 0),
        (304, "Content-Length: 9\r\n", b"GET", True, True, b"Content-Length: 9\r\n\r\n", 0),
        (204, "", b"GET", True, True, b"\r\n", 0),
        (200, "Transfer-Encoding: chunked\r\n", b"GET", True, True, b"Transfer-Encoding: chunked\r\n\r\n", CHUNKED),
        (200, "Transfer-Encoding: chunked\r\n", b"GET", False, True, b"Connection: close\r\n\r\n", UNTIL_CLOSE),
        (200, "", b"GET", True, True, b"Transfer-Encoding: chunked\r\n\r\n", CHUNKED),
        (200, "", b"GET", False, True, b"Connection: close\r\n\r\n", UNTIL_CLOSE),
    ],
)
def test_the_client_gets_a_framing_of_its_own(
    status: int, lines: str, method: bytes, http11: bool, keep_alive: bool, expected: bytes, length: int
) -> None:
    """RFC 9112 section 6; never a chunked answer to HTTP/1.0, never a body behind HEAD, 204 and 304."""
    parsed = parse_response(f"HTTP/1.1 {status} X\r\n{lines}\r\n".encode(), method, LIMITS)
    assert framing_lines(parsed, method, http11, keep_alive) == (expected, length)


@pytest.mark.parametrize("status", [204, 400, 404, 431, 503, 505, 451])
@pytest.mark.parametrize("with_body", [True, False])
def test_own_answers_delimit_themselves(status: int, with_body: bool) -> None:
    """Invariant: parses strictly, and its body is as long as it says."""
    answer = own_answer(status, ID, b"Date: x\r\n", b"", False, with_body)
    head, _, body = answer.partition(b"\r\n\r\n")
    parsed = parse_response(head + b"\r\n\r\n", b"GET" if with_body else b"HEAD", LIMITS)
    assert parsed.status == status
    assert len(body) == parsed.length
    assert ID in body or not with_body or status == 204


def test_a_request_for_websocket_is_said_anew() -> None:
    """Contract item 7: of Connection and Upgrade nothing goes on as it came."""
    asks = (
        "Connection: keep-alive, X-Drop, uPgRaDe",
        "Upgrade: WEBSOCKET",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        "X-Drop: 1",
        "TE: trailers",
    )
    head = request(*asks)
    assert values(head, b"connection") == [b"Upgrade"]
    assert values(head, b"upgrade") == [b"websocket"]
    assert values(head, b"sec-websocket-version") == [b"13"]
    assert b"x-drop" not in head.lower()
    assert parse_request(head, LIMITS).websocket_key == b"dGhlIHNhbXBsZSBub25jZQ=="
    plain = request(*asks, first="POST /a?b HTTP/1.1")
    assert values(plain, b"upgrade") == []
    assert values(plain, b"connection") == [b"TE"]


@pytest.mark.parametrize("line", ["X_Forwarded_For: 10.9.8.7", "x_forwarded-for: 10.9.8.7", "X_User_Id: 10.9.8.7"])
def test_a_trusted_peer_is_believed_in_one_spelling(line: str) -> None:
    """A balancer that replaces the field with "-" may pass on its client's own with "_"."""
    fields = f"{line}\r\nX-Forwarded-For: 192.0.2.9\r\nX-User-Id: anna"
    head = f"GET /a?b HTTP/1.1\r\nHost: t\r\n{fields}\r\n\r\n".encode()
    rules = RequestRules(True, frozenset({b"x-user-id"}))
    sent, _ = rules.head(
        parse_request(head, LIMITS), b"/a?b", b"t", b"192.0.2.1", ID, LINES, b"cohort.arm=canary", b"", False
    )
    assert b"10.9.8.7" not in sent
    assert values(sent, b"x-forwarded-for") == [b"192.0.2.9, 192.0.2.1"]
    assert values(sent, b"x-user-id") == [b"anna"]


def test_a_remembered_answer_is_written_anew_for_whatever_differs() -> None:
    """Date, framing, our own lines, a prefix, rules of another plan: a remembered head has none of the last one's."""
    memo = ResponseMemo(HeadLimits())
    source = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nLocation: /a\r\nCache-Control: public\r\n\r\n"
    asked = [
        (b"", b"", b"Date: 1\r\n", b"", b"Content-Length: 2\r\n\r\n"),
        (b"", b"", b"Date: 2\r\n", b"", b"Content-Length: 2\r\n\r\n"),
        (b"", b"", b"Date: 2\r\n", b"", b"Content-Length: 2\r\nConnection: close\r\n\r\n"),
        (b"X-Cohort-Arm: canary\r\n", b"", b"Date: 2\r\n", b"", b"Content-Length: 2\r\n\r\n"),
        (b"", b"Set-Cookie: c=1\r\n", b"Date: 2\r\n", b"", b"Content-Length: 2\r\n\r\n"),
        (b"", b"", b"Date: 2\r\n", b"/shop", b"Content-Length: 2\r\n\r\n"),
    ]
    for _ in range(3):
        for rules in (ResponseRules(()), ResponseRules(()), ResponseRules((), b"edge")):
            for arguments in (*asked, *asked):
                fresh = parse_response(source, b"GET", HeadLimits())
                assert rules.head(memo.parse(source, b"GET"), *arguments) == rules.head(fresh, *arguments)
