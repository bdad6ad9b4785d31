"""How the demo is put together; what it does as a whole, tests/demo/test_scenarios.py tells."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path

import pytest

from demo.console import Console
from demo.documents import Ports
from demo.processes import ChildError, start
from demo.stack import Stack, choose_ports
from demo.steering import Steering


def test_ports_that_are_taken_are_replaced() -> None:
    """The default ports where they are free; in any case four different ones, which are printed."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            free = probe.getsockname()[1]
        port = taken.getsockname()[1]
        chosen = choose_ports(Ports(port, free, 0, 0))
    assert chosen.traffic != port
    assert chosen.metrics == free
    assert len({chosen.traffic, chosen.metrics, chosen.controller, chosen.console}) == 4


async def attended(folder: Path, code: str, seconds: float) -> str:
    """What comes of some work beside a child that runs this code."""
    steering = Steering(None, "http://127.0.0.1:1", "demo", "shop")  # type: ignore[arg-type]  # never asked
    child = await start("child", [sys.executable, "-c", code], folder)
    stack = Stack(Console([], steering, "secret"), steering, Ports(1, 2, 3, 4), [child])

    async def work() -> str:
        await asyncio.sleep(seconds)
        return "done"

    try:
        return await stack.attend(work())
    finally:
        await child.stop()


async def test_work_ends_with_a_child_that_ends(tmp_path: Path) -> None:
    """A demo of which a part is gone shows nothing true: it says which, and what that said."""
    with pytest.raises(ChildError, match=r"(?s)child ended by itself with 3.*oh no"):
        await attended(tmp_path, "import sys; sys.stderr.write('oh no'); sys.exit(3)", 30)


async def test_work_that_ends_first_is_the_result(tmp_path: Path) -> None:
    """Nothing is left waiting."""
    assert await attended(tmp_path, "import time; time.sleep(30)", 0.01) == "done"
