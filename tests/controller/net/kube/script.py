"""An API server that does what a test's script says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from controller.net.kube.client import ApiRefused

Object = dict[str, Any]


def thing(name: str, version: int, **more: Any) -> Object:
    return {"metadata": {"name": name, "resourceVersion": str(version)}, **more}


class Script:
    """Lists and watches, each answered by the next entry; when there is none left, whoever asks waits for ever.

    Attributes:
        asked: What was asked for, in order.
        finished: Set when a watch is asked for that is not in the script.
        now: Seconds; a number among the events of a watch is how long nothing happens.
    """

    def __init__(self, lists: list[Any], watches: list[Any]) -> None:
        self.asked: list[str] = []
        self.finished = asyncio.Event()
        self.now = 0.0
        self._lists = lists
        self._watches = watches

    async def ask(
        self, method: str, path: str, body: Any = None, *, query: Mapping[str, str] | None = None, limit_s: float = 1.0
    ) -> Object:
        self.asked.append(f"list {(query or {}).get('continue', '')}".strip())
        answer = self._lists.pop(0)
        if isinstance(answer, Exception):
            raise answer
        items, version, *more = answer
        return {"items": items, "metadata": {"resourceVersion": version, **({"continue": more[0]} if more else {})}}

    async def watch(self, path: str, version: str, limit_s: int) -> AsyncIterator[Object]:
        self.asked.append(f"watch {version}")
        if not self._watches:
            self.finished.set()
            await asyncio.Event().wait()
        for event in self._watches.pop(0):
            if isinstance(event, Exception):
                raise event
            if isinstance(event, float):
                self.now += event
                continue
            yield {"type": event[0], "object": event[1]}


GONE = ApiRefused(410, "too old")
