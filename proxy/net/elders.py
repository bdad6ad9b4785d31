"""Workers of the image before this one: they serve on until new ones do, then finish what they have under way."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from proxy.counters import clear_gauges
from proxy.heart import Heart
from proxy.net.handover import WorkerRecord
from proxy.net.memory import SharedMemory
from proxy.net.running import usage
from proxy.net.workline import LINE_BYTES, Worker, manner
from proxy.shared import Words

log = logging.getLogger("cohort.workers")

IDLE_S = 5.0  # for clients between two requests to send the next, whose answer tells them to come back
MARGIN_S = 5.0  # beyond the drain limit, until one is killed


class Child:
    """A process that an earlier image of this one started: exec keeps its children, asyncio knows nothing of them."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def kill(self) -> None:
        """End it at once."""
        if self.returncode is None and self._is_ours():
            os.kill(self.pid, signal.SIGKILL)

    def _is_ours(self) -> bool:
        """Whether it has not been waited for; until then nobody else gets its id."""
        with suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return True
        return False

    async def wait(self) -> int:
        """Wait for its end. Returns the exit status, that of SIGKILL if somebody else has taken it."""
        if self.returncode is None and self._is_ours():
            descriptor = os.pidfd_open(self.pid)
            try:
                await _readable(descriptor)
            finally:
                os.close(descriptor)
            with suppress(ChildProcessError):
                self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, os.WNOHANG)[1])  # noqa: ASYNC222  # ended
        if self.returncode is None:
            self.returncode = -signal.SIGKILL
        return self.returncode


async def _readable(descriptor: int) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)


@dataclass(slots=True)
class Elder:
    """One of them.

    Attributes:
        region: Where it counts; None: in memory of another layout.
        ends_at: Monotonic seconds at which it is killed; None: it has not been told to retire.
    """

    worker: Worker
    record: WorkerRecord
    words: Words
    region: memoryview | None
    heart: Heart
    ends_at: float | None


class Elders:
    """All of them.

    Args:
        records: As the image before left them.
        now: Monotonic seconds.
    """

    def __init__(self, records: Iterable[WorkerRecord], memory: SharedMemory, now: Callable[[], float]) -> None:
        self.all: list[Elder] = []
        self._records = list(records)
        self._memory = memory
        self._now = now

    @property
    def serving(self) -> list[Worker]:
        """Those that have not been told to retire."""
        return [elder.worker for elder in self.all if elder.ends_at is None]

    @property
    def workers(self) -> list[Worker]:
        """All of them."""
        return [elder.worker for elder in self.all]

    def records(self) -> list[WorkerRecord]:
        """For a further image."""
        return [replace(elder.record, staged=elder.worker.staged, ends_at=elder.ends_at) for elder in self.all]

    @property
    def places(self) -> set[int]:
        """Those in the memory in use that are taken."""
        return {record.place for record in self._records if record.memory == self._memory.descriptor}

    async def open(self, running_s: float) -> None:
        """Take over their lines.

        Args:
            running_s: As of `Heart`.
        """
        for record in self._records:
            line = socket.socket(fileno=record.line)
            line.setblocking(False)
            reader, writer = await asyncio.open_unix_connection(sock=line, limit=LINE_BYTES)
            worker = Worker(Child(record.pid), reader, writer)
            worker.staged, worker.is_serving = record.staged, True
            words = self._memory.words(record.memory)
            region = self._memory.region(record.memory, record.place)
            heart = Heart(words.heartbeat(record.place), running_s, partial(usage, record.pid))
            self.all.append(Elder(worker, record, words, region, heart, record.ends_at))

    async def follow(self, elder: Elder) -> None:
        """Take one's lines until it has ended."""
        status = await elder.worker.ended()
        self.all.remove(elder)
        if elder.region is not None:
            clear_gauges(elder.region)
        await elder.worker.close()
        if elder.ends_at is None:
            log.error("an earlier worker, process %d, ended (%s)", elder.worker.pid, manner(status))
        else:
            log.info("an earlier worker, process %d, has left (%s)", elder.worker.pid, manner(status))

    def drain(self, line: str, ends_at: float) -> None:
        """Pass on that the whole proxy leaves."""
        for elder in self.all:
            if elder.ends_at is None:
                elder.worker.send(line)
                elder.ends_at = ends_at

    def retire(self, drain_s: float) -> None:
        """Have those that serve stop accepting and finish, each by the limit."""
        for elder in self.all:
            if elder.ends_at is None:
                elder.worker.send(json.dumps({"retire": {"idleS": IDLE_S, "drainS": drain_s}}))
                elder.ends_at = self._now() + drain_s + MARGIN_S

    def look(self, running_s: float) -> None:
        """Kill those that have fallen silent or outstayed their limit."""
        now = self._now()
        for elder in self.all:
            if not elder.heart.look(elder.words.heartbeat(elder.record.place), running_s):
                elder.worker.kill(f"no heartbeat for {elder.heart.age_s(running_s):.1f} s")
            elif elder.ends_at is not None and now > elder.ends_at:
                elder.worker.kill("it did not end in time")
