"""What tests of pods are made of: a small server, manifests for it, and the questions they ask about a namespace."""

from __future__ import annotations

from typing import Any

from tests.kube.cluster import Cluster
from tests.kube.pods.session import LOCKED, UNPRIVILEGED, PodRunner, manifest

PORT = 8080
SERVER = f"""
import asyncio, os, signal, sys
from aiohttp import web

async def hello(request):
    return web.Response(text=os.environ["VERSION"])

async def serve():
    ending = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app, shutdown_timeout=20)
    await runner.setup()
    await web.TCPSite(runner, "0.0.0.0", {PORT}).start()
    print("serving", flush=True)
    await ending.wait()
    print("ending", flush=True)
    await runner.cleanup()

asyncio.run(serve())
"""
READY = {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1, "timeoutSeconds": 5}
PORTS = [{"name": "http", "containerPort": PORT}]
ONCE = {"restartPolicy": "Never"}
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def server(version: str, replicas: int = 2, name: str = "server") -> dict[str, Any]:
    """A Deployment of a small server that tells its version, and leaves endpoints time to forget it."""
    container = {
        "ports": PORTS,
        "env": [{"name": "VERSION", "value": version}],
        "readinessProbe": READY,
        "lifecycle": {"preStop": {"sleep": {"seconds": 6}}},
    }
    return manifest(name, ["python", "-c", SERVER], replicas=replicas, container=container)


def service(name: str = "server", **spec: Any) -> dict[str, Any]:
    """A Service of port 80 for it."""
    ports = [{"name": "web", "port": 80, "targetPort": "http"}]
    document = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}}
    return document | {"spec": {"selector": {"app": name}, "ports": ports} | spec}


def script(name: str, text: str, **pod: Any) -> dict[str, Any]:
    """A bare Pod whose one container runs a shell script."""
    container = {"name": "main", "image": "python", "command": ["sh", "-c", text], "securityContext": LOCKED}
    metadata = {"name": name, "labels": {"app": name}}
    spec = {"securityContext": UNPRIVILEGED, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec | pod}


class Space:
    """A namespace of a test, and what tests ask about it."""

    def __init__(self, cluster: Cluster, pods: PodRunner, name: str) -> None:
        self.cluster, self.pods, self.name = cluster, pods, name

    def apply(self, *documents: dict[str, Any]) -> None:
        self.cluster.apply(*documents, namespace=self.name)

    def pod(self, name: str) -> Any:
        return self.cluster.call("GET", f"/api/v1/namespaces/{self.name}/pods/{name}")

    def until(self, name: str, phase: str) -> Any:
        """Wait until a Pod has a phase."""

        def look() -> Any:
            pod = self.pod(name)
            return pod if pod["status"]["phase"] == phase else None

        try:
            return self.cluster.until(look)
        except AssertionError as error:
            raise AssertionError(f"{self.pod(name)['status']}\n{self.pods.log}") from error

    def output(self, name: str, container: str = "") -> str:
        return self.pods.output(self.name, name, container)

    def kubectl(self, *args: str) -> str:
        return self.cluster.kubectl("-n", self.name, *args)

    def endpoints(self, service: str) -> set[str]:
        """Addresses that are ready, of all slices of a Service."""
        path = f"/apis/discovery.k8s.io/v1/namespaces/{self.name}/endpointslices"
        slices = self.cluster.call("GET", f"{path}?labelSelector=kubernetes.io/service-name={service}")["items"]
        found = [one for item in slices for one in item["endpoints"] or () if one["conditions"]["ready"]]
        return {one["addresses"][0] for one in found}
