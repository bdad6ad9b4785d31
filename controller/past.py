"""What one controller leaves of its evidence to the next: the window so far, and where each proxy's counters stood.

Text of a bounded size, for it is kept in a status. Counters grow as long as a proxy runs, so the next controller takes
the difference to where they stood, and what was counted while nobody looked is neither lost nor counted twice; those
of a proxy that was restarted meanwhile begin anew. Of whole windows the sums over all proxies are kept. Times are ages:
how much older they are by then, the proxies' own clocks tell.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controller.look import EPOCH_REGISTERS, Counts, Look
from proxy.sketch import merge

SLICES = 120  # of the longest window: its edge is sharp to 1 %
COARSER = (SLICES, 30, 8)  # until it fits
EPOCHS = 12  # groups of users' registers: the two minutes that proxies keep by themselves stay as sharp as they are
MAX_TEXT = 131_072  # characters: with state and plan about half of what etcd takes for one object
MAX_PLAIN = 16 * MAX_TEXT

Epochs = Mapping[str, Mapping[int, bytes]]


@dataclass(slots=True)
class Slice:
    """What was counted by arm within some seconds."""

    start: float
    end: float
    counts: dict[str, Counts]


@dataclass(frozen=True, slots=True)
class Past:
    """The evidence of one attempt up to a moment.

    Attributes:
        wall: That moment by the proxies' clocks, in Unix seconds.
        now: The same by the clock that the slices' times are of.
        slices: Of the longest window, of all proxies.
        epochs: Registers of distinct users by arm and epoch, over all proxies.
        looks: The last one at each proxy, by its address.
    """

    wall: float
    now: float
    slices: list[Slice] = field(default_factory=list)
    epochs: dict[str, dict[int, bytes]] = field(default_factory=dict)
    looks: dict[str, Look] = field(default_factory=dict)

    def rebased(self, now: float) -> Past:
        """The same by another clock, at which it was that moment at ``now``."""
        by = now - self.now
        return replace(self, now=now, slices=[replace(s, start=s.start + by, end=s.end + by) for s in self.slices])


def merged(found: Iterable[Epochs], oldest: int) -> dict[str, dict[int, bytes]]:
    """Registers of several proxies by arm and epoch, in at most `EPOCHS` groups, each as old as its oldest epoch."""
    groups: dict[str, dict[int, list[bytes]]] = {}
    for epochs in found:
        for arm, known in epochs.items():
            for epoch, registers in known.items():
                if epoch >= oldest:
                    groups.setdefault(arm, {}).setdefault(epoch, []).append(registers)
    return {arm: _grouped(known) for arm, known in groups.items()}


def _grouped(known: Mapping[int, list[bytes]]) -> dict[int, bytes]:
    size = math.ceil((max(known) - min(known) + 1) / EPOCHS)
    groups: dict[int, list[bytes]] = {}
    first = min(known)
    for epoch, registers in known.items():
        groups.setdefault(epoch - (epoch - first) % size, []).extend(registers)
    return {epoch: merge(registers) for epoch, registers in groups.items()}


def write(past: Past, attempt: int) -> str:
    """The text of what was counted in an attempt, `MAX_TEXT` long at most: coarser where that is needed.

    Where even that is too long, for there are hundreds of proxies, each of them begins anew.
    """
    for slices in COARSER:
        text = _text(past, attempt, slices)
        if len(text) <= MAX_TEXT:
            return text
    return _text(replace(past, looks={}), attempt, COARSER[-1])


def _text(past: Past, attempt: int, slices: int) -> str:
    value = {
        "attempt": attempt,
        "wall": round(past.wall, 1),
        "slices": [
            [round(part.start - past.now, 1), round(part.end - past.now, 1), _arms(part.counts)]
            for part in _coarse(past.slices, slices)
        ],
        "users": {
            arm: {epoch: base64.b64encode(registers).decode() for epoch, registers in epochs.items()}
            for arm, epochs in past.epochs.items()
        },
        "looks": {
            address: [look.boot, round(look.now, 1), look.generation, _arms(look.counts)]
            for address, look in past.looks.items()
        },
    }
    plain = json.dumps(value, separators=(",", ":")).encode()
    return base64.b64encode(zlib.compress(plain)).decode()


def _coarse(slices: Iterable[Slice], most: int) -> list[Slice]:
    """So many slices at most, of equal length, of all that fall into each."""
    slices = sorted(slices, key=lambda part: part.end)
    if not slices:
        return []
    length = max(slices[-1].end - slices[0].end, 1e-9) / max(most - 1, 1)
    groups: dict[int, Slice] = {}
    for part in slices:
        at = int((part.end - slices[0].end) / length)
        group = groups.setdefault(at, Slice(part.start, part.end, {}))
        group.start, group.end = min(group.start, part.start), part.end
        for arm, counts in part.counts.items():
            group.counts.setdefault(arm, Counts()).add(counts)
    return list(groups.values())


def _arms(counts: Mapping[str, Counts]) -> dict[str, Any]:
    return {arm: [c.requests, c.failures, [[i, n] for i, n in c.latency.items() if n]] for arm, c in counts.items()}


def read(text: str, attempt: int) -> Past | None:
    """What `write` wrote; None: it is of another attempt.

    Raises:
        ValueError: It is nothing of the kind, or of another version of this program.
    """
    try:
        value = json.loads(_plain(text))
        if value["attempt"] != attempt:
            return None
        return Past(
            wall=float(value["wall"]),
            now=0.0,
            slices=[Slice(float(start), float(end), _counts(arms)) for start, end, arms in value["slices"]],
            epochs={arm: _registers(epochs) for arm, epochs in value["users"].items()},
            looks={
                address: Look(str(boot), float(now), None, None, int(generation), _counts(arms), {})
                for address, (boot, now, generation, arms) in value["looks"].items()
            },
        )
    except (KeyError, TypeError, AttributeError, binascii.Error, zlib.error, RecursionError) as error:
        raise ValueError(f"expected evidence as another controller keeps it: {error}") from None


def _plain(text: str) -> bytes:
    return zlib.decompressobj().decompress(base64.b64decode(text, validate=True), MAX_PLAIN)


def _counts(arms: Mapping[str, Any]) -> dict[str, Counts]:
    return {
        arm: Counts(int(requests), int(failures), {int(cell): int(count) for cell, count in latency})
        for arm, (requests, failures, latency) in arms.items()
    }


def _registers(epochs: Mapping[str, str]) -> dict[int, bytes]:
    found = {int(epoch): base64.b64decode(text, validate=True) for epoch, text in epochs.items()}
    if any(len(registers) != EPOCH_REGISTERS for registers in found.values()):
        raise ValueError(f"expected {EPOCH_REGISTERS} registers an epoch")
    return found
