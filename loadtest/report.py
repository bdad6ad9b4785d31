"""Tells somebody, such as the demo's page, what each user saw last."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from loadtest.person import Sight

EVERY_S = 0.5  # a page that is drawn more often tells a person nothing more
BATCH = 2_000  # records a message: about 300 KB, below common limits on bodies


class Reporter:
    """Keeps the last sight of each seat until it is told: so what waits is never more than there are seats.

    Args:
        send: Delivers one message; it may raise OSError, and then the message is dropped and counted.
        totals: What the run counts so far, told with each message.

    Attributes:
        dropped: Messages that were not delivered; ``error`` says why the last one was not.
    """

    def __init__(self, send: Callable[[bytes], None], totals: Callable[[], dict[str, Any]]) -> None:
        self._send = send
        self._totals = totals
        self._waiting: dict[int, dict[str, Any]] = {}
        self.dropped = 0
        self.error = ""

    def put(self, sight: Sight) -> None:
        """Note what a user saw; a flip that has not been told yet stays."""
        record = as_record(sight)
        before = self._waiting.get(sight.seat)
        if before and before["flip"] and not record["flip"]:
            record["flip"] = before["flip"]
        self._waiting[sight.seat] = record

    def flush(self) -> None:
        """Tell all that waits."""
        records = list(self._waiting.values())
        self._waiting.clear()
        for start in range(0, len(records), BATCH):
            try:
                message = {"users": records[start : start + BATCH], "totals": self._totals()}
                self._send(json.dumps(message).encode())
            except OSError as error:
                self.dropped += 1
                self.error = str(error)


def as_record(sight: Sight) -> dict[str, Any]:
    """The plain form of one sight."""
    answer = sight.answer
    return {
        "seat": sight.seat,
        "user": sight.user,
        "arm": answer.arm if answer else None,
        "revision": answer.revision if answer else None,
        "reason": answer.reason if answer else None,
        "generation": answer.generation if answer else None,
        "status": sight.status,
        "lost": sight.lost,
        "flip": str(sight.flip) if sight.flip else None,
    }
