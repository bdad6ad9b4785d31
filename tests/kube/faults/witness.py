"""What is seen of an installation while faults happen: every plan that is published, every plan that is served, and
every request of its users. Witnesses have connections of their own, so that no fault but their subject's reaches them.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import ssl
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.kube.cluster import Cluster, KubeError
from tests.kube.customers import Customers, Reply
from tests.kube.faults.aborts import Sent
from tests.kube.faults.trace import Trace
from tests.kube.installation import NAME, Installation
from tests.kube.pods.api import Api

LOOK_S = 0.1
ADMIN = "run/cohort/admin.sock"
REDO_S = 2.0  # a look at a proxy that hangs


class Witness:
    """One, for as long as a block runs.

    Attributes:
        trace: What was published.
        served: By (generation, digest), what any proxy has served.
        latches: By pod, the id of the latch that its proxy has now; empty: none.

    Args:
        installation: Whom it looks at.
        weights: Of the rollout's steps, in basis points.
    """

    def __init__(self, installation: Installation, weights: Sequence[int]) -> None:
        self.trace = Trace(weights)
        self.served: set[tuple[int, str]] = set()
        self.latches: dict[str, str] = {}
        self._installation = installation
        self._pids: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """While the block runs."""
        works = (self._published(), self._follow_pods(), self._look())
        self._tasks = [asyncio.create_task(work) for work in works]
        try:
            yield
            self._is_awake()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def latched(self, among: Sequence[str] = (), patience_s: float = 60.0) -> float:
        """Wait until the proxies of these pods, or of all, have a latch; when that was seen."""
        deadline = time.monotonic() + patience_s
        while not (names := among or [*self._pids]) or not all(self.latches.get(name) for name in names):
            self._is_awake()
            assert time.monotonic() < deadline, f"no latch at all of {names} within {patience_s:.0f} s: {self.latches}"
            await asyncio.sleep(LOOK_S / 2)
        return time.monotonic()

    async def free(self, patience_s: float = 60.0) -> None:
        """Wait until no proxy has a latch: one of before would be taken for the next."""
        async with asyncio.timeout(patience_s):
            while any(self.latches.values()):
                self._is_awake()
                await asyncio.sleep(LOOK_S / 2)

    def _is_awake(self) -> None:
        """Raise what has put a witness to sleep: it would have seen nothing from then on."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def abort(self, pod: str) -> None:
        """Abort at one proxy, as whoever has a shell there."""
        async with _session(self._pids[pod]) as session:
            body = {"by": "anna", "reason": "by hand"}
            async with session.post("http://localhost/abort", json=body) as answer:
                assert answer.status == 200, await answer.text()

    async def _published(self) -> None:
        installation = self._installation
        api = Api(installation.cluster.api, _admin(installation.cluster))
        path = f"/apis/cohort.dev/v1alpha1/namespaces/{installation.namespace}/canaryrollouts"
        try:
            async for _, rollout in api.watch(path):
                if rollout["metadata"]["name"] == NAME:
                    self.trace.add(rollout)
        finally:
            await api.close()

    async def _follow_pods(self) -> None:
        """Which pods there are; while the API server is away, those that there were."""
        while True:
            with contextlib.suppress(OSError, KubeError, http.client.HTTPException):
                pods = await asyncio.to_thread(self._installation.proxies)
                found = await asyncio.to_thread(self._installation.pods.processes, self._installation.namespace)
                self._pids = {pod: found[pod]["proxy"] for pod in pods if "proxy" in found.get(pod, {})}
                self.latches = {pod: latch for pod, latch in self.latches.items() if pod in self._pids}
            await asyncio.sleep(0.5)

    async def _look(self) -> None:
        while True:
            await asyncio.gather(*(self._look_at(pod, pid) for pod, pid in self._pids.items()))
            await asyncio.sleep(LOOK_S)

    async def _look_at(self, pod: str, pid: int) -> None:
        try:
            async with _session(pid) as session, session.get("http://localhost/state") as answer:
                answer.raise_for_status()
                state = await answer.json()
        except (aiohttp.ClientError, OSError):  # it has just begun, is about to end, or has too much to do
            self.latches.pop(pod, None)
            return
        plan, latch = state["plan"], state["latch"]
        if plan and plan["uid"] != "initial":
            self.served.add((plan["generation"], plan["core"]))
        self.latches[pod] = latch["id"] if latch else ""


class Visitors(Customers):
    """Users whose every request is noted.

    Attributes:
        sent: Those that were answered.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.sent: list[Sent] = []

    async def _exchange(self, session: aiohttp.ClientSession, request: Any, is_last: bool) -> Reply:
        at = time.monotonic()
        reply = await super()._exchange(session, request, is_last)
        self.sent.append(Sent(at, _field(reply.fields, "x-cohort-arm"), _field(reply.fields, "x-cohort-reason")))
        return reply


def _field(fields: Mapping[str, list[str]], name: str) -> str:
    return fields.get(name, [""])[0]


def _session(pid: int) -> aiohttp.ClientSession:
    """To the admin API of the proxy that runs as a process, by its own root folder."""
    path = str(Path(f"/proc/{pid}/root") / ADMIN)
    return aiohttp.ClientSession(connector=aiohttp.UnixConnector(path), timeout=aiohttp.ClientTimeout(total=REDO_S))


def _admin(cluster: Cluster) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(cluster.keys.authority))
    context.load_cert_chain(cluster.keys.certificate("admin"), cluster.keys.key("admin"))
    return context
