"""A folder that people, editors and mounts write into."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from controller.net.folder import Folder

EXAMPLES = Path(__file__).parents[3] / "examples" / "rollout"
CHECKOUT = (EXAMPLES / "checkout.yaml").read_text()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "rollouts"
    folder.mkdir()
    return folder


def settle(folder: Folder) -> None:
    folder.look()
    folder.look()


def paths(folder: Folder) -> list[str]:
    return sorted(os.path.relpath(path, folder.path) for path in folder.files)


def test_documents_at_any_depth_are_read(root: Path) -> None:
    """Files of three endings; hidden ones and others are left alone."""
    (root / "shop").mkdir()
    (root / ".git").mkdir()
    for name in ("checkout.yaml", "shop/a.yml", "shop/b.json", ".hidden.yaml", ".git/c.yaml", "notes.txt"):
        (root / name).write_text(CHECKOUT)
    folder = Folder(str(root))
    assert not folder.is_settled or not folder.files
    settle(folder)
    assert paths(folder) == ["checkout.yaml", "shop/a.yml", "shop/b.json"]
    assert folder.is_settled


def test_a_file_counts_once_it_is_still(root: Path) -> None:
    """F17: half a document may be a valid one; while it grows nothing of it counts."""
    folder = Folder(str(root))
    path = root / "checkout.yaml"
    for part in range(1, 5):
        path.write_text(CHECKOUT[: len(CHECKOUT) * part // 4])
        folder.look()
        assert folder.files == {}
    assert folder.look()
    assert [file.problem for file in folder.files.values()] == [""]
    assert not folder.look()


def test_a_change_is_seen_whatever_way_it_is_made(root: Path) -> None:
    """Written in place, or renamed over as editors and kubelets do; the same size and time included."""
    path = root / "checkout.yaml"
    path.write_text(CHECKOUT)
    folder = Folder(str(root))
    settle(folder)
    draft = root / "draft"
    draft.write_text(CHECKOUT.replace("v2", "v3"))
    about = path.stat()
    os.utime(draft, ns=(about.st_atime_ns, about.st_mtime_ns))
    os.replace(draft, path)
    folder.look()
    assert folder.look()
    document = folder.files[str(path)].document
    assert document is not None
    assert "v3" in document.model_dump_json()


def test_a_mounted_config_map_is_read(root: Path) -> None:
    """Links into a hidden folder that is swapped whole."""
    for version, revision in (("..1", "v2"), ("..2", "v3")):
        (root / version).mkdir()
        (root / version / "checkout.yaml").write_text(CHECKOUT.replace("v2", revision))
    (root / "..data").symlink_to("..1")
    (root / "checkout.yaml").symlink_to("..data/checkout.yaml")
    folder = Folder(str(root))
    settle(folder)
    (root / "..new").symlink_to("..2")
    os.replace(root / "..new", root / "..data")
    settle(folder)
    assert paths(folder) == ["checkout.yaml"]
    document = folder.files[str(root / "checkout.yaml")].document
    assert document is not None
    assert "v3" in document.model_dump_json()


def test_a_broken_file_leaves_the_last_good_document(root: Path) -> None:
    """Refused whole; mended, it counts again."""
    path = root / "checkout.yaml"
    path.write_text(CHECKOUT)
    folder = Folder(str(root))
    settle(folder)
    good = folder.files[str(path)].document
    path.write_text("kind: [")
    settle(folder)
    assert folder.files[str(path)].document == good
    assert "not valid YAML" in folder.files[str(path)].problem
    path.write_text(CHECKOUT)
    settle(folder)
    assert folder.files[str(path)].problem == ""


def test_a_file_that_is_gone_is_gone_after_two_looks(root: Path) -> None:
    """An editor that deletes and writes anew leaves it away for a moment only."""
    path = root / "checkout.yaml"
    path.write_text(CHECKOUT)
    folder = Folder(str(root))
    settle(folder)
    path.unlink()
    folder.look()
    assert paths(folder) == ["checkout.yaml"]
    assert folder.look()
    assert paths(folder) == []


def test_a_renamed_file_never_is_away(root: Path) -> None:
    """The same rollout under another name."""
    path = root / "a.yaml"
    path.write_text(CHECKOUT)
    folder = Folder(str(root))
    settle(folder)
    path.rename(root / "b.yaml")
    folder.look()
    assert paths(folder) == ["a.yaml"]
    folder.look()
    assert paths(folder) == ["b.yaml"]


@pytest.mark.parametrize("what", ["dangling", "loop", "fifo", "folder", "unreadable", "large", "binary"])
def test_what_cannot_be_read_is_a_problem_and_nothing_more(root: Path, what: str) -> None:
    """F17: whatever lies there, the others are read, and nothing hangs."""
    path = root / "odd.yaml"
    match what:
        case "dangling":
            path.symlink_to("nowhere")
        case "loop":
            path.symlink_to("odd.yaml")
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "unreadable":
            path.write_text(CHECKOUT)
            path.chmod(0)
        case "large":
            path.write_bytes(b"#" * 2_000_000)
        case "binary":
            path.write_bytes(bytes(range(256)))
    (root / "checkout.yaml").write_text(CHECKOUT)
    folder = Folder(str(root))
    settle(folder)
    assert folder.files[str(root / "checkout.yaml")].document is not None
    if what == "folder":
        assert str(path) not in folder.files
    elif what == "unreadable" and os.geteuid() == 0:
        assert folder.files[str(path)].document is not None  # root reads everything
    else:
        assert folder.files[str(path)].problem.startswith("odd.yaml: ")


def test_a_folder_that_is_away_says_nothing(root: Path) -> None:
    """An unmounted volume is not a team that wants its rollouts gone."""
    path = root / "checkout.yaml"
    path.write_text(CHECKOUT)
    folder = Folder(str(root))
    settle(folder)
    root.rename(root.with_name("away"))
    settle(folder)
    assert paths(folder) == ["checkout.yaml"]
    assert "No such file or directory" in folder.problem
    root.with_name("away").rename(root)
    settle(folder)
    assert folder.problem == ""
