"""What Prometheus sees."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from proxy import sketch
from proxy.counters import Stats
from proxy.metrics import LE_S, Build, CohortCollector, Found, Snapshot
from proxy.plan import Plan
from tests.support.plans import plan

ROLLOUT = {"rollout": "shop/checkout"}
REFERENCE = Path(__file__).parents[2] / "docs" / "metrics.md"
STATS = Stats(
    series={
        ("requests", "canary", "split", "user", "200", "ok"): 8,
        ("requests", "canary", "split", "user", "200", "failed"): 1,
        ("upstream_failures", "canary", "reset"): 1,
        ("retries", "stable"): 2,
        ("mirrored", "canary", "sent"): 2,
        ("rekeyed",): 3,
        ("rejected", "limit"): 4,
        ("pending", "canary"): 5,
        ("ejected", "canary"): 1,
        ("other",): 9,
    },
    times={("canary",): {sketch.cell(0.3): 3, sketch.cell(500.0): 1}, ("canary", "user"): {sketch.cell(0.01): 2},
           ("canary", "forced"): {sketch.cell(0.01): 1}, ("canary", "synthetic"): {sketch.cell(0.01): 7},
           ("canary", "mirror"): {sketch.cell(0.01): 5}},
    users={},
    connections=6,
    log_dropped=7,
)  # fmt: skip


FOUND = Found(
    endpoints={"stable": 3, "canary": 1},
    dns_ages_s={"canary": 1.5},
    dns_failures={("canary", "servfail"): 2},
    unhealthy={"stable": 1},
)


def shop(**fields: object) -> Plan:
    return plan(rollout={"namespace": "shop", "name": "checkout", "uid": "7c9f"}, **fields)


def exposed(snapshot: Snapshot) -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """Samples by name and labels, of what a scrape really sends."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(CohortCollector(lambda: snapshot))
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return found


@pytest.fixture
def samples() -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    rejected = {"invalid": 2, "older": 0}
    return exposed(
        Snapshot(STATS, shop(), 12.5, rejected, latched=True, credentials_refused=4, found=FOUND, trips={"canary": 1},
                 expiries={"tls.crt": 2e9}, reloads={"done": 3, "refused": 0, "stuck": 1},
                 build=Build("1.2.3", "3.11.2", compiled=True))
    )  # fmt: skip


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset((ROLLOUT | values).items())


def test_counters_have_the_names_and_labels_of_the_surface(samples: dict[str, dict[object, float]]) -> None:
    """surface.md, Metrics: those that exist now."""
    assert samples["cohort_requests_total"] == {labels(arm="canary", reason="split", source="user", code="200"): 9}
    assert samples["cohort_upstream_failures_total"] == {labels(arm="canary", kind="reset"): 1}
    assert samples["cohort_retries_total"] == {labels(arm="stable"): 2}
    assert samples["cohort_rekeyed_total"] == {labels(): 3}
    assert samples["cohort_pending_requests"] == {labels(arm="canary"): 5}
    assert samples["cohort_plan_rejected_total"] == {labels(reason="invalid"): 2, labels(reason="older"): 0}
    assert samples["cohort_abort_latched"] == {labels(): 1}
    assert samples["cohort_breaker_trips_total"] == {labels(arm="canary"): 1}
    assert samples["cohort_mirrored_total"] == {labels(arm="canary", result="sent"): 2}
    assert samples["cohort_plan_age_seconds"] == {labels(): 12.5}
    assert samples["cohort_plan_info"] == {labels(generation="1", revision="v2", digest=shop().digest): 1}
    assert samples["cohort_weight_ratio"] == {labels(arm="stable"): 0.75, labels(arm="canary"): 0.25}
    assert samples["cohort_users"] == {labels(arm="stable"): 0, labels(arm="canary"): 0}
    assert samples["cohort_endpoints"] == {labels(arm="stable"): 3, labels(arm="canary"): 1}
    assert samples["cohort_unhealthy_endpoints"] == {labels(arm="stable"): 1}
    assert samples["cohort_dns_age_seconds"] == {labels(arm="canary"): 1.5}
    assert samples["cohort_dns_failures_total"] == {labels(arm="canary", kind="servfail"): 2}
    assert samples["cohort_downstream_connections"] == {frozenset(): 6}
    assert samples["cohort_downstream_rejected_total"] == {frozenset({("cause", "limit")}): 4}
    assert samples["cohort_build_info"] == {
        frozenset({("version", "1.2.3"), ("python", "3.11.2"), ("compiled", "true")}): 1
    }
    assert samples["cohort_log_dropped_total"] == {frozenset(): 7}
    assert samples["cohort_reloads_total"] == {
        frozenset({("result", result)}): count for result, count in (("done", 3), ("refused", 0), ("stuck", 1))
    }
    assert samples["cohort_credentials_refused_total"] == {frozenset(): 4}
    assert samples["cohort_certificate_expiry_timestamp_seconds"] == {frozenset({("file", "tls.crt")}): 2e9}


def test_histograms_add_sources_up_and_end_at_infinity(samples: dict[str, dict[object, float]]) -> None:
    """The sum is that of the cells' middles, at most 3.2 % off."""
    buckets = samples["cohort_request_duration_seconds_bucket"]
    assert buckets[labels(arm="canary", le="0.25")] == 0
    assert buckets[labels(arm="canary", le="0.5")] == 3
    assert buckets[labels(arm="canary", le="64.0")] == 3
    assert buckets[labels(arm="canary", le="+Inf")] == 4
    assert samples["cohort_upstream_duration_seconds_count"] == {labels(arm="canary"): 3}
    assert samples["cohort_upstream_duration_seconds_sum"][labels(arm="canary")] == pytest.approx(0.03, rel=0.033)
    assert len(LE_S) == 17


def test_without_a_plan_the_proxy_still_tells_of_itself() -> None:
    """F39: it starts, is not ready, and can be watched."""
    samples = exposed(Snapshot(Stats(), None, 0.0, {"invalid": 1}, latched=False))
    assert samples["cohort_abort_latched"] == {frozenset({("rollout", "")}): 0}
    assert samples["cohort_plan_rejected_total"] == {frozenset({("rollout", ""), ("reason", "invalid")}): 1}
    assert "cohort_plan_info" not in samples


def test_the_reference_has_every_name_and_no_other(samples: dict[str, dict[object, float]]) -> None:
    """docs/metrics.md is held against what is exposed."""
    exposed_names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in samples}
    of_a_proxy = REFERENCE.read_text().partition("## Of a controller")[0]
    documented = set(re.findall(r"^\| `(cohort_\w+)`", of_a_proxy, re.M))
    assert documented == exposed_names


def test_the_reference_has_every_label(samples: dict[str, dict[frozenset[tuple[str, str]], float]]) -> None:
    """Queries that join or filter by a label that is not there are empty for ever."""
    of_a_proxy = REFERENCE.read_text().partition("## Of a controller")[0]
    for name, told in re.findall(r"^\| `(cohort_\w+)` \| \w+ \| ([^|]*)\|", of_a_proxy, re.M):
        series = samples.get(name) or samples[f"{name}_bucket"]
        found = {label for one in series for label, _ in one} - {"le"}
        assert found == {label.strip() for label in told.split(",") if label.strip()}, name
