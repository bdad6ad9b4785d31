"""Everything that the demo runs: two versions of the shop, proxy, controller, its own server and the users."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from demo import console, documents
from demo.app import VERSION_HEADER, Behaviour, as_json
from demo.console import COLOURS, QUALITIES, App, Console, Refused
from demo.processes import Child, ChildError, start
from demo.steering import Steering

T = TypeVar("T")

DEFAULT_PORTS = documents.Ports(traffic=8080, metrics=8082, controller=8090, console=8088)
READY_S = 20.0  # a bare machine compiles every module at its first start
WORKERS = 2  # so that the demo shows what it promises: two processes, one version a user
ARRIVAL_S = 2.0  # all users are there
LEAVE_PERCENT = 2.0  # users come and go: about two in a hundred journeys are somebody's last
MAX_SOCKET_PATH = 90  # bytes of AF_UNIX's 108 that the folder may take


@dataclass(frozen=True, slots=True)
class Wish:
    """What kind of demo is wanted.

    Attributes:
        quality: Of the version on trial, one of `console.QUALITIES`.
        ports: None: any that are free; else these, and any where one is taken.
        log_folder: Where the processes' output stays; None: it is thrown away.
        seed: Makes the users' behaviour and the shop's errors repeatable.
    """

    users: int
    quality: str
    ports: documents.Ports | None
    log_folder: Path | None
    seed: int


@dataclass(slots=True)
class Stack:
    """The running demo."""

    console: Console
    steering: Steering
    ports: documents.Ports
    children: list[Child] = field(default_factory=list)
    load: Child | None = None

    @property
    def addresses(self) -> dict[str, str]:
        """What people may open, by what it is."""
        ports = self.ports
        return {
            "page": f"http://127.0.0.1:{ports.traffic}/demo/",
            "shop": f"http://127.0.0.1:{ports.traffic}/",
            "metrics": f"http://127.0.0.1:{ports.metrics}/metrics",
            "controller": f"http://127.0.0.1:{ports.controller}",
            "demo server": f"http://127.0.0.1:{ports.console}/",
        }

    async def attend(self, work: Coroutine[Any, Any, T]) -> T:
        """The work's result, unless a child ends by itself before.

        Raises:
            ChildError: One did.
        """
        children = [*self.children, *([self.load] if self.load else [])]
        deaths = {asyncio.ensure_future(child.process.wait()): child for child in children}
        main = asyncio.ensure_future(work)
        try:
            await asyncio.wait((main, *deaths), return_when=asyncio.FIRST_COMPLETED)
            if main.done():
                return main.result()
            child = next(child for death, child in deaths.items() if death.done())
            raise child.failure(f"ended by itself with {child.process.returncode}")
        finally:
            for task in (main, *deaths):
                task.cancel()
            await asyncio.gather(main, *deaths, return_exceptions=True)

    async def stop_load(self) -> dict[str, Any]:
        """End the users and return what they saw, as ``cohort loadtest -o json`` tells it.

        Raises:
            ChildError: They told nothing.
        """
        assert self.load is not None  # the demo always has users
        load, self.load = self.load, None
        await load.stop(signal.SIGINT, grace_s=20)
        try:
            return dict(json.loads(load.output.read_text()))
        except ValueError:
            raise load.failure("gave no summary") from None


@asynccontextmanager
async def running(wish: Wish) -> AsyncIterator[Stack]:
    """Start everything, and stop everything at the end, in the order in which nothing is lost.

    Raises:
        ChildError: Something did not start.
    """
    async with AsyncExitStack() as exits:
        folder = _folder(exits)
        logs = folder / "logs"
        logs.mkdir()
        if wish.log_folder:
            exits.callback(shutil.copytree, logs, wish.log_folder, dirs_exist_ok=True)
        session = await exits.enter_async_context(aiohttp.ClientSession())
        ports = choose_ports(wish.ports)
        secret = secrets.token_urlsafe(16)
        children: list[Child] = []
        apps = [await _app(exits, children, session, logs, number, wish, ports) for number in (1, 2)]
        documents.write(folder, ports, WORKERS, apps[0].port)
        steering = Steering(session, f"http://127.0.0.1:{ports.controller}", documents.NAMESPACE, documents.NAME)
        stack = Stack(Console(apps, steering, secret), steering, ports, children)
        stack.console.links = stack.addresses
        await exits.enter_async_context(_serving(stack))
        for name in ("proxy", "controller"):
            await _child(exits, children, name, _cohort(name, "--config", f"{name}.yaml"), logs)
        await _ready(stack, session)
        await exits.enter_async_context(_following(steering))
        await _until(stack, lambda: _is_healthy(steering), "the controller to adopt v1")
        stack.load = await start("loadtest", _load(wish, ports, secret, folder), logs)
        exits.push_async_callback(_stop_load, stack)
        yield stack


def choose_ports(wanted: documents.Ports | None) -> documents.Ports:
    """The ports wanted, with a free one in the place of each that is taken; None: free ones."""
    held: list[socket.socket] = []
    try:
        return documents.Ports(
            *(
                _port(held, getattr(wanted, name) if wanted else 0)
                for name in ("traffic", "metrics", "controller", "console")
            )
        )
    finally:
        for probe in held:
            probe.close()


def _port(held: list[socket.socket], wanted: int) -> int:
    probe = socket.socket()
    held.append(probe)
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", wanted))
        probe.listen()
    except OSError:
        return _port(held, 0)
    return int(probe.getsockname()[1])


def _folder(exits: AsyncExitStack) -> Path:
    folder = tempfile.mkdtemp(prefix="cohort-demo-")
    if len(folder) > MAX_SOCKET_PATH:
        shutil.rmtree(folder)
        folder = tempfile.mkdtemp(prefix="cohort-demo-", dir="/tmp")  # mkdtemp makes it private
    exits.callback(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _cohort(*arguments: str) -> list[str]:
    """The very command that people type; by this interpreter, because nothing says that the script is on the path."""
    return [sys.executable, "-P", "-c", "from controller.cli import main; raise SystemExit(main())", *arguments]


def _load(wish: Wish, ports: documents.Ports, secret: str, folder: Path) -> list[str]:
    """The users' command. They are not marked as synthetic: here they play those by whom a version is judged."""
    mean_s = wish.users / documents.REQUESTS_A_SECOND
    think = f"{mean_s * 500:.0f}ms..{mean_s * 1500:.0f}ms"
    options = {
        "--target": f"http://127.0.0.1:{ports.traffic}",
        "--users": str(wish.users),
        "--spawn-rate": f"{max(wish.users / ARRIVAL_S, 1):g}",
        "--think": think,
        "--leave": str(LEAVE_PERCENT),
        "--version-header": VERSION_HEADER,
        "--plans": str(folder / "state/plan.json"),  # the proxy's last good plan
        "--report": f"http://127.0.0.1:{ports.console}/report/{secret}",
        "--seed": str(wish.seed),
        "--output": "json",
    }
    return _cohort("loadtest", *(word for option in options.items() for word in option))


async def _child(
    exits: AsyncExitStack, children: list[Child], name: str, argv: list[str], logs: Path, **more: Any
) -> Child:
    child = await start(name, argv, logs, **more)
    children.append(child)
    exits.push_async_callback(child.stop)
    return child


async def _app(
    exits: AsyncExitStack,
    children: list[Child],
    session: aiohttp.ClientSession,
    logs: Path,
    number: int,
    wish: Wish,
    ports: documents.Ports,
) -> App:
    """Start one instance of the shop; the first is stable, the second the next version."""
    quality = wish.quality if number == 2 else "good"
    behaviour = Behaviour(f"v{number}", COLOURS[number - 1], QUALITIES[quality])
    env = {
        "DEMO_VERSION": behaviour.version,
        "DEMO_COLOUR": behaviour.colour,
        "DEMO_ERROR_PERCENT": f"{behaviour.error_percent:g}",
        "DEMO_LATENCY_MS": f"{behaviour.latency_ms:g}",
        "DEMO_SEED": str(wish.seed + number),
        "DEMO_CONSOLE": f"http://127.0.0.1:{ports.console}",
    }
    argv = [sys.executable, "-P", "-m", "demo.app"]
    child = await _child(exits, children, f"app{number}", argv, logs, env=env, read_output=True)
    port = await _first_number(child)
    return App(port, as_json(behaviour), _teller(session, port))


async def _first_number(child: Child) -> int:
    process: Process = child.process
    assert process.stdout is not None  # its output is read
    try:
        async with asyncio.timeout(READY_S):
            return int(await process.stdout.readline())
    except (TimeoutError, ValueError):
        raise child.failure("did not start") from None


def _teller(session: aiohttp.ClientSession, port: int) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
    async def tell(values: dict[str, Any]) -> dict[str, Any]:
        try:
            async with session.post(f"http://127.0.0.1:{port}/behaviour", json=values) as response:
                answer = dict(await response.json())
        except (aiohttp.ClientError, ValueError) as error:
            raise Refused(f"the shop does not answer: {error}") from None
        if response.status != 200:
            raise Refused(str(answer.get("error")))
        return answer

    return tell


@asynccontextmanager
async def _serving(stack: Stack) -> AsyncIterator[None]:
    runner = await console.serve(stack.console, stack.ports.console)
    try:
        yield
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _following(steering: Steering) -> AsyncIterator[None]:
    """Follow the rollout meanwhile; no task group, which would wrap the errors of whatever runs meanwhile."""
    task = asyncio.ensure_future(steering.follow())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _ready(stack: Stack, session: aiohttp.ClientSession) -> None:
    """Wait until the proxy serves a plan, which the controller has given it."""

    async def is_ready() -> bool:
        try:
            async with session.get(f"http://127.0.0.1:{stack.ports.metrics}/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    await _until(stack, is_ready, "the proxy to be ready")


async def _is_healthy(steering: Steering) -> bool:
    return bool(steering.document.get("status", {}).get("phase") == "Healthy")


async def _until(stack: Stack, is_so: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait for something.

    Raises:
        ChildError: A child ended, or it took too long.
    """
    deadline = time.monotonic() + READY_S
    while not await is_so():
        for child in stack.children:
            if child.process.returncode is not None:
                raise child.failure(f"ended with {child.process.returncode}")
        if time.monotonic() > deadline:
            said = "\n".join(f"{child.name}: {child.said()}" for child in stack.children)
            raise ChildError(f"waited {READY_S:g} s in vain for {what}\n{said}")
        await asyncio.sleep(0.05)


async def _stop_load(stack: Stack) -> None:
    if stack.load:
        await stack.load.stop(signal.SIGINT, grace_s=20)
