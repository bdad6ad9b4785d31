"""The state directory of one proxy: plan, abort latch, counters between two runs. One supervisor at a time owns it."""

from __future__ import annotations

import fcntl
import json
import logging
import os
from hashlib import blake2b
from pathlib import Path

from proxy.document import MAX_DOCUMENT_BYTES
from proxy.latch import Latch, restore_latch, serialise_latch
from proxy.net.files import read_bounded, remove, write_atomic
from proxy.plan import Plan

log = logging.getLogger("cohort.state")

PLAN_NAME = "plan.json"
LATCH_NAME = "latch.json"
COUNTERS_NAME = "counters"
LOCK_NAME = "lock"
_COUNTERS_BYTES = 512 * 1_048_576  # 504 workers of 0.6 MiB
_STORED_PLAN_BYTES = 16 * MAX_DOCUMENT_BYTES  # a stored plan spells every default out


class StateDirError(Exception):
    """The state directory cannot be used; the message says what to do."""


class StateDir:
    """An open state directory.

    Attributes:
        path: Absolute.

    Args:
        path: Made with mode 0700 if it is not there.
        lock: Descriptor of the lock of a supervisor whose place this one takes; None: it is to be locked.

    Raises:
        StateDirError: Another supervisor has it, or it cannot be written to.
    """

    def __init__(self, path: Path, lock: int | None = None) -> None:
        self.path = path.absolute()
        self._plan = path / PLAN_NAME
        self._latch = path / LATCH_NAME
        self._counters = path / COUNTERS_NAME
        if lock is not None:
            self._lock = lock
            return
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(path / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise StateDirError(
                f"stateDir: {path}: cannot be used: {error.strerror}. Make it a directory that this user may write to"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(self._lock, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._lock)
            raise StateDirError(
                f"stateDir: {path}: another proxy has it (process {owner}). Stop that one, or give this one a stateDir "
                "of its own"
            ) from None
        try:
            os.ftruncate(self._lock, 0)
            os.write(self._lock, b"%d\n" % os.getpid())
        except OSError:
            pass  # a full disk; the process id is only for the message above

    @property
    def lock(self) -> int:
        """The descriptor that holds the directory."""
        return self._lock

    def close(self) -> None:
        """Let another supervisor have it."""
        os.close(self._lock)

    def read_plan(self) -> tuple[Plan, float] | None:
        """The last good plan and when it was written, Unix seconds; None if there is none or it cannot be read."""
        try:
            content = read_bounded(self._plan, _STORED_PLAN_BYTES)
            return Plan.model_validate_json(content), self._plan.stat().st_mtime
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            log.error("the last good plan is left out: %s: %s", self._plan, error)
            return None

    def write_plan(self, plan: Plan) -> None:
        """Keep the last good plan.

        Raises:
            OSError: The one before it is still there.
        """
        write_atomic(self._plan, plan.model_dump_json(by_alias=True).encode())

    def write_counters(self, boot: str, layout: int, regions: bytes) -> None:
        """Keep the numbers of a proxy that ends in order, for the next start.

        Raises:
            OSError: They are not kept.
        """
        digest = blake2b(regions, digest_size=16).hexdigest()
        head = json.dumps({"boot": boot, "layout": layout, "digest": digest}).encode()
        write_atomic(self._counters, head + b"\n" + regions)

    def take_counters(self, layout: int) -> tuple[str, bytes] | None:
        """What `write_counters` kept, once: whoever is killed before the next order finds none, and begins at zero.

        Returns:
            ``boot`` and the regions; None if there are none, or if they are damaged or of another layout.
        """
        try:
            content = read_bounded(self._counters, _COUNTERS_BYTES)
            remove(self._counters)
            head, _, regions = content.partition(b"\n")
            found = json.loads(head)
            digest = blake2b(regions, digest_size=16).hexdigest()
            if (found["layout"], found["digest"]) == (layout, digest):
                return str(found["boot"]), regions
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("counters begin at zero: %s: %s", self._counters, error)
            return None
        log.warning("counters begin at zero: those in stateDir are damaged, or of another version")
        return None

    def read_latch(self, now_wall_s: float) -> Latch | None:
        """The abort that stood when the last supervisor ended; one that cannot be read stands too."""
        try:
            content = read_bounded(self._latch, MAX_DOCUMENT_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            content = str(error).encode()
        return restore_latch(content, now_wall_s)

    def write_latch(self, latch: Latch) -> None:
        """Keep an abort.

        Raises:
            OSError: It is not kept.
        """
        write_atomic(self._latch, serialise_latch(latch))

    def remove_latch(self) -> None:
        """Forget an abort that a plan has lifted.

        Raises:
            OSError: It may still be there.
        """
        remove(self._latch)
