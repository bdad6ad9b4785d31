"""The evidence: what the proxies counted for each version over a window, added up over proxies.

Only what the split decided counts (source ``user``): forced and synthetic requests are no evidence. Counters are taken
as differences between two looks; a proxy that was restarted, or has another revision on trial, begins anew with its
next look. Distinct users are HyperLogLog registers of ten-second epochs, merged by maximum over epochs and proxies.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.analysis import Need, Reading
from controller.spec import ARMS, CohortProvider
from proxy.sketch import estimate, merge, quantile

EPOCH_S = 10  # of the users' registers, by the proxies' wall clocks
EPOCH_REGISTERS = 1024  # what a proxy keeps for an epoch
STALE_S = 5.0  # five polls: numbers older than that say nothing of now
SLICES = 120  # of the longest window: its edge is sharp to 1 %
SIGMAS = 3.0
REGISTER_ERROR = 1.04  # Flajolet et al. 2007: the standard error is this by the root of the number of registers
_SOURCE = "user"
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(slots=True)
class Counts:
    """Requests, failures and latencies by cell; cumulative or of a window."""

    requests: int = 0
    failures: int = 0
    latency: dict[int, int] = field(default_factory=dict)

    def add(self, other: Counts, sign: int = 1) -> None:
        """Add (or with -1 take away) another's numbers."""
        self.requests += sign * other.requests
        self.failures += sign * other.failures
        for cell, count in other.latency.items():
            self.latency[cell] = self.latency.get(cell, 0) + sign * count

    @property
    def is_sane(self) -> bool:
        """Whether no number is negative, as a difference of growing counters cannot be."""
        return self.requests >= 0 and self.failures >= 0 and min(self.latency.values(), default=0) >= 0


@dataclass(slots=True)
class Look:
    """One answer of a proxy's /stats: cumulative counts and registers by arm."""

    boot: str
    now: float
    uid: str | None
    revision: str | None
    generation: int
    counts: dict[str, Counts]
    epochs: dict[str, dict[int, bytes]]


@dataclass(slots=True)
class _Slice:
    start: float
    end: float
    counts: dict[str, Counts]


@dataclass(slots=True)
class _Source:
    """What is known of one proxy."""

    look: Look
    since: float
    seen: float
    slices: deque[_Slice] = field(default_factory=deque)
    epochs: dict[str, dict[int, bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Share:
    """The canary's share of the users that came, with the range that chance allows; each 0 to 1."""

    measured: float
    low: float
    high: float


def parse_look(value: Any) -> Look:
    """Read the document of GET /stats.

    Raises:
        ValueError: It is not one.
    """
    try:
        arms = dict(value["arms"].items())
        return Look(
            boot=str(value["boot"]),
            now=float(value["now"]),
            uid=value["uid"],
            revision=value["revision"],
            generation=int(value["generation"]),
            counts={arm: _counts(arms[arm]) for arm in ARMS if arm in arms},
            epochs={arm: _epochs(arms[arm]) for arm in ARMS if arm in arms},
        )
    except (KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise ValueError(f"expected the document of /stats, got one without {error}") from None


def _counts(arm: Mapping[str, Any]) -> Counts:
    numbers = arm["sources"].get(_SOURCE)
    if numbers is None:
        return Counts()
    latency = {int(cell): int(count) for cell, count in numbers["latency"]}
    return Counts(int(numbers["requests"]), int(numbers["failures"]), latency)


def _epochs(arm: Mapping[str, Any]) -> dict[int, bytes]:
    users = arm.get("users") or {"epochs": {}}
    epochs = {int(epoch): base64.b64decode(text, validate=True) for epoch, text in users["epochs"].items()}
    if any(len(registers) != EPOCH_REGISTERS for registers in epochs.values()):
        raise ValueError(f"expected {EPOCH_REGISTERS} registers an epoch")
    return epochs


class Evidence:
    """All looks at all proxies, for one attempt of one revision.

    Args:
        uid: The rollout's.
        revision: On trial; looks while another one is are left out.
        keep_s: The longest window that will be asked for.
        now: When the attempt began, in monotonic seconds.
    """

    def __init__(self, uid: str, revision: str | None, keep_s: float, now: float) -> None:
        self._began = now
        self._uid = uid
        self._revision = revision
        self._keep_s = keep_s
        self._sources: dict[str, _Source] = {}
        self._share_from: dict[str, int] = {}

    def add(self, address: str, look: Look, now: float) -> None:
        """Take a look at one proxy; ``now`` in monotonic seconds."""
        if look.uid != self._uid or look.revision != self._revision:
            self._sources.pop(address, None)
            return
        source = self._sources.get(address)
        passed = _difference(source.look, look) if source else None
        if source is None or passed is None:
            source = self._sources[address] = _Source(look, now, now)
            passed = {}
        source.look, source.seen = look, now
        self._slice(source, passed, now)
        self._remember(source, look)

    def _slice(self, source: _Source, passed: dict[str, Counts], now: float) -> None:
        """Put a difference into the last slice, or a new one where that is full."""
        slices = source.slices
        if not slices or now - slices[-1].start >= self._keep_s / SLICES:
            slices.append(_Slice(now, now, {}))
        slices[-1].end = now
        for arm, counts in passed.items():
            slices[-1].counts.setdefault(arm, Counts()).add(counts)
        while slices[0].end <= now - self._keep_s:
            slices.popleft()

    def _remember(self, source: _Source, look: Look) -> None:
        """Keep the registers of epochs beyond the two minutes that a proxy keeps them; the present one still grows."""
        oldest = int((look.now - self._keep_s) // EPOCH_S)
        for arm, epochs in look.epochs.items():
            known = source.epochs.setdefault(arm, {})
            for epoch, registers in epochs.items():
                before = known.get(epoch, registers)
                known[epoch] = registers if before == registers else merge([before, registers])
            for epoch in [e for e in known if e < oldest]:
                del known[epoch]

    def measure(self, provider: CohortProvider, now: float) -> Reading:
        """A metric of one arm over its window; too few requests or users, or no proxy's numbers, are no value."""
        fresh = [source for source in self._sources.values() if now - source.seen <= STALE_S]
        if not fresh and now - self._began <= STALE_S:
            everything = Need(provider.minimum_requests, provider.minimum_users)
            return Reading(need=everything, note="no proxy has told its numbers yet")
        if not fresh:
            return Reading(error=f"no proxy has told numbers of revision {self._revision} for {STALE_S:g} s")
        counts = Counts()
        for source in fresh:
            for part in source.slices:
                if part.end > now - provider.window and provider.arm in part.counts:
                    counts.add(part.counts[provider.arm])
        users = _users(_recent(fresh, provider.arm, provider.window))
        age = min(provider.window, now - min(source.since for source in fresh))
        # Where no answer came there is no latency: what failed to connect is no measurement of it.
        requests = sum(counts.latency.values()) if provider.metric in _QUANTILES else counts.requests
        need = _need(provider, requests, users, age)
        if need is not None:
            return Reading(need=need, note=_note(provider, requests, users))
        return Reading(_value(provider.metric, counts, users))

    def restart_share(self) -> None:
        """Measure the share anew: the weight has changed, and users of before would count for both arms."""
        self._share_from = {}

    def share(self) -> Share | None:
        """The canary's share of users since the weight came into force; None: nobody has come yet.

        The epoch in which it did so is left out, so there is none for the first ten seconds.
        """
        for address, source in self._sources.items():
            self._share_from.setdefault(address, int(source.look.now // EPOCH_S) + 1)
        found: dict[str, list[bytes]] = {arm: [] for arm in ARMS}
        for address, source in self._sources.items():
            for arm in ARMS:
                epochs = source.epochs.get(arm, {})
                found[arm] += [registers for e, registers in epochs.items() if e >= self._share_from[address]]
        stable, canary = (_users(found[arm]) for arm in ARMS)
        return _share(canary, stable + canary) if stable + canary else None


def _difference(before: Look, after: Look) -> dict[str, Counts] | None:
    """What was counted between two looks; None: the counters started again in between."""
    if before.boot != after.boot:
        return None
    found = {}
    for arm, counts in after.counts.items():
        passed = Counts()
        passed.add(counts)
        passed.add(before.counts.get(arm, Counts()), -1)
        if not passed.is_sane:
            return None
        found[arm] = passed
    return found


def _recent(sources: Iterable[_Source], arm: str, window_s: float) -> list[bytes]:
    return [
        registers
        for source in sources
        for epoch, registers in source.epochs.get(arm, {}).items()
        if epoch >= int((source.look.now - window_s) // EPOCH_S)
    ]


def _users(registers: list[bytes]) -> int:
    return estimate(merge(registers)) if registers else 0


def _need(provider: CohortProvider, requests: int, users: int, age_s: float) -> Need | None:
    """What is missing for a measurement; without a request there is no rate and no latency, whatever is asked for."""
    least = provider.minimum_requests if provider.metric in ("requests", "users") else max(provider.minimum_requests, 1)
    lacking_requests, lacking_users = max(least - requests, 0), max(provider.minimum_users - users, 0)
    if not lacking_requests and not lacking_users:
        return None
    minutes = [_minutes(lacking_requests, requests, age_s), _minutes(lacking_users, users, age_s)]
    known = [m for m in minutes if m is not None]
    return Need(lacking_requests, lacking_users, max(known) if len(known) == len(minutes) else None)


def _minutes(lacking: int, come: int, age_s: float) -> int | None:
    """How long it takes for so many more to come at the rate of the last seconds; None: at this rate never."""
    if not lacking:
        return 0
    return math.ceil(lacking * age_s / come / 60) if come and age_s > 0 else None


def _note(provider: CohortProvider, requests: int, users: int) -> str:
    return (
        f"too few for a measurement: {requests} requests of at least {provider.minimum_requests} and {users} users of "
        f"at least {provider.minimum_users} on {provider.arm} within {provider.window:g} s"
    )


def _value(metric: str, counts: Counts, users: int) -> float:
    if metric in _QUANTILES:
        return quantile(counts.latency.items(), _QUANTILES[metric]) or math.nan
    return _VALUES[metric](counts, users)


_VALUES: Mapping[str, Callable[[Counts, int], float]] = {
    "successRate": lambda counts, _: 1 - counts.failures / counts.requests,
    "errorRate": lambda counts, _: counts.failures / counts.requests,
    "requests": lambda counts, _: float(counts.requests),
    "users": lambda _, users: float(users),
}


def _share(canary: int, total: int) -> Share:
    """Wilson's score interval, widened by the error of the two estimates."""
    p, n, z2 = canary / total, total, SIGMAS * SIGMAS
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    chance = SIGMAS * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    estimates = SIGMAS * p * (1 - p) * math.sqrt(2) * REGISTER_ERROR / math.sqrt(EPOCH_REGISTERS)
    half = math.hypot(chance, estimates)
    return Share(p, max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half)))
