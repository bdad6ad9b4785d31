"""The program's own log: JSON lines on standard error, written by a thread, so that a stuck reader blocks nobody."""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime

MAX_WAITING = 1024  # lines; a burst of refusals at start is some dozen
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class LogHandler(logging.Handler):
    """Writes records from a thread of its own; what finds no room, or cannot be written, is dropped and counted.

    Args:
        descriptor: Where to write.
        dropped: Called for each record lost, from any thread.
    """

    def __init__(self, descriptor: int, dropped: Callable[[], None]) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._dropped = dropped
        self._lines: queue.Queue[bytes | None] = queue.Queue(MAX_WAITING)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one record."""
        try:
            self._lines.put_nowait(line(record))
        except queue.Full:
            self._dropped()

    def close(self) -> None:
        """Write what is queued and stop; waits at most a second for a reader that is stuck."""
        try:
            self._lines.put_nowait(None)
            self._thread.join(1.0)
        except queue.Full:
            pass
        super().close()

    def _run(self) -> None:
        while (data := self._lines.get()) is not None:
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                self._dropped()


def line(record: logging.LogRecord) -> bytes:
    """One record as one line of JSON; what a peer sent cannot break the line, JSON escapes it."""
    entry = {
        "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "pid": record.process,
        "message": _message(record),
    }
    if record.exc_info:
        entry["traceback"] = "".join(traceback.format_exception(*record.exc_info))
    return json.dumps(entry, separators=(",", ":"), default=str).encode() + b"\n"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):
        return f"{record.msg!r} {record.args!r}"  # a wrong format must not lose the message


def set_up(level: str, dropped: Callable[[], None]) -> LogHandler:
    """Send every logger of this process to standard error; the caller closes what it gets."""
    handler = LogHandler(2, dropped)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)
    return handler


def set_level(level: str) -> None:
    """Change the level of this process: debug, info, warning or error."""
    logging.getLogger().setLevel(LEVELS[level])
