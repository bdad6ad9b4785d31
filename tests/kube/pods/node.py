"""The node: which pods are its own, and what they need of the cluster around them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.kube.pods import gateway, services
from tests.kube.pods.api import STRATEGIC, Api, Refused
from tests.kube.pods.fields import Document
from tests.kube.pods.images import Image, resolve
from tests.kube.pods.network import BRIDGE, Network
from tests.kube.pods.pod import Pod, finish

NAME = "node"
REMEMBERED = 500  # pods
SETTLE_S = 0.02  # rules for changes of one moment are written once
ENDED = ("Succeeded", "Failed")


class Node:
    """One node.

    Attributes:
        pods: By uid, those that run.
    """

    def __init__(self, folder: Path, api: Api, network: Network) -> None:
        self.folder = folder
        self._api = api
        self._network = network
        self.pods: dict[str, Pod] = {}
        self._all: deque[Pod] = deque(maxlen=REMEMBERED)  # those that have ended have logs too
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ended: set[str] = set()
        self._services: dict[services.Key, Document] = {}
        self._slices: dict[services.Key, Document] = {}
        self._changed = asyncio.Event()

    async def run(self, logs_port: int, ready: Callable[[], None]) -> None:
        """For ever; ``ready`` is called when pods may come."""
        await self._register(logs_port)
        gateway.prepare_rules()
        async with asyncio.TaskGroup() as group:
            group.create_task(gateway.Names(self.records).serve())
            group.create_task(self._watch_cluster("/api/v1/services", self._services))
            group.create_task(self._watch_cluster("/apis/discovery.k8s.io/v1/endpointslices", self._slices))
            group.create_task(self._write_rules())
            for kind in ("configmaps", "secrets"):
                group.create_task(self._watch_files(kind))
            group.create_task(self._watch_pods(group))
            ready()

    def records(self) -> Iterator[services.Record]:
        """All that the DNS server knows."""
        return services.records(self._services, self._slices.values())

    def image(self, name: str) -> Image | None:
        """What an image reference means, the session's own images before those that are always there."""
        with (self.folder / "images.json").open() as file:
            table = {key: Image(**given) for key, given in json.load(file).items()}
        return resolve(name, table)

    async def _register(self, logs_port: int) -> None:
        """Make the Node, ready, and the endpoints of the Service `kubernetes`."""
        labels = {"kubernetes.io/hostname": NAME, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        node = {"metadata": {"name": NAME, "labels": labels}}
        await self._make("/api/v1/nodes", node)
        capacity = {"cpu": "64", "memory": "64Gi", "pods": "250", "ephemeral-storage": "64Gi"}
        # The API server asks the first of these for logs, and finds it on its own loopback.
        addresses = [{"type": "Hostname", "address": "localhost"}, {"type": "InternalIP", "address": BRIDGE}]
        condition = {"type": "Ready", "status": "True", "reason": "RunnerReady", "message": "pods are processes"}
        status = {
            "capacity": capacity,
            "allocatable": capacity,
            "conditions": [condition],
            "addresses": addresses,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": logs_port}},
        }
        await self._api.insist("PATCH", f"/api/v1/nodes/{NAME}/status", {"status": status}, STRATEGIC)
        await self._make("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", gateway.kubernetes_slice())

    async def _make(self, path: str, document: Document) -> None:
        try:
            await self._api.insist("POST", path, document)
        except Refused as refused:
            if refused.status != 409:
                raise

    # -- pods

    async def _watch_pods(self, group: asyncio.TaskGroup) -> None:
        async for event, document in self._api.watch("/api/v1/pods"):
            uid, spec = document["metadata"]["uid"], document["spec"]
            if event == "DELETED":
                if task := self._tasks.get(uid):
                    task.cancel()
            elif uid in self.pods:
                self.pods[uid].update(document)
            elif not spec.get("nodeName"):
                self._bind(group, document)
            elif spec["nodeName"] == NAME:
                self._begin(group, document)

    def _bind(self, group: asyncio.TaskGroup, document: Document) -> None:
        """As a scheduler does, without choice: a Pod that waits for a gate, or for another scheduler, is left alone."""
        metadata, spec = document["metadata"], document["spec"]
        if metadata.get("deletionTimestamp") or spec.get("schedulingGates"):
            return
        if spec.get("schedulerName", "default-scheduler") != "default-scheduler":
            return
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/binding"
        target = {"apiVersion": "v1", "kind": "Node", "name": NAME}
        body = {"metadata": {"name": metadata["name"], "uid": metadata["uid"]}, "target": target}
        group.create_task(self._try("POST", path, body))

    async def _try(self, method: str, path: str, body: Any) -> None:
        with contextlib.suppress(Refused):
            await self._api.insist(method, path, body)

    def _begin(self, group: asyncio.TaskGroup, document: Document) -> None:
        uid = document["metadata"]["uid"]
        ended = (document.get("status") or {}).get("phase") in ENDED
        if document["metadata"].get("deletionTimestamp"):
            group.create_task(finish(self._api, document))
        elif not ended and uid not in self._ended:
            self.pods[uid] = Pod(document, self._api, self._network, self.image)
            self._all.append(self.pods[uid])
            self._tasks[uid] = group.create_task(self._live(uid))

    async def _live(self, uid: str) -> None:
        """One Pod; what goes wrong with it is written down and touches no other."""
        pod = self.pods[uid]
        try:
            await pod.run(self.folder / "pods" / uid)
        except Exception:
            traceback.print_exc(file=sys.stderr)
        finally:
            self._ended.add(uid)  # its own last status is still to come back
            del self.pods[uid], self._tasks[uid]

    def renew_tokens(self) -> None:
        """Give every Pod new tokens."""
        for pod in self.pods.values():
            pod.renew_tokens()

    def log(self, namespace: str, name: str, container: str, previous: bool) -> Path | None:
        """The file of a container's output, of the newest Pod of that name; None if there is no such container."""
        for pod in reversed(self._named(namespace, name)):
            for one in pod.containers:
                if one.name == container:
                    return one.log(one.restarts - previous)
        return None

    def is_running(self, namespace: str, name: str) -> bool:
        """Whether such a Pod has not ended."""
        return any(pod in self.pods.values() for pod in self._named(namespace, name))

    def _named(self, namespace: str, name: str) -> list[Pod]:
        wanted = {"namespace": namespace, "name": name}
        return [pod for pod in self._all if wanted.items() <= pod.document["metadata"].items()]

    # -- what is around them

    async def _watch_cluster(self, path: str, known: dict[services.Key, Document]) -> None:
        async for event, item in self._api.watch(path):
            key = item["metadata"]["namespace"], item["metadata"]["name"]
            if event == "DELETED":
                known.pop(key, None)
            else:
                known[key] = item
            self._changed.set()

    async def _write_rules(self) -> None:
        written = ""
        while True:
            await self._changed.wait()
            await asyncio.sleep(SETTLE_S)
            self._changed.clear()
            text = services.rules(self._services, self._slices.values())
            if text != written:
                await asyncio.to_thread(gateway.write_rules, text)
                written = text

    async def _watch_files(self, kind: str) -> None:
        async for _, item in self._api.watch(f"/api/v1/{kind}"):
            namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
            for pod in list(self.pods.values()):
                if pod.document["metadata"]["namespace"] == namespace:
                    pod.touched(kind, name)
