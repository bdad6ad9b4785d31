"""A worker process whose data plane is scripted: ``python -m tests.support.standin BEHAVIOUR FD``.

It serves bytes that tell which process answered and under which plan. BEHAVIOUR is one word:

- ``refuses-even`` refuses plans of even generations, ``dies-staging-even`` ends while it stages them,
  ``hangs-staging-even`` blocks its loop, ``spins-staging-even`` keeps it busy;
- ``dies-at-start`` ends before it says hello, ``dies-serving`` as soon as it serves, ``hangs-leaving`` never does;
- ``none`` is none of these.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from proxy.counters import Counters
from proxy.document import DocumentError, Fault
from proxy.net.credentials import Credentials
from proxy.net.worker import Start, main
from proxy.plan import Plan
from proxy.shared import Words


class Plane:
    """The scripted data plane."""

    def __init__(self, behaviour: str, words: Words) -> None:
        self._behaviour = behaviour
        self._words = words
        self._staged: dict[int, int] = {}
        self._is_leaving = asyncio.Event()

    def stage(self, sequence: int, plan: Plan) -> None:
        if plan.generation % 2 == 0:
            if self._behaviour == "refuses-even":
                raise DocumentError([Fault("generation", "is even")])
            if self._behaviour == "dies-staging-even":
                os._exit(9)
            if self._behaviour == "hangs-staging-even":
                time.sleep(60)
            while self._behaviour == "spins-staging-even":
                pass
        self._staged[sequence] = plan.generation

    def trust(self, credentials: Credentials) -> None: ...
    async def trust_anew(self, credentials: Credentials) -> None: ...

    def discovered(self, found: dict[str, Any]) -> None: ...

    async def serve(self, sockets: list[tuple[socket.socket, int]]) -> None:
        if self._behaviour == "dies-serving":
            os._exit(8)
        servers = [await asyncio.start_server(self._answer, sock=sock.dup()) for sock, _ in sockets]
        await self._is_leaving.wait()
        for server in servers:
            server.close()
        await asyncio.Event().wait()

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        generation = self._staged.get(self._words.plan_sequence, 0)
        writer.write(f"{os.getpid()} {generation} {self._words.latch}".encode())
        writer.close()

    async def drain(self, lame_duck_s: float, drain_s: float) -> None:
        await asyncio.sleep(lame_duck_s)
        self._is_leaving.set()
        if self._behaviour == "hangs-leaving":
            await asyncio.sleep(600)

    async def retire(self, idle_s: float, drain_s: float) -> None:
        await self.drain(0, drain_s)


def make(_: Start, words: Words, counters: Counters) -> tuple[Plane, Callable[[], None]]:
    return Plane(BEHAVIOUR, words), lambda: None


if __name__ == "__main__":
    BEHAVIOUR = sys.argv.pop(1)
    if BEHAVIOUR == "dies-at-start":
        sys.exit(7)
    main(make)
