"""`kubectl cohort` against a real API server: rights, actions, and what it says when something is missing."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.cli.exits import WrongUse
from controller.cli.kube.config import access
from controller.cli.kube.server import Server
from tests.controller import faulty
from tests.kube.cluster import Cluster, KubeError
from tests.kube.test_definitions import create

Json = dict[str, Any]
BIN = Path(sys.executable).parent
API = "/apis/cohort.dev/v1alpha1/namespaces"
STATUS = {
    "observedGeneration": 1,
    "phase": "Progressing",
    "revision": {"stable": "v1", "canary": "v2"},
    "step": {"index": 0, "total": 2, "elapsed": "4m"},
    "weight": {"programmed": "5.00", "measured": "4.93", "low": "4.71", "high": "5.16"},
    "plan": {"generation": 3, "digest": "d", "replicas": 3, "current": 3, "pending": []},
    "state": "for its controller",
}
VIEW = [{"apiGroups": ["cohort.dev"], "resources": ["canaryrollouts"], "verbs": ["get", "list", "watch"]}]
EVENTS = [{"apiGroups": [""], "resources": ["events"], "verbs": ["list"]}]
ACTIONS = [{"apiGroups": ["cohort.dev"], "resources": ["rolloutactions"], "verbs": ["create"]}]

Plugin = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def rollout(definitions: Cluster, namespace: str) -> str:
    """A namespace with the rollout checkout under way; its name."""
    value = faulty.rollout_value()
    create(definitions, value, namespace, keep=True)
    write(definitions, namespace, STATUS)
    return namespace


def write(cluster: Cluster, namespace: str, status: Json) -> None:
    path = f"{API}/{namespace}/canaryrollouts/checkout/status"
    cluster.call("PATCH", path, {"status": status}, "application/merge-patch+json")


@pytest.fixture
def plugin(definitions: Cluster, tmp_path: Path) -> Plugin:
    """Runs the plugin as kubectl does, as the admin unless a kubeconfig says otherwise."""

    def run(*args: str, kubeconfig: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(tmp_path), **env}
        environment.setdefault("KUBECONFIG", str(kubeconfig or definitions.kubeconfig))
        command = [str(definitions.programs["kubectl"]), "cohort", *args]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture
def lines(definitions: Cluster, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the plugin and leaves it running, its output to be read line by line."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str) -> subprocess.Popen[str]:
        environment = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(tmp_path), "KUBECONFIG": str(definitions.kubeconfig)}
        command = [str(BIN / "kubectl-cohort"), *args]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def line(process: subprocess.Popen[str]) -> list[str]:
    """The words of the next line."""
    assert process.stdout is not None
    return process.stdout.readline().split()


def account(cluster: Cluster, namespace: str, name: str, rules: list[Json]) -> Path:
    """A kubeconfig of a new service account with these rights in its namespace."""
    base = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    cluster.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})
    cluster.call("POST", f"{base}/roles", {"metadata": {"name": name}, "rules": rules})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
    subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    binding = {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]}
    cluster.call("POST", f"{base}/rolebindings", binding)
    return cluster.kubeconfig_of(namespace, name)


@pytest.fixture
def taking(definitions: Cluster, rollout: str) -> Iterator[list[Json]]:
    """Whoever takes actions up, as a controller does: each is done, unless it says Pause; the specs that came."""
    came: list[Json] = []
    is_over = threading.Event()

    def take() -> None:
        while not is_over.wait(0.1):
            with contextlib.suppress(KubeError, OSError):  # a definition that is new is not served at once
                items = definitions.call("GET", f"{API}/{rollout}/rolloutactions")["items"]
                came[:] = [item["spec"] for item in items]
                write(definitions, rollout, {"actions": [_result(item) for item in items]})

    thread = threading.Thread(target=take)
    thread.start()
    yield came
    is_over.set()
    thread.join()


def _result(action: Json) -> Json:
    verb = action["spec"]["verb"]
    result = (
        {"result": "Refused", "message": "not now"} if verb == "Pause" else {"result": "Done", "message": "so it is"}
    )
    return {"uid": action["metadata"]["uid"], "verb": verb, **result}


def test_kubectl_finds_the_plugin(plugin: Plugin, definitions: Cluster) -> None:
    """By the name of the program; `kubectl cohort --help` is ours."""
    done = plugin("--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: kubectl cohort ")


def test_get_shows_rollouts(plugin: Plugin, rollout: str) -> None:
    """Forms of output as kubectl has them, one namespace or all."""
    done = plugin("get", "-n", rollout, "-o", "wide")
    header, row = done.stdout.splitlines()
    assert header.split()[:4] == ["NAMESPACE", "NAME", "PHASE", "STEP"]
    assert row.split()[:4] == [rollout, "checkout", "Progressing", "0/2"]
    assert plugin("get", "checkout", "-n", rollout, "-o", "name").stdout == "canaryrollout.cohort.dev/checkout\n"
    shown = json.loads(plugin("get", "checkout", "-n", rollout, "-o", "json").stdout)
    assert shown["status"]["weight"]["measured"] == "4.93"
    assert "state" not in shown["status"]
    assert "managedFields" not in shown["metadata"]
    assert rollout in plugin("get", "-A").stdout
    assert "There is no rollout in namespace default." in plugin("get").stderr
    assert yaml.safe_load(plugin("get", "-n", rollout, "-o", "yaml").stdout)["items"][0]["kind"] == "CanaryRollout"


def test_the_context_s_namespace_is_where_one_works(plugin: Plugin, rollout: str, definitions: Cluster) -> None:
    """As everywhere in kubectl; NAME may be left out where there is one rollout."""
    kubeconfig = account(definitions, rollout, "viewer", VIEW)
    done = plugin("status", kubeconfig=kubeconfig)
    assert done.returncode == 0, done.stderr
    assert f"Name:      {rollout}/checkout" in done.stdout
    assert "5.00 %, measured 4.93 % (4.71 to 5.16)" in done.stdout


def test_status_is_followed_to_its_end(
    plugin: Plugin, lines: Callable[..., subprocess.Popen[str]], rollout: str, definitions: Cluster
) -> None:
    """By a watch of the API server: each change once, and an exit code for scripts."""
    process = lines("status", "checkout", "-n", rollout, "-w")
    assert line(process)[1] == "Progressing;"
    write(definitions, rollout, {"phase": "Healthy"})
    assert line(process)[1] == "Healthy;"
    assert process.wait(60) == 0
    write(definitions, rollout, {"phase": "Aborted"})
    assert plugin("status", "checkout", "-n", rollout).returncode == 1
    write(definitions, rollout, {"phase": "Paused"})
    late = plugin("status", "checkout", "-n", rollout, "-w", "--timeout", "1s")
    assert (late.returncode, "within 1 s" in late.stderr) == (4, True), late.stderr


def test_get_follows_too(lines: Callable[..., subprocess.Popen[str]], rollout: str, definitions: Cluster) -> None:
    """A line when something has changed."""
    process = lines("get", "-n", rollout, "-w")
    assert [line(process)[2] for _ in range(2)] == ["PHASE", "Progressing"]
    write(definitions, rollout, {"phase": "Paused"})
    assert [line(process)[2] for _ in range(2)] == ["PHASE", "Paused"]


@pytest.mark.parametrize(
    ("args", "spec"),
    [
        (("promote",), {"verb": "Promote"}),
        (("promote", "--full"), {"verb": "PromoteFull"}),
        (("resume",), {"verb": "Resume"}),
        (("abort", "--reason", "it burns"), {"verb": "Abort", "reason": "it burns"}),
        (("retry",), {"verb": "Retry"}),
        (("set", "weight", "checkout", "12.5"), {"verb": "SetWeight", "weight": "12.5"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_verb_is_an_action_whose_result_is_waited_for(
    plugin: Plugin, rollout: str, taking: list[Json], args: tuple[str, ...], spec: Json
) -> None:
    """kubernetes.md, actions of people: in one's own name, for the revision on trial."""
    done = plugin(*args, "-n", rollout, "--timeout", "60s")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{rollout}/checkout: so it is\n"
    assert taking == [{"rollout": "checkout", "revision": "v2", "requestedBy": "admin", **spec}]


def test_a_refusal_is_told(plugin: Plugin, rollout: str, taking: list[Json]) -> None:
    """surface.md: exit 1, with the controller's reason."""
    done = plugin("pause", "checkout", "-n", rollout, "--timeout", "60s")
    assert (done.returncode, done.stderr) == (1, "Error: not now\n")
    assert len(taking) == 1


def test_where_nobody_takes_actions_up(plugin: Plugin, rollout: str, definitions: Cluster) -> None:
    """The action is there; whether it is done is not known."""
    done = plugin("promote", "checkout", "-n", rollout, "--timeout", "8s")
    assert done.returncode == 4
    assert "no controller has said what became of it" in done.stderr
    write(definitions, rollout, {"revision": {"canary": None}})
    done = plugin("promote", "checkout", "-n", rollout)
    assert (done.returncode, "no revision is on trial" in done.stderr) == (1, True)


def test_what_one_may_not_is_said_verb_by_verb(plugin: Plugin, rollout: str, definitions: Cluster) -> None:
    """The issue: which verb on which resource."""
    kubeconfig = account(definitions, rollout, "viewer", VIEW)
    assert plugin("get", kubeconfig=kubeconfig).returncode == 0
    everywhere = plugin("get", "-A", kubeconfig=kubeconfig)
    assert everywhere.returncode == 1
    assert 'cannot list resource "canaryrollouts" in API group "cohort.dev" at the cluster scope' in everywhere.stderr
    promote = plugin("promote", kubeconfig=kubeconfig)
    assert promote.returncode == 1
    assert 'cannot create resource "rolloutactions" in API group "cohort.dev"' in promote.stderr
    events = plugin("events", kubeconfig=kubeconfig)
    assert 'cannot list resource "events"' in events.stderr


def test_events_are_told_in_order(
    plugin: Plugin, lines: Callable[..., subprocess.Popen[str]], rollout: str, definitions: Cluster
) -> None:
    """Kubernetes' own Events about the rollout; others' are left out."""
    for number, (name, reason) in enumerate(
        (("checkout", "StepStarted"), ("other", "Nothing"), ("checkout", "Aborted"))
    ):
        about = {"apiVersion": "cohort.dev/v1alpha1", "kind": "CanaryRollout", "name": name, "namespace": rollout}
        event = {
            "metadata": {"name": f"e{number}"},
            "involvedObject": about,
            "type": "Warning" if reason == "Aborted" else "Normal",
            "reason": reason,
            "message": f"number {number}",
            "lastTimestamp": f"2026-01-01T00:00:0{number}Z",
        }
        definitions.call("POST", f"/api/v1/namespaces/{rollout}/events", event)
    done = plugin("events", "checkout", "-n", rollout)
    assert [one.split()[2] for one in done.stdout.splitlines()] == ["REASON", "StepStarted", "Aborted"]
    follow = lines("events", "checkout", "-n", rollout, "-w")
    assert [line(follow)[2] for _ in range(2)] == ["StepStarted", "Aborted"]


def test_what_is_not_there(plugin: Plugin, rollout: str) -> None:
    """Wrong use: exit 2."""
    done = plugin("status", "chekout", "-n", rollout)
    assert done.returncode == 2
    assert f"there is no rollout 'chekout' in namespace {rollout}: did you mean 'checkout'?" in done.stderr
    for args in (("get",), ("status",), ("promote", "checkout")):
        done = plugin(*args, "-n", "nowhere")
        assert (done.returncode, "there is no namespace 'nowhere'" in done.stderr) == (2, True), args
    assert "there is no context 'nope'" in plugin("get", "--context", "nope").stderr


def test_without_the_definitions_it_says_how_to_install_them(definitions: Cluster) -> None:
    """A cluster that has never heard of cohort answers for any unknown group as here."""
    server = Server(access(str(definitions.kubeconfig), None, {}))
    with pytest.raises(WrongUse, match="install cohort with its Helm chart"):
        server.ask("GET", "/apis/none.example/v1alpha1/namespaces/default/canaryrollouts")


def edited(cluster: Cluster, path: Path, cluster_fields: Json | None = None, user: Json | None = None) -> Path:
    """The admin's kubeconfig with another cluster entry, or another user."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["clusters"][0]["cluster"] |= cluster_fields or {}
    if user is not None:
        config["users"][0]["user"] = user
    path.write_text(yaml.safe_dump(config))
    return path


def test_a_server_that_is_gone(plugin: Plugin, definitions: Cluster, tmp_path: Path) -> None:
    """surface.md: exit 3, with the address and the context."""
    gone = edited(definitions, tmp_path / "gone", {"server": "https://127.0.0.1:1"})
    done = plugin("get", kubeconfig=gone)
    assert done.returncode == 3
    assert "the cluster's API server https://127.0.0.1:1 (context" in done.stderr
    assert "Connection refused" in done.stderr


def test_a_server_that_is_somebody_else(plugin: Plugin, definitions: Cluster, tmp_path: Path) -> None:
    """Its certificate is not for that name, or from nobody whom one trusts: nothing is sent."""
    other = edited(definitions, tmp_path / "other", {"tls-server-name": "somebody.example"})
    done = plugin("get", kubeconfig=other)
    assert (done.returncode, "is not believed" in done.stderr) == (3, True)
    known = edited(definitions, tmp_path / "known", {"tls-server-name": "kubernetes.default.svc"})
    assert plugin("get", kubeconfig=known).returncode == 0


def test_credentials_of_every_kind(plugin: Plugin, definitions: Cluster, namespace: str, tmp_path: Path) -> None:
    """A token, its file, a command that makes one, a certificate in the file itself."""
    rights = [*VIEW, *EVENTS, *ACTIONS]
    account(definitions, namespace, "someone", rights)
    token = definitions.token(namespace, "someone")
    (tmp_path / "token").write_text(token)
    login = tmp_path / "login"
    version = "client.authentication.k8s.io/v1"
    answer = json.dumps({"apiVersion": version, "kind": "ExecCredential", "status": {"token": token}})
    login.write_text(f"#!/bin/sh\necho '{answer}'\n")
    login.chmod(login.stat().st_mode | stat.S_IXUSR)
    certificate = {
        f"client-{kind}-data": base64.b64encode(path.read_bytes()).decode()
        for kind, path in (
            ("certificate", definitions.keys.certificate("admin")),
            ("key", definitions.keys.key("admin")),
        )
    }
    command = {"exec": {"apiVersion": version, "command": "./login", "interactiveMode": "Never"}}
    for user in ({"token": token}, {"tokenFile": "token"}, command, certificate):
        done = plugin("get", "-n", namespace, kubeconfig=edited(definitions, tmp_path / "config", user=user))
        assert (done.returncode, done.stderr) == (0, f"There is no rollout in namespace {namespace}.\n"), user
    wrong = plugin("get", kubeconfig=edited(definitions, tmp_path / "config", user={"token": "nonsense"}))
    assert (wrong.returncode, "does not know who asks" in wrong.stderr) == (1, True)
    actor = edited(definitions, tmp_path / "config", user=certificate | {"as": "nobody", "as-groups": ["none"]})
    assert 'User "nobody" cannot list' in plugin("get", "-n", namespace, kubeconfig=actor).stderr


def test_names_are_completed_from_the_cluster(rollout: str, definitions: Cluster, tmp_path: Path) -> None:
    """kubectl asks `kubectl_complete-cohort`."""
    environment = os.environ | {"KUBECONFIG": str(definitions.kubeconfig), "HOME": str(tmp_path)}
    done = subprocess.run(
        [str(BIN / "kubectl_complete-cohort"), "status", "-n", rollout, "ch"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == ["checkout", ":4"], done.stderr


def test_cohort_itself_asks_a_cluster_too(rollout: str, definitions: Cluster, tmp_path: Path) -> None:
    """surface.md, Commands: `--context`."""
    command = [str(BIN / "cohort"), "get", "-n", rollout, "-o", "name", "--kubeconfig", str(definitions.kubeconfig)]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "canaryrollout.cohort.dev/checkout\n"), done.stderr
