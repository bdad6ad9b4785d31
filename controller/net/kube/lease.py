"""Who decides: the holder of a Lease, by a monotonic clock.

A holder stops acting `RENEW_SHARE` of the duration after it has sent its last renewal that succeeded. Others may take
the Lease only when they have watched it unchanged for the whole duration, each by his own clock: so the first has
stopped before a second begins, and clocks need not agree on the time of day. It is no fence against a process that was
stopped between looking at its watch and writing; that is in the object.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from controller.errors import Temporary
from controller.net.kube.once import Once

RENEW_SHARE = 2 / 3  # of the duration: as client-go's renewDeadline, 10 s of 15 s
RETRY_SHARE = 2 / 15  # likewise its retryPeriod, 2 s of 15 s
ASIDE_SHARE = 2.0  # a whole term of another one, and the time that it takes to see that he is gone
RELEASE_S = 1  # the duration of a Lease that nobody holds

log = logging.getLogger("cohort.kube")


class Asks(Protocol):
    """The API server."""

    async def ask(self, method: str, path: str, body: Any = None, *, limit_s: float = ...) -> dict[str, Any]:
        """One request, and the answer's document."""


class Elector:
    """One candidate.

    Attributes:
        holder: Who holds the Lease, as last seen; empty: nobody.

    Args:
        api: The API server.
        namespace: Of the Lease; ``name`` its own.
        identity: Of this candidate: the same after its container was restarted in the same Pod.
        duration_s: Whole seconds.
        monotonic: Seconds that count; ``wall`` Unix seconds for people.
        changed: Called when something may have changed.
    """

    def __init__(
        self,
        api: Asks,
        namespace: str,
        name: str,
        identity: str,
        duration_s: int,
        *,
        monotonic: Callable[[], float],
        wall: Callable[[], float],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.identity = identity
        self.holder = ""
        self._api = api
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._name = name
        self._duration_s = duration_s
        self._monotonic = monotonic
        self._wall = wall
        self._changed = changed
        self._until = self._aside_until = float("-inf")
        self._seen: tuple[Any, ...] = ()
        self._seen_at = 0.0
        self._problems = Once()

    @property
    def is_held(self) -> bool:
        """Whether this candidate may act, now."""
        return self._monotonic() < self._until

    async def run(self) -> None:
        """Work until cancelled, then give the Lease back."""
        try:
            while True:
                await self.look()
                await asyncio.sleep(self._duration_s * RETRY_SHARE)
        finally:
            await asyncio.shield(self.release())

    async def look(self) -> None:
        """Renew, take, or watch: one attempt."""
        was_held, before = self.is_held, self.holder
        try:
            await self._look()
            self._problems.say("")
        except Temporary as error:
            self._problems.say(f"lease {self._name}: {error}")
        if self.is_held != was_held or self.holder != before:
            log.info("lease %s is held by %s", self._name, self.holder or "nobody")
            self._changed()

    async def give_way(self) -> None:
        """Give it back, and for a while let others have it: there is something that this one cannot decide on."""
        self._aside_until = self._monotonic() + self._duration_s * ASIDE_SHARE
        await self.release()

    async def _look(self) -> None:
        if self._monotonic() < self._aside_until:
            return
        limit_s = self._duration_s * RETRY_SHARE * 2
        try:
            lease = await self._api.ask("GET", f"{self._collection}/{self._name}", limit_s=limit_s)
        except Temporary as error:
            if getattr(error, "status", 0) != 404:
                raise
            await self._write("POST", self._collection, {"metadata": {"name": self._name}}, limit_s)
            return
        spec = lease.get("spec") or {}
        self.holder = str(spec.get("holderIdentity") or "")
        if self.holder in ("", self.identity) or self._is_over(lease, spec):
            await self._write("PUT", f"{self._collection}/{self._name}", lease, limit_s)
        else:
            self._until = float("-inf")

    def _is_over(self, lease: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
        """Whether another's Lease was not renewed for its whole duration, as this candidate has watched it."""
        seen = (spec.get("holderIdentity"), spec.get("renewTime"), lease["metadata"].get("resourceVersion"))
        if seen != self._seen:
            self._seen, self._seen_at = seen, self._monotonic()
            return False
        return self._monotonic() - self._seen_at > float(spec.get("leaseDurationSeconds") or self._duration_s)

    async def _write(self, method: str, path: str, lease: dict[str, Any], limit_s: float) -> None:
        """Write the Lease as ours; its resourceVersion lets one of several win.

        Time counts from before the request: the others may see it any time after that.
        """
        sent = self._monotonic()
        spec = dict(lease.get("spec") or {})
        at = self._timestamp()
        if spec.get("holderIdentity") != self.identity:
            spec |= {"acquireTime": at, "leaseTransitions": int(spec.get("leaseTransitions") or 0) + 1}
        spec |= {"holderIdentity": self.identity, "renewTime": at, "leaseDurationSeconds": self._duration_s}
        await self._api.ask(method, path, _lease({**lease, "spec": spec}), limit_s=limit_s)
        self.holder = self.identity
        self._until = sent + self._duration_s * RENEW_SHARE

    async def release(self) -> None:
        """Let the next one take it at once, if it is ours."""
        if not self.is_held:
            return
        self._until = float("-inf")
        path = f"{self._collection}/{self._name}"
        try:
            lease = await self._api.ask("GET", path, limit_s=2.0)
            spec = lease.get("spec") or {}
            if spec.get("holderIdentity") == self.identity:
                spec = {**spec, "holderIdentity": "", "leaseDurationSeconds": RELEASE_S, "renewTime": self._timestamp()}
                await self._api.ask("PUT", path, _lease({**lease, "spec": spec}), limit_s=2.0)
                self.holder = ""
        except Temporary as error:
            log.warning("lease %s was not given back: %s", self._name, error)

    def _timestamp(self) -> str:
        return datetime.fromtimestamp(self._wall(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _lease(value: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **value}
