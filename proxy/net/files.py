"""Files that must be whole after a crash or a full disk: written beside, synced, renamed, and the directory synced."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def write_atomic(path: Path, content: bytes) -> None:
    """Put a file in place whole: a reader, and a start after a power cut, finds the old content or the new.

    The draft has a fixed name, so drafts never pile up; one process at a time may write to a path.

    Raises:
        OSError: Nothing was changed, except that after a failed sync of the directory a power cut may undo the write.
    """
    draft = path.with_name(f".{path.name}.draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(draft, path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def remove(path: Path) -> None:
    """Remove a file for good; one that is not there is fine.

    Raises:
        OSError: It may still be there.
    """
    path.unlink(missing_ok=True)
    _sync(path.parent)


def read_bounded(path: Path, limit: int) -> bytes:
    """Read at most ``limit`` bytes and one more, which tells that there are more.

    Raises:
        OSError: It cannot be read, or is no regular file: a FIFO would never end.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(f"{path}: not a regular file")
        chunks, left = [], limit + 1
        while left and (chunk := file.read(min(left, 1 << 16))):
            chunks.append(chunk)
            left -= len(chunk)
        return b"".join(chunks)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
