"""The controller of one replica in a cluster: it feeds its own proxy, and decides while it holds the Lease."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any

from controller import cluster, endpoints, planner, state
from controller.ask import Refused
from controller.cluster import Behind
from controller.endpoints import Unusable
from controller.errors import ControllerError, Permanent, Temporary
from controller.events import Asked, Documented, Verb
from controller.net.engine import Clocks, Engine
from controller.net.kube.client import Client, in_cluster
from controller.net.kube.feed import Feed
from controller.net.kube.lease import Elector
from controller.net.kube.ledger import Ledger, take_over
from controller.net.kube.watch import Watch
from controller.net.proxies import Control, ProxyClient
from controller.net.store import Stored
from controller.published import Incomplete, publish
from controller.resource import ActionSpec
from controller.spec import ControllerSettings, Kube
from controller.state import State
from controller.version import ServiceRef
from proxy.document import DocumentError, validate
from proxy.keys import KeyFileError
from proxy.net.keyfiles import load_keys
from proxy.plan import Endpoint, Plan

LEVEL_S = 1.0  # a change wakes at once; this is for what is not seen in the cluster: a proxy that was restarted
KEEP_ACTIONS = 12  # objects of actions that are done; a status names 16, so none is ever taken for a new one
KEEP_S = 3600.0  # surface: collected an hour after their end

log = logging.getLogger("cohort.kube")

Object = dict[str, Any]


def run(settings: ControllerSettings, kube: Kube) -> None:
    """Run a controller until SIGTERM or SIGINT. Ends the process with 1 and a reason if it cannot start."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(_until_signalled(settings, kube))
    except ControllerError as error:
        log.critical("%s", error)
        sys.exit(1)


async def _until_signalled(settings: ControllerSettings, kube: Kube) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, kube, stop)


async def serve(settings: ControllerSettings, kube: Kube, stop: asyncio.Event) -> None:
    """Run a controller until ``stop`` is set.

    Raises:
        Permanent: It cannot start: it is in no pod, or a key is missing.
    """
    try:
        keys = await asyncio.to_thread(load_keys, settings.keys_dir)
        account = in_cluster(os.environ, kube.account_dir)
    except KeyFileError as error:
        raise Permanent(f"keysDir: {error}") from None
    except ValueError as error:
        raise Permanent(f"--kube: {error}") from None
    known = [keys.split.current, *([keys.split.previous] if keys.split.previous else [])]
    secrets = {planner.key_id(secret): secret for secret in known}
    pod = os.environ.get("POD_NAME") or os.uname().nodename
    identity = f"{pod}_{(os.environ.get('POD_UID') or pod)[:8]}"
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(account))
        replica = Replica(settings, kube, client, secrets, pod, identity)
        try:
            async with asyncio.TaskGroup() as tasks:
                work = tasks.create_task(replica.run(), name="replica")
                await stop.wait()
                work.cancel()
        except ExceptionGroup as group:
            cause: Exception = group
            while isinstance(cause, ExceptionGroup):
                cause = cause.exceptions[0]
            raise cause from group


class Replica:
    """One replica's controller."""

    def __init__(
        self,
        settings: ControllerSettings,
        kube: Kube,
        client: Client,
        secrets: Mapping[str, bytes],
        pod: str,
        identity: str,
    ) -> None:
        self._settings, self._kube, self._client, self._secrets = settings, kube, client, secrets
        self._pod = pod
        self._changed, self._wake = asyncio.Event(), asyncio.Event()
        core, cohort = f"/api/v1/namespaces/{kube.namespace}", f"/apis/cohort.dev/v1alpha1/namespaces/{kube.namespace}"
        self._rollouts = self._watch(f"{cohort}/canaryrollouts")
        self._templates = self._watch(f"{cohort}/analysistemplates")
        self._actions = self._watch(f"{cohort}/rolloutactions")
        self._services = self._watch(f"{core}/services")
        self._pods = self._watch(f"{core}/pods")
        self._slices = self._watch(f"/apis/discovery.k8s.io/v1/namespaces/{kube.namespace}/endpointslices")
        self._watches = (
            self._rollouts,
            self._templates,
            self._actions,
            self._services,
            self._pods,
            self._slices,
        )
        self._elector = Elector(
            client,
            kube.namespace,
            kube.lease,
            identity,
            round(kube.lease_duration),
            monotonic=time.monotonic,
            wall=time.time,
            changed=self._tell,
        )
        self._own = ProxyClient(settings.proxies[0], is_fed=True, name=pod)
        self._feeding = ProxyClient(settings.proxies[0])
        self._feed = Feed(self._feeding, secrets, self._endpoints, time.monotonic)
        self._replicas: dict[tuple[str, str], ProxyClient] = {}
        self._engine: Engine | None = None
        self._ledger: Ledger | None = None
        self._taken: Object | None = None
        self._problem = ""

    def _watch(self, path: str) -> Watch:
        return Watch(self._client, path, self._tell, draw=random.random)

    def _tell(self) -> None:
        self._changed.set()
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for watch in self._watches:
                    tasks.create_task(watch.run(), name="watch")
                tasks.create_task(self._elector.run(), name="lease")
                tasks.create_task(self._forever(self._changed, self._level), name="feed")
                tasks.create_task(self._forever(self._wake, self._decide), name="decide")
                self._tasks = tasks
        finally:
            for client in (self._own, self._feeding, *self._replicas.values()):
                await client.close()

    async def _forever(self, wake: asyncio.Event, do: Callable[[], Any]) -> None:
        while True:
            wake.clear()
            try:
                if all(watch.is_synced for watch in self._watches):
                    await do()
            except Temporary as error:
                self._say(str(error))
            except Exception:  # a task's root: a fault of ours must not take the kill switch away
                log.exception("a look at the cluster failed")
            try:
                async with asyncio.timeout(LEVEL_S):
                    await wake.wait()
            except TimeoutError:
                pass

    def _say(self, problem: str) -> None:
        """Once, however often it is found."""
        if problem != self._problem:
            self._problem = problem
            log.warning("%s", problem)

    @property
    def _rollout(self) -> Object | None:
        return self._rollouts.objects.get(self._kube.rollout)

    # Its own proxy

    async def _level(self) -> None:
        rollout = self._rollout
        if rollout is not None:
            await self._feed.abort(rollout, self._actions.objects)
            await self._feed.level(rollout)

    def _endpoints(self, ref: ServiceRef) -> tuple[Endpoint, ...]:
        return endpoints.endpoints(endpoints.places(ref, self._services.objects, self._slices.objects))

    # Deciding

    async def _decide(self) -> None:
        """While the Lease is ours, have an engine and give it all that it has to know."""
        rollout = self._rollout
        if self._engine and (rollout is None or self._is_over(rollout)):
            self._stop()
        if rollout is None:
            return
        if self._engine is None:
            if not self._elector.is_held:
                self._taken = None
                return
            await self._begin(rollout)
        if self._engine is not None and self._ledger is not None:
            await self._supply(self._engine, self._ledger, rollout)

    def _is_over(self, rollout: Object) -> bool:
        """Whether somebody else decides by now; without an API server nobody does, and this one watches on."""
        assert self._ledger is not None  # beside an engine
        is_another = self._elector.holder not in ("", self._elector.identity)
        return self._ledger.is_fenced or is_another or rollout["metadata"]["uid"] != self._ledger.uid

    def _stop(self) -> None:
        log.info("deciding ends")
        self._running.cancel()
        self._engine = self._ledger = self._taken = None

    async def _begin(self, rollout: Object) -> None:
        """Take over: the fence first, then the state as the one before has left it."""
        if self._taken is None or self._taken["metadata"]["uid"] != rollout["metadata"]["uid"]:
            self._taken = await take_over(self._client, rollout, self._elector.identity)
        status = self._taken["status"]
        begun = self._parsed(status["state"]) if status.get("state") else None
        resolved = self._resolved(rollout, begun)
        ledger = Ledger(self._client, self._taken, self._elector, self._elector.identity)
        if begun is None:
            if resolved.found.document is None:
                await ledger.refuse(resolved.reason, resolved.found.problem, rollout, time.time())
                return
            begun = state.new(resolved.found.document, resolved.found.templates, str(rollout["metadata"]["uid"]))
        conditions = json.dumps(status.get("conditions") or [])
        self._ledger = ledger
        self._engine = Engine(
            begun,
            Stored(begun.document.key, status.get("state") or "", conditions, 0),
            ledger=ledger,
            clients=self._clients(),
            secrets=self._secrets,
            clocks=Clocks(time.monotonic, time.time),
            poll_s=self._settings.poll_interval,
            publisher=self._publish,
        )
        self._running = self._tasks.create_task(self._work(self._engine), name="engine")
        log.info("deciding for %s, term %s", begun.document.key, status["leader"]["term"])

    async def _work(self, engine: Engine) -> None:
        """Run an engine; one that ends by a fault is begun again from what is stored."""
        try:
            await engine.run()
        except* Temporary as group:
            self._say(str(group.exceptions[0]))
            self._lose(engine)
        except* Exception:  # a task's root
            log.exception("deciding failed")
            self._lose(engine)

    def _lose(self, engine: Engine) -> None:
        if self._engine is engine:
            self._engine = self._ledger = self._taken = None

    def _parsed(self, text: str) -> State:
        try:
            return state.parse(text)
        except ValueError as error:
            raise Temporary(f"the status is of another version of cohort, nothing is decided: {error}") from None

    def _resolved(self, rollout: Object, known: State | None) -> cluster.Resolved:
        behind = Behind(self._services.objects, self._slices.objects, self._pods.objects)
        return cluster.resolve(cluster.read(rollout, self._templates.objects), behind, known)

    def _publish(self, begun: State, plan: Plan) -> Mapping[str, Any]:
        try:
            return publish(begun, plan, tuple(self._secrets))
        except Incomplete as error:
            raise Temporary(str(error)) from None

    async def _supply(self, engine: Engine, ledger: Ledger, rollout: Object) -> None:
        """Tell the engine of replicas, documents and actions."""
        await engine.serve(self._clients())
        resolved = self._resolved(rollout, engine.state)
        found = resolved.found
        is_new = found.document is not None and (
            found.document != engine.state.document or found.templates != engine.state.templates
        )
        if found.document is not None:
            ledger.generation = int(rollout["metadata"].get("generation") or 0)
        if found.document is not None and (is_new or engine.state.is_document_missing):
            await engine.apply(Documented(found.document, found.templates))
        await engine.note(found.problem, resolved.reason)
        await self._act(engine)

    async def _act(self, engine: Engine) -> None:
        """Carry out what people ask for, oldest first, and collect what is done."""
        items = sorted(self._actions.objects.values(), key=lambda item: str(item["metadata"].get("creationTimestamp")))
        mine = [item for item in items if cluster.action_of(item, self._kube.rollout)]
        done = {action.uid for action in engine.state.actions}
        for item in mine:
            if str(item["metadata"]["uid"]) not in done:
                await self._act_on(engine, item)
        if self._elector.is_held:
            await self._collect(mine, {action.uid for action in engine.state.actions})

    async def _act_on(self, engine: Engine, item: Object) -> None:
        try:
            spec = validate(ActionSpec, item["spec"])
        except DocumentError as error:
            self._say(f"RolloutAction {item['metadata']['name']}: {error}")
            return
        asked = Asked(
            Verb(spec.verb),
            str(item["metadata"]["uid"]),
            spec.requested_by,
            spec.revision,
            weight_bp=spec.weight or 0,
            reason=spec.reason or "",
        )
        try:
            await engine.act(asked)
        except Refused:
            pass  # it is on record

    async def _collect(self, mine: list[Object], done: set[str]) -> None:
        """Remove objects of actions that are done: after an hour, and the oldest where there are many."""
        ended = [item for item in mine if str(item["metadata"]["uid"]) in done]
        for i, item in enumerate(ended):
            if i < len(ended) - KEEP_ACTIONS or time.time() - _created(item) > KEEP_S:
                where = f"/apis/cohort.dev/v1alpha1/namespaces/{self._kube.namespace}/rolloutactions"
                await self._client.ask("DELETE", f"{where}/{item['metadata']['name']}")

    def _clients(self) -> list[ProxyClient]:
        """One a replica: the own proxy by its admin API, the others by their control ports."""
        ref = ServiceRef(name=self._kube.control, port=self._kube.control_port)
        try:
            places = endpoints.places(ref, self._services.objects, self._slices.objects)
        except Unusable as error:
            self._say(str(error))
            places = ()
        wanted = {(place.uid, _url(place.endpoint)): place for place in places if place.pod != self._pod}
        for key in [key for key in self._replicas if key not in wanted]:
            self._tasks.create_task(self._replicas.pop(key).close(), name="close")
        for key, place in wanted.items():
            if key not in self._replicas:
                self._replicas[key] = self._control(place.pod or place.uid, key[1])
        return [self._own, *self._replicas.values()]

    def _control(self, name: str, url: str) -> ProxyClient:
        tls = ssl.create_default_context(cafile=self._kube.control_ca(self._settings.keys_dir))
        tls.check_hostname = False  # the certificate itself is pinned
        tls.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        at = Control(url, self._kube.control_token(self._settings.keys_dir), tls)
        return ProxyClient(self._settings.proxies[0], is_fed=True, at=at, name=name)


def _url(endpoint: Endpoint) -> str:
    host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"https://{host}:{endpoint.port}"


def _created(item: Object) -> float:
    return datetime.fromisoformat(str(item["metadata"]["creationTimestamp"])).timestamp()
