"""One Pod: its network, volumes and containers, and the status that the API server is told."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.kube.pods.api import STRATEGIC, Api, Refused
from tests.kube.pods.container import Container, now
from tests.kube.pods.fields import Document, Missing
from tests.kube.pods.images import Image
from tests.kube.pods.network import BRIDGE, Link, Network
from tests.kube.pods.volumes import Volumes

REFRESH_S = 10.0
RETRY_S = 0.3
CONFLICT = 409
MOST_NOTES = 50  # of one Pod: a probe that fails for hours is told often enough


class Pod:
    """One Pod of this node.

    Attributes:
        document: As the API server had it last.
        containers: Init containers first, in their order.
    """

    def __init__(self, document: Document, api: Api, network: Network, images: Callable[[str], Image | None]) -> None:
        self.document = document
        self.folder = Path()
        self.link: Link
        self.volumes: Volumes
        self._api = api
        self._network = network
        self.image = images
        spec = document["spec"]
        self._inits = [Container(self, one, is_init=True) for one in spec.get("initContainers") or ()]
        self._mains = [Container(self, one, is_init=False) for one in spec["containers"]]
        self._phase = "Pending"
        self._since: dict[str, tuple[str, str]] = {}
        self._dirty = asyncio.Event()
        self._files = asyncio.Event()
        self._deleted = asyncio.Event()
        self._notes: list[tuple[str, str]] = []
        self._noted = 0
        self._address = ""
        self._ended = False
        self._started = now()

    # -- what the node tells it

    @property
    def containers(self) -> list[Container]:
        return [*self._inits, *self._mains]

    def update(self, document: Document) -> None:
        """Take the object's newest state; a deletion that it asks for begins."""
        self.document = self._addressed(document)
        if document["metadata"].get("deletionTimestamp"):
            self._deleted.set()

    def _addressed(self, document: Document) -> Document:
        """With its addresses, which its variables may ask for before the status with them has come back."""
        addresses = {"hostIP": BRIDGE, "hostIPs": [{"ip": BRIDGE}]}
        if hasattr(self, "link"):
            addresses |= {"podIP": self.link.address, "podIPs": [{"ip": self.link.address}]}
        return {**document, "status": {**(document.get("status") or {}), **addresses}}

    def touched(self, group: str, name: str) -> None:
        """A ConfigMap or Secret has changed."""
        if hasattr(self, "volumes") and (group, name) in self.volumes.refers:
            self._files.set()

    def renew_tokens(self) -> None:
        """Write new tokens now."""
        if hasattr(self, "volumes"):
            self.volumes.renew_tokens()
            self._files.set()

    def changed(self) -> None:
        """Its status is to be written."""
        self._dirty.set()

    def note(self, reason: str, message: str) -> None:
        """Something that a person who looks for the cause wants to read, as an Event."""
        if self._noted < MOST_NOTES:
            self._noted += 1
            self._notes.append((reason, message))
            self._dirty.set()

    # -- its life

    async def run(self, folder: Path) -> None:
        """All of it: until its object is gone, or until its containers have ended for good."""
        self.folder = folder
        folder.mkdir(parents=True)
        self.link = self._network.attach()
        self.document = self._addressed(self.document)
        self.volumes = Volumes(folder / "volumes", self.document, self._api)
        try:
            async with asyncio.TaskGroup() as group:
                reporter, refresher = group.create_task(self._report()), group.create_task(self._refresh())
                await self._live()
                refresher.cancel()
                await self._last_report(reporter)
        finally:
            self._network.detach(self.link)
            shutil.rmtree(folder / "volumes", ignore_errors=True)
        if self._deleted.is_set():
            await finish(self._api, self.document)

    async def _live(self) -> None:
        await self._prepare()
        if self._deleted.is_set():
            return
        self._address = self.link.address
        self.changed()
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self._work(group))
            deletion = group.create_task(self._deleted.wait())
            await asyncio.wait([work, deletion], return_when=asyncio.FIRST_COMPLETED)
            deletion.cancel()
            await self._stop()
        failed = any(one.exit_status for one in self._mains) or self._is_stuck
        self._phase = "Failed" if failed else "Succeeded"
        self.changed()

    async def _prepare(self) -> None:
        """Its files, as soon as all they are made of is there."""
        told = ""
        while not self._deleted.is_set():
            try:
                return await self.volumes.render(self.document)
            except (Missing, Refused) as error:
                if str(error) != told:
                    told = str(error)
                    self.note("FailedMount", told)
                await asyncio.sleep(RETRY_S)
        return None

    async def _work(self, group: asyncio.TaskGroup) -> None:
        """Init containers one after the other, sidecars beside what follows, then the others until they have ended."""
        for one in self._inits:
            if one.is_sidecar:
                group.create_task(one.run())
                await one.until_started()
            else:
                await one.run()
            if self._deleted.is_set() or self._is_stuck:
                return
        self._phase = "Running"
        self.changed()
        async with asyncio.TaskGroup() as mains:
            for one in self._mains:
                mains.create_task(one.run())

    @property
    def _is_stuck(self) -> bool:
        """An init container failed that is not to be restarted."""
        policy = self.document["spec"].get("restartPolicy", "Always")
        plain = [one for one in self._inits if not one.is_sidecar]
        return policy == "Never" and any(one.exit_status for one in plain)

    async def _stop(self) -> None:
        """End what still runs: the containers together, and then the sidecars, the last one first."""
        metadata, spec = self.document["metadata"], self.document["spec"]
        grace = metadata.get("deletionGracePeriodSeconds", spec.get("terminationGracePeriodSeconds", 30))
        deadline = time.monotonic() + grace
        plain = [one for one in self.containers if not one.is_sidecar]
        await asyncio.gather(*(one.stop(deadline) for one in plain))
        for one in reversed(self._inits):
            await one.stop(deadline)

    async def _refresh(self) -> None:
        """Show changed ConfigMaps and Secrets, and new tokens, in the volumes."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._files.wait(), REFRESH_S)
            self._files.clear()
            if self._address:
                with contextlib.suppress(Missing, Refused):
                    await self.volumes.render(self.document)

    # -- its status

    async def _report(self) -> None:
        """Write the status after each change, changes of one moment together."""
        while not self._ended or self._dirty.is_set():
            await self._dirty.wait()
            await self._tell()

    async def _last_report(self, reporter: asyncio.Task[None]) -> None:
        """Not by ending the one under way: the server might carry that out after a later one."""
        self._ended = True
        self.changed()
        await reporter

    async def _tell(self) -> None:
        self._dirty.clear()
        metadata = self.document["metadata"]
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/status"
        body = {"metadata": {"uid": metadata["uid"]}, "status": self._status()}
        notes, self._notes = self._notes, []
        try:
            await self._api.insist("PATCH", path, body, STRATEGIC)
        except Refused as refused:
            if refused.status == CONFLICT and "UID" not in str(refused):  # else it is another of the same name
                self.changed()
        for reason, message in notes:
            with contextlib.suppress(Refused):  # the namespace may be going
                event = self._event(reason, message)
                await self._api.insist("POST", f"/api/v1/namespaces/{metadata['namespace']}/events", event)

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = {
            "phase": "Pending" if self._phase == "Running" and self._is_waited_for else self._phase,
            "startTime": self._started,
            "hostIP": BRIDGE,
            "hostIPs": [{"ip": BRIDGE}],
            "conditions": [*self._conditions()],
            "initContainerStatuses": [one.status() for one in self._inits],
            "containerStatuses": [one.status() for one in self._mains],
        }
        if self._address:
            status |= {"podIP": self._address, "podIPs": [{"ip": self._address}]}
        return status

    @property
    def _is_waited_for(self) -> bool:
        """A container has never been started."""
        return any("waiting" in one.state and not one.last_state for one in self._mains)

    def _conditions(self) -> Iterator[dict[str, str]]:
        running = self._phase == "Running"
        lasting = [*self._mains, *(one for one in self._inits if one.is_sidecar)]
        ready = running and all(one.is_ready for one in lasting)
        given = {one["type"]: one["status"] for one in (self.document.get("status") or {}).get("conditions") or ()}
        gates = [gate["conditionType"] for gate in self.document["spec"].get("readinessGates") or ()]
        whole = ready and all(given.get(gate) == "True" for gate in gates)
        yield self._condition("PodReadyToStartContainers", bool(self._address))
        yield self._condition("Initialized", self._phase != "Pending" and not self._is_stuck)
        yield self._condition("ContainersReady", ready)
        yield self._condition("Ready", whole)

    def _condition(self, kind: str, holds: bool) -> dict[str, str]:
        value = str(holds)
        before, since = self._since.get(kind, ("", ""))
        if before != value:
            since = now()
            self._since[kind] = value, since
        return {"type": kind, "status": value, "lastTransitionTime": since}

    def _event(self, reason: str, message: str) -> dict[str, Any]:
        metadata, moment = self.document["metadata"], now()
        about = {"kind": "Pod", "apiVersion": "v1", "namespace": metadata["namespace"], "name": metadata["name"]}
        return {
            "metadata": {"generateName": f"{metadata['name'][:40]}.", "namespace": metadata["namespace"]},
            "involvedObject": about | {"uid": metadata["uid"]},
            "type": "Warning",
            "reason": reason,
            "message": message[:1000],
            "source": {"component": "pod-runner"},
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }


async def finish(api: Api, document: Document) -> None:
    """Let a Pod's object go, as nothing of it runs any more."""
    metadata = document["metadata"]
    path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
    body = {"gracePeriodSeconds": 0, "preconditions": {"uid": metadata["uid"]}}
    with contextlib.suppress(Refused):
        await api.insist("DELETE", path, body)
