"""What one worker thinks of one endpoint: passive ejection with back-off, decided by what happened to real requests.

An endpoint is judged by whether it answers, never by what: a 5xx is evidence about a version, and hiding the endpoint
would hide the evidence. States are integers and events are methods; the table says the same as the methods, and a test
holds every method against it in every state. Time is the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# States.
GOOD: Final = 0
EJECTED: Final = 1  # it can be reached but failed too often; used again when too few others are left
REFUSING: Final = 2  # no connection, and it said so at once: worth a try where there is nothing better
SILENT: Final = 3  # no connection in time: never tried by a request
PROBATION: Final = 4  # a connection could be made again; one request at a time until the first answer

# (state, event) -> states that may follow.
TRANSITIONS: dict[tuple[int, str], frozenset[int]] = {
    **{(state, "answered"): frozenset({GOOD}) for state in range(5)},
    (GOOD, "failed"): frozenset({GOOD, EJECTED}),
    (PROBATION, "failed"): frozenset({EJECTED}),
    (EJECTED, "failed"): frozenset({EJECTED}),
    (REFUSING, "failed"): frozenset({REFUSING}),
    (SILENT, "failed"): frozenset({SILENT}),
    **{(state, "unreachable"): frozenset({REFUSING, SILENT}) for state in range(5)},
    **{(state, "reached"): frozenset({PROBATION}) for state in (EJECTED, REFUSING, SILENT)},
    (GOOD, "reached"): frozenset({GOOD}),
    (PROBATION, "reached"): frozenset({PROBATION}),
}


@dataclass(frozen=True, slots=True)
class Rules:
    """When and for how long: ``failures`` in a row eject; seconds of the first ejection, doubled up to the longest."""

    failures: int
    first_s: float
    longest_s: float


class Standing:
    """One endpoint's.

    Attributes:
        state: One of the above.
        failures: In a row; not 0 in every state but GOOD, so that one look tells whether an answer changes anything.
        until: When the endpoint is to be probed, in the caller's monotonic seconds; meaningless in GOOD and PROBATION.
    """

    __slots__ = ("_ejections", "_good_since", "failures", "state", "until")

    def __init__(self) -> None:
        self.state = GOOD
        self.failures = 0
        self.until = 0.0
        self._ejections = 0
        self._good_since = 0.0

    def __repr__(self) -> str:
        return f"<Standing {('good', 'ejected', 'refusing', 'silent', 'on probation')[self.state]} {self.failures}>"

    @property
    def is_out(self) -> bool:
        """Not to be used while there are enough others."""
        return EJECTED <= self.state <= SILENT

    def answered(self, now: float) -> None:
        """A response head came: whatever was, is forgiven; how often, is not, for a while."""
        if self.state != GOOD:
            self.state, self._good_since = GOOD, now
        self.failures = 0

    def failed(self, now: float, rules: Rules, spread: float) -> None:
        """A request got no complete answer: reset, broken protocol, truncation or time-out.

        Args:
            now: Monotonic seconds.
            rules: In force.
            spread: A factor around 1, drawn, so that not all workers probe at once.
        """
        self.failures += 1
        if self.state == PROBATION or (self.state == GOOD and self.failures >= rules.failures):
            self._out(EJECTED, now, rules, spread)

    def unreachable(self, refused: bool, now: float, rules: Rules, spread: float) -> None:
        """A connection could not be made, neither for a request nor as a probe. Arguments as of `failed`."""
        self.failures += 1
        self._out(REFUSING if refused else SILENT, now, rules, spread)

    def reached(self) -> None:
        """A probe could connect."""
        if self.is_out:
            self.state = PROBATION

    def hurry(self, at: float) -> None:
        """Be probed no later than this: there is nothing else to use."""
        self.until = min(self.until, at)

    def _out(self, state: int, now: float, rules: Rules, spread: float) -> None:
        if self.state == GOOD and now - self._good_since > 2 * rules.longest_s:
            self._ejections = 0
        was_due = not self.is_out or now >= self.until  # many requests may fail at once: that is one ejection
        self.state = state
        if was_due:
            self.until = now + min(rules.longest_s, rules.first_s * 2.0 ** min(self._ejections, 30)) * spread
            self._ejections += 1
