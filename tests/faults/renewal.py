"""The proxy renews itself while clients keep coming: settings, then its own program. F28, F29."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import aiohttp

import proxy as package
from tests.faults.ledger import failures
from tests.faults.run import Fault, Run
from tests.faults.stand import Stand, descriptors
from tests.integration.programs import until


def _pid(stand: Stand) -> int:
    assert stand.proxy.program.process is not None
    return stand.proxy.program.process.pid


async def _renew(stand: Stand) -> Any:
    """One reload, waited for; returns the state."""
    before = (await stand.proxy.state())["reloads"]["done"]
    os.kill(_pid(stand), signal.SIGHUP)

    async def is_done() -> Any:
        state = await stand.proxy.state()
        return state if state["reloads"]["done"] > before else None

    return await until(is_done, 60)


async def _until_alone(stand: Stand, seconds: float) -> float:
    """Wait until the earlier generation has ended; returns the seconds."""
    began = time.monotonic()

    async def is_alone() -> bool:
        return not (await stand.proxy.state())["earlierWorkers"]

    await until(is_alone, seconds)
    return time.monotonic() - began


async def reloads(run: Run) -> None:
    """F28: a hundred reloads, one after another, half of the requests on new connections."""
    check = run.check
    count = round(run.scale.pick(100, 3))
    timeouts = {"lameDuck": "0s", "drain": "15s"}
    async with run.stand(timeouts=timeouts) as stand:
        pid, boot = _pid(stand), (await stand.proxy.state())["boot"]
        async with stand.load(new_share=0.5, sockets=0) as load:
            await asyncio.sleep(0.5)
            began = time.monotonic()
            for _ in range(count):
                await _renew(stand)
            seconds = time.monotonic() - began
            await asyncio.sleep(max(0.5, began + run.scale.loss_s - time.monotonic()))
        run.no_loss(load.rows)
        await _until_alone(stand, 30)
        state = await stand.proxy.state()
        check.exactly("reloads", state["reloads"]["done"], count)
        check.says("each took", seconds / count, "s")
        check.true("same process and counters", (_pid(stand), state["boot"]) == (pid, boot))
        await _renew(stand)
        await _until_alone(stand, 30)
        check.at_most("descriptors of the supervisor", descriptors(pid), 60)


class Installed:
    """The package as it is installed: copies behind a link, which an upgrade swaps."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._link = folder / "current"
        self.install("one")

    def install(self, version: str, *edit: str) -> None:
        """Make a copy current, with one text of ``proxy/net/web.py`` replaced by another."""
        target = self._folder / version / "proxy"
        shutil.copytree(Path(package.__file__).parent, target, ignore=shutil.ignore_patterns("__pycache__"))
        if edit:
            path = target / "net" / "web.py"
            text = path.read_text()
            assert edit[0] in text
            path.write_text(text.replace(*edit))
        draft = self._folder / "draft"
        draft.symlink_to(version)
        os.replace(draft, self._link)

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("env", f"PYTHONPATH={self._link}")


async def upgrade(run: Run) -> None:
    """F29: the program is exchanged while a stream is under way, and an abort comes while both generations live."""
    check = run.check
    stream_s, drain_s = run.scale.pick(60, 5), run.scale.pick(90, 30)
    installed = Installed(run.folder)
    timeouts = {"lameDuck": "0s", "drain": f"{drain_s:g}s", "abortDrain": "1s"}
    async with run.stand(prefix=installed.prefix, timeouts=timeouts) as stand:
        streams = {"name": "streams", "matches": [{"path": {"value": "/stream"}}], "arm": "stable"}
        await stand.adopt(stand.plan(10_000, routes=[streams]))
        boot = (await stand.proxy.state())["boot"]
        async with stand.load(upload_s=0, stream_s=stream_s, sockets=0) as load:
            await asyncio.sleep(run.scale.pick(5, 0.5))
            old = await _pipelined(stand.proxy.port)
            counted = await stand.metric("cohort_requests_total")
            installed.install("two", 'SERVER = "cohort"', 'SERVER = "cohort two"')
            renewed = time.monotonic()
            state = await _renew(stand)
            check.exactly("the new program answers as", await _server(stand), "cohort two")
            check.at_least("workers of before still there", len(state["earlierWorkers"]), 1)
            check.true("the old one's numbers go on", state["boot"] == boot)
            check.at_least("requests counted", await stand.metric("cohort_requests_total"), counted)
            await asyncio.sleep(run.scale.pick(5, 0.5))
            await stand.proxy.abort()
            aborted = time.monotonic()
            for service in stand.stable:
                await service.behave(mode="ok")
            second = await old
            await _until_alone(stand, drain_s + 10)
            check.at_most("the old generation ended after", time.monotonic() - renewed, drain_s + 6, "s")
            await asyncio.sleep(max(0.0, renewed + run.scale.loss_s - time.monotonic()))
        run.no_loss(load.rows)
        over = [row for row in load.rows if row.kind == "stream" and row.sent < renewed < row.done]
        check.at_least("streams that outlived it, whole", len(over) - len(failures(over)), 1)
        starts = stand.canary[0].times
        check.at_least("starts on the canary before the abort", sum(at < aborted for at in starts), 20)
        check.exactly("later than 200 ms after it", sum(at > aborted + 0.2 for at in starts))
        check.exactly("an old connection's next request after it", second, "stable abort")


async def _pipelined(port: int) -> asyncio.Task[str]:
    """A request that is held and one behind it on one connection, made now: version and reason of the second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /stream/held HTTP/1.1\r\nHost: shop\r\n\r\n"
        b"GET / HTTP/1.1\r\nHost: shop\r\nCookie: uid=old\r\nX-Cohort-Explain: 1\r\n\r\n"
    )

    async def rest() -> str:
        try:
            async with asyncio.timeout(120):
                data = (await reader.read()).decode("latin-1")
        finally:
            writer.close()
        second = data.rpartition("HTTP/1.1 ")[2].lower()
        fields = dict(line.split(": ", 1) for line in second.split("\r\n") if ": " in line)
        return f"{fields.get('x-cohort-arm')} {fields.get('x-cohort-reason')}"

    await asyncio.sleep(0.3)
    return asyncio.create_task(rest())


async def _server(stand: Stand) -> str:
    path = str(stand.proxy.folder / "admin.sock")
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
        session.get("http://localhost/ready") as response,
    ):
        return response.headers["Server"]


FAULTS = {
    "F28": Fault("reload under load, again and again", "0 lost, refused or reset; nothing leaks", reloads),
    "F29": Fault(
        "upgrade of the program",
        "the old generation finishes what it has, the new one serves; both obey an abort; counters go on; 0 lost",
        upgrade,
    ),
}
