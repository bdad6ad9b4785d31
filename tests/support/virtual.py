"""Tasks under virtual time: a loop without sockets whose clock goes on when there is nothing left to do.

So an hour of pauses takes as long as what happens in it, and the same test takes the same turns each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
START_S = 1000.0


class _Clock:
    """Stands where a loop waits for sockets: it waits by going on with the time."""

    def __init__(self) -> None:
        self.now = START_S

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise AssertionError("everything waits for something that never comes")
        self.now += max(timeout, 0.0)
        return []

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """One loop; `time` is virtual seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Clock()

    def time(self) -> float:
        return self._selector.now

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass  # nobody calls from another thread


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; a task that is left over is an error."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(_alone(work))


async def _alone(work: Coroutine[Any, Any, T]) -> T:
    result = await work
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"still running: {left}"
    return result
