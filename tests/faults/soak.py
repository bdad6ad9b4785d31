"""F33: hours of steady load with faults of services at random; what must stay flat is flat.

``python -m tests.faults.soak [--hours 8]``: prints a line a minute, then slopes; exit status 0 if they hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.ledger import between, p99, short, summary
from tests.faults.names import NAME, TTL_S, named
from tests.faults.run import Run
from tests.faults.stand import Blackhole, ServiceProcess, Stand, descriptors, rss_mib, threads
from tests.support.dns_stub import PROBLEMS, DnsStub

HOURS = 8.0
TROUBLE_S = (5.0, 15.0)
CALM_S = 20.0  # after each: samples are taken at its end, when ejections are over and pools are as usual
SEGMENT_S = 600.0  # a load's rows are looked at and forgotten
WARM_UP = 0.1  # of all samples: allocators, caches and pools reach their size


@dataclass(frozen=True)
class Sample:
    """At the end of a calm."""

    hours: float
    rss_mib: float
    descriptors: int
    tasks: int
    pending: float


class Soak:
    """One soak: a stand whose stable version is a name with two addresses, and troubles by turns of chance."""

    def __init__(self, run: Run, stand: Stand, stub: DnsStub, services: Sequence[ServiceProcess]) -> None:
        self._run = run
        self._stand = stand
        self._stub = stub
        self._services = services
        self._rng = random.Random(33)
        self._began = time.monotonic()
        self.samples: list[Sample] = []
        self.calm_p99: list[float] = []
        self.troubles: dict[str, Callable[[], Awaitable[None]]] = {
            "F01": self._kill,
            "F02": self._stop,
            "F03": self._reset,
            "F04": self._slow,
            "F05": self._blackhole,
            "F06": self._closed,
            "F07": self._move,
            "F08": self._mute,
            "F10": self._empty,
        }

    async def segment(self, seconds: float) -> None:
        """One load, with as many troubles as there is time for."""
        calms: list[tuple[float, float]] = []
        async with self._stand.load(seed=self._rng.randrange(1 << 30)) as load:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                name = self._rng.choice(list(self.troubles))
                await self.troubles[name]()
                await asyncio.sleep(CALM_S / 2)
                calm = time.monotonic()
                await asyncio.sleep(CALM_S / 2)
                calms.append((calm, time.monotonic()))
                await self._sample(name)
        rows = [row for begin, till in calms for row in short(between(load.rows, begin, till))]
        self.calm_p99.append(p99(rows) * 1000)
        print(f"  segment: {summary(load.rows)}; p99 of calm times {self.calm_p99[-1]:.1f} ms", flush=True)

    async def _sample(self, name: str) -> None:
        pids = [self._stand.proxy.program.process.pid, *await self._stand.workers()]  # type: ignore[union-attr]
        pending = await self._stand.metric("cohort_pending_requests")
        hours = (time.monotonic() - self._began) / 3600
        sample = Sample(hours, rss_mib(*pids), descriptors(*pids), threads(*pids), pending)
        self.samples.append(sample)
        print(
            f"{hours * 60:7.1f} min after {name}: RSS {sample.rss_mib:.1f} MiB, {sample.descriptors} descriptors, "
            f"{sample.tasks} threads, {sample.pending:.0f} pending",
            flush=True,
        )

    async def _while(self) -> None:
        await asyncio.sleep(self._rng.uniform(*TROUBLE_S))

    async def _kill(self) -> None:
        await self._services[0].end(signal.SIGKILL)
        await self._while()
        await self._services[0].start()

    async def _stop(self) -> None:
        self._services[0].signal(signal.SIGSTOP)
        await self._while()
        self._services[0].signal(signal.SIGCONT)

    async def _behave(self, **behaviour: object) -> None:
        canary = self._stand.canary[0]
        await canary.behave(**behaviour)
        await self._while()
        await canary.behave(mode="ok")

    async def _reset(self) -> None:
        await self._behave(mode="reset in body", share=0.3)

    async def _slow(self) -> None:
        await self._behave(latency_s=2.0)

    async def _blackhole(self) -> None:
        hole = Blackhole()
        plan = self.plan()
        plan["arms"][1]["endpoints"].append({"address": "127.0.0.1", "port": hole.port})
        await self._stand.adopt(plan)
        await self._while()
        await self._stand.adopt(self.plan())
        hole.close()

    async def _closed(self) -> None:
        await self._stand.canary[0].end(signal.SIGKILL)
        await self._while()
        await self._stand.canary[0].start()

    async def _move(self) -> None:
        self._stub.answer(NAME, "127.0.0.3", ttl=TTL_S)
        await self._while()
        self._stub.answer(NAME, "127.0.0.2", "127.0.0.3", ttl=TTL_S)

    async def _mute(self) -> None:
        self._stub.answer(NAME, problem=self._rng.choice(PROBLEMS), ttl=TTL_S)
        await self._while()
        self._stub.answer(NAME, "127.0.0.2", "127.0.0.3", ttl=TTL_S)

    async def _empty(self) -> None:
        plan = self.plan()
        plan["arms"][1]["endpoints"] = []
        await self._stand.adopt(plan)
        await self._while()
        await self._stand.adopt(self.plan())

    def plan(self) -> dict[str, object]:
        """The next generation, stable by its name."""
        plan = self._stand.plan()
        del plan["arms"][0]["endpoints"]
        plan["arms"][0]["dns"] = {"host": NAME, "port": self._services[0].port}
        return plan

    def judge(self) -> None:
        """The slopes, without the warm-up, and the drift of the calm p99 from the first third to the last."""
        check = self._run.check
        samples = self.samples[int(len(self.samples) * WARM_UP) :]
        hours = [sample.hours for sample in samples]
        check.at_most("RSS slope", slope(hours, [sample.rss_mib for sample in samples]), 1, "MiB/h")
        check.at_most("descriptors' slope", slope(hours, [sample.descriptors for sample in samples]), 1, "/h")
        check.at_most("threads' slope", slope(hours, [sample.tasks for sample in samples]), 0.5, "/h")
        check.at_most("pending in calm times", max(sample.pending for sample in samples), 20)
        third = max(1, len(self.calm_p99) // 3)
        first, last = (sorted(part)[len(part) // 2] for part in (self.calm_p99[:third], self.calm_p99[-third:]))
        check.says("calm p99 at first", first, "ms")
        check.at_most("drift", (last / first - 1) * 100, 10, "%")


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Of the line of least squares through the points; 0 for fewer than two."""
    count = len(x)
    if count < 2 or max(x) == min(x):
        return 0.0
    mean_x, mean_y = sum(x) / count, sum(y) / count
    spread = sum((a - mean_x) ** 2 for a in x)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread


async def soak(hours: float, folder: Path) -> Run:
    """Run one; its figures are in the run's check."""
    run = Run(folder)
    end = time.monotonic() + hours * 3600
    async with named(run) as (stand, stub, services):
        stub.answer(NAME, "127.0.0.2", "127.0.0.3", ttl=TTL_S)
        one = Soak(run, stand, stub, services)
        while (left := end - time.monotonic()) > 0:
            await one.segment(min(SEGMENT_S, left))
        restarts = sum(worker["restarts"] for worker in (await stand.proxy.state())["workers"])
    one.judge()
    run.check.exactly("restarts of workers", restarts)
    return run


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=HOURS)
    hours = parser.parse_args().hours
    with tempfile.TemporaryDirectory(prefix="soak-") as folder, contextlib.suppress(KeyboardInterrupt):
        run = asyncio.run(soak(hours, Path(folder)))
        print(
            f"F33 {'pass' if run.check.holds else 'FAIL'} soak of {hours:g} h: {'; '.join(map(str, run.check.figures))}"
        )
        return 0 if run.check.holds else 1
    return 130


if __name__ == "__main__":
    sys.exit(main())
