"""A scripted controller, and commands run against it in this process or as one of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from controller.cli import root
from tests.support.fake_controller import FakeController, rollout, serve

PROGRAM = (sys.executable, "-c", "import sys; from controller.cli import main; sys.exit(main())")


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]
Spawn = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def controller() -> Iterator[FakeController]:
    """A controller with one rollout, shop/checkout."""
    with serve(FakeController(rollout())) as fake:
        yield fake


@pytest.fixture
def run(controller: FakeController, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs one command line against the controller."""
    for name in ("COHORT_TOKEN_FILE", "COHORT_NAMESPACE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COHORT_SERVER", controller.url)

    def result(*args: str) -> Result:
        code = root.run(list(args))
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return result


@pytest.fixture
def spawn(controller: FakeController) -> Iterator[Spawn]:
    """Starts one command line as a process; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*args: str, **options: Any) -> subprocess.Popen[bytes]:
        environment = os.environ | {"COHORT_SERVER": controller.url} | options.pop("env", {})
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        # Whoever starts the tests in the background ignores SIGINT, and children inherit that.
        interruptible = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        process = subprocess.Popen((*PROGRAM, *args), env=environment, preexec_fn=interruptible, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
