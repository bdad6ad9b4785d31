"""Which workers have fallen silent, and when to start the next one.

Silence is measured in the watcher's own running time, which stands still while the watcher is stopped or the machine is
suspended: otherwise the first look after a pause would find everybody silent and kill them all. And of that only counts
in which the worker could have beaten: one that merely waits for a processor is no better for being replaced by another
that has to wait as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

BEAT_S = 0.2
LOOK_S = 0.2
SILENT_S = 2.0  # a hung worker swallows its share of new connections; a garbage collection takes far less
START_S = 30.0  # until the first beat: imports on a machine that is busy starting everything else
SLOWEST_RESTART_S = 5.0
LONG_LIFE_S = 30.0  # a worker that lived this long has not died of its start


class RunningTime:
    """A clock of seconds in which the watcher itself was running: no step counts more than twice the planned one."""

    def __init__(self, now: float) -> None:
        self._last = now
        self.seconds = 0.0

    def step(self, now: float) -> float:
        """Go on to ``now`` (monotonic seconds) and return the running seconds since the start."""
        self.seconds += min(max(0.0, now - self._last), 2 * LOOK_S)
        self._last = now
        return self.seconds


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used of the processors.

    Attributes:
        cpu_s: Seconds, of all its threads, since its start.
        is_runnable: A thread of it runs, or waits for nothing but a processor.
    """

    cpu_s: float
    is_runnable: bool


class Heart:
    """What is known of one worker's heartbeat.

    Args:
        beat: The word's value now; the worker's first beat differs from it.
        running_s: The watcher's running time now.
        usage: Asks what the worker has used by now; None: it is not known, and all silence counts.
    """

    def __init__(self, beat: int, running_s: float, usage: Callable[[], Usage | None] = lambda: None) -> None:
        self._beat = beat
        self._changed_s = self._looked_s = running_s
        self._silent_s = 0.0
        self._usage = usage
        self._cpu_s: float | None = None
        self.started = False

    def look(self, beat: int, running_s: float) -> bool:
        """Note the word's value; returns whether the worker is still taken to be alive."""
        step, self._looked_s = running_s - self._looked_s, running_s
        if beat != self._beat:
            self._beat, self._changed_s, self.started = beat, running_s, True
            self._silent_s, self._cpu_s = 0.0, None
        else:
            self._silent_s += self._counted(step)
        return self._silent_s <= (SILENT_S if self.started else START_S)

    def _counted(self, step: float) -> float:
        """How much of a silent step the worker has had for itself: a stopped or sleeping one all of it."""
        usage = self._usage()
        if usage is None:
            return step
        before, self._cpu_s = self._cpu_s, usage.cpu_s
        if before is None or not usage.is_runnable:
            return step
        return min(step, max(0.0, usage.cpu_s - before))

    def age_s(self, running_s: float) -> float:
        """Running seconds since the last beat."""
        return running_s - self._changed_s


def restart_delay_s(early_deaths: int) -> float:
    """Seconds to wait before a worker is started again.

    Args:
        early_deaths: How many in a row died within `LONG_LIFE_S`, this one included.

    Returns:
        Nothing after the first, then 0.25 s doubled each time up to `SLOWEST_RESTART_S`.
    """
    if early_deaths <= 1:
        return 0.0
    return min(SLOWEST_RESTART_S, 0.25 * 2.0 ** min(early_deaths - 2, 10))
