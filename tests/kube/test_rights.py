from __future__ import annotations

from typing import Any

import pytest

from tests.kube.cluster import Cluster
from tests.kube.rights import account, granted, refused, used

RULES: list[dict[str, Any]] = [{"apiGroups": [""], "resources": ["pods", "pods/status"], "verbs": ["list", "patch"]}]


def test_a_rule_grants_each_verb_on_each_resource() -> None:
    assert granted(RULES) == {
        ("", "pods", "list"),
        ("", "pods", "patch"),
        ("", "pods/status", "list"),
        ("", "pods/status", "patch"),
    }


def test_a_rule_for_everything_is_no_answer() -> None:
    with pytest.raises(AssertionError):
        granted([{"apiGroups": ["*"], "resources": ["pods"], "verbs": ["get"]}])


def test_the_audit_log_tells_which_rights_were_used(cluster: Cluster, namespace: str) -> None:
    """Of one account: what it was allowed and what it was refused."""
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "reader"}}
    subject = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
    binding = role | {"kind": "RoleBinding", "subjects": [subject], "roleRef": reference}
    cluster.apply(role | {"kind": "Role", "rules": RULES}, binding, namespace=namespace)
    config = cluster.kubeconfig_of(namespace, "default")
    cluster.until(lambda: cluster.run("kubectl", "get", "pods", kubeconfig=config).returncode == 0)
    cluster.run("kubectl", "get", "secrets", kubeconfig=config)
    user, events = account(namespace, "default"), cluster.audit()
    assert used(events, user) == {("", "pods", "list")}
    assert ("", "secrets", "list") in refused(events, user)
    assert granted(RULES) - used(events, user) == granted(RULES) - {("", "pods", "list")}
