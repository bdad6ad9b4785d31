"""``cohort schema``."""

from __future__ import annotations

import json

import pytest
import yaml

from controller.cli.documents import KINDS
from tests.controller.cli.conftest import Run


@pytest.mark.parametrize("kind", KINDS)
def test_every_document_has_a_schema(run: Run, kind: str) -> None:
    """surface.md: `schema`; unknown keys are refused, field names are those that people write."""
    result = run("schema", kind)
    schema = json.loads(result.out)
    assert result.code == 0
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["properties"]["kind"]["const"] == kind
    assert schema["additionalProperties"] is False
    assert not any("_" in name for part in [schema, *schema["$defs"].values()] for name in part.get("properties", {}))


def test_without_a_kind_all_schemas_by_kind(run: Run) -> None:
    """One file for an editor's settings; YAML on request."""
    assert list(json.loads(run("schema").out)) == list(KINDS)
    assert yaml.safe_load(run("schema", "plan", "-o", "yaml").out) == json.loads(run("schema", "Plan").out)


def test_an_unknown_kind_is_wrong_use(run: Run) -> None:
    """surface.md: exit 2."""
    result = run("schema", "Deployment")
    assert result.code == 2
    assert "expected one of CanaryRollout, AnalysisTemplate, Plan" in result.err


def test_definitions_for_a_cluster(run: Run) -> None:
    """As `kubectl apply -f -` reads them: all three, or one by its kind."""
    made = list(yaml.safe_load_all(run("schema", "--crd").out))
    assert [one["spec"]["names"]["kind"] for one in made] == ["CanaryRollout", "RolloutAction", "AnalysisTemplate"]
    assert list(yaml.safe_load_all(run("schema", "rolloutaction", "--crd").out)) == made[1:2]
    assert json.loads(run("schema", "--crd", "-o", "json").out)["items"] == made


@pytest.mark.parametrize(("args", "part"), [(("plan", "--crd"), "Plan is no resource"), (("RolloutAction",), "--crd")])
def test_what_is_no_resource_has_no_definition(run: Run, args: tuple[str, ...], part: str) -> None:
    """surface.md: exit 2; actions are nothing that a file holds."""
    result = run("schema", *args)
    assert result.code == 2
    assert part in result.err
