"""A whole proxy as a process of its own, its admin API, and what can be done to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

from proxy.plan import Plan

PROGRAM = (sys.executable, "-c", "from proxy.net.cli import command; command()")
PATIENCE_S = 30.0  # for what takes a second on an idle machine
JSON = {"Content-Type": "application/json"}


class Answer:
    """One answer: status, header fields by lower-case name, body."""

    def __init__(self, data: bytes) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split()[1])
        self.fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def exchange(streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], data: bytes) -> bytes:
    """Send bytes and return all that comes until the other side closes."""
    reader, writer = streams
    try:
        async with asyncio.timeout(PATIENCE_S):
            writer.write(data)
            return await reader.read()
    finally:
        writer.close()


def request(method: str, path: str, body: Any = None, fields: dict[str, str] | None = None) -> bytes:
    """A request whose answer ends with the connection; a body that is not bytes goes as JSON."""
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    typed = JSON if method in ("PUT", "POST") else {}
    lines = {"Host": "localhost", "Connection": "close", "Content-Length": str(len(content))} | typed | (fields or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogateescape") + content


class ProxyProcess:
    """One proxy.

    Attributes:
        process: The supervisor.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        """Start the supervisor and wait for its admin API."""
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *PROGRAM, "--config", str(self.folder / "proxy.yaml"), stdout=log, stderr=log
            )
        await until(self._answers)

    async def _answers(self) -> bool:
        assert self.process.returncode is None, self.log
        with contextlib.suppress(OSError, IndexError):
            return (await self.ask("GET", "/healthz")).status == 200
        return False

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    async def ask(self, method: str, path: str, body: Any = None, fields: dict[str, str] | None = None) -> Answer:
        """One request to the admin API."""
        streams = await asyncio.open_unix_connection(self.folder / "admin.sock")
        return Answer(await exchange(streams, request(method, path, body, fields)))

    async def state(self) -> Any:
        return (await self.ask("GET", "/state")).json

    async def put(self, plan: Plan, if_match: str = "*") -> Answer:
        document = plan.model_dump(mode="json", by_alias=True)
        return await self.ask("PUT", "/plan", document, {"If-Match": if_match})

    async def abort(self, **body: str) -> Answer:
        return await self.ask("POST", "/abort", {"by": "anna"} | body)

    async def get(self, path: str = "/", user: str = "1") -> Answer:
        """One request of a client."""
        port = int((await self.state())["listeners"][0].rpartition(":")[2])
        fields = {"Cookie": f"uid={user}", "X-Cohort-Explain": "1"}
        return Answer(
            await exchange(await asyncio.open_connection("127.0.0.1", port), request("GET", path, None, fields))
        )

    async def metric(self, name: str) -> dict[str, float]:
        """Samples of one metric by their labels, as the metrics port has them."""
        port = int((await self.state())["metrics"][0].rpartition(":")[2])
        streams = await asyncio.open_connection("127.0.0.1", port)
        text = Answer(await exchange(streams, request("GET", "/metrics"))).body.decode()
        lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return {labels.removeprefix(name): float(value) for labels, _, value in lines}

    async def until_ready(self) -> Any:
        async def ready() -> Any:
            state = await self.state()
            return state if state["ready"] and all(worker["plan"] for worker in state["workers"]) else None

        return await until(ready)

    async def stop(self) -> int:
        """End it in order, whatever state it is in; returns the exit status."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()

    async def kill(self) -> None:
        """End the supervisor by SIGKILL, and wait until its workers have noticed."""
        workers = [worker["pid"] for worker in (await self.state())["workers"]]
        self.process.kill()
        await self.process.wait()

        async def gone() -> bool:
            return not any(Path(f"/proc/{pid}").exists() for pid in workers)

        await until(gone)


async def until(look: Callable[[], Any]) -> Any:
    """Wait until a coroutine function returns something true, and return that."""
    async with asyncio.timeout(PATIENCE_S):
        while not (found := await look()):
            await asyncio.sleep(0.05)
        return found


def settings(folder: Path, **changes: Any) -> None:
    """Write settings for a proxy on free ports that leaves at once."""
    document: dict[str, Any] = {
        "listeners": [{"address": "127.0.0.1:0"}],
        "metrics": {"listen": "127.0.0.1:0"},
        "planFile": "plan.yaml",
        "timeouts": {"lameDuck": "0s", "drain": "5s"},
    }
    (folder / "proxy.yaml").write_text(json.dumps(document | changes))


def write_plan(folder: Path, plan: Plan | str) -> None:
    """Put a plan file in place, whole."""
    text = plan if isinstance(plan, str) else plan.model_dump_json(by_alias=True)
    draft = folder / "plan.draft"
    draft.write_text(text)
    os.rename(draft, folder / "plan.yaml")


@contextlib.asynccontextmanager
async def proxy_process(folder: Path, plan: Plan | None = None, **changes: Any) -> AsyncIterator[ProxyProcess]:
    """A running proxy; ended in order when the block is left, and by SIGKILL if that does not help."""
    settings(folder, **changes)
    if plan is not None:
        write_plan(folder, plan)
    proxy = ProxyProcess(folder)
    await proxy.start()
    try:
        yield proxy
        assert await proxy.stop() in (0, -signal.SIGKILL), proxy.log
    finally:
        if proxy.process.returncode is None:
            proxy.process.kill()
            await proxy.process.wait()
