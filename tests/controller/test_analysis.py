"""Analysis: Argo's limit arithmetic to the number, and where cohort holds instead of aborting."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller import analysis
from controller.analysis import Decision, Need, Outcome, Reading, Run
from tests.controller.world import template

GOOD, BAD, MIDDLE = Reading(1.0), Reading(0.5), Reading(0.9)
ERROR = Reading(error="no proxy answers")
FEW = Reading(need=Need(40, 3, 2), note="too few")
BOTH = {"successCondition": "result[0] >= 0.99", "failureCondition": "result[0] < 0.8"}


def start(dry: bool = False, **metric: Any) -> Run:
    return analysis.start([template(dry=dry, **metric).spec])


def feed(run: Run, *readings: Reading) -> Run:
    for reading in readings:
        run = analysis.take(run, "rate", reading)
    return run


def decide(run: Run, background: bool = False) -> tuple[Decision, str]:
    said = analysis.verdict(run, background)
    return said.decision, said.reason


@pytest.mark.parametrize(
    ("metric", "readings", "expected"),
    [
        # count
        ({"count": 3}, [GOOD] * 2, (Decision.HOLD, "Measuring")),
        ({"count": 3}, [GOOD] * 3, (Decision.ADVANCE, "AnalysisSuccessful")),
        ({"count": None, "interval": None}, [GOOD], (Decision.ADVANCE, "AnalysisSuccessful")),
        ({"count": None}, [GOOD] * 50, (Decision.HOLD, "Measuring")),
        # failureLimit: failed > limit, cumulative
        ({"count": 9}, [BAD], (Decision.ROLLBACK, "AnalysisFailed")),
        ({"count": 9, "failureLimit": 1}, [BAD], (Decision.HOLD, "Measuring")),
        ({"count": 9, "failureLimit": 1}, [BAD, GOOD, GOOD, GOOD, BAD], (Decision.ROLLBACK, "AnalysisFailed")),
        ({"count": 4, "failureLimit": 2}, [BAD, BAD, GOOD, GOOD], (Decision.ADVANCE, "AnalysisSuccessful")),
        ({"count": 2, "failureLimit": 2}, [BAD, BAD], (Decision.ADVANCE, "AnalysisSuccessful")),
        ({"count": 2, "failureLimit": -1}, [BAD, BAD], (Decision.ADVANCE, "AnalysisSuccessful")),
        # inconclusiveLimit: a person's turn, and it stays so
        ({"count": 9, **BOTH}, [MIDDLE], (Decision.HOLD, "Inconclusive")),
        ({"count": 9, **BOTH}, [MIDDLE, GOOD, GOOD], (Decision.HOLD, "Inconclusive")),
        ({"count": 9, **BOTH, "inconclusiveLimit": 1}, [MIDDLE], (Decision.HOLD, "Measuring")),
        ({"count": 9, **BOTH, "inconclusiveLimit": 1}, [MIDDLE, GOOD, MIDDLE], (Decision.HOLD, "Inconclusive")),
        ({"count": 9, **BOTH, "inconclusiveLimit": 1}, [MIDDLE, BAD], (Decision.ROLLBACK, "AnalysisFailed")),
        # consecutiveErrorLimit: the fifth in a row; errors do not count as measurements
        ({"count": 2}, [ERROR] * 4, (Decision.HOLD, "MeasurementError")),
        ({"count": 2}, [ERROR] * 5, (Decision.DATA_FAULT, "NoSignal")),
        ({"count": 2}, [ERROR] * 4 + [GOOD] + [ERROR] * 4, (Decision.HOLD, "MeasurementError")),
        ({"count": 2}, [GOOD, *[ERROR] * 4, GOOD], (Decision.ADVANCE, "AnalysisSuccessful")),
        ({"count": 2, "consecutiveErrorLimit": 0}, [ERROR], (Decision.DATA_FAULT, "NoSignal")),
        ({"count": 2}, [ERROR] * 500, (Decision.DATA_FAULT, "NoSignal")),
        ({"count": 2}, [*[ERROR] * 9, GOOD, GOOD], (Decision.ADVANCE, "AnalysisSuccessful")),
        # consecutiveSuccessLimit
        ({"count": None, "consecutiveSuccessLimit": 2}, [GOOD, GOOD], (Decision.ADVANCE, "AnalysisSuccessful")),
        (
            {"count": None, "consecutiveSuccessLimit": 2, "failureLimit": -1},
            [GOOD, BAD, GOOD, BAD],
            (Decision.HOLD, "Measuring"),
        ),
        (
            {"count": None, "consecutiveSuccessLimit": 2, "failureLimit": -1},
            [GOOD, ERROR, GOOD],
            (Decision.HOLD, "Measuring"),
        ),
        ({"count": None, "consecutiveSuccessLimit": 2}, [GOOD, BAD], (Decision.ROLLBACK, "AnalysisFailed")),
        (
            {"count": 3, "consecutiveSuccessLimit": 2, "failureLimit": 2},
            [GOOD, BAD, GOOD],
            (Decision.HOLD, "Inconclusive"),
        ),
        # too few is no measurement: it neither counts nor errs
        ({"count": 2}, [FEW], (Decision.HOLD, "NotEnoughData")),
        ({"count": 2}, [FEW] * 500, (Decision.HOLD, "NotEnoughData")),
        ({"count": 2}, [GOOD, FEW, GOOD], (Decision.ADVANCE, "AnalysisSuccessful")),
        ({"count": 2}, [*[ERROR] * 4, FEW, ERROR], (Decision.DATA_FAULT, "NoSignal")),
        # no number
        ({"count": 2}, [Reading(math.nan)] * 5, (Decision.DATA_FAULT, "NoSignal")),
        (
            {"count": 2, "successCondition": "!(result[0] < 0.99)"},
            [Reading(math.nan)],
            (Decision.HOLD, "MeasurementError"),
        ),
        ({"count": 1, "successCondition": "result <= 1"}, [Reading(math.inf)], (Decision.ROLLBACK, "AnalysisFailed")),
    ],
)
def test_limits_are_argos(metric: dict[str, Any], readings: list[Reading], expected: tuple[Decision, str]) -> None:
    """D1: the exact arithmetic of Argo's analysis.go; D5: where Argo would abort for want of data, cohort holds."""
    assert decide(feed(start(**metric), *readings)) == expected


def test_conditions_decide_a_measurement() -> None:
    """Argo: with one condition its negation is the other outcome, with both neither is inconclusive, failure first."""
    metric = template(**BOTH).spec.metrics[0]
    assert [analysis.judge(metric, r)[0] for r in (GOOD, BAD, MIDDLE)] == [
        Outcome.SUCCESSFUL,
        Outcome.FAILED,
        Outcome.INCONCLUSIVE,
    ]
    only_failure = template(successCondition=None, failureCondition="result < 0.8").spec.metrics[0]
    assert [analysis.judge(only_failure, r)[0] for r in (MIDDLE, BAD)] == [Outcome.SUCCESSFUL, Outcome.FAILED]
    overlapping = template(successCondition="result > 0", failureCondition="result > 0").spec.metrics[0]
    assert analysis.judge(overlapping, GOOD)[0] is Outcome.FAILED


def test_a_verdict_names_the_metric_the_limit_and_what_came() -> None:
    """Each verdict has a reason that a person can act on."""
    said = analysis.verdict(feed(start(failureLimit=1), BAD, BAD))
    assert said.message == (
        "metric rate: failed (2) > failureLimit (1): 0.5 does not fulfil successCondition result[0] >= 0.99"
    )


def test_a_need_comes_with_the_hold() -> None:
    """D5: it says how many requests, users or minutes are missing."""
    said = analysis.verdict(feed(start(), FEW))
    assert (said.decision, said.need, said.message) == (Decision.HOLD, Need(40, 3, 2), "metric rate: too few")


def test_measurements_fall_due_as_argo_has_them() -> None:
    """The first after initialDelay, then each interval; an error is tried again after 10 s whatever the interval."""
    run = start(initialDelay="3s", interval="30s", count=9)
    assert not analysis.due(run)
    run = analysis.elapse(run, 3.0)
    assert [metric.name for metric in analysis.due(run)] == ["rate"]
    run = feed(run, GOOD)
    assert not analysis.due(analysis.elapse(run, 29.9))
    run = feed(analysis.elapse(run, 30.0), ERROR)
    assert not analysis.due(analysis.elapse(run, 9.9))
    run = feed(analysis.elapse(run, 10.0), FEW)
    assert not analysis.due(analysis.elapse(run, 0.9))
    assert analysis.due(analysis.elapse(run, 1.0))


def test_an_ended_metric_is_not_measured_again() -> None:
    """Argo skips metrics that have completed."""
    assert not analysis.due(analysis.elapse(feed(start(count=1), GOOD), 1000))
    assert not analysis.due(analysis.elapse(feed(start(), BAD), 1000))


def test_the_worst_metric_decides() -> None:
    """One failed metric rolls back, whatever the others say; a fault outweighs a hold."""
    run = analysis.start([template("a").spec, template("b").spec])
    run = analysis.take(run, "a", GOOD)
    assert decide(analysis.take(run, "b", BAD)) == (Decision.ROLLBACK, "AnalysisFailed")
    assert decide(analysis.take(run, "b", FEW)) == (Decision.HOLD, "NotEnoughData")
    faulty = run
    for _ in range(5):
        faulty = analysis.take(faulty, "b", ERROR)
    assert decide(analysis.take(faulty, "a", FEW)) == (Decision.DATA_FAULT, "NoSignal")


@pytest.mark.parametrize("readings", [[BAD], [BAD] * 9, [ERROR], [ERROR] * 9, [FEW], [GOOD] * 2])
def test_a_dry_run_decides_nothing(readings: list[Reading]) -> None:
    """Argo: whatever a metric in dry run gives, the run succeeds."""
    assert decide(feed(start(dry=True), *readings)) == (Decision.ADVANCE, "DryRun")


def test_a_step_waits_for_its_dry_run() -> None:
    """Argo: the run has ended when every metric has, those in dry run too; else nothing would be learnt."""
    assert decide(feed(start(dry=True), GOOD)) == (Decision.HOLD, "Measuring")
    assert decide(feed(start(dry=True)), background=True) == (Decision.ADVANCE, "DryRun")


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([], (Decision.HOLD, "Measuring")),
        ([GOOD], (Decision.ADVANCE, "Passing")),
        ([GOOD, BAD], (Decision.ADVANCE, "Passing")),
        ([GOOD, BAD, BAD], (Decision.ROLLBACK, "AnalysisFailed")),
        ([GOOD, FEW], (Decision.HOLD, "NotEnoughData")),
        ([GOOD, ERROR], (Decision.HOLD, "MeasurementError")),
        ([GOOD, *[ERROR] * 5], (Decision.DATA_FAULT, "NoSignal")),
    ],
)
def test_in_the_background_data_must_keep_coming(readings: list[Reading], expected: tuple[Decision, str]) -> None:
    """No data never promotes: Advance needs a measurement, and none that failed to be made since."""
    assert decide(feed(start(count=None, failureLimit=1), *readings), background=True) == expected


readings = st.sampled_from([GOOD, BAD, MIDDLE, ERROR, FEW])


@given(st.lists(readings, max_size=30), st.integers(0, 4))
def test_want_of_data_alone_never_decides(taken: list[Reading], limit: int) -> None:
    """A property: leaving out what was no measurement changes neither a rollback nor an advance."""
    metric = {"count": 8, **BOTH, "failureLimit": limit, "inconclusiveLimit": limit}
    told = decide(feed(start(**metric), *taken))
    measured = decide(feed(start(**metric), *(r for r in taken if r not in (ERROR, FEW))))
    final = {
        (Decision.ROLLBACK, "AnalysisFailed"),
        (Decision.ADVANCE, "AnalysisSuccessful"),
        (Decision.HOLD, "Inconclusive"),
    }
    assert (told if told in final else None) == (measured if measured in final else None)


@given(st.lists(readings, max_size=30))
def test_only_bad_measurements_roll_back(taken: list[Reading]) -> None:
    """A property: Rollback exactly when more measurements failed than the limit allows, before count was reached."""
    run = start(count=8, **BOTH, failureLimit=2, inconclusiveLimit=8)
    seen_failed = seen = 0
    for reading in taken:
        if seen >= 8 or seen_failed > 2:
            break
        run = feed(run, reading)
        seen += reading in (GOOD, BAD, MIDDLE)
        seen_failed += reading is BAD
    assert (decide(run)[0] is Decision.ROLLBACK) == (seen_failed > 2)
