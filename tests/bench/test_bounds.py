from __future__ import annotations

from typing import Any

import pytest

from tests.bench.bounds import Bound, bounds
from tests.bench.figures import FIGURES
from tests.bench.peers import PEERS
from tests.bench.workload import WORKLOADS

ONE = {"median": 1.0, "low": 0.5, "high": 2.0}
DOCUMENT: dict[str, Any] = {
    "summary": {
        "figures": {"cpu_us": {"cohort": ONE}},
        "ratios": [{"of": "cohort", "to": "nginx", "cpu_us": ONE}],
    }
}


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [
        (Bound("w", "cpu_us", to="nginx", at_most=1.0), "met"),
        (Bound("w", "cpu_us", to="nginx", at_most=0.9), "not met"),
        (Bound("w", "cpu_us", to="nginx", at_least=1.1), "not met"),
        (Bound("w", "cpu_us", at_most=1.0), "met"),
        (Bound("w", "cpu_us", to="caddy", at_most=1.0), "not measured"),
        (Bound("w", "p99_us", at_most=1.0), "not measured"),
    ],
    ids=["met", "above", "below", "without-ratio", "peer-left-out", "figure-left-out"],
)
def test_medians_decide(bound: Bound, verdict: str) -> None:
    """What was not measured is not met, and said so."""
    assert bound.verdict(DOCUMENT) == verdict
    assert bound.verdict({}) == "not measured"


def test_bounds_name_what_there_is() -> None:
    """A bound on a workload that is no more would never fail."""
    for bound in bounds():
        assert bound.workload in WORKLOADS
        assert bound.figure in FIGURES
        assert not bound.to or bound.to.partition(",")[0] in PEERS
