"""Real proxies under load: plans change, aborts hold, files stream, and nobody is lost."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from proxy.assign import arm_index, bucket, user_key
from tests.integration.programs import Backend, Client, RealProxy, backend, plan
from tests.support.require import require

CLIENTS = 16
PLAN_CHANGES = 200
ABORT_BOUND_S = 0.2  # as promised
GIB = 1 << 30


@contextlib.asynccontextmanager
async def proxy(folder: Path, **settings: object) -> AsyncIterator[RealProxy]:
    running = RealProxy(folder, **settings)  # type: ignore[arg-type]
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


async def test_every_answer_is_what_the_plan_of_its_generation_gives_that_user(tmp_path: Path) -> None:
    """200 plans with other weights under load: no failed request, and each answer can be computed from outside."""
    async with backend("old") as (_, stable), backend("new") as (_, canary), proxy(tmp_path) as running:
        weights = {1: 5000}
        await running.put_plan(plan(stable, canary, 5000))
        identity = bytes.fromhex((tmp_path / "keys" / "identity").read_text().strip())
        answers: list[tuple[str, int, str, str]] = []
        done = asyncio.Event()

        async def ask(number: int) -> None:
            client = Client(running.port)
            turn = 0
            while not done.is_set():
                user = f"user-{number}-{turn % 50}"
                turn += 1
                answer = await client.ask(f"uid={user}")
                assert answer.status == 200
                answers.append((user, answer.generation, answer.arm, answer.body.decode()))
                if turn % 200 == 0:
                    client.close()
            client.close()

        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(ask(number))
            rng = random.Random(7)
            for generation in range(2, PLAN_CHANGES + 2):
                weights[generation] = rng.randrange(10_001)
                status, body = await running.put_plan(plan(stable, canary, weights[generation], generation))
                assert status == 200, body
            done.set()

    assert len({generation for _, generation, _, _ in answers}) > PLAN_CHANGES / 2
    for user, generation, arm, body in answers:
        place = bucket(user_key("cookie:uid", user.encode(), identity), bytes.fromhex("5a" * 32))
        assert arm == ("stable", "canary")[arm_index(place, weights[generation])]
        assert body == {"stable": "old", "canary": "new"}[arm]


async def test_abort_under_load_ends_the_canary_at_once_and_only_a_lifting_plan_ends_the_abort(tmp_path: Path) -> None:
    """F34: the last canary start is at most 200 ms after the call returns; a restart and later plans change nothing."""
    async with (
        backend("old") as (_, stable),
        backend("new") as (new, canary),
        proxy(tmp_path) as running,
    ):
        await running.put_plan(plan(stable, canary, 10_000))
        done = asyncio.Event()

        async def ask(number: int) -> None:
            client = Client(running.port)
            while not done.is_set():
                assert (await client.ask(f"uid={number}")).status == 200
            client.close()

        async with asyncio.TaskGroup() as tasks:
            for number in range(CLIENTS):
                tasks.create_task(ask(number))
            await asyncio.sleep(0.5)
            before = new.requests
            latch = await running.abort()
            returned = time.monotonic()
            await asyncio.sleep(1)
            print(f"last canary start {1000 * (new.last_start - returned):.1f} ms after the abort returned")
            done.set()
        assert before > 100
        assert new.last_start - returned <= ABORT_BOUND_S

        async def nobody_is_on_the_canary() -> bool:
            client = Client(running.port)
            found = {(await client.ask(f"uid={number}")).body for number in range(200)}
            client.close()
            return found == {b"old"}

        assert await nobody_is_on_the_canary()
        assert (await running.put_plan(plan(stable, canary, 10_000, 2)))[0] == 200
        assert await nobody_is_on_the_canary()
        assert (await running.put_plan(plan(stable, canary, 10_000, 3, lifts=["00" * 8])))[0] == 200
        assert await nobody_is_on_the_canary()
        await running.stop(signal.SIGKILL)
        await running.start()
        assert (await running.state())["latch"]["id"] == latch["id"]
        assert await nobody_is_on_the_canary()
        assert (await running.put_plan(plan(stable, canary, 10_000, 2)))[0] == 409
        assert (await running.put_plan(plan(stable, canary, 10_000, 4, lifts=[latch["id"]])))[0] == 200
        client = Client(running.port)
        assert (await client.ask("uid=1")).body == b"new"
        client.close()


async def test_a_file_of_1_gib_to_a_slow_reader_costs_no_memory(tmp_path: Path) -> None:
    """Streamed with back-pressure, never buffered whole; every byte arrives."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % GIB)
            block = bytes(range(256)) * 1024
            for _ in range(GIB // len(block)):
                writer.write(block)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with proxy(tmp_path, workers=1) as running:
        await running.put_plan(plan(port, port, 0))
        before = peak = await running.memory_kb()
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, limit=1 << 18)
        writer.write(b"GET /file HTTP/1.1\r\nHost: shop\r\nCookie: uid=1\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        received, looked = 0, 0
        while received < GIB:
            data = await reader.read(1 << 18)
            assert data
            assert data[0] == received % 256
            received += len(data)
            if received - looked >= GIB // 50:  # fifty pauses, in which the service could run ahead
                looked = received
                await asyncio.sleep(0.1)
                peak = max(peak, await running.memory_kb())
        print(f"workers' memory {before} kB before, {peak} kB at the most")
        assert peak - before < 4096
        writer.close()
    server.close()


async def test_curl_is_served(tmp_path: Path) -> None:
    """Methods, uploads with and without a length, Expect, HTTP/1.0, HEAD, a cookie jar."""

    async def curl(*arguments: str, data: bytes | None = None) -> str:
        process = await asyncio.create_subprocess_exec(
            require("curl"),
            "-sS",
            "--max-time",
            "20",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate(data)
        assert process.returncode == 0
        return out.decode()

    app = web.Application(client_max_size=1 << 26)

    async def echo(request: web.Request) -> web.Response:
        body = await request.read()
        return web.json_response(
            {
                "method": request.method,
                "path": request.path_qs,
                "bytes": len(body),
                "expect": request.headers.get("Expect"),
            }
        )

    app.router.add_route("*", "/{path:.*}", echo)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        async with proxy(tmp_path) as running:
            await running.put_plan(plan(port, port, 0, users=[{"mint": {}}]))
            url = f"http://127.0.0.1:{running.port}"
            assert '"path": "/a?b=1"' in await curl(f"{url}/a?b=1")
            assert (await curl("-I", f"{url}/a")).startswith("HTTP/1.1 200")
            assert '"bytes": 5' in await curl("-d", "hello", f"{url}/a")
            big = b"x" * 5_000_000
            chunked = ["-H", "Transfer-Encoding: chunked", "-T", "-"]
            assert '"bytes": 5000000' in await curl(*chunked, f"{url}/up", data=big)
            expecting = await curl("-H", "Expect: 100-continue", "--data-binary", "@-", f"{url}/up", data=big)
            assert '"bytes": 5000000' in expecting
            assert '"expect": "100-continue"' in expecting
            assert "200" in await curl("--http1.0", "-o", "/dev/null", "-w", "%{http_code}", f"{url}/a")
            assert "404" in await curl("-o", "/dev/null", "-w", "%{http_code}", f"{url}/.cohort/x")
            jar = str(tmp_path / "jar")
            first = await curl("-c", jar, "-b", jar, "-H", "X-Cohort-Explain: 1", "-D", "-", "-o", "/dev/null", url)
            assert "Set-Cookie: cohort_checkout=" in first
            again = await curl("-c", jar, "-b", jar, "-H", "X-Cohort-Explain: 1", "-D", "-", "-o", "/dev/null", url)
            assert "Set-Cookie" not in again
    finally:
        await runner.cleanup()


async def test_an_aiohttp_client_is_served(tmp_path: Path) -> None:
    """A pool of kept connections, concurrent uploads and downloads."""
    async with backend("old") as (_, stable), proxy(tmp_path) as running:
        await running.put_plan(plan(stable, stable, 0))
        async with aiohttp.ClientSession(f"http://127.0.0.1:{running.port}") as session:

            async def ask(number: int) -> None:
                async with session.get("/", cookies={"uid": str(number)}) as response:
                    assert (response.status, await response.text()) == (200, "old")

            async with asyncio.TaskGroup() as tasks:
                for number in range(500):
                    tasks.create_task(ask(number))


@pytest.mark.parametrize("hurry", [False, True])
async def test_leaving_loses_no_request(tmp_path: Path, hurry: bool) -> None:
    """F27: during the lame duck everything is still served; clients told to close come back elsewhere."""
    settings = {"timeouts": {"lameDuck": "700ms", "drain": "5s"}}
    async with backend("old") as (_, stable), proxy(tmp_path, **settings) as running:
        await running.put_plan(plan(stable, stable, 0))
        served = 0
        leaving = asyncio.Event()

        async def ask(number: int) -> None:
            nonlocal served
            client = Client(running.port)
            began = time.monotonic()
            while not leaving.is_set() or time.monotonic() - began < 0.3:
                if not leaving.is_set():
                    began = time.monotonic()
                assert (await client.ask(f"uid={number}")).status == 200
                served += 1
            client.close()

        async with asyncio.TaskGroup() as tasks:
            for number in range(8):
                tasks.create_task(ask(number))
            await asyncio.sleep(0.3)
            process = running.program.process
            assert process is not None
            process.send_signal(signal.SIGTERM)
            if hurry:
                process.send_signal(signal.SIGTERM)
            leaving.set()
        assert served > 100
        async with asyncio.timeout(15):
            assert await process.wait() == 0
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", running.port), 1):
            pass


def test_backend_names_its_answer() -> None:
    """The tests above tell versions apart by it."""
    assert Backend("old").answer.endswith(b"\r\n\r\nold")
