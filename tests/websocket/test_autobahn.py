"""Autobahn's cases: the verdict on a WebSocket program is the same with the proxy between as without it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from tests.support.dataplane import Proxy, plan
from tests.websocket.ends import echo_service, run_cases

# All on frames, pings, reserved bits, opcodes, fragments, UTF-8 and closing. Those on speed and on compression are the
# same again and again at other sizes, for minutes: of these some of each kind.
FRAMES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"]
SIZES = ["9.1.*", "9.2.*", "9.3.*", "9.4.*", "9.5.*", "9.6.*", "9.7.1", "9.8.1"]
DEFLATED = ["12.*.2", "13.*.2"]
Verdict = tuple[str, str, int | None]  # on messages, on the end, and the code that came with it
Verdicts = dict[str, Verdict]
Judge = Callable[[list[str]], Awaitable[Verdicts]]
TRIES = 3


async def fuzz(side: str, address: str, cases: list[str]) -> asyncio.subprocess.Process:
    """Autobahn on one side, with these cases."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.websocket.fuzz", side, address, *cases,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def told(process: asyncio.subprocess.Process) -> Verdicts:
    """What it prints at its end."""
    out, problem = await process.communicate()
    if process.returncode == -signal.SIGABRT:
        raise Aborted
    assert process.returncode == 0, problem.decode()
    return {case: tuple(verdict) for case, verdict in json.loads(out).items()}


class Aborted(Exception):
    """Autobahn itself has aborted, which it does now and then on a busy machine: it has no verdict."""


async def on_service(port: int, cases: list[str]) -> Verdicts:
    """The fuzzing client's verdicts on the service behind a port."""
    return await told(await fuzz("client", f"ws://127.0.0.1:{port}", cases))


async def on_client(server: int, port: int, cases: list[str]) -> Verdicts:
    """The fuzzing server's verdicts on our client, which reaches it by another port."""
    process = await fuzz("server", f"127.0.0.1:{server}", cases)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"listening\n"
    await run_cases(port)
    return await told(process)


async def verdicts(judge: Judge, cases: list[str]) -> Verdicts:
    """What a judge says, who may abort."""
    for _ in range(TRIES - 1):
        with contextlib.suppress(Aborted):
            return await judge(cases)
    return await judge(cases)


async def differing(cases: list[str], count: int, direct: Judge, through: Judge) -> dict[str, tuple[object, object]]:
    """The cases that never got one verdict both ways, with the verdicts that they got.

    Autobahn passes OK and NON-STRICT alike, and which of them hangs on what a program reads at once, with or without a
    proxy: where a message and the fault behind it come in one piece, the message may be answered or not. So where
    verdicts differ the case is tried again, alone, and in the end those two count as one.
    """
    both = (defaultdict(set), defaultdict(set))
    for turn in range(TRIES):
        for judge, seen in zip((direct, through), both, strict=True):
            for case, verdict in (await verdicts(judge, cases)).items():
                seen[case].add(verdict)
        assert turn or len(both[0]) == len(both[1]) == count
        cases = [case for case in both[0] if both[0][case].isdisjoint(both[1][case])]
        if not cases:
            break
    return {
        case: (both[0][case], both[1][case]) for case in cases if plain(both[0][case]).isdisjoint(plain(both[1][case]))
    }


def plain(verdicts: set[Verdict]) -> set[Verdict]:
    """Verdicts without the difference between what Autobahn passes."""
    return {("OK" if messages == "NON-STRICT" else messages, end, code) for messages, end, code in verdicts}


KINDS = pytest.mark.parametrize(
    ("cases", "count"),
    [(FRAMES, 247), (SIZES, 44), (DEFLATED, 12)],
    ids=["frames", "sizes", "compression"],
)


@KINDS
async def test_the_verdict_on_a_service_is_the_same_through_the_proxy(cases: list[str], count: int) -> None:
    """Contract item 7: what the proxy does to a WebSocket connection cannot be told from nothing."""
    async with echo_service() as port, Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        assert await differing(cases, count, partial(on_service, port), partial(on_service, proxy.port)) == {}


@KINDS
async def test_the_verdict_on_a_client_is_the_same_through_the_proxy(
    cases: list[str], count: int, free_port: Callable[[], int]
) -> None:
    """The same for a client whose service breaks the protocol in every way."""
    server = free_port()
    async with Proxy({}) as proxy:
        proxy.adopt(plan([server], []))
        assert (
            await differing(cases, count, partial(on_client, server, server), partial(on_client, server, proxy.port))
            == {}
        )
