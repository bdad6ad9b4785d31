"""Weights of plans by generation, from what the proxy or the controller says of them."""

from __future__ import annotations

import json
from typing import Any

import yaml

from loadtest.flip import STABLE, PlanFacts
from proxy.assign import BUCKETS


def parse_facts(text: bytes) -> list[PlanFacts]:
    """What one document tells of plans.

    Args:
        text: JSON or YAML: a plan as ``GET /plan`` of a proxy gives it and plan files have it, or
            ``{"items": [plan, ...]}``. Of a plan only ``rollout``, ``generation``, ``revision`` and the arms' names and
            ``weightBp`` are read.

    Raises:
        ValueError: Something else.
    """
    document = _load(text)
    if not isinstance(document, dict):
        raise ValueError(f"expected a plan or a list of plans, got {type(document).__name__}")
    try:
        return [_facts(plan) for plan in document.get("items", [document])]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a plan: {error}") from None


def _load(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # not JSON: YAML, which takes a hundred times longer
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"neither JSON nor YAML: {error}") from None


def _facts(plan: dict[str, Any]) -> PlanFacts:
    rollout = f"{plan['rollout'].get('namespace', 'default')}/{plan['rollout']['name']}"
    weights = {arm["name"]: int(arm["weightBp"]) for arm in plan["arms"] if arm["name"] != STABLE}
    if not all(0 <= weight <= BUCKETS for weight in weights.values()):
        raise ValueError(f"weights lie between 0 and {BUCKETS}, got {weights}")
    return PlanFacts(int(plan["generation"]), plan.get("revision"), weights, rollout)
