"""The API server as one controller sees it: every request and every watch passes here and is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Protocol

from controller.errors import Temporary
from controller.net.kube.client import ApiRefused
from controller.net.kube.ledger import Api
from controller.net.kube.watch import GONE, Source

OK, UNANSWERED = "ok", "none"  # results beside the status of a refusal
AT_WORK = (404, 409, 410, 422)  # refusals of a server that works, and knows who asks

Object = dict[str, Any]


class Server(Api, Source, Protocol):
    """The API server: objects, and what happens to them."""


class Meter:
    """An API server, counted.

    Attributes:
        requests: How many, by method and result: `OK`, the status of a refusal, `UNANSWERED`.
        watches: How many ended, by resource and cause: ``ended`` in order, ``gone`` because the server no longer
            knows the version, ``refused``, ``lost``.

    Args:
        server: Where requests go.
        monotonic: Seconds.
    """

    def __init__(self, server: Server, monotonic: Callable[[], float]) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        self.watches: Counter[tuple[str, str]] = Counter()
        self._server = server
        self._monotonic = monotonic
        self._heard_at = monotonic()

    @property
    def age_s(self) -> float:
        """Seconds since the server last did what it was asked for, or since the start."""
        return self._monotonic() - self._heard_at

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        kind: str = "application/json",
        limit_s: float = 5.0,
    ) -> Object:
        """One request, and the answer's document."""
        try:
            answer = await self._server.ask(method, path, body, query=query, kind=kind, limit_s=limit_s)
        except ApiRefused as error:
            self._count(method, str(error.status), is_heard=error.status in AT_WORK)
            raise
        except Temporary:
            self._count(method, UNANSWERED, is_heard=False)
            raise
        self._count(method, OK, is_heard=True)
        return answer

    def _count(self, method: str, result: str, is_heard: bool) -> None:
        self.requests[method, result] += 1
        if is_heard:
            self._heard_at = self._monotonic()

    async def watch(self, path: str, version: str, limit_s: int) -> AsyncIterator[Object]:
        """The events of a collection."""
        resource = path.rpartition("/")[2]
        try:
            async for event in self._server.watch(path, version, limit_s):
                self._heard_at = self._monotonic()
                if event.get("type") == "ERROR":  # whoever watches goes no further
                    self._end(resource, int((event.get("object") or {}).get("code") or 0))
                yield event
        except ApiRefused as error:
            self._end(resource, error.status)
            raise
        except Temporary:
            self.watches[resource, "lost"] += 1
            raise
        self.watches[resource, "ended"] += 1

    def _end(self, resource: str, status: int) -> None:
        self.watches[resource, "gone" if status == GONE else "refused"] += 1
