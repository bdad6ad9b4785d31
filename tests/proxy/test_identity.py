"""Who sent a request: address, key, and the cookie that stands in for a source."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.assign import client_value, user_key
from proxy.decide import Decision, Splitter
from proxy.identity import MAX_TOKEN_BYTES, Networks, TrustedPeers, client_address, jwt_claim
from tests.support.plans import KEYS, MINTED, NOW, cookie_of, decide, request, splitter

HEADER: dict[str, Any] = {"header": {"name": "X-User-Id"}}
ANYONE: dict[str, Any] = {"header": {"name": "X-User-Id", "trust": "Anyone"}}
JWT: dict[str, Any] = {"jwt": {"claim": "sub"}}
UID: dict[str, Any] = {"cookie": {"name": "uid"}}
CLIENT: dict[str, Any] = {"clientAddress": {}}
MINT: dict[str, Any] = {"mint": {}}


def key(label: str, value: str) -> bytes:
    return user_key(label, value.encode(), KEYS.identity.current)


def users(*sources: dict[str, Any], rng: bytes = MINTED) -> Splitter:
    return splitter(users=list(sources), rng=rng)


def jwt(payload: Any, **dumped: Any) -> str:
    """An unsigned token with this payload."""
    text = payload if isinstance(payload, bytes) else json.dumps(payload, **dumped).encode()
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b'{"alg":"none"}', text, b"x"))


# Addresses


@pytest.mark.parametrize(
    ("network", "address", "has"),
    [
        ("10.0.0.0/8", "10.255.0.1", True),
        ("10.0.0.0/8", "11.0.0.0", False),
        ("10.0.0.0/8", "::ffff:10.1.2.3", True),
        ("10.0.0.0/8", "::a00:1", False),
        ("::ffff:10.0.0.0/104", "10.1.2.3", True),
        ("::/0", "10.1.2.3", False),
        ("0.0.0.0/0", "::1", False),
        ("2001:db8::/32", "2001:db8:ffff::1", True),
        ("fe80::/10", "fe80::1%eth0", True),
        ("192.0.2.7/32", "192.0.2.7", True),
        ("0.0.0.0/0", "", False),
        ("0.0.0.0/0", "localhost", False),
        ("0.0.0.0/0", "010.1.1.1", False),
        ("0.0.0.0/0", "1.2.3.4%eth0", False),
    ],
)
def test_an_address_lies_in_a_network(network: str, address: str, has: bool) -> None:
    """IPv4-mapped IPv6, as dual-stack sockets tell it, is IPv4; what is no address lies nowhere."""
    assert Networks([network]).has(address) is has


TRUSTED = TrustedPeers(["10.0.0.0/8", "2001:db8:f::/48"])


@pytest.mark.parametrize(
    ("peer", "lines", "client"),
    [
        ("192.0.2.1", ["9.9.9.9"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", ["8.8.8.8, 9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", ["8.8.8.8", "9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", ["9.9.9.9, 10.0.0.2, 10.0.0.3"], "9.9.9.9"),
        ("10.0.0.1", ["10.0.0.3,10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["9.9.9.9, junk, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["9.9.9.9,"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["unknown"], "10.0.0.1"),
        ("10.0.0.1", ["9.9.9.9:4711"], "9.9.9.9"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["[2001:db8::1]"], "2001:db8::1"),
        ("10.0.0.1", ["2001:DB8:0::1"], "2001:db8::1"),
        ("10.0.0.1", ["::ffff:9.9.9.9"], "9.9.9.9"),
        ("10.0.0.1", ["[2001:db8::1]x"], "10.0.0.1"),
        ("10.0.0.1", ["[2001:db8::1]:"], "10.0.0.1"),
        ("10.0.0.1", ["9.9.9.9:"], "10.0.0.1"),
        ("10.0.0.1", ["9.9.9.9:port"], "10.0.0.1"),
        ("10.0.0.1", ["\xff"], "10.0.0.1"),
        ("10.0.0.1", ["fe80::1%\xe9"], "fe80::1"),
        ("2001:db8:f::1", ["9.9.9.9, 2001:db8:f::2"], "9.9.9.9"),
        ("::ffff:10.0.0.1", ["9.9.9.9"], "9.9.9.9"),
        ("", ["9.9.9.9"], ""),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_not_trusted(peer: str, lines: list[str], client: str) -> None:
    """design.md, wire contract 9. At junk the last good entry counts; entries may have ports."""
    read = request("/", *(f"X-Forwarded-For: {line}" for line in lines))
    assert client_address(read, peer, TRUSTED) == client


@pytest.mark.parametrize(
    ("address", "prefix", "value"),
    [
        ("192.0.2.1", 64, b"192.0.2.1"),
        ("::ffff:192.0.2.1", 64, b"192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", 64, b"2001:db8:1:2::/64"),
        ("2001:0DB8:1:2::", 64, b"2001:db8:1:2::/64"),
        ("2001:db8:1:2:3:4:5:6", 128, b"2001:db8:1:2:3:4:5:6/128"),
        ("fe80::1%eth0", 64, b"fe80::/64"),
        ("", 64, None),
        ("unix", 64, None),
    ],
)
def test_the_value_of_an_address_is_canonical(address: str, prefix: int, value: bytes | None) -> None:
    """One household, one user, however its address is spelt."""
    assert client_value(address, prefix) == value


# The sources


def test_each_source_gives_its_key() -> None:
    """surface.md, one user, one key: blake2b(source NUL value) under the identity secret."""
    token = "Authorization: Bearer " + jwt({"sub": "alice"})
    assert decide(users(HEADER), "/", "X-User-Id: alice", trusted=True).key == key("header:x-user-id", "alice")
    assert decide(users(ANYONE), "/", "X-User-Id: alice").key == key("header:x-user-id", "alice")
    assert decide(users(JWT), "/", token).key == key("jwt:sub", "alice")
    assert decide(users(UID), "/", "Cookie: a=b; uid=alice").key == key("cookie:uid", "alice")
    assert decide(users(CLIENT), client="2001:db8::7").key == key("clientAddress", "2001:db8::/64")
    assert decide(users(MINT)).key == MINTED


@pytest.mark.parametrize("value", ["alice", 'O"Brien; x', "\xe9\xff", "=", "a" * 256], ids=ascii)
def test_a_value_is_bytes(value: str) -> None:
    """Whatever a header may hold, obs-text included, is a name; it is hashed and never parsed."""
    found = decide(users(ANYONE), "/", f"X-User-Id: {value}").key
    assert found == user_key("header:x-user-id", value.encode("latin-1"), KEYS.identity.current)


@pytest.mark.parametrize("value", ["", "a" * 257], ids=["empty", "long"])
def test_an_empty_value_and_one_over_256_bytes_count_as_absent(value: str) -> None:
    """surface.md, one user, one key."""
    assert decide(users(ANYONE, MINT), "/", f"X-User-Id: {value}").key == MINTED
    assert decide(users(UID, MINT), "/", f"Cookie: uid={value}").key == MINTED
    assert decide(users(JWT, MINT), "/", "Authorization: " + jwt({"sub": value})).key == MINTED


def test_a_header_counts_from_trusted_peers_only() -> None:
    """surface.md: trust is TrustedPeers unless the document says Anyone."""
    assert decide(users(HEADER, MINT), "/", "X-User-Id: alice").key == MINTED


def test_a_header_on_two_lines_counts_as_absent() -> None:
    """Before or after the genuine line: what an attacker adds must not make him somebody else."""
    for lines in (["X-User-Id: alice", "x-user-id: eve"], ["X-User-Id: alice", "X-User-Id: alice"]):
        assert decide(users(HEADER, MINT), "/", *lines, trusted=True).key == MINTED
    token = "Authorization: " + jwt({"sub": "alice"})
    assert decide(users(JWT, MINT), "/", token, token).key == MINTED


def test_of_two_cookies_the_first_counts() -> None:
    """Browsers send the most specific path first."""
    assert decide(users(UID), "/", "Cookie: uid=alice", "Cookie: uid=eve").key == key("cookie:uid", "alice")


@pytest.mark.parametrize(
    ("token", "claim"),
    [
        (jwt({"sub": "alice"}), b"alice"),
        ("e30.eyJzdWIiOiAiYWxpY2UifQ.", b"alice"),
        ("Bearer " + jwt({"sub": "alice"}), b"alice"),
        ("bEARER  " + jwt({"sub": "alice"}), b"alice"),
        (jwt({"sub": "é"}, ensure_ascii=False), "é".encode()),
        (jwt({"sub": 42}), b"42"),
        (jwt({"sub": -1}), b"-1"),
        (jwt({"sub": 10**100}), b"1" + b"0" * 100),
        (jwt({"sub": "a\0b"}), b"a\0b"),
        (jwt(b' {"sub": "alice"} '), b"alice"),
        (jwt({"sub": "alice", "roles": [[]], "a": 1.5}), b"alice"),
    ],
    ids=["bare", "unsigned", "bearer", "case", "utf-8", "integer", "negative", "big", "nul", "blanks", "more"],
)
def test_a_claim_of_a_token(token: str, claim: bytes) -> None:
    """RFC 7519: a string, or an integer as its digits; the signature is not looked at."""
    assert jwt_claim(token.encode(), "sub") == claim


@pytest.mark.parametrize(
    "token",
    [
        "", "Bearer ", "Basic YTpi", "a.b", "a.b.c.d", "..", ".e30.", jwt({}), jwt([]), jwt("sub"), jwt(7),
        jwt({"sub": True}), jwt({"sub": None}), jwt({"sub": 1.0}), jwt({"sub": ["alice"]}), jwt({"sub": {}}),
        jwt(b'{"sub": NaN}'), jwt(b'{"sub": "alice", "x": Infinity}'), jwt(b'{"sub": 1e3}'), jwt(b'{"sub": "\\ud800"}'),
        jwt(b'{"sub": "alice"} x'), jwt(b'{"sub": "ali\xff"}'), jwt(b'\xef\xbb\xbf{"sub": "alice"}'),
        jwt('{"sub": "alice"}'.encode("utf-16")), jwt(b"[" * 6000), jwt(b'{"sub":' * 800),
        jwt(b'{"sub": 1' + b"0" * 5000 + b"}"),
        jwt({"sub": "alice"}).replace(".", ". "), "e30.eyJzdWIiOiAiYWxpY2UifQ==.eA",
        "e30.eyJzdWIiOiAiYWxpY2UifR.eA", jwt({"sub": "alice", "x": "y" * MAX_TOKEN_BYTES}),
        "Bearer " * 3 + jwt({"sub": "alice"}), "Bearer\t" + jwt({"sub": "alice"}),
    ],
    ids=[
        "empty", "scheme", "basic", "two", "four", "dots", "empty-claims", "none", "list", "string", "number",
        "boolean", "null", "float", "array", "object", "nan", "infinity", "exponent", "surrogate",
        "trailing", "not-utf-8", "mark", "utf-16", "bomb", "deep", "digits",
        "blank", "padded", "other-bits", "long",
        "schemes", "tab",
    ],
)  # fmt: skip
def test_a_faulty_token_has_no_claim(token: str) -> None:
    """Any fault counts as absent, and none is an exception."""
    assert jwt_claim(token.encode(), "sub") is None


def test_base64_with_the_other_alphabet_is_no_token() -> None:
    """RFC 7515 section 2: base64url without padding."""
    token = jwt({"sub": "alice", "x": "?>?>?>"})
    other = token.replace("-", "+").replace("_", "/")
    assert jwt_claim(token.encode(), "sub") == b"alice"
    assert other != token
    assert jwt_claim(other.encode(), "sub") is None


@given(st.binary(max_size=200))
def test_no_bytes_make_a_token_raise(data: bytes) -> None:
    """The header is whatever a client sends."""
    jwt_claim(data, "sub")
    jwt_claim(jwt(data).encode(), "sub")


# One user, one key


def test_the_first_answer_sets_the_cookie_with_the_key_in_force() -> None:
    """surface.md: the cookie carries the key in force and the rank of the source that it came from."""
    chosen = users(ANYONE, UID, MINT)
    cases = (
        ([], MINTED),
        (["Cookie: uid=7"], key("cookie:uid", "7")),
        (["X-User-Id: 7"], key("header:x-user-id", "7")),
    )
    for lines, found in cases:
        first = decide(chosen, "/", *lines)
        assert first.key == found
        assert not first.rekeyed
        again = decide(chosen, "/", cookie_of(first.set_cookies[0]))
        assert (again.key, again.set_cookies, again.arm) == (found, (), first.arm)


def test_the_cookie_of_a_source_is_not_set_where_mint_is_not_listed() -> None:
    """And a cookie of ours that is still there counts for nothing."""
    minted = cookie_of(decide(users(MINT)).set_cookies[0])
    decision = decide(users(UID), "/", minted + "; uid=7")
    assert (decision.key, decision.set_cookies) == (key("cookie:uid", "7"), ())
    assert decide(users(UID), "/", minted).key is None


def test_the_cookie_stands_in_for_its_source_ahead_of_those_below() -> None:
    """surface.md: a request without the header hashes like one with it, whatever lower sources say."""
    chosen = users(ANYONE, UID, MINT)
    first = decide(chosen, "/", "X-User-Id: alice")
    later = decide(chosen, "/", cookie_of(first.set_cookies[0]) + "; uid=7")
    assert (later.key, later.set_cookies, later.rekeyed) == (key("header:x-user-id", "alice"), (), False)


def test_a_login_rewrites_the_cookie_and_is_counted() -> None:
    """surface.md: when a source of higher rank appears the answer rewrites the cookie; such a user may move once."""
    chosen = users(ANYONE, UID, MINT)
    cookie = cookie_of(decide(chosen).set_cookies[0])
    login = decide(chosen, "/", cookie, "X-User-Id: alice")
    assert (login.key, login.rekeyed, len(login.set_cookies)) == (key("header:x-user-id", "alice"), True, 1)
    after = decide(chosen, "/", cookie_of(login.set_cookies[0]), "X-User-Id: alice")
    assert (after.key, after.rekeyed, after.set_cookies) == (login.key, False, ())
    logout = decide(chosen, "/", cookie_of(login.set_cookies[0]))
    assert (logout.key, logout.rekeyed, logout.set_cookies) == (login.key, False, ())


def test_another_user_of_the_same_source_takes_the_browser_over() -> None:
    """A present source of the cookie's own rank wins over the cookie."""
    chosen = users(ANYONE, MINT)
    cookie = cookie_of(decide(chosen, "/", "X-User-Id: alice").set_cookies[0])
    other = decide(chosen, "/", cookie, "X-User-Id: bob")
    assert (other.key, other.rekeyed, len(other.set_cookies)) == (key("header:x-user-id", "bob"), True, 1)


def test_a_cookie_whose_rank_is_beyond_the_sources_is_a_minted_one() -> None:
    """A plan with fewer sources: the user stays."""
    cookie = cookie_of(decide(users(ANYONE, UID, JWT, MINT)).set_cookies[0])
    assert decide(users(MINT), "/", cookie).key == MINTED
    assert decide(users(ANYONE, MINT), "/", cookie, "X-User-Id: alice").rekeyed


def test_a_cookie_at_half_of_its_life_is_renewed_with_its_key_and_rank() -> None:
    """And a request with the source present renews it too."""
    chosen = users(ANYONE, UID, MINT)
    half = NOW + 2160 * 3600 / 2 + 1
    for lines in (["X-User-Id: alice"], ["Cookie: uid=7"], []):
        first = decide(chosen, "/", *lines)
        for again in ([], lines):
            cookie = cookie_of(first.set_cookies[0])
            renewed = decide(chosen, "/", cookie, *again, now=half)
            assert (renewed.key, renewed.rekeyed) == (first.key, False)
            assert renewed.set_cookies == decide(chosen, "/", *lines, now=half).set_cookies


def test_a_forged_cookie_is_replaced() -> None:
    """issue: forged or foreign values are ignored and replaced."""
    decision = decide(users(MINT), "/", "Cookie: cohort_checkout=" + "A" * 56)
    assert decision.key == MINTED
    assert decision.set_cookies[0].startswith(b"Set-Cookie: cohort_checkout=")


def test_secure_where_the_client_side_is_tls() -> None:
    """issue: Secure where the client side is TLS."""
    assert decide(users(MINT), secure=True).set_cookies[0].endswith(b"; Secure\r\n")
    assert b"Secure" not in decide(users(MINT)).set_cookies[0]


def test_name_and_age_of_the_cookie_are_the_documents() -> None:
    """surface.md: mint has maxAge and name."""
    line = decide(users({"mint": {"name": "cid", "maxAge": "1h"}})).set_cookies[0]
    assert line.startswith(b"Set-Cookie: cid=")
    assert b"; Max-Age=3600;" in line


requests_seen = st.lists(
    st.tuples(st.sampled_from([None, "a", "b"]), st.sampled_from([None, "7", "8"]), st.booleans()), max_size=12
)


@given(requests_seen)
def test_a_browser_has_the_key_that_the_rule_gives_it(seen: list[tuple[str | None, str | None, bool]]) -> None:
    """The rule of surface.md, written down a second time, over any sequence of requests with and without sources."""
    chosen = users(ANYONE, UID, MINT)
    jar: tuple[bytes, int] | None = None
    line = ""
    for header, uid, keeps in seen:
        present = [key("header:x-user-id", header) if header else None, key("cookie:uid", uid) if uid else None]
        most = 3 if jar is None else jar[1] + 1
        expected = next(((k, rank) for rank, k in enumerate(present[:most]) if k), jar or (MINTED, 2))
        cookies = "; ".join(part for part in (line.removeprefix("Cookie: "), f"uid={uid}" if uid else "") if part)
        lines = [f"X-User-Id: {header}"] * bool(header) + [f"Cookie: {cookies}"] * bool(cookies)
        decision: Decision = decide(chosen, "/", *lines)
        assert decision.key == expected[0]
        assert bool(decision.set_cookies) == (expected != jar)
        assert decision.rekeyed == (jar is not None and expected[0] != jar[0])
        if keeps and decision.set_cookies:
            jar, line = expected, cookie_of(decision.set_cookies[0])


# Requests without a key

PREFLIGHT = ("Origin: https://a.example", "Access-Control-Request-Method: PUT")


@pytest.mark.parametrize(
    ("method", "lines", "keeps"),
    [
        ("GET", [], True),
        ("OPTIONS", PREFLIGHT, False),
        ("OPTIONS", PREFLIGHT[:1], True),
        ("OPTIONS", PREFLIGHT[1:], True),
        ("GET", PREFLIGHT, True),
        ("GET", ["Sec-Fetch-Mode: cors", "Sec-Fetch-Site: cross-site"], False),
        ("POST", ["Sec-Fetch-Mode: cors", "Sec-Fetch-Site: same-site"], False),
        ("GET", ["Sec-Fetch-Mode: cors", "Sec-Fetch-Site: cross-site", "Cookie: a=b"], True),
        ("GET", ["Sec-Fetch-Mode: cors", "Sec-Fetch-Site: same-origin"], True),
        ("GET", ["Sec-Fetch-Mode: cors", "Sec-Fetch-Site: none"], True),
        ("GET", ["Sec-Fetch-Mode: cors"], True),
        ("GET", ["Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: cross-site"], True),
        ("GET", ["Sec-Fetch-Mode: no-cors", "Sec-Fetch-Site: cross-site"], True),
    ],
)
def test_who_cannot_keep_a_cookie_is_nobody(method: str, lines: list[str], keeps: bool) -> None:
    """surface.md, the order: a CORS preflight, a cross-origin fetch without credentials."""
    decision = decide(users(ANYONE, MINT), "/", *lines, method=method)
    assert (decision.key is not None, bool(decision.set_cookies)) == (keeps, keeps)
    assert decision.reason == ("split" if keeps else "unkeyed")
    keyed = decide(users(ANYONE, MINT), "/", *lines, "X-User-Id: alice", method=method)
    assert (keyed.key, keyed.reason) == (key("header:x-user-id", "alice"), "split")


def test_without_mint_a_request_without_a_key_is_nobody() -> None:
    """No way to keep one: stable, no cookie."""
    decision = decide(users(HEADER, JWT, UID), client="192.0.2.1")
    assert (decision.key, decision.reason, decision.arm, decision.source) == (None, "unkeyed", 0, "forced")


def test_a_client_without_an_address_is_nobody() -> None:
    """A peer on a Unix socket."""
    assert decide(users(CLIENT), client="").reason == "unkeyed"
