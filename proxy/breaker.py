"""The local breaker: when the answers of a version fail above a line, within a window of this proxy's own counters.

Only what happened within the window counts, so neither an old failure nor a lifted abort trips it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from proxy.assign import BUCKETS
from proxy.counters import Tally
from proxy.document import duration_text, percent_text
from proxy.plan import Breaker


@dataclass(frozen=True, slots=True)
class Trip:
    """Why it trips.

    Attributes:
        reason: With the figures, for people.
    """

    arm: str
    reason: str


class Window:
    """Readings of the counters over the last seconds."""

    def __init__(self) -> None:
        self._subject: Hashable = None
        self._readings: deque[tuple[float, Mapping[str, Tally]]] = deque()

    def __repr__(self) -> str:
        return f"<Window of {self._subject} readings={len(self._readings)}>"

    def restart(self) -> None:
        """What was read so far counts for nothing."""
        self._readings.clear()

    def look(self, now: float, subject: Hashable, tallies: Mapping[str, Tally], rules: Breaker) -> Trip | None:
        """Take one reading and judge.

        Args:
            now: Monotonic seconds.
            subject: Whose counters: where it changes, what was read so far counts for nothing.
            tallies: Of each arm that may trip it, since whenever; they only grow.
            rules: Of the plan.

        Returns:
            The first arm that is over the line; None if there is none.
        """
        if subject != self._subject:
            self._subject = subject
            self._readings.clear()
        readings = self._readings
        readings.append((now, tallies))
        while len(readings) > 1 and readings[1][0] <= now - rules.window:
            readings.popleft()
        before = readings[0][1]
        found = {arm: tally.since(before.get(arm)) for arm, tally in tallies.items()}
        if any(tally.answers < 0 or tally.failed < 0 for tally in found.values()):
            readings.clear()  # counted anew meanwhile
            readings.append((now, tallies))
            return None
        for arm, tally in found.items():
            if is_over(tally, rules):
                return Trip(arm, _reason(arm, tally, rules))
        return None


def is_over(tally: Tally, rules: Breaker) -> bool:
    """Whether the answers within one window cross the line, and not by the doing of a few users alone.

    Failures must have met ``minimumUsers`` users, and the one whom most met counts no more than all others together.
    """
    answers, failed = tally.answers, tally.failed
    if answers < rules.requests or not _is_crossed(failed, answers, rules):
        return False
    if rules.minimum_users == 1:
        return True
    surplus = max(0, 2 * max(tally.by_user) - failed)
    return tally.users >= rules.minimum_users and _is_crossed(failed - surplus, answers - surplus, rules)


def _is_crossed(failed: int, answers: int, rules: Breaker) -> bool:
    return failed > 0 and failed * BUCKETS >= rules.error_percent * answers


def _reason(arm: str, tally: Tally, rules: Breaker) -> str:
    share, line = percent_text(tally.failed * BUCKETS // tally.answers), percent_text(rules.error_percent)
    return (
        f"{arm}: {tally.failed} of {tally.answers} answers within {duration_text(rules.window)} failed ({share} %), "
        f"for at least {tally.users} users; the line is {line} % of at least {rules.requests}"
    )
