"""The controller's own numbers, as Prometheus reads them. Labels come from configuration only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.state import Phase, State
from controller.status import Status, VerdictStatus

WAITS = ("keys", "cluster")  # its own files; all that it watches, seen once

Shown = tuple[str, State, Status]
_DECISIONS: tuple[str, ...] = get_args(VerdictStatus.model_fields["decision"].annotation)


@dataclass(frozen=True, slots=True)
class Replica:
    """What one of several controllers in a cluster says of itself.

    Attributes:
        rollout: ``namespace/name``.
        is_holder: Whether it holds the Lease.
        fed_age_s: Since its proxy was last found with the plan that the status publishes.
        api_age_s: Since the API server last did what it was asked for.
        requests: How many, by method and what came of them.
        watches: How many watches ended, by resource and cause.
        waits_for: What it cannot begin without, one of `WAITS`; empty: it is at work.
    """

    rollout: str
    is_holder: bool
    fed_age_s: float
    api_age_s: float
    requests: Mapping[tuple[str, str], int] = field(default_factory=dict)
    watches: Mapping[tuple[str, str], int] = field(default_factory=dict)
    waits_for: str = ""


class _Rollouts(Collector):
    """One look at all rollouts."""

    def __init__(self, shown: Sequence[Shown]) -> None:
        self._shown = shown

    def collect(self) -> Iterator[Metric]:
        phase = GaugeMetricFamily(
            "cohort_rollout_phase", "1 for the phase that the rollout is in.", labels=["rollout", "phase"]
        )
        step = GaugeMetricFamily("cohort_rollout_step", "Steps that are done.", labels=["rollout"])
        verdict = GaugeMetricFamily(
            "cohort_verdict", "1 for what the evidence says now.", labels=["rollout", "decision"]
        )
        aborts = CounterMetricFamily(
            "cohort_rollout_aborts", "Rollouts that were aborted, by whomever.", labels=["rollout"]
        )
        failures = CounterMetricFamily(
            "cohort_rollout_abort_failures", "Attempts to latch a proxy that failed.", labels=["rollout"]
        )
        for key, state, status in self._shown:
            for name in Phase:
                phase.add_metric([key, name.value], float(status.phase == name))
            step.add_metric([key], float(status.step.index if status.step else 0))
            for decision in _DECISIONS:
                is_it = status.verdict is not None and status.verdict.decision == decision
                verdict.add_metric([key, decision], float(is_it))
            aborts.add_metric([key], float(state.aborts))
            failures.add_metric([key], float(state.abort_failures))
        yield from (phase, step, verdict, aborts, failures)


class _Replicas(Collector):
    """One look at a controller in a cluster."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica

    def collect(self) -> Iterator[Metric]:
        replica = self._replica
        for name, text, value in (
            ("lease_held", "1 for the controller that holds the Lease.", float(replica.is_holder)),
            ("feed_age_seconds", "Since the own proxy was last found with the published plan.", replica.fed_age_s),
            ("api_age_seconds", "Since the API server last did what it was asked for.", replica.api_age_s),
        ):
            gauge = GaugeMetricFamily(f"cohort_controller_{name}", text, labels=["rollout"])
            gauge.add_metric([replica.rollout], value)
            yield gauge
        waits = GaugeMetricFamily("cohort_controller_waiting", "1 for what is waited for.", labels=["rollout", "on"])
        for what in WAITS:
            waits.add_metric([replica.rollout, what], float(what == replica.waits_for))
        yield waits
        yield self._counter("api_requests", "Requests to the API server.", ("method", "result"), replica.requests)
        yield self._counter("watch_ends", "Watches that ended.", ("resource", "cause"), replica.watches)

    def _counter(
        self, name: str, text: str, labels: tuple[str, str], counts: Mapping[tuple[str, str], int]
    ) -> CounterMetricFamily:
        family = CounterMetricFamily(f"cohort_controller_{name}", text, labels=["rollout", *labels])
        for key, count in sorted(counts.items()):
            family.add_metric([self._replica.rollout, *key], float(count))
        return family


def exposition(shown: Iterable[Shown], replica: Replica | None = None) -> str:
    """The text format, version 0.0.4.

    Args:
        shown: Key, state and status of each rollout.
        replica: In a cluster.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Rollouts(list(shown)))
    if replica:
        registry.register(_Replicas(replica))
    return generate_latest(registry).decode()
