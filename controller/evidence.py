"""The evidence: what the proxies counted for each version over a window, added up over proxies.

Only what the split decided counts (source ``user``): forced and synthetic requests are no evidence. Counters are taken
as differences between two looks; a proxy that was restarted, or has another revision on trial, begins anew with its
next look. Distinct users are HyperLogLog registers of ten-second epochs, merged by maximum over epochs and proxies.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from controller.analysis import Need, Reading
from controller.look import EPOCH_REGISTERS, EPOCH_S, Counts, Look, difference
from controller.past import SLICES, Past, Slice, merged
from controller.spec import ARMS, CohortProvider
from proxy.sketch import estimate, merge, quantile

STALE_S = 5.0  # five polls: numbers older than that say nothing of now
SIGMAS = 3.0
REGISTER_ERROR = 1.04  # Flajolet et al. 2007: the standard error is this by the root of the number of registers
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(slots=True)
class _Source:
    """What is known of one proxy."""

    look: Look
    seen: float
    slices: deque[Slice] = field(default_factory=deque)
    epochs: dict[str, dict[int, bytes]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Share:
    """The canary's share of the users that came, with the range that chance allows; each 0 to 1."""

    measured: float
    low: float
    high: float


class Evidence:
    """All looks at all proxies, for one attempt of one revision.

    Args:
        uid: The rollout's.
        revision: On trial; looks while another one is are left out.
        keep_s: The longest window that will be asked for.
        now: When the attempt began, in monotonic seconds; or when this controller went on with it.
        past: What another controller has counted of this attempt; it goes on from there.
    """

    def __init__(self, uid: str, revision: str | None, keep_s: float, now: float, past: Past | None = None) -> None:
        self._began = now
        self._uid = uid
        self._revision = revision
        self._keep_s = keep_s
        self._sources: dict[str, _Source] = {}
        self._share_from: dict[str, int] = {}
        self._past = past
        self._wall: tuple[float, float] | None = None  # when a proxy was last heard, and its own clock then

    def add(self, address: str, look: Look, now: float) -> None:
        """Take a look at one proxy; ``now`` in monotonic seconds."""
        self._reckon(look, now)
        if look.uid != self._uid or look.revision != self._revision:
            self._sources.pop(address, None)
            return
        source = self._sources.get(address)
        before = source.look if source else self._before(address, look)
        passed = difference(before, look) if before else None
        if source is None or passed is None:
            source = self._sources[address] = _Source(look, now)
        source.look, source.seen = look, now
        self._slice(source, passed or {}, now)
        self._remember(source, look)

    def _reckon(self, look: Look, now: float) -> None:
        """Know the proxies' time of day; with the first of it, how long ago the past is."""
        if self._wall is None and self._past:
            self._past = self._past.rebased(now - max(look.now - self._past.wall, 0.0))
        if self._wall is None or look.now - now > self._wall[1] - self._wall[0]:
            self._wall = now, look.now

    def _before(self, address: str, look: Look) -> Look | None:
        """What the controller before saw of this proxy last: what came since is of this attempt too."""
        before = self._past.looks.pop(address, None) if self._past else None
        return before if before and look.now - before.now <= self._keep_s else None

    def past(self, now: float) -> Past | None:
        """All of it for the controller that goes on with this attempt; None: nothing was counted."""
        if self._wall is None:
            return self._past
        parts = [part for source in self._sources.values() for part in source.slices]
        epochs = [source.epochs for source in self._sources.values()]
        looks = {address: source.look for address, source in self._sources.items()}
        if self._past:
            parts += self._past.slices
            epochs.append(self._past.epochs)
            looks = self._past.looks | looks
        wall = self._wall[1] + now - self._wall[0]
        oldest = wall - self._keep_s
        looks = {address: look for address, look in looks.items() if look.now >= oldest}
        slices = [part for part in parts if part.end > now - self._keep_s]
        return Past(wall, now, slices, merged(epochs, int(oldest // EPOCH_S)), looks)

    def _slice(self, source: _Source, passed: dict[str, Counts], now: float) -> None:
        """Put a difference into the last slice, or a new one where that is full."""
        slices = source.slices
        if not slices or now - slices[-1].start >= self._keep_s / SLICES:
            slices.append(Slice(now, now, {}))
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
        for part in self._parts(fresh):
            if part.end > now - provider.window and provider.arm in part.counts:
                counts.add(part.counts[provider.arm])
        users = _users(self._recent(fresh, provider.arm, provider.window))
        age = min(provider.window, now - min((part.start for part in self._parts(fresh)), default=now))
        # Where no answer came there is no latency: what failed to connect is no measurement of it.
        requests = sum(counts.latency.values()) if provider.metric in _QUANTILES else counts.requests
        need = _need(provider, requests, users, age)
        if need is not None:
            return Reading(need=need, note=_note(provider, requests, users))
        return Reading(_value(provider.metric, counts, users))

    def _parts(self, sources: Iterable[_Source]) -> Iterable[Slice]:
        for source in sources:
            yield from source.slices
        if self._past:
            yield from self._past.slices

    def _recent(self, sources: Iterable[_Source], arm: str, window_s: float) -> list[bytes]:
        """Registers of the users within a window."""
        found = [(source.look.now, source.epochs) for source in sources]
        if self._past:
            found.append((max(now for now, _ in found), self._past.epochs))
        return [
            registers
            for now, epochs in found
            for epoch, registers in epochs.get(arm, {}).items()
            if epoch >= int((now - window_s) // EPOCH_S)
        ]

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
