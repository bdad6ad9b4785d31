"""Every wire case against a real proxy, every permutation of the framing fields, and a search for more."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from tests.wire.case import load
from tests.wire.schedule import Report, run_all
from tests.wire.search import run_permutations, run_search

FILE = load(Path(__file__).with_name("cases.yaml"))
IDS = list(dict.fromkeys(case.id for case in FILE.cases))
SEARCH_S = float(os.environ.get("COHORT_WIRE_SECONDS", "5"))
SHOULD_SHARE = 0.95
LONGEST_S = 300.0  # for all cases on a machine that does other things too
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(LONGEST_S + SEARCH_S)]


@pytest.fixture(scope="module")
def report() -> Report:
    """The whole file, run once."""
    return asyncio.run(run_all(FILE, []))


@pytest.mark.parametrize("name", IDS)
def test_case_passes(report: Report, name: str) -> None:
    """cases.yaml has the bytes, what is accepted, and the source. What cannot be run yet has not passed."""
    if name in report.skipped:
        pytest.xfail(f"not run: {report.skipped[name][1]}")
    assert name not in report.failed, "\n".join(report.lines(False))


def test_no_class_leaks(report: Report) -> None:
    """Connections, requests and descriptors are let go."""
    assert report.leaks == []


def test_few_recommendations_are_not_followed(report: Report) -> None:
    """Of the cases that are a `should`, 95 % pass."""
    outcomes = [result.is_passed for result in report.results if result.case.sev == "should"]
    assert sum(outcomes) >= SHOULD_SHARE * len(outcomes)


def test_no_permutation_is_read_differently() -> None:
    """Every way to say Content-Length with every way to say Transfer-Encoding: RFC 9112 section 6.3."""
    findings = asyncio.run(run_permutations(FILE.limits))
    assert not findings.found, "\n".join(findings.lines())


def test_search_finds_nothing() -> None:
    """Mutated cases; COHORT_WIRE_SECONDS makes it longer. In CI the seed is always the same."""
    seed = 1 if os.environ.get("CI") else random.randrange(1 << 32)
    findings = asyncio.run(run_search(FILE, SEARCH_S, seed))
    assert not findings.found, "\n".join([f"seed {seed}", *findings.lines()])
