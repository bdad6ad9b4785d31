"""What faults are injected into: services, proxies and a load, each in processes of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.faults.ledger import Row
from tests.faults.load import Mix, mix_line
from tests.integration.programs import RealProxy, plan

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


class Child:
    """A module of ours that runs as a program and answers each line with a line."""

    def __init__(self, module: str, log: Path, *arguments: str) -> None:
        self._command = (sys.executable, "-m", module, *arguments)
        self._log = log
        self.process: asyncio.subprocess.Process | None = None

    async def start(self, first: bytes = b"") -> None:
        """Start, and wait until it says that it is ready."""
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self._command, cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log
            )
        if first:
            self.tell(first)
        await self.line()

    def tell(self, line: bytes) -> None:
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(line)

    async def line(self) -> Any:
        assert self.process is not None
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            if line := await self.process.stdout.readline():
                return json.loads(line)
        raise RuntimeError(f"{' '.join(self._command[2:])} ended: {self._log.read_text()[-2000:]}")

    async def end(self, number: int = signal.SIGKILL) -> None:
        """End it, whatever state it is in."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        await self.process.communicate()
        self.process = None


class ServiceProcess(Child):
    """One endpoint. Its port stays held by this process, so that it is refused and not reused while it is dead."""

    def __init__(self, name: str, folder: Path, host: str = "127.0.0.1", port: int = 0) -> None:
        self.name = name
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._held.bind((host, port))
        self.port: int = self._held.getsockname()[1]
        self._requests = folder / f"{name}.requests"
        arguments = (name, host, str(self.port), str(self._requests))
        super().__init__("tests.faults.service", folder / "services.log", *arguments)

    async def behave(self, **behaviour: object) -> dict[str, int]:
        """Change what it does from the next answer on; nothing said: no change. Returns its counts."""
        self.tell(json.dumps(behaviour).encode() + b"\n")
        counts: dict[str, int] = await self.line()
        return counts

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def log(self) -> list[list[str]]:
        """What it was sent: time, method, nonce, attempt, connection, target."""
        if not self._requests.exists():
            return []
        return [line.split(" ", 5) for line in self._requests.read_text().splitlines()]

    @property
    def nonces(self) -> list[str]:
        """Of all requests that it was sent, attempts one by one."""
        return [line[2] for line in self.log if line[1] != "CONNECT"]

    @property
    def times(self) -> list[float]:
        """When it got each of them."""
        return [float(line[0]) for line in self.log if line[1] != "CONNECT"]

    @property
    def connects(self) -> list[float]:
        """When connections to it were accepted."""
        return [float(line[0]) for line in self.log if line[1] == "CONNECT"]

    async def close(self) -> None:
        await self.end()
        self._held.close()


class Blackhole:
    """A listener whose queue is full: the kernel drops what else would connect, as a firewall does."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.port: int = self._listener.getsockname()[1]
        self._queued = []
        for _ in range(4):
            sock = socket.socket()
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(("127.0.0.1", self.port))
            self._queued.append(sock)

    def close(self) -> None:
        for sock in (*self._queued, self._listener):
            sock.close()


class Load(Child):
    """The generator.

    Attributes:
        rows: Once it has ended.
    """

    def __init__(self, folder: Path, mix: Mix) -> None:
        self._path = folder / f"rows-{time.monotonic_ns()}"
        self._mix = mix
        self.rows: list[Row] = []
        super().__init__("tests.faults.load", folder / "load.log", str(self._path))

    async def begin(self) -> None:
        await self.start(mix_line(self._mix))

    def change(self, **what: object) -> None:
        """`ports`, `rate` or `paused`, from the next request on."""
        self.tell(json.dumps(what).encode() + b"\n")

    async def finish(self) -> list[Row]:
        """Stop sending, wait for what is under way, and read the rows."""
        assert self.process is not None
        self.change(stop=True)
        async with asyncio.timeout(PATIENCE_S + self._mix.stream_s):
            status = await self.process.wait()
        if status:
            raise RuntimeError(f"the load ended with {status}: {self._log.read_text()[-3000:]}")
        await self.end()
        self.rows = [Row(*json.loads(line)) for line in self._path.read_text().splitlines()]
        self._path.unlink()
        return self.rows


class Stand:
    """Proxies with their services.

    Attributes:
        keys: The keys directory that the proxies share.
        generation: Of the plan put last.
    """

    def __init__(self, folder: Path, mix: Mix, services: Sequence[int], proxies: list[RealProxy], keys: Path) -> None:
        self.folder = folder
        self.keys = keys
        self.proxies = proxies
        self.stable, self.canary = (
            [ServiceProcess(f"{arm}-{number}", folder) for number in range(count)]
            for arm, count in zip(("stable", "canary"), services, strict=True)
        )
        self.generation = 0
        self._mix = mix

    @property
    def proxy(self) -> RealProxy:
        """The first."""
        return self.proxies[0]

    @property
    def services(self) -> list[ServiceProcess]:
        return [*self.stable, *self.canary]

    def plan(self, canary_bp: int = 2500, **changes: Any) -> dict[str, Any]:
        """The next generation's document."""
        self.generation += 1
        made = plan(1, 1, canary_bp, self.generation)
        for arm, services in zip(made["arms"], (self.stable, self.canary), strict=True):
            arm["endpoints"] = [{"address": "127.0.0.1", "port": service.port} for service in services]
        return made | changes

    async def adopt(self, document: dict[str, Any]) -> None:
        """Give a plan to every proxy; returns once all their workers serve it. Asked to come again, it does."""
        for proxy in self.proxies:
            end, status = time.monotonic() + PATIENCE_S, 503
            while status == 503 and time.monotonic() < end:
                status, body = await proxy.put_plan(document)
            assert status == 200, body

    async def start(self) -> None:
        """Start everything at once, with a plan that has a quarter of all users on the canary."""
        async with asyncio.TaskGroup() as tasks:
            for service in self.services:
                tasks.create_task(service.start())
            for proxy in self.proxies:
                tasks.create_task(proxy.start())
        await self.adopt(self.plan())

    async def close(self) -> None:
        for proxy in self.proxies:
            if proxy.program.process is not None:
                with contextlib.suppress(TimeoutError):
                    await proxy.stop()
                await proxy.stop(signal.SIGKILL) if proxy.program.process is not None else None
        for service in self.services:
            await service.close()

    @contextlib.asynccontextmanager
    async def load(self, **changes: Any) -> AsyncIterator[Load]:
        """A load on all proxies from now until the block is left; its rows are there then."""
        mix = Mix(**vars(self._mix) | {"ports": [proxy.port for proxy in self.proxies]} | changes)
        load = Load(self.folder, mix)
        await load.begin()
        try:
            yield load
            await load.finish()
        finally:
            await load.end()

    async def metric(self, name: str, proxy: RealProxy | None = None, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        address = (await (proxy or self.proxy).state())["metrics"][0]
        async with aiohttp.ClientSession() as session, session.get(f"http://{address}/metrics") as response:
            lines = (await response.text()).splitlines()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith((f"{name} ", f"{name}{{")) and all(label in line for label in wanted)
        )

    def posts(self) -> list[str]:
        """Nonces of the POSTs that services were sent, attempts one by one."""
        return [line[2] for service in self.services for line in service.log if line[1] == "POST"]

    async def workers(self) -> list[int]:
        """Process ids of the first proxy's workers."""
        return [worker["pid"] for worker in (await self.proxy.state())["workers"]]


def rss_mib(*pids: int) -> float:
    """Resident memory of processes together, pages of files that they share counted in each."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, IndexError):
            total += int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0])
    return total / 1024


def pss_mib(*pids: int) -> float:
    """The same with a page's share for each of those who share it."""
    lines = (line for pid in pids for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def descriptors(*pids: int) -> int:
    """Open files of processes together."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def threads(*pids: int) -> int:
    """Of processes together."""
    return sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids)


def cpu_s(*pids: int) -> float:
    """CPU seconds of processes so far."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")
