"""What the workers of a master tell it, added up: each judges and counts its own users, and tells all every time."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from loadtest.flip import Gate, Ledger
from loadtest.tally import KEPT, Tally, Version, add, share

GONE = 100  # workers that left and are still known by themselves: one that was cut off may come back


@dataclass(slots=True)
class Split:
    """How one plan's split came out: distinct users by arm, the weights where they are known, what was on trial."""

    users: dict[str, int] = field(default_factory=dict)
    weights: dict[str, int] = field(default_factory=dict)
    trial: str | None = None


@dataclass(slots=True)
class Account:
    """What one worker, or all of them, saw so far.

    Attributes:
        is_final: Its users have stopped; nothing is to come.
    """

    tally: Tally = field(default_factory=Tally)
    behind: int = 0
    splits: dict[Gate, Split] = field(default_factory=dict)
    is_final: bool = False

    def add(self, other: Account, present: bool) -> None:
        """Add another one's; of a worker that is not ``present`` the requests count, and nobody is there any more."""
        add(self.tally, other.tally, present)
        self.behind += other.behind
        for gate, theirs in other.splits.items():
            ours = self.splits.setdefault(gate, Split())
            for arm, users in theirs.users.items():
                ours.users[arm] = ours.users.get(arm, 0) + users
            ours.weights = ours.weights or dict(theirs.weights)
            ours.trial = ours.trial or theirs.trial

    def shares(self) -> list[dict[str, Any]]:
        """The rows of the summary, oldest plan first."""
        return [share(gate, one.users, one.weights, one.trial) for gate, one in sorted(self.splits.items(), key=_gate)]


class Gathered:
    """The last word of each worker. Workers that went long ago are kept as one, so that restarts take no memory."""

    def __init__(self) -> None:
        self._past = Account()
        self._folded: set[str] = set()
        self._last: dict[str, Account] = {}  # who told last comes last

    def take(self, worker: str, told: Mapping[str, Any], present: Collection[str]) -> None:
        """Note what a worker tells; ``present``: the workers that are there."""
        if worker in self._folded:
            return  # it counts already, and would count twice
        self._last.pop(worker, None)
        self._last[worker] = from_plain(told)
        gone = [name for name in self._last if name not in present]
        for name in gone[: max(0, len(gone) - GONE)]:
            self._past.add(self._last.pop(name), present=False)
            self._folded.add(name)

    def total(self, present: Collection[str]) -> Account:
        """All that was ever told; users are those of the workers that are there."""
        total = Account()
        total.add(self._past, present=False)
        for worker, account in self._last.items():
            total.add(account, worker in present)
        return total

    def is_final(self, present: Collection[str]) -> bool:
        """Whether each of these has told its last."""
        return all(worker in self._last and self._last[worker].is_final for worker in present)


def to_plain(tally: Tally, ledger: Ledger, is_final: bool) -> dict[str, Any]:
    """What a worker tells, as values that msgpack carries."""
    versions = {
        revision: [v.arm, v.users, v.requests, v.errors, dict(v.codes), dict(v.latency)]
        for revision, v in tally.versions.items()
    }
    counts = [tally.arrived, tally.active, tally.requests, tally.unexplained, tally.flips, tally.flipped_users]
    splits = [
        [*gate, dict(users), dict(weights), ledger.trial(gate[0], gate[1])] for gate, users, weights in ledger.shares()
    ]
    lost = {"lost": dict(tally.lost), "lostDetails": tally.lost_details, "flipDetails": tally.flip_details}
    return {"counts": counts, "versions": versions, "behind": ledger.behind, "splits": splits, "final": is_final} | lost


def from_plain(told: Mapping[str, Any]) -> Account:
    """What `to_plain` made.

    Raises:
        ValueError, TypeError, KeyError: Anything else.
    """
    arrived, active, requests, unexplained, flips, flipped_users = told["counts"]
    tally = Tally(arrived, active, requests, unexplained, flips=flips, flipped_users=flipped_users)
    tally.lost.update(told["lost"])
    tally.lost_details += told["lostDetails"][:KEPT]
    tally.flip_details += told["flipDetails"][:KEPT]
    for revision, (arm, users, asked, errors, codes, latency) in told["versions"].items():
        version = tally.versions[revision] = Version(arm, users, asked, errors)
        version.codes.update(codes)
        version.latency.update(latency)
    splits = {
        (rollout, generation, reason): Split(users, weights, trial)
        for rollout, generation, reason, users, weights, trial in told["splits"]
    }
    return Account(tally, told["behind"], splits, told["final"])


def _gate(item: tuple[Gate, Split]) -> Gate:
    return item[0]
