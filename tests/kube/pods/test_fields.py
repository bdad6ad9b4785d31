from __future__ import annotations

from typing import Any

import pytest

from tests.kube.pods.fields import Missing, data_of, downward, entries, environment, expand, field, resource

POD: dict[str, Any] = {
    "metadata": {"name": "one", "labels": {"app": "shop", "a.b/c": "d"}},
    "spec": {"containers": [{"name": "main", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}]},
    "status": {"podIPs": [{"ip": "10.99.0.2"}, {"ip": "fd00::2"}]},
}


async def look(group: str, name: str) -> dict[str, bytes] | None:
    return {("configmaps", "config"): {"key": b"value"}, ("secrets", "secret"): {"key": b"hidden"}}.get((group, name))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "one"),
        ("metadata.labels['a.b/c']", "d"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations", ""),
        ("metadata.labels", 'a.b/c="d"\napp="shop"'),
        ("status.podIPs", "10.99.0.2,fd00::2"),
    ],
)
def test_a_field_of_the_pod_is_a_text(path: str, value: str) -> None:
    assert field(POD, path) == value


@pytest.mark.parametrize(
    ("reference", "value"),
    [
        ({"resource": "limits.cpu"}, "2"),
        ({"resource": "limits.cpu", "divisor": "1m"}, "1500"),
        ({"resource": "limits.memory", "divisor": "1Mi"}, "64"),
        ({"resource": "requests.memory"}, "0"),
    ],
    ids=["rounded-up", "divided", "mebibytes", "not-set"],
)
def test_a_resource_is_rounded_up_to_its_divisor(reference: dict[str, str], value: str) -> None:
    assert resource(POD["spec"]["containers"], reference, "main") == value


@pytest.mark.parametrize(
    ("text", "value"), [("$(A)b", "1b"), ("$(NONE)", "$(NONE)"), ("$$(A)", "$(A)"), ("$A $", "$A $")]
)
def test_references_are_expanded_and_can_be_escaped(text: str, value: str) -> None:
    assert expand(text, {"A": "1"}) == value


async def test_own_variables_go_over_those_of_sources() -> None:
    container = {
        "name": "main",
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "config"}}, {"secretRef": {"name": "secret"}}],
        "env": [
            {"name": "key", "value": "mine $(P_key)"},
            {"name": "absent", "valueFrom": {"secretKeyRef": {"name": "secret", "key": "no", "optional": True}}},
        ],
    }
    assert await environment(POD, container, {"PATH": "/bin"}, look) == {
        "PATH": "/bin",
        "P_key": "value",
        "key": "mine value",
    }


async def test_what_is_missing_and_not_optional_is_named() -> None:
    source = {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "config", "key": "no"}}}
    with pytest.raises(Missing, match="configmaps config has no no"):
        await environment(POD, {"name": "main", "env": [source]}, {}, look)
    with pytest.raises(Missing, match="secrets none not found"):
        await entries({}, "secrets", "none", look)
    assert await entries({"optional": True}, "secrets", "none", look) == {}


def test_files_of_the_pod_itself_have_their_modes() -> None:
    items = [{"path": "name", "mode": 0o400, "fieldRef": {"fieldPath": "metadata.name"}}]
    assert downward(POD, items) == {"name": (b"one", 0o400)}


def test_entries_of_secrets_are_decoded() -> None:
    assert data_of({"kind": "Secret", "data": {"key": "aGlkZGVu"}}) == {"key": b"hidden"}
    assert data_of({"kind": "ConfigMap", "data": {"key": "plain"}, "binaryData": {"raw": "AA=="}}) == {
        "key": b"plain",
        "raw": b"\0",
    }
