"""The controller as a program: started, told of documents, killed, started again, stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.fake_admin import FakeAdmin, serving
from tests.support.fake_proxy import FakeProxy

START_S = 20.0
RUN = "from controller.net.service import run; from controller.spec import ControllerSettings; "
RUN += "from proxy.document import parse; run(parse(ControllerSettings, open('controller.yaml').read()))"
DOCUMENT: dict[str, Any] = {
    "apiVersion": "cohort.dev/v1alpha1",
    "kind": "CanaryRollout",
    "metadata": {"name": "checkout", "namespace": "shop"},
    "spec": {
        "stable": {"addresses": ["127.0.0.1:9001"], "revision": "v1"},
        "canary": {"addresses": ["127.0.0.1:9002"], "revision": "v2"},
        "strategy": {"canary": {"steps": [{"setWeight": 5}, {"pause": {}}, {"setWeight": 50}]}},
    },
}


def other(name: str = "checkout", **spec: Any) -> dict[str, Any]:
    return {**DOCUMENT, "metadata": {"name": name, "namespace": "shop"}, "spec": {**DOCUMENT["spec"], **spec}}


class Program:
    """A controller process and its API."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, session: aiohttp.ClientSession) -> None:
        self.process = process
        self.port = port
        self._base = f"http://127.0.0.1:{port}/api/v1/rollouts"
        self._session = session

    async def items(self) -> list[dict[str, Any]]:
        async with self._session.get(self._base) as answer:
            found: list[dict[str, Any]] = (await answer.json())["items"]
            return found

    async def one(self, name: str = "checkout") -> dict[str, Any]:
        async with self._session.get(f"{self._base}/shop/{name}") as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def act(self, verb: str) -> int:
        body = json.dumps({"verb": verb, "by": "anna"})
        async with self._session.post(
            f"{self._base}/shop/checkout/actions", data=body, headers={"Content-Type": "application/json"}
        ) as answer:
            return answer.status

    async def until(self, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + START_S
        while not true(shown := await self.one()):
            assert time.monotonic() < deadline, shown["status"]
            await asyncio.sleep(0.05)
        return shown

    async def phase(self, name: str) -> dict[str, Any]:
        return await self.until(lambda shown: shown["status"]["phase"] == name)


def condition(shown: dict[str, Any], kind: str) -> tuple[str, str, str]:
    found = next(c for c in shown["status"]["conditions"] if c["type"] == kind)
    return found["status"], found["reason"], found["message"]


class Place:
    """A directory with settings, documents and a fake proxy."""

    def __init__(self, root: Path, admin: FakeAdmin) -> None:
        self.root = root
        self.admin = admin

    @property
    def proxy(self) -> FakeProxy:
        return self.admin.proxy

    def write(self, name: str, document: Any) -> None:
        text = document if isinstance(document, str) else json.dumps(document)
        (self.root / "rollouts" / name).write_text(text)

    async def spawn(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            RUN,
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
            stderr=asyncio.subprocess.PIPE,
        )

    @asynccontextmanager
    async def program(self) -> AsyncIterator[Program]:
        process = await self.spawn()
        assert process.stderr is not None
        try:
            port = 0
            while not port:
                async with asyncio.timeout(START_S):
                    line = (await process.stderr.readline()).decode()
                assert line, "ended at the start"
                if "serving on http://" in line:
                    port = int(line.rsplit(":", 1)[1])
            async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(process.stderr.read())
                yield Program(process, port, session)
                if process.returncode is None:
                    process.kill()
                await reading
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            process._transport.close()  # type: ignore[attr-defined]  # else its pipe is closed some time later


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    (tmp_path / "rollouts").mkdir()
    admin = FakeAdmin(FakeProxy())
    async with serving(admin, str(tmp_path / "admin.sock")) as address:
        settings = {"proxies": [{"address": address}], "pollInterval": "100ms", "api": {"listen": "127.0.0.1:0"}}
        (tmp_path / "controller.yaml").write_text(json.dumps(settings))
        yield Place(tmp_path, admin)


async def test_sigterm_ends_it_and_sigkill_loses_nothing(place: Place) -> None:
    """C4: killed while paused, it is paused; told to stop, it stops with 0; the proxy keeps its plan."""
    place.write("checkout.yaml", DOCUMENT)
    async with place.program() as program:
        await program.phase("Paused")
        generation = (await program.one())["status"]["plan"]["generation"]
        program.process.send_signal(signal.SIGKILL)
        await program.process.wait()
    async with place.program() as program:
        shown = await program.phase("Paused")
        assert shown["status"]["plan"]["generation"] == generation
        assert shown["status"]["step"]["index"] == 1
        program.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(program.process.wait(), START_S) == 0
    assert [plan.arms[0].weight_bp for plan in place.proxy.history] == [10_000, 9500]


async def test_a_second_controller_on_the_same_state_is_refused(place: Place) -> None:
    """Two never both act: it says which process has it, and ends with 1."""
    place.write("checkout.yaml", DOCUMENT)
    async with place.program() as program:
        second = await place.spawn()
        _, told = await asyncio.wait_for(second.communicate(), START_S)
        assert second.returncode == 1
        assert f"another controller, process {program.process.pid}, has it" in told.decode()


async def test_documents_are_followed(place: Place) -> None:
    """A file that is written, broken, mended and removed: each time what is right goes on."""
    place.write("checkout.yaml", DOCUMENT)
    async with place.program() as program:
        await program.phase("Paused")
        place.write("checkout.yaml", json.dumps(DOCUMENT)[:100])
        shown = await program.until(lambda s: condition(s, "Accepted")[0] == "False")
        assert condition(shown, "Accepted")[1] == "Invalid"
        assert "checkout.yaml: not valid" in condition(shown, "Accepted")[2]
        assert shown["status"]["phase"] == "Paused"
        place.write("checkout.yaml", other(canary={"addresses": ["127.0.0.1:9003"], "revision": "v3"}))
        shown = await program.until(
            lambda s: s["status"]["revision"].get("canary") == "v3" and s["status"]["phase"] == "Paused"
        )
        assert condition(shown, "Accepted")[:2] == ("True", "Valid")
        (place.root / "rollouts" / "checkout.yaml").unlink()
        await program.until(lambda s: condition(s, "Accepted")[1] == "DocumentMissing")
        assert await program.act("Abort") == 200
        await program.phase("Aborted")


async def test_a_document_may_come_later(place: Place) -> None:
    """Started with an empty folder: nothing to do, then the first rollout."""
    async with place.program() as program:
        assert await program.items() == []
        place.write("checkout.yaml", "kind: CanaryRollout\nmetadata: {name: checkout, namespace: shop}\n")
        deadline = time.monotonic() + START_S
        while not (items := await program.items()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        assert items[0]["status"]["phase"] == "Pending"
        assert "spec: required field is missing" in condition(items[0], "Accepted")[2]
        place.write("checkout.yaml", DOCUMENT)
        await program.phase("Paused")


async def test_one_set_of_proxies_serves_one_rollout(place: Place) -> None:
    """The others are shown with the reason, and may not be steered; after a restart it is the same one."""
    place.write("b.yaml", DOCUMENT)
    async with place.program() as program:
        await program.phase("Paused")
        place.write("a.yaml", other("cart"))
        deadline = time.monotonic() + START_S
        while len(await program.items()) < 2:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        shown = await program.one("cart")
        assert condition(shown, "Accepted")[1] == "NotServed"
        assert "serve shop/checkout" in condition(shown, "Accepted")[2]
    async with place.program() as program:
        assert (await program.one("checkout"))["status"]["phase"] == "Paused"
        assert (await program.one("cart"))["status"]["phase"] == "Pending"


@pytest.mark.parametrize(
    ("broken", "part"),
    [
        ({"keysDir": "controller.yaml"}, "keysDir"),
        ({"api": {"listen": "127.0.0.1:0", "tokenFile": "nothing"}}, "api.tokenFile nothing"),
        ({"state": "rollouts"}, "state rollouts"),
    ],
)
async def test_what_cannot_start_says_why(place: Place, broken: dict[str, Any], part: str) -> None:
    """Exit 1 and one line that names the setting."""
    settings = json.loads((place.root / "controller.yaml").read_text())
    (place.root / "controller.yaml").write_text(json.dumps({**settings, **broken}))
    process = await place.spawn()
    _, told = await asyncio.wait_for(process.communicate(), START_S)
    assert process.returncode == 1
    assert part in told.decode()
    assert "Traceback" not in told.decode()


async def test_a_disk_that_is_full_does_not_take_the_kill_switch_away(place: Place) -> None:
    """A document changes and cannot be stored: told again and again, while an abort goes on working."""
    place.write("checkout.yaml", DOCUMENT)
    async with place.program() as program:
        await program.phase("Paused")
        with sqlite3.connect(place.root / "controller.db") as breaker:
            breaker.execute("CREATE TRIGGER full BEFORE INSERT ON rollout BEGIN SELECT RAISE(FAIL, 'disk full'); END")
        breaker.close()
        place.write("checkout.yaml", other(explain="Always"))
        await asyncio.sleep(2.0)
        assert await program.act("Abort") == 503
        assert place.proxy.latch is not None
        with sqlite3.connect(place.root / "controller.db") as mender:
            mender.execute("DROP TRIGGER full")
        mender.close()
        shown = await program.phase("Aborted")
        assert shown["status"]["abort"]["by"] == "anna"
        await program.until(lambda s: s["spec"].get("explain") == "Always")


async def test_a_faulty_head_is_not_repeated(place: Place) -> None:
    """C3: a token in a head that cannot be read is not in the answer."""
    async with place.program() as program:
        reader, writer = await asyncio.open_connection("127.0.0.1", program.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer s3cret\x01\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
    assert answer.split(b" ")[1] == b"400"
    assert b"s3cret" not in answer
