"""Replicas of the controller, their proxies and an API server under virtual time; a controller may die at any write.

What dies is a process: its lines to the API server and to all proxies are cut before or after one write, whatever its
tasks were at, and nothing of it is cleaned up that others could see. Proxies and the API server go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from controller import planner
from controller.errors import Temporary
from controller.net.engine import Clocks
from controller.net.kube.holder import Means
from controller.net.kube.replica import Pod, Replica
from controller.net.proxies import ProxyClient
from controller.spec import Kube
from proxy.plan import parse_plan
from tests.support.fake_api import FakeApi
from tests.support.fake_proxy import FakeProxy

SPLIT = b"s" * 32
LATENCY_S = 0.002  # of the API server and of proxies
EPOCH = 1_700_000_000.0
SOON_S, LATE_S = 0.3, 6.0  # a container that is started again at once; one that is not before another took the Lease
LEASE_S = 3.0
ROLLOUT = "/apis/cohort.dev/v1alpha1/namespaces/shop/canaryrollouts/web"
PLACES = {
    "Service": "/api/v1/namespaces/shop/services",
    "Pod": "/api/v1/namespaces/shop/pods",
    "EndpointSlice": "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices",
    "CanaryRollout": "/apis/cohort.dev/v1alpha1/namespaces/shop/canaryrollouts",
    "RolloutAction": "/apis/cohort.dev/v1alpha1/namespaces/shop/rolloutactions",
    "AnalysisTemplate": "/apis/cohort.dev/v1alpha1/namespaces/shop/analysistemplates",
    "Lease": "/apis/coordination.k8s.io/v1/namespaces/shop/leases",
}

Object = dict[str, Any]
# What is written, and "before" or "after"; "frozen": the process stands still before it; "gone" or "lost": the API
# server is away from before it on, or after it and before its answer.
Kill = tuple[str, str]


class Process:
    """One run of a controller: its lines, which all end with it."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.name = name
        self.is_cut = False
        self.frozen_until = 0.0
        self.died = asyncio.Event()
        self._stage = stage
        self._is_buried = False

    def bury(self) -> None:
        """From here on whoever of it still asks is told that there is nothing."""
        self.is_cut = self._is_buried = True

    async def line(self, do: Callable[[], Awaitable[Any]], writes: str = "") -> Any:
        """One exchange with the world; ``writes``: what it changes there."""
        await self._alive()
        await asyncio.sleep(LATENCY_S)
        if writes:
            self._stage.may_go(writes, "gone")
            await self._may_freeze(writes)
            await self._may_die(writes, "before")
        await self._alive()
        answer = await do()
        if writes:
            self._stage.may_go(writes, "lost")
            await self._may_die(writes, "after")
        await asyncio.sleep(LATENCY_S)
        await self._alive()
        return answer

    async def _alive(self) -> None:
        if self._is_buried:
            raise Temporary("this process has ended")
        await asyncio.sleep(self.frozen_until - asyncio.get_running_loop().time())
        if self.is_cut:
            await asyncio.Future()  # nothing of it runs any more

    def kill(self) -> None:
        """SIGKILL."""
        self.is_cut = True
        self.died.set()

    async def _may_freeze(self, writes: str) -> None:
        """SIGSTOP with a write under way, for longer than the Lease lasts; it goes out when the process goes on."""
        if (writes, "frozen") in self._stage.kills:
            del self._stage.kills[writes, "frozen"]
            self.frozen_until = asyncio.get_running_loop().time() + LATE_S
            await self._alive()

    async def _may_die(self, writes: str, when: str) -> None:
        if when == "before":
            self._stage.writes.append(writes)
        if (writes, when) in self._stage.kills:
            del self._stage.kills[writes, when]
            self.kill()
            await self._alive()


class Api:
    """The API server as one process asks it."""

    def __init__(self, process: Process, stage: Stage) -> None:
        self._process = process
        self._stage = stage
        self._api = stage.api

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Object:
        async def do() -> Object:
            self._stage.must_be_there()
            return await self._api.ask(method, path, body, **more)

        writes = "" if method == "GET" else _label(self._api, method, path, body)
        answer: Object = await self._process.line(do, writes)
        self._stage.must_be_there()
        return answer

    async def watch(self, path: str, version: str, limit_s: int) -> AsyncIterator[Object]:
        self._stage.must_be_there()
        async with contextlib.aclosing(self._api.watch(path, version, limit_s)) as events:  # type: ignore[type-var]
            async for event in events:
                await self._process.line(_nothing)
                self._stage.must_be_there()
                yield event


async def _nothing() -> None:
    pass


def _label(api: FakeApi, method: str, path: str, body: Any) -> str:
    """What a write is, in words that are the same for the same write of another run."""
    kind = path.split("/")[-1]
    if kind == "status" and isinstance(body, list):
        return "status " + summary(body[-1]["value"])
    status = api.objects.get(ROLLOUT, {}).get("status") or {}
    at = summary(status)
    if kind == "status":
        return f"takeover at {at}"
    if kind == "events":
        return f"event {body['reason']}: {body['note'][:60]}"
    if "leases" in path:
        return f"lease {'released' if not body['spec'].get('holderIdentity') else 'held'} at {status.get('phase')}"
    return f"{method} {path.split('/')[-2]}"


def summary(status: Mapping[str, Any]) -> str:
    """A status in a line, without what differs from run to run."""
    plan, step, weight = (status.get(key) or {} for key in ("plan", "step", "weight"))
    actions = [action["verb"] for action in status.get("actions") or ()]
    return (
        f"{status.get('phase')} plan {plan.get('generation')} by {plan.get('current')}/{plan.get('replicas')} "
        f"step {step.get('index')} at {weight.get('programmed')} after {','.join(actions)}"
    )


class Line(ProxyClient):
    """A proxy as one process asks it."""

    def __init__(self, process: Process, stage: Stage, name: str, is_fed: bool) -> None:
        self.address = name
        self.is_fed = is_fed
        self._putting = asyncio.Lock()
        self._process = process
        self._stage = stage

    async def close(self) -> None:
        pass

    async def _ask(
        self, method: str, path: str, limit_s: float, body: bytes | None = None, extra: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        value = json.loads(body) if body else {}
        writes = {"PUT": f"plan {value.get('generation')} to {self.address}", "POST": f"latch {self.address}"}
        answer: tuple[int, dict[str, Any]] = await self._process.line(
            lambda: self._answer(method, path, body or b"", extra or {}), writes.get(method, "")
        )
        return answer

    async def _answer(self, method: str, path: str, body: bytes, extra: dict[str, str]) -> tuple[int, dict[str, Any]]:
        proxy = self._stage.proxies[self.address]
        if not proxy.is_up:
            raise Temporary("no answer")
        if method == "GET":
            shown = {"/state": proxy.state, "/stats": lambda: proxy.stats(self._stage.wall())}
            return 200, shown[path]()
        if method == "PUT":
            answer = proxy.put(parse_plan(body), extra["If-Match"])
        else:
            asked = json.loads(body)
            answer = proxy.abort(asked["by"], asked["id"], asked["reason"])
        self._stage.note(self.address)
        return answer


class Stage:
    """The whole of it.

    Attributes:
        kills: At which writes a process dies; each once.
        writes: Every write that was tried, in words.
        ahead_s: How far clocks on the wall were put forward.
        is_away: Whether the API server is, for everybody.
        placed: By Service, the pods behind it.
        seen: By proxy, what its users could see: stable, the revision on trial and its weight, repeats left out.
    """

    def __init__(self, replicas: int, kills: Iterable[Kill] = ()) -> None:
        self.loop = asyncio.get_running_loop()
        self.api = FakeApi(self.wall)
        self.kills = dict.fromkeys(kills)
        self.writes: list[str] = []
        self.proxies = {f"cohort-{n}": FakeProxy() for n in range(replicas)}
        self.seen: dict[str, list[tuple[str, str, int]]] = {name: [] for name in self.proxies}
        self.processes: dict[str, Process] = {}
        self.deaths = 0
        self.ahead_s = 0.0
        self.is_away = False
        self.placed: dict[str, tuple[str, ...]] = {}

    def may_go(self, writes: str, when: str) -> None:
        """The API server is away from one moment of a write on."""
        if (writes, when) in self.kills:
            del self.kills[writes, when]
            self.is_away = True

    def must_be_there(self) -> None:
        """Raise what a client of an API server that is away does."""
        if self.is_away:
            raise Temporary("the API server is away")

    def wall(self) -> float:
        return EPOCH + self.loop.time() + self.ahead_s

    def note(self, name: str) -> None:
        """Write down what users of a proxy can see now."""
        proxy = self.proxies[name]
        if proxy.plan is None:
            return
        arms = proxy.plan.arms
        weight = arms[1].weight_bp if len(arms) > 1 and not proxy.latch else 0
        found = (arms[0].revision, arms[1].revision if len(arms) > 1 else "", weight)
        if not self.seen[name] or self.seen[name][-1] != found:
            self.seen[name].append(found)

    # The cluster

    async def make(self, kind: str, name: str, **more: Any) -> Object:
        metadata = {"name": name, **more.pop("metadata", {})}
        return await self.api.ask("POST", PLACES[kind], {"kind": kind, "metadata": metadata, **more})

    async def prepare(self, steps: list[Any], *templates: Object, **canary: Any) -> None:
        for service in ("web-stable", "web-canary", "web-control"):
            port = {"name": "http", "port": 8083 if service == "web-control" else 80}
            await self.make("Service", service, spec={"clusterIP": "None", "ports": [port]})
        await self.behind("web-control", *self.proxies)
        await self.behind("web-stable", "v1-a", "v1-b")
        for template in templates:
            await self.make("AnalysisTemplate", template["name"], spec=template["spec"])
        spec = {
            "stable": {"service": {"name": "web-stable", "port": "http"}},
            "canary": {"service": {"name": "web-canary", "port": "http"}},
            "revisionFrom": {"podLabel": "version"},
            "users": [{"mint": {}}],
            "strategy": {"canary": {"steps": steps, **canary}},
        }
        await self.make("CanaryRollout", "web", spec=spec)

    async def behind(self, service: str, *pods: str) -> None:
        """Put pods behind a Service; their names begin with their version."""
        self.placed[service] = pods
        targets = []
        for pod in pods:
            path = f"{PLACES['Pod']}/{pod}"
            if path not in self.api.objects:
                await self.make("Pod", pod, metadata={"labels": {"version": pod.partition("-")[0]}}, spec={})
            number = sum(pod.encode()) % 250
            target = {"kind": "Pod", "name": pod, "uid": self.api.objects[path]["metadata"]["uid"]}
            targets.append({"addresses": [f"10.99.1.{number}"], "targetRef": target, "conditions": {"ready": True}})
        path = f"{PLACES['EndpointSlice']}/{service}-1"
        if path in self.api.objects:
            await self.api.ask("PATCH", path, {"endpoints": targets}, kind="application/merge-patch+json")
            return
        await self.make(
            "EndpointSlice",
            f"{service}-1",
            metadata={"labels": {"kubernetes.io/service-name": service}},
            addressType="IPv4",
            ports=[{"name": "http", "port": 8080, "protocol": "TCP"}],
            endpoints=targets,
        )

    async def act(self, verb: str, revision: str, **more: Any) -> str:
        """Ask for something; the action's uid."""
        spec = {"rollout": "web", "verb": verb, "revision": revision, "requestedBy": "anna", **more}
        made = await self.api.ask(
            "POST", PLACES["RolloutAction"], {"kind": "RolloutAction", "metadata": {"generateName": "a-"}, "spec": spec}
        )
        return str(made["metadata"]["uid"])

    @property
    def status(self) -> Object:
        found: Object = self.api.objects[ROLLOUT].get("status") or {}
        return found

    async def until(self, look: Callable[[Object], Any], limit_s: float = 300.0) -> Object:
        """Wait until the status is as it should be; the status."""
        ends = self.loop.time() + limit_s
        while not look(status := self.status):
            assert self.loop.time() < ends, f"{summary(status)}; {self.seen}"
            await asyncio.sleep(0.2)
        return status

    # Controllers

    @asynccontextmanager
    async def controllers(self, every_s: float = 0.0) -> AsyncIterator[None]:
        """A controller beside each proxy, started again whenever it has died; one is killed every so many seconds."""
        async with asyncio.TaskGroup() as tasks:
            keepers = [tasks.create_task(self._keep(name, n)) for n, name in enumerate(self.proxies)]
            keepers += [tasks.create_task(self._hunt(every_s))] if every_s else []
            yield
            for keeper in keepers:
                keeper.cancel()

    async def _hunt(self, every_s: float) -> None:
        """The holder and somebody else in turn."""
        for n in itertools.count():
            await asyncio.sleep(every_s)
            holder = str(self.status.get("leader", {}).get("identity", "")).partition("_")[0]
            names = [holder] if n % 2 == 0 and holder else list(self.processes)
            self.processes[names[n % len(names)]].kill()

    async def _keep(self, name: str, number: int) -> None:
        await asyncio.sleep(number * 0.1)
        while True:
            await self._live(name)
            self.deaths += 1
            await asyncio.sleep(SOON_S if self.deaths % 2 else LATE_S)

    async def _live(self, name: str) -> None:
        """One life of a controller."""
        process = self.processes[name] = Process(self, name)
        replica = self.replica(process)
        life = asyncio.create_task(replica.run())
        try:
            await process.died.wait()
        finally:
            process.bury()
            life.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await life

    def replica(self, process: Process) -> Replica:
        kube = Kube(namespace="shop", rollout="web", lease_duration=LEASE_S)
        means = Means({planner.key_id(SPLIT): SPLIT}, Clocks(self.loop.time, self.wall), 1.0)

        def line(name: str, is_fed: bool = True) -> Line:
            return Line(process, self, name, is_fed)

        pod = Pod(
            process.name,
            f"{process.name}_1",
            line(process.name),
            line(process.name, False),
            lambda name, _: line(name),
        )
        return Replica(kube, Api(process, self), pod, means, lambda: 0.5)
