"""Endpoints and the idle connections to them: one dictionary an endpoint, every operation O(1)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.net.upstream import Upstream

SCAN = 8  # up to here the least-loaded endpoint is found by looking at all; beyond, by the better of two drawn


class Endpoint:
    """One address and its connections, shared by all plans that name the address.

    Attributes:
        arm: The arm that names it, the latest where several do.
        active: Exchanges under way, those that still connect included.
        idle: Connections ready for use, oldest first; a dictionary as an ordered set.
        plans: Plans in use that name this endpoint; 0 means that connections are closed after use.
    """

    __slots__ = ("active", "address", "arm", "idle", "plans", "port", "text")

    def __init__(self, address: str, port: int) -> None:
        self.address = address
        self.port = port
        self.text = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        self.arm = ""
        self.active = 0
        self.idle: dict[Upstream, None] = {}
        self.plans = 0

    def __repr__(self) -> str:
        return f"<Endpoint {self.text} active={self.active} idle={len(self.idle)} plans={self.plans}>"

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
            while connection := self.take():
                connection.close()


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
    if count <= SCAN:
        start = random.randrange(count)  # noqa: S311  # spreads load, guards nothing
        drawn = [*endpoints[start:], *endpoints[:start]]
    else:
        drawn = random.sample(endpoints, 3)
    return min((endpoint for endpoint in drawn if endpoint is not avoid), key=_load)


def _load(endpoint: Endpoint) -> int:
    return endpoint.active
