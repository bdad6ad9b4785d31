"""Faults of the proxy's own processes and of its clients: leaving, crashing, resets. F27, F30, F31."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import time

from tests.faults.ledger import failures
from tests.faults.run import Fault, Run
from tests.faults.stand import Load, Stand, descriptors
from tests.integration.programs import RealProxy, until
from tests.support import dataplane

RESET = struct.pack("ii", 1, 0)


async def rolling_restart(run: Run) -> None:
    """F27: two proxies, one after the other told to leave; clients hear of it later than the proxy."""
    duck_s, told_s = run.scale.pick(5, 1.2), run.scale.pick(2, 0.6)
    drain_s = run.scale.pick(15, 3)  # a stream of 10 s may finish
    timeouts = {"lameDuck": f"{duck_s:g}s", "drain": f"{drain_s:g}s"}
    async with run.stand(proxies=2, workers=1, timeouts=timeouts) as stand:
        async with stand.load() as load:
            await asyncio.sleep(1)
            began = time.monotonic()
            for _ in range(round(run.scale.pick(2, 1))):
                for proxy in stand.proxies:
                    await _leave_and_return(run, stand, proxy, load, duck_s, told_s, drain_s)
            await asyncio.sleep(max(0.0, began + run.scale.loss_s - time.monotonic()))
        run.no_loss(load.rows)
        closed = [row.detail for row in load.rows if row.kind == "socket" and row.detail]
        run.check.at_least("WebSockets that got a close", len(closed), 1)
        run.check.says("their codes", ", ".join(sorted(set(closed))))


async def _leave_and_return(
    run: Run, stand: Stand, proxy: RealProxy, load: Load, duck_s: float, told_s: float, drain_s: float
) -> None:
    check = run.check
    process = proxy.program.process
    assert process is not None
    idle, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: shop\r\nX-Nonce: idle\r\n\r\n")
    first = await idle.readuntil(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 200"), first
    process.send_signal(signal.SIGTERM)
    told = time.monotonic()
    process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.1)
    check.exactly("ready while leaving", (await proxy.state())["ready"], wanted=False)
    await asyncio.sleep(told_s - 0.1)
    load.change(ports=[other.port for other in stand.proxies if other is not proxy])
    async with asyncio.timeout(40):
        await idle.read()
    check.at_least("idle connection closed after", time.monotonic() - told, duck_s - 0.1, "s")
    writer.close()
    async with asyncio.timeout(60):
        status = await process.wait()
    check.exactly("exit status", status)
    check.at_most("left after", time.monotonic() - told, duck_s + drain_s + 3, "s")
    await proxy.stop()
    await proxy.start()
    load.change(ports=[other.port for other in stand.proxies])
    await asyncio.sleep(0.5)


# Imported by the interpreter of each worker at its start: a defect that strikes on a word in the data.
DEFECT = """
import sys

if "proxy.net.worker" in sys.orig_argv:
    from proxy.net import downstream, upstream

    def broken(cls, word, server):
        sound = cls.buffer_updated

        def buffer_updated(self, nbytes):
            if word in bytes(server(self).read_buffer[:nbytes]):
                raise RuntimeError("a defect in a callback")
            sound(self, nbytes)

        cls.buffer_updated = buffer_updated

    broken(downstream.Downstream, b"defect-in-request", lambda self: self.server)
    broken(upstream.Upstream, b"defect-in-answer", lambda self: self._server)
"""


async def crashes(run: Run) -> None:
    """F30: workers SIGKILL one after another; then exceptions in callbacks, on each side."""
    check = run.check
    (run.folder / "defect").mkdir()
    (run.folder / "defect" / "sitecustomize.py").write_text(DEFECT)
    kills: list[float] = []
    async with run.stand(prefix=("env", f"PYTHONPATH={run.folder / 'defect'}")) as stand:
        async with stand.load() as load:
            await asyncio.sleep(1)
            began = time.monotonic()
            for number in range(round(run.scale.pick(4, 1))):
                started_s, serves_s = await _kill_worker(stand, number % 2, kills)
                check.at_most("next worker started after", started_s, 1, "s")
                check.at_most("serves after", serves_s, run.scale.pick(3, 6), "s")
                await asyncio.sleep(run.scale.pick(32, 0.5))  # beyond the back-off for those that die young
            crashed = time.monotonic()
            ends = [await _strike(stand.proxy.port, word) for word in ("defect-in-request", "defect-in-answer")]
            await asyncio.sleep(max(1.0, began + run.scale.loss_s - time.monotonic()))
        lost = failures(load.rows)
        # What a client had sent on a connection of the killed worker, or sends before it hears of its end.
        stray = [row for row in lost if not any(row.sent <= at + 0.05 and row.done >= at for at in kills)]
        check.says("requests", len(load.rows))
        check.exactly("lost that were not in flight at a kill", len(stray))
        check.says("lost", len(lost))
        check.exactly("lost after an exception", sum(row.sent > crashed for row in lost))
        check.exactly("ends of the two requests", ends, ["closed", "502"])
        check.exactly("restarts", sum(w["restarts"] for w in (await stand.proxy.state())["workers"]), len(kills))
        for row in stray[:3]:
            check.note(str(row))


async def _kill_worker(stand: Stand, slot: int, kills: list[float]) -> tuple[float, float]:
    """Seconds until the next one was started, and until it served."""
    before = (await stand.proxy.state())["workers"][slot]["pid"]
    kills.append(time.monotonic())
    os.kill(before, signal.SIGKILL)

    async def is_started() -> bool:
        return (await stand.proxy.state())["workers"][slot]["pid"] not in (None, before)

    async def serves() -> bool:
        worker = (await stand.proxy.state())["workers"][slot]
        return worker["pid"] not in (None, before) and bool(worker["plan"])

    await until(is_started, every=0.01)
    started = time.monotonic() - kills[-1]
    await until(serves, every=0.01)
    return started, time.monotonic() - kills[-1]


async def _strike(port: int, word: str) -> str:
    """A request with a word that the defect strikes on, in its head and in its echo; how it ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /echo/{word} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n".encode())
    try:
        async with asyncio.timeout(5):
            head = await reader.read()
        return head.split(b" ")[1].decode() if head else "closed"
    except OSError:
        return "closed"
    except TimeoutError:
        return "hangs"
    finally:
        writer.close()


# --- resets


def _request(method: str, nonce: str, body: int) -> bytes:
    length = f"Content-Length: {body}\r\n" if body else ""
    return f"{method} / HTTP/1.1\r\nHost: shop\r\nX-Nonce: {nonce}\r\n{length}\r\n".encode() + b"b" * body


async def _reset_in_request(port: int, request: bytes, offset: int) -> None:
    """Send so many bytes, then RST."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request[:offset])
    await asyncio.sleep(0.01)
    _reset(writer)


async def _reset_in_answer(port: int, request: bytes, offset: int) -> None:
    """Read so many bytes, then RST."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    with contextlib.suppress(asyncio.IncompleteReadError, OSError):
        async with asyncio.timeout(10):
            await reader.readexactly(offset)
    _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def _sweep(port: int, step: int) -> int:
    """RST at every offset of a POST, and of a GET's answer that drips; returns how many."""
    post, get = _request("POST", "p", 600), _request("GET", "g", 0)
    attempts = [(_reset_in_request, post, offset) for offset in range(0, len(post) + 1, step)]
    attempts += [(_reset_in_answer, get, offset) for offset in range(0, ANSWER_BYTES + 1, step)]
    room = asyncio.Semaphore(40)

    async def one(number: int) -> None:
        act, data, offset = attempts[number]
        async with room:
            await act(port, data, offset)

    await asyncio.gather(*map(one, range(len(attempts))))
    return len(attempts)


ANSWER_BYTES = 700  # head and body as they reach the client are some bytes more


async def client_resets(run: Run) -> None:
    """F31: of a real proxy from outside, and of a data plane in this process from inside."""
    check = run.check
    step = round(run.scale.pick(1, 29))
    timeouts = {"upstreamKeepAlive": "1s", "lameDuck": "0s", "drain": "1s"}
    async with run.stand(workers=1, timeouts=timeouts) as stand:
        (worker,) = await stand.workers()
        for service in stand.services:
            await service.behave(mode="drip")
        baseline = descriptors(worker)
        count = await _sweep(stand.proxy.port, step)
        swept = time.monotonic()

        async def is_as_before() -> bool:
            return descriptors(worker) <= baseline

        with contextlib.suppress(TimeoutError):
            await until(is_as_before, 10)
        check.says("resets", count)
        # What is idle in the pool may stay for its keep-alive of 1 s, and is looked for four times a second.
        check.at_most("descriptors back after", time.monotonic() - swept, 2, "s")
        check.exactly("descriptors more than before", max(0, descriptors(worker) - baseline))
        check.exactly("connections counted", int(await stand.metric("cohort_downstream_connections")))
        await asyncio.sleep(0.3)
        check.exactly("requests pending", int(await stand.metric("cohort_pending_requests")))
        check.exactly("restarts", (await stand.proxy.state())["workers"][0]["restarts"])
    await _swept_inside(run, max(step, 3))


async def _swept_inside(run: Run, step: int) -> None:
    settings = {"timeouts": {"upstreamKeepAlive": "1s"}}
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 600\r\n\r\n"

    async def drip(running: dataplane.Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await running.read_head(reader)
            if b"POST" in head:
                await reader.readexactly(600)
            for at in range(0, 640, 32):
                writer.write((answer + b"d" * 600)[at : at + 32])
                await writer.drain()
                await asyncio.sleep(0.001)

    def handler(running: dataplane.Service) -> dataplane.Handler:
        return lambda reader, writer: drip(running, reader, writer)

    async with dataplane.service(handler) as (_, port), dataplane.Proxy(settings) as proxy:
        proxy.adopt(dataplane.plan([port], [port]))
        await asyncio.sleep(0.1)
        service_tasks = len(asyncio.all_tasks())
        await _sweep(proxy.port, step)
        end = time.monotonic() + 2
        while time.monotonic() < end and (proxy.server.connections or proxy.server.upstreams):
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.1)
        run.check.exactly("connections and pool", len(proxy.server.connections) + len(proxy.server.upstreams))
        run.check.at_most("tasks", len(asyncio.all_tasks()), service_tasks)


FAULTS = {
    "F27": Fault(
        "rolling restart of two proxies",
        "not ready at once, serves through the lame duck, a second SIGTERM changes nothing, exit 0; 0 lost, WebSockets "
        "get a close",
        rolling_restart,
    ),
    "F30": Fault(
        "a worker SIGKILL; an exception in a callback",
        "the next worker within 1 s; lost at most what it had in flight; an exception costs its own connection",
        crashes,
    ),
    "F31": Fault("client RST at every offset", "descriptors, tasks and pool as before within 2 s", client_resets),
}
