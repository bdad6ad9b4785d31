"""A whole proxy in a process of its own, set up for one profile, with the services behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from tests.wire import profile as profiles
from tests.wire import secure
from tests.wire.service import Service
from tests.wire.watch import PING, Watch

PROGRAM = (sys.executable, "-c", "from controller.cli import main; main()", "proxy", "--config")
START_S = 30.0  # a second on an idle machine
STOP_S = 15.0
ASK_S = 5.0
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")
Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


class StandError(Exception):
    """The proxy cannot be run."""


class Stand:
    """A running proxy.

    Attributes:
        profile: Which of `case.PROFILES`.
        port: Of the data port, `tls_port` of the one with TLS.
        admin_port: Of the admin API; `token` opens it.
        services: By name: `a` and `b` are stable's, `canary` and `canary_b` the canary's, `mirror` too.
        pid: Of the worker.
    """

    def __init__(self, profile: str, limits: Mapping[str, int], response_head_ms: int, folder: Path) -> None:
        self.profile = profile
        self.folder = folder
        self.token = secrets.token_hex(16)
        self.generation = 1
        self.port = self.tls_port = self.admin_port = self.metrics_port = self.pid = 0
        self.services: dict[str, Service] = {}
        self._limits = limits
        self._response_head_ms = response_head_ms
        self._log_at = 0
        self.process: asyncio.subprocess.Process
        self.watch: Watch

    @property
    def host(self) -> bytes:
        """A Host that reaches a service."""
        return profiles.HOSTS.get(self.profile, b"probe.test")

    # --- life

    async def start(self, personality: str) -> None:
        """Start services and proxy and wait until it is ready."""
        names = {"a": "stable", "canary": "canary"}
        if self.profile == profiles.DOUBLED:
            names = {"a": "stable", "b": "stable", "canary": "canary", "canary_b": "canary"}
        if self.profile == "mirror":
            names = {"a": "stable", "mirror": "canary"}
        self.services = {name: Service(arm, personality) for name, arm in names.items()}
        for name, service in self.services.items():
            service.gets_copies = name == "mirror"
        self.admin_port = _free_port()
        self._write()
        with (self.folder / "access").open("ab") as access, (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *PROGRAM, str(self.folder / "proxy.json"), stdout=access, stderr=log, cwd=_project()
            )
        deadline = time.monotonic() + START_S
        while not await self._is_ready():
            if self.process.returncode is not None or time.monotonic() > deadline:
                raise StandError(f"the proxy does not start:\n{self.log}")
            await asyncio.sleep(0.05)
        self.watch = Watch(self.port, self.pid)
        self.watch.start()

    def _write(self) -> None:
        document = profiles.settings(self.profile, self._limits, self._response_head_ms, f"127.0.0.1:{self.admin_port}")
        (self.folder / "proxy.json").write_text(json.dumps(document))
        secure.write_certificates(self.folder)
        (self.folder / "token").write_text(self.token)
        (self.folder / "plan.json").write_text(json.dumps(self.plan()))

    async def _is_ready(self) -> bool:
        try:
            state = await self.state()
        except OSError:
            return False
        if not state["ready"]:
            return False
        self.port, self.tls_port = (int(text.rpartition(":")[2]) for text in state["listeners"])
        self.metrics_port = int(state["metrics"][0].rpartition(":")[2])
        self.pid = state["workers"][0]["pid"]
        return True

    async def stop(self) -> None:
        """End everything; the proxy has time to leave in order."""
        if hasattr(self, "watch"):
            self.watch.stop()
        for service in self.services.values():
            await service.close()
        if hasattr(self, "process") and self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self.process.wait(), STOP_S)
            except TimeoutError:
                self.process.kill()
                await self.process.wait()

    # --- the plan

    def ports(self) -> dict[str, list[int]]:
        """Of the services, by arm."""
        found: dict[str, list[int]] = {}
        for service in self.services.values():
            found.setdefault(service.arm, []).append(service.port)
        return found

    def plan(self, canary_bp: int | None = None, ports: Mapping[str, list[int]] | None = None) -> dict[str, Any]:
        """The plan of this profile with the generation in force."""
        return profiles.plan(self.profile, self.generation, ports or self.ports(), canary_bp)

    async def put(self, canary_bp: int | None = None, ports: Mapping[str, list[int]] | None = None) -> None:
        """Give the proxy another plan, and wait until it serves by it."""
        self.generation += 1
        status, body = await self.ask("PUT", "/plan", json.dumps(self.plan(canary_bp, ports)).encode())
        if status != 200:
            raise StandError(f"the plan is refused: {status} {body!r}")

    # --- what it tells

    async def ask(self, method: str, path: str, body: bytes = b"", port: int = 0) -> tuple[int, bytes]:
        """One request to the admin API, or to another port."""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Authorization: Bearer {self.token}\r\nContent-Type: application/json\r\nIf-Match: *\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        async with asyncio.timeout(ASK_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", port or self.admin_port)
            try:
                writer.write(head.encode() + body)
                answer = await reader.read()
            finally:
                writer.close()
        first, _, content = answer.partition(b"\r\n\r\n")
        words = first.split()
        return (int(words[1]) if len(words) > 1 else 0), content

    async def state(self) -> Any:
        """``GET /state``."""
        return json.loads((await self.ask("GET", "/state"))[1])

    async def _turn(self) -> None:
        """Let the worker finish what it does: an answer can be here before its request is counted."""
        async with asyncio.timeout(ASK_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(PING)
                await reader.readuntil(b"\r\n\r\n")
            finally:
                writer.close()

    async def metrics(self) -> Samples:
        """Every sample by name and labels, once the worker has counted what it has answered."""
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            await self._turn()
        _, text = await self.ask("GET", "/metrics", port=self.metrics_port)
        return samples(text.decode())

    @property
    def log(self) -> str:
        """All of the proxy's own log."""
        with contextlib.suppress(OSError):
            return (self.folder / "log").read_text(errors="replace")
        return ""

    def new_log(self) -> str:
        """What was logged since the last call."""
        text = self.log
        found, self._log_at = text[self._log_at :], len(text)
        return found

    @property
    def access(self) -> bytes:
        """The access log."""
        return (self.folder / "access").read_bytes()

    @property
    def is_alive(self) -> bool:
        """Supervisor and worker are those that were started."""
        return self.process.returncode is None and Path(f"/proc/{self.pid}").exists()

    @property
    def descriptors(self) -> int:
        """Open files of the worker."""
        with contextlib.suppress(OSError):
            return len(os.listdir(f"/proc/{self.pid}/fd"))
        return 0


def samples(text: str) -> Samples:
    """What an exposition says. A tenth of the time of prometheus-client's own parser, which is asked twice a case."""
    lines = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
    return {_series(series): float(value) for series, _, value in lines}


@lru_cache(65_536)
def _series(text: str) -> tuple[str, frozenset[tuple[str, str]]]:
    name, _, labels = text.partition("{")
    return name, frozenset((label, _ESCAPE.sub(_plain, value)) for label, value in _LABEL.findall(labels))


def _plain(escape: re.Match[str]) -> str:
    return "\n" if escape[1] == "n" else escape[1]


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of all samples of a name that have these labels."""
    wanted = frozenset(labels.items())
    return sum(value for (own, has), value in samples.items() if own == name and wanted <= has)


_STARTING: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


@contextlib.asynccontextmanager
async def stand(
    profile: str, limits: Mapping[str, int], response_head_ms: int = 1_000, personality: str = ""
) -> AsyncIterator[Stand]:
    """A running proxy; ended when the block is left."""
    with tempfile.TemporaryDirectory(prefix="wire-") as folder:
        running = Stand(profile, limits, response_head_ms, Path(folder))
        try:
            async with _STARTING.setdefault(
                asyncio.get_running_loop(), asyncio.Semaphore(2)
            ):  # one after the other: each is a second of processor time
                await running.start(personality)
            yield running
        finally:
            await running.stop()


def _free_port() -> int:
    """A port below those that the system itself gives to connections: one of these might be gone a moment later."""
    while True:
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", random.randrange(10_000, 32_000)))
            return int(probe.getsockname()[1])


def _project() -> Path:
    return Path(__file__).resolve().parents[2]
