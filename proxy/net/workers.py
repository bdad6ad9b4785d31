"""The worker processes: started, told what to do, watched, and replaced when they die or fall silent."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from proxy.counters import clear_gauges
from proxy.heart import LONG_LIFE_S, LOOK_S, Heart, RunningTime, restart_delay_s
from proxy.net.elders import Elders
from proxy.net.handover import WorkerRecord
from proxy.net.keeper import Keeper, StageError
from proxy.net.memory import SharedMemory
from proxy.net.running import usage
from proxy.net.workline import LINE_BYTES, Worker, WorkerGone, manner
from proxy.shared import MAX_PLACES, Words, region

log = logging.getLogger("cohort.workers")

WORKER = (sys.executable, "-P", "-m", "proxy.net.worker")  # -P: the directory we were started in names no modules
UP_S = 5.0  # how long a plan waits for workers that are just starting
QUIET_S = 2.0  # for lines to workers to go out before this image ends
FREEZE_S = 10.0  # for workers that are just starting to be gone
DRAIN_MARGIN_S = 5.0  # beyond lame duck and drain, until a worker is killed


@dataclass(slots=True)
class Slot:
    """A place for a worker, with the sockets that outlive it.

    Attributes:
        place: Its workers' own in the shared memory.
        worker: The one that is there, None while there is none.
        heart: That worker's.
        restarts: How many workers have been replaced here.
    """

    number: int
    place: int
    sockets: list[tuple[socket.socket, int]]
    worker: Worker | None = None
    heart: Heart | None = None
    restarts: int = 0
    said_hello: bool = False
    is_starting: bool = True
    is_spawning: bool = False
    has_served: bool = False


class Workers:
    """All slots, and workers of the image before this one until they have left.

    Attributes:
        elders: Those of before.

    Args:
        sockets: Listening sockets of each slot, each with the index of its listener in the settings.
        memory: Room for all is made here.
        start: What every worker is told at its start beside its slot: ``settings``, ``keysDir``, ``credentials``.
        now: Monotonic seconds.
        command: What to execute; the number of the inherited socket is appended.
        before: Workers that an earlier image of this process has left.
    """

    def __init__(
        self,
        sockets: list[list[tuple[socket.socket, int]]],
        memory: SharedMemory,
        start: dict[str, Any],
        now: Callable[[], float],
        command: Sequence[str] = WORKER,
        before: Iterable[WorkerRecord] = (),
    ) -> None:
        self.elders = Elders(before, memory, now)
        free = [place for place in range(MAX_PLACES) if place not in self.elders.places]
        self.slots = [Slot(number, free[number], found) for number, found in enumerate(sockets)]
        memory.reserve(1 + max([*self.elders.places, *(slot.place for slot in self.slots)]))
        self.is_draining = False
        self._memory = memory
        self._words = Words(memory.view)
        self._start = start
        self._now = now
        self._command = command
        self._running = RunningTime(now())
        self._level: str | None = None
        self._discovery: str | None = None
        self._may_serve = asyncio.Event()
        self._changed = asyncio.Event()  # some worker has come up or gone
        self._woken = asyncio.Event()
        self._thawed = asyncio.Event()
        self._thawed.set()

    # --- what the rest of the supervisor asks and says

    @property
    def live(self) -> list[Worker]:
        """Workers that have said hello and not ended."""
        return [slot.worker for slot in self.slots if slot.worker and slot.said_hello]

    @property
    def is_ready(self) -> bool:
        """Every slot has had a serving worker, and at least one has one now; or those of before still serve."""
        if self.is_draining:
            return False
        serving = any(worker.is_serving for worker in self.live)
        return bool(self.elders.serving) or (serving and self.all_have_served)

    @property
    def all_have_served(self) -> bool:
        """Every slot has had a serving worker."""
        return all(slot.has_served for slot in self.slots)

    async def until_all_have_served(self) -> None:
        """Wait for that, without end."""
        while not self.all_have_served:
            self._changed.clear()
            await self._changed.wait()

    @property
    def live_places(self) -> set[int]:
        """Those in the memory in use whose region has a writer."""
        return {slot.place for slot in self.slots if slot.worker} | {
            elder.record.place for elder in self.elders.all if elder.region is not None
        }

    def heartbeat_age_s(self, slot: Slot) -> float:
        """Running seconds since the last beat of a slot's worker."""
        return slot.heart.age_s(self._running.seconds) if slot.heart else 0.0

    async def stage(self, sequence: int, document: str) -> None:
        """Stage a plan at every worker that is up; one that starts later stages what is in force before it serves.

        Raises:
            StageError: A worker refuses it; or none is up, or all that were asked have ended: a plan that kills
                workers must not be kept.
        """
        await self._until_up()
        # Those of before may be of another version, which need not understand a new plan: they keep the one they have.
        heard, others = (self.live, self.elders.workers) if self.live else (self.elders.serving, [])
        results, _ = await asyncio.gather(
            *(
                asyncio.gather(*(worker.stage(sequence, document) for worker in workers), return_exceptions=True)
                for workers in (heard, others)
            )
        )
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, WorkerGone):
                raise result
        if not any(result is None for result in results):
            raise StageError("no worker lived to acknowledge the plan; try again")

    async def _until_up(self) -> None:
        """Wait, but not for ever, until no worker is just starting and there is one; one in back-off is not awaited."""
        with suppress(TimeoutError):
            async with asyncio.timeout(UP_S):
                while not self.live or any(slot.is_starting for slot in self.slots):
                    self._changed.clear()
                    await self._changed.wait()

    def serve(self) -> None:
        """From now on workers may take clients, each as soon as it has staged the plan in force."""
        self._may_serve.set()

    def set_log_level(self, level: str) -> None:
        """Pass a level on, to later workers too."""
        self._level = level
        for worker in [*self.live, *self.elders.workers]:
            worker.send(json.dumps({"logLevel": level}))

    def trust(self, credentials: dict[str, Any]) -> None:
        """Pass certificates and keys on, to later workers too."""
        self._start["credentials"] = credentials
        line = json.dumps({"credentials": credentials})
        for slot in self.slots:
            if slot.worker:  # one that has not said hello yet reads it after what it was told at its start
                slot.worker.send(line)

    def discover(self, document: str) -> None:
        """Pass on what is known of endpoints beside the plan, as JSON, to later workers too."""
        self._discovery = f'{{"discovery":{document}}}'
        for worker in [*self.live, *self.elders.serving]:
            worker.send(self._discovery)

    # --- a next image of this process

    async def freeze(self) -> list[WorkerRecord]:
        """Start no more workers, end those that do not serve yet, and say what the others are.

        Raises:
            TimeoutError: One does not end; `thaw` is needed.
        """
        self._thawed.clear()
        self._woken.set()
        async with asyncio.timeout(FREEZE_S):
            while any(slot.is_spawning or (slot.worker and not slot.worker.is_serving) for slot in self.slots):
                for slot in self.slots:
                    if slot.worker and not slot.worker.is_serving:
                        slot.worker.kill("another reload comes before it could serve")
                await asyncio.sleep(0.01)
        descriptor = self._memory.descriptor
        young = [
            WorkerRecord(slot.worker.pid, slot.worker.descriptor, descriptor, slot.place, slot.worker.staged)
            for slot in self.slots
            if slot.worker
        ]
        await self._until_quiet()
        return [*young, *self.elders.records()]

    async def _until_quiet(self) -> None:
        """Let lines go out whole; a worker that does not read its own is of no use any more."""
        workers = [*self.live, *self.elders.workers]
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIET_S):
                for worker in workers:
                    await worker.until_quiet()
        for worker in workers:
            if not worker.is_quiet:
                worker.kill("it does not read what it is told")

    def thaw(self) -> None:
        """Go on as before: there is no next image."""
        self._woken.clear()
        self._thawed.set()

    # --- life

    async def open(self) -> None:
        """Take over the workers of before; to be called once, before `run`."""
        await self.elders.open(self._running.seconds)

    async def run(self, keeper: Keeper) -> None:
        """Keep a worker in every slot, until `drain` was called and all have ended, those of before too."""
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(self._watch())
            async with asyncio.TaskGroup() as slots:
                for slot in self.slots:
                    slots.create_task(self._keep(slot, keeper))
                for elder in list(self.elders.all):
                    slots.create_task(self.elders.follow(elder))
            watch.cancel()

    async def _keep(self, slot: Slot, keeper: Keeper) -> None:
        early_deaths = 0
        while not self.is_draining:
            await self._thawed.wait()
            began = self._running.seconds
            try:
                end = manner(await self._live(slot, keeper))
            except OSError as error:
                end = f"it could not be started: {error}"
                slot.is_starting = False
                self._changed.set()
            if self.is_draining:
                return
            if not self._thawed.is_set():
                continue
            early_deaths = 1 if self._running.seconds - began > LONG_LIFE_S else early_deaths + 1
            delay = restart_delay_s(early_deaths)
            log.error("worker of slot %d ended (%s), next one in %g s", slot.number, end, delay)
            slot.restarts += 1
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._woken.wait()

    async def _live(self, slot: Slot, keeper: Keeper) -> int:
        """One worker's life; returns its exit status."""
        slot.is_starting = True
        slot.is_spawning = True
        last = self._words.heartbeat(slot.place)
        try:
            slot.worker = worker = await self._spawn(slot)
            slot.heart = Heart(last, self._running.seconds, partial(usage, worker.pid))
        finally:
            slot.is_spawning = False
        try:
            async with asyncio.TaskGroup() as tasks:
                raising = tasks.create_task(self._raise(slot, worker, keeper))
                status = await worker.ended()
                raising.cancel()
        finally:
            slot.worker = slot.heart = None
            slot.said_hello = slot.is_starting = False
            self._changed.set()
            await worker.close()
            clear_gauges(region(self._memory.view, slot.place))  # its connections have died with it
        return status

    async def _raise(self, slot: Slot, worker: Worker, keeper: Keeper) -> None:
        """Bring a new worker to the plan in force and let it serve."""
        try:
            await worker.answer("hello")
            if self._level:
                worker.send(json.dumps({"logLevel": self._level}))
            if self._discovery:
                worker.send(self._discovery)
            slot.said_hello, slot.is_starting = True, False
            self._changed.set()
            await self._may_serve.wait()
            async with keeper.staging:  # no flip can come between
                current = keeper.in_force
                if current and worker.staged != current.sequence:
                    await worker.stage(current.sequence, current.document)
                if self.is_draining:
                    worker.kill("the proxy is leaving")
                else:
                    worker.send('{"serve":true}')
                    worker.is_serving = slot.has_served = True
                    self._changed.set()
        except StageError as error:
            worker.kill(f"it refuses the plan in force: {'; '.join(map(str, error.faults))}")
        except WorkerGone:
            pass  # whoever waits for its end goes on

    async def _spawn(self, slot: Slot) -> Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            listeners = [(sock.fileno(), index) for sock, index in slot.sockets]
            inherited = [theirs.fileno(), self._memory.descriptor, *(descriptor for descriptor, _ in listeners)]
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._command, str(theirs.fileno()), stdin=asyncio.subprocess.DEVNULL, pass_fds=inherited
                )
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LINE_BYTES)
        worker = Worker(process, reader, writer)
        start = {
            "slot": slot.number,
            "place": slot.place,
            "memory": self._memory.descriptor,
            "listeners": listeners,
            **self._start,
        }
        worker.send(json.dumps({"start": start}))
        return worker

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            seconds = self._running.step(self._now())
            for slot in self.slots:
                if slot.worker and slot.heart and not slot.heart.look(self._words.heartbeat(slot.place), seconds):
                    slot.worker.kill(f"no heartbeat for {slot.heart.age_s(seconds):.1f} s")
            self.elders.look(seconds)

    async def drain(self, lame_duck_s: float, drain_s: float) -> None:
        """Have every worker leave in order; `run` returns when all have, `DRAIN_MARGIN_S` after that at the latest.

        The supervisor's own hold on the listening sockets ends here, so that the port is free as soon as the workers
        have stopped accepting; they hold theirs through the lame duck.
        """
        line = json.dumps({"drain": {"lameDuckS": lame_duck_s, "drainS": drain_s}})
        self.is_draining = True
        self._woken.set()
        self._thawed.set()
        for slot in self.slots:
            for sock, _ in slot.sockets:
                sock.close()
            slot.sockets = []
            if slot.worker and slot.worker.is_serving:
                slot.worker.send(line)
            elif slot.worker:
                slot.worker.kill("the proxy is leaving")
        self.elders.drain(line, self._now() + lame_duck_s + drain_s + DRAIN_MARGIN_S)
        await asyncio.sleep(lame_duck_s + drain_s + DRAIN_MARGIN_S)
        for slot in self.slots:
            if slot.worker:
                slot.worker.kill("it did not end in time")
        for elder in self.elders.all:
            elder.worker.kill("it did not end in time")
