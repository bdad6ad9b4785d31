"""The watched plan file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.document import MAX_DOCUMENT_BYTES, DocumentError
from proxy.net.planfile import JUST_WRITTEN_S, PlanFile
from tests.support.plans import plan

TEXT = plan().model_dump_json(by_alias=True)


def changed(file: PlanFile) -> bool:
    """Two polls: a change counts when it has settled."""
    file.has_changed()
    return file.has_changed()


def test_a_file_that_is_not_there_yet_is_no_fault(tmp_path: Path) -> None:
    """F39: it may come later."""
    file = PlanFile(tmp_path / "plan.yaml")
    assert file.read() is None
    assert not changed(file)
    file.path.write_text(TEXT)
    assert changed(file)
    assert file.read() == plan()
    assert not changed(file)


def test_a_change_counts_once_it_has_settled(tmp_path: Path) -> None:
    """F17: cut off in the middle of a write it may be a valid plan with fewer routes."""
    file = PlanFile(tmp_path / "plan.yaml")
    file.read()
    for size in (100, 200, 300):
        file.path.write_text(TEXT[:size])
        assert not file.has_changed()
    assert file.has_changed()


def test_a_swapped_link_is_a_change_and_the_same_content_is_none(tmp_path: Path) -> None:
    """A ConfigMap is a link that is swapped."""
    for name, generation in (("a", 1), ("b", 1), ("c", 2)):
        (tmp_path / name).write_text(plan(generation=generation).model_dump_json(by_alias=True))
    file = PlanFile(tmp_path / "plan.yaml")
    found = []
    for name in ("a", "b", "c"):
        (tmp_path / "new").symlink_to(name)
        os.rename(tmp_path / "new", file.path)
        assert changed(file)
        found.append(file.read())
    assert [item and item.generation for item in found] == [1, None, 2]


@pytest.mark.parametrize("what", ["garbage", "dangling", "folder", "fifo", "huge", "binary", "empty", "loop"])
def test_a_bad_file_is_refused_whole_and_once(tmp_path: Path, what: str) -> None:
    """F17: not each 200 ms again; a good one afterwards is read."""
    file = PlanFile(tmp_path / "plan.yaml")
    match what:
        case "garbage":
            file.path.write_text("rollout: [\n")
        case "dangling":
            file.path.symlink_to("nowhere")
        case "loop":
            file.path.symlink_to("plan.yaml")
        case "folder":
            file.path.mkdir()
        case "fifo":
            os.mkfifo(file.path)
        case "huge":
            with file.path.open("wb") as huge:
                huge.truncate(100 * MAX_DOCUMENT_BYTES)
        case "binary":
            file.path.write_bytes(bytes(range(256)))
        case "empty":
            file.path.write_bytes(b"")
    assert changed(file)
    with pytest.raises(DocumentError):
        file.read()
    assert not changed(file)
    if what == "folder":
        file.path.rmdir()
    draft = tmp_path / "draft"
    draft.write_text(TEXT)
    os.rename(draft, file.path)
    assert changed(file)
    assert file.read() == plan()


def test_a_file_that_vanishes_changes_nothing(tmp_path: Path) -> None:
    """The plan in force stays; editors remove and write again."""
    file = PlanFile(tmp_path / "plan.yaml")
    file.path.write_text(TEXT)
    file.read()
    file.path.unlink()
    assert not changed(file)


def test_a_plan_that_was_refused_for_no_fault_of_its_own_is_read_again(tmp_path: Path) -> None:
    """A full disk, a worker that died."""
    file = PlanFile(tmp_path / "plan.yaml")
    file.path.write_text(TEXT)
    file.read()
    file.read_again()
    assert changed(file)
    assert file.read() == plan()


def test_at_a_start_a_file_just_written_has_to_settle(tmp_path: Path) -> None:
    """One that was written long ago is complete; none at all needs no waiting."""
    file = PlanFile(tmp_path / "plan.yaml")
    assert file.is_settled(0.0)
    file.path.write_text(TEXT)
    written = file.modified_s
    assert not file.is_settled(written)
    assert file.is_settled(written)
    file.path.write_text(TEXT + "\n")
    os.utime(file.path, (written, written))
    assert file.is_settled(written + 2 * JUST_WRITTEN_S)
