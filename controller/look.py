"""What a proxy tells of its counters: the document of GET /stats, read strictly."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from controller.spec import ARMS

EPOCH_S = 10  # of the users' registers, by the proxies' wall clocks
EPOCH_REGISTERS = 1024  # what a proxy keeps for an epoch
_SOURCE = "user"


@dataclass(slots=True)
class Counts:
    """Requests, failures and latencies by cell; cumulative or of a window."""

    requests: int = 0
    failures: int = 0
    latency: dict[int, int] = field(default_factory=dict)

    def add(self, other: Counts, sign: int = 1) -> None:
        """Add (or with -1 take away) another's numbers."""
        self.requests += sign * other.requests
        self.failures += sign * other.failures
        for cell, count in other.latency.items():
            self.latency[cell] = self.latency.get(cell, 0) + sign * count

    @property
    def is_sane(self) -> bool:
        """Whether no number is negative, as a difference of growing counters cannot be."""
        return self.requests >= 0 and self.failures >= 0 and min(self.latency.values(), default=0) >= 0


@dataclass(slots=True)
class Look:
    """One answer of a proxy's /stats: cumulative counts and registers by arm."""

    boot: str
    now: float
    uid: str | None
    revision: str | None
    generation: int
    counts: dict[str, Counts]
    epochs: dict[str, dict[int, bytes]]


def parse_look(value: Any) -> Look:
    """Read the document of GET /stats.

    Raises:
        ValueError: It is not one.
    """
    try:
        arms = dict(value["arms"].items())
        return Look(
            boot=str(value["boot"]),
            now=float(value["now"]),
            uid=value["uid"],
            revision=value["revision"],
            generation=int(value["generation"]),
            counts={arm: _counts(arms[arm]) for arm in ARMS if arm in arms},
            epochs={arm: _epochs(arms[arm]) for arm in ARMS if arm in arms},
        )
    except (KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise ValueError(f"expected the document of /stats, got one without {error}") from None


def _counts(arm: Mapping[str, Any]) -> Counts:
    numbers = arm["sources"].get(_SOURCE)
    if numbers is None:
        return Counts()
    latency = {int(cell): int(count) for cell, count in numbers["latency"]}
    return Counts(int(numbers["requests"]), int(numbers["failures"]), latency)


def _epochs(arm: Mapping[str, Any]) -> dict[int, bytes]:
    users = arm.get("users") or {"epochs": {}}
    epochs = {int(epoch): base64.b64decode(text, validate=True) for epoch, text in users["epochs"].items()}
    if any(len(registers) != EPOCH_REGISTERS for registers in epochs.values()):
        raise ValueError(f"expected {EPOCH_REGISTERS} registers an epoch")
    return epochs


def difference(before: Look, after: Look) -> dict[str, Counts] | None:
    """What was counted between two looks; None: the counters started again in between."""
    if before.boot != after.boot:
        return None
    found = {}
    for arm, counts in after.counts.items():
        passed = Counts()
        passed.add(counts)
        passed.add(before.counts.get(arm, Counts()), -1)
        if not passed.is_sane:
            return None
        found[arm] = passed
    return found
