"""One container of a Pod: started, probed, restarted and ended as a kubelet does it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from tests.kube.pods import images, probes
from tests.kube.pods.fields import Document, Missing, environment, expand
from tests.kube.pods.network import BRIDGE, Link
from tests.kube.pods.volumes import Volumes

SANDBOX = Path(__file__).with_name("sandbox.py")
LAST_GRACE_S = 2.0  # after a preStop that has used all of the grace period
BACK_OFF_S, LONGEST_BACK_OFF_S, FORGIVEN_AFTER_S = 1.0, 30.0, 60.0  # a tenth of a kubelet's
RETRY_S = 0.5  # for what a container waits for before it can be started
PATIENCE_S = 60.0
PROBES = {"startupProbe": "Startup", "livenessProbe": "Liveness", "readinessProbe": "Readiness"}


class Host(Protocol):
    """What a container needs of its Pod."""

    document: Document
    link: Link
    volumes: Volumes
    folder: Path

    def image(self, name: str) -> images.Image | None: ...

    def changed(self) -> None: ...

    def note(self, reason: str, message: str) -> None: ...


class Container:
    """One container.

    Attributes:
        is_sidecar: An init container that is restarted always.
        pid: Its process 1 as this machine counts, or None.
        status: As the API has it, without the name.
    """

    def __init__(self, host: Host, document: Document, is_init: bool) -> None:
        self._host = host
        self.document = document
        self.is_init = is_init
        self.is_sidecar = is_init and document.get("restartPolicy") == "Always"
        self.pid: int | None = None
        self.restarts = 0
        self.state: dict[str, Any] = {"waiting": {"reason": "PodInitializing"}}
        self.last_state: dict[str, Any] = {}
        self.is_ready = False
        self._started = asyncio.Event()
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._begun = ""
        self._environment: dict[str, str] = {}
        self._credentials_now: dict[str, Any] = {}
        self._watchers: list[asyncio.Task[None]] = []

    # -- what others see

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @property
    def exit_status(self) -> int | None:
        """Of a container that has ended for good or waits for its restart."""
        ended = self.state.get("terminated") or self.last_state.get("terminated")
        return int(ended["exitCode"]) if ended and self.pid is None else None

    def status(self) -> dict[str, Any]:
        """The containerStatus."""
        return {
            "name": self.name,
            "image": self.document["image"],
            "imageID": f"local://{self.document['image']}",
            "containerID": f"local://{self._host.document['metadata']['uid']}-{self.name}-{self.restarts}",
            "restartCount": self.restarts,
            "ready": self.is_ready,
            "started": self._started.is_set() and "running" in self.state,
            "state": self.state,
            "lastState": self.last_state,
        }

    def log(self, restart: int) -> Path:
        """The file of all that it has written since a restart."""
        return self._host.folder / self.name / f"{restart}.log"

    async def until_started(self) -> None:
        """Return when it runs and its startup probe, if any, has succeeded, or when it is being ended."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._started, self._stopping)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    # -- its life

    async def run(self) -> None:
        """Run it until it has ended for good."""
        row = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            await self._once()
            if self._stopping.is_set() or not self._is_restarted():
                return
            row = 1 if time.monotonic() - began > FORGIVEN_AFTER_S else row + 1
            await self._back_off(row)

    def _is_restarted(self) -> bool:
        policy = self._host.document["spec"].get("restartPolicy", "Always")
        if self.is_sidecar:
            return True
        if self.is_init:
            return policy != "Never" and self.exit_status != 0
        return policy == "Always" or (policy == "OnFailure" and self.exit_status != 0)

    async def _back_off(self, row: int) -> None:
        """Wait before the next start: not at all after the first end, then twice as long each time."""
        if row > 1:
            delay = min(BACK_OFF_S * 2 ** (row - 2), LONGEST_BACK_OFF_S)
            self.last_state = self.state
            self._change({"waiting": {"reason": "CrashLoopBackOff", "message": f"back-off {delay:.0f}s"}})
            self._host.note(
                "BackOff", f"container {self.name} ended with {self.exit_status}; started again in {delay:.0f} s"
            )
            await self._sleep(delay)
        else:
            self.last_state = self.state
        self.restarts += 1

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _once(self) -> None:
        """One run, from what it waits for to its exit status."""
        if not await self._start():
            return
        assert self._process
        try:
            async with asyncio.TaskGroup() as group:
                self._watchers = [group.create_task(self._attend(group))]
                status = await self._process.wait()
                for watcher in self._watchers:
                    watcher.cancel()
        finally:
            if self._process.returncode is None:
                self._process.kill()
                await asyncio.shield(self._process.wait())
        self._ended(status)

    def _ended(self, status: int) -> None:
        self.pid = None
        (self.log(0).parent / "pid").unlink(missing_ok=True)
        self._started.clear()
        reason = "Completed" if status == 0 else "Error"
        times = {"startedAt": self._begun, "finishedAt": now()}
        self.is_ready = status == 0 and self.is_init and not self.is_sidecar
        self._change({"terminated": {"exitCode": status, "reason": reason} | times})

    def _change(self, state: dict[str, Any]) -> None:
        self.state = state
        self._host.changed()

    # -- starting

    async def _start(self) -> bool:
        """Start it as soon as what it refers to is there; False if it is being ended before."""
        while not self._stopping.is_set():
            try:
                specification = await self._specification()
            except (Missing, PermissionError) as error:
                if self.state.get("waiting", {}).get("message") != str(error):
                    self._change({"waiting": {"reason": "CreateContainerConfigError", "message": str(error)}})
                    self._host.note("Failed", str(error))
                await self._sleep(RETRY_S)
                continue
            await self._spawn(specification)
            if self._stopping.is_set():  # stop() has found nothing to end
                await self._end(0.0)
            return True
        return False

    async def _specification(self) -> dict[str, Any]:
        """What the sandbox is to do.

        Raises:
            Missing: There is no such image, ConfigMap, Secret, key.
            PermissionError: It would run as root and must not.
        """
        pod, image = self._host.document, self._host.image(self.document["image"])
        if image is None:
            raise Missing(f"no image {self.document['image']} on this node")
        base = {"PATH": images.PATH, "HOSTNAME": hostname(pod), "HOME": "/"} | dict(image.environment) | IN_CLUSTER
        self._environment = await environment(pod, self.document, base, self._host.volumes.look)
        return {
            "net": str(self._host.link.namespace),
            "root": str(self._root()),
            "binds": [*images.binds(image), *self._mounts()],
            "links": images.links(),
            "files": files(pod, self._host.link.address),
            "hostname": hostname(pod),
            "argv": self._command(image),
            "env": self._environment,
        } | self._credentials(image)

    def _root(self) -> Path:
        """An empty folder that the sandbox mounts the root on."""
        path = self._host.folder / "root"
        path.mkdir(exist_ok=True)
        return path

    def _command(self, image: images.Image) -> list[str]:
        """Kubernetes' rule: ``command`` takes the place of entrypoint and arguments, ``args`` of the arguments."""
        command, args = self.document.get("command"), self.document.get("args")
        given = [*(command or image.entrypoint), *(args or ([] if command else image.arguments))]
        return [expand(word, self._environment) for word in given]

    def _mounts(self) -> list[tuple[str, str, bool]]:
        named = {volume["name"]: volume for volume in self._host.document["spec"].get("volumes") or ()}
        return [
            (
                str(self._host.volumes.path(mount)),
                mount["mountPath"].rstrip("/"),
                bool(mount.get("readOnly")) or "emptyDir" not in named[mount["name"]],
            )
            for mount in self.document.get("volumeMounts") or ()
        ]

    def _credentials(self, image: images.Image) -> dict[str, Any]:
        pod = self._host.document["spec"].get("securityContext") or {}
        own = self.document.get("securityContext") or {}
        given = pod | own
        user = int(given.get("runAsUser", image.user))
        if given.get("runAsNonRoot") and user == 0:
            raise PermissionError(f"container {self.name} has runAsNonRoot and would run as root")
        group = int(given.get("runAsGroup", user if user in (0, images.NOBODY) else 0))
        groups = [*(pod.get("supplementalGroups") or ()), *([pod["fsGroup"]] if "fsGroup" in pod else ())]
        return {
            "uid": user,
            "gid": group,
            "groups": groups,
            "drop": "ALL" in (own.get("capabilities") or {}).get("drop", ()),
            "locked": own.get("allowPrivilegeEscalation") is False,
            "read_only": bool(own.get("readOnlyRootFilesystem")),
            "cwd": self.document.get("workingDir") or image.folder,
        }

    async def _spawn(self, specification: dict[str, Any]) -> None:
        log = self.log(self.restarts)
        log.parent.mkdir(exist_ok=True)
        self._credentials_now = {key: specification[key] for key in ("uid", "gid", "groups", "drop", "locked", "cwd")}
        heard, told = os.pipe()
        try:
            self._process = await self._sandbox(specification | {"tell": told}, log, pass_fds=(told,))
        finally:
            os.close(told)
        try:
            said = await asyncio.wait_for(asyncio.to_thread(os.read, heard, 64), PATIENCE_S)
        finally:
            os.close(heard)
        self.pid = int(said) if said else None
        draft = log.parent / "pid.draft"  # for those who look from outside
        draft.write_text(str(self.pid or 0))
        draft.rename(log.parent / "pid")
        self._begun = now()
        self._change({"running": {"startedAt": self._begun}})

    async def _sandbox(self, specification: Mapping[str, Any], log: Path, **more: Any) -> asyncio.subprocess.Process:
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-IS", str(SANDBOX), stdin=asyncio.subprocess.PIPE, stdout=output, stderr=output, **more
            )
        assert process.stdin
        process.stdin.write(json.dumps(specification).encode())
        process.stdin.close()
        return process

    async def execute(self, command: Sequence[str]) -> int:
        """Run a command inside it; its exit status, 1 if there is no container to run it in."""
        if self.pid is None:
            return 1
        specification = {**self._credentials_now, "join": self.pid, "argv": list(command), "env": self._environment}
        process = await self._sandbox(specification, self._host.folder / self.name / "exec.log")
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await asyncio.shield(process.wait())

    # -- probes

    async def _attend(self, group: asyncio.TaskGroup) -> None:
        """The hook after its start, then its probes in their order."""
        hook = (self.document.get("lifecycle") or {}).get("postStart")
        if hook and (wrong := await self._act(hook)):
            self._host.note("FailedPostStartHook", wrong)
            return await self._end(self._grace)
        self._watchers += [group.create_task(self._probe(name)) for name in PROBES if self.document.get(name)]
        if not self.document.get("startupProbe"):
            self._is_started()
        return None

    def _is_started(self) -> None:
        self._started.set()
        self.is_ready = not self.document.get("readinessProbe") and not (self.is_init and not self.is_sidecar)
        self._host.changed()

    async def _probe(self, name: str) -> None:
        probe = self.document[name]
        if name != "startupProbe":
            await self._started.wait()

        async def once() -> str:
            return await probes.look(probe, self._host.link.address, self.document, self.execute)

        failing = asyncio.Event()

        def tell(good: bool, wrong: str) -> None:
            if not good:
                self._host.note("Unhealthy", f"{PROBES[name]} probe failed: {wrong}")
            self._probed(name, good, failing)

        follow = asyncio.ensure_future(probes.follow(probe, once, tell))
        try:
            await failing.wait()
        finally:
            follow.cancel()
        await self._end(probe.get("terminationGracePeriodSeconds", self._grace))

    def _probed(self, name: str, good: bool, failing: asyncio.Event) -> None:
        if name == "readinessProbe":
            if self.is_ready is not good:
                self.is_ready = good
                self._host.changed()
        elif not good and not self._stopping.is_set():
            failing.set()
        elif good and name == "startupProbe" and not self._started.is_set():
            self._is_started()

    # -- ending

    @property
    def _grace(self) -> float:
        return float(self._host.document["spec"].get("terminationGracePeriodSeconds", 30))

    async def stop(self, deadline: float) -> None:
        """End it for good: preStop, SIGTERM, and SIGKILL when the deadline, of the monotonic clock, has passed."""
        self._stopping.set()
        if self.pid is not None:
            await self._end(max(deadline - time.monotonic(), 0.0))

    async def _end(self, grace: float) -> None:
        """One process's end; returns when it is gone."""
        process, pid = self._process, self.pid
        if process is None or pid is None:
            return
        deadline = time.monotonic() + grace
        if hook := (self.document.get("lifecycle") or {}).get("preStop"):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    if wrong := await self._act(hook):
                        self._host.note("FailedPreStopHook", wrong)
        left = max(deadline - time.monotonic(), LAST_GRACE_S if grace else 0.0)
        kill(pid, signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(process.wait()), left)
        except TimeoutError:
            kill(pid, signal.SIGKILL)
            await process.wait()

    async def _act(self, hook: Document) -> str:
        return await probes.act(hook, self._host.link.address, self.document, self.execute)


IN_CLUSTER = {
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
    "KUBERNETES_SERVICE_PORT_HTTPS": "443",
}


def files(pod: Document, address: str) -> dict[str, str]:
    """What a root's /etc tells about users and names."""
    metadata, spec = pod["metadata"], pod["spec"]
    aliases = "".join(f"{one['ip']}\t{' '.join(one['hostnames'])}\n" for one in spec.get("hostAliases") or ())
    zones = (f"{metadata['namespace']}.svc.cluster.local", "svc.cluster.local", "cluster.local")
    return {
        "/etc/passwd": images.USERS,
        "/etc/group": images.GROUPS,
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        "/etc/hostname": f"{hostname(pod)}\n",
        "/etc/hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{address}\t{hostname(pod)}\n{aliases}",
        "/etc/resolv.conf": f"search {' '.join(zones)}\nnameserver {BRIDGE}\noptions ndots:5\n",
    }


def hostname(pod: Document) -> str:
    """A Pod's host name."""
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])[:63]


def kill(pid: int, number: int) -> None:
    """Send a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def now() -> str:
    """The time as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
