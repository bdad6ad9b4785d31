from __future__ import annotations

import pytest

from tests.bench.results import Measurement, commit, machine, pairs, summary


def one(number: int, entrant: str, cpu_us: float) -> Measurement:
    """A measurement of which only the cost matters."""
    return Measurement(number, entrant, {"cpu_us": cpu_us})


def test_ratios_are_taken_within_a_round() -> None:
    """A machine that is twice as slow in one round changes no ratio."""
    costs = [(1, "cohort", 20.0), (1, "envoy", 40.0), (2, "cohort", 40.0), (2, "envoy", 80.0), (3, "cohort", 30.0)]
    result = summary([one(*cost) for cost in costs])
    half = {"median": 0.5, "low": 0.5, "high": 0.5}
    assert result["ratios"] == [{"of": "cohort", "to": "envoy", "cpu_us": half}]
    assert result["figures"]["cpu_us"]["cohort"] == {"median": 30.0, "low": 20.0, "high": 40.0}


def test_variants_are_compared_with_their_own_plain_form() -> None:
    """A log's cost is what it adds to the same proxy, whatever the others need."""
    assert pairs(["cohort", "cohort, log", "nginx", "nginx, log"]) == [
        ("cohort, log", "cohort"),
        ("nginx, log", "nginx"),
    ]
    assert pairs(["cohort", "nginx"]) == [("cohort", "nginx")]


def test_without_the_subject_there_is_no_ratio() -> None:
    """`--peers envoy nginx` compares nothing with us."""
    assert summary([one(1, "envoy", 30.0), one(1, "nginx", 14.0)])["ratios"] == []


def test_the_machine_is_named() -> None:
    """A figure without its machine says nothing."""
    facts = machine()
    assert facts["cpu"]
    assert facts["kernel"]


def test_outside_a_repository_there_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source archive can be measured too."""
    monkeypatch.setenv("GIT_DIR", "/nonexistent")
    assert commit() == ""
