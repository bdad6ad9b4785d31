"""Every wire case against a real proxy, every permutation of the framing fields, and a search for more."""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.wire.case import load
from tests.wire.features import obstacle
from tests.wire.schedule import Report, run_all
from tests.wire.search import run_permutations, run_search

FILES = {name: load(Path(__file__).with_name(name)) for name in ("cases.yaml", "more.yaml", "variants.yaml")}
FILE = FILES["cases.yaml"]
IDS = {name: list(dict.fromkeys(case.id for case in file.cases if case.phase == "1")) for name, file in FILES.items()}
LATER = {name: {case.id for case in file.cases if obstacle(case)} for name, file in FILES.items()}
IN_CI = os.environ.get("CI", "").lower() not in ("", "0", "false")
SEARCH_S = float(os.environ.get("COHORT_WIRE_SECONDS", "30" if IN_CI else "5"))
CASES = tuple(case for file in FILES.values() for case in file.cases)
SHOULD_SHARE = 0.95
LONGEST_S = 600.0  # for all cases on a machine that does other things too
pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(LONGEST_S + SEARCH_S)]


@cache
def report_of(name: str) -> Report:
    """A whole file, run once."""
    return asyncio.run(run_all(FILES[name], []))


@pytest.mark.parametrize(("file", "name"), [(file, name) for file, names in IDS.items() for name in names])
def test_case_passes(file: str, name: str) -> None:
    """The files have the bytes, what is accepted, and the source."""
    report = report_of(file)
    assert name not in report.failed, "\n".join(report.lines(False))
    assert name in report.passed


@pytest.mark.parametrize("file", FILES)
def test_only_cases_of_later_phases_are_not_run(file: str) -> None:
    """HTTP/2 and the gateway's rules: counted apart, neither passed nor failed."""
    assert report_of(file).skipped.keys() == LATER[file]
    assert report_of(file).is_good


@pytest.mark.parametrize("file", FILES)
def test_no_class_leaks(file: str) -> None:
    """Connections, requests and descriptors are let go."""
    assert report_of(file).leaks == []


def test_few_recommendations_are_not_followed() -> None:
    """Of the cases that are a `should`, 95 % pass."""
    results = [result for file in FILES for result in report_of(file).results]
    outcomes = [result.is_passed for result in results if result.case.sev == "should"]
    assert sum(outcomes) >= SHOULD_SHARE * len(outcomes)


def test_no_permutation_is_read_differently() -> None:
    """Every way to say Content-Length with every way to say Transfer-Encoding: RFC 9112 section 6.3."""
    findings = asyncio.run(run_permutations(FILE.limits))
    assert not findings.found, "\n".join(findings.lines())


def test_search_finds_nothing() -> None:
    """Mutated cases, half a minute of them in CI, where the seed is always the same; `make fuzz` for longer."""
    seed = 1 if IN_CI else random.randrange(1 << 32)
    findings = asyncio.run(run_search(replace(FILE, cases=CASES), SEARCH_S, seed))
    assert not findings.found, "\n".join([f"seed {seed}", *findings.lines()])
