"""The worker processes: started, told what to do, watched, and replaced when they die or fall silent.

The two sides talk in lines of JSON over a pair of sockets that a worker inherits. To a worker: ``start`` (once, first),
``discovery`` with what is known of endpoints beside the plan (always whole; to a new worker before its plan), ``stage``
with a plan, ``serve``, ``drain``, ``logLevel``, ``credentials``. From it: ``hello``, ``staged`` or ``refused``. A
worker whose pair is closed by the other side ends: nobody could tell it of a new plan any more.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from proxy.counters import clear_gauges
from proxy.document import Fault
from proxy.heart import LONG_LIFE_S, LOOK_S, Heart, RunningTime, restart_delay_s
from proxy.net.keeper import Keeper, StageError
from proxy.shared import Words, region

log = logging.getLogger("cohort.workers")

WORKER = (sys.executable, "-P", "-m", "proxy.net.worker")  # -P: the directory we were started in names no modules
LINE_BYTES = 32 * 1_048_576  # a plan of 1 MiB with every default spelled out
STAGE_S = 5.0  # for one plan at one worker; 5,000 endpoints take 0.1 s
DRAIN_MARGIN_S = 5.0  # beyond lame duck and drain, until a worker is killed


class WorkerGone(Exception):
    """A worker ended, or was ended, before it answered."""


class Worker:
    """One process and the line to it.

    Attributes:
        staged: Sequence of the last plan that it acknowledged.
        is_serving: It was told to accept clients.
    """

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.staged = 0
        self.is_serving = False
        self._process = process
        self._reader = reader
        self._writer = writer
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._is_gone = False
        self._is_killed = False

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def send(self, line: str) -> None:
        """Tell the worker something; a worker that is gone does not hear it."""
        self._writer.write(line.encode() + b"\n")

    async def answer(self, key: str) -> dict[str, Any]:
        """Wait for a line by its key: ``hello``, or the sequence of a plan.

        Raises:
            WorkerGone: It ended first.
        """
        if self._is_gone:
            raise WorkerGone(f"worker {self.pid} has ended")
        future = self._answers.setdefault(key, asyncio.get_running_loop().create_future())
        try:
            return await future
        finally:
            self._answers.pop(key, None)

    async def stage(self, sequence: int, document: str) -> None:
        """Have the worker stage a plan; one that does not answer in time is killed.

        Raises:
            StageError: The worker refuses the plan.
            WorkerGone: It ended first.
        """
        self.send(f'{{"stage":{sequence},"plan":{document}}}')
        try:
            async with asyncio.timeout(STAGE_S):
                answer = await self.answer(str(sequence))
        except TimeoutError:
            self.kill(f"no answer to a plan within {STAGE_S:g} s")
            raise WorkerGone(f"worker {self.pid} did not answer") from None
        if "refused" in answer:
            faults = [Fault(fault["path"], fault["message"]) for fault in answer["faults"]]
            raise StageError("a worker cannot use this plan", faults)
        self.staged = sequence

    def kill(self, why: str) -> None:
        """End the process at once."""
        if not self._is_killed:
            self._is_killed = True
            log.error("worker %d is killed: %s", self.pid, why)
            with suppress(ProcessLookupError):
                self._process.kill()

    async def ended(self) -> int:
        """Take its lines until it ends; to be awaited once, from the start on. Returns the exit status."""
        try:
            while line := await self._reader.readline():
                self._take(json.loads(line))
        except (OSError, ValueError) as error:
            self.kill(f"its line is broken: {error}")
        finally:
            self._is_gone = True
            for future in self._answers.values():
                if not future.done():
                    future.set_exception(WorkerGone(f"worker {self.pid} has ended"))
                    future.exception()  # nobody may be waiting
        return await self._process.wait()

    async def close(self) -> None:
        """End the process if it has not ended, and let its line go."""
        if self._process.returncode is None:
            self.kill("the supervisor has no use for it")
            await self._process.wait()
        self._writer.close()

    def _take(self, message: dict[str, Any]) -> None:
        key = "hello" if "hello" in message else str(message.get("staged", message.get("refused")))
        future = self._answers.setdefault(key, asyncio.get_running_loop().create_future())
        if not future.done():
            future.set_result(message)


@dataclass(slots=True)
class Slot:
    """A place for a worker, with the sockets that outlive it.

    Attributes:
        worker: The one that is there, None while there is none.
        heart: That worker's.
        restarts: How many workers have been replaced here.
    """

    number: int
    sockets: list[tuple[socket.socket, int]]
    worker: Worker | None = None
    heart: Heart | None = None
    restarts: int = 0
    said_hello: bool = False
    is_starting: bool = True
    has_served: bool = False


class Workers:
    """All slots.

    Args:
        sockets: Listening sockets of each slot, each with the index of its listener in the settings.
        descriptor: The shared memory's. ``memory`` is its mapping.
        start: What every worker is told at its start beside its slot: ``settings``, ``keysDir``, ``credentials``.
        now: Monotonic seconds.
        command: What to execute; the number of the inherited socket is appended.
    """

    def __init__(
        self,
        sockets: list[list[tuple[socket.socket, int]]],
        descriptor: int,
        memory: memoryview,
        start: dict[str, Any],
        now: Callable[[], float],
        command: Sequence[str] = WORKER,
    ) -> None:
        self.slots = [Slot(number, found) for number, found in enumerate(sockets)]
        self.is_draining = False
        self._descriptor = descriptor
        self._memory = memory
        self._words = Words(memory)
        self._start = start
        self._now = now
        self._command = command
        self._running = RunningTime(now())
        self._level: str | None = None
        self._discovery: str | None = None
        self._may_serve = asyncio.Event()
        self._changed = asyncio.Event()  # some worker has come up or gone
        self._woken = asyncio.Event()

    # --- what the rest of the supervisor asks and says

    @property
    def live(self) -> list[Worker]:
        """Workers that have said hello and not ended."""
        return [slot.worker for slot in self.slots if slot.worker and slot.said_hello]

    @property
    def is_ready(self) -> bool:
        """Every slot has had a serving worker, and at least one has one now."""
        serving = any(worker.is_serving for worker in self.live)
        return serving and not self.is_draining and all(slot.has_served for slot in self.slots)

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
        results = await asyncio.gather(
            *(worker.stage(sequence, document) for worker in self.live), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, WorkerGone):
                raise result
        if not any(result is None for result in results):
            raise StageError("no worker lived to acknowledge the plan; try again")

    async def _until_up(self) -> None:
        """Wait, but not for ever, until no worker is just starting and there is one; one in back-off is not awaited."""
        with suppress(TimeoutError):
            async with asyncio.timeout(STAGE_S):
                while not self.live or any(slot.is_starting for slot in self.slots):
                    self._changed.clear()
                    await self._changed.wait()

    def serve(self) -> None:
        """From now on workers may take clients, each as soon as it has staged the plan in force."""
        self._may_serve.set()

    def set_log_level(self, level: str) -> None:
        """Pass a level on, to later workers too."""
        self._level = level
        for worker in self.live:
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
        for worker in self.live:
            worker.send(self._discovery)

    # --- life

    async def run(self, keeper: Keeper) -> None:
        """Keep a worker in every slot, until `drain` was called and all have ended."""
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(self._watch())
            async with asyncio.TaskGroup() as slots:
                for slot in self.slots:
                    slots.create_task(self._keep(slot, keeper))
            watch.cancel()

    async def _keep(self, slot: Slot, keeper: Keeper) -> None:
        early_deaths = 0
        while not self.is_draining:
            began = self._running.seconds
            try:
                end = _manner(await self._live(slot, keeper))
            except OSError as error:
                end = f"it could not be started: {error}"
                slot.is_starting = False
                self._changed.set()
            if self.is_draining:
                return
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
        slot.heart = Heart(self._words.heartbeat(slot.number), self._running.seconds)
        slot.worker = worker = await self._spawn(slot)
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
            clear_gauges(region(self._memory, slot.number))  # its connections have died with it
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
        except StageError as error:
            worker.kill(f"it refuses the plan in force: {'; '.join(map(str, error.faults))}")
        except WorkerGone:
            pass  # whoever waits for its end goes on

    async def _spawn(self, slot: Slot) -> Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with theirs:
            listeners = [(sock.fileno(), index) for sock, index in slot.sockets]
            inherited = [theirs.fileno(), self._descriptor, *(descriptor for descriptor, _ in listeners)]
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
            "place": slot.number,
            "memory": self._descriptor,
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
                if slot.worker and slot.heart and not slot.heart.look(self._words.heartbeat(slot.number), seconds):
                    slot.worker.kill(f"no heartbeat for {slot.heart.age_s(seconds):.1f} s")

    async def drain(self, lame_duck_s: float, drain_s: float) -> None:
        """Have every worker leave in order; `run` returns when all have, `DRAIN_MARGIN_S` after that at the latest.

        The supervisor's own hold on the listening sockets ends here, so that the port is free as soon as the workers
        have stopped accepting; they hold theirs through the lame duck.
        """
        self.is_draining = True
        self._woken.set()
        for slot in self.slots:
            for sock, _ in slot.sockets:
                sock.close()
            slot.sockets = []
            if slot.worker and slot.worker.is_serving:
                slot.worker.send(json.dumps({"drain": {"lameDuckS": lame_duck_s, "drainS": drain_s}}))
            elif slot.worker:
                slot.worker.kill("the proxy is leaving")
        await asyncio.sleep(lame_duck_s + drain_s + DRAIN_MARGIN_S)
        for slot in self.slots:
            if slot.worker:
                slot.worker.kill("it did not end in time")


def _manner(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
