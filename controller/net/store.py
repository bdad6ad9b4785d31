"""What survives: state, events and measurements of each rollout in one SQLite file that one controller holds.

A transition is one transaction: the state and the events that tell of it are there together or not at all. Write-ahead
log, and synchronous=FULL: what was announced is on disk.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Any

from controller.errors import Permanent, Temporary
from controller.events import Record, Tell
from controller.status import Status
from proxy.plan import Plan

SCHEMA_VERSION = 1
KEEP_EVENTS = 1000  # of each rollout; the oldest go first
KEEP_MEASUREMENTS = 10_000  # of each rollout: a day at one every ten seconds
BUSY_S = 2.0  # somebody who looks into the file with sqlite3 may hold it for a moment

_SCHEMA = """
CREATE TABLE rollout (
    key TEXT PRIMARY KEY, state TEXT NOT NULL, conditions TEXT NOT NULL, version INTEGER NOT NULL, at REAL NOT NULL
) STRICT;
CREATE TABLE event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, at REAL NOT NULL, type TEXT NOT NULL,
    reason TEXT NOT NULL, message TEXT NOT NULL
) STRICT;
CREATE INDEX event_of ON event (key, seq);
CREATE TABLE measurement (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, at REAL NOT NULL, revision TEXT NOT NULL,
    step INTEGER, metric TEXT NOT NULL, value REAL, outcome TEXT NOT NULL, message TEXT NOT NULL
) STRICT;
CREATE INDEX measurement_of ON measurement (key, seq);
"""
# Beside the schema: a version without it leaves it alone, and what it holds is of use for the length of a window only.
_EVIDENCE = "CREATE TABLE IF NOT EXISTS evidence (key TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT"


@dataclass(frozen=True, slots=True)
class Stored:
    """One rollout as it was stored; ``state`` and ``conditions`` are JSON, ``evidence`` is as `past` writes it."""

    key: str
    state: str
    conditions: str
    version: int
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Told:
    """One event; ``at`` in Unix seconds."""

    seq: int
    at: float
    type: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Moved:
    """A rollout after a transition, or after something about it has changed that is not stored.

    Attributes:
        stored: The state.
        status: As people see it.
        at: Unix seconds.
        plan: In force; None: there is none yet. ``document``: as it is published, None where nobody needs that.
        told: Events of the transition; ``measured`` likewise.
        is_quiet: Only time has passed, or something was measured.
    """

    stored: Stored
    status: Status
    at: float
    plan: Plan | None = None
    document: Mapping[str, Any] | None = None
    told: Sequence[Tell] = ()
    measured: Sequence[Record] = ()
    is_quiet: bool = False


class FileLedger:
    """The file as an engine uses it: a disk that hangs does not hold up the loop."""

    def __init__(self, store: Store) -> None:
        self.checkpoint_s = 1.0  # elapsed time that a crash may lose: a step lasts so much longer then
        self._store = store

    async def save(self, moved: Moved) -> None:
        """Store a transition; raises `Temporary`."""
        await asyncio.to_thread(self._store.save, moved.stored, moved.at, moved.told, moved.measured)

    async def show(self, moved: Moved) -> None:
        """Whoever wants to know asks the API."""

    async def tell(self, key: str, at: float, told: Sequence[Tell]) -> None:
        """Store events alone; raises `Temporary`."""
        await asyncio.to_thread(self._store.tell, key, at, told)


class Store:
    """The file. Methods block on the disk and may be called from any thread, one at a time.

    Raises:
        Permanent: Another controller has the file, or it cannot be used.
    """

    def __init__(self, path: str) -> None:
        self._lock = Lock()
        self._held = _hold(path)
        try:
            self._database = _open(path)
        except BaseException:
            self._held.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._database.close()
            self._held.close()

    def load(self) -> list[Stored]:
        """Every rollout, the last changed first."""
        with self._lock:
            rows = self._database.execute(
                "SELECT key, state, conditions, version, coalesce(text, '') "
                "FROM rollout LEFT JOIN evidence USING (key) ORDER BY at DESC"
            )
            return [Stored(*row) for row in rows]

    def save(self, stored: Stored, at: float, told: Sequence[Tell] = (), measured: Sequence[Record] = ()) -> None:
        """Store a transition.

        Args:
            stored: The rollout after it.
            at: Unix seconds.
            told: Events of it.
            measured: Measurements of it.

        Raises:
            Temporary: The disk is full or broken; nothing of it is stored.
        """
        with self._lock:
            try:
                with self._database:
                    self._database.execute(
                        "INSERT OR REPLACE INTO rollout (key, state, conditions, version, at) VALUES (?, ?, ?, ?, ?)",
                        (stored.key, stored.state, stored.conditions, stored.version, at),
                    )
                    self._database.execute(
                        "INSERT OR REPLACE INTO evidence (key, text) VALUES (?, ?)", (stored.key, stored.evidence)
                    )
                    self._tell(stored.key, at, told)
                    self._measure(stored.key, at, measured)
            except sqlite3.Error as error:
                raise Temporary(f"the state cannot be stored: {error}") from None

    def tell(self, key: str, at: float, told: Sequence[Tell]) -> None:
        """Store events alone.

        Raises:
            Temporary: As `save`.
        """
        with self._lock:
            try:
                with self._database:
                    self._tell(key, at, told)
            except sqlite3.Error as error:
                raise Temporary(f"events cannot be stored: {error}") from None

    def _tell(self, key: str, at: float, told: Sequence[Tell]) -> None:
        rows = [(key, at, "Warning" if t.is_warning else "Normal", str(t.reason), t.message) for t in told]
        self._append("event", "key, at, type, reason, message", key, rows, KEEP_EVENTS)

    def _measure(self, key: str, at: float, measured: Sequence[Record]) -> None:
        rows = [(key, at, m.revision, m.index, m.metric, m.value, m.outcome.value, m.message) for m in measured]
        columns = "key, at, revision, step, metric, value, outcome, message"
        self._append("measurement", columns, key, rows, KEEP_MEASUREMENTS)

    def _append(self, table: str, columns: str, key: str, rows: Iterable[tuple[object, ...]], keep: int) -> None:
        rows = list(rows)
        if not rows:
            return
        places = ", ".join("?" * len(rows[0]))
        self._database.executemany(f"INSERT INTO {table} ({columns}) VALUES ({places})", rows)  # noqa: S608  # constants
        self._database.execute(
            f"DELETE FROM {table} WHERE key = ? AND seq <= "  # noqa: S608  # constants
            f"(SELECT seq FROM {table} WHERE key = ? ORDER BY seq DESC LIMIT 1 OFFSET ?)",
            (key, key, keep),
        )

    def events(self, key: str, after: int, limit: int) -> list[Told]:
        """Events of a rollout with a number above ``after``, oldest first, at most ``limit``."""
        with self._lock:
            rows = self._database.execute(
                "SELECT seq, at, type, reason, message FROM event WHERE key = ? AND seq > ? ORDER BY seq LIMIT ?",
                (key, after, limit),
            )
            return [Told(*row) for row in rows]


def _hold(path: str) -> IO[str]:
    """The lock file beside the state, held by this process alone until it ends, however it ends."""
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        held = open(f"{path}.lock", "a+", opener=lambda name, flags: os.open(name, flags | os.O_CLOEXEC, 0o600))  # noqa: SIM115  # closed by Store
    except OSError as error:
        raise Permanent(f"state {path}: {error.strerror}") from None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        held.seek(0)
        owner = held.read(64).strip()
        held.close()
        raise Permanent(
            f"state {path}: another controller{f', process {owner},' if owner else ''} has it. Two must not both act: "
            "stop that one, or give this one a state of its own"
        ) from None
    held.truncate(0)
    held.write(f"{os.getpid()}\n")
    held.flush()
    return held


def _open(path: str) -> sqlite3.Connection:
    is_new = not os.path.exists(path)
    if is_new:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    database: sqlite3.Connection | None = None
    try:
        database = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise Permanent(
                f"state {path}: expected schema {SCHEMA_VERSION}, found {version}, of another version of cohort. "
                "Use that one, or move the file away to rebuild the state from documents and proxies"
            )
        database.execute(_EVIDENCE)
        return database
    except sqlite3.Error as error:
        if database:
            database.close()
        raise Permanent(
            f"state {path}: {error}. Move the file away to rebuild the state from documents and proxies"
        ) from None
    except Permanent:
        if database:
            database.close()
        raise
