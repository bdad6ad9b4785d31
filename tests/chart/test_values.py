"""values.yaml, its schema and the templates say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from controller.spec import RolloutSpec
from tests.chart.schema import CHART, SCHEMA, schema, text

VALUES = (CHART / "values.yaml").read_text()
TEMPLATES = "".join(path.read_text() for path in sorted((CHART / "templates").rglob("*.*")))
FREE = {"resources", "strategy", "breaker", "stable", "canary"}  # Kubernetes' own, or a model's


def leaves(values: dict[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every value that is documented on its own."""
    for name, value in values.items():
        path = (*prefix, name)
        if isinstance(value, dict) and value and name not in FREE:
            yield from leaves(value, path)
        else:
            yield path


LEAVES = list(leaves(yaml.safe_load(VALUES)))


def test_the_schema_is_made_from_the_models() -> None:
    assert SCHEMA.read_text() == text(), "run .venv/bin/python -m tests.chart.schema"


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_every_value_is_told_and_in_the_schema(path: tuple[str, ...]) -> None:
    """helm-docs takes its table from the comments; a value outside of the schema could not be set."""
    place: Any = schema()
    for name in path:
        place = place["properties"][name]
    lines = VALUES.splitlines()
    indent = "  " * (len(path) - 1)
    told = [
        lines[number - 1].strip().startswith("# -- ") or line.endswith("RollingUpdate")
        for number, line in enumerate(lines)
        if re.match(rf"{indent}{re.escape(path[-1])}:", line)
    ]
    assert told
    assert all(told)


def test_every_value_of_the_schema_has_its_default() -> None:
    """A value that only the schema knows would be found by nobody."""

    def walk(place: Any, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        for name, inner in place.get("properties", {}).items():
            path = (*prefix, name)
            if "properties" in inner and name not in FREE and inner["properties"]:
                yield from walk(inner, path)
            else:
                yield path

    assert set(walk(schema())) - {("global",)} == set(LEAVES)


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_every_value_is_used(path: tuple[str, ...]) -> None:
    """What can be set and changes nothing is a lie; a rollout's fields are handed over as they are."""
    if path[0] == "rollout" and path[1] in RolloutSpec.model_fields | {"revisionFrom": 1, "onArmDown": 1}:
        return
    assert re.search(rf"\.{path[-1]}\b|\.{path[-2]} \| toJson", TEMPLATES) if len(path) > 1 else path[0] in TEMPLATES


def test_every_field_of_a_rollout_is_a_value() -> None:
    """All that a cluster takes."""
    fields = {field.alias for field in RolloutSpec.model_fields.values()} - {"workloadRef"}
    assert fields <= yaml.safe_load(VALUES)["rollout"].keys()
