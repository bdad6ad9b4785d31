"""``cohort controller``: its settings checked, and the service started with them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.controller.cli.conftest import Run
from tests.controller.cli.test_lint import CONTROLLER, ROLLOUT, TEMPLATE


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings with a folder of rollouts beside them."""
    (tmp_path / "rollouts").mkdir()
    (tmp_path / "rollouts" / "rollout.yaml").write_text(ROLLOUT)
    (tmp_path / "rollouts" / "template.yaml").write_text(TEMPLATE)
    (tmp_path / "controller.yaml").write_text(CONTROLLER)
    return tmp_path / "controller.yaml"


def test_check_reads_the_settings_and_the_rollouts(run: Run, config: Path) -> None:
    """The same verdict as a start would give, without starting."""
    result = run("controller", "--config", str(config), "--check")
    assert result.code == 0
    assert "warning: spec.routes[0]" in result.out
    (config.parent / "rollouts" / "template.yaml").unlink()
    assert run("controller", "--config", str(config), "--check").code == 1


@pytest.mark.parametrize("check", [[], ["--check"]])
def test_faulty_settings_are_told_with_their_paths(run: Run, config: Path, check: list[str]) -> None:
    """Parsed once, validated whole."""
    config.write_text(CONTROLLER + "colour: red\n")
    result = run("controller", "--config", str(config), *check)
    assert result.code == 1
    assert result.out == f"{config}: fault: colour: unknown field: remove it or check its spelling\n"


def test_what_is_not_there_is_wrong_use(run: Run, config: Path) -> None:
    """surface.md: exit 2."""
    assert run("controller").code == 2
    assert run("controller", "--config", str(config.parent / "none.yaml")).code == 2
    config.write_text(CONTROLLER + "rollouts: elsewhere\n")
    result = run("controller", "--config", str(config), "--check")
    assert result.code == 2
    assert "expected a folder of rollouts at" in result.err


def test_the_service_runs_in_the_folder_of_its_settings(
    run: Run, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths are relative to the settings file."""
    seen: list[Any] = []
    service = SimpleNamespace(run=lambda settings: seen.append((settings, Path.cwd())))
    monkeypatch.setitem(sys.modules, "controller.net.service", service)
    monkeypatch.chdir("/")
    assert run("controller", "--config", str(config)).code == 0
    ((settings, folder),) = seen
    assert settings.proxies[0].address == "unix:admin.sock"
    assert folder == config.parent
