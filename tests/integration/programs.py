"""Proxies, controllers and a service, each a real process or a real socket, in a folder of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import yaml

COHORT = str(Path(sys.executable).parent / "cohort")
START_S = 30.0
UID = "11111111-2222-3333-4444-555555555555"


async def until(condition: Any, seconds: float = START_S, every: float = 0.05) -> Any:
    """Wait until an async condition returns something true; what the program is not ready for counts as false."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            if found := await condition():
                return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {condition}")
        await asyncio.sleep(every)


class Program:
    """One command that runs in a folder, with its output kept there."""

    def __init__(self, folder: Path, *arguments: str, prefix: Sequence[str] = ()) -> None:
        self.folder = folder
        self._arguments = (*prefix, COHORT, *arguments)
        self.environment: dict[str, str] | None = None
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with open(self.folder / "output.log", "ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self._arguments,
                cwd=self.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
            )

    async def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(30):
            status = await self.process.wait()
        self.process = None
        return status

    @property
    def log(self) -> str:
        return (self.folder / "output.log").read_text(errors="replace")


class RealProxy:
    """A ``cohort proxy`` with two workers.

    Attributes:
        port: Of the traffic listener, chosen by the kernel at the first start and kept.

    Args:
        prefix: What to execute it through: ``prlimit --nofile=256``, ``env NAME=VALUE``.
        listener: What else is said of the traffic listener.
    """

    def __init__(
        self,
        folder: Path,
        workers: int = 2,
        keys: Path | None = None,
        prefix: Sequence[str] = (),
        listener: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = 0
        self._listener = listener or {}
        self._settings = {
            "kind": "ProxySettings",
            "workers": workers,
            "keysDir": str(keys or folder / "keys"),
            "metrics": {"listen": "127.0.0.1:0"},
            "log": {"access": "off", "level": "info"},
            "timeouts": {"lameDuck": "0s", "drain": "2s"},
        } | settings
        self.program = Program(folder, "proxy", "--config", "proxy.yaml", prefix=prefix)
        self._session: aiohttp.ClientSession | None = None

    @property
    def address(self) -> str:
        """Of the admin API."""
        return f"unix:{self.folder / 'admin.sock'}"

    async def start(self) -> None:
        listeners = {"listeners": [{"address": f"127.0.0.1:{self.port}"} | self._listener]}
        (self.folder / "proxy.yaml").write_text(yaml.safe_dump(self._settings | listeners))
        await self.program.start()
        path = str(self.folder / "admin.sock")
        self._session = aiohttp.ClientSession("http://localhost", connector=aiohttp.UnixConnector(path))
        state = await until(self.all_workers)
        self.port = int(state["listeners"][0].rpartition(":")[2])

    async def all_workers(self) -> Any:
        """The state, once every worker beats and, if there is a plan, runs it."""
        state = await self.state()
        is_up = all(worker["pid"] and (worker["plan"] or not state["plan"]) for worker in state["workers"])
        return state if is_up and (state["ready"] or not state["plan"]) else None

    async def stop(self, number: int = signal.SIGTERM) -> int:
        if self._session is not None:
            await self._session.close()
        return await self.program.stop(number)

    async def start_afresh(self) -> None:
        """Start it again without any plan."""
        await self.stop()
        for path in (self.folder / "state").iterdir():
            path.unlink()
        await self.start()

    async def get(self, path: str) -> Any:
        assert self._session is not None
        async with self._session.get(path) as response:
            return await response.json()

    async def state(self) -> Any:
        return await self.get("/state")

    async def put_plan(self, plan: dict[str, Any], if_match: str = "*") -> tuple[int, Any]:
        assert self._session is not None
        async with self._session.put("/plan", json=plan, headers={"If-Match": if_match}) as response:
            return response.status, await response.json()

    async def abort(self) -> Any:
        assert self._session is not None
        async with self._session.post("/abort", json={"by": "test"}) as response:
            assert response.status == 200
            return await response.json()

    async def memory_kb(self) -> int:
        """Resident memory of all workers."""
        total = 0
        for worker in (await self.state())["workers"]:
            status = Path(f"/proc/{worker['pid']}/status").read_text()
            total += int(status.split("VmRSS:")[1].split()[0])
        return total

    async def kill_worker(self, slot: int) -> None:
        """SIGKILL one worker and wait for the next one of its slot."""
        before = (await self.state())["workers"][slot]
        os.kill(before["pid"], signal.SIGKILL)

        async def replaced() -> bool:
            state = await self.all_workers()
            return bool(state) and state["workers"][slot]["pid"] not in (None, before["pid"])

        await until(replaced)


class RealController:
    """A ``cohort controller`` for some proxies, with one rollout document."""

    def __init__(self, folder: Path, port: int, proxies: Sequence[RealProxy], keys: Path, documents: list[Any]) -> None:
        (folder / "rollouts").mkdir(parents=True)
        settings = {
            "kind": "ControllerSettings",
            "rollouts": "rollouts",
            "state": "controller.db",
            "proxies": [{"address": proxy.address} for proxy in proxies],
            "keysDir": str(keys),
            "api": {"listen": f"127.0.0.1:{port}"},
        }
        (folder / "controller.yaml").write_text(yaml.safe_dump(settings))
        for document in documents:
            path = folder / "rollouts" / f"{document['kind'].lower()}-{document['metadata']['name']}.yaml"
            path.write_text(yaml.safe_dump(document))
        self.url = f"http://127.0.0.1:{port}"
        self.program = Program(folder, "controller", "--config", "controller.yaml")

    async def start(self) -> None:
        await self.program.start()
        await until(self.rollout)

    async def rollout(self, name: str = "shop/checkout") -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/api/v1/rollouts/{name}") as response,
        ):
            return await response.json() if response.status == 200 else None

    async def act(self, verb: str, name: str = "shop/checkout", **fields: Any) -> tuple[int, Any]:
        body = {"verb": verb, "by": "test"} | fields
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{self.url}/api/v1/rollouts/{name}/actions", json=body) as response,
        ):
            return response.status, await response.json()

    async def wait_for(self, seconds: float = 60, **status: Any) -> Any:
        """Wait until the status has these values; a dotted name goes deeper."""

        async def holds() -> Any:
            found = (await self.rollout() or {}).get("status", {})
            for name, wanted in status.items():
                value: Any = found
                for part in name.split("__"):
                    value = (value or {}).get(part)
                if value != wanted:
                    return None
            return found

        return await until(holds, seconds)


def plan(stable: int, canary: int, canary_bp: int, generation: int = 1, **changes: Any) -> dict[str, Any]:
    """A plan over two loopback ports, users known by the cookie ``uid``."""
    return {
        "rollout": {"namespace": "shop", "name": "checkout", "uid": UID},
        "generation": generation,
        "revision": "v2",
        "salt": "5a" * 32,
        "arms": [
            {
                "name": name,
                "revision": revision,
                "weightBp": weight,
                "endpoints": [{"address": "127.0.0.1", "port": port}],
            }
            for name, revision, weight, port in (
                ("stable", "v1", 10_000 - canary_bp, stable),
                ("canary", "v2", canary_bp, canary),
            )
        ],
        "users": [{"cookie": {"name": "uid"}}],
    } | changes


class _Answering(asyncio.Protocol):
    """Answers every request without a body by the service's name and the user that it was told."""

    def __init__(self, owner: Backend) -> None:
        self._owner = owner
        self._pending = b""
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._owner.transports.add(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.transports.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        self._pending += data
        while (end := self._pending.find(b"\r\n\r\n")) >= 0:
            self._pending = self._pending[end + 4 :]
            self._owner.last_start = time.monotonic()
            self._owner.requests += 1
            self._transport.write(self._owner.answer)


class Backend:
    """A service in this process.

    Attributes:
        last_start: Monotonic seconds of the last request that came.
    """

    def __init__(self, name: str) -> None:
        body = name.encode()
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Up: %b\r\n\r\n%b" % (len(body), body, body)
        self.last_start = 0.0
        self.requests = 0
        self.transports: set[Any] = set()


@contextlib.asynccontextmanager
async def backend(name: str) -> AsyncIterator[tuple[Backend, int]]:
    found = Backend(name)
    server = await asyncio.get_running_loop().create_server(lambda: _Answering(found), "127.0.0.1", 0)
    try:
        yield found, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for transport in list(found.transports):
            transport.abort()


class Answer:
    """One answer to one user: status, fields by lower-case name, body."""

    __slots__ = ("body", "fields", "status")

    def __init__(self, head: bytes, body: bytes) -> None:
        first, *lines = head.rstrip(b"\r\n").decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.body = body

    @property
    def arm(self) -> str:
        return self.fields["x-cohort-arm"]

    @property
    def generation(self) -> int:
        return int(self.fields["x-cohort-generation"])


class Client:
    """A kept connection that asks for one user after another and wants every decision explained."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def ask(self, cookie: str, path: str = "/") -> Answer:
        """One GET; an answer that is cut short raises."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        assert self._reader is not None
        line = f"Cookie: {cookie}\r\n" if cookie else ""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: shop\r\nX-Cohort-Explain: 1\r\n{line}\r\n".encode())
        async with asyncio.timeout(20):
            head = await self._reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            answer = Answer(head, await self._reader.readexactly(length))
        if answer.fields.get("connection") == "close":
            self.close()
        return answer

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None


def counted(stats: Any, arm: str) -> int:
    """Requests that an arm has answered, whatever decided."""
    return sum(numbers["requests"] for numbers in stats["arms"].get(arm, {"sources": {}})["sources"].values())
