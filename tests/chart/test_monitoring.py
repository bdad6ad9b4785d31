"""Alerts and dashboard name metrics that proxies have."""

from __future__ import annotations

import json
import re

import pytest

from tests.chart.schema import CHART

METRICS = (CHART.parents[1] / "docs/metrics.md").read_text()  # held against what a proxy exposes by its own tests
RULES = (CHART / "templates/monitoring.yaml").read_text()
DASHBOARD = json.loads((CHART / "dashboards/rollout.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("text", [*QUERIES, *re.findall(r"expr: (.*)", RULES)])
def test_every_metric_that_is_asked_for_exists(text: str) -> None:
    """A query of a name that is not there is empty, and an alert on it never comes."""
    names = set(re.findall(r"\bcohort_[a-z_]+", text))
    assert names
    told = set(re.findall(r"^\| `(cohort_[a-z_]+)`", METRICS, re.MULTILINE))
    told |= set(re.findall(r"`(cohort_[a-z_]+)` \| histogram", METRICS))
    for name in names:
        assert name in told or name.removesuffix("_bucket") in told, name


def test_the_dashboard_can_be_read() -> None:
    """Each panel asks for something and says what it shows."""
    assert all(panel["description"] and panel["targets"] for panel in DASHBOARD["panels"])
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
