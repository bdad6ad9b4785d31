"""How often a controller may knock at an API server that has failed it: so that thousands do not all come at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

EVERY_S = 1.0  # between two lists or watches after a failure; reliability.md F12: no burst on return
LOOK_S = 0.05  # after a turn was given to somebody of a lower rank


class Pace:
    """Turns, one every so often, for all that wait; the lowest rank first.

    Args:
        monotonic: Seconds.
        sleep: Waits for so many of them.
        every_s: Between two turns.
    """

    def __init__(
        self, monotonic: Callable[[], float], sleep: Callable[[float], Any] = asyncio.sleep, every_s: float = EVERY_S
    ) -> None:
        self._monotonic = monotonic
        self._sleep = sleep
        self._every_s = every_s
        self._waiting: list[int] = []
        self._next = float("-inf")

    async def turn(self, rank: int) -> None:
        """Wait for one."""
        self._waiting.append(rank)
        try:
            while (left := self._next - self._monotonic()) > 0 or rank > min(self._waiting):
                await self._sleep(max(left, LOOK_S))
            self._next = self._monotonic() + self._every_s
        finally:
            self._waiting.remove(rank)
