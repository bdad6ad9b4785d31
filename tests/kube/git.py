"""Everything that a team keeps in Git, as tools like Argo CD and Flux apply it and compare it with a cluster."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from tests.kube.cluster import Cluster, KubeError

Object = dict[str, Any]
TRIES = 8  # of a comparison, while others write the status that it leaves out
STATELESS = frozenset(  # nobody but who applies them writes these, so their resource versions stay
    (
        "AnalysisTemplate",
        "ClusterRole",
        "ConfigMap",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
        "ValidatingAdmissionPolicyBinding",
    )
)


class Git:
    """A folder of manifests.

    Attributes:
        objects: By kind and name.
    """

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self._cluster, self._namespace = cluster, namespace
        self._resources: dict[str, list[Object]] = {}

    def commit(self, *objects: Object) -> None:
        """Add objects, or other versions of them."""
        for item in objects:
            self.objects[item["kind"], item["metadata"]["name"]] = item

    @property
    def text(self) -> str:
        """All of it, as kubectl reads it."""
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(self.objects.values())})

    def apply(self, manager: str, *options: str) -> list[str]:
        """Apply all of it server-side as a field manager; what kubectl says of each object.

        Raises:
            AssertionError: A conflict with another manager, or anything else that kubectl fails for.
        """
        command = ("apply", "--server-side", f"--field-manager={manager}", "--validate=strict", *options)
        return self._cluster.kubectl(*command, "-n", self._namespace, "-f", "-", input=self.text).splitlines()

    def live(self, item: Object) -> Object:
        """An object as the server has it."""
        found: Object = self._cluster.call("GET", self._path(item))
        return found

    def differences(self, manager: str) -> list[str]:
        """What an apply would change, found as Argo CD and Flux do: by one that the server does not keep.

        A status is not compared, which is its controllers' own, nor are the names of managers.
        """
        return [said for item in self.objects.values() if (said := self._difference(item, manager))]

    def _difference(self, item: Object, manager: str) -> str:
        name = f"{item['kind']} {item['metadata']['name']}"
        query = f"?fieldManager={manager}&dryRun=All&fieldValidation=Strict"
        for _ in range(TRIES):
            before = self.live(item)
            try:
                made = self._cluster.call("PATCH", self._path(item) + query, item, "application/apply-patch+yaml")
            except KubeError as error:
                return f"{name}: {error}"
            if _meaning(before) == _meaning(made):
                return ""
            if self.live(item)["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]:
                return f"{name}: {json.dumps(_meaning(before))} would be {json.dumps(_meaning(made))}"
        return f"{name}: never the same for long enough to be compared"

    def diff(self, *options: str) -> str:
        """What `kubectl diff` prints; nothing where nothing differs."""
        done = self._cluster.run("kubectl", "diff", *options, "-n", self._namespace, "-f", "-", input=self.text)
        assert done.returncode in (0, 1), done.stderr
        return done.stdout

    def versions(self) -> dict[tuple[str, str], tuple[int, str]]:
        """The generation of each object, and the resource version of those that have no status."""
        return {
            key: (found["metadata"].get("generation", 0), found["metadata"]["resourceVersion"] * (key[0] in STATELESS))
            for key, found in ((key, self.live(item)) for key, item in self.objects.items())
        }

    def managers(self) -> set[str]:
        """Who has written anything but a status."""
        entries = [entry for item in self.objects.values() for entry in self.live(item)["metadata"]["managedFields"]]
        return {entry["manager"] for entry in entries if entry.get("subresource") != "status"}

    def remove(self) -> None:
        """Take away what would outlive the namespace."""
        for item in self.objects.values():
            if item["kind"] in ("ClusterRole", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"):
                self._cluster.call("DELETE", self._path(item))

    def _path(self, item: Object) -> str:
        version = item["apiVersion"]
        base = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if base not in self._resources:
            self._resources[base] = self._cluster.call("GET", base)["resources"]
        kinds = [one for one in self._resources[base] if one["kind"] == item["kind"] and "/" not in one["name"]]
        place = f"/namespaces/{self._namespace}" if kinds[0]["namespaced"] else ""
        return f"{base}{place}/{kinds[0]['name']}/{item['metadata']['name']}"


def _meaning(item: Object) -> Object:
    """An object without its status and what the server counts."""
    counted = ("managedFields", "resourceVersion", "generation")
    metadata = {key: value for key, value in item["metadata"].items() if key not in counted}
    return {key: value for key, value in item.items() if key != "status"} | {"metadata": metadata}


def tracked(items: Iterable[Object]) -> list[str]:
    """Objects that Argo CD, Flux or Helm would take for one of theirs, by label, annotation or owner."""
    marks = ("app.kubernetes.io/instance", "argocd.argoproj.io/", "fluxcd.io/", "helm.sh/", "applyset.kubernetes.io/")
    found = []
    for item in items:
        metadata = item["metadata"]
        names = [*(metadata.get("labels") or {}), *(metadata.get("annotations") or {})]
        if metadata.get("ownerReferences") or any(mark in name for name in names for mark in marks):
            found.append(f"{metadata['name']}: {metadata}")
    return found
