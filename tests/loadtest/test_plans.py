"""Weights by generation out of what proxies and controllers say of plans."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from loadtest.flip import PlanFacts
from loadtest.plans import parse_facts

PLAN = {
    "rollout": {"namespace": "shop", "name": "checkout", "uid": "1"},
    "generation": 4,
    "revision": "v2",
    "arms": [{"name": "stable", "weightBp": 7500}, {"name": "canary", "weightBp": 2500}],
}
FACTS = PlanFacts(4, "v2", {"canary": 2500}, "shop/checkout")


def test_a_plan_and_a_list_of_plans() -> None:
    """As ``GET /plan`` tells one, and several under ``items``."""
    assert parse_facts(json.dumps(PLAN).encode()) == [FACTS]
    assert parse_facts(json.dumps({"items": [PLAN, {**PLAN, "revision": None}]}).encode()) == [
        FACTS,
        PlanFacts(4, None, {"canary": 2500}, "shop/checkout"),
    ]


def test_a_plan_file_in_yaml() -> None:
    """People write plans as YAML, and leave out the namespace."""
    arms = "[{name: stable, weightBp: 7500}, {name: canary, weightBp: 2500}]"
    [facts] = parse_facts(f"rollout: {{name: checkout}}\ngeneration: 4\nrevision: v2\narms: {arms}\n".encode())
    assert facts == replace(FACTS, rollout="default/checkout")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"items": 3}',
        b'{"items": [1]}',
        b'{"rollout": {}}',
        b"\xff",
        b"a: [",
        b"{items: [{rollout: 1}]}",
    ],
)
def test_what_is_no_plan_is_refused(text: bytes) -> None:
    """An answer that is no plan teaches nothing, and does not end the run."""
    with pytest.raises(ValueError):  # noqa: PT011  # JSON's own message or ours
        parse_facts(text)


def test_an_impossible_weight_is_refused() -> None:
    """A weight beyond 100 % would convict true answers."""
    arms = [{"name": "canary", "weightBp": 10_001}]
    with pytest.raises(ValueError, match="weights lie between"):
        parse_facts(json.dumps({**PLAN, "arms": arms}).encode())
