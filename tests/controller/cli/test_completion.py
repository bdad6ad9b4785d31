"""``cohort completion`` and what the scripts ask for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.controller.cli.conftest import PROGRAM, Run
from tests.support.fake_controller import FakeController, rollout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(run: Run, shell: str) -> None:
    """product.md F1; the script asks `cohort` itself at each tab."""
    result = run("completion", shell)
    assert result.code == 0
    assert f"_COHORT_COMPLETE={shell}_complete" in result.out


def test_another_shell_is_wrong_use(run: Run) -> None:
    """surface.md: exit 2."""
    assert run("completion", "tcsh").code == 2


def complete(controller: FakeController, *words: str) -> list[str]:
    """What bash would offer for the last of some words."""
    environment = os.environ | {
        "COHORT_SERVER": controller.url,
        "_COHORT_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("cohort", *words)),
        "COMP_CWORD": str(len(words)),
    }
    result = subprocess.run(PROGRAM, env=environment, capture_output=True, text=True, check=True)
    assert result.stderr == ""
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


def test_commands_options_and_names_are_offered(controller: FakeController) -> None:
    """The names of rollouts come from the controller."""
    controller.items["shop", "cart"] = rollout("cart")
    assert complete(controller, "pro") == ["proxy", "promote"]
    assert complete(controller, "status", "--w") == ["--watch"]
    assert complete(controller, "status", "c") == ["checkout", "cart"]
    assert complete(controller, "get", "-o", "") == ["table", "wide", "json", "yaml", "name"]
    assert complete(controller, "set", "") == ["weight"]


def test_a_controller_that_is_away_offers_nothing(controller: FakeController) -> None:
    """The tab key must not print errors."""
    controller.script.append(b"")
    assert complete(controller, "status", "") == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash: apt-get install bash")
def test_bash_takes_the_script(controller: FakeController) -> None:
    """It is run, not only printed."""
    bin_folder = Path(sys.executable).parent
    line = 'eval "$(cohort completion bash)"; complete -p cohort'
    environment = os.environ | {"PATH": f"{bin_folder}:{os.environ['PATH']}", "COHORT_SERVER": controller.url}
    result = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "complete -o nosort -F _cohort_completion cohort\n"
    assert result.stderr == ""
