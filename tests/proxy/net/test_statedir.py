"""The state directory: one owner, a plan, a latch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.latch import Abort, latch
from proxy.net.statedir import StateDir, StateDirError
from tests.support.plans import plan


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    found = StateDir(tmp_path / "a" / "state")
    yield found
    found.close()


def test_plan_and_latch_survive_a_restart(tmp_path: Path, state: StateDir) -> None:
    """The last good plan and the abort are what a new supervisor begins with."""
    made = latch(Abort(by="anna"), "0123456789abcdef", "v2", 0.0)
    state.write_plan(plan())
    state.write_latch(made)
    found = state.read_plan()
    assert found is not None
    assert found[0] == plan()
    assert state.read_latch(0.0) == made
    state.remove_latch()
    assert state.read_latch(0.0) is None
    assert (tmp_path / "a" / "state").stat().st_mode & 0o777 == 0o700


def test_an_empty_directory_has_neither(state: StateDir) -> None:
    """A first start."""
    assert state.read_plan() is None
    assert state.read_latch(0.0) is None


def test_a_second_supervisor_is_refused(tmp_path: Path) -> None:
    """Two would take turns in overwriting each other's latch."""
    first = StateDir(tmp_path)
    with pytest.raises(StateDirError, match=rf"process {os.getpid()}\).*a stateDir of its own"):
        StateDir(tmp_path)
    first.close()
    StateDir(tmp_path).close()


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """The message names the path and what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StateDirError, match=r"stateDir: .*file/state: cannot be used"):
        StateDir(tmp_path / "file" / "state")


@pytest.mark.parametrize("content", [b"", b'{"generation": 1}', b"\xff\xfe"], ids=["empty", "invalid", "binary"])
def test_a_last_good_plan_that_cannot_be_read_is_left_out(tmp_path: Path, state: StateDir, content: bytes) -> None:
    """A damaged file must not keep the proxy from its start."""
    (tmp_path / "a" / "state" / "plan.json").write_bytes(content)
    assert state.read_plan() is None


def test_a_latch_that_cannot_be_read_stands(tmp_path: Path, state: StateDir) -> None:
    """In doubt everybody is on stable."""
    (tmp_path / "a" / "state" / "latch.json").mkdir()
    assert state.read_latch(0.0) is not None


def test_counters_are_kept_once(state: StateDir) -> None:
    """Whoever is killed later must not go on with numbers of before: they would run backwards."""
    assert state.take_counters(7) is None
    state.write_counters("0b", 7, b"\0\n" * 100)
    assert state.take_counters(7) == ("0b", b"\0\n" * 100)
    assert state.take_counters(7) is None


@pytest.mark.parametrize("damage", ["layout", "bytes", "head"])
def test_counters_that_cannot_be_used_are_left_out(tmp_path: Path, state: StateDir, damage: str) -> None:
    """Another version's, or what a disk has spoilt."""
    state.write_counters("0b", 7, b"numbers")
    path = next(tmp_path.rglob("counters"))
    if damage == "bytes":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "head":
        path.write_bytes(b"[]\nnumbers")
    assert state.take_counters(8 if damage == "layout" else 7) is None
    assert not path.exists()
