"""The demo's documents: valid, and with thresholds that tell a good version from a bad one."""

from __future__ import annotations

from math import exp, lgamma, log
from pathlib import Path

import pytest
import yaml

from controller.spec import (
    AnalysisTemplate,
    CanaryRollout,
    ControllerSettings,
    cross_faults,
    parse_document,
)
from demo import documents
from proxy.config import ProxySettings
from proxy.document import parse

PORTS = documents.Ports(8080, 8082, 8090, 8088)
GOOD, BAD = 0.001, 0.03
MEASUREMENTS_S = documents.MEASURE_EVERY_S * (documents.MEASUREMENTS - 1)  # of one step's analysis


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    documents.write(tmp_path, PORTS, 2, 9001)
    return tmp_path


def test_every_document_is_valid(folder: Path) -> None:
    """The programs take the very files."""
    settings = parse(ProxySettings, (folder / "proxy.yaml").read_text())
    assert settings.listeners[0].address == "127.0.0.1:8080"
    controller = parse(ControllerSettings, (folder / "controller.yaml").read_text())
    assert controller.api.listen == "127.0.0.1:8090"
    parsed = [parse_document(path.read_text()) for path in sorted((folder / "rollouts").iterdir())]
    [rollout] = [document for document in parsed if isinstance(document, CanaryRollout)]
    templates = [document for document in parsed if isinstance(document, AnalysisTemplate)]
    assert cross_faults(rollout, templates) == []
    assert rollout.key == "demo/shop"
    weights = [step.set_weight for step in rollout.spec.strategy.canary.steps if step.set_weight is not None]
    assert weights == [500, 2500, 5000, 10_000]


def test_texts_that_yaml_would_read_as_something_else_are_quoted(folder: Path) -> None:
    """The header's value is the text yes, not a boolean."""
    routes = yaml.safe_load((folder / "rollouts/shop.yaml").read_text())["spec"]["routes"]
    [toggle] = [route for route in routes if route["name"] == "page-toggle"]
    assert toggle["matches"][0]["headers"][0]["value"] == "yes"


# What the thresholds get wrong: the numbers in the module's own text.


def fails_at(requests: int) -> int:
    """Errors at which a look fails."""
    return int(float(documents.MAX_ERROR_SHARE) * requests) + 1


def at_least(count: int, requests: int, rate: float) -> float:
    """The probability of so many errors or more: binomial."""
    terms = (
        exp(
            lgamma(requests + 1)
            - lgamma(k + 1)
            - lgamma(requests - k + 1)
            + k * log(rate)
            + (requests - k) * log(1 - rate)
        )
        for k in range(count, min(requests, count + 200) + 1)
    )
    return sum(terms)


@pytest.mark.parametrize(
    ("requests", "errors", "by_chance", "found"),
    [
        (150, 4, 1.8e-5, 0.66),
        (300, 7, 3.1e-8, 0.80),
        (600, 13, 1.1e-13, 0.91),
        (1500, 31, 6.2e-30, 0.99),
        (3000, 61, 7.5e-57, 0.9996),
    ],
)
def test_one_look(requests: int, errors: int, by_chance: float, found: float) -> None:
    """The table of `demo.documents`."""
    assert fails_at(requests) == errors
    assert at_least(errors, requests, GOOD) == pytest.approx(by_chance, rel=0.05)
    assert at_least(errors, requests, BAD) == pytest.approx(found, abs=0.006)


def requests_of_looks(first_step_rate: int) -> list[int]:
    """Requests in the window at each look of one rollout that goes through, with so many a second at the first step."""
    wait_s = documents.MINIMUM_REQUESTS // first_step_rate + 1
    a_second = [first_step_rate] * (wait_s + MEASUREMENTS_S)
    for percent in documents.STEPS_PERCENT[1:]:
        a_second += [documents.REQUESTS_A_SECOND * percent // 100] * MEASUREMENTS_S
    windows = (sum(a_second[max(0, t - 30) : t]) for t in range(0, len(a_second), documents.LOOK_S))
    return [requests for requests in windows if requests >= documents.MINIMUM_REQUESTS]


@pytest.mark.parametrize("first_step_rate", [10, 20, 30], ids=["five users", "ten users", "fifteen users"])
def test_a_good_version_is_promoted_with_near_certainty(first_step_rate: int) -> None:
    """Fewer than one rollout in 5,000 ends wrong by chance: the sum over all looks bounds it."""
    looks = requests_of_looks(first_step_rate)
    assert sum(at_least(fails_at(n), n, GOOD) for n in looks) < 1 / 5000


def test_a_bad_version_is_found_with_near_certainty() -> None:
    """Windows of two steps share no request, so their chances multiply: fewer than one in 100,000 goes through."""
    passes = 1.0
    for percent in documents.STEPS_PERCENT[1:]:
        requests = documents.REQUESTS_A_SECOND * percent // 100 * (MEASUREMENTS_S - documents.LOOK_S)
        passes *= 1 - at_least(fails_at(requests), requests, BAD)
    assert passes < 1e-5
