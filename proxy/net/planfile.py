"""The watched plan file: looked at every 200 ms, read whole once it has stopped changing, refused whole if it is bad.

Polling sees what inotify does not: a file behind a symbolic link that is swapped (as a mounted ConfigMap is), a network
file system, a file that appears later.
"""

from __future__ import annotations

import os
from pathlib import Path

from proxy.document import MAX_DOCUMENT_BYTES, DocumentError, Fault
from proxy.net.files import read_bounded
from proxy.plan import Plan, parse_plan

POLL_S = 0.2
JUST_WRITTEN_S = 1.0

Signature = tuple[int, ...] | str | None


class PlanFile:
    """One path and what has been seen there.

    Args:
        path: May not exist yet, may be a symbolic link.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last: Signature = None
        self._done: Signature = None
        self._content: bytes | None = None

    def has_changed(self) -> bool:
        """Whether there is something new to read that looked the same at the last call: a writer has finished.

        A file cut off in the middle of a write can be a valid plan with fewer routes, so a change waits for one poll.
        """
        found = signature(self.path)
        settled, self._last = found == self._last, found
        return settled and found is not None and found != self._done

    def is_settled(self, now_wall_s: float) -> bool:
        """Whether the file can be read at a start: it is not just being written.

        Args:
            now_wall_s: Unix seconds; one written long before that is taken to be complete.
        """
        self._last, last = signature(self.path), self._last
        return self._last is None or self._last == last or abs(now_wall_s - self.modified_s) > JUST_WRITTEN_S

    def read(self) -> Plan | None:
        """Read the file as it is now; `has_changed` is quiet until it changes again.

        Returns:
            None if there is no file, or if its content is what it was at the last call.

        Raises:
            DocumentError: It cannot be read, or is no valid plan.
        """
        self._done = self._last = signature(self.path)
        if self._done is None:
            return None
        try:
            content = read_bounded(self.path, MAX_DOCUMENT_BYTES)
        except OSError as error:
            self._content = None
            raise DocumentError([Fault("", f"cannot be read: {error.strerror or error}")]) from None
        if content == self._content:
            return None
        self._content = content
        return parse_plan(content)

    def read_again(self) -> None:
        """Take the file for new at the next poll: what hindered its plan was not the plan's fault."""
        self._done = self._content = None

    @property
    def modified_s(self) -> float:
        """When the file was written, Unix seconds; 0 if there is none."""
        try:
            return self.path.stat().st_mtime
        except OSError:
            return 0.0


def signature(path: Path) -> Signature:
    """What tells one state of a file from another; None if there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        # Nothing there yet is fine; a link that leads nowhere is a mistake to be told.
        return os.readlink(path) if path.is_symlink() else None
    except OSError as error:
        return str(error)
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
