"""One collection of the cluster, kept current: list, then watch from there, and list again when that breaks.

The API server forgets old versions (410): then everything is listed anew and takes the place of what was known at
once, so that nobody sees half a collection. On other errors the watch goes on where it stopped, after a pause that
grows with each failure and differs between replicas.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

from controller.errors import Temporary

PAGE = 500  # objects in one answer, as kubectl asks
WATCH_S = (30, 60)  # a watch ends by itself after so long, so a dead connection is noticed soon after
PAUSE_S, MAX_PAUSE_S = 0.2, 10.0  # after the first error, and at most
STEADY = 3  # events after which a failure counts as the first again
GONE = 410
LIST_S = 30.0

log = logging.getLogger("cohort.kube")

Object = dict[str, Any]


class Source(Protocol):
    """Where collections come from."""

    async def ask(
        self, method: str, path: str, body: Any = None, *, query: Mapping[str, str] | None = None, limit_s: float = ...
    ) -> Object:
        """One request, and the answer's document."""

    def watch(self, path: str, version: str, limit_s: int) -> AsyncIterator[Object]:
        """The events since a version."""


class Watch:
    """One collection.

    Attributes:
        objects: By name, as they are now; never changed in place.
        is_synced: Whether they were ever listed.

    Args:
        source: The API server.
        path: Of the collection, with its namespace.
        changed: Called after each change.
        draw: A number from 0 to 1, for pauses and time-outs.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        source: Source,
        path: str,
        changed: Callable[[], None],
        *,
        draw: Callable[[], float],
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self.objects: Mapping[str, Object] = {}
        self.is_synced = False
        self._source = source
        self._path = path
        self._changed = changed
        self._draw = draw
        self._sleep = sleep
        self._version = ""
        self._failures = 0

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._follow()
            except Temporary as error:
                if getattr(error, "status", 0) == GONE:
                    log.info("%s: listing anew: %s", self._path, error)
                    self._version = ""
                else:
                    log.warning("%s", error)
                await self._sleep(self._pause())

    def _pause(self) -> float:
        """Seconds until the next attempt."""
        pause = min(PAUSE_S * 2.0**self._failures, MAX_PAUSE_S)
        self._failures = min(self._failures + 1, 10)
        return pause * (0.5 + self._draw() / 2)

    async def _list(self) -> None:
        found: dict[str, Object] = {}
        query = {"limit": str(PAGE)}
        while True:
            page = await self._source.ask("GET", self._path, query=query, limit_s=LIST_S)
            for item in page.get("items") or ():
                found[_name(item)] = item
            metadata = page.get("metadata") or {}
            if not (more := metadata.get("continue")):
                break
            query = {"limit": str(PAGE), "continue": more}
        self._version = str(metadata.get("resourceVersion", ""))
        is_new = found != self.objects or not self.is_synced
        self.objects, self.is_synced = found, True
        if is_new:
            self._changed()

    async def _follow(self) -> None:
        """Take events until the server ends the watch."""
        low, high = WATCH_S
        seen = 0
        async for event in self._source.watch(self._path, self._version, int(low + (high - low) * self._draw())):
            self._take(event)
            seen += 1
            if seen >= STEADY:
                self._failures = 0
        self._failures = 0

    def _take(self, event: Object) -> None:
        kind, item = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            raise _Broken(int(item.get("code") or 0), f"watch {self._path}: {item.get('message')}")
        version = (item.get("metadata") or {}).get("resourceVersion")
        if kind in ("ADDED", "MODIFIED"):
            self.objects = {**self.objects, _name(item): item}
        elif kind == "DELETED":
            self.objects = {name: known for name, known in self.objects.items() if name != _name(item)}
        elif kind != "BOOKMARK":
            return  # of an API server to come
        if version:
            self._version = str(version)
        if kind != "BOOKMARK":
            self._changed()


class _Broken(Temporary):
    """An error as an event."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _name(item: Object) -> str:
    return str((item.get("metadata") or {}).get("name", ""))
