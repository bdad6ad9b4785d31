"""The supervisor: owns the sockets, the shared memory, the state on disk and the workers; serves no traffic itself."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from proxy import counters, shared, succession
from proxy.config import ProxySettings
from proxy.document import DocumentError
from proxy.metrics import Snapshot
from proxy.net import logs, memory, sockets
from proxy.net.admin import AccessRules, admin_app, exposition_app
from proxy.net.keeper import Keeper, Refused
from proxy.net.planfile import POLL_S, PlanFile
from proxy.net.statedir import StateDir
from proxy.net.workers import Slot, Workers
from proxy.plan import Plan
from proxy.shared import Words, region
from proxy.stats import stats_document

log = logging.getLogger("cohort.supervisor")

LATCH_RETRY_S = 1.0  # how often an abort that could not be stored is tried again
CLOSE_S = 2.0  # for answers of the admin API under way at the end


class Supervisor:
    """One proxy.

    Attributes:
        boot: Differs at each start; where it changes, all counters begin at zero.
        settings: As given.

    Args:
        base: The directory that relative paths in the settings start from.
        token: Of the admin API on a TCP port; None on a Unix socket, whose file mode is the guard.
    """

    def __init__(self, settings: ProxySettings, base: Path, token: str | None) -> None:
        self.settings = settings
        self.boot = secrets.token_hex(8)
        self._base = base
        self._token = token
        self._dropped = 0
        self._leaving: list[asyncio.Task[None]] = []
        self._tasks: asyncio.TaskGroup | None = None
        self._state_dir = StateDir(base / settings.state_dir)
        self._plan_file = PlanFile(base / settings.plan_file) if settings.plan_file else None
        listening = [
            sockets.listen_slots(listener.address, settings.workers, f"listeners[{i}].address")
            for i, listener in enumerate(settings.listeners)
        ]
        self._of_slots = [[s for listener in listening for s in listener[n]] for n in range(settings.workers)]
        self.listeners = [sockets.text(s) for listener in listening for s in listener[0]]
        self._metrics_sockets = sockets.listen_one(settings.metrics.listen, "metrics.listen")
        self._admin_sockets = self._listen_admin()
        descriptor = memory.create(shared.size(settings.workers))
        self._memory = memory.attach(descriptor)
        start = {
            "settings": settings.model_dump(mode="json", by_alias=True),
            "keysDir": str((base / settings.keys_dir).absolute()),
        }
        self.workers = Workers(self._of_slots, descriptor, self._memory, start, time.monotonic)
        self.keeper = Keeper(Words(self._memory), self._state_dir, self.workers.stage, time.monotonic, time.time)

    def _listen_admin(self) -> list[Any]:
        listen = self.settings.admin.listen
        if listen.startswith("unix:"):
            return [sockets.listen_unix(self._base / listen.removeprefix("unix:"), "admin.listen")]
        return sockets.listen_one(listen, "admin.listen")

    # --- what the admin API asks

    @property
    def is_ready(self) -> bool:
        """A plan is in force and workers take clients."""
        return self.keeper.in_force is not None and self.workers.is_ready

    @property
    def is_draining(self) -> bool:
        """The proxy is leaving."""
        return self.workers.is_draining

    def _read(self) -> counters.Stats:
        plan = self.plan
        regions = [region(self._memory, slot.number) for slot in self.workers.slots]
        return counters.read(regions, plan.rollout.uid if plan else "", plan.revision if plan else None)

    @property
    def plan(self) -> Plan | None:
        """The plan in force."""
        return self.keeper.in_force.plan if self.keeper.in_force else None

    def stats(self) -> dict[str, Any]:
        """The document of ``GET /stats``."""
        return stats_document(self._read(), self.plan, self.boot, time.time())

    def snapshot(self) -> Snapshot:
        """What the metrics are made of."""
        in_force = self.keeper.in_force
        age = time.monotonic() - in_force.since_s if in_force else 0.0
        return Snapshot(self._read(), self.plan, age, self.keeper.rejected, self.keeper.latch is not None)

    def state(self) -> dict[str, Any]:
        """The document of ``GET /state``."""
        in_force, latch = self.keeper.in_force, self.keeper.latch
        return {
            "boot": self.boot,
            "ready": self.is_ready,
            "draining": self.is_draining,
            "listeners": self.listeners,
            "metrics": [sockets.text(sock) for sock in self._metrics_sockets],
            "plan": None
            if in_force is None
            else {
                "generation": in_force.plan.generation,
                "endpointsVersion": in_force.plan.endpoints_version,
                "uid": in_force.plan.rollout.uid,
                "revision": in_force.plan.revision,
                "digest": in_force.digest,
                "etag": in_force.etag,
            },
            "latch": latch and latch.model_dump(mode="json", by_alias=True),
            "latchStored": self.keeper.is_stored,
            "workers": [self._worker_state(slot) for slot in self.workers.slots],
        }

    def _worker_state(self, slot: Slot) -> dict[str, Any]:
        worker, in_force = slot.worker, self.keeper.in_force
        is_current = worker is not None and in_force is not None and worker.staged == in_force.sequence
        return {
            "slot": slot.number,
            "pid": worker.pid if worker else None,
            "plan": in_force.plan.generation if is_current and in_force else None,
            "heartbeatAgeS": round(self.workers.heartbeat_age_s(slot), 3),
            "restarts": slot.restarts,
        }

    def set_log_level(self, level: str) -> None:
        """Change the level of this process and of all workers."""
        logs.set_level(level)
        self.workers.set_log_level(level)

    # --- life

    async def run(self) -> None:
        """Serve until told to leave."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.leave)
        handler = logs.set_up(self.settings.log.level, self._note_dropped)
        try:
            self.keeper.restore_latch(self._state_dir.read_latch(time.time()))
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                runners = [
                    await _serve(admin_app(self, self._access_rules()), self._admin_sockets),
                    await _serve(exposition_app(self), self._metrics_sockets),
                ]
                log.info("listening on %s", ", ".join(self.listeners))
                others = [tasks.create_task(self._keep_plan()), tasks.create_task(self._keep_latch())]
                await self.workers.run(self.keeper)
                for task in [*others, *self._leaving]:
                    task.cancel()
                for runner in runners:
                    await runner.cleanup()
        finally:
            self._state_dir.close()
            log.info("left")
            handler.close()

    def leave(self) -> None:
        """Drain and end; a second call changes nothing."""
        if not self._leaving and self._tasks is not None:
            timeouts = self.settings.timeouts
            log.info("leaving: lame duck %g s, drain %g s", timeouts.lame_duck, timeouts.drain)
            self._leaving.append(self._tasks.create_task(self.workers.drain(timeouts.lame_duck, timeouts.drain)))

    def _access_rules(self) -> AccessRules:
        return AccessRules(self._token)

    def _note_dropped(self) -> None:
        self._dropped += 1

    async def _keep_latch(self) -> None:
        while True:
            await asyncio.sleep(LATCH_RETRY_S)
            await self.keeper.retry_latch()

    async def _keep_plan(self) -> None:
        """Put the newer of plan file and last good plan in force, then follow the file."""
        stored = await asyncio.to_thread(self._state_dir.read_plan)
        offered = await self._read_plan_file()
        file_at = self._plan_file.modified_s if self._plan_file else 0.0
        for plan in succession.at_start(stored, (offered, file_at) if offered else None):
            origin = "the plan file" if plan is offered else "the last good plan"
            if await self._offer(plan, origin):
                break
        self.workers.serve()
        if self._plan_file is None:
            return
        while True:
            await asyncio.sleep(POLL_S)
            if await asyncio.to_thread(self._plan_file.has_changed):
                plan_now = await self._read_plan_file()
                if plan_now is not None:
                    await self._offer(plan_now, "the plan file")

    async def _read_plan_file(self) -> Plan | None:
        if self._plan_file is None:
            return None
        try:
            return await asyncio.to_thread(self._plan_file.read)
        except DocumentError as error:
            self.keeper.reject("invalid", Refused(422, f"plan file {self._plan_file.path}", error.faults))
            return None

    async def _offer(self, plan: Plan, origin: str) -> bool:
        try:
            await self.keeper.adopt(plan, origin, is_durable=True)
        except Refused as refused:
            if refused.may_recover and self._plan_file is not None:
                self._plan_file.read_again()
            return self.keeper.in_force is not None
        return True


async def _serve(app: web.Application, listening: list[Any]) -> web.AppRunner:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=CLOSE_S)
    await runner.setup()
    for sock in listening:
        await web.SockSite(runner, sock).start()
    return runner
