"""One worker process, and the line to it.

The two sides talk in lines of JSON over a pair of sockets that a worker inherits. To a worker: ``start`` (once, first),
``stage`` with a plan, ``serve``, ``drain``, ``retire``, ``credentials``, ``discovery``, ``logLevel``. From it:
``hello``, ``staged`` or ``refused``. What is known of endpoints beside the plan always comes whole, and to a new worker
before its plan. A worker whose pair is closed by the other side ends: nobody could tell it of a new plan any more.
During an upgrade the two sides are of two versions: what a line means never changes, and what one side does not know it
leaves alone.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from contextlib import suppress
from typing import Any, Protocol

from proxy.document import Fault
from proxy.net.keeper import StageError

log = logging.getLogger("cohort.workers")

LINE_BYTES = 32 * 1_048_576  # a plan of 1 MiB with every default spelled out
STAGE_S = 20.0  # for one plan at one worker: 5,000 endpoints take 0.1 s of a processor; who hangs is found sooner


class Process(Protocol):
    """A child, as `asyncio.subprocess.Process` is one."""

    @property
    def pid(self) -> int: ...  # noqa: D102
    @property
    def returncode(self) -> int | None: ...  # noqa: D102
    def kill(self) -> None: ...  # noqa: D102
    async def wait(self) -> int: ...  # noqa: D102


class WorkerGone(Exception):
    """A worker ended, or was ended, before it answered."""


class Worker:
    """One process and the line to it.

    Attributes:
        staged: Sequence of the last plan that it acknowledged.
        is_serving: It was told to accept clients.
    """

    def __init__(self, process: Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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

    @property
    def descriptor(self) -> int:
        """Of the line, for a next image of this process."""
        return int(self._writer.get_extra_info("socket").fileno())

    @property
    def is_quiet(self) -> bool:
        """Whether all that was sent has gone to the kernel."""
        return not self._writer.transport.get_write_buffer_size()

    async def until_quiet(self) -> None:
        """Wait for that, without end."""
        while not (self.is_quiet or self._is_gone):  # noqa: ASYNC110  # a transport tells of its low-water mark only
            await asyncio.sleep(0.01)

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


def manner(status: int) -> str:
    """How a process ended, from its exit status."""
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
