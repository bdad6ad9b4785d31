"""The plan: what is accepted, and every fault of what is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.document import DocumentError
from proxy.plan import FieldMatch, Plan, compile_regex, parse_plan
from tests.support.plans import arms, plan

ARM = {"name": "stable", "revision": "v1", "weightBp": 10_000}


def faults(**fields: Any) -> list[str]:
    """What is wrong with the usual plan but for these fields."""
    with pytest.raises(DocumentError) as caught:
        plan(**fields)
    return [str(fault) for fault in caught.value.faults]


def route(**fields: Any) -> dict[str, Any]:
    return {"name": "r", "matches": [{"method": "GET"}], "arm": "canary"} | fields


def match(**fields: Any) -> dict[str, Any]:
    return {"routes": [route(matches=[fields])]}


def test_a_plan_survives_its_text() -> None:
    """Serialise then parse is the identity, for YAML's JSON too; the last good plan on disk is this."""
    whole = plan(
        arms=[
            {**arm, "endpoints": [{"address": address, "port": 80}]}
            for arm, address in zip(arms(2_500, 100), ("192.0.2.1", "2001:db8::1", "127.0.0.1"), strict=True)
        ],
        users=[
            {"header": {"name": "X-User-Id"}},
            {"jwt": {"claim": "sub"}},
            {"cookie": {"name": "uid"}},
            {"clientAddress": {"ipv6Prefix": 56}},
            {"mint": {"maxAge": "2160h"}},
        ],
        routes=[
            route(always=True, stripPrefix="/x"),
            route(name="s", arm=None, split={"atLeast": "0.25"}),
            route(name="t", arm=None, answer=404, matches=[{"path": {"type": "RegularExpression", "value": "/a|/b"}}]),
        ],
        headerRoutes=[{"name": "qa", "matches": [{"name": "X-QA", "type": "Present"}]}],
        preview={"access": "Token"},
        explain="Always",
        lifts=["0123abcd"],
    )
    text = whole.model_dump_json(by_alias=True)
    assert parse_plan(text) == whole
    assert parse_plan(text.encode()) == whole
    assert parse_plan(json.dumps(json.loads(text), indent=1)).etag == whole.etag


def test_the_etag_tells_generation_endpoints_and_content() -> None:
    """RFC 9110 section 8.8.3: equal bytes, equal tag; anything else, another one."""
    one = plan(generation=7, endpointsVersion=3)
    assert one.version == (7, 3)
    assert one.etag == f'"7.3.{one.digest}"'
    assert len(one.digest) == 32
    others = [plan(generation=7, endpointsVersion=3, explain="Never"), plan(generation=7), plan(generation=8)]
    assert len({other.etag for other in (*others, one)}) == 4
    assert others[0].digest != one.digest


def test_the_cookie_is_named_after_the_rollout_or_by_mint() -> None:
    """surface.md: default name cohort_<rollout>."""
    assert plan().cookie_name == "cohort_checkout"
    assert plan(users=[{"mint": {"name": "cid"}}]).cookie_name == "cid"
    assert plan(users=[{"cookie": {"name": "uid"}}]).mint is None


def test_the_labels_of_the_sources() -> None:
    """What goes into the user key, and what `whoami --key` takes."""
    users = [{"header": {"name": "X-User-Id"}}, {"jwt": {"claim": "sub"}}, {"cookie": {"name": "UID"}}]
    users += [{"clientAddress": {}}, {"mint": {}}]
    labels = [user.label for user in plan(users=users).users]
    assert labels == ["header:x-user-id", "jwt:sub", "cookie:UID", "clientAddress", "mint"]


def test_weights_sum_to_ten_thousand() -> None:
    """surface.md, plan: weightBp summing to 10,000; arms stable first, at most three, each of its own name."""
    assert faults(arms=[ARM, ARM]) == ["arms: names must differ", "arms: weightBp must sum to 10000, got 20000"]
    assert faults(arms=[{**ARM, "weightBp": 9_999}]) == ["arms: weightBp must sum to 10000, got 9999"]
    assert faults(arms=[]) == ["arms: Tuple should have at least 1 item after validation, not 0"]
    assert len(faults(arms=[ARM] * 4)) == 1
    assert faults(arms=[{**ARM, "weightBp": 10_001}])[0].startswith("arms[0].weightBp: ")
    assert faults(arms=[{**ARM, "weightBp": 1.0}])[0].startswith("arms[0].weightBp: ")


def test_without_a_revision_on_trial_stable_has_all() -> None:
    """There is nobody to give a share to."""
    assert faults(revision=None) == ["arms[0].weightBp: without a revision on trial the first arm has all 10000"]
    assert plan(revision=None, arms=arms(0)).revision is None


@pytest.mark.parametrize("address", ["localhost", "", "127.0.0.1:80", "[::1]", "1.2.3", "010.0.0.1"])
def test_an_endpoint_is_an_ip_address(address: str) -> None:
    """Names are never resolved on the request path."""
    assert faults(arms=[{**ARM, "endpoints": [{"address": address, "port": 1}]}]) == [
        f"arms[0].endpoints[0]: address: expected an IPv4 or IPv6 address, got {address!r}"
    ]


def test_mint_is_last_and_sources_are_listed_once() -> None:
    """surface.md, users."""
    assert faults(users=[{"mint": {}}, {"cookie": {"name": "uid"}}]) == ["users[0]: mint must be the last source"]
    uid = {"cookie": {"name": "uid"}}
    assert faults(users=[uid, uid]) == ["users[1]: cookie:uid is listed twice"]
    assert faults(users=[{}]) == ["users[0]: exactly one of header, jwt, cookie, clientAddress and mint is needed"]
    assert faults(users=[uid | {"mint": {}}])[0].startswith("users[0]: exactly one of ")
    assert len(faults(users=[])) == 1
    assert faults(users=[{"header": {"name": "X User"}}])[0].startswith("users[0].header.name: ")
    assert faults(users=[{"mint": {"maxAge": "59s"}}])[0].startswith("users[0].mint.maxAge: ")
    assert faults(users=[{"clientAddress": {"ipv6Prefix": 129}}])[0].startswith("users[0].clientAddress.ipv6Prefix: ")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arm": None}, "routes[0]: exactly one of arm, split and answer is needed"),
        ({"answer": 404}, "routes[0]: exactly one of arm, split and answer is needed"),
        ({"arm": "purple"}, "routes[0].arm: expected one of stable, canary, got 'purple'"),
        ({"arm": None, "answer": 200}, "routes[0].answer: Input should be greater than or equal to 400 (got 200)"),
        ({"arm": None, "answer": 404, "stripPrefix": "/a"}, "routes[0]: stripPrefix has no meaning beside answer"),
        ({"arm": None, "split": {}, "always": True}, "routes[0]: always needs arm or answer"),
        ({"arm": None, "split": {"atLeast": 2, "atMost": 1}}, "routes[0].split: atLeast is above atMost"),
        ({"matches": []}, "routes[0].matches: Tuple should have at least 1 item after validation, not 0"),
        ({"matches": [{}]}, "routes[0].matches[0]: a match needs a condition: path, headers, "),
        ({"name": "R"}, "routes[0].name: String should match pattern '^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$' (got 'R')"),
        ({"stripPrefix": "a"}, "routes[0].stripPrefix: expected a path that starts with / "),
        ({"trust": "Nobody"}, "routes[0].trust: Input should be 'TrustedPeers' or 'Anyone' (got 'Nobody')"),
        ({"weight": 5}, "routes[0].weight: unknown field: remove it or check its spelling"),
    ],
    ids=[
        "none", "two", "unknown-arm", "answer-200", "answer-strip", "always-split", "bounds", "no-match", "empty-match",
        "name", "strip", "trust", "unknown",
    ],
)  # fmt: skip
def test_a_faulty_route(fields: dict[str, Any], message: str) -> None:
    """surface.md, routes: unique names, exactly one of arm, split and answer."""
    found = faults(routes=[route(**fields)])
    assert len(found) == 1
    assert found[0].startswith(message)


def test_names_of_routes_differ() -> None:
    """A name is a reason and a label."""
    assert faults(routes=[route(), route()]) == ["routes[1].name: r is used twice"]
    qa = {"name": "qa", "matches": [{"name": "a", "value": "b"}]}
    assert faults(headerRoutes=[qa, qa]) == ["headerRoutes: names must differ"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": {"value": "a"}}, "path: expected a path that starts with / and has neither ? nor #, got 'a'"),
        ({"path": {"value": "/a?b"}}, "path: expected a path that starts with / and has neither ? nor #, got '/a?b'"),
        ({"path": {"value": "/é"}}, "path: expected a path that starts with / and has neither ? nor #, got '/é'"),
        ({"path": {"type": "Prefix", "value": "/a"}}, "path.type: Input should be 'Exact', 'PathPrefix' or "),
        ({"path": {}}, "path.value: required field is missing"),
        ({"headers": [{"name": "a"}]}, "headers[0]: a match of type Exact needs a value"),
        ({"headers": [{"name": "a", "type": "Present", "value": "b"}]}, "headers[0]: a match of type Present has "),
        ({"clientNetworks": ["192.0.2.1/24"]}, "clientNetworks[0]: expected a network such as "),
        ({"clientNetworks": ["x"]}, "clientNetworks[0]: expected a network such as "),
        ({"method": "get"}, "method: String should match pattern '^[A-Z]{1,20}$' (got 'get')"),
    ],
    ids=["path", "query", "ascii", "type", "no-path", "no-value", "value", "host-bits", "network", "method"],
)  # fmt: skip
def test_a_faulty_match(fields: dict[str, Any], message: str) -> None:
    """Each fault with the path of its field."""
    found = faults(**match(**fields))
    assert len(found) == 1
    assert found[0].startswith(f"routes[0].matches[0].{message}")


@pytest.mark.parametrize("field", [{"path": None}, {"headers": []}, {"clientNetworks": []}], ids=str)
def test_a_field_without_content_is_no_condition(field: dict[str, Any]) -> None:
    """An empty `path:` or a list that a template left empty would be a rule for everybody."""
    assert faults(**match(**field))[0].startswith("routes[0].matches[0]: a match needs a condition: ")


@pytest.mark.parametrize(
    "name", ["*", "*.*.example", "a*.example", "Shop.example", "shop.example:80", "shop.example.", ""]
)
def test_a_hostname_is_lower_case_without_port(name: str) -> None:
    """As an HTTPRoute's."""
    assert faults(**match(hostnames=[name]))[0].startswith("routes[0].matches[0].hostnames[0]: ")


@pytest.mark.parametrize("pattern", ["(", "a{1001}", "(?=a)", r"(a)\1", "[z-a]", "((a{100}){100}){100}"])
def test_a_regular_expression_is_one_of_re2(pattern: str) -> None:
    """Linear time on hostile input: no look-around, no back references, no huge programs."""
    assert faults(**match(headers=[{"name": "a", "type": "RegularExpression", "value": pattern}]))[0].startswith(
        "routes[0].matches[0].headers[0]: not a regular expression of RE2: "
    )


def test_a_regular_expression_sees_bytes() -> None:
    """Any byte is a character, so nothing a client sends is an error."""
    assert compile_regex("a.c").fullmatch(b"a\xffc")
    assert compile_regex("é").fullmatch("é".encode())
    assert not compile_regex("a").fullmatch(b"a\n")


def test_several_faults_are_told_at_once() -> None:
    """house-style.md: every fault reported with its field path."""
    found = faults(generation=0, salt="x", arms=[{**ARM, "revision": "-"}], explain="Perhaps")
    assert [fault.partition(":")[0] for fault in found] == ["generation", "salt", "arms[0].revision", "explain"]


@pytest.mark.parametrize("field", ["judge", "strategy"])
def test_what_does_not_work_yet_is_unknown(field: str) -> None:
    """A field that does nothing would be a promise."""
    assert faults(**{field: {}}) == [f"{field}: unknown field: remove it or check its spelling"]


def test_the_preview_lies_below_the_reserved_path() -> None:
    """surface.md: reserved paths /.cohort/*."""
    assert faults(preview={"path": "/preview"})[0].startswith("preview: path must lie below /.cohort/")
    assert plan(preview={"path": "/.cohort/pick"}).preview.access == "Disabled"


@pytest.mark.parametrize("lift", ["", "xyz", "0123ABCD", "0" * 65])
def test_a_lift_is_the_id_of_a_latch(lift: str) -> None:
    """Lower-case hexadecimal digits."""
    assert faults(lifts=[lift])[0].startswith("lifts[0]: ")


def test_a_plan_of_the_largest_size_is_read_in_time() -> None:
    """5,000 endpoints an arm."""
    endpoints = [{"address": f"10.0.{n // 250}.{n % 250}", "port": 8080} for n in range(5_000)]
    big = plan(arms=[{**arm, "endpoints": endpoints} for arm in arms(100)])
    assert parse_plan(big.model_dump_json(by_alias=True)) == big


def test_a_plan_is_frozen_and_can_be_compared() -> None:
    """Immutable and whole."""
    assert plan() == plan()
    assert hash(plan()) == hash(plan())
    assert isinstance(plan(headerRoutes=[{"name": "q", "matches": [{"name": "a", "value": "b"}]}]), Plan)
    assert FieldMatch(name="a", value="b").type == "Exact"


@pytest.mark.parametrize("host", ["shop", "Shop.example", "_http.shop.example.", "a-b.c2d", "x" * 63 + ".example"])
def test_an_arm_may_be_a_name(host: str) -> None:
    whole = plan(arms=[ARM | {"dns": {"host": host, "port": 80}}], revision=None)
    assert whole.arms[0].dns is not None
    assert parse_plan(whole.model_dump_json(by_alias=True)) == whole


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "a..b",
        ".a",
        "-a",
        "a-",
        "a b",
        "a/b",
        "127.0.0.1",
        "::1",
        "shop:80",
        "x" * 64,
        "a." * 127 + "ab",
        "ä.example",
    ],
)
def test_what_is_no_name_is_refused(host: str) -> None:
    assert len(faults(arms=[ARM | {"dns": {"host": host, "port": 80}}], revision=None)) == 1


def test_an_arm_has_endpoints_or_a_name() -> None:
    both = {"dns": {"host": "a", "port": 80}, "endpoints": [{"address": "192.0.2.1", "port": 80}]}
    assert faults(arms=[ARM | both], revision=None) == ["arms[0]: exactly one of endpoints and dns is needed"]


def test_an_arm_may_have_checks() -> None:
    check = {"path": "/health?full=1", "interval": "2s", "timeout": "500ms", "unhealthy": 1, "healthy": 1}
    whole = plan(arms=[ARM | {"healthCheck": check}], revision=None)
    assert whole.arms[0].health_check is not None
    assert whole.arms[0].health_check.model_dump(mode="json", by_alias=True) == check
    assert parse_plan(whole.model_dump_json(by_alias=True)) == whole


@pytest.mark.parametrize(
    ("check", "fault"),
    [
        ({"path": "healthz"}, "path: expected a path"),
        ({"path": "/a b"}, "path: expected a path"),
        ({"path": "/a?b#c"}, "path: expected a path"),
        ({"path": "/ä"}, "path: expected a path"),
        ({"path": "/a\r\nX: y"}, "path: expected a path"),
        ({"interval": "1s", "timeout": "2s"}, "timeout is above interval"),
        ({"unhealthy": 0}, "unhealthy: "),
        ({"interval": "1ms"}, "interval: "),
        ({"port": 80}, "port: unknown field"),
    ],
)
def test_a_faulty_check_is_refused(check: dict[str, Any], fault: str) -> None:
    (found,) = faults(arms=[ARM | {"healthCheck": check}], revision=None)
    assert fault in found


@pytest.mark.parametrize(
    ("arm", "proven"),
    [
        ({}, None),
        ({"tls": {}}, "192.0.2.1"),
        ({"tls": {"serverName": "shop.test"}}, "shop.test"),
        ({"tls": {"serverName": "2001:DB8::1"}}, "2001:db8::1"),
        ({"tls": {}, "dns": {"host": "shop.test.", "port": 443}}, "shop.test"),
        ({"tls": {"serverName": "a.test"}, "dns": {"host": "shop.test", "port": 443}}, "a.test"),
    ],
)
def test_an_endpoint_proves_a_name(arm: dict[str, Any], proven: str | None) -> None:
    """The one given, else the one that it was found by."""
    assert plan(arms=[ARM | arm], revision=None).arms[0].proven_name("192.0.2.1") == proven


@pytest.mark.parametrize("name", ["", "*.test", "a b", "https://a.test", "a.test:443", "-a.test"])
def test_a_server_name_is_a_host_without_port(name: str) -> None:
    assert any("serverName" in fault for fault in faults(arms=[ARM | {"tls": {"serverName": name}}], revision=None))
