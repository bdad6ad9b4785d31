"""One collection of the cluster, kept current: list, then watch from there, and list again when that breaks.

The API server forgets old versions (410): then everything is listed anew and takes the place of what was known at
once, so that nobody sees half a collection. On other errors the watch goes on where it stopped, after a pause that
grows with each failure and differs between replicas, and when it is its turn among the watches of this controller.
Events may come twice or in the wrong order: an object never goes back to an earlier version.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

from controller.errors import Temporary
from controller.net.kube.once import Once
from controller.net.kube.pace import Pace

PAGE = 500  # objects in one answer, as kubectl asks
WATCH_S = (30, 60)  # a watch ends by itself after so long, so a dead connection is noticed soon after
PAUSE_S, MAX_PAUSE_S = 0.2, 10.0  # after the first error, and at most
STEADY = 3  # events after which a failure counts as the first again
STEADY_S = 10.0  # or so long a watch
SOON_S = 1.0  # a watch that ends sooner has failed, whatever the server says: begun again at once it would spin
MAX_ASKED_S = 60.0  # of a server that says when to come again
TOMBSTONES = 1000  # names of removed objects that are remembered, for events that come late
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
        pace: Shared by the watches of a controller; ``rank``: who comes first, the lowest.
        monotonic: Seconds; ``sleep`` waits for so many.
    """

    def __init__(
        self,
        source: Source,
        path: str,
        changed: Callable[[], None],
        *,
        draw: Callable[[], float],
        pace: Pace | None = None,
        rank: int = 0,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Any] = asyncio.sleep,
    ) -> None:
        self.objects: Mapping[str, Object] = {}
        self.is_synced = False
        self._source = source
        self._path = path
        self._changed = changed
        self._draw = draw
        self._pace = pace or Pace(monotonic, sleep)
        self._rank = rank
        self._monotonic = monotonic
        self._sleep = sleep
        self._version = ""
        self._failures = 0
        self._removed: dict[str, str] = {}
        self._problems = Once()

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
                    self._problems.say(str(error))
                await self._sleep(self._pause(min(float(getattr(error, "after_s", 0.0)), MAX_ASKED_S)))

    def _pause(self, asked_s: float) -> float:
        """Seconds until the next attempt, at least those that the server asks for."""
        pause = min(PAUSE_S * 2.0**self._failures, MAX_PAUSE_S)
        self._failures = min(self._failures + 1, 10)
        return max(pause * (0.5 + self._draw() / 2), asked_s)

    async def _turn(self) -> None:
        """After a failure, wait until none of this controller's watches has just begun."""
        if self._failures:
            await self._pace.turn(self._rank)

    async def _list(self) -> None:
        found: dict[str, Object] = {}
        query = {"limit": str(PAGE)}
        while True:
            await self._turn()
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
        self._problems.say("")
        self._removed.clear()
        if is_new:
            self._changed()

    async def _follow(self) -> None:
        """Take events until the server ends the watch."""
        await self._turn()
        low, high = WATCH_S
        begun, seen = self._monotonic(), 0
        try:
            async for event in self._source.watch(self._path, self._version, int(low + (high - low) * self._draw())):
                self._take(event)
                seen += 1
                if seen >= STEADY:
                    self._failures = 0
        finally:
            lasted_s = self._monotonic() - begun
            if lasted_s >= STEADY_S:
                self._failures = 0
        if lasted_s < SOON_S:
            raise Temporary(f"watch {self._path}: ended by the server after {lasted_s:.1f} s")
        self._failures = 0

    def _take(self, event: Object) -> None:
        self._problems.say("")
        kind, item = event.get("type"), event.get("object") or {}
        if kind == "ERROR":
            raise _Broken(int(item.get("code") or 0), f"watch {self._path}: {item.get('message')}")
        if kind not in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK"):
            return  # of an API server to come
        version = _version(item)
        if version and not _is_earlier(version, self._version):
            self._version = version
        if kind != "BOOKMARK" and not self._is_known(item, version):
            self._put(item, version, is_there=kind != "DELETED")
            self._changed()

    def _is_known(self, item: Object, version: str) -> bool:
        """Whether as late a version of the object was seen, or its end."""
        name = _name(item)
        known = self.objects.get(name)
        latest = _version(known) if known else self._removed.get(name, "")
        return version == latest != "" or _is_earlier(version, latest)

    def _put(self, item: Object, version: str, is_there: bool) -> None:
        name = _name(item)
        others = {other: known for other, known in self.objects.items() if other != name}
        if is_there:
            self._removed.pop(name, None)
            self.objects = {**others, name: item}
            return
        if len(self._removed) >= TOMBSTONES:
            self._removed.clear()
        self._removed[name] = version
        self.objects = others


class _Broken(Temporary):
    """An error as an event."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _name(item: Object) -> str:
    return str((item.get("metadata") or {}).get("name", ""))


def _version(item: Object) -> str:
    return str((item.get("metadata") or {}).get("resourceVersion") or "")


def _is_earlier(version: str, than: str) -> bool:
    """Whether a resourceVersion is before another: numbers are compared, as since Kubernetes 1.35 clients may."""
    return version.isdecimal() and than.isdecimal() and int(version) < int(than)
