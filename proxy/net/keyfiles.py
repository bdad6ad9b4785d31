"""The keys directory: read, and at the first start on one machine made."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from proxy import keys
from proxy.keys import KeyFileError, Keys

MAX_FILE_BYTES = 1024  # a key file has 65


def load_keys(directory: str | Path, *, is_made: bool = True) -> Keys:
    """Read the keys directory and make what is missing: the directory with mode 0700, files with 0600.

    Processes that start at once end with the same keys; an existing file is never written.

    Args:
        directory: Where the files are.
        is_made: Whether what is missing is made.

    Raises:
        KeyFileError: A file cannot be read or made, or has another form; the message names it.
    """
    root = Path(directory)
    if is_made:
        _make_directory(root)
    files = {}
    for name in keys.FILE_NAMES:
        content = _read(root / name)
        if content is None and name in keys.NAMES and is_made:
            _make(root / name)
            content = _read(root / name)
        if content is not None:
            files[name] = content
    try:
        return keys.parse(files)
    except KeyFileError as error:
        raise KeyFileError(f"{root}/{error}") from None


def _make_directory(root: Path) -> None:
    try:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise KeyFileError(f"{root}: cannot make the keys directory: {error.strerror}") from None


def _read(path: Path) -> bytes | None:
    try:
        # A FIFO in place of a key must not hang the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return os.read(descriptor, MAX_FILE_BYTES)
    except OSError as error:
        raise KeyFileError(f"{path}: cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)


def _make(path: Path) -> None:
    """Put a new key at ``path`` unless there is one by now: linked into place whole, so nobody reads half of it."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, keys.serialise(secrets.token_bytes(keys.SECRET_BYTES)))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # another process was faster: its key counts
        finally:
            os.unlink(draft)
        _sync(path.parent)
    except OSError as error:
        raise KeyFileError(
            f"{path}: no such key, and none can be made: {error.strerror}. Add the file, or make its directory writable"
        ) from None


def _sync(directory: Path) -> None:
    """A key that was used must still be there after a power cut, or every user is dealt anew."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
