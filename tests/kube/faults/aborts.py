"""Whether an abort holds: from its latch until it is lifted nobody is sent to the canary. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Sent(NamedTuple):
    """One answered request. A proxy decides after it was sent, so what was sent after a latch was decided under it.

    Attributes:
        at: When its client sent it, in monotonic seconds.
        arm: That answered.
        reason: Why that one.
    """

    at: float
    arm: str
    reason: str


class Held(NamedTuple):
    """One abort.

    Attributes:
        moment: Of which fault.
        latched: When every proxy had the latch, in monotonic seconds.
        lifted: When somebody asked for it to be lifted.
    """

    moment: str
    latched: float
    lifted: float


def problems(sent: Iterable[Sent], held: Iterable[Held]) -> list[str]:
    """Requests that reached the canary under an abort, and aborts that nobody has tried."""
    rows = sorted(sent)
    told = []
    for abort in held:
        under = [row for row in rows if abort.latched <= row.at < abort.lifted]
        if wrong := [row for row in under if row.arm != "stable"]:
            told.append(f"{abort.moment}: {len(wrong)} of {len(under)} requests: {wrong[:3]}")
        if not under:
            told.append(f"{abort.moment}: nobody came while it stood")
    return told
