"""The controller's own numbers, as Prometheus reads them. Labels come from configuration only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import get_args

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.state import Phase, State
from controller.status import Status, VerdictStatus

Shown = tuple[str, State, Status]
_DECISIONS: tuple[str, ...] = get_args(VerdictStatus.model_fields["decision"].annotation)


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


def exposition(shown: Iterable[Shown]) -> str:
    """The text format, version 0.0.4.

    Args:
        shown: Key, state and status of each rollout.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Rollouts(list(shown)))
    return generate_latest(registry).decode()
