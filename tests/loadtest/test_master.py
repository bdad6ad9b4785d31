"""A master and its workers against a scripted proxy: who makes the requests, what is added up, who may go and come."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from tests.support.fake_ingress import FakeProxy, running

START = [sys.executable, "-c", "from loadtest.cli import command; command()"]
QUICK = ["--users", "12", "--spawn-rate", "100", "--think", "10ms..30ms", "-o", "json"]
OFTEN = ["--progress", "300ms"]
pytestmark = pytest.mark.slow


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Site:
    """A proxy, and processes that are ended with the test."""

    def __init__(self, proxy: FakeProxy) -> None:
        self.proxy = proxy
        self.address = f"127.0.0.1:{free()}"
        self.processes: list[Process] = []

    async def start(self, *arguments: str) -> Process:
        command = [*START, "--target", self.proxy.url, *QUICK, *arguments]
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
        self.processes.append(process)
        return process

    async def master(self, *arguments: str) -> Process:
        return await self.start("--bind", self.address, *arguments)

    async def worker(self, *arguments: str) -> Process:
        return await self.start("--master", self.address, "--progress", "0s", *arguments)

    async def until_asked(self) -> None:
        """Wait until a request comes."""
        seen = len(self.proxy.paths)
        while len(self.proxy.paths) == seen:
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        for process in self.processes:
            if process.returncode is None:
                process.kill()
            await process.communicate()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with AsyncExitStack() as stack:
        site = Site(await stack.enter_async_context(running(FakeProxy())))
        stack.push_async_callback(site.close)
        yield site


async def result(process: Process) -> tuple[int, dict[str, Any], str]:
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, json.loads(out) if out else {}, err.decode()


async def told(master: Process, pattern: str) -> re.Match[str]:
    """The first progress line that has the pattern."""
    assert master.stderr
    async for line in master.stderr:
        if found := re.search(pattern, line.decode()):
            return found
    raise AssertionError(f"the master never said {pattern}")


async def test_the_master_counts_what_its_workers_do(site: Site) -> None:
    """Workers may come first; users are spread; every request of each is in the master's summary; names are apart."""
    named = ("--identity", "header", "--user-prefix", "vip-")
    workers = [await site.worker(*named) for _ in range(2)]
    master = await site.master("--workers", "2", "--duration", "2s", *named)
    code, summary, said = await result(master)
    assert (code, summary["ok"], summary["users"]) == (0, True, 12), said
    assert summary["requests"] == len(site.proxy.paths)
    assert sum(row["users"] for row in summary["versions"]) == len(site.proxy.keys) == 12
    assert sum(summary["generations"][0]["arms"].values()) == 12
    assert all(key.startswith("vip-") for key in site.proxy.keys)
    parts = [await result(worker) for worker in workers]
    assert [(code, part["users"]) for code, part, _ in parts] == [(0, 6), (0, 6)]
    assert sum(part["requests"] for _, part, _ in parts) == summary["requests"]


async def test_users_of_a_lost_worker_go_to_others_and_the_last_one_may_be_replaced(site: Site) -> None:
    """One is killed: its users are made elsewhere within seconds. The only one leaves, another comes: users again."""
    first, second = await site.worker(), await site.worker()
    master = await site.master("--workers", "2", *OFTEN)
    await told(master, r"2 workers \| 12 users")
    first.kill()
    await told(master, r" 1 workers \| 12 users")
    second.terminate()
    code, part, _ = await result(second)
    assert code == 0, part
    await told(master, r" 0 workers \| 0 users")
    await site.worker()
    await told(master, r" 1 workers \| 12 users")
    await site.until_asked()
    master.terminate()
    code, summary, said = await result(master)
    assert (code, summary["flips"]) == (0, 0), said
    assert summary["users"] >= 24


async def test_what_a_person_stops_at_the_page_stays_stopped(site: Site) -> None:
    """The master's page is locust's own; it starts users again when it is told to. A flip before fails the run."""
    site.proxy.fault = lambda number, path: "flip" if number == 60 else ""
    port = free()
    await site.worker()
    master = await site.master("--workers", "1", "--web", str(port), *OFTEN)
    await told(master, r"12 users.*flips [1-9]")
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as page:
        async with page.post("/stop") as answer:
            assert answer.status == 200
        await told(master, r" 0 users")
        await told(master, r"1 workers \| 0 users")
        async with page.post("/swarm", data={"user_count": "4", "spawn_rate": "100"}) as answer:
            assert (await answer.json())["success"]
        await told(master, r" 4 users")
    master.terminate()
    code, summary, _ = await result(master)
    assert (code, summary["ok"]) == (1, False)
    assert summary["flipDetails"][0]["why"]


async def test_waiting_ends_when_told(site: Site) -> None:
    """Neither a worker without a master nor a master without workers keeps a pod from ending."""
    worker, master = await site.worker("--master", f"127.0.0.1:{free()}"), await site.master("--workers", "3", *OFTEN)
    await told(master, r"0 workers")
    for process in (worker, master):
        process.send_signal(signal.SIGTERM)
    code, _, said = await result(worker)
    assert (code, "no master answered at 127.0.0.1:" in said) == (2, True), said
    code, summary, _ = await result(master)
    assert (code, summary["faults"]) == (1, ["no request was made"])


async def test_a_worker_waits_for_a_proxy_that_is_not_there_yet(site: Site) -> None:
    """In a cluster both are started at once; no request is lost for that."""
    port = free()
    await site.worker("--target", f"http://127.0.0.1:{port}")
    master = await site.master("--workers", "1", *OFTEN)
    await told(master, r"0 workers")
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port):
        await told(master, r"1 workers")


async def test_a_port_that_is_taken_is_told(site: Site) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, _, said = await result(await site.start("--workers", "1", "--bind", address))
    assert (code, "in use" in said) == (2, True), said
