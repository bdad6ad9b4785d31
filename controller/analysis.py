"""Analysis: measurements in, one of four verdicts out. Pure, with Argo's limit arithmetic.

A measurement is successful, failed or inconclusive as the metric's conditions say, or an error. More than
``failureLimit`` failed ones, counted over the whole run, fail the metric, and with it the revision; more than
``inconclusiveLimit`` inconclusive ones leave it to a person. Two things differ from Argo, on purpose. Too few requests
or users are no measurement at all: the run waits and says what is missing. And more than ``consecutiveErrorLimit``
errors in a row, which abort a rollout of Argo's, are a DataFault: no data is not bad data, so the rollout stays where
it is and the metric is asked on. Source: Argo Rollouts, ``analysis/analysis.go``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from controller import condition
from controller.spec import Metric, TemplateSpec

ERROR_RETRY_S = 10.0  # Argo's DefaultErrorRetryInterval, whatever the metric's interval
NO_DATA_RETRY_S = 1.0  # the proxies' counters are read each second anyway, so asking again costs nothing


class Outcome(StrEnum):
    """What one attempt to measure gave."""

    SUCCESSFUL = "Successful"
    FAILED = "Failed"
    INCONCLUSIVE = "Inconclusive"
    ERROR = "Error"
    NO_DATA = "NoData"


class Decision(StrEnum):
    """What an analysis says of going on."""

    ADVANCE = "Advance"
    ROLLBACK = "Rollback"
    HOLD = "Hold"
    DATA_FAULT = "DataFault"


@dataclass(frozen=True, slots=True)
class Need:
    """What is missing for a measurement.

    Attributes:
        minutes: How long that takes at the present rate; None: nothing comes in.
    """

    requests: int = 0
    users: int = 0
    minutes: int | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a provider answers: a value, or a need (too few) with a note of what came, or an error."""

    value: float | None = None
    need: Need | None = None
    note: str = "too few requests or users"
    error: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision with its reason in one word, in a sentence, and what is missing."""

    decision: Decision
    reason: str
    message: str = ""
    need: Need | None = None


@dataclass(frozen=True, slots=True)
class MetricRun:
    """One metric's measurements so far.

    Attributes:
        count: Successful, failed and inconclusive measurements; errors do not count.
        due_s: When to measure next, in seconds of the run.
        message: Of the last attempt: what came and what was expected.
    """

    metric: Metric
    dry: bool = False
    due_s: float = 0.0
    count: int = 0
    failed: int = 0
    inconclusive: int = 0
    errors: int = 0
    consecutive_errors: int = 0
    consecutive_successes: int = 0
    value: float | None = None
    outcome: Outcome | None = None
    message: str = ""
    need: Need | None = None

    @property
    def name(self) -> str:
        """The metric's name."""
        return self.metric.name


@dataclass(frozen=True, slots=True)
class Run:
    """An analysis under way.

    Attributes:
        elapsed_s: Seconds that it has been running, as the rollout's clock counts them.
    """

    metrics: tuple[MetricRun, ...]
    elapsed_s: float = 0.0


def start(templates: Iterable[TemplateSpec]) -> Run:
    """A run of all metrics of some templates; the first measurements are due after each one's initialDelay."""
    return Run(
        tuple(
            MetricRun(metric, spec.is_dry(metric.name), metric.initial_delay)
            for spec in templates
            for metric in spec.metrics
        )
    )


def elapse(run: Run, seconds: float) -> Run:
    """The run after so many more seconds."""
    return replace(run, elapsed_s=run.elapsed_s + seconds)


def due(run: Run) -> tuple[Metric, ...]:
    """The metrics to measure now."""
    return tuple(m.metric for m in run.metrics if _ended(m) is None and run.elapsed_s >= m.due_s)


def take(run: Run, name: str, reading: Reading) -> Run:
    """The run with one more reading of the metric of this name."""
    metrics = (_take(m, reading, run.elapsed_s) if m.name == name else m for m in run.metrics)
    return replace(run, metrics=tuple(metrics))


def _take(run: MetricRun, reading: Reading, now_s: float) -> MetricRun:
    outcome, message = judge(run.metric, reading)
    run = replace(run, outcome=outcome, message=message, value=reading.value, need=reading.need)
    if outcome is Outcome.NO_DATA:
        return replace(run, due_s=now_s + NO_DATA_RETRY_S)
    if outcome is Outcome.ERROR:
        return replace(
            run,
            due_s=now_s + ERROR_RETRY_S,
            errors=run.errors + 1,
            consecutive_errors=run.consecutive_errors + 1,
            consecutive_successes=0,
        )
    is_success = outcome is Outcome.SUCCESSFUL
    return replace(
        run,
        due_s=now_s + (run.metric.interval or 0.0),
        count=run.count + 1,
        failed=run.failed + (outcome is Outcome.FAILED),
        inconclusive=run.inconclusive + (outcome is Outcome.INCONCLUSIVE),
        consecutive_errors=0,
        consecutive_successes=run.consecutive_successes + 1 if is_success else 0,
    )


def judge(metric: Metric, reading: Reading) -> tuple[Outcome, str]:
    """What one reading is by the metric's conditions, and why.

    With both conditions, one that fulfils neither is inconclusive, and one that fulfils both has failed.
    """
    if reading.value is None:
        return (Outcome.ERROR, reading.error) if reading.error else (Outcome.NO_DATA, reading.note)
    if math.isnan(reading.value):
        return Outcome.ERROR, "the result is not a number (NaN)"
    text = f"{reading.value:.6g}"
    if metric.failure_condition is not None and _holds(metric.failure_condition, reading.value):
        return Outcome.FAILED, f"{text} fulfils failureCondition {metric.failure_condition}"
    if metric.success_condition is None:
        return Outcome.SUCCESSFUL, f"{text} does not fulfil failureCondition {metric.failure_condition}"
    if _holds(metric.success_condition, reading.value):
        return Outcome.SUCCESSFUL, f"{text} fulfils successCondition {metric.success_condition}"
    if metric.failure_condition is None:
        return Outcome.FAILED, f"{text} does not fulfil successCondition {metric.success_condition}"
    return Outcome.INCONCLUSIVE, f"{text} fulfils neither condition"


def _holds(text: str, value: float) -> bool:
    return condition.holds(condition.parse(text), value)


def _ended(run: MetricRun) -> tuple[Outcome, str] | None:
    """How a metric has ended, and why; None: it goes on. An error never ends one."""
    metric = run.metric
    if 0 <= metric.failure_limit < run.failed:
        return Outcome.FAILED, f"failed ({run.failed}) > failureLimit ({metric.failure_limit})"
    if run.inconclusive > metric.inconclusive_limit:
        limit = f"inconclusiveLimit ({metric.inconclusive_limit})"
        return Outcome.INCONCLUSIVE, f"inconclusive ({run.inconclusive}) > {limit}"
    wanted = metric.consecutive_success_limit
    if wanted and run.consecutive_successes >= wanted:
        return Outcome.SUCCESSFUL, f"{wanted} successes in a row"
    if metric.effective_count is None or run.count < metric.effective_count:
        return None
    if wanted:
        return Outcome.INCONCLUSIVE, f"{run.count} measurements without {wanted} successes in a row"
    return Outcome.SUCCESSFUL, f"count ({run.count}) reached"


def verdict(run: Run, is_background: bool = False) -> Verdict:
    """What the run says so far. A metric in dry run is waited for while it can be measured, and decides nothing.

    Args:
        run: The run.
        is_background: It ends with the rollout, not by itself: Advance then means that each metric has been measured
            and none speaks against going on.
    """
    return max((_verdict(metric, is_background) for metric in run.metrics), key=_gravity)


def _gravity(verdict: Verdict) -> tuple[int, int]:
    """Rollback outweighs DataFault, that Hold, that Advance; of several holds a person's turn comes first."""
    order = (Decision.ADVANCE, Decision.HOLD, Decision.DATA_FAULT, Decision.ROLLBACK)
    return order.index(verdict.decision), _HOLDS.index(verdict.reason) if verdict.reason in _HOLDS else -1


_HOLDS = ("Measuring", "MeasurementError", "NotEnoughData", "Inconclusive")


def _verdict(run: MetricRun, is_background: bool) -> Verdict:
    ended = _ended(run)
    if run.dry and (ended or is_background or run.outcome in (Outcome.ERROR, Outcome.NO_DATA)):
        return Verdict(Decision.ADVANCE, "DryRun", f"metric {run.name}: in dry run: {run.message}")
    if ended is not None:
        return _final(run, *ended)
    if run.consecutive_errors > run.metric.consecutive_error_limit:
        limit = f"consecutiveErrorLimit ({run.metric.consecutive_error_limit})"
        why = f"consecutiveErrors ({run.consecutive_errors}) > {limit}: {run.message}"
        return Verdict(Decision.DATA_FAULT, "NoSignal", f"metric {run.name}: {why}")
    if run.outcome is Outcome.ERROR:
        return Verdict(Decision.HOLD, "MeasurementError", f"metric {run.name}: {run.message}")
    if run.outcome is Outcome.NO_DATA:
        return Verdict(Decision.HOLD, "NotEnoughData", f"metric {run.name}: {run.message}", run.need)
    if is_background and run.count:
        return Verdict(Decision.ADVANCE, "Passing", f"metric {run.name}: {run.message}")
    total = run.metric.effective_count
    done = f"{run.count} of {total} measurements" if total else f"{run.count} measurements"
    return Verdict(Decision.HOLD, "Measuring", f"metric {run.name}: {done}")


def _final(run: MetricRun, outcome: Outcome, why: str) -> Verdict:
    message = f"metric {run.name}: {why}: {run.message}"
    if outcome is Outcome.FAILED:
        return Verdict(Decision.ROLLBACK, "AnalysisFailed", message)
    if outcome is Outcome.INCONCLUSIVE:
        return Verdict(Decision.HOLD, "Inconclusive", f"{message}; promote or abort")
    return Verdict(Decision.ADVANCE, "AnalysisSuccessful", message)
