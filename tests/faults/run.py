"""One fault's run: how long and how hard, where its files are, and what it has to show."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.faults.check import Check
from tests.faults.ledger import AFTER_S, Allowed, Row, failures, ledger, percentile, short, summary
from tests.faults.load import Mix
from tests.faults.stand import Stand
from tests.integration.programs import RealProxy

# Memory that is flat: two workers take 7 MiB each within their first minutes under load (users, heads, buffers) and
# then no more, however long; the soak looks at slopes.
FLAT_MIB = 14.0


BUSY = 3.0  # in CI other tests run meanwhile


@dataclass(frozen=True)
class Scale:
    """Full length, or what CI has time for."""

    is_short: bool = False

    def pick(self, full: float, short: float) -> float:
        """One of the two."""
        return short if self.is_short else full

    @property
    def rate(self) -> float:
        """Requests a second: the fault table's, below half of the capacity measured on one core."""
        return self.pick(300, 100)

    @property
    def loss_s(self) -> float:
        """How long a load has to last for "0 lost" to mean something: 30,000 requests at full length."""
        return self.pick(101, 3)

    @property
    def after_s(self) -> float:
        """How long after a fault its consequences are waited for."""
        return self.pick(AFTER_S, 1)


@dataclass
class Run:
    """What a fault's function is given."""

    folder: Path
    scale: Scale = Scale()
    check: Check = field(default_factory=Check)

    def __post_init__(self) -> None:
        self.check.slack = self.scale.pick(1, BUSY)

    @contextlib.asynccontextmanager
    async def stand(
        self,
        stable: int = 3,
        canary: int = 1,
        proxies: int = 1,
        workers: int = 2,
        prefix: Sequence[str] = (),
        **settings: Any,
    ) -> AsyncIterator[Stand]:
        """Services, proxies and a plan, all running; two workers as the machine has two cores."""
        keys = self.folder / "keys"
        made = [
            RealProxy(self.folder / f"proxy-{number}", workers, keys, prefix=prefix, **settings)
            for number in range(proxies)
        ]
        stand = Stand(self.folder, self.mix(), (stable, canary), made, keys)
        try:
            await stand.start()
            yield stand
        finally:
            await stand.close()

    def mix(self) -> Mix:
        """The table's mix; in CI long requests are shorter."""
        long = self.scale.pick(1, 0.1)
        return Mix([], self.scale.rate, upload_s=8 * long, stream_s=10 * long)

    def no_loss(self, rows: Sequence[Row]) -> None:
        """0 lost: every request is ok."""
        lost = failures(rows)
        if self.scale.is_short:
            self.check.says("requests", len(rows))
        else:
            self.check.at_least("requests", len(rows), 30_000)
        self.check.exactly("lost", len(lost), 0)
        self._tell(lost)

    def losses(self, rows: Sequence[Row], begin: float, end: float, allowed: Allowed, name: str = "ledger") -> None:
        """Nothing but what is allowed between ``begin`` and ``end``, nothing at all at other times."""
        outside = ledger(rows, begin, end, allowed)
        self.check.says("requests", len(rows))
        self.check.exactly(name, len(outside), 0)
        self._tell(outside)

    def quick(self, name: str, rows: Sequence[Row], limit_ms: float, before: Sequence[Row]) -> None:
        """The p99 of short requests is within a limit.

        In CI it is the median, as some dozen requests on a busy machine have no p99 to speak of; and where even the
        time before is slow, twice that.
        """
        part = self.scale.pick(0.99, 0.5)
        value, usual = (percentile([row.latency for row in short(some)], part) * 1000 for some in (rows, before))
        limit_ms = max(limit_ms, 2 * usual) if self.scale.is_short else limit_ms
        self.check.at_most(f"{name} p{part * 100:.0f}".strip(), value, limit_ms, "ms")

    def steady(self, name: str, before: Sequence[Row], during: Sequence[Row], share: float) -> None:
        """The p99 of short requests has not grown by more than a share, and what this machine's own noise adds.

        Some hundred requests have no p99 to speak of, so that CI looks at the p90, with room for a machine that does
        other things: what waits for a fault does so for seconds.
        """
        part = self.scale.pick(0.99, 0.9)
        usual, now = (
            percentile([row.latency for row in short(rows) if row.outcome == "ok"], part) * 1000
            for rows in (before, during)
        )
        self.check.says(f"{name} p{part * 100:.0f} before", usual, "ms")
        self.check.at_most(f"{name} p{part * 100:.0f}", now, usual * (1 + share) + self.scale.pick(10, 500), "ms")

    def _tell(self, rows: Sequence[Row]) -> None:
        if rows:
            self.check.note(summary(rows))
            self.check.note("; ".join(str(row) for row in rows[:3]))


@dataclass(frozen=True)
class Fault:
    """One row of the table.

    Attributes:
        what: What is injected.
        required: What has to be, in the table's words.
    """

    what: str
    required: str
    inject: Callable[[Run], Awaitable[None]]
