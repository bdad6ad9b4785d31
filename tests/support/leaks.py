"""What a test may leave behind: nothing. Open sockets, child processes and asyncio tasks, before and after."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

# A closed transport lets its socket go in a later turn of the loop, a killed child is reaped by a thread; on a busy
# machine both take their time.
GRACE_S = 2.0


def open_sockets() -> frozenset[str]:
    """Every socket of this process, as ``socket:[inode]``."""
    found = []
    for entry in os.scandir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(entry.path))
    return frozenset(link for link in found if link.startswith("socket:"))


def children() -> frozenset[int]:
    """Process ids of this process's children, zombies included."""
    lists = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            lists.append(path.read_text())
    return frozenset(int(pid) for text in lists for pid in text.split())


def left_over(look: Callable[[], frozenset[object]], before: frozenset[object]) -> frozenset[object]:
    """What ``look`` finds that was not there before and does not go away by itself."""
    deadline = time.monotonic() + GRACE_S
    while (now := look() - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    return now


async def unfinished_tasks() -> list[asyncio.Task[object]]:
    """Tasks of this loop, other than the caller's, that do not end by themselves."""
    deadline = time.monotonic() + GRACE_S
    while (tasks := asyncio.all_tasks() - {asyncio.current_task()}) and time.monotonic() < deadline:
        await asyncio.sleep(0.001)
    return list(tasks)
