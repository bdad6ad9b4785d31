"""The controller as a program: settings in, everything running, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

from aiohttp import web

from controller import catalog, planner, state
from controller.catalog import Declared
from controller.errors import ControllerError, Permanent, Temporary
from controller.events import Documented, Missing
from controller.messages import EventAnswer
from controller.metrics import exposition
from controller.net.api import Api, engine_json, event_json, plain, rollout_json
from controller.net.engine import Clocks, Engine, timestamp
from controller.net.folder import LOOK_S, Folder
from controller.net.guard import Guard
from controller.net.proxies import ProxyClient
from controller.net.store import FileLedger, Store, Stored
from controller.spec import ControllerSettings
from controller.state import Phase, Stage, State
from controller.status import ConditionStatus, Status
from proxy.keys import KeyFileError, Keys
from proxy.net.keyfiles import load_keys
from proxy.net.web import silent

SETTLE_S, SETTLE_LOOKS = 0.05, 40  # at the start documents are waited for, yet not those that somebody keeps writing
CLOSE_S = 2.0  # a long poll is cut off at the end; clients ask again

log = logging.getLogger("cohort.controller")

Ready = Callable[[str, int], None]


def run(settings: ControllerSettings) -> None:
    """Run a controller until SIGTERM or SIGINT; paths are relative to the working directory.

    Ends the process with 1 and a reason if it cannot start.
    """
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(_until_signalled(settings))
    except ControllerError as error:
        log.critical("%s", error)
        sys.exit(1)


async def _until_signalled(settings: ControllerSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, stop, lambda host, port: log.info("serving on http://%s:%d", host, port))


async def serve(settings: ControllerSettings, stop: asyncio.Event, ready: Ready) -> None:
    """Run a controller until ``stop`` is set.

    Args:
        settings: Paths are relative to the working directory.
        stop: Ends it.
        ready: Called with host and port once the API answers.

    Raises:
        Permanent: It cannot start: the state is another controller's, a key or token is missing, the port is taken.
    """
    keys = await asyncio.to_thread(_keys, settings.keys_dir)
    store = await asyncio.to_thread(Store, settings.state)
    async with AsyncExitStack() as stack:
        stack.callback(store.close)
        clients = [await stack.enter_async_context(ProxyClient(proxy)) for proxy in settings.proxies]
        controller = Controller(settings, store, clients, keys, Clocks(time.monotonic, time.time))
        await controller.prepare()
        guard = Guard(settings.api.host_port[0], settings.api.token_file)
        runner = web.AppRunner(
            Api(controller, keys, time.time).application(guard), access_log=None, shutdown_timeout=CLOSE_S
        )
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        stack.callback((await _listen(runner, settings, ready)).close)
        await _work(controller, stop)


async def _work(controller: Controller, stop: asyncio.Event) -> None:
    try:
        async with asyncio.TaskGroup() as tasks:
            work = tasks.create_task(controller.run(), name="controller")
            await stop.wait()
            work.cancel()
    except ExceptionGroup as group:
        cause: Exception = group
        while isinstance(cause, ExceptionGroup):
            cause = cause.exceptions[0]
        raise cause from group


def _keys(directory: str) -> Keys:
    try:
        return load_keys(directory)
    except KeyFileError as error:
        raise Permanent(f"keysDir: {error}") from None


async def _listen(runner: web.AppRunner, settings: ControllerSettings, ready: Ready) -> asyncio.Server:
    host, port = settings.api.host_port
    assert runner.server is not None  # it is set up
    protocol = partial(silent, runner.server)
    try:
        server = await asyncio.get_running_loop().create_server(protocol, host or None, port, reuse_address=True)
    except OSError as error:
        raise Permanent(f"api.listen {settings.api.listen}: {error.strerror or error}") from None
    bound = server.sockets[0].getsockname()
    ready(str(bound[0]), int(bound[1]))
    return server


class Controller:
    """The rollout that the proxies serve, and those of the folder that they do not.

    One set of proxies serves one rollout, so of several in the folder the one that the state knows comes first, then
    the first by name; the others say so in their condition Accepted.
    """

    def __init__(
        self,
        settings: ControllerSettings,
        store: Store,
        clients: list[ProxyClient],
        keys: Keys,
        clocks: Clocks,
    ) -> None:
        self._settings = settings
        self._store = store
        self._clients = clients
        self._clocks = clocks
        self._folder = Folder(settings.rollouts)
        self._engine: Engine | None = None
        self._others: dict[str, Declared] = {}
        self._is_told = True
        self._since = timestamp(clocks.wall())
        known = [keys.split.current, *([keys.split.previous] if keys.split.previous else [])]
        self._secrets = {planner.key_id(secret): secret for secret in known}

    async def prepare(self) -> None:
        """Read the folder and what is stored, so that the first answer of the API knows of them."""
        for _ in range(SETTLE_LOOKS):
            if not await self._look() and (self._folder.is_settled or self._folder.problem):
                break
            await asyncio.sleep(SETTLE_S)
        self._engine = await self._choose()
        if self._engine:
            await self._declare(self._engine)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            is_running = False
            while True:
                if self._engine and not is_running:
                    is_running = True
                    tasks.create_task(self._engine.run(), name=f"rollout {self._engine.key}")
                await asyncio.sleep(LOOK_S)
                try:
                    await self._follow()
                except Temporary as error:
                    log.error("%s", error)
                except Exception:  # a task's root: a fault of ours must not take the kill switch away
                    log.exception("a look at %s failed", self._settings.rollouts)

    async def _follow(self) -> None:
        """Look at the folder, and tell of what has changed until that is stored."""
        self._is_told = not await self._look() and self._is_told
        if self._is_told:
            return
        if self._engine is None:
            self._engine = await self._choose()
        if self._engine:
            await self._declare(self._engine)
        self._is_told = True

    async def _look(self) -> bool:
        is_changed = await asyncio.to_thread(self._folder.look)
        if is_changed:
            for file in self._folder.files.values():
                if file.problem:
                    log.warning("%s", file.problem)
            if self._folder.problem:
                log.warning("rollouts %s", self._folder.problem)
        self._others = catalog.declared(self._folder.files.values())
        return is_changed

    async def _choose(self) -> Engine | None:
        """The rollout to serve: one of the state that is declared or under way, else the first that is declared."""
        rows = await asyncio.to_thread(self._store.load)
        for row in rows:
            stored = _parse(row)
            is_idle = stored.stage in (Stage.EMPTY, Stage.IDLE)
            if self._others.get(row.key) or not is_idle or self._folder.problem:
                return self._make(stored, row)
        for key, found in sorted(self._others.items()):
            if found.document is not None:
                log.info("%s: nothing is stored of it: beginning", key)
                return self._make(state.new(found.document, found.templates), None)
        return None

    def _make(self, begun: State, row: Stored | None) -> Engine:
        return Engine(
            begun,
            row,
            ledger=FileLedger(self._store),
            clients=self._clients,
            secrets=self._secrets,
            clocks=self._clocks,
            poll_s=self._settings.poll_interval,
        )

    async def _declare(self, engine: Engine) -> None:
        """Tell the engine what the folder says of its rollout."""
        found = self._others.get(engine.key)
        if found is None:
            if not self._folder.problem:
                await engine.apply(Missing())
            await engine.note(self._folder.problem)
            return
        if found.document is not None:
            await engine.apply(Documented(found.document, found.templates))
        await engine.note(found.problem)

    # What the API shows

    def engine(self, key: str) -> Engine | None:
        """The engine of a rollout, if it is the one that is served."""
        return self._engine if self._engine and self._engine.key == key else None

    def items(self) -> list[dict[str, Any]]:
        """Every rollout as JSON, by namespace and name."""
        found = {self._engine.key: engine_json(self._engine)} if self._engine else {}
        for key, declared in self._others.items():
            if key not in found:
                found[key] = self._unserved(key, declared)
        return [found[key] for key in sorted(found)]

    def _unserved(self, key: str, declared: Declared) -> dict[str, Any]:
        served = self._engine.key if self._engine else "nothing yet"
        problem = declared.problem or f"the proxies of this controller serve {served}: run others for this rollout"
        accepted = ConditionStatus(
            type="Accepted",
            status="False",
            reason="Invalid" if declared.problem else "NotServed",
            message=problem,
            observed_generation=1,
            last_transition_time=self._since,
        )
        status = plain(Status(observed_generation=1, phase=Phase.PENDING, conditions=(accepted,)))
        if declared.document:
            begun = state.new(declared.document, declared.templates)
            return rollout_json(declared.document, begun.uid, 1, status)
        namespace, _, name = key.partition("/")
        metadata = {"name": name, "namespace": namespace, "uid": "", "generation": 1}
        return {
            "apiVersion": "cohort.dev/v1alpha1",
            "kind": "CanaryRollout",
            "metadata": metadata,
            "spec": {},
            "status": status,
        }

    def metrics(self) -> str:
        """What Prometheus reads."""
        engines = [self._engine] if self._engine else []
        return exposition([(engine.key, engine.state, engine.status()) for engine in engines])

    async def events(self, key: str, after: int, limit: int) -> list[EventAnswer]:
        """What happened to a rollout, oldest first."""
        found = await asyncio.to_thread(self._store.events, key, after, limit)
        return [event_json(told.seq, told.at, told.type, told.reason, told.message) for told in found]


def _parse(row: Stored) -> State:
    try:
        return state.parse(row.state)
    except ValueError as error:
        raise Permanent(
            f"the stored state of {row.key} cannot be read, it may be of another version of cohort: {error}. "
            "Use that version, or move the state's file away to rebuild it from documents and proxies"
        ) from None
