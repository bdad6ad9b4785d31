"""The supervisor: owns the sockets, the shared memory, the state on disk and the workers; serves no client itself."""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import random
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack, ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

from proxy import counters, shared
from proxy.document import validate
from proxy.latch import Latch
from proxy.metrics import Build, Snapshot
from proxy.net import compiled, handover, logs
from proxy.net.admin import AccessRules, admin_app
from proxy.net.breaker import LocalBreaker
from proxy.net.checks import HttpProbe
from proxy.net.control import ControlTls, control_app
from proxy.net.credfiles import POLL_S as CREDENTIALS_POLL_S
from proxy.net.credfiles import CredentialFiles
from proxy.net.discovery import Discovery
from proxy.net.exposition import exposition_app
from proxy.net.feed import Feed, Initial
from proxy.net.handover import Handover, WorkerRecord
from proxy.net.keeper import Keeper
from proxy.net.memory import SharedMemory
from proxy.net.openings import ADMIN, CONTROL, METRICS, Opening, Openings
from proxy.net.planfile import PlanFile
from proxy.net.reload import Reload
from proxy.net.resolver import Resolver
from proxy.net.sockets import text
from proxy.net.start import Start
from proxy.net.statedir import StateDir
from proxy.net.web import Site
from proxy.net.workers import WORKER, Slot, Workers
from proxy.plan import Plan
from proxy.region import REGION_BYTES
from proxy.shared import LAYOUT_ID, region
from proxy.stats import stats_document

log = logging.getLogger("cohort.supervisor")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SIGNALS_S = 0.05  # between two looks for them
LATCH_RETRY_S = 1.0  # how often an abort that could not be stored is tried again


class Supervisor:
    """One proxy, to be made and run within a loop.

    Attributes:
        boot: Differs at each start that cannot go on with the numbers of the one before: all counters begin at zero.
        discovery: What is known of the endpoints.
        keeper: The plan and the latch in force.
        reload: Settings and programs anew.

    Args:
        start: What was read.
        base: The directory that relative paths in the settings start from.
        inherited: What an earlier image of this process has left.
        command: What to execute as a worker.

    Raises:
        ListenError: An address cannot be listened on.
        StateDirError: The state directory cannot be used, or another supervisor has it.
    """

    def __init__(
        self, start: Start, base: Path, inherited: Handover | None = None, command: Sequence[str] = WORKER
    ) -> None:
        self.settings = settings = start.settings
        self._start, self._base = start, base
        self._build = Build(version("cohort-proxy"), platform.python_version(), compiled.IS_IN_USE)
        self._inherited = inherited
        self._credentials = CredentialFiles(settings, base, start.credentials)
        self._credentials.refused = inherited.credentials_refused if inherited else 0
        shown = self._credentials.current.control
        self._control_tls = ControlTls(shown) if shown else None
        self._dropped = inherited.dropped if inherited else 0
        self._level = inherited.level if inherited and inherited.settings_level == settings.log.level else None
        self._leave = asyncio.Event()
        with ExitStack() as stack:
            self._state_dir = StateDir(base / settings.state_dir, inherited.lock if inherited else None)
            stack.callback(self._state_dir.close)
            before = inherited.workers if inherited else ()
            self._memory = SharedMemory(inherited.memory if inherited else None, (each.memory for each in before))
            stack.callback(self._memory.close)
            self._openings = Openings(settings, base, handover.openings(inherited.openings) if inherited else ())
            stack.callback(self._openings.close)
            if inherited is None:
                self._openings.listen()
            told = {
                "credentials": start.credentials.document(),
                "settings": settings.model_dump(mode="json", by_alias=True),
                "keysDir": str((base / settings.keys_dir).absolute()),
            }
            slots = self._openings.slots()
            self._workers = Workers(slots, self._memory, told, time.monotonic, command, before)
            self._opened = stack.pop_all()  # everything is there: from here on it is closed at the end of `run`
        self.boot = inherited.boot if inherited and not self._memory.is_new else self._restore_counters(inherited)
        self.discovery = Discovery(
            Resolver(settings.resolver),
            HttpProbe(self._credentials.upstream_context),
            settings.resolver,
            self._workers.discover,
            time.monotonic,
            random.random,
        )
        self.keeper = Keeper(
            self._memory.board, self._state_dir, self._workers.stage, time.monotonic, time.time, self.discovery
        )
        self._plan_file = (base / settings.plan_file).absolute() if settings.plan_file else None
        file = PlanFile(self._plan_file) if self._plan_file else None
        initial = Initial(base / settings.initial_plan, settings.initial_plan_wait) if settings.initial_plan else None
        self._feed = Feed(self.keeper, self._state_dir, file, initial)
        self.reload = Reload(self._workers, self.keeper, self, inherited)
        self._breaker = LocalBreaker(self.keeper, self._regions, time.monotonic)
        self._breaker.trips |= inherited.trips if inherited else {}
        self._listeners = self._openings.names()
        self._make_sites()

    def _restore_counters(self, inherited: Handover | None) -> str:
        """Go on with the numbers of a run that ended in order; returns whose they are."""
        kept = self._state_dir.take_counters(LAYOUT_ID) if inherited is None else None
        if kept is None or len(kept[1]) % REGION_BYTES:
            return secrets.token_hex(8)
        boot, regions = kept
        self._memory.reserve(len(regions) // REGION_BYTES)
        self._memory.restore(regions)
        return boot

    def _keep_counters(self) -> None:
        """Nobody counts any more."""
        try:
            self._state_dir.write_counters(self.boot, LAYOUT_ID, self._memory.regions())
        except OSError as error:
            log.warning("counters are not kept, the next start begins at zero: %s", error)

    def _make_sites(self) -> None:
        rules = AccessRules(self._start.token, time.monotonic)
        self._admin = Site(admin_app(self, rules, self._admit), _dups(self._openings.own(ADMIN)))
        self._exposition = Site(exposition_app(self), _dups(self._openings.own(METRICS)))
        self._sites = [self._admin, self._exposition]
        if self._control_tls:
            token_file = self._base / self.settings.control.token_file
            app = control_app(self, token_file, time.monotonic, self._admit_replica)
            self._sites.append(Site(app, _dups(self._openings.own(CONTROL)), self._control_tls.context))

    def _admit(self, request: Any) -> None:
        self._admin.admit(request)

    def _admit_replica(self, request: Any) -> None:
        self._sites[-1].admit(request)

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
        if self._feed.is_hoping:
            return "there is the initial plan alone yet"
        return None if self._workers.is_ready else "workers are starting"

    @property
    def _plan(self) -> Plan | None:
        return self.keeper.in_force.plan if self.keeper.in_force else None

    def _regions(self) -> list[memoryview]:
        return [region(self._memory.view, place) for place in range(shared.places(self._memory.view))]

    def _read(self) -> counters.Stats:
        plan = self._plan
        if plan:
            for place in set(range(shared.places(self._memory.view))) - self._workers.live_places:
                # Those without a writer must not be left behind.
                counters.Counters(region(self._memory.view, place)).new_revision(plan.rollout.uid, plan.revision)
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
            self.reload.counts,
            self._build,
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
            "metrics": [text(sock) for sock in self._openings.own(METRICS)],
            "control": [text(sock) for sock in self._openings.own(CONTROL)],
            "plan": in_force.summary() if in_force else None,
            "latch": latch.model_dump(mode="json", by_alias=True) if latch else None,
            "latchStored": self.keeper.is_stored,
            "workers": [self._worker_state(slot) for slot in self._workers.slots],
            "earlierWorkers": [
                {"pid": elder.worker.pid, "serving": elder.ends_at is None} for elder in self._workers.elders.all
            ],
            "reloads": dict(self.reload.counts),
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
        self._level = level
        logs.set_level(level)
        self._workers.set_log_level(level)

    # --- what a reload asks

    def document(self, workers: Sequence[WorkerRecord] = ()) -> Handover:
        """What a next image takes over."""
        keeper = self.keeper
        in_force, latch = keeper.in_force, keeper.latch
        return Handover(
            pid=os.getpid(),
            boot=self.boot,
            state_dir=str(self._state_dir.path),
            lock=self._state_dir.lock,
            memory=self._memory.descriptor,
            openings=handover.records([*self._openings.all, *self._openings.dropped]),
            workers=tuple(workers),
            plan=in_force.document if in_force else None,
            sequence=keeper.sequence,
            plan_since_s=in_force.since_s if in_force else 0.0,
            plan_file=str(self._plan_file) if self._plan_file else None,
            latch=latch.model_dump(mode="json", by_alias=True) if latch else None,
            latch_stored=keeper.is_stored,
            rejected=keeper.rejected,
            credentials_refused=self._credentials.refused,
            trips=dict(self._breaker.trips),
            dropped=self._dropped,
            discovery=self.discovery.known(),
            level=self._level,
            settings_level=self.settings.log.level,
        )

    @property
    def is_leaving(self) -> bool:
        """Whether it was told to."""
        return self._leave.is_set()

    async def fall_silent(self) -> None:
        """Finish answers of the APIs; who asks from now on waits for `speak_again`, or for the next image."""
        async with asyncio.TaskGroup() as tasks:
            for site in self._sites:
                tasks.create_task(site.close())

    async def speak_again(self) -> None:
        """There is no next image."""
        self._make_sites()
        await self._speak()

    async def _speak(self) -> None:
        for site in self._sites:
            await site.open()

    def forget(self, opening: Opening) -> None:
        """A reload that came to nothing had opened this."""
        opening.close(self._base)

    def settled(self) -> None:
        """New workers serve: nobody needs the sockets any more that the settings do not name."""
        self._openings.close_dropped()

    def flush_log(self) -> None:
        """Let go what was logged."""
        self._handler.close()

    def open_log(self) -> None:
        """Log again."""
        self._handler = logs.set_up(self._level or self.settings.log.level, self._count_dropped)

    def leave(self) -> None:
        """Drain, then end; a second call changes nothing."""
        self._leave.set()

    # --- life

    async def run(self) -> None:
        """Serve until told to leave, by `leave`, SIGTERM or SIGINT; to be called once.

        Raises:
            DocumentError: The plan file is bad, and there is no last good plan to serve instead.
        """
        async with AsyncExitStack() as stack:
            stack.push(self._opened)
            # Never handled, always fetched; blocked before there are threads, which inherit that. One that comes while
            # this image ends waits for the next.
            stack.push(_unblock_after_a_failure(signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)))
            self.open_log()
            stack.callback(self.flush_log)
            stack.push_async_callback(self.fall_silent)
            self._credentials.warn(time.time())
            if not self.settings.trusted_peers and any(one.proxy_protocol for one in self.settings.listeners):
                log.warning("a listener has proxyProtocol, but trustedPeers is empty: all its connections are refused")
            if self._level:
                self._workers.set_log_level(self._level)
            if self._inherited:
                self._resume(self._inherited)
            else:
                self.keeper.restore_latch(self._state_dir.read_latch(time.time()))
                await self._feed.read()
            await self._workers.open()
            await self._speak()
            log.info("%s", self._build)
            log.info("listening on %s", ", ".join(self._listeners))
            await self._work()
            await asyncio.to_thread(self._keep_counters)
            log.info("left in order")

    def _resume(self, inherited: Handover) -> None:
        plan = Plan.model_validate_json(inherited.plan) if inherited.plan is not None else None
        latch = validate(Latch, inherited.latch) if inherited.latch else None
        self.keeper.rejected |= inherited.rejected
        self.keeper.resume(plan, inherited.sequence, inherited.plan_since_s, latch, inherited.latch_stored)

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            others = [
                tasks.create_task(work())
                for work in (
                    self._take_signals,
                    self._keep_plan,
                    self._keep_latch,
                    self._keep_credentials,
                    self.discovery.run,
                    self._breaker.run,
                    self.reload.run,
                    self._drain,
                )
            ]
            await self._workers.run(self.keeper)
            for task in others:
                task.cancel()

    async def _take_signals(self) -> None:
        while True:
            while found := signal.sigtimedwait(SIGNALS, 0):
                if found.si_signo == signal.SIGHUP:
                    self.reload.ask()
                else:
                    self.leave()
            await asyncio.sleep(SIGNALS_S)

    async def _keep_plan(self) -> None:
        if self._inherited:
            await self.discovery.resume(self._plan, self._inherited.discovery)
            self._workers.serve()
            await self._feed.resume(self._inherited.plan_file)
        else:
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
                if self._control_tls:
                    self._control_tls.renew(self._credentials.current.control)

    async def _drain(self) -> None:
        await self._leave.wait()
        timeouts = self.settings.timeouts
        self._openings.close_dropped()
        log.info("leaving: lame duck %g s, drain %g s", timeouts.lame_duck, timeouts.drain)
        await self._workers.drain(timeouts.lame_duck, timeouts.drain)

    def _count_dropped(self) -> None:
        self._dropped += 1


def _unblock_after_a_failure(before: Iterable[int]) -> Callable[..., None]:
    """The end of a start that failed. After an end in order signals stay blocked: one more must not spoil it."""

    def leave(kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    return leave


def _dups(sockets: list[socket.socket]) -> list[socket.socket]:
    """For a server that closes what it gets: the listening itself must not end with it."""
    return [sock.dup() for sock in sockets]
