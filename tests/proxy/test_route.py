"""Which route a request matches, and what a prefix leaves of a target."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.errors import DownstreamError
from proxy.route import has_dot_segment, is_below, normalise, strip, with_separators
from tests.support.plans import arms, decide, splitter


def matches(match: dict[str, Any], target: str = "/", *lines: str, trust: str = "Anyone", **sent: Any) -> bool:
    """Whether a route with this one match counts for a request."""
    chosen = splitter(routes=[{"name": "r", "matches": [match], "arm": "canary", "trust": trust}])
    return decide(chosen, target, *lines, **sent).reason == "route/r"


# Paths

paths = st.lists(
    st.sampled_from([b"/", b"a", b"%61", b"%2F", b"%2f", b"%5c", b"%C3", b"%c3", b"%", b"%2", b"%zz", b".", b";", b"~"])
).map(lambda parts: b"/" + b"".join(parts))


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        (b"/", b"/"),
        (b"/a/b", b"/a/b"),
        (b"//a///b//", b"/a/b/"),
        (b"/%61%2D%5f%7E%2e", b"/a-_~."),
        (b"/%2f%5c%20%c3%a9%25", b"/%2F%5C%20%C3%A9%25"),
        (b"/%%41%4/%zz%", b"/%A%4/%zz%"),
        (b"/%2561", b"/%2561"),
        (b"/a;x=%3B", b"/a;x=%3B"),
        (b"/A", b"/A"),
    ],
)
def test_the_normalised_path(path: bytes, normal: bytes) -> None:
    """design.md, wire contract 5; RFC 3986 sections 6.2.2.1 and 6.2.2.2."""
    assert normalise(path) == normal


@given(paths)
def test_normalising_reads_each_escape_once(path: bytes) -> None:
    """The same by regular expression; so nothing is decoded twice."""

    def plain(match: re.Match[bytes]) -> bytes:
        byte = bytes((int(match[1], 16),))
        return byte if re.fullmatch(rb"[A-Za-z0-9._~-]", byte) else match[0].upper()

    once = re.sub(rb"%([0-9A-Fa-f]{2})", plain, path)
    assert normalise(path) == re.sub(rb"/+", b"/", once)


@pytest.mark.parametrize(
    ("path", "dots"),
    [
        (b"/a/../b", True), (b"/.", True), (b"/..", True), (b"/./", True), (b"/a/..", True), (b"/..;x=1/b", True),
        (b"/.;/b", True), (b"/", False), (b"/.a", False), (b"/..a", False), (b"/a..", False), (b"/...", False),
        (b"/a/.well-known/b", False), (b"/a.b", False), (b"/a;..", False),
    ],
)  # fmt: skip
def test_dot_segments(path: bytes, dots: bool) -> None:
    """RFC 3986 section 3.3; a parameter behind the dots hides them from some parsers only."""
    assert has_dot_segment(path) is dots


@pytest.mark.parametrize(
    ("type_", "value", "path", "found"),
    [
        ("Exact", "/a", "/a", True),
        ("Exact", "/a", "/a/", False),
        ("Exact", "/a", "/A", False),
        ("Exact", "/a", "/a?b", True),
        ("Exact", "/a", "//a", True),
        ("Exact", "/a", "/%61", True),
        ("Exact", "/%7ea%c3%a9", "/~a%C3%A9", True),
        ("Exact", "/%c3%a9", "/%C3%a9", True),
        ("PathPrefix", "/v2", "/v2", True),
        ("PathPrefix", "/v2", "/v2/", True),
        ("PathPrefix", "/v2/", "/v2", True),
        ("PathPrefix", "/v2/", "/v2/x", True),
        ("PathPrefix", "/v2", "/v2example", False),
        ("PathPrefix", "/v2", "/foo/v2/x", False),
        ("PathPrefix", "/v2", "///v2//x", True),
        ("PathPrefix", "/v2", "/%762/x", True),
        ("PathPrefix", "/v2", "/v2;p/x", False),
        ("PathPrefix", "/", "/", True),
        ("PathPrefix", "/", "/any", True),
        ("RegularExpression", "/a.*", "/abc", True),
        ("RegularExpression", "/a", "/abc", False),
        ("RegularExpression", "/a|/b", "/b", True),
        ("RegularExpression", "a", "/a", False),
        ("RegularExpression", "(?i)/A", "/a", True),
        ("RegularExpression", "/a", "/%61", True),
        ("RegularExpression", "/%C3%A9", "/%c3%a9", True),
        ("RegularExpression", "(/a*)*", "/" + "a" * 5000 + "!", False),
    ],
)
def test_a_path_matches(type_: str, value: str, path: str, found: bool) -> None:
    """Gateway API: whole segments, case counts (wire case RO-03); expressions match the whole path, in linear time."""
    assert matches({"path": {"type": type_, "value": value}}, path) is found


@given(paths)
def test_an_element_prefix_is_what_splitting_at_slashes_says(path: bytes) -> None:
    """By segments, never by characters."""
    path = normalise(path)
    for prefix in (b"/a", b"/a/a", b"/a%2Fa"):
        parts, wanted = path.split(b"/"), prefix.split(b"/")
        assert is_below(path, prefix) == (parts[: len(wanted)] == wanted)


# Ambiguous targets

PATHS: dict[str, Any] = {
    "routes": [
        {"name": "admin", "matches": [{"path": {"value": "/admin"}}], "answer": 403},
        {"name": "pre", "matches": [{"hostnames": ["pre.example"]}], "arm": "canary", "stripPrefix": "/pre"},
    ]
}


@pytest.mark.parametrize(
    "target",
    [
        "/public/../admin/x", "/public/%2e%2e/admin", "/public/%2E./admin", "/./a", "/a/.", "/a/..", "/..%2fadmin",
        "/public/..%5Cadmin", "/public%2f..%2Fadmin", "/admin%2Fx", "/admin%2fx", "/admin%5cx", "/admin%5Cx",
        "/%2fadmin", "/%5Cadmin/x", "/x/..;/admin", "/..;jsessionid=1/admin", "/a%2f.", "/.cohort%2Fpreview",
        "/%2e%2e/", "//..//", "/.cohort/../admin",
    ],
)  # fmt: skip
def test_a_target_that_services_read_in_two_ways_is_refused(target: str) -> None:
    """design.md, wire contract 5; wire case RL-20."""
    with pytest.raises(DownstreamError) as caught:
        decide(splitter(**PATHS), target)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "target",
    [
        "/a%2Fb%2e%2E/%c3%A9?x=%26&y=a+b&z=%20", "/files/a%2fb", "/a%5Cb", "/a?../..", "/a?x=/../admin%2F",
        "/.well-known/x", "/...", "/a..b/", "/%2f%2fhost", "/adminx%2Fy", "/a//b", "/%", "/a;b/..c",
    ],
)  # fmt: skip
def test_an_honest_target_goes_on_byte_for_byte(target: str) -> None:
    """No refusal of an honest %2F and no silent rewriting: wire case RL-18."""
    decision = decide(splitter(**PATHS), target)
    assert (decision.target, decision.answer, decision.reason) == (target.encode(), 0, "split")


def test_inside_one_route_an_escaped_slash_is_honest() -> None:
    """Both readings choose the same."""
    assert decide(splitter(**PATHS), "/admin/a%2Fb").answer == 403


def test_an_escaped_slash_that_would_change_what_is_stripped_is_refused() -> None:
    """The choice is the route and what it leaves of the target."""
    chosen = splitter(**PATHS)
    assert decide(chosen, "/pre/a%2Fb", host="pre.example").target == b"/a%2Fb"
    assert decide(chosen, "/x%2Fpre", host="pre.example").target == b"/x%2Fpre"
    with pytest.raises(DownstreamError):
        decide(chosen, "/pre%2Fa", host="pre.example")


@pytest.mark.parametrize("target", ["/a/../b", "/%2e%2e/", "/a%2fb", "/.cohort%2fpreview", "/..;/a"])
def test_nothing_is_refused_where_no_route_looks_at_paths(target: str) -> None:
    """design.md, wire contract 5: then the service alone knows what its paths mean."""
    other = {"name": "m", "matches": [{"method": "PUT"}, {"queryParams": [{"name": "a", "value": "b"}]}], "answer": 403}
    assert decide(splitter(routes=[other]), target).target == target.encode()


@given(paths)
def test_what_is_let_through_means_the_same_with_separators_decoded(path: bytes) -> None:
    """The law behind the refusals: whichever way a service reads the path, it is on the same side of every route."""
    try:
        decision = decide(splitter(**PATHS), path.decode())
    except DownstreamError:
        return
    for other in (normalise(path), with_separators(normalise(path))):
        assert not {b".", b".."} & set(other.split(b"/"))
        assert is_below(other, b"/admin") == (decision.answer == 403)


# The other conditions


@pytest.mark.parametrize(
    ("type_", "value", "sent", "found"),
    [
        ("Exact", "yes", "yes", True),
        ("Exact", "yes", "YES", False),
        ("Exact", "yes", "yes,no", False),
        ("Exact", "yes", " yes\t", True),
        ("Exact", "é", "\xc3\xa9", True),
        ("Exact", "", "", True),
        ("Prefix", "ye", "yes", True),
        ("Prefix", "es", "yes", False),
        ("Suffix", "es", "yes", True),
        ("Suffix", "ye", "yes", False),
        ("RegularExpression", "y.s", "yes", True),
        ("RegularExpression", "y.", "yes", False),
        ("RegularExpression", ".*", "\xff\x80", True),
        ("RegularExpression", "(a+)+", "a" * 20_000 + "!", False),
        ("Present", None, "", True),
        ("Present", None, "x", True),
    ],
)
def test_a_header_matches(type_: str, value: str | None, sent: str, found: bool) -> None:
    """Gateway API's types and ours; an expression matches the whole value; values are bytes."""
    condition = {"headers": [{"name": "X-Staff", "type": type_} | ({} if value is None else {"value": value})]}
    assert matches(condition, "/", f"x-STAFF: {sent}") is found
    assert matches(condition) is False


def test_the_first_of_repeated_header_lines_counts() -> None:
    """wire case FW-10: a second line must not flip the rule."""
    condition = {"headers": [{"name": "X-Canary", "value": "yes"}]}
    assert not matches(condition, "/", "X-Canary: no", "X-Canary: yes")
    assert matches(condition, "/", "X-Canary: yes", "X-Canary: no")


def test_the_host_can_be_matched_as_a_header() -> None:
    """Host is no end-to-end field of the parser, and still a header to who writes a route."""
    assert matches({"headers": [{"name": "Host", "type": "Prefix", "value": "shop."}]})


def test_headers_count_from_trusted_peers_only_unless_the_route_says_anyone() -> None:
    """surface.md: a header match from elsewhere does not hold; other matches of the same route do."""
    chosen = splitter(
        routes=[
            {
                "name": "staff",
                "matches": [{"headers": [{"name": "X-Staff", "value": "yes"}]}, {"clientNetworks": ["192.0.2.0/24"]}],
                "arm": "canary",
            }
        ]
    )
    assert decide(chosen, "/", "X-Staff: yes", client="9.9.9.9").reason == "split"
    assert decide(chosen, "/", "X-Staff: yes", client="9.9.9.9", trusted=True).reason == "route/staff"
    assert decide(chosen, client="192.0.2.9").reason == "route/staff"


def test_an_absent_header_cannot_be_asked_for_by_an_untrusted_peer_either() -> None:
    """Prefix of nothing matches any value, and none of an untrusted peer's."""
    condition = {"headers": [{"name": "X-Staff", "type": "Present"}]}
    assert not matches(condition, "/", "X-Staff: yes", trust="TrustedPeers")
    assert matches(condition, "/", "X-Staff: yes", trust="TrustedPeers", trusted=True)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("animal=whale", True), ("animal=whale&otherparam=irrelevant", True), ("x=1&animal=whale", True),
        ("animal=whaledolphin", False), ("Animal=whale", False), ("animal=dolphin&animal=whale", False),
        ("animal=whale&animal=dolphin", True), ("%61nimal=wh%61le", True), ("animal", False), ("", False),
    ],
)  # fmt: skip
def test_a_query_parameter_matches(query: str, found: bool) -> None:
    """wire case RO-05: name case-sensitive, value exact, first occurrence."""
    assert matches({"queryParams": [{"name": "animal", "value": "whale"}]}, f"/?{query}") is found


def test_query_parameters_are_decoded() -> None:
    """As forms write them; an expression sees the decoded value."""
    assert matches({"queryParams": [{"name": "q", "value": "a b+c"}]}, "/?q=a+b%2Bc")
    assert matches({"queryParams": [{"name": "q", "type": "RegularExpression", "value": "a.b"}]}, "/?q=a%26b")
    assert matches({"queryParams": [{"name": "q", "type": "Present"}]}, "/?q")


@pytest.mark.parametrize(
    ("cookie", "found"),
    [
        ("country=FR", True), ("a=b; country=FR; c=d", True), ("country=fr", False), ("Country=FR", False),
        ("xcountry=FR", False), ("country=DE; country=FR", False), ("country=FR; country=DE", True),
        ('country="FR"', False), ("country", False), ("country=", False),
    ],
)  # fmt: skip
def test_a_cookie_matches(cookie: str, found: bool) -> None:
    """Case counts, of equal names the first."""
    assert matches({"cookies": [{"name": "country", "value": "FR"}]}, "/", f"Cookie: {cookie}") is found


@pytest.mark.parametrize(
    ("host", "names", "found"),
    [
        ("shop.example", ["shop.example"], True),
        ("SHOP.Example:8080", ["shop.example"], True),
        ("shop.example:", ["shop.example"], True),
        ("shop.example.", ["shop.example"], True),
        ("shop.example.:80", ["shop.example"], True),
        ("xshop.example", ["shop.example"], False),
        ("a.shop.example", ["shop.example"], False),
        ("a.shop.example", ["*.shop.example"], True),
        ("a.b.shop.example:1", ["*.shop.example"], True),
        ("shop.example", ["*.shop.example"], False),
        (".shop.example", ["*.shop.example"], False),
        ("ashop.example", ["*.shop.example"], False),
        ("b.example", ["a.example", "*.c.example", "b.example"], True),
        ("[::1]:80", ["shop.example"], False),
        ("[::1]", ["1"], False),
        ("127.0.0.1:80", ["127.0.0.1"], True),
    ],
)
def test_a_hostname_matches(host: str, names: list[str], found: bool) -> None:
    """wire case HO-11: no case, no port; ``*.`` stands for one or more labels."""
    assert matches({"hostnames": names}, host=host) is found


def test_a_method_matches_with_its_case() -> None:
    """RFC 9110 section 9.1: methods are case-sensitive."""
    assert matches({"method": "PUT"}, method="PUT")
    assert not matches({"method": "PUT"})
    assert not matches({"method": "GET"}, method="get")


@pytest.mark.parametrize(
    ("client", "found"),
    [("192.0.2.9", True), ("192.0.3.9", False), ("::ffff:192.0.2.9", True), ("2001:db8::1", True), ("", False)],
)
def test_a_client_network_matches(client: str, found: bool) -> None:
    """The client's address, behind trusted peers the forwarded one."""
    assert matches({"clientNetworks": ["192.0.2.0/24", "2001:db8::/32"]}, client=client) is found


def test_within_a_match_all_conditions_hold_and_of_several_matches_one() -> None:
    """surface.md: within one all hold, of several one suffices."""
    both = {"method": "PUT", "path": {"value": "/a"}, "cookies": [{"name": "c", "type": "Present"}]}
    assert matches(both, "/a", "Cookie: c=1", method="PUT")
    assert not matches(both, "/b", "Cookie: c=1", method="PUT")
    assert not matches(both, "/a", method="PUT")
    assert not matches(both, "/a", "Cookie: c=1")
    chosen = splitter(routes=[{"name": "r", "matches": [both, {"method": "POST"}], "arm": "canary"}])
    assert decide(chosen, method="POST").reason == "route/r"


# stripPrefix


@pytest.mark.parametrize(
    ("target", "left"),
    [
        ("/canary", "/"),
        ("/canary/", "/"),
        ("/canary?y", "/?y"),
        ("/canary/?y", "/?y"),
        ("/canary/x?y=/canary", "/x?y=/canary"),
        ("/canary/a%2Fb//c/%c3", "/a%2Fb//c/%c3"),
        ("/%63anary/x", "/x"),
        ("//canary/x", "/x"),
        ("/%63%61nar%79//x", "/x"),
        ("/canary//evil.example/x", "/evil.example/x"),
        ("/canary///", "/"),
        ("/canary/canary", "/canary"),
    ],
)
def test_a_prefix_is_taken_from_the_target_however_it_is_spelt(target: str, left: str) -> None:
    """What follows stays byte for byte, behind exactly one slash: two would name another host."""
    chosen = splitter(
        routes=[{"name": "c", "matches": [{"path": {"value": "/canary"}}], "arm": "canary", "stripPrefix": "/canary/"}]
    )
    decision = decide(chosen, target)
    assert (decision.target, decision.strip_prefix, decision.arm) == (left.encode(), b"/canary", 1)


def test_an_escaped_prefix_is_taken_in_any_spelling() -> None:
    """Prefixes may hold escapes; their case and those that need none do not count."""
    chosen = splitter(
        routes=[{"name": "c", "matches": [{"method": "GET"}], "arm": "canary", "stripPrefix": "/caf%c3%a9/~"}]
    )
    for target in ("/caf%C3%A9/~/x", "/caf%c3%a9//%7e/x", "/c%61f%C3%a9/~/x"):
        assert decide(chosen, target).target == b"/x"


def test_without_the_prefix_the_target_stays() -> None:
    """A route may match by host, and strip where there is something to strip."""
    chosen = splitter(
        routes=[{"name": "c", "matches": [{"method": "GET"}], "arm": "canary", "stripPrefix": "/pre"}], arms=arms(2_500)
    )
    for target in ("/prefix", "/", "/x/pre"):
        decision = decide(chosen, target)
        assert (decision.target, decision.strip_prefix) == (target.encode(), b"")
    slash = splitter(routes=[{"name": "c", "matches": [{"method": "GET"}], "arm": "canary", "stripPrefix": "/"}])
    assert (decide(slash, "/a").target, decide(slash, "/a").strip_prefix) == (b"/a", b"")


@given(paths, paths)
def test_what_is_left_normalises_to_what_the_normalised_path_leaves(path: bytes, prefix: bytes) -> None:
    """Stripping and normalising commute, whatever the spelling."""
    wanted = normalise(prefix).rstrip(b"/")
    assume(wanted)
    left = strip(path, wanted)
    normal = normalise(path)
    if left is None:
        assert not is_below(normal, wanted)
    else:
        assert normalise(left) == (normal[len(wanted) :] or b"/")
        assert left.startswith(b"/")
        assert not left.startswith(b"//")
