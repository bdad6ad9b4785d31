"""Settings and programs anew without a lost connection: rehearse, become the next image, hand the clients over.

The supervisor executes itself in place: process id, listening sockets, memory and workers stay. New workers come up on
the same sockets beside the old ones, and only when every slot has one that serves are the old ones told to retire. So
there is no moment without somebody who accepts, and until that moment everything can still be as it was.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from proxy.net import handover
from proxy.net.handover import Handover
from proxy.net.keeper import Keeper
from proxy.net.rehearsal import Prepared, RehearsalError, rehearse
from proxy.net.workers import Workers
from proxy.shared import MAX_PLACES

if TYPE_CHECKING:
    from proxy.net.supervisor import Supervisor

log = logging.getLogger("cohort.reload")

SWITCH_S = 30.0  # for all new workers to serve; then it is told, and another reload may help
ROOM_S = 0.5  # between two looks whether earlier workers have left
DONE, REFUSED, STUCK = "done", "refused", "stuck"  # labels of cohort_reloads_total


class Reload:
    """Every reload of one supervisor.

    Attributes:
        counts: Reloads so far, by how they ended: done, refused, stuck (new workers did not come up in time).
        is_under_way: One is asked for or has not ended.

    Args:
        inherited: What the image before this one left: then this one has a reload to finish.
    """

    def __init__(
        self, workers: Workers, keeper: Keeper, supervisor: Supervisor, inherited: Handover | None = None
    ) -> None:
        self.counts = {DONE: 0, REFUSED: 0, STUCK: 0} | (inherited.reloads if inherited else {})
        self._workers = workers
        self._keeper = keeper
        self._supervisor = supervisor
        self._asked = asyncio.Event()
        self._is_finishing = inherited is not None
        if inherited and inherited.is_asked_again:
            self._asked.set()

    @property
    def is_under_way(self) -> bool:
        """Whether one is asked for, or new workers are on their way."""
        return self._asked.is_set() or self._is_finishing

    def ask(self) -> None:
        """Reload soon. Asked for again before it has begun, it is still one."""
        self._asked.set()

    async def run(self) -> None:
        """Finish the reload that this image began with, then carry out each that is asked for."""
        async with asyncio.TaskGroup() as tasks:
            switching = tasks.create_task(self._switch()) if self._is_finishing else None
            if switching is not None:
                await asyncio.wait([switching], timeout=SWITCH_S)
                if not switching.done():
                    self._count(STUCK)
                    log.error("reload: new workers do not come up, those of before serve on; mend it and reload again")
            while True:
                await self._asked.wait()
                self._asked.clear()  # whoever asks from here on may mean a file that was written since
                if self._supervisor.is_leaving:
                    log.warning("no reload: the proxy is leaving")
                else:
                    await self._carry_out()

    async def _switch(self) -> None:
        """Let the workers of before retire as soon as every slot has a new one that serves."""
        await self._workers.until_all_have_served()
        supervisor = self._supervisor
        supervisor.settled()
        self._workers.elders.retire(supervisor.settings.timeouts.drain)
        self._is_finishing = False
        self._count(DONE)
        log.info("reload: new workers serve, %d of before finish", len(self._workers.elders.all))

    def _count(self, how: str) -> None:
        self.counts[how] += 1

    async def _carry_out(self) -> None:
        """One reload; returns only if nothing comes of it."""
        log.info("reload: the settings are read anew")
        try:
            prepared = await rehearse(self._supervisor.document(), handover.command())
        except RehearsalError as error:
            self._count(REFUSED)
            for fault in error.faults:
                log.error("reload refused, everything stays as it is: %s", fault)
            return
        try:
            await self._become(prepared)
        except (OSError, TimeoutError) as error:
            self._count(REFUSED)
            log.error("reload failed, everything stays as it is: %s", error or "workers do not end")
        for opening in prepared.openings:
            self._supervisor.forget(opening)

    async def _become(self, prepared: Prepared) -> None:
        """Execute the next image.

        Raises:
            OSError: It cannot be executed; all is as before.
            TimeoutError: Workers that were just starting do not end.
        """
        supervisor, keeper = self._supervisor, self._keeper
        await self._room(prepared.settings["workers"])
        await supervisor.fall_silent()
        try:
            async with keeper.staging, keeper.latching:
                try:
                    document = supervisor.document(await self._workers.freeze())
                    self._execute(document, prepared)
                finally:
                    self._workers.thaw()
        finally:
            await supervisor.speak_again()

    def _execute(self, document: Handover, prepared: Prepared) -> None:
        supervisor = self._supervisor
        if supervisor.is_leaving:
            raise OSError("the proxy is leaving")
        log.info("reload: the next image takes over")
        supervisor.flush_log()
        try:
            handover.execute(
                replace(
                    document,
                    openings=(*document.openings, *handover.records(prepared.openings)),
                    settings=prepared.settings,
                    token=prepared.token,
                    credentials=prepared.credentials,
                    reloads=self.counts,
                    is_asked_again=self._asked.is_set(),
                )
            )
        finally:
            supervisor.open_log()

    async def _room(self, workers: int) -> None:
        """Wait until there are places for so many more workers: the drain limit frees them."""
        is_told = False
        while len(self._workers.live_places) + len(self._workers.elders.all) + workers > MAX_PLACES:
            if not is_told:
                log.warning("reload: waits until some of the earlier workers have left")
                is_told = True
            await asyncio.sleep(ROOM_S)
