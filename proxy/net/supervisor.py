"""The supervisor: owns the sockets, the shared memory, the state on disk and the workers; serves no client itself."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import secrets
import signal
import socket
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

from proxy import counters, shared
from proxy.config import ProxySettings
from proxy.metrics import Snapshot
from proxy.net import logs, memory
from proxy.net import sockets as listening
from proxy.net.admin import AccessRules, admin_app
from proxy.net.breaker import LocalBreaker
from proxy.net.checks import HttpProbe
from proxy.net.credfiles import POLL_S as CREDENTIALS_POLL_S
from proxy.net.credfiles import CredentialFiles
from proxy.net.discovery import Discovery
from proxy.net.exposition import exposition_app
from proxy.net.feed import Feed
from proxy.net.keeper import Keeper
from proxy.net.planfile import PlanFile
from proxy.net.resolver import Resolver
from proxy.net.statedir import StateDir
from proxy.net.web import Site
from proxy.net.workers import WORKER, Slot, Workers
from proxy.plan import Plan
from proxy.shared import Words, region
from proxy.stats import stats_document

log = logging.getLogger("cohort.supervisor")

LATCH_RETRY_S = 1.0  # how often an abort that could not be stored is tried again


class Supervisor:
    """One proxy, to be made and run within a loop.

    Attributes:
        boot: Differs at each start; where it changes, all counters begin at zero.
        discovery: What is known of the endpoints.
        keeper: The plan and the latch in force.

    Args:
        settings: Validated.
        base: The directory that relative paths in the settings start from.
        token: Of the admin API; None on a Unix socket without tokenFile, where the file's mode is the guard.
        command: What to execute as a worker.

    Raises:
        DocumentError: A certificate or a key cannot be used.
        ListenError: An address cannot be listened on.
        StateDirError: The state directory cannot be used, or another supervisor has it.
    """

    def __init__(self, settings: ProxySettings, base: Path, token: str | None, command: Sequence[str] = WORKER) -> None:
        self.settings = settings
        self._credentials = CredentialFiles(settings, base)
        self.boot = secrets.token_hex(8)
        self._dropped = 0
        self._leave = asyncio.Event()
        with ExitStack() as stack:
            state = StateDir(base / settings.state_dir)
            stack.callback(state.close)
            slots = self._listen(stack)
            self._metrics_sockets = listening.listen_one(settings.metrics.listen, "metrics.listen")
            _close_later(stack, self._metrics_sockets)
            self._admin_sockets = self._listen_admin(stack, base)
            descriptor = memory.create(shared.size(settings.workers))
            stack.callback(os.close, descriptor)
            self._opened = stack.pop_all()  # everything is there: from here on it is closed at the end of `run`
        self._memory = memory.attach(descriptor)
        start = {
            "credentials": self._credentials.current.document(),
            "settings": settings.model_dump(mode="json", by_alias=True),
            "keysDir": str((base / settings.keys_dir).absolute()),
        }
        self._workers = Workers(slots, descriptor, self._memory, start, time.monotonic, command)
        self.discovery = Discovery(
            Resolver(settings.resolver),
            HttpProbe(self._credentials.upstream_context),
            settings.resolver,
            self._workers.discover,
            time.monotonic,
            random.random,
        )
        self.keeper = Keeper(Words(self._memory), state, self._workers.stage, time.monotonic, time.time, self.discovery)
        file = PlanFile(base / settings.plan_file) if settings.plan_file else None
        self._feed = Feed(self.keeper, state, file)
        self._breaker = LocalBreaker(self.keeper, self._regions, time.monotonic)
        self._state_dir = state
        self._admin = Site(admin_app(self, AccessRules(token, time.monotonic), self._admit), _dups(self._admin_sockets))
        self._exposition = Site(exposition_app(self), _dups(self._metrics_sockets))

    def _listen(self, stack: ExitStack) -> list[list[tuple[socket.socket, int]]]:
        """The sockets of each slot, with the index of their listener, and what they are called."""
        slots: list[list[tuple[socket.socket, int]]] = [[] for _ in range(self.settings.workers)]
        self._listeners: list[str] = []
        for index, listener in enumerate(self.settings.listeners):
            found = listening.listen_slots(listener.address, len(slots), f"listeners[{index}].address")
            self._listeners += [listening.text(sock) for sock in found[0]]
            for slot, of_slot in zip(slots, found, strict=True):
                slot += [(sock, index) for sock in of_slot]
                _close_later(stack, of_slot)
        return slots

    def _listen_admin(self, stack: ExitStack, base: Path) -> list[socket.socket]:
        listen = self.settings.admin.listen
        if listen.startswith("unix:"):
            path = base / listen.removeprefix("unix:")
            found = [listening.listen_unix(path, "admin.listen")]
            stack.callback(listening.remove_unix, path, path.stat())
        else:
            found = listening.listen_one(listen, "admin.listen")
        _close_later(stack, found)
        return found

    def _admit(self, request: Any) -> None:
        self._admin.admit(request)

    # --- what the admin API and the metrics ask

    @property
    def unready(self) -> str | None:
        """Why clients should go elsewhere; None: the proxy is ready."""
        if self._workers.is_draining:
            return "the proxy is leaving"
        plan = self._plan
        if plan is None:
            return "there is no plan yet"
        if host := self.discovery.waits_for(plan):
            return f"no address of {host} is known yet"
        return None if self._workers.is_ready else "workers are starting"

    @property
    def _plan(self) -> Plan | None:
        return self.keeper.in_force.plan if self.keeper.in_force else None

    def _regions(self) -> list[memoryview]:
        return [region(self._memory, slot.number) for slot in self._workers.slots]

    def _read(self) -> counters.Stats:
        plan = self._plan
        stats = counters.read(self._regions(), plan.rollout.uid if plan else "", plan.revision if plan else None)
        stats.log_dropped += self._dropped
        return stats

    def stats(self) -> dict[str, Any]:
        """The document of ``GET /stats``."""
        return stats_document(self._read(), self._plan, self.boot, time.time())

    def snapshot(self) -> Snapshot:
        """What the metrics are made of."""
        in_force, keeper = self.keeper.in_force, self.keeper
        age_s = time.monotonic() - in_force.since_s if in_force else 0.0
        found = self.discovery.found(self._plan)
        return Snapshot(
            self._read(),
            self._plan,
            age_s,
            keeper.rejected,
            keeper.latch is not None,
            self._credentials.refused,
            found,
            self._breaker.trips,
            self._credentials.expiries(),
        )

    def endpoints(self) -> dict[str, Any]:
        """The document of ``GET /endpoints``."""
        arms = self._plan.arms if self._plan else ()
        return {"arms": {arm.name: self.discovery.document(arm) for arm in arms}}

    def state(self) -> dict[str, Any]:
        """The document of ``GET /state``."""
        in_force, latch = self.keeper.in_force, self.keeper.latch
        return {
            "boot": self.boot,
            "ready": self.unready is None,
            "draining": self._workers.is_draining,
            "listeners": self._listeners,
            "metrics": [listening.text(sock) for sock in self._metrics_sockets],
            "plan": in_force.summary() if in_force else None,
            "latch": latch.model_dump(mode="json", by_alias=True) if latch else None,
            "latchStored": self.keeper.is_stored,
            "workers": [self._worker_state(slot) for slot in self._workers.slots],
        }

    def _worker_state(self, slot: Slot) -> dict[str, Any]:
        worker, in_force = slot.worker, self.keeper.in_force
        has_plan = worker is not None and in_force is not None and worker.staged >= in_force.sequence
        return {
            "slot": slot.number,
            "pid": worker.pid if worker else None,
            "plan": in_force.plan.generation if has_plan and in_force else None,
            "heartbeatAgeS": round(self._workers.heartbeat_age_s(slot), 3),
            "restarts": slot.restarts,
        }

    def set_log_level(self, level: str) -> None:
        """Change the level of this process and of all workers: debug, info, warning or error."""
        logs.set_level(level)
        self._workers.set_log_level(level)

    def leave(self) -> None:
        """Drain, then end; a second call changes nothing."""
        self._leave.set()

    # --- life

    async def run(self) -> None:
        """Serve until told to leave, by `leave`, SIGTERM or SIGINT; to be called once.

        Raises:
            DocumentError: The plan file is bad, and there is no last good plan to serve instead.
        """
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as stack:
            stack.push(self._opened)
            stack.callback(logs.set_up(self.settings.log.level, self._count_dropped).close)
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.leave)
                stack.callback(loop.remove_signal_handler, number)
            for site in (self._admin, self._exposition):
                stack.push_async_callback(site.close)
            self.keeper.restore_latch(self._state_dir.read_latch(time.time()))
            self._credentials.warn(time.time())
            if not self.settings.trusted_peers and any(one.proxy_protocol for one in self.settings.listeners):
                log.warning("a listener has proxyProtocol, but trustedPeers is empty: all its connections are refused")
            await self._feed.read()
            for site in (self._admin, self._exposition):
                await site.open()
            log.info("listening on %s", ", ".join(self._listeners))
            await self._work()
            log.info("left in order")

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            others = [
                tasks.create_task(work())
                for work in (
                    self._keep_plan,
                    self._keep_latch,
                    self._keep_credentials,
                    self.discovery.run,
                    self._breaker.run,
                    self._drain,
                )
            ]
            await self._workers.run(self.keeper)
            for task in others:
                task.cancel()

    async def _keep_plan(self) -> None:
        await self._feed.start()
        self._workers.serve()
        await self._feed.follow()

    async def _keep_latch(self) -> None:
        while True:
            await asyncio.sleep(LATCH_RETRY_S)
            await self.keeper.retry_latch()

    async def _keep_credentials(self) -> None:
        while True:
            await asyncio.sleep(CREDENTIALS_POLL_S)
            if await asyncio.to_thread(self._credentials.look, time.time()):
                self._workers.trust(self._credentials.current.document())

    async def _drain(self) -> None:
        await self._leave.wait()
        timeouts = self.settings.timeouts
        log.info("leaving: lame duck %g s, drain %g s", timeouts.lame_duck, timeouts.drain)
        await self._workers.drain(timeouts.lame_duck, timeouts.drain)

    def _count_dropped(self) -> None:
        self._dropped += 1


def _close_later(stack: ExitStack, sockets: list[socket.socket]) -> None:
    for sock in sockets:
        stack.callback(sock.close)


def _dups(sockets: list[socket.socket]) -> list[socket.socket]:
    """For a server that closes what it gets: the listening itself must not end with it."""
    return [sock.dup() for sock in sockets]
