"""The keys directory on a real file system."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from proxy import keys
from proxy.net.keyfiles import load_keys


def test_the_first_start_makes_keys_and_the_next_finds_them(tmp_path: Path) -> None:
    """surface.md, settings: made at the first start on one machine."""
    directory = tmp_path / "a" / "keys"
    first = load_keys(directory)
    assert sorted(path.name for path in directory.iterdir()) == sorted(keys.NAMES)
    assert len({getattr(first, name).current for name in keys.NAMES}) == len(keys.NAMES)
    assert load_keys(directory) == first


def test_nobody_else_can_read_them(tmp_path: Path) -> None:
    """The directory has mode 0700, a file 0600, whatever the umask."""
    before = os.umask(0)
    try:
        load_keys(tmp_path / "keys")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()} == {0o600}


def test_what_is_there_is_kept_and_only_what_is_missing_is_made(tmp_path: Path) -> None:
    """An existing key is never written: another identity key would make everybody another user."""
    (tmp_path / "identity").write_bytes(keys.serialise(b"i" * 32))
    (tmp_path / "cookie.previous").write_bytes(keys.serialise(b"p" * 32))
    loaded = load_keys(tmp_path)
    assert (loaded.identity.current, loaded.cookie.previous) == (b"i" * 32, b"p" * 32)
    assert (tmp_path / "identity").read_bytes() == keys.serialise(b"i" * 32)


def test_processes_that_start_at_once_end_with_the_same_keys(tmp_path: Path) -> None:
    """Supervisor and controller share the directory, and nobody reads half a file."""
    with ThreadPoolExecutor(16) as pool:
        loaded = list(pool.map(lambda _: load_keys(tmp_path / "keys"), range(64)))
    assert all(one == loaded[0] for one in loaded)
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == sorted(keys.NAMES)


@pytest.mark.parametrize("content", [b"", b"secret\n", b"ab" * 33], ids=["empty", "word", "long"])
def test_a_faulty_file_is_named_with_its_path_and_left_alone(tmp_path: Path, content: bytes) -> None:
    """Never overwritten: it may be what is left of the only copy."""
    (tmp_path / "split").write_bytes(content)
    with pytest.raises(keys.KeyFileError, match=f"^{tmp_path}/split: expected 64 hexadecimal digits"):
        load_keys(tmp_path)
    assert (tmp_path / "split").read_bytes() == content


def test_a_directory_or_a_pipe_in_place_of_a_key_is_an_error_and_no_hang(tmp_path: Path) -> None:
    """An error that names the path, whatever is there."""
    (tmp_path / "cookie").mkdir()
    with pytest.raises(keys.KeyFileError, match=f"^{tmp_path}/cookie: cannot be read: "):
        load_keys(tmp_path)
    (tmp_path / "cookie").rmdir()
    os.mkfifo(tmp_path / "cookie")
    with pytest.raises(keys.KeyFileError, match=f"^{tmp_path}/cookie: expected 64 hexadecimal digits"):
        load_keys(tmp_path)


def test_a_directory_that_cannot_be_made_or_written_is_named(tmp_path: Path) -> None:
    """What to do is part of the message."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(keys.KeyFileError, match="cannot make the keys directory"):
        load_keys(tmp_path / "file" / "keys")
    with pytest.raises(keys.KeyFileError, match=r"none can be made: .* make its directory writable"):
        load_keys("/proc/self/fdinfo")


def test_a_mounted_secret_of_links_reads(tmp_path: Path) -> None:
    """Kubernetes mounts a Secret as links into ``..data``."""
    (tmp_path / "..data").mkdir()
    for name in keys.NAMES:
        (tmp_path / "..data" / name).write_bytes(keys.serialise(b"k" * 32))
        (tmp_path / name).symlink_to(f"..data/{name}")
    assert load_keys(tmp_path).control.current == b"k" * 32
