"""The demo as people run it: both scenarios, and that nothing of it stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.demo import COHORT, demo

pytestmark = [pytest.mark.integration, pytest.mark.slow]


class Play:
    """One rollout of the demo under way in a process of its own."""

    def __init__(self, output: Path, *arguments: str) -> None:
        self._output = output
        command = [*COHORT, "demo", "--headless", "--ports", "auto", *arguments]
        with output.open("wb") as file:
            self._process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)

    def end(self) -> tuple[int, str]:
        """Exit code and timeline, once it has ended."""
        return self._process.wait(), self._output.read_text()

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(60)


@pytest.fixture(scope="module", autouse=True)
def plays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Play]]:
    """The rollouts that take minutes, begun at once: they mostly wait, and the other tests run meanwhile."""
    folder = tmp_path_factory.mktemp("plays")
    begun = {
        "good": Play(folder / "good", "--scenario", "good"),
        "bad": Play(folder / "bad", "--scenario", "bad"),
        "unexpected": Play(folder / "unexpected", "--scenario", "bad", "--expect", "promoted", "--seed", "2"),
    }
    yield begun
    for each in begun.values():
        each.stop()


def processes(folder: Path) -> set[int]:
    """Every process whose working directory lies in a folder of the demo's."""
    found = set()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and Path(os.readlink(entry / "cwd")).is_relative_to(folder):
                found.add(int(entry.name))
    return found


def test_an_end_that_does_not_come_fails(tmp_path: Path) -> None:
    """Any other end exits 1."""
    code, said = Play(tmp_path / "output", "--limit", "1", "--users", "20").end()
    assert code == 1, said
    assert "FAILED: expected the version to be promoted, it was still" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["ctrl-c", "term", "kill"])
def test_nothing_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Ctrl-C stops all of it, a second one hurts nothing, and even SIGKILL leaves no process."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with demo(tmp_path, "--users", "20") as running:
        running.until("20 users are there")
        before = processes(tmp_path)
        assert len(before) >= 7  # two shops, supervisor, two workers, controller, users
        running.process.send_signal(number)
        if number != signal.SIGKILL:
            running.process.send_signal(number)
        code = running.stop(number)
        assert code == (-number if number == signal.SIGKILL else 0), running.said()
        for _ in range(200):
            if not processes(tmp_path):
                break
            signal.sigtimedwait([], 0.05)
        assert not processes(tmp_path)
        if number != signal.SIGKILL:
            assert "0 flips, 0 requests lost" in running.said()
            assert not list(tmp_path.glob("cohort-demo-*"))


def test_a_part_that_dies_ends_the_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo says which part ended and what it said, and exits 1."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with demo(tmp_path, "--users", "20") as running:
        running.until("20 users are there")
        for pid in processes(tmp_path):
            with suppress(OSError):
                if b"demo.app" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    os.kill(pid, signal.SIGKILL)
                    break
        assert running.process.wait(timeout=30) == 1
        assert "ended by itself with -9" in running.said()


@pytest.mark.timeout(400)
def test_a_good_version_is_promoted(plays: dict[str, Play]) -> None:
    """The issue, "The demo": 5, 25, 50, 100 % of users by evidence, exit 0 with no flip and no request lost."""
    code, said = plays["good"].end()
    assert code == 0, said
    assert said.endswith("ok: promoted, no flip, no request lost\n")
    weights = [line.split()[3] for line in said.splitlines() if " Progressing " in line]
    assert list(dict.fromkeys(weights)) == ["5.00", "25.00", "50.00", "100.00"], said


@pytest.mark.timeout(400)
def test_a_bad_version_is_rolled_back(plays: dict[str, Play]) -> None:
    """The issue, "The demo": 3 % errors against 0.1 %. Who expected it to be promoted gets exit 1."""
    code, said = plays["bad"].end()
    assert code == 0, said
    assert "Rollback AnalysisFailed" in said
    assert said.endswith("ok: rolled-back, no flip, no request lost\n")
    code, said = plays["unexpected"].end()
    assert code == 1, said
    assert said.endswith("FAILED: expected the version to be promoted, it was rolled-back\n")
