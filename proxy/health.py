"""Whether an endpoint passes its checks: so many failures in a row turn it out, so many passes bring it back."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.plan import HealthCheck


@dataclass(frozen=True, slots=True)
class Health:
    """What checks have said of one endpoint so far.

    Attributes:
        is_healthy: The verdict. A new endpoint has the benefit of the doubt: requests judge it too.
        streak: Results in a row that contradict the verdict.
        error: What was wrong the last time; empty: nothing, or it was not checked yet.
    """

    is_healthy: bool = True
    streak: int = 0
    error: str = ""


def judge(health: Health, error: str, check: HealthCheck) -> Health:
    """The verdict after one more result.

    Args:
        error: What is wrong; empty: the check passed.
    """
    if health.is_healthy == (not error):
        return Health(health.is_healthy, 0, error)
    streak = health.streak + 1
    needed = check.unhealthy if health.is_healthy else check.healthy
    return Health(not health.is_healthy, 0, error) if streak >= needed else Health(health.is_healthy, streak, error)


def first_wait_s(check: HealthCheck, chance: float) -> float:
    """Seconds until an endpoint's first check, spread over one interval.

    Args:
        chance: From 0 to 1, drawn.
    """
    return check.interval * chance


def wait_s(check: HealthCheck, chance: float) -> float:
    """Seconds between two checks' starts: the interval, a tenth more or less, so that endpoints' checks drift apart."""
    return check.interval * (0.9 + chance / 5)
