"""The cluster that the other tests stand on: what it enforces, what it writes down, and what faults do to it."""

from __future__ import annotations

import json
import secrets
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.kube.cluster import Cluster
from tests.kube.keeper import PREFIX, Keeper, sweep
from tests.support.leaks import children

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "bare"},
    "spec": {"containers": [{"name": "one", "image": "none"}]},
}


def test_helm_and_kubectl_know_the_server_s_version(cluster: Cluster) -> None:
    """A chart's ``kubeVersion`` is compared with it."""
    version = json.loads(cluster.kubectl("version", "-o", "json"))
    assert version["serverVersion"]["gitVersion"] == version["clientVersion"]["gitVersion"] == "v1.36.4"
    assert cluster.helm("list", "-A", "-o", "json").strip() == "[]"


def test_a_rule_of_a_resource_definition_refuses_with_its_message(cluster: Cluster, namespace: str) -> None:
    """CEL over one field: the documents of cohort have such rules."""
    group = f"{secrets.token_hex(4)}.example"
    rule = {"rule": "self.weight % 2 == 0", "message": "weights are even"}
    spec = {"type": "object", "properties": {"weight": {"type": "integer"}}, "x-kubernetes-validations": [rule]}
    version = {"name": "v1", "served": True, "storage": True}
    version["schema"] = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    names = {"plural": "splits", "singular": "split", "kind": "Split"}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"splits.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
    }
    cluster.apply(crd)
    cluster.kubectl("wait", "--for=condition=Established", f"crd/splits.{group}", "--timeout=60s")
    split = {"apiVersion": f"{group}/v1", "kind": "Split", "metadata": {"name": "one"}}
    cluster.apply(split | {"spec": {"weight": 2}}, namespace=namespace)
    with pytest.raises(AssertionError, match="weights are even"):
        cluster.apply(split | {"spec": {"weight": 3}}, namespace=namespace)
    cluster.kubectl("delete", "crd", f"splits.{group}")


def test_a_restricted_namespace_refuses_a_bare_pod(cluster: Cluster, restricted: str) -> None:
    with pytest.raises(AssertionError, match='violates PodSecurity "restricted'):
        cluster.apply(POD, namespace=restricted)


def test_a_deployment_becomes_pods(cluster: Cluster, namespace: str) -> None:
    """The controller manager works; without nodes the pods stay pending."""
    labels = {"app": "one"}
    spec = {"replicas": 2, "selector": {"matchLabels": labels}}
    template = {"metadata": {"labels": labels}, "spec": POD["spec"]}
    document = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "one"}}
    cluster.apply(document | {"spec": spec | {"template": template}}, namespace=namespace)
    path = f"/api/v1/namespaces/{namespace}/pods"
    cluster.until(lambda: len(cluster.call("GET", path)["items"]) == 2)


def test_the_audit_log_shows_who_was_refused_what(cluster: Cluster, namespace: str) -> None:
    """The oracle of rights: a 403 with the account's name, verb and resource."""
    user = f"system:serviceaccount:{namespace}:default"
    done = cluster.run("kubectl", "get", "pods", kubeconfig=cluster.kubeconfig_of(namespace, "default"))
    assert done.returncode == 1
    assert f'User "{user}" cannot list resource "pods"' in done.stderr
    events = [event for event in cluster.audit() if event["user"].get("username") == user]  # none has who is nobody
    (refusal,) = [event for event in events if event.get("responseStatus", {}).get("code") == 403]
    assert (refusal["verb"], refusal["objectRef"]["resource"]) == ("list", "pods")


def test_the_api_server_keeps_its_port_and_its_objects_over_a_restart(cluster: Cluster, namespace: str) -> None:
    """Its clients know one address; what they wrote is in etcd."""
    cluster.stop_api()
    with pytest.raises(ConnectionRefusedError):
        cluster.call("GET", "/readyz")
    cluster.start_api()
    assert cluster.exists(f"/api/v1/namespaces/{namespace}")


def test_a_frozen_api_server_answers_nobody_and_then_goes_on(cluster: Cluster) -> None:
    cluster.freeze_api()
    try:
        with pytest.raises(TimeoutError):
            cluster.call("GET", "/readyz", timeout_s=0.5)
    finally:
        cluster.thaw_api()
    cluster.until(lambda: cluster.call("GET", "/readyz") == "ok")


def test_what_a_test_leaves_stopped_or_frozen_is_mended(cluster: Cluster) -> None:
    """One that fails in the middle must not take all others with it."""
    cluster.stop_controllers()
    cluster.stop_api()
    cluster.mend()
    cluster.freeze_api()
    cluster.mend()
    assert cluster.exists("/api/v1/namespaces/default")


def test_a_watch_from_before_a_compaction_is_answered_410(cluster: Cluster, namespace: str) -> None:
    """The API server's own memory of changes goes with its restart, etcd's with the compaction."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    version = cluster.call("GET", path)["metadata"]["resourceVersion"]
    for index in range(3):
        cluster.call("POST", path, {"metadata": {"name": f"change-{index}"}})
    assert cluster.forget() > int(version)
    event = cluster.call("GET", f"{path}?watch=1&timeoutSeconds=1&resourceVersion={version}")
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


def test_programs_end_with_the_process_that_keeps_them(tmp_path: Path) -> None:
    """By whatever means the session ends: here its end of the pipe is closed."""
    keeper = Keeper(tmp_path)
    keeper.start("sleeper", "sh", "-c", "echo started; exec sleep 600")
    before = children()
    assert keeper.status("sleeper") is None
    (sleeper,) = [int(text) for text in _children_of(keeper.pid).split()]
    keeper.close()
    assert not Path(f"/proc/{sleeper}").exists()
    assert before - children() == {keeper.pid}


def test_folders_of_killed_sessions_are_removed_and_no_others(tmp_path: Path) -> None:
    """By the next session; a folder without a lock is nobody's that is known."""
    folders = [tmp_path / f"{PREFIX}{name}" for name in ("dead", "live", "other")]
    for folder in folders:
        folder.mkdir()
    dead, live = Keeper(folders[0]), Keeper(folders[1])
    assert (dead.status_of_all(), live.status_of_all()) == ({}, {})  # both hold their locks
    dead.close()
    sweep(tmp_path)
    assert [folder.exists() for folder in folders] == [False, True, True]
    live.close()


def test_commands_of_several_threads_get_their_own_answers(tmp_path: Path) -> None:
    """A test may restart programs from threads while another looks at them."""
    keeper = Keeper(tmp_path)
    try:
        for index in range(4):
            keeper.start(str(index), "sh", "-c", f"exit {index}")
        ended: dict[int, int | None] = {}
        threads = [
            threading.Thread(target=lambda n=index: ended.update({n: keeper.stop(str(n))})) for index in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(status in (index, -15) for index, status in ended.items())
    finally:
        keeper.close()


def _children_of(pid: int) -> str:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text()
