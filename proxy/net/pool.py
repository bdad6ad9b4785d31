"""Endpoints, the idle connections to them, and the room that an arm has: every operation of a request is O(1)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from proxy.standing import EJECTED, GOOD, PROBATION, REFUSING, Standing

if TYPE_CHECKING:
    from proxy.net.upstream import Upstream

SCAN: Final = 8  # up to here the least-loaded endpoint is found by looking at all; beyond, by the best of three drawn
LAST_RESORT_S = 1.0  # how soon an arm that is down is probed, whatever the back-off says


class Endpoint:
    """One address and its connections, shared by all plans that name the address and want the same proof of it.

    Attributes:
        arm: The arm that names it, the latest where several do.
        active: Exchanges under way, those that still connect included.
        idle: Connections ready for use, oldest first; a dictionary as an ordered set.
        is_healthy: The verdict of active checks, True without.
        is_probed: A connection is being tried.
        server_name: What it must prove to be by TLS; None: it is spoken to without.
        plans: Plans in use that name this endpoint; 0 means that connections are closed after use.
        since: When it came into use, or back, in loop time; its share grows from here.
        standing: What this worker's requests say of it.
    """

    __slots__ = (
        "active", "address", "arm", "idle", "is_healthy", "is_probed", "plans", "port", "server_name", "since",
        "standing", "text",
    )  # fmt: skip

    def __init__(self, address: str, port: int, server_name: str | None = None) -> None:
        self.address = address
        self.port = port
        self.server_name = server_name
        self.text = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        self.arm = ""
        self.active = 0
        self.idle: dict[Upstream, None] = {}
        self.is_healthy = True
        self.is_probed = False
        self.plans = 0
        self.since = 0.0
        self.standing = Standing()

    def __repr__(self) -> str:
        return f"<Endpoint {self.text} {self.standing} active={self.active} idle={len(self.idle)} plans={self.plans}>"

    def enlist(self, arm: str, now: float) -> None:
        """One plan more names this endpoint; the first one finds it as good as new."""
        if not self.plans:
            self.standing = Standing()
            self.since = now
        self.plans += 1
        self.arm = arm

    def checked(self, is_healthy: bool, now: float) -> None:
        """What active checks say; one that they bring back starts slowly."""
        if is_healthy and not self.is_healthy:
            self.since = now
        self.is_healthy = is_healthy

    def take(self) -> Upstream | None:
        """The connection used last, which the service is least likely to have closed, or None."""
        return self.idle.popitem()[0] if self.idle else None

    def give(self, connection: Upstream) -> None:
        """Put a connection back whose last response was complete."""
        self.idle[connection] = None

    def retire(self) -> None:
        """One plan fewer names this endpoint; the last one closes what is idle."""
        self.plans -= 1
        if not self.plans:
            self.clear()

    def clear(self) -> None:
        """Close what is idle."""
        while connection := self.take():
            connection.close()


def usable(endpoints: Sequence[Endpoint], panic_percent: int, soon: float) -> list[Endpoint]:
    """The endpoints of one arm that requests may use.

    Args:
        endpoints: All of the arm.
        panic_percent: Where fewer than this share are in good standing, something else than the endpoints is likely to
            blame: all are used that can be reached at all.
        soon: When to probe the rest if there are none, in loop time.

    Returns:
        Those in good standing; or all that can be reached; or those that at least refuse at once; or none.
    """
    found = [e for e in endpoints if e.is_healthy and not e.standing.is_out]
    if len(found) * 100 >= panic_percent * len(endpoints):
        return found
    found = [e for e in endpoints if e.standing.state in (GOOD, EJECTED, PROBATION)]
    if not found:
        for endpoint in endpoints:
            endpoint.standing.hurry(soon)
        found = [e for e in endpoints if e.standing.state == REFUSING]
    return found


def least_loaded(endpoints: Sequence[Endpoint], avoid: Endpoint | None) -> Endpoint | None:
    """The endpoint with the fewest exchanges under way; ties are drawn.

    Args:
        endpoints: Of one arm.
        avoid: The one that just failed; used only if there is no other.

    Returns:
        None if there are no endpoints. Cost: O(1) for one endpoint and for more than `SCAN`.
    """
    count = len(endpoints)
    if count <= 1:
        return endpoints[0] if count else None
    drawn = endpoints if count <= SCAN else random.sample(endpoints, 3)
    least = min(endpoint.active for endpoint in drawn if endpoint is not avoid)
    found = [endpoint for endpoint in drawn if endpoint.active == least and endpoint is not avoid]
    return found[int(random.random() * len(found))]  # noqa: S311  # spreads load, guards nothing


def admitted(endpoints: Sequence[Endpoint], now: float, slow_start_s: float) -> list[Endpoint]:
    """Those of usable endpoints that this one request may use: newcomers by a growing chance, one request at a time on
    probation; all of them if that leaves none.
    """
    found = []
    for endpoint in endpoints:
        age = now - endpoint.since
        if endpoint.standing.state == PROBATION and endpoint.active:
            continue
        if age < slow_start_s and random.random() * slow_start_s > age:  # noqa: S311  # spreads load, guards nothing
            continue
        found.append(endpoint)
    return found or list(endpoints)


class Waiter(Protocol):
    """Who waits for room: a request, or a copy of one."""

    def admitted(self) -> None:
        """There is room now."""


class Room:
    """What one arm may use of its service at once in this worker, under whatever plan.

    Attributes:
        busy: Requests that have an endpoint, those that still connect included.
        connects: Connections that may be opened before the next sweep.
        most_busy, most_waiting, connects_per_s: The limits.
        waiting: Requests that wait for room, in order.
    """

    __slots__ = ("busy", "connects", "connects_per_s", "most_busy", "most_waiting", "waiting")

    def __init__(self, most_busy: int, most_waiting: int, connects_per_s: int) -> None:
        self.busy = 0
        self.most_busy = most_busy
        self.most_waiting = most_waiting
        self.connects_per_s = connects_per_s
        self.connects = 0.0
        self.refill(0.0)
        self.waiting: dict[Waiter, None] = {}

    @property
    def is_full(self) -> bool:
        """Whether as many requests wait as may."""
        return len(self.waiting) >= self.most_waiting

    def refill(self, seconds: float) -> None:
        """So much time has passed: as many connections may be opened from now; what was not used is not saved up."""
        self.connects = max(1.0, self.connects_per_s * seconds)

    def admit(self) -> None:
        """Let those go on that there is room for."""
        while self.waiting and self.busy < self.most_busy:
            relay = next(iter(self.waiting))
            del self.waiting[relay]
            relay.admitted()
            if relay in self.waiting:  # no connection to be had: it is the last in the line now
                return
