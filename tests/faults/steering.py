"""Faults of a real controller: cut off from its proxies, and killed at every boundary of a step. F13, F15."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp

from tests.faults.run import Fault, Run
from tests.integration.programs import RealController, RealProxy

BOUNDARIES = ("before the write", "after the write", "before the status", "after the acknowledgement")
LIMIT_BYTES = 1 << 20


def rollout(weights: Sequence[str], pause: str, stable: str, canary: str) -> dict[str, Any]:
    """A rollout by these weights, with a pause after each and an endless one at the end."""
    steps: list[dict[str, Any]] = []
    for weight in weights:
        steps += [{"setWeight": weight}, {"pause": {"duration": pause}}]
    steps[-1] = {"pause": {}}
    return {
        "apiVersion": "cohort.dev/v1alpha1",
        "kind": "CanaryRollout",
        "metadata": {"name": "checkout", "namespace": "shop"},
        "spec": {
            "stable": {"addresses": [stable], "revision": "v1"},
            "canary": {"addresses": [canary], "revision": "v2"},
            "users": [{"cookie": {"name": "uid"}}],
            "strategy": {"canary": {"steps": steps}},
        },
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Tap:
    """Stands between a controller and a proxy's admin API, and acts at the boundaries of one plan's way.

    Args:
        cut: Called with the boundary's name when it is reached; what it does, it does before the next byte passes.
    """

    def __init__(self, path: Path, to: Path, cut: Callable[[str], None]) -> None:
        self.address = f"unix:{path}"
        self._path = path
        self._to = to
        self._cut = cut
        self._open: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._serve, self._path, limit=LIMIT_BYTES)
        try:
            yield
        finally:
            server.close()
            for writer in self._open:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            there, out = await asyncio.open_unix_connection(self._to, limit=LIMIT_BYTES)
            self._open.add(writer)
            try:
                while data := await reader.read(LIMIT_BYTES):
                    is_plan = data.startswith(b"PUT /plan")
                    if is_plan:
                        self._cut(BOUNDARIES[0])
                    out.write(data)
                    if b"\r\n\r\n" in data and not await _is_whole(data, reader, out):
                        return
                    answer = await _message(there)
                    if is_plan:
                        self._cut(BOUNDARIES[1])
                    writer.write(answer)
                    await writer.drain()
                    if is_plan:
                        self._cut(BOUNDARIES[2])
                        await asyncio.sleep(0.03)
                        self._cut(BOUNDARIES[3])
            finally:
                self._open.discard(writer)
                out.close()
                writer.close()


async def _is_whole(data: bytes, reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> bool:
    """Pass on the rest of a request whose head is in ``data``."""
    head, _, body = data.partition(b"\r\n\r\n")
    left = _length(head) - len(body)
    if left > 0:
        out.write(await reader.readexactly(left))
    return left <= 0 or not out.is_closing()


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    return head + await reader.readexactly(_length(head))


def _length(head: bytes) -> int:
    lines = head.lower().split(b"\r\n")
    return next((int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")), 0)


class Trace:
    """Weights that each proxy has served for the revision on trial, in order, repeats left out."""

    def __init__(self, proxies: Sequence[RealProxy]) -> None:
        self.proxies = proxies
        self.seen: list[list[int]] = [[] for _ in proxies]

    async def watch(self) -> None:
        while True:
            for seen, proxy in zip(self.seen, self.proxies, strict=True):
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    plan = await proxy.get("/plan")
                    weight = plan["arms"][1]["weightBp"] if plan.get("revision") else 0
                    seen += [weight] if not seen or seen[-1] != weight else []
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def _watching(trace: Trace) -> AsyncIterator[None]:
    task = asyncio.create_task(trace.watch())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def controller_killed(run: Run) -> None:
    """F15: at each boundary of plans on their way to the first proxy, then at random times."""
    at_boundaries, at_random = (4, 2) if run.scale.is_short else (40, 200)
    weights = [str(number) for number in range(1, 7 if run.scale.is_short else 51)]  # a rollout has at most 100 steps
    killed: list[str] = []
    armed = asyncio.Event()
    controller: RealController

    def cut(boundary: str) -> None:
        if armed.is_set() and len(killed) < at_boundaries and boundary == BOUNDARIES[len(killed) % len(BOUNDARIES)]:
            process = controller.program.process
            if process is not None and process.returncode is None:
                killed.append(boundary)
                os.kill(process.pid, signal.SIGKILL)

    async with run.stand(stable=1, proxies=2, workers=1) as stand:
        for proxy in stand.proxies:  # without the plan of the stand's own
            await proxy.start_afresh()
        document = rollout(weights, "500ms" if run.scale.is_short else "6s", *_addresses(stand))
        taps = [
            Tap(run.folder / f"tap-{number}", proxy.folder / "admin.sock", cut if not number else lambda _: None)
            for number, proxy in enumerate(stand.proxies)
        ]
        controller = RealController(run.folder / "controller", free_port(), taps, stand.keys, [document])  # type: ignore[arg-type]
        trace = Trace(stand.proxies)
        async with taps[0].open(), taps[1].open(), _watching(trace):
            try:
                await controller.start()
                await controller.wait_for(plan__current=2)
                armed.set()
                async with stand.load() as load:
                    await _revive(controller, lambda: len(killed) < at_boundaries)
                    await _kill_at_random(controller, at_random, 0.8 if run.scale.is_short else 1.5)
                    await controller.wait_for(phase="Paused", seconds=400)
            finally:
                if controller.program.process is not None:
                    await controller.program.stop(signal.SIGKILL)
        run.no_loss(load.rows)
        wanted = [int(float(weight) * 100) for weight in weights]
        run.check.exactly("kills at boundaries", len(killed), at_boundaries)
        run.check.says("kills at random times", at_random)
        for number, seen in enumerate(trace.seen):
            weights_seen = [weight for weight in seen if weight]
            run.check.true(f"proxy {number}: the uninterrupted trace of {len(wanted)} weights", weights_seen == wanted)
            if weights_seen != wanted:
                run.check.note(f"proxy {number}: {weights_seen} for {wanted}; {controller.program.log[-2000:]}")


async def _kill_at_random(controller: RealController, times: int, within_s: float) -> None:
    rng = random.Random(15)
    for _ in range(times):
        await asyncio.sleep(rng.uniform(0.05, within_s))
        await controller.program.stop(signal.SIGKILL)
        await controller.start()


def _addresses(stand: Any) -> tuple[str, str]:
    return f"127.0.0.1:{stand.stable[0].port}", f"127.0.0.1:{stand.canary[0].port}"


async def _revive(controller: RealController, goes_on: Callable[[], bool]) -> None:
    """Start it again whenever it was killed, until it lives on."""
    while goes_on() or not await _lives(controller):
        process = controller.program.process
        if process is not None and process.returncode is not None:
            controller.program.process = None
            await controller.program.start()
        await asyncio.sleep(0.02)


async def _lives(controller: RealController) -> bool:
    with contextlib.suppress(aiohttp.ClientError, OSError):
        return bool(await controller.rollout())
    return False


async def partitioned(run: Run) -> None:
    """F13: the admin sockets of both proxies are out of the controller's reach."""
    check = run.check
    seconds = run.scale.pick(101, 2)
    async with run.stand(stable=1, proxies=2, workers=1) as stand:
        for proxy in stand.proxies:
            await proxy.start_afresh()
        # The controller's way, which can be cut while ours stays.
        ways = [Tap(run.folder / f"way-{number}", proxy.folder / "admin.sock", lambda _: None)
                for number, proxy in enumerate(stand.proxies)]  # fmt: skip
        document = rollout(["30", "60"], f"{seconds / 2:g}s", *_addresses(stand))
        controller = RealController(run.folder / "controller", free_port(), ways, stand.keys, [document])  # type: ignore[arg-type]
        trace = Trace(stand.proxies)
        try:
            async with ways[0].open(), ways[1].open():
                await controller.start()
                await controller.wait_for(weight__programmed="30.00", plan__current=2)
            async with stand.load() as load:
                async with _watching(trace):
                    cut = time.monotonic()
                    told = await controller.wait_for(phase="Holding", seconds=30)
                    told_s = time.monotonic() - cut
                    await asyncio.sleep(max(0.0, seconds - told_s))
                    ages = [await stand.metric("cohort_plan_age_seconds", proxy) for proxy in stand.proxies]
                async with ways[0].open(), ways[1].open():
                    await controller.wait_for(weight__programmed="60.00")
        finally:
            if controller.program.process is not None:
                await controller.program.stop(signal.SIGKILL)
        run.no_loss(load.rows)
        check.true("weights constant", all(seen == [3000] for seen in trace.seen))
        check.at_least("cohort_plan_age_seconds", min(ages), seconds * 0.8, "s")
        check.exactly("the controller says", told["verdict"]["reason"], "ProxyUnreachable")
        check.at_most("after", told_s, 20, "s")
        check.true("goes on when they are back", holds=True)


FAULTS = {
    "F13": Fault(
        "controller cut off from its proxies",
        "weights constant, the plan's age grows and the controller tells it; 0 lost",
        partitioned,
    ),
    "F15": Fault(
        "controller SIGKILL at every boundary of a step and at random times",
        "the weights are those of an uninterrupted rollout, none skipped or repeated; 0 lost",
        controller_killed,
    ),
}
