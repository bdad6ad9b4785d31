"""The access log: lines stay whole whatever happens to what they are written to."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.errors import DownstreamError
from proxy.net.accesslog import MAX_WAITING_BYTES, TOGETHER, AccessLog
from tests.support.dataplane import REPLY, Proxy, plan, replies, service

LINE_BYTES = 2000
ERROR = DownstreamError(400, "x" * 900)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def fill(log: AccessLog, client: str, count: int) -> None:
    for _ in range(count):
        log.refused(1.5, client, ERROR, b"0" * 32)


def test_lines_of_two_workers_in_one_pipe_stay_whole(pipe: tuple[int, int]) -> None:
    """Workers share standard output; the reader is slow, so that the pipe is full most of the time."""
    logs = [AccessLog(pipe[1], pytest.fail) for _ in range(2)]
    for number, log in enumerate(logs):
        fill(log, str(number), 500)
    found = b""
    while found.count(b"\n") < 1000:
        found += os.read(pipe[0], 3000)
        time.sleep(0.0005)
    clients = [json.loads(line)["client"] for line in found.splitlines()]
    assert sorted(clients) == ["0"] * 500 + ["1"] * 500
    for log in logs:
        log.close()


def test_a_line_cut_short_by_a_full_disk_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F19: what finds no room is dropped and counted; the next line begins on a line of its own."""
    dropped: list[int] = []
    real: Callable[[int, bytes], int] = os.write
    room = 1500

    def write(descriptor: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(28, "No space left on device")
        written = real(descriptor, data[:room])
        room -= written
        return written

    path = tmp_path / "log"
    with path.open("wb") as file:
        monkeypatch.setattr(os, "write", write)
        log = AccessLog(file.fileno(), lambda: dropped.append(1))
        fill(log, "a", 3)
        log.flush()
        monkeypatch.setattr(os, "write", real)
        fill(log, "b", 2)
        log.close()
    lines = path.read_bytes().splitlines()
    whole = [json.loads(line)["client"] for line in lines if line.endswith(b"}")]
    assert whole == ["a", "b", "b"]
    assert len(lines) == 4
    assert len(dropped) == 2


def test_a_full_device_is_counted_and_nothing_else() -> None:
    """F19: /dev/full takes nothing."""
    dropped: list[int] = []
    with open("/dev/full", "wb", buffering=0) as full:
        log = AccessLog(full.fileno(), lambda: dropped.append(1))
        fill(log, "a", 10)
        log.close()
    assert len(dropped) == 10


def test_a_reader_that_has_stopped_holds_nobody_up(pipe: tuple[int, int]) -> None:
    """F20: adding a line never waits; what is too much is counted."""
    dropped: list[int] = []
    fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, 4096)
    log = AccessLog(pipe[1], lambda: dropped.append(1))
    fill(log, "a", 100)
    time.sleep(0.3)  # the thread is in a write that does not return
    began = time.monotonic()
    fill(log, "a", 20_000)
    assert time.monotonic() - began < 1
    assert dropped
    assert sum(map(len, log._waiting)) <= MAX_WAITING_BYTES + LINE_BYTES
    os.set_blocking(pipe[0], False)
    log._stopped = True
    while log._writer is not None and log._writer.is_alive():
        try:
            os.read(pipe[0], 65_536)
        except BlockingIOError:
            time.sleep(0.001)


async def test_lines_of_one_worker_stand_in_order_and_come_by_themselves(tmp_path: Path) -> None:
    """Those of served requests are made together; one that was refused waits for those before it."""
    path = tmp_path / "log"
    async with service(replies(REPLY)) as (_, port), Proxy({}) as proxy:
        with path.open("wb") as file:
            proxy.server._log = log = AccessLog(file.fileno(), pytest.fail)
            proxy.adopt(plan([port], []))
            for number in range(TOGETHER + 2):
                await proxy.ask(b"GET /%d HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n" % number)
            await proxy.ask(b"nonsense\r\n\r\n")
            await proxy.ask(b"GET /last HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            while b"/last" not in path.read_bytes():
                await asyncio.sleep(0.05)
            log.close()
    targets = [json.loads(line)["target"] for line in path.read_text().splitlines()]
    assert targets == [*(f"/{number}" for number in range(TOGETHER + 2)), "", "/last"]
