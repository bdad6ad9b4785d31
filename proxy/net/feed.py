"""Where plans come from without anybody asking: the last good one and the plan file at the start, then the file."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from proxy import succession
from proxy.document import DocumentError
from proxy.net.keeper import Keeper, Refused
from proxy.net.planfile import POLL_S, PlanFile
from proxy.net.statedir import StateDir
from proxy.plan import Plan

log = logging.getLogger("cohort.plan")

RETRY_S = 1.0  # after a plan that was refused for no fault of its own: a full disk, workers that died
SETTLE_POLLS = 10  # a file that never rests must not keep the proxy from its start
_LAST_GOOD, _FILE, _INITIAL = "the last good plan", "the plan file", "the initial plan"


@dataclass(frozen=True, slots=True)
class Initial:
    """A plan for the very first start, read only where there is no other.

    Attributes:
        path: May be missing: then there is none.
        wait_s: How long a live plan is hoped for before this one is thought good enough for clients.
        monotonic: Seconds.
    """

    path: Path
    wait_s: float = 0.0
    monotonic: Callable[[], float] = time.monotonic


class Feed:
    """Offers plans to the keeper, one after the other.

    Args:
        file: None where plans come by the admin API alone.
        initial: None where there is no such plan.
    """

    def __init__(self, keeper: Keeper, state: StateDir, file: PlanFile | None, initial: Initial | None = None) -> None:
        self._keeper = keeper
        self._state = state
        self._file = file
        self._initial = initial
        self._start: list[tuple[Plan, str]] = []
        self._hopes: tuple[Plan, float] | None = None

    async def read(self) -> None:
        """Read what there is at the start.

        Raises:
            DocumentError: The plan file is bad, and there is no last good plan to serve instead; or the initial one is,
                and there is no other at all.
        """
        stored = await asyncio.to_thread(self._state.read_plan)
        offered = None
        if self._file is not None:
            for _ in range(SETTLE_POLLS):
                if await asyncio.to_thread(self._file.is_settled, time.time()):
                    break
                await asyncio.sleep(POLL_S)
            try:
                plan = await asyncio.to_thread(self._file.read)
            except DocumentError as error:
                if stored is None:
                    raise
                self._reject(self._file, error)
            else:
                offered = (plan, self._file.modified_s) if plan else None
        if offered is None and stored is None and await self._read_initial():
            return
        if offered is None and stored is None:
            log.warning("no plan yet: not ready, clients get 503 until there is one")
        plans = succession.at_start(stored, offered)
        self._start = [(plan, _FILE if offered and plan is offered[0] else _LAST_GOOD) for plan in plans]

    async def _read_initial(self) -> bool:
        """Take the plan for the very first start; returns whether there is one."""
        if self._initial is None:
            return False
        plan = await asyncio.to_thread(PlanFile(self._initial.path).read)
        if plan is None:
            return False
        self._start = [(plan, _INITIAL)]
        self._hopes = plan, self._initial.monotonic() + self._initial.wait_s
        return True

    @property
    def is_hoping(self) -> bool:
        """Whether there is the initial plan alone, and a live one may still come in time."""
        if self._hopes is None or self._initial is None:
            return False
        plan, until = self._hopes
        in_force = self._keeper.in_force
        is_live = in_force is not None and in_force.plan.rollout.uid != plan.rollout.uid
        if is_live or self._initial.monotonic() >= until:
            self._hopes = None
        return self._hopes is not None

    async def resume(self, path: str | None) -> None:
        """Go on in the place of another feed: offer the file's plan if it can be news.

        Args:
            path: Of the file that the other one watched.
        """
        if self._file is None:
            return
        try:
            plan = await asyncio.to_thread(self._file.read)
        except DocumentError as error:
            self._reject(self._file, error)
            return
        in_force = self._keeper.in_force
        if plan is None or in_force is None:
            is_news = plan is not None
        elif plan.rollout.uid != in_force.plan.rollout.uid:
            is_news = path != str(self._file.path.absolute())  # else it was there before what is in force now
        else:
            is_news = plan.version > in_force.plan.version
        if is_news and plan is not None and not await self._offer(plan, _FILE):
            self._file.read_again()

    async def start(self) -> None:
        """Put the newer plan in force, the other one where that is refused; again while workers are slow to come up."""
        while True:
            is_final = True
            for plan, origin in self._start:
                in_force = self._keeper.in_force
                if in_force is None or (origin is _FILE and plan.rollout.uid == in_force.plan.rollout.uid):
                    is_final = await self._offer(plan, origin) and is_final
            if is_final or self._keeper.in_force is not None:
                return
            await asyncio.sleep(RETRY_S)

    async def follow(self) -> None:
        """Offer the file's plan whenever it changes."""
        while self._file is not None:
            await asyncio.sleep(POLL_S)
            if await asyncio.to_thread(self._file.has_changed):
                try:
                    plan = await asyncio.to_thread(self._file.read)
                except DocumentError as error:
                    self._reject(self._file, error)
                else:
                    if plan is not None and not await self._offer(plan, _FILE):
                        await asyncio.sleep(RETRY_S)
                        self._file.read_again()

    async def _offer(self, plan: Plan, origin: str) -> bool:
        """Offer one plan; returns whether there is no use in offering it again."""
        try:
            await self._keeper.adopt(plan, origin, is_durable=True)
        except Refused as refused:
            return not refused.may_recover
        return True

    def _reject(self, file: PlanFile, error: DocumentError) -> None:
        self._keeper.reject("invalid", Refused(422, f"{file.path} is refused as a whole", error.faults))
