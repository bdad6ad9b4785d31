"""What Prometheus sees: families made from the shared counters at each scrape, by a collector of our own.

The request path never touches an object of prometheus-client. Label values come from the configuration, from the fixed
words of this proxy, or are status codes; `docs/metrics.md` has every name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from proxy.assign import BUCKETS
from proxy.counters import EVIDENCE, Stats
from proxy.plan import Plan
from proxy.region import Labels
from proxy.sketch import EDGES_S, bounds, estimate, middle

# Every octave from a millisecond to a minute: edges of cells of the log-linear histogram, so that counts are exact.
LE_S = tuple(edge for edge in (2.0**octave for octave in range(-10, 7)) if edge in EDGES_S)


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of endpoints, by arm.

    Attributes:
        dns_ages_s: Since the last good answer, of arms that are named.
        dns_failures: By arm and kind, see `proxy.names.KINDS`.
        unhealthy: Endpoints that fail their checks, of arms that have checks.
    """

    endpoints: Mapping[str, int]
    dns_ages_s: Mapping[str, float]
    dns_failures: Mapping[tuple[str, str], int]
    unhealthy: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Build:
    """What runs.

    Attributes:
        version: Of cohort.
        python: The interpreter's version.
        compiled: The modules that requests pass are compiled; see `net.compiled`.
    """

    version: str
    python: str
    compiled: bool

    def __str__(self) -> str:
        return f"cohort {self.version}, Python {self.python}, {'compiled' if self.compiled else 'not compiled'}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that is known at one scrape.

    Attributes:
        plan: The one in force.
        plan_age_s: Seconds since it came into force or was last confirmed.
        rejected: Plans refused since the start, by reason.
        credentials_refused: How often changed certificates and keys were refused since the start.
        trips: How often the breaker has aborted since the start, by arm.
        expiries: Unix seconds at which each certificate file's own certificate ends.
        reloads: Reloads so far, by how they ended.
        build: What runs; None in a snapshot of no process.
    """

    stats: Stats
    plan: Plan | None
    plan_age_s: float
    rejected: Mapping[str, int]
    latched: bool
    credentials_refused: int = 0
    found: Found = Found({}, {}, {}, {})
    trips: Mapping[str, int] = field(default_factory=dict)
    expiries: Mapping[str, float] = field(default_factory=dict)
    reloads: Mapping[str, int] = field(default_factory=dict)
    build: Build | None = None

    @property
    def rollout(self) -> str:
        """The label of that name; empty before the first plan."""
        return f"{self.plan.rollout.namespace}/{self.plan.rollout.name}" if self.plan else ""


class CohortCollector(Collector):
    """Makes the families anew at each scrape.

    Args:
        take: Returns what is known now.
    """

    def __init__(self, take: Callable[[], Snapshot]) -> None:
        self._take = take

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registry that asked would make a snapshot before there is one."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Every family with its samples."""
        snapshot = self._take()
        yield from _requests(snapshot)
        yield from _durations(snapshot)
        yield from _plan(snapshot)
        yield from _endpoints(snapshot)
        yield from _proxy(snapshot)


def _requests(snapshot: Snapshot) -> Iterator[Metric]:
    series, rollout = snapshot.stats.series, snapshot.rollout
    requests = CounterMetricFamily(
        "cohort_requests",
        "Requests answered, by version, by the reason of the choice and by what decided it.",
        labels=["rollout", "arm", "reason", "source", "code"],
    )
    for labels, count in _summed(series, "requests", 5).items():
        requests.add_metric([rollout, *labels], count)
    yield requests
    for kind, labels_of, text in (
        ("upstream_failures", ["arm", "kind"], "Attempts at a service that failed."),
        ("retries", ["arm"], "Requests tried a second time."),
        ("mirrored", ["arm", "result"], "Copies of requests: sent and answered, failed, or dropped unsent."),
        ("rekeyed", [], "Users whose key gave way to one from a source of higher rank."),
    ):
        family = CounterMetricFamily(f"cohort_{kind}", text, labels=["rollout", *labels_of])
        for labels, count in _summed(series, kind, 1 + len(labels_of)).items():
            family.add_metric([rollout, *labels], count)
        yield family
    for kind, name, text in (
        ("pending", "cohort_pending_requests", "Requests that a version has not answered yet."),
        ("ejected", "cohort_ejected_endpoints", "Endpoints left out for failing, each counted by each worker."),
    ):
        gauge = GaugeMetricFamily(name, text, labels=["rollout", "arm"])
        for labels, count in _summed(series, kind, 2).items():
            gauge.add_metric([rollout, *labels], count)
        yield gauge


def _summed(series: Mapping[Labels, int], kind: str, size: int) -> dict[Labels, int]:
    """Series of one kind by their labels without the kind, cut to those that are exposed."""
    found: dict[Labels, int] = {}
    for labels, count in series.items():
        if labels[0] == kind:
            shown = labels[1:size]
            found[shown] = found.get(shown, 0) + count
    return found


def _durations(snapshot: Snapshot) -> Iterator[Metric]:
    whole = HistogramMetricFamily(
        "cohort_request_duration_seconds",
        "From a request's first byte in to its answer's last byte out.",
        labels=["rollout", "arm"],
    )
    heads = HistogramMetricFamily(
        "cohort_upstream_duration_seconds",
        "Until the response head came: the latency that is judged.",
        labels=["rollout", "arm"],
    )
    by_arm: dict[str, dict[int, int]] = {}
    for labels, cells in snapshot.stats.times.items():
        if len(labels) == 2 and labels[1] in EVIDENCE:
            arm = by_arm.setdefault(labels[0], {})
            for cell, count in cells.items():
                arm[cell] = arm.get(cell, 0) + count
        elif len(labels) == 1 and cells:
            _add_histogram(whole, [snapshot.rollout, labels[0]], cells)
    for name, cells in by_arm.items():
        if cells:
            _add_histogram(heads, [snapshot.rollout, name], cells)
    yield whole
    yield heads


def _add_histogram(family: HistogramMetricFamily, labels: list[str], cells: Mapping[int, int]) -> None:
    """Add one histogram; its sum is that of the cells' middles, at most 3.2 % off, so that counting stays cheap."""
    buckets = [(str(le), float(sum(n for cell, n in cells.items() if bounds(cell)[1] <= le))) for le in LE_S]
    buckets.append(("+Inf", float(sum(cells.values()))))
    family.add_metric(labels, buckets=buckets, sum_value=sum(middle(cell) * n for cell, n in cells.items()))


def _plan(snapshot: Snapshot) -> Iterator[Metric]:
    rollout, plan = snapshot.rollout, snapshot.plan
    latched = GaugeMetricFamily("cohort_abort_latched", "1 while an abort stands.", labels=["rollout"])
    latched.add_metric([rollout], float(snapshot.latched))
    yield latched
    rejected = CounterMetricFamily(
        "cohort_plan_rejected", "Plans refused as a whole; the one in force stayed.", labels=["rollout", "reason"]
    )
    for reason, count in snapshot.rejected.items():
        rejected.add_metric([rollout, reason], count)
    yield rejected
    trips = CounterMetricFamily(
        "cohort_breaker_trips",
        "Aborts by the proxy's own breaker, by the version that failed.",
        labels=["rollout", "arm"],
    )
    for arm_name, count in snapshot.trips.items():
        trips.add_metric([rollout, arm_name], count)
    yield trips
    if plan is None:
        return
    info = GaugeMetricFamily(
        "cohort_plan_info", "The plan in force.", labels=["rollout", "generation", "revision", "digest"]
    )
    info.add_metric([rollout, str(plan.generation), plan.revision or "", plan.digest], 1)
    yield info
    age = GaugeMetricFamily(
        "cohort_plan_age_seconds", "Since the plan came into force or was last confirmed.", labels=["rollout"]
    )
    age.add_metric([rollout], snapshot.plan_age_s)
    yield age
    weight = GaugeMetricFamily("cohort_weight_ratio", "Share of users, as programmed.", labels=["rollout", "arm"])
    users = GaugeMetricFamily(
        "cohort_users", "Distinct users of this revision, estimated within 1.6 %.", labels=["rollout", "arm"]
    )
    for arm in plan.arms:
        weight.add_metric([rollout, arm.name], arm.weight_bp / BUCKETS)
        registers = snapshot.stats.users.get(arm.name)
        users.add_metric([rollout, arm.name], estimate(registers) if registers else 0)
    yield weight
    yield users


def _endpoints(snapshot: Snapshot) -> Iterator[Metric]:
    rollout, found = snapshot.rollout, snapshot.found
    endpoints = GaugeMetricFamily("cohort_endpoints", "Addresses of a version.", labels=["rollout", "arm"])
    for arm, count in found.endpoints.items():
        endpoints.add_metric([rollout, arm], count)
    yield endpoints
    unhealthy = GaugeMetricFamily(
        "cohort_unhealthy_endpoints", "Addresses of a version that fail their checks.", labels=["rollout", "arm"]
    )
    for arm, count in found.unhealthy.items():
        unhealthy.add_metric([rollout, arm], count)
    yield unhealthy
    age = GaugeMetricFamily(
        "cohort_dns_age_seconds", "Since a version's name was last answered with an address.", labels=["rollout", "arm"]
    )
    for arm, seconds in found.dns_ages_s.items():
        age.add_metric([rollout, arm], seconds)
    yield age
    failures = CounterMetricFamily(
        "cohort_dns_failures",
        "Questions for a version's name that brought trouble; the last good addresses stayed.",
        labels=["rollout", "arm", "kind"],
    )
    for (arm, kind), count in found.dns_failures.items():
        failures.add_metric([rollout, arm, kind], count)
    yield failures


def _proxy(snapshot: Snapshot) -> Iterator[Metric]:
    stats = snapshot.stats
    if snapshot.build is not None:
        info = GaugeMetricFamily("cohort_build_info", "The program.", labels=["version", "python", "compiled"])
        info.add_metric([snapshot.build.version, snapshot.build.python, str(snapshot.build.compiled).lower()], 1)
        yield info
    yield GaugeMetricFamily("cohort_downstream_connections", "Open client connections.", value=stats.connections)
    refused = CounterMetricFamily(
        "cohort_downstream_rejected", "Requests and connections that the proxy itself turned away.", labels=["cause"]
    )
    for labels, count in _summed(stats.series, "rejected", 2).items():
        refused.add_metric(list(labels), count)
    yield refused
    expiry = GaugeMetricFamily(
        "cohort_certificate_expiry_timestamp_seconds", "When a certificate in use ends, Unix time.", labels=["file"]
    )
    for file, not_after_s in snapshot.expiries.items():
        expiry.add_metric([file], not_after_s)
    yield expiry
    reloads = CounterMetricFamily(
        "cohort_reloads", "Reloads of settings and programs, by how they ended.", labels=["result"]
    )
    for result, count in snapshot.reloads.items():
        reloads.add_metric([result], count)
    yield reloads
    yield CounterMetricFamily(
        "cohort_credentials_refused",
        "Times that changed files of certificates or keys were refused; those in use stayed.",
        value=snapshot.credentials_refused,
    )
    yield CounterMetricFamily(
        "cohort_log_dropped", "Log lines that could not be written in time.", value=stats.log_dropped
    )
