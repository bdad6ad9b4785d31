"""What became of each request, and the ledger: those that ended otherwise than the fault allows. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple

# Outcome classes. `ok` is a complete answer below 400 with the right nonce, `status` a complete one from 400 up.
OUTCOMES = ("ok", "status", "refused", "reset", "truncated", "wrong nonce", "timeout")


class Row(NamedTuple):
    """One request as its client saw it. Times are seconds of the machine's monotonic clock.

    Attributes:
        kind: `get`, `new` (on a connection of its own), `post`, `upload`, `stream` or `socket`.
        intended: When it should have been sent: latency counts from here, so that a stall is not hidden.
        endpoint: What the service calls itself; empty if the answer is not a service's.
    """

    kind: str
    nonce: str
    user: str
    intended: float
    sent: float
    done: float
    outcome: str
    status: int
    arm: str
    reason: str
    generation: int
    endpoint: str
    detail: str

    @property
    def latency(self) -> float:
        """Seconds."""
        return self.done - self.intended

    @property
    def what(self) -> str:
        """The outcome in a word, with the code if it is one: `ok`, `503`, `reset`."""
        return str(self.status) if self.outcome == "status" else self.outcome


Allowed = Callable[[Row], bool]
AFTER_S = 10.0  # how long after a fault its consequences may last at most


def only(*whats: str) -> Allowed:
    """Nothing but these: outcomes, or status codes as text."""
    return lambda row: row.what in whats


def ledger(rows: Iterable[Row], begin: float, end: float, allowed: Allowed) -> list[Row]:
    """Rows outside the allowed set; what was not under way between ``begin`` and ``end`` has to be ok.

    Args:
        rows: In any order.
        begin: When the fault began.
        end: When it ended, and what may still follow from it.
        allowed: For rows under way in between.
    """
    return [row for row in rows if row.outcome != "ok" and not (row.sent <= end and row.done >= begin and allowed(row))]


def failures(rows: Iterable[Row]) -> list[Row]:
    """All that is not ok."""
    return [row for row in rows if row.outcome != "ok"]


def between(rows: Iterable[Row], begin: float, end: float = float("inf")) -> list[Row]:
    """Rows that should have been sent in this time."""
    return [row for row in rows if begin <= row.intended < end]


def short(rows: Iterable[Row]) -> list[Row]:
    """Requests without uploads, streams and sockets: those whose latency means something."""
    return [row for row in rows if row.kind in ("get", "new", "post")]


def summary(rows: Iterable[Row]) -> str:
    """Outcomes and how many of each, ``reset 3, 503 1``; empty for none."""
    return ", ".join(f"{what} {count}" for what, count in Counter(row.what for row in rows).most_common())


def percentile(values: Collection[float], share: float) -> float:
    """The value that ``share`` (0 to 1) of all do not exceed; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def p99(rows: Iterable[Row]) -> float:
    """Of the latency, in seconds."""
    return percentile([row.latency for row in rows], 0.99)


def repeated(nonces: Sequence[str]) -> list[str]:
    """What services were sent more than once."""
    return [nonce for nonce, count in Counter(nonces).items() if count > 1]
