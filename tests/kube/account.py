"""What a pod is given to ask the API server, as files of a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from controller.net.kube.client import Account
from tests.kube.cluster import Cluster

ADMIN = "cluster-admin"


def account(cluster: Cluster, namespace: str, folder: Path, name: str = "tester", role: str = ADMIN) -> Account:
    """A ServiceAccount with a role in its namespace, its token and the cluster's authority in a folder."""
    metadata = {"name": name, "namespace": namespace}
    cluster.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": metadata})
    binding: dict[str, Any] = {
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", **metadata}],
    }
    cluster.call("POST", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings", binding)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "token").write_text(cluster.token(namespace, name))
    (folder / "ca.crt").write_bytes(cluster.keys.authority.read_bytes())
    return Account(cluster.api, str(folder / "token"), str(folder / "ca.crt"))
