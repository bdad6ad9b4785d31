"""One worker process on its line to the supervisor, with a scripted data plane."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy import shared
from proxy.config import ProxySettings
from proxy.net import memory
from proxy.net.credentials import Credentials
from proxy.shared import Words
from tests.support.plans import plan
from tests.support.supervised import PATIENCE_S, until

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[3]


class Line:
    """A worker process and the supervisor's end of its line."""

    def __init__(self, process: asyncio.subprocess.Process, words: Words) -> None:
        self.process = process
        self.words = words
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    def say(self, **message: Any) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")

    async def hear(self) -> Any:
        async with asyncio.timeout(PATIENCE_S):
            return json.loads(await self.reader.readline())

    async def end(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def worker(behaviour: str = "none", **settings: Any) -> AsyncIterator[Line]:
    descriptor = memory.create(shared.size(1))
    ours, theirs = socket.socketpair()
    listener = socket.create_server(("127.0.0.1", 0))
    with theirs, listener:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.standin", behaviour, str(theirs.fileno())),
            pass_fds=[theirs.fileno(), descriptor, listener.fileno()],
            cwd=ROOT,
        )
        line = Line(process, Words(memory.attach(descriptor)))
        ours.setblocking(False)
        line.reader, line.writer = await asyncio.open_unix_connection(sock=ours)
        document = ProxySettings().model_dump(mode="json", by_alias=True) | settings
        start: dict[str, Any] = {
            "slot": 0,
            "place": 0,
            "memory": descriptor,
            "listeners": [(listener.fileno(), 0)],
            "keysDir": "unused",
        }
        start["credentials"] = Credentials().document()
        line.say(start=start | {"settings": document})
        try:
            yield line
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            line.writer.close()
            os.close(descriptor)


def document(generation: int) -> Any:
    return plan(generation=generation).model_dump(mode="json", by_alias=True)


async def test_a_plan_is_acknowledged_or_refused_with_its_faults() -> None:
    """The lines of proxy.net.workers."""
    async with worker("refuses-even") as line:
        assert await line.hear() == {"hello": line.process.pid}
        line.say(stage=4, plan=document(1))
        assert await line.hear() == {"staged": 4}
        line.say(stage=5, plan=document(2))
        assert await line.hear() == {"refused": 5, "faults": [{"path": "generation", "message": "is even"}]}
        line.say(stage=6, plan=document(1) | {"generation": 0})
        answer = await line.hear()
        assert (answer["refused"], answer["faults"][0]["path"]) == (6, "generation")


async def test_it_beats_while_its_loop_turns() -> None:
    """A hung loop beats no more."""
    async with worker("hangs-staging-even") as line:
        await line.hear()
        first = line.words.heartbeat(0)

        async def beats() -> bool:
            return line.words.heartbeat(0) != first

        await until(beats)
        line.say(stage=1, plan=document(2))
        await asyncio.sleep(0.5)
        stopped = line.words.heartbeat(0)
        await asyncio.sleep(0.5)
        assert line.words.heartbeat(0) == stopped


async def test_signals_for_the_whole_group_are_left_to_the_supervisor() -> None:
    """Ctrl-C reaches every process of a terminal; the supervisor leads the way out."""
    async with worker() as line:
        await line.hear()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            line.process.send_signal(number)
        line.say(stage=1, plan=document(1))
        assert await line.hear() == {"staged": 1}


async def test_it_ends_in_order_when_it_has_drained() -> None:
    """Exit status 0, with or without having served."""
    async with worker() as line:
        await line.hear()
        line.say(serve=True)
        line.say(drain={"lameDuckS": 0.1, "drainS": 1})
        line.say(drain={"lameDuckS": 0.1, "drainS": 1})
        assert await line.end() == 0


async def test_it_ends_in_order_when_it_has_retired() -> None:
    """Others serve on."""
    async with worker() as line:
        await line.hear()
        line.say(serve=True)
        line.say(retire={"idleS": 0.1, "drainS": 1})
        assert await line.end() == 0


async def test_it_ends_when_the_supervisor_is_gone_even_while_it_drains() -> None:
    """No abort could reach it any more."""
    async with worker() as line:
        await line.hear()
        line.say(serve=True)
        line.say(drain={"lameDuckS": 60, "drainS": 60})
        line.writer.write_eof()
        assert await line.end() == 0


async def test_a_failure_of_the_data_plane_ends_the_process() -> None:
    """The supervisor starts another one; a process that serves no more must not live on."""
    async with worker("dies-serving") as line:
        await line.hear()
        line.say(serve=True)
        assert await line.end() == 8
