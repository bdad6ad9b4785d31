"""Reload, upgrade and restart of real proxies under load: nobody is lost, refused or reset."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any

import pytest
import yaml

import proxy as package
from tests.integration.programs import Answer, Client, RealProxy, backend, counted, plan, until

pytestmark = pytest.mark.integration

RELOADS = 10
SLOW_S = 12.0  # several times what a reload takes on a busy machine
GET = b"GET / HTTP/1.1\r\nHost: shop\r\nCookie: uid=1\r\nConnection: close\r\n\r\n"


class Life(RealProxy):
    """A proxy that is reloaded."""

    @property
    def pid(self) -> int:
        assert self.program.process is not None
        return self.program.process.pid

    async def put_plan(self, plan: dict[str, Any], if_match: str = "*") -> tuple[int, Any]:
        """Offered again while workers are slow to come up: a busy machine takes more than the 5 s that a plan waits."""

        async def put() -> Any:
            answer = await super(Life, self).put_plan(plan, if_match)
            return None if answer[0] == 503 else answer

        found: tuple[int, Any] = await until(put)
        return found

    def hang_up(self) -> None:
        os.kill(self.pid, signal.SIGHUP)

    def rewrite(self, **changes: Any) -> None:
        """Other settings in the file; the listener stays unless it is named."""
        path = self.folder / "proxy.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))

    async def counts(self) -> Any:
        return (await self.state())["reloads"]

    async def reload(self, result: str = "done", **changes: Any) -> Any:
        """Reload with these changes, and wait for this end of it; returns the state."""
        if changes:
            self.rewrite(**changes)
        before = (await self.counts())[result]
        self.hang_up()

        async def ended() -> Any:
            state = await self.state()
            return state if state["reloads"][result] > before else None

        return await until(ended)

    async def until_alone(self) -> None:
        """Wait until no worker of before is left."""

        async def alone() -> bool:
            return not (await self.state())["earlierWorkers"]

        await until(alone)


@contextlib.asynccontextmanager
async def life(folder: Path, **settings: Any) -> AsyncIterator[Life]:
    timeouts = {"lameDuck": "0s", "drain": "20s"}
    running = Life(folder, **{"timeouts": timeouts} | settings)
    await running.start()
    try:
        yield running
    finally:
        try:
            await running.stop()
        except TimeoutError:
            print(running.program.log)
            await running.stop(signal.SIGKILL)
            raise


class Load:
    """New connections one after another, and kept ones that go elsewhere when they are told to.

    Attributes:
        ends: How requests ended: ``200``, or what went wrong.

    Args:
        ports: Where they go, by turns; may be changed meanwhile.
    """

    def __init__(self, ports: list[int], clients: int = 4) -> None:
        self.ends: Counter[str] = Counter()
        self._ports = ports
        self._turn = 0
        self._is_over = False
        self._tasks = [
            asyncio.create_task(work(number))
            for work, count in ((self._renew, clients), (self._keep, clients))
            for number in range(count)
        ]

    @property
    def _port(self) -> int:
        self._turn += 1
        return self._ports[self._turn % len(self._ports)]

    async def _renew(self, number: int) -> None:
        while not self._is_over:
            await self._count(self._once())
            await asyncio.sleep(0.01)

    async def _once(self) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(GET)
            async with asyncio.timeout(20):
                head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            return Answer(head, body).status
        finally:
            writer.close()

    async def _keep(self, number: int) -> None:
        client = Client(self._port)
        while not self._is_over:
            if client._writer is None:
                client._port = self._port
            await self._count(self._ask(client, number))
            await asyncio.sleep(0.01)
        client.close()

    async def _ask(self, client: Client, number: int) -> int:
        try:
            return (await client.ask(f"uid={number}")).status
        except BaseException:
            client.close()
            raise

    async def _count(self, request: Awaitable[int]) -> None:
        try:
            self.ends[str(await request)] += 1
        except (OSError, EOFError, TimeoutError, IndexError) as error:
            self.ends[f"{type(error).__name__}: {error}"] += 1

    async def end(self) -> None:
        """Stop, and hold that nobody was lost."""
        self._is_over = True
        await asyncio.gather(*self._tasks)
        print(dict(self.ends))
        assert set(self.ends) == {"200"}


@contextlib.asynccontextmanager
async def slow_service(seconds: float = SLOW_S) -> AsyncIterator[int]:
    """A service whose answer takes a while."""

    tasks = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(seconds)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    for task in tasks:
        assert task is not None
        task.cancel()


async def ask(port: int, host: str = "127.0.0.1") -> Answer:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(GET)
        async with asyncio.timeout(30):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        return Answer(head, body)
    finally:
        writer.close()


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def workers_of(pid: int) -> list[int]:
    """Its worker processes, oldest first; a rehearsal is none."""
    found = []
    for child in sorted(children(pid)):
        with contextlib.suppress(OSError):
            if b"proxy.net.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def children(pid: int) -> set[int]:
    return {int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


async def test_reloads_under_load_lose_nobody_and_leak_nothing(tmp_path: Path) -> None:
    """F28: no request lost, refused or reset; process id, counters and descriptors are as without a reload."""
    async with backend("old") as (service, port), life(tmp_path) as running:
        await running.put_plan(plan(port, port, 5000))
        boot, pid = (await running.state())["boot"], running.pid
        load = Load([running.port])
        used = []
        for number in range(RELOADS):
            await running.reload()
            if number in (4, RELOADS - 1):
                await running.until_alone()
                used.append((descriptors(pid), len(children(pid))))
        await load.end()
        assert running.pid == pid
        assert (await running.state())["boot"] == boot
        stats = await running.get("/stats")
        assert counted(stats, "stable") + counted(stats, "canary") == service.requests == load.ends["200"]
        assert used[0] == used[1]
        assert used[1][1] == 2


async def test_a_long_request_outlives_reloads(tmp_path: Path) -> None:
    """F29: the old generation finishes it while the new one serves, and ends then."""
    async with slow_service() as port, life(tmp_path) as running:
        await running.put_plan(plan(port, port, 0))
        began = time.monotonic()
        request = asyncio.create_task(ask(running.port))
        await asyncio.sleep(0.2)
        state = await running.reload()
        assert len(state["earlierWorkers"]) >= 1
        assert not request.done()
        answer = await request
        assert (answer.status, answer.body) == (200, b"slow")
        assert time.monotonic() - began < SLOW_S + 5
        await running.until_alone()


async def test_what_is_still_under_way_at_the_drain_limit_is_ended(tmp_path: Path) -> None:
    """F29: the old generation exits by the limit of the new settings."""
    async with slow_service(60) as port, life(tmp_path) as running:
        await running.put_plan(plan(port, port, 0))
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(GET)
        await asyncio.sleep(0.2)
        await running.reload(timeouts={"drain": "1s", "lameDuck": "0s"})
        async with asyncio.timeout(15):
            assert await reader.read() == b""
            await running.until_alone()
        writer.close()


BROKEN = {
    "wrong type": ({"workers": "many"}, "workers"),
    "unknown field": ({"lsiteners": []}, "lsiteners"),
    "another state directory": ({"stateDir": "elsewhere"}, "stateDir"),
    "an address of another machine": ({"metrics": {"listen": "192.0.2.1:9"}}, "metrics.listen"),
    "no token": ({"admin": {"listen": "127.0.0.1:0", "tokenFile": "nothing"}}, "admin.tokenFile"),
}


async def test_broken_settings_change_nothing(tmp_path: Path) -> None:
    """Refused whole, told with the field, counted; the same workers serve on."""
    async with backend("old") as (_, port), life(tmp_path) as running:
        await running.put_plan(plan(port, port, 0))
        before = (tmp_path / "proxy.yaml").read_text()
        workers = (await running.state())["workers"]
        load = Load([running.port], 2)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            busy = f"127.0.0.1:{taken.getsockname()[1]}"
            listeners = yaml.safe_load(before)["listeners"]
            cases = BROKEN | {"a port that is taken": ({"listeners": [*listeners, {"address": busy}]}, "listeners[1]")}
            for name, (changes, path) in cases.items():
                state = await running.reload("refused", **changes)
                assert [each["pid"] for each in state["workers"]] == [each["pid"] for each in workers], name
                assert f"everything stays as it is: {path}" in running.program.log, name
                (tmp_path / "proxy.yaml").write_text(before)
        (tmp_path / "proxy.yaml").write_text("{")
        await running.reload("refused")
        (tmp_path / "proxy.yaml").unlink()
        assert (await running.reload("refused"))["reloads"] == {"done": 0, "refused": len(cases) + 2, "stuck": 0}
        await load.end()
        (tmp_path / "proxy.yaml").write_text(before)
        await running.reload()


async def test_settings_take_effect(tmp_path: Path) -> None:
    """Of workers and of the supervisor; the admin API by POST as by signal."""
    async with backend("old") as (_, port), life(tmp_path) as running:
        await running.put_plan(plan(port, port, 0))
        running.rewrite(limits={"targetBytes": 256}, metrics={"listen": "127.0.0.1:0"})
        assert running._session is not None
        async with running._session.post("/reload", json={"by": "anna"}) as response:
            assert (response.status, (await response.json())["reloading"]) == (202, True)

        async def done() -> bool:
            return bool((await running.counts())["done"])

        await until(done)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"GET /" + b"x" * 300 + b" HTTP/1.1\r\nHost: shop\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 414 ")
        writer.close()
        assert (await running.get("/config"))["limits"]["targetBytes"] == 256


async def test_a_log_level_set_meanwhile_outlives_reloads_until_the_settings_name_another(tmp_path: Path) -> None:
    """Of the supervisor and of the new workers; a refused reload changes nothing either."""
    async with backend("old") as (_, port), life(tmp_path) as running:
        await running.put_plan(plan(port, port, 0))
        assert running._session is not None
        async with running._session.post("/log-level", json={"level": "error"}) as response:
            assert response.status == 200
        told = running.program.log.count('"level":"info"')
        await running.reload("refused", workers=0)
        await running.reload(workers=2)
        await running.until_alone()
        assert running.program.log.count('"level":"info"') == told
        await running.reload(log={"access": "off", "level": "debug"})
        assert running.program.log.count('"level":"info"') > told


async def test_listeners_come_and_go(tmp_path: Path) -> None:
    """A new one serves when the reload is done, a removed one refuses, what stays loses nobody."""
    async with backend("old") as (_, port), life(tmp_path) as running:
        await running.put_plan(plan(port, port, 0))
        load = Load([running.port], 2)
        first = {"address": "127.0.0.1:0"}  # as it was at the start
        state = await running.reload(listeners=[first, {"address": "127.0.0.1:0"}])
        added = int(state["listeners"][1].rpartition(":")[2])
        assert (await ask(added)).status == 200
        # The same port under another host: clients of the old address lose nothing either.
        state = await running.reload(listeners=[{"address": f":{added}"}, first])
        assert state["listeners"][0] == f"0.0.0.0:{added}"
        assert (await ask(added)).status == 200
        await running.reload(listeners=[first])
        await running.until_alone()
        with pytest.raises(ConnectionRefusedError):
            await ask(added)
        await load.end()


async def test_connections_queued_on_a_removed_listener_are_answered(tmp_path: Path) -> None:
    """They were accepted by the kernel while the address was in the settings."""
    async with backend("old") as (_, port), life(tmp_path, workers=1) as running:
        await running.put_plan(plan(port, port, 0))
        first = {"address": "127.0.0.1:0"}  # as it was at the start
        state = await running.reload(listeners=[first, {"address": "127.0.0.1:0"}])
        await running.until_alone()
        added = int(state["listeners"][1].rpartition(":")[2])
        [worker] = [each["pid"] for each in state["workers"]]
        running.rewrite(listeners=[first])
        running.hang_up()
        asks = []
        while (await running.state())["workers"][0]["pid"] == worker or not asks:
            asks.append(asyncio.create_task(ask(added)))
            await asyncio.sleep(0.02)
        ends = await asyncio.gather(*asks, return_exceptions=True)
        assert {type(end).__name__ for end in ends} <= {"Answer", "ConnectionRefusedError"}
        assert sum(isinstance(end, Answer) for end in ends) > 5


async def test_the_number_of_workers_changes_under_load(tmp_path: Path) -> None:
    """Sockets of those that are no more are accepted by the others."""
    async with backend("old") as (_, port), life(tmp_path, workers=1) as running:
        await running.put_plan(plan(port, port, 0))
        load = Load([running.port])
        for workers in (3, 1, 2, 1):
            state = await running.reload(workers=workers)
            assert len(state["workers"]) == workers
            await asyncio.sleep(0.5)
        await load.end()
        await running.until_alone()
        for _ in range(40):  # the kernel deals them to all sockets that ever were
            assert (await ask(running.port)).status == 200


async def test_a_worker_that_dies_in_the_middle_costs_its_own_requests_only(tmp_path: Path) -> None:
    """F30 during F28: of before or new, the reload ends all the same."""
    async with backend("old") as (_, port), life(tmp_path) as running:
        await running.put_plan(plan(port, port, 0))
        for moment in (0.0, 0.3, 0.7, 1.1, 1.5):
            before = (await running.counts())["done"]
            running.hang_up()
            await asyncio.sleep(moment)
            pids = workers_of(running.pid)
            if pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pids[-1] if moment > 1 else pids[0], signal.SIGKILL)

            async def done() -> bool:
                return bool((await running.counts())["done"] > before)  # noqa: B023

            await until(done)
            await until(running.all_workers)
            assert (await ask(running.port)).status == 200
        await running.until_alone()

        async def two() -> bool:
            return len(children(running.pid)) == 2  # the one killed last may be on its way still

        await until(two)


async def test_many_signals_at_once_are_few_reloads_and_the_last_settings_hold(tmp_path: Path) -> None:
    """Coalesced, never lost: who asks during a reload gets another one."""
    async with backend("old") as (_, port), life(tmp_path) as running:
        await running.put_plan(plan(port, port, 0))
        load = Load([running.port], 2)
        for number in range(30):
            running.rewrite(limits={"targetBytes": 300 + number})
            running.hang_up()
            await asyncio.sleep(0.1)

        async def holds() -> bool:
            return bool((await running.get("/config"))["limits"]["targetBytes"] == 329)

        await until(holds)
        await until(running.all_workers)
        await load.end()
        assert (await running.counts())["refused"] == 0


async def test_sigterm_during_a_reload_is_not_lost(tmp_path: Path) -> None:
    """Whatever moment it meets: the proxy leaves in order, and answers what is under way."""
    async with slow_service(1.0) as port, asyncio.TaskGroup() as tasks:
        for moment in (0.0, 0.6, 1.0, 1.3, 1.6):
            tasks.create_task(_leave_at(moment, port, tmp_path / str(moment)))


async def _leave_at(moment: float, port: int, folder: Path) -> None:
    """SIGTERM so many seconds, and a little, after SIGHUP."""
    running = Life(folder, timeouts={"lameDuck": "0s", "drain": "10s"})
    await running.start()
    await running.put_plan(plan(port, port, 0))
    running.hang_up()
    await asyncio.sleep(moment)
    request = asyncio.create_task(ask(running.port))
    await asyncio.sleep(0.2)
    assert await running.stop() == 0, running.program.log
    assert (await request).status == 200


async def test_a_killed_supervisor_is_replaced_by_a_start(tmp_path: Path) -> None:
    """Its workers end by themselves; plan and latch stand, the numbers begin anew and say so."""
    async with backend("old") as (_, port), life(tmp_path) as running:
        await running.put_plan(plan(port, port, 10_000))
        await running.reload()
        latch = await running.abort()
        boot = (await running.state())["boot"]
        await running.stop(signal.SIGKILL)
        await running.start()
        state = await running.state()
        assert state["latch"]["id"] == latch["id"]
        assert state["boot"] != boot
        assert (await ask(running.port)).status == 200


async def test_counters_outlive_a_restart_in_order(tmp_path: Path) -> None:
    """They go on under the same boot."""
    async with backend("old") as (service, port), life(tmp_path) as running:
        await running.put_plan(plan(port, port, 0))
        boot = (await running.state())["boot"]
        for _ in range(2):
            for _ in range(20):
                assert (await ask(running.port)).status == 200
            assert await running.stop() == 0
            await running.start()

            async def ready() -> bool:
                return bool((await running.state())["ready"])

            await until(ready)
        assert (await running.state())["boot"] == boot
        assert counted(await running.get("/stats"), "stable") == service.requests == 40


async def test_a_rolling_restart_of_two_proxies_loses_nobody(tmp_path: Path) -> None:
    """F27: clients learn 2 s after SIGTERM who is left, within the lame duck; a second SIGTERM changes nothing."""
    timeouts = {"lameDuck": "4s", "drain": "10s"}
    async with (
        backend("old") as (_, port),
        life(tmp_path / "a", timeouts=timeouts) as one,
        life(tmp_path / "b", timeouts=timeouts) as two,
    ):
        for running in (one, two):
            await running.put_plan(plan(port, port, 0))
        ports = [one.port, two.port]
        load = Load(ports, 4)
        for running in (one, two):
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)  # idle, and kept
            await asyncio.sleep(0.5)
            began = time.monotonic()
            os.kill(running.pid, signal.SIGTERM)
            stopping = asyncio.create_task(running.stop())  # one more SIGTERM
            await asyncio.sleep(2)
            ports[:] = [other.port for other in (one, two) if other is not running]
            await asyncio.sleep(1)
            assert not reader.at_eof()
            assert await stopping == 0
            assert 4 <= time.monotonic() - began < 10
            assert await reader.read() == b""
            writer.close()
            await running.start()
            await until(running.all_workers)
            ports[:] = [one.port, two.port]
        await load.end()


# --- upgrades: the program is a copy of the package behind a symbolic link, so that it can be exchanged


class Upgrade(Life):
    """A proxy whose package is replaced while it runs."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        super().__init__(folder, **settings)
        self.install("one")
        code = "from proxy.net.cli import command; command()"
        self.program._arguments = (sys.executable, "-P", "-c", code, "--config", "proxy.yaml")
        self.program.environment = os.environ | {"PYTHONPATH": str(folder / "current")}

    def install(self, version: str, *edits: tuple[str, str, str]) -> None:
        """Make a version the current one: files in which one text is replaced by another."""
        target = self.folder / version / "proxy"
        shutil.copytree(Path(package.__file__).parent, target, ignore=shutil.ignore_patterns("__pycache__"))
        for name, old, new in edits:
            text = (target / name).read_text()
            assert old in text
            (target / name).write_text(text.replace(old, new))
        draft = self.folder / "draft"
        draft.symlink_to(version)
        os.replace(draft, self.folder / "current")


@contextlib.asynccontextmanager
async def upgrade(folder: Path, **settings: Any) -> AsyncIterator[Upgrade]:
    running = Upgrade(folder, **{"timeouts": {"lameDuck": "0s", "drain": "20s"}} | settings)
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


NEW_NAME = ("net/web.py", 'SERVER = "cohort"', 'SERVER = "cohort two"')
NEW_LAYOUT = ("region.py", "SERIES: Final = 2048", "SERIES: Final = 1024")
BROKEN_WORKER = ("net/worker.py", "    control = socket.socket(fileno=int(sys.argv[1]))", "    raise SystemExit(3)")
IMPATIENT = ("net/reload.py", "SWITCH_S = 30.0", "SWITCH_S = 3.0")
BROKEN_PROGRAM = ("net/cli.py", "import asyncio", "import asyncio, nothing_of_that_name")


async def server_name(running: RealProxy) -> str:
    assert running._session is not None
    async with running._session.get("/ready") as response:
        return response.headers["Server"]


async def test_an_upgrade_with_the_same_layout_goes_on_with_the_numbers(tmp_path: Path) -> None:
    """F29: new code serves, nobody is lost, counters and boot go on."""
    async with backend("old") as (service, port), upgrade(tmp_path) as running:
        await running.put_plan(plan(port, port, 0))
        boot = (await running.state())["boot"]
        load = Load([running.port], 2)
        running.install("two", NEW_NAME)
        await running.reload()
        assert await server_name(running) == "cohort two"
        await load.end()
        assert (await running.state())["boot"] == boot
        assert counted(await running.get("/stats"), "stable") == service.requests


async def test_an_upgrade_with_another_layout_restarts_the_numbers_visibly_and_an_abort_reaches_both(
    tmp_path: Path,
) -> None:
    """F29, F34: the old generation has memory of its own, and obeys."""
    async with slow_service() as port, backend("new") as (_, canary), upgrade(tmp_path) as running:
        await running.put_plan(plan(port, canary, 0))
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(GET.replace(b"Connection: close\r\n", b""))  # under way in the old generation, and kept
        await asyncio.sleep(0.2)
        boot = (await running.state())["boot"]
        running.install("two", NEW_LAYOUT)
        state = await running.reload()
        assert state["boot"] != boot
        assert state["earlierWorkers"]
        await running.put_plan(plan(port, canary, 10_000, 2))
        assert (await ask(running.port)).body == b"new"
        await running.abort()
        asked = asyncio.create_task(ask(running.port))
        assert (await reader.readuntil(b"slow")).startswith(b"HTTP/1.1 200 ")
        assert (await asked).body == b"slow"
        writer.close()
        await running.until_alone()


async def test_a_version_that_does_not_start_is_refused(tmp_path: Path) -> None:
    """The rehearsal finds it out, and says what it said."""
    async with backend("old") as (_, port), upgrade(tmp_path) as running:
        await running.put_plan(plan(port, port, 0))
        load = Load([running.port], 2)
        running.install("two", BROKEN_PROGRAM)
        await running.reload("refused")
        assert "nothing_of_that_name" in running.program.log
        await load.end()


async def test_old_workers_serve_on_while_new_ones_do_not_come_up(tmp_path: Path) -> None:
    """The failure is loud, the proxy stays ready, plans still arrive, and a version that works mends it."""
    async with backend("old") as (_, port), backend("new") as (_, canary), upgrade(tmp_path) as running:
        await running.put_plan(plan(port, canary, 0))
        workers = [each["pid"] for each in (await running.state())["workers"]]
        load = Load([running.port], 2)
        running.install("two", BROKEN_WORKER, IMPATIENT)
        before = await running.counts()
        running.hang_up()

        async def taken_over() -> Any:
            state = await running.state()
            return state if state["earlierWorkers"] else None

        state = await until(taken_over)
        assert sorted(each["pid"] for each in state["earlierWorkers"]) == sorted(workers)
        assert state["ready"]
        await asyncio.sleep(1)
        assert (await running.put_plan(plan(port, canary, 10_000, 2)))[0] == 200
        assert (await ask(running.port)).body == b"new"

        async def told() -> bool:
            return bool((await running.counts())["stuck"])

        await until(told)
        running.install("three", NEW_NAME)
        running.hang_up()

        async def mended() -> bool:
            return bool((await running.counts())["done"] > before["done"])

        await until(mended, 60)
        assert "new workers do not come up" in running.program.log

        async def is_new() -> bool:
            return await server_name(running) == "cohort two"

        await until(is_new, 60)
        await load.end()
