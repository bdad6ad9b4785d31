"""The parent starts what was killed again, and nothing else."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

KEEP = "import sys; from controller.net.kube.parent import keep; sys.exit(keep(sys.argv[1:], 0.01))"
CHILD = """
import os, pathlib, signal, sys, time
lives = pathlib.Path(sys.argv[1])
count = len(lives.read_text()) + 1 if lives.exists() else 1
lives.write_text("x" * count)
"""


def command(lives: Path, child: str) -> list[str]:
    """A parent of a child that counts its lives in a file."""
    return [sys.executable, "-c", KEEP, sys.executable, "-c", CHILD + child, str(lives)]


def test_what_was_killed_is_started_again_until_it_ends_by_itself(tmp_path: Path) -> None:
    child = "os.kill(os.getpid(), signal.SIGKILL if count < 3 else signal.SIGSEGV) if count < 4 else sys.exit(7)"
    done = subprocess.run(command(tmp_path / "lives", child), capture_output=True, text=True, timeout=60)
    assert done.returncode == 7
    assert (tmp_path / "lives").read_text() == "xxxx"
    assert done.stderr.count("SIGKILL and is started again") == 2
    assert done.stderr.count("SIGSEGV and is started again") == 1


@pytest.mark.parametrize("code", [0, 1])
def test_what_ends_by_itself_ends_the_container(tmp_path: Path, code: int) -> None:
    done = subprocess.run(command(tmp_path / "lives", f"sys.exit({code})"), capture_output=True, timeout=60)
    assert done.returncode == code
    assert (tmp_path / "lives").read_text() == "x"


@pytest.mark.parametrize(
    ("ending", "code"),
    [("signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))", 0), ("pass", 128 + signal.SIGTERM)],
    ids=["in order", "by the signal itself"],
)
def test_sigterm_is_passed_on_and_nothing_is_started_after_it(tmp_path: Path, ending: str, code: int) -> None:
    child = f"{ending}\nprint('ready', flush=True)\nwhile True: time.sleep(60)"
    with subprocess.Popen(command(tmp_path / "lives", child), stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        parent.terminate()
        assert parent.wait(60) == code
    assert (tmp_path / "lives").read_text() == "x"
