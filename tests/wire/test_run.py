"""The probes behind each case and each class, and the watch, see what they are there for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.wire import oracle, run
from tests.wire.service import Service
from tests.wire.stand import Samples, Stand, samples
from tests.wire.watch import Watch

ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


def stand_of(port: int, **more: Any) -> Stand:
    """As much of a stand as a probe asks for."""
    return cast("Stand", SimpleNamespace(port=port, host=b"t", services={}, **more))


@contextlib.asynccontextmanager
async def shifted() -> AsyncIterator[int]:
    """A proxy whose queue of answers is one behind: everybody gets what the one before asked for."""
    last = b"/nobody"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal last
        head = await reader.readuntil(b"\r\n\r\n")
        before, last = last, head.split(b" ")[1]
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(before), before))
        await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def test_victims_that_get_their_own_answers_find_nothing() -> None:
    """What the next two differ from."""
    service = Service("stable")
    try:
        assert await run.probe(stand_of(service.port)) == []
    finally:
        await service.close()


async def test_a_shifted_queue_of_answers_is_seen() -> None:
    """I4: the nonce in the answer is another's."""
    async with shifted() as port:
        found = await run.probe(stand_of(port))
    assert len(found) == run.VICTIMS
    assert all(fault.startswith("I4: a victim got 200 with ") for fault in found)


async def test_a_victim_that_waits_or_is_refused_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """I4: within a second."""
    monkeypatch.setattr(run, "VICTIM_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        found = await run.probe(stand_of(port))
    assert found == ["I4: a victim got no answer within 0.05 s"] * run.VICTIMS
    found = await run.probe(stand_of(port))
    assert all("no connection" in fault for fault in found)


@pytest.mark.parametrize(
    ("clients", "pending", "descriptors", "text"),
    [
        (1, 0, 10, ""),
        (2, 0, 10, "leak: 1 client connections"),
        (1, 3, 10, "leak: 3 requests pending"),
        (1, 0, 11, "leak: 1 descriptors"),
    ],
)
async def test_what_a_class_leaves_behind_is_seen(
    monkeypatch: pytest.MonkeyPatch, clients: int, pending: int, descriptors: int, text: str
) -> None:
    """One connection is the watch's own."""
    monkeypatch.setattr(run, "LEAK_S", 0.0)

    async def metrics() -> Samples:
        none: frozenset[tuple[str, str]] = frozenset()
        return {("cohort_downstream_connections", none): clients, ("cohort_pending_requests", none): pending}

    found = await run.leaks(stand_of(0, metrics=metrics, descriptors=descriptors), 10)
    assert found == ([text] if text else [])


def test_samples_are_those_that_prometheus_reads() -> None:
    """Escapes in labels, exponents, no labels, infinity."""
    text = (
        '# HELP a Some "help".\n# TYPE a counter\na_total{x="1",y="a\\"b\\\\c\\nd {e} #f"} 1e+06\n'
        '# TYPE b gauge\nb 2.5\nb{x=""} -1.0\n'
        '# TYPE c histogram\nc_bucket{le="+Inf"} 3.0\nc_count 3.0\nc_sum 0.5\n'
    )
    expected = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples(text) == expected
    assert len(expected) == 6


@contextlib.contextmanager
def answering(pauses: list[float]) -> Iterator[int]:
    """Something that answers the watch, one time after each of these pauses, then at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    while connection.recv(4096):
                        time.sleep(pauses.pop(0) if pauses else 0.0)
                        connection.sendall(ANSWER)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
    thread.join(5)


HOARDER = "import sys; input(); kept = b'x' * (64 << 20); print(len(kept), flush=True); sys.stdin.read()"


@contextlib.contextmanager
def hoarder() -> Iterator[subprocess.Popen[str]]:
    """A process that keeps and touches 64 MiB once it is told to: its own heap has nothing that could be used again."""
    command = [sys.executable, "-c", HOARDER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def grow(process: subprocess.Popen[str]) -> None:
    """Tell it, and wait until it has."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert int(process.stdout.readline()) == 64 << 20


def told(watch: Watch, is_enough: Callable[[float, int, str], bool]) -> tuple[float, int, str]:
    """What the watch has seen once that is enough, or after half a minute."""
    deadline = time.monotonic() + 30
    while not is_enough(*watch.told()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return watch.told()


def test_a_loop_that_stands_still_and_memory_that_grows_are_seen() -> None:
    """I7: more than 100 ms, more than 8 MiB."""
    with hoarder() as process, answering([0.0, 0.5]) as port:
        watch = Watch(port, process.pid)
        watch.begin()
        watch.start()
        grow(process)
        blocked_s, growth, trouble = told(watch, lambda blocked, growth, _: blocked > 0.1 and growth > 32 << 20)
        watch.stop()
    assert trouble == ""
    assert oracle.blocked(blocked_s) != []
    assert oracle.grown(growth, trouble, is_alive=True)[0].startswith("I7: memory grew")


def test_a_proxy_that_does_not_answer_is_seen() -> None:
    """I7: alive."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    watch = Watch(port, os.getpid())
    watch.start()
    trouble = told(watch, lambda _blocked, _growth, trouble: trouble != "")[2]
    watch.stop()
    assert oracle.grown(0, trouble, is_alive=True)[0].startswith("I7: the proxy does not answer")
    assert oracle.grown(0, "", is_alive=False) == ["I7: the proxy or its worker has ended"]
