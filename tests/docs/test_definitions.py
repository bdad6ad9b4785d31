from __future__ import annotations

import yaml

from tests.docs.definitions import FOLDER, files


def test_the_chart_s_definitions_are_what_the_models_say() -> None:
    """The issue's rule: generated from the models that read the files; a stale one fails."""
    assert sorted(FOLDER.iterdir()) == sorted(files())
    assert [path.name for path, text in files().items() if path.read_text() != text] == [], "run make docs"


def test_the_chart_asks_for_a_server_that_knows_the_rules_functions() -> None:
    """`ip` and `cidr` are there for new expressions from Kubernetes 1.31 on: older servers refuse the definitions."""
    assert any("isCIDR(" in text for text in files().values())
    assert yaml.safe_load((FOLDER.parent / "Chart.yaml").read_text())["kubeVersion"] == ">=1.31.0-0"
