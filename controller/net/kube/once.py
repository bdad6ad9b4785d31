"""Problems: each is told once, however often it is found in a row, and none of them ends a controller."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

log = logging.getLogger("cohort.kube")


AGAIN_S = 1.0


async def lasting(what: str, work: Callable[[], Awaitable[None]], again_s: float = AGAIN_S) -> None:
    """Work that nothing ends but being cancelled: after a fault of ours, which is told, it begins again.

    A controller that ends itself makes its Pod unready, and takes the kill switch away.
    """
    while True:
        try:
            await work()
        except Exception:  # a task's root
            log.exception("%s failed, and begins again", what)
        await asyncio.sleep(again_s)


class Once:
    """What one part of the controller has complained of last."""

    def __init__(self) -> None:
        self._problem = ""

    def say(self, problem: str) -> None:
        """Tell a problem, unless it is the one before; empty: there is none any more."""
        if problem and problem != self._problem:
            log.warning("%s", problem)
        self._problem = problem
