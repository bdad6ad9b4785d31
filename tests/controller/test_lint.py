"""What documents say of each other, and choices to think over."""

from __future__ import annotations

from typing import Any

import pytest

from controller.lint import FAULT, WARNING, Finding, Given, findings
from controller.spec import AnalysisTemplate, CanaryRollout
from proxy.document import validate
from proxy.plan import Plan

Json = dict[str, Any]
TRUST = "name them there, or say trust: Anyone"


def rollout(*routes: Json, file: str = "a.yaml", name: str = "checkout", **spec: Any) -> Given:
    document = {
        "apiVersion": "cohort.dev/v1alpha1",
        "kind": "CanaryRollout",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "stable": {"addresses": ["127.0.0.1:9001"], "revision": "v1"},
            "routes": [{"name": f"r{i}", "arm": "canary", **route} for i, route in enumerate(routes)],
            "strategy": {"canary": {"steps": [{"setWeight": 5}]}},
            **spec,
        },
    }
    return Given(file, validate(CanaryRollout, document))


def analysed(*templates: str) -> Given:
    names = [{"templateName": name} for name in templates]
    return rollout(strategy={"canary": {"steps": [{"setWeight": 5}, {"analysis": {"templates": names}}]}})


def template(name: str, file: str = "t.yaml", namespace: str | None = "shop") -> Given:
    metric = {
        "name": name,
        "successCondition": "result[0] >= 0.99",
        "provider": {"cohort": {"metric": "successRate"}},
    }
    document = {
        "apiVersion": "cohort.dev/v1alpha1",
        "kind": "AnalysisTemplate",
        "metadata": {"name": name, **({"namespace": namespace} if namespace else {})},
        "spec": {"metrics": [metric]},
    }
    return Given(file, validate(AnalysisTemplate, document))


def plan(*routes: Json) -> Given:
    document = {
        "rollout": {"name": "checkout", "uid": "u1"},
        "generation": 1,
        "salt": "00" * 32,
        "arms": [{"name": "stable", "revision": "v1", "weightBp": 10_000}],
        "users": [{"mint": {}}],
        "routes": [{"name": f"r{i}", "arm": "canary", **route} for i, route in enumerate(routes)],
    }
    return Given("p.yaml", validate(Plan, document))


def paths(found: list[Finding]) -> list[str]:
    return [finding.path for finding in found]


def test_a_plain_rollout_has_no_findings() -> None:
    """Nothing to say is the common case."""
    assert findings([rollout(), template("success-rate")], whole=True, trusted=None) == []


@pytest.mark.parametrize("namespace", ["shop", None])
def test_a_template_among_those_given_is_found(namespace: str | None) -> None:
    """A template without a namespace serves every one."""
    assert findings([analysed("success-rate"), template("success-rate", namespace=namespace)], True, None) == []


@pytest.mark.parametrize(
    ("others", "whole", "severity"),
    [
        ([], True, FAULT),
        ([template("latency")], False, FAULT),
        ([template("success-rate", namespace="pay")], False, FAULT),
        ([], False, WARNING),
    ],
    ids=["folder", "templates", "other-namespace", "alone"],
)
def test_a_template_that_is_missing_is_told(others: list[Given], whole: bool, severity: str) -> None:
    """A fault where the templates are given, a warning where a rollout's file comes alone."""
    found = findings([analysed("success-rate"), *others], whole, None)
    assert paths(found) == ["spec.strategy.canary.steps[1].analysis.templates[0].templateName"]
    assert found[0].severity == severity
    assert "success-rate" in found[0].message


@pytest.mark.parametrize("kind", [rollout, template])
def test_two_documents_of_one_name_are_a_fault(kind: Any) -> None:
    """Which of them counts would depend on the order of the files."""
    found = findings([kind(file="a.yaml", name="x"), kind(file="b.yaml", name="x")], False, None)
    assert [(f.file, f.severity, f.path) for f in found] == [("b.yaml", FAULT, "metadata.name")]
    assert found[0].message.endswith("shop/x is already in a.yaml: rename or remove one")


def test_equal_names_in_two_namespaces_are_two_documents() -> None:
    """A name is one within its namespace."""
    assert findings([template("x", "a.yaml"), template("x", "b.yaml", None)], False, None) == []


HEADER = {"matches": [{"clientNetworks": ["192.0.2.0/24"]}, {"headers": [{"name": "X-Staff", "value": "yes"}]}]}


@pytest.mark.parametrize("given", [rollout(HEADER), plan(HEADER)], ids=["rollout", "plan"])
@pytest.mark.parametrize(
    ("trusted", "text"),
    [
        (None, "X-Staff counts from trusted peers only, and without trustedPeers in ProxySettings there is none"),
        (False, "X-Staff counts from trusted peers only, and the proxy's settings name none"),
        (True, None),
    ],
)
def test_a_header_route_that_nobody_may_set_is_told(given: Given, trusted: bool | None, text: str | None) -> None:
    """surface.md: `lint` warns of a header route that nobody may set."""
    found = [finding for finding in findings([given], True, trusted) if "headers" in finding.path]
    if text is None:
        assert found == []
    else:
        assert [(f.severity, f.path.removeprefix("spec.")) for f in found] == [
            (WARNING, "routes[0].matches[1].headers")
        ]
        assert found[0].message.startswith(text)


def test_a_header_route_for_anyone_is_fine() -> None:
    """`trust: Anyone` is what lets a page toggle it."""
    assert findings([rollout({**HEADER, "trust": "Anyone"})], True, False) == []


def test_a_user_s_header_that_nobody_may_set_is_told_once_the_settings_are_known() -> None:
    """Without settings at hand a trusted identity header is the ordinary case behind a gateway."""
    given = rollout(users=[{"header": {"name": "X-User-Id"}}, {"mint": {}}])
    assert findings([given], True, None) == []
    assert findings([given], True, True) == []
    assert paths(findings([given], True, False)) == ["spec.users[0].header"]


@pytest.mark.parametrize(
    ("route", "kinds"),
    [
        ({"matches": [{"path": {"value": "/payments"}}]}, "path"),
        ({"matches": [{"path": {"type": "Exact", "value": "/"}}]}, "path"),
        ({"matches": [{"method": "POST"}]}, "method"),
        ({"matches": [{"queryParams": [{"name": "beta", "type": "Present"}]}]}, "query"),
        ({"matches": [{"hostnames": ["a.example"]}, {"method": "POST", "path": {"value": "/a"}}]}, "path and method"),
        ({"matches": [{"path": {"value": "/a"}}], "arm": "stable", "always": True}, "path"),
        ({"matches": [{"path": {"value": "/a"}}], "arm": None, "split": {"atLeast": 50}}, "path"),
        ({"matches": [{"path": {"value": "/a"}}], "arm": None, "split": {}}, None),
        ({"matches": [{"path": {"value": "/a"}}], "arm": None, "answer": 404}, None),
        ({"matches": [{"path": {"value": "/"}}]}, None),
        ({"matches": [{"cookies": [{"name": "country", "value": "FR"}]}]}, None),
        ({"matches": [{"hostnames": ["preview.shop.example"]}]}, None),
        ({"matches": [{"clientNetworks": ["192.0.2.0/24"]}]}, None),
    ],
)
def test_a_choice_by_what_is_asked_for_is_told(route: Json, kinds: str | None) -> None:
    """surface.md: `lint` warns of routes by path, method or query that lead one user to two versions."""
    for given, path in ((rollout(route), "spec.routes[0]"), (plan(route), "routes[0]")):
        found = findings([given], True, True)
        if kinds is None:
            assert found == []
        else:
            assert [(f.severity, f.path) for f in found] == [(WARNING, path)]
            assert f" by {kinds}, so that one user may meet two versions" in found[0].message


@pytest.mark.parametrize(
    ("methods", "named"), [(None, ""), (["GET", "OPTIONS"], ""), (["GET", "POST", "DELETE"], "POST, DELETE")]
)
def test_mirroring_what_changes_something_is_a_warning(methods: list[str] | None, named: str) -> None:
    mirror = {"arm": "canary", "percent": 1} | ({"methods": methods} if methods else {})
    found = findings([rollout(mirror=mirror)], whole=True, trusted=None)
    text = f"a copy of {named} does what it asks for once more: leave it out, or give the canary a store of its own"
    assert found == ([Finding("a.yaml", WARNING, "spec.mirror.methods", text)] if named else [])


@pytest.mark.parametrize("breaker", [None, {}, {"minimumUsers": 1}], ids=["none", "defaults", "one-user"])
def test_a_breaker_that_one_user_can_trip_is_a_warning(breaker: Json | None) -> None:
    """S5: rollback griefing."""
    found = findings([rollout(**({"breaker": breaker} if breaker is not None else {}))], whole=True, trusted=None)
    expected = ["spec.breaker.minimumUsers"] if breaker == {"minimumUsers": 1} else []
    assert [(finding.path, finding.severity) for finding in found] == [(path, WARNING) for path in expected]
