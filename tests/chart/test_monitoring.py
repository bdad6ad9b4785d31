"""Alerts and dashboard name metrics that proxies and controllers have; `tests/kube` asks real ones."""

from __future__ import annotations

import json
import re

import pytest

from tests.chart.queries import Selector, labels, selectors, shown
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


def test_queries_are_read_as_prometheus_reads_them() -> None:
    """Names, matchers, groupings, legends: what the tests of real pods rely on."""
    query = (
        'sum by (arm, le) (rate(cohort_a_total{rollout="x/y",code=~"5.."}[5m])) / ignoring (arm) group_left cohort_b'
    )
    assert list(selectors(query)) == [
        Selector("cohort_a_total", (("rollout", "=", "x/y"), ("code", "=~", "5.."))),
        Selector("cohort_b", ()),
    ]
    assert labels(query) == {"arm", "le"}
    assert shown("{{arm}} of {{ pod }}") == {"arm", "pod"}
    with pytest.raises(AssertionError):
        list(selectors('cohort_a{rollout="x" nonsense}'))
