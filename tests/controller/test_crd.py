"""The definitions of custom resources: structural, bounded, described, and nothing of the models lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from controller.crd import RESOURCES, Resource, definition, structural, text
from controller.resource import RolloutAction, RolloutStatus
from controller.rules import RULES
from controller.spec import AnalysisTemplate, CanaryRollout
from proxy.document import Document

Json = dict[str, Any]
KINDS = pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: resource.plural)
UNKNOWN = ("$ref", "$defs", "anyOf", "additionalProperties", "const", "multipleOf", "title", "exclusiveMinimum", "ge")


def parts(schema: Json, path: str = "") -> Iterator[tuple[str, Json]]:
    """Every schema in a schema by its path."""
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from parts(part, f"{path}.{name}")
    if "items" in schema:
        yield from parts(schema["items"], f"{path}[]")


def root(resource: Resource) -> Json:
    schema: Json = definition(resource)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


@KINDS
def test_schemas_are_structural(resource: Resource) -> None:
    """kubernetes.md, schema: what an API server refuses or drops is not in them; everything has a type."""
    for path, part in parts(root(resource)):
        assert [key for key in UNKNOWN if key in part] == [], path
        assert ("type" in part) != ("x-kubernetes-int-or-string" in part), path


@KINDS
def test_every_list_and_text_is_bounded(resource: Resource) -> None:
    """Without bounds an API server refuses rules: it reckons with the worst case."""
    for path, part in parts(root(resource)):
        if part.get("type") == "string" and path not in (".apiVersion", ".kind"):
            assert "maxLength" in part or "enum" in part, path
        if part.get("type") == "array":
            assert "maxItems" in part, path


@KINDS
def test_every_field_says_what_it_is(resource: Resource) -> None:
    """`kubectl explain` is how people read a schema."""
    lacking = [p for p, part in parts(root(resource)) if not p.endswith("[]") and not part.get("description")]
    assert [path for path in lacking if not path.startswith(".metadata")] == []


@KINDS
def test_names_and_columns(resource: Resource) -> None:
    """Short names, a category, and columns that point at fields that there are."""
    made = definition(resource)["spec"]
    assert made["names"]["shortNames"]
    assert made["names"]["categories"] == ["cohort"]
    known = {path for path, _ in parts(root(resource))} | {".metadata.creationTimestamp"}
    columns = made["versions"][0]["additionalPrinterColumns"]
    assert [column["jsonPath"] for column in columns if column["jsonPath"] not in known] == []


def test_people_see_what_matters_first() -> None:
    """The issue: phase, step, weight, measured, verdict, age."""
    columns = definition(RESOURCES[0])["spec"]["versions"][0]["additionalPrinterColumns"]
    shown = [column["name"] for column in columns if not column.get("priority")]
    assert shown == ["Phase", "Step", "Weight", "Measured", "Verdict", "Age"]


def test_defaults_are_written_as_people_write_them() -> None:
    """Seconds and basis points are the program's own; durations and percentages are the document's."""
    spec = root(RESOURCES[0])["properties"]["spec"]["properties"]
    assert spec["users"]["default"] == [{"mint": {"maxAge": "2160h"}}]
    assert spec["breaker"]["properties"]["errorPercent"]["default"] == 50
    assert spec["stable"]["properties"]["healthCheck"]["properties"]["interval"]["default"] == "5s"


def test_nothing_is_written_into_a_list() -> None:
    """A list is somebody's as a whole: a default within is a conflict for the next who applies the same manifest."""
    within = [(path, part) for resource in RESOURCES for path, part in parts(root(resource)) if "[]" in path]
    assert len(within) > 50
    assert [path for path, part in within if "default" in part] == []


@pytest.mark.parametrize("model", [CanaryRollout, AnalysisTemplate, RolloutAction, RolloutStatus])
def test_every_check_of_a_model_has_rules(model: type[Document]) -> None:
    """A model that checks more than its fields one by one has rules: a new check cannot be forgotten."""
    found = {one.__name__: one for one in subclasses(Document)}
    schema = model.model_json_schema()
    names = [model.__name__, *schema.get("$defs", {})]
    checking = {name for name in names if name in found and found[name].__pydantic_decorators__.model_validators}
    assert checking <= {one.__name__ for one in RULES}


def subclasses(model: type[Document]) -> Iterator[type[Document]]:
    for one in model.__subclasses__():
        yield one
        yield from subclasses(one)


def test_a_document_of_two_kinds_of_value_is_one_int_or_string() -> None:
    """A percentage: an integer or text, never a float; `anyOf` is refused."""
    percent = structural(RolloutAction)["properties"]["spec"]["properties"]["weight"]
    assert percent["x-kubernetes-int-or-string"] is True
    assert percent["maximum"] == 100
    assert percent["pattern"]


@KINDS
def test_the_text_is_the_definition(resource: Resource) -> None:
    """YAML without anchors, small enough for the annotation that a client-side apply keeps."""
    made = text(definition(resource))
    assert yaml.safe_load(made) == definition(resource)
    assert len(json.dumps(definition(resource))) < 200_000
