"""The controller of one replica: it watches its namespace, feeds its proxy, and decides while it holds the Lease."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from controller import metrics
from controller.errors import Temporary
from controller.net.kube.actions import Actions
from controller.net.kube.feed import Feed
from controller.net.kube.holder import Holder, Means
from controller.net.kube.lease import Elector
from controller.net.kube.meter import Meter, Server
from controller.net.kube.namespace import Namespace
from controller.net.kube.once import Once, lasting
from controller.net.kube.peers import Connect, Peers
from controller.net.proxies import ProxyClient
from controller.spec import Kube

LEVEL_S = 1.0  # a change wakes at once; this is for what is not seen in the cluster: a proxy that was restarted

log = logging.getLogger("cohort.kube")


@dataclass(frozen=True, slots=True)
class Pod:
    """Where this replica is.

    Attributes:
        name: Of the pod.
        identity: In the Lease and the status: the same after its container was restarted.
        own: Its proxy by the admin API, where only the feed gives it plans; ``feeding`` is that feed's.
        connect: Makes clients of other replicas.
    """

    name: str
    identity: str
    own: ProxyClient
    feeding: ProxyClient
    connect: Connect


class Replica:
    """One replica's controller.

    Args:
        kube: Which rollout it is about.
        api: The API server.
        pod: Where it runs.
        means: What deciding needs.
        draw: A number from 0 to 1, for pauses.
    """

    def __init__(self, kube: Kube, api: Server, pod: Pod, means: Means, draw: Callable[[], float]) -> None:
        clocks = means.clocks
        api = self._meter = Meter(api, clocks.monotonic)
        self._key = f"{kube.namespace}/{kube.rollout}"
        self._monotonic = clocks.monotonic
        self._wakes: list[asyncio.Event] = []
        self._namespace = Namespace(api, kube.namespace, kube.rollout, self._tell, draw, clocks.monotonic)
        self._elector = Elector(
            api,
            kube.namespace,
            kube.lease,
            pod.identity,
            round(kube.lease_duration),
            monotonic=clocks.monotonic,
            wall=clocks.wall,
            changed=self._tell,
        )
        self._feeding = pod.feeding
        self._feed = Feed(pod.feeding, means.secrets, self._namespace.endpoints, clocks.monotonic)
        self._peers = Peers(kube, self._namespace, pod.name, pod.own, pod.connect)
        actions = Actions(api, self._namespace, kube, clocks.wall)
        self._holder = Holder(api, self._namespace, self._elector, self._peers, actions, means)

    def _tell(self) -> None:
        for wake in self._wakes:
            wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._namespace.run(), name="namespace")
                tasks.create_task(lasting("the Lease", self._elector.run), name="lease")
                # Each by itself: an abort waits neither for a plan on its way nor for a decision.
                tasks.create_task(self._forever(self._abort), name="abort")
                tasks.create_task(self._forever(self._level), name="feed")
                tasks.create_task(self._forever(partial(self._decide, tasks)), name="decide")
        finally:
            await self._feeding.close()
            await self._peers.close()

    def metrics(self) -> str:
        """What Prometheus reads: of the rollout where this one decides, and of this controller."""
        engine = self._holder.engine
        fed_at = self._feed.current_at if self._namespace.rollout else self._monotonic()
        replica = metrics.Replica(
            self._key,
            is_holder=self._elector.is_held,
            fed_age_s=self._monotonic() - fed_at,
            api_age_s=self._meter.age_s,
            requests=self._meter.requests,
            watches=self._meter.watches,
            waits_for="" if self._namespace.is_synced else "cluster",
        )
        return metrics.exposition([(engine.key, engine.state, engine.status())] if engine else [], replica)

    async def _forever(self, do: Callable[[], Awaitable[None]]) -> None:
        """Look again after every change, and each second."""
        problems, wake = Once(), asyncio.Event()
        self._wakes.append(wake)
        while True:
            wake.clear()
            try:
                await do()
                problems.say("")
            except Temporary as error:
                problems.say(str(error))
            except Exception:  # a task's root: a fault of ours must not take the kill switch away
                log.exception("a look at the cluster failed")
            try:
                async with asyncio.timeout(LEVEL_S):
                    await wake.wait()
            except TimeoutError:
                pass

    async def _abort(self) -> None:
        """Latch its own proxy, Lease or not, as soon as somebody asks for it."""
        rollout = self._namespace.rollout
        if rollout is not None:
            await self._feed.abort(rollout, self._namespace.actions.objects)

    async def _level(self) -> None:
        """Give its own proxy the plan."""
        rollout = self._namespace.rollout
        if rollout is not None and self._namespace.is_synced:
            await self._feed.level(rollout)

    async def _decide(self, tasks: asyncio.TaskGroup) -> None:
        if self._namespace.is_synced:
            await self._holder.decide(tasks)
