"""People of an installation: with the rights that they were given, and the plugin as they run it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.kube import rights
from tests.kube.cluster import Cluster
from tests.kube.installation import NAME

BIN = Path(sys.executable).parent
VERBS = ("Promote", "PromoteFull", "Pause", "Resume", "Abort", "Retry", "SetWeight")
GROUP = "rbac.authorization.k8s.io"
LIMIT_S = 150  # of a command: a machine that does much else is slow, not wrong

Done = subprocess.CompletedProcess[str]


class Person:
    """Somebody who works in a namespace.

    Attributes:
        name: As the API server knows him.
    """

    def __init__(self, cluster: Cluster, namespace: str, name: str, kubeconfig: Path) -> None:
        self.name = name
        self._cluster, self._namespace, self._kubeconfig = cluster, namespace, kubeconfig
        self._env = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(cluster.folder), "KUBECONFIG": str(kubeconfig)}

    # -- the plugin

    def run(self, *args: str) -> Done:
        """Run one command of ``kubectl cohort`` to its end."""
        command = [str(self._cluster.programs["kubectl"]), "cohort", *args]
        return subprocess.run(command, env=self._env, capture_output=True, text=True, timeout=LIMIT_S)

    def good(self, *args: str) -> str:
        """What it prints when it succeeds."""
        done = self.run(*args)
        assert (done.returncode, done.stderr) == (0, ""), (args, done)
        return done.stdout

    def bad(self, code: int, *args: str) -> str:
        """What it says when it fails with this code."""
        done = self.run(*args)
        assert done.returncode == code, (args, done)
        return done.stderr

    @contextmanager
    def following(self, *args: str) -> Iterator[subprocess.Popen[str]]:
        """The command while it runs."""
        command = [str(BIN / "kubectl-cohort"), *args]
        process = subprocess.Popen(command, env=self._env, stdout=subprocess.DEVNULL)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    # -- rights

    def refused(self, verb: str, by: str = "", rollout: str = NAME) -> str:
        """Ask for an action that is not kept: what the API server says against it, empty if nothing."""
        spec: dict[str, Any] = {"rollout": rollout, "verb": verb, "revision": "v9", "requestedBy": by or self.name}
        spec |= {"weight": 10} if verb == "SetWeight" else {}
        metadata = {"generateName": "a-", "namespace": self._namespace}
        action = {"apiVersion": "cohort.dev/v1alpha1", "kind": "RolloutAction", "metadata": metadata, "spec": spec}
        command = ("kubectl", "create", "--dry-run=server", "-f", "-")
        return self._cluster.run(*command, input=json.dumps(action), kubeconfig=self._kubeconfig).stderr

    def allowed(self) -> set[str]:
        """The verbs that he may ask for."""
        return {verb for verb in VERBS if not self.refused(verb)}


def person(cluster: Cluster, namespace: str, name: str, *groups: str) -> Person:
    """A user of these groups: the API server evaluates the rights of whom one acts as, in every policy too."""
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"][0]["user"] |= {"as": name, "as-groups": [*groups, "system:authenticated"]}
    config["contexts"][0]["context"]["namespace"] = namespace
    path = cluster.folder / f"{namespace}-{name}.kubeconfig"
    path.write_text(json.dumps(config))
    return Person(cluster, namespace, name, path)


def bot(cluster: Cluster, namespace: str, account: str) -> Person:
    """A program with a token of a ServiceAccount."""
    kubeconfig = cluster.kubeconfig_of(namespace, account)
    return Person(cluster, namespace, rights.account(namespace, account), kubeconfig)


def bind(cluster: Cluster, namespace: str, role: str, group: str) -> None:
    """Give a group a ClusterRole in one namespace."""
    binding = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": group},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": group}],
    }
    cluster.apply(binding, namespace=namespace)
