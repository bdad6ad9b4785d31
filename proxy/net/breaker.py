"""The local breaker's part that acts: looks at the shared counters four times a second, and sets the abort latch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from proxy.breaker import Trip, Window
from proxy.counters import tallies
from proxy.latch import Abort
from proxy.net.keeper import Keeper, Refused

log = logging.getLogger("cohort.breaker")

BY = "breaker"  # who aborts, as the latch and the controller tell it
LOOK_S = 0.25  # a reading of thirty series takes 50 us a worker


class LocalBreaker:
    """Aborts by itself when a version's answers fail above the plan's line. It needs nobody outside this process.

    Attributes:
        trips: Aborts so far, by arm.

    Args:
        keeper: Of the plan and the latch.
        regions: Returns the counters' regions, one a worker slot.
        now: Monotonic seconds.
    """

    def __init__(self, keeper: Keeper, regions: Callable[[], list[memoryview]], now: Callable[[], float]) -> None:
        self.trips: dict[str, int] = {}
        self._keeper = keeper
        self._regions = regions
        self._now = now
        self._window = Window()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self.look()

    async def look(self) -> None:
        """Take one reading, and abort if it says so. While an abort stands there is nothing to judge."""
        in_force = self._keeper.in_force
        plan = in_force.plan if in_force else None
        if plan is None or plan.breaker is None or plan.revision is None or self._keeper.latch is not None:
            self._window.restart()
            return
        regions = self._regions()
        arms = [arm.name for arm in plan.arms[1:]]
        self.trips = dict.fromkeys(arms, 0) | self.trips
        found = tallies(regions, plan.rollout.uid, plan.revision, arms)
        subject = (plan.rollout.uid, plan.revision, plan.breaker, len(regions))
        trip = self._window.look(self._now(), subject, found, plan.breaker)
        if trip is not None:
            await self._abort(trip)

    async def _abort(self, trip: Trip) -> None:
        try:
            await self._keeper.abort(Abort(by=BY, reason=trip.reason))
        except Refused as error:  # in force, but not on disk yet; the keeper tries again
            log.error("%s", error)
        if self._keeper.latch is not None and self._keeper.latch.by == BY:
            self.trips[trip.arm] += 1
        self._window.restart()
