"""``cohort keys``."""

from __future__ import annotations

import base64

import pytest
import yaml
from click.testing import CliRunner

from controller.cli.root import cohort
from proxy import keys


def test_it_prints_a_secret_that_a_proxy_can_use() -> None:
    done = CliRunner().invoke(cohort, ["keys", "checkout-keys", "-n", "shop"])
    made = yaml.safe_load(done.stdout)
    assert done.exit_code == 0
    assert made["metadata"] == {
        "name": "checkout-keys",
        "namespace": "shop",
        "labels": {"app.kubernetes.io/part-of": "cohort"},
    }
    assert keys.parse({name: base64.b64decode(value) for name, value in made["data"].items()})


def test_outside_of_a_cluster_it_does_not_create(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    done = CliRunner().invoke(cohort, ["keys", "--create"])
    assert done.exit_code == 1
    assert "for a pod in a cluster" in done.stderr


def test_a_name_that_is_none_is_refused() -> None:
    assert CliRunner().invoke(cohort, ["keys", "No_Name"]).exit_code == 2
