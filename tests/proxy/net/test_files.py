"""Files that are whole after a crash or a full disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxy.net.files import read_bounded, remove, write_atomic


def test_a_file_is_replaced_whole_and_leaves_no_draft(tmp_path: Path) -> None:
    """tmp, fsync, rename, fsync of the directory: F19."""
    path = tmp_path / "plan.json"
    path.write_bytes(b"old and longer")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["plan.json"]


def test_a_full_disk_keeps_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F19: the state file's old content stays, the draft goes."""
    path = tmp_path / "plan.json"
    path.write_bytes(b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["plan.json"]


def test_a_draft_left_by_a_crash_is_no_hindrance(tmp_path: Path) -> None:
    """Its name is always the same, so drafts never pile up."""
    (tmp_path / ".plan.json.draft").write_bytes(b"half")
    write_atomic(tmp_path / "plan.json", b"new")
    assert os.listdir(tmp_path) == ["plan.json"]


def test_a_link_in_place_of_the_draft_is_not_followed(tmp_path: Path) -> None:
    """Whoever can write to the directory must not aim our writes elsewhere."""
    (tmp_path / ".plan.json.draft").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"):
        write_atomic(tmp_path / "plan.json", b"new")
    assert not (tmp_path / "other").exists()


def test_removing_what_is_not_there_is_fine(tmp_path: Path) -> None:
    """A lift that was interrupted is done again."""
    (tmp_path / "latch.json").write_bytes(b"x")
    remove(tmp_path / "latch.json")
    remove(tmp_path / "latch.json")
    assert os.listdir(tmp_path) == []


def test_reading_is_bounded(tmp_path: Path) -> None:
    """F17, 100 MB: one byte more than the limit tells that there are more."""
    path = tmp_path / "large"
    path.write_bytes(b"x" * 300_000)
    assert len(read_bounded(path, 200_000)) == 200_001
    assert len(read_bounded(path, 300_000)) == 300_000


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    """A FIFO would never end."""
    path = tmp_path / kind
    if kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(OSError, match=r"not a regular file|[Dd]irectory"):
        read_bounded(path, 10)
