"""One worker process: the line to the supervisor and the heartbeat, around a data plane that knows of neither.

Started as ``python -m proxy.net.worker FD``, where FD is an inherited socket; the first line on it says the rest. See
`proxy.net.workers` for the lines. The process ends when the supervisor closes the line or is gone.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import uvloop

from proxy.config import ProxySettings
from proxy.counters import Counters
from proxy.document import DocumentError, Fault, validate
from proxy.heart import BEAT_S
from proxy.net import logs, memory
from proxy.net.credentials import Credentials
from proxy.plan import Plan
from proxy.shared import Words, region

log = logging.getLogger("cohort.worker")

LINE_BYTES = 32 * 1_048_576  # as `proxy.net.workers` sends them


class DataPlane(Protocol):
    """What serves the clients; `proxy.net.server.Server` does."""

    def stage(self, sequence: int, plan: Plan) -> None: ...  # noqa: D102
    def trust(self, credentials: Credentials) -> None: ...  # noqa: D102
    async def trust_anew(self, credentials: Credentials) -> None: ...  # noqa: D102
    def discovered(self, found: dict[str, Any]) -> None: ...  # noqa: D102
    async def serve(self, sockets: list[tuple[socket.socket, int]]) -> None: ...  # noqa: D102
    async def drain(self, lame_duck_s: float, drain_s: float) -> None: ...  # noqa: D102
    async def retire(self, idle_s: float, drain_s: float) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Start:
    """What a worker is told at its start.

    Attributes:
        place: Its own in the shared memory.
        memory: Descriptor of the shared memory.
        listeners: Descriptors of the slot's listening sockets, each with the index of its listener in the settings.
        keys_dir: Absolute.
    """

    slot: int
    place: int
    memory: int
    listeners: list[tuple[int, int]]
    settings: ProxySettings
    keys_dir: str


Make = Callable[[Start, Words, Counters], tuple[DataPlane, Callable[[], None]]]


def make_server(start: Start, words: Words, counters: Counters) -> tuple[DataPlane, Callable[[], None]]:
    """The data plane, and what to call at the very end.

    Raises:
        KeyFileError: The keys cannot be read.
    """
    # Here and not above: tests of the plumbing bring a data plane of their own.
    from proxy.net.accesslog import AccessLog
    from proxy.net.keyfiles import load_keys
    from proxy.net.server import Server

    access_log = AccessLog(1 if start.settings.log.access == "stdout" else None, counters.log_dropped)
    return Server(start.settings, load_keys(start.keys_dir), words, counters, access_log), access_log.close


def main(make: Make = make_server) -> None:
    """Run the process.

    Args:
        make: Makes the data plane, once the loop runs.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the supervisor leads the way out; a terminal signals everybody
    sys.unraisablehook = _unraisable
    control = socket.socket(fileno=int(sys.argv[1]))
    control.setblocking(False)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(control, make))


def _unraisable(event: Any) -> None:
    """A client's SNI that is no ASCII raises within OpenSSL, where nobody can catch it; its handshake has failed."""
    if not isinstance(event.exc_value, UnicodeDecodeError):
        sys.__unraisablehook__(event)


async def _run(control: socket.socket, make: Make) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=control, limit=LINE_BYTES)
    first = json.loads(await reader.readline())["start"]
    settings = validate(ProxySettings, first["settings"])
    listeners = [(descriptor, index) for descriptor, index in first["listeners"]]
    start = Start(first["slot"], first["place"], first["memory"], listeners, settings, first["keysDir"])
    shared = memory.attach(start.memory)
    words, counters = Words(shared), Counters(region(shared, start.place))
    handler = logs.set_up(settings.log.level, counters.log_dropped)
    try:
        plane, close = make(start, words, counters)
        try:
            plane.trust(Credentials.parse(first["credentials"]))
            gc.freeze()  # what is there now stays: a full collection need not look at it, which takes 20 ms
            await _Process(start, words, plane, reader, writer).run()
        finally:
            close()
    except Exception:
        log.exception("worker of slot %d ends", start.slot)
        raise SystemExit(1) from None
    finally:
        writer.close()
        handler.close()


class _Leave(Exception):
    """The process has nothing more to do."""


class _Process:
    """A worker between its start and its end."""

    def __init__(
        self, start: Start, words: Words, plane: DataPlane, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._slot, self._place = start.slot, start.place
        self._words = words
        self._plane = plane
        self._reader = reader
        self._writer = writer
        self._sockets = [(socket.socket(fileno=descriptor), index) for descriptor, index in start.listeners]
        self._is_leaving = False

    async def run(self) -> None:
        """Beat and obey, until the supervisor has told the worker to leave, or is gone."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._beat())
                tasks.create_task(self._obey(tasks))
        except* _Leave:
            pass

    async def _beat(self) -> None:
        """From inside the loop that serves: a loop that hangs beats no more."""
        while True:
            self._words.beat(self._place, time.monotonic_ns() // 1_000_000)
            await asyncio.sleep(BEAT_S)

    async def _obey(self, tasks: asyncio.TaskGroup) -> None:
        """Do what the supervisor says, line by line."""
        self._say({"hello": os.getpid()})
        while line := await self._reader.readline():
            message = json.loads(line)
            if "stage" in message:
                self._say(self._stage(message["stage"], message["plan"]))
            elif "serve" in message:
                gc.freeze()  # modules and plans stay: no collection need look at them
                tasks.create_task(self._plane.serve(self._sockets))
            elif "credentials" in message:
                tasks.create_task(self._trust(Credentials.parse(message["credentials"])))
            elif "discovery" in message:
                self._plane.discovered(message["discovery"])
            elif "logLevel" in message:
                logs.set_level(message["logLevel"])
            elif "drain" in message and not self._is_leaving:
                self._is_leaving = True
                tasks.create_task(self._drain(message["drain"]))
            elif "retire" in message and not self._is_leaving:
                self._is_leaving = True
                tasks.create_task(self._retire(message["retire"]))
        # Without a supervisor no abort could reach us, and the port would stay taken: better to end than to go on.
        log.error("the supervisor is gone, worker of slot %d ends", self._slot)
        raise _Leave

    async def _drain(self, limits: dict[str, float]) -> None:
        await self._plane.drain(limits["lameDuckS"], limits["drainS"])
        raise _Leave

    async def _retire(self, limits: dict[str, float]) -> None:
        await self._plane.retire(limits["idleS"], limits["drainS"])
        raise _Leave

    def _stage(self, sequence: int, document: dict[str, Any]) -> dict[str, Any]:
        try:
            self._plane.stage(sequence, validate(Plan, document))
        except ValueError as error:
            faults = error.faults if isinstance(error, DocumentError) else [Fault("", str(error))]
            return {"refused": sequence, "faults": [{"path": fault.path, "message": fault.message} for fault in faults]}
        return {"staged": sequence}

    async def _trust(self, credentials: Credentials) -> None:
        try:
            await self._plane.trust_anew(credentials)
        except (ValueError, OSError) as error:  # the supervisor has tried them; a machine may be out of descriptors
            log.error("certificates cannot be used, those in use stay: %s", error)

    def _say(self, message: dict[str, Any]) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
