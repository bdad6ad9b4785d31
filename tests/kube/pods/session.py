"""The pod runner as tests see it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp

from tests.kube.cluster import Cluster
from tests.kube.pods.gateway import CUT, RELAY_PORT, RENEW
from tests.kube.pods.images import IMAGES, Image
from tests.kube.pods.network import NAMESPACES, within

PROGRAMS = {"ip": "iproute2", "iptables-restore": "iptables"}
NAME = "pods"
Processes = dict[str, int]


class PodRunner:
    """Runs the pods of a cluster.

    Attributes:
        folder: Its files: what containers write is below ``pods``.
        network: The file of the namespace that has the bridge: from there every Pod and Service is reached.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.folder = cluster.folder / NAME
        self.folder.mkdir()
        self._images = dict(IMAGES)
        self.images()
        self.network: Path

    def start(self) -> None:
        """Start it and wait until pods may come."""
        keys = self._cluster.keys
        settings = {
            "folder": str(self.folder),
            "port": self._cluster.port,
            "authority": str(keys.authority),
            "certificate": str(keys.certificate("admin")),
            "key": str(keys.key("admin")),
            "server_certificate": str(keys.certificate("apiserver")),
            "server_key": str(keys.key("apiserver")),
        }
        path = self.folder / "settings.json"
        path.write_text(json.dumps(settings))
        self._cluster.keeper.start(NAME, sys.executable, "-m", "tests.kube.pods", str(path))
        ready = self.folder / "ready"
        self._cluster.until(lambda: ready.exists() or self._has_ended())
        self.network = NAMESPACES / f"ck-{ready.read_text()}"

    def _has_ended(self) -> bool:
        status = self._cluster.keeper.status(NAME)
        assert status is None, self.log
        return False

    def close(self) -> None:
        """End every container at once, and remove all namespaces."""
        self._cluster.keeper.stop(NAME)

    @property
    def log(self) -> str:
        """What the runner has written: tracebacks, if anything."""
        return self._cluster.keeper.log(NAME)

    def images(self, **images: Image) -> None:
        """Make images known, under their names or other ones; containers that are started from now on have them."""
        self._images |= images
        draft = self.folder / "images.draft"
        draft.write_text(json.dumps({name: asdict(image) for name, image in self._images.items()}))
        draft.rename(self.folder / "images.json")

    def processes(self, namespace: str, selector: str = "") -> dict[str, Processes]:
        """Process 1 of each running container, by Pod and container, for signals."""
        query = f"?labelSelector={selector}" if selector else ""
        pods = self._cluster.call("GET", f"/api/v1/namespaces/{namespace}/pods{query}")["items"]
        found: dict[str, Processes] = {}
        for pod in pods:
            for path in (self.folder / "pods" / pod["metadata"]["uid"]).glob("*/pid"):
                found.setdefault(pod["metadata"]["name"], {})[path.parent.name] = int(path.read_text())
        return found

    def output(self, namespace: str, pod: str, container: str = "") -> str:
        """All that a container has written since it was started last."""
        return self._cluster.kubectl("logs", "-n", namespace, pod, *(("-c", container) if container else ()))

    # -- faults

    def cut(self) -> None:
        """Reset all connections of pods to the API server; those that they begin then are served."""
        self._cluster.keeper.send(NAME, CUT)

    def renew_tokens(self) -> None:
        """Give every Pod new tokens within a moment, as it gets them when the old ones are about to expire."""
        self._cluster.keeper.send(NAME, RENEW)

    @contextlib.contextmanager
    def isolated(self, address: str) -> Iterator[None]:
        """While the block runs, what a Pod sends to the API server is lost: nothing is refused, nothing answered."""
        rule = ("INPUT", "-s", address, "-p", "tcp", "--dport", str(RELAY_PORT), "-j", "DROP")
        self.run("iptables", "-I", *rule, check=True)
        try:
            yield
        finally:
            self.run("iptables", "-D", *rule, check=True)

    # -- inside its network

    def socket(self) -> socket.socket:
        """A TCP socket within it, not blocking."""
        made = within(self.network, socket.socket)
        made.setblocking(False)
        return made

    def connector(self, **options: Any) -> aiohttp.TCPConnector:
        """For an aiohttp session whose connections begin within it; addresses only, no names."""
        return aiohttp.TCPConnector(socket_factory=lambda _: self.socket(), **options)

    async def open_connection(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a Pod or a Service by its address."""
        made = self.socket()
        try:
            await asyncio.get_running_loop().sock_connect(made, (host, port))
        except BaseException:
            made.close()
            raise
        return await asyncio.open_connection(sock=made)

    def run(self, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program within it."""
        return subprocess.run(["nsenter", f"--net={self.network}", *argv], text=True, capture_output=True, **options)


def manifest(
    name: str,
    command: Iterable[str],
    *,
    image: str = "python",
    replicas: int = 1,
    container: Mapping[str, Any] | None = None,
    pod: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A Deployment that Pod Security `restricted` accepts.

    Args:
        name: Its own, the container's, and the value of the label ``app``.
        command: What runs.
        image: A key of ``images.IMAGES`` or one that the test has made known.
        replicas: How many pods.
        container: More fields of the container.
        pod: More fields of the Pod's specification.
    """
    labels = {"app": name}
    one = {"name": name, "image": image, "command": [*command], "securityContext": dict(LOCKED)} | dict(container or {})
    spec = {"securityContext": dict(UNPRIVILEGED), "containers": [one]} | dict(pod or {})
    template = {"metadata": {"labels": labels}, "spec": spec}
    deployment = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": deployment}


UNPRIVILEGED = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
LOCKED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def is_root() -> bool:
    """Whether namespaces may be made."""
    return os.geteuid() == 0
