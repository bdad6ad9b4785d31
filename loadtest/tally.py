"""What a run counts: users and requests by version, lost requests, flips; a progress line and a summary of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loadtest.flip import STABLE, Answer, Flip, Gate

KEPT = 100  # flips and lost requests told in full; all are counted
_STEPS = 100  # latency buckets a decade: a relative error of 1.2 %


@dataclass(slots=True)
class Version:
    """One version, as the proxy's ``X-Cohort-Revision`` names it.

    Attributes:
        arm: Where its last answer came from; a promotion makes a canary stable.
        users: Who saw it last.
    """

    arm: str = ""
    users: int = 0
    requests: int = 0
    errors: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    latency: Counter[int] = field(default_factory=Counter)

    def quantile_ms(self, q: float) -> float:
        """Milliseconds that a share ``q`` of the answers did not take."""
        rank, seen = q * sum(self.latency.values()), 0
        for index in sorted(self.latency):
            seen += self.latency[index]
            if seen >= rank:
                return round(10 ** (index / _STEPS) / 1000, 3)
        return 0.0


@dataclass(slots=True)
class Tally:
    """Counters of one run, all of one thread.

    Attributes:
        arrived: Users that ever came; ``active`` are there now.
        unexplained: Answers without the proxy's explanation, which tell nothing about versions.
    """

    arrived: int = 0
    active: int = 0
    requests: int = 0
    unexplained: int = 0
    versions: dict[str, Version] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    lost_details: list[str] = field(default_factory=list)
    flips: int = 0
    flipped_users: int = 0
    flip_details: list[dict[str, str]] = field(default_factory=list)

    def answered(self, answer: Answer | None, before: str | None, status: int, seconds: float) -> str | None:
        """Count one whole answer.

        Args:
            answer: What it says of itself, None: nothing.
            before: The revision of the user's last answer, None: the first.
            status: 502-504 where the service itself sent them, otherwise never.
            seconds: From the first byte sent to the last received.

        Returns:
            The user's revision now.
        """
        self.requests += 1
        if answer is None:
            self.unexplained += 1
            return before
        version = self._version(answer.revision)
        version.arm = answer.arm
        version.requests += 1
        version.codes[status] += 1
        version.errors += status >= 500
        version.latency[round(_STEPS * math.log10(max(seconds * 1e6, 1)))] += 1
        if before != answer.revision:
            self.left(before)
            version.users += 1
        return answer.revision

    def left(self, revision: str | None) -> None:
        """A user is no longer one of this version's."""
        if revision is not None:
            self._version(revision).users -= 1

    def lose(self, cause: str, detail: str) -> None:
        """Count a request that got no whole answer from a version."""
        self.requests += 1
        self.lost[cause] += 1
        if len(self.lost_details) < KEPT:
            self.lost_details.append(detail)

    def flip(self, user: str, flip: Flip, first: bool) -> None:
        """Count a flip; ``first``: the user's first."""
        self.flips += 1
        self.flipped_users += first
        if len(self.flip_details) < KEPT:
            detail = {"user": user, "before": str(flip.before or ""), "after": str(flip.after), "why": flip.why}
            self.flip_details.append(detail)

    def faults(self) -> list[str]:
        """Why this run has failed; empty: it has not."""
        faults = []
        if self.flips:
            faults.append(f"{self.flips} flips of {self.flipped_users} users")
        if lost := self.lost.total():
            causes = ", ".join(f"{count} {cause}" for cause, count in self.lost.most_common())
            faults.append(f"{lost} requests lost ({causes})")
        if not self.requests:
            faults.append("no request was made")
        elif self.unexplained and not self.versions:
            faults.append("no answer was explained: is the target a cohort proxy, and its plan's explain not Never?")
        return faults

    def _version(self, revision: str) -> Version:
        return self.versions.setdefault(revision, Version())


def add(total: Tally, other: Tally, present: bool) -> None:
    """Add what another process counted; if its users are not ``present`` any more, nobody is where they were last."""
    total.arrived += other.arrived
    total.active += other.active if present else 0
    total.requests += other.requests
    total.unexplained += other.unexplained
    total.flips += other.flips
    total.flipped_users += other.flipped_users
    total.lost.update(other.lost)
    total.lost_details = (total.lost_details + other.lost_details)[:KEPT]
    total.flip_details = (total.flip_details + other.flip_details)[:KEPT]
    for revision, theirs in other.versions.items():
        ours = total.versions.setdefault(revision, Version())
        ours.arm = theirs.arm if present or not ours.arm else ours.arm
        ours.users += theirs.users if present else 0
        ours.requests += theirs.requests
        ours.errors += theirs.errors
        ours.codes.update(theirs.codes)
        ours.latency.update(theirs.latency)


def progress(tally: Tally, requests_before: int, seconds: float) -> str:
    """One line: users, rate over the last ``seconds``, share and errors by version, lost requests, flips."""
    parts = [f"{tally.active} users", f"{(tally.requests - requests_before) / max(seconds, 0.001):.0f} req/s"]
    for revision, version in sorted(tally.versions.items()):
        users, requests = _percent(version.users, _users(tally)), _percent(version.requests, _told(tally))
        parts.append(f"{version.arm} {revision} {users} % of users, {requests} % of requests, {version.errors} errors")
    return " | ".join([*parts, f"lost {tally.lost.total()}", f"flips {tally.flips}"])


def totals(tally: Tally) -> dict[str, Any]:
    """What a report tells beside the users: small, because it goes out twice a second."""
    versions = {
        revision: {"arm": v.arm, "users": v.users, "requests": v.requests, "errors": v.errors}
        for revision, v in tally.versions.items()
    }
    counts = {"active": tally.active, "requests": tally.requests, "lost": tally.lost.total(), "flips": tally.flips}
    return counts | {"versions": versions}


def summary(tally: Tally, seconds: float, behind: int, shares: list[dict[str, Any]]) -> dict[str, Any]:
    """The whole run as plain values, the ``-o json`` form."""
    versions = [
        {
            "revision": revision,
            "arm": v.arm,
            "users": v.users,
            "usersPercent": _percent(v.users, _users(tally)),
            "requests": v.requests,
            "requestsPercent": _percent(v.requests, _told(tally)),
            "errors": v.errors,
            "errorPercent": _percent(v.errors, v.requests),
            "codes": {str(code): count for code, count in sorted(v.codes.items())},
            "latencyMs": {f"p{q}": v.quantile_ms(q / 100) for q in (50, 90, 99)},
        }
        for revision, v in sorted(tally.versions.items())
    ]
    return {
        "ok": not tally.faults(),
        "faults": tally.faults(),
        "seconds": round(seconds, 1),
        "users": tally.arrived,
        "requests": tally.requests,
        "requestsPerSecond": round(tally.requests / max(seconds, 0.001), 1),
        "versions": versions,
        "generations": shares,
        "flips": tally.flips,
        "flippedUsers": tally.flipped_users,
        "flipDetails": tally.flip_details,
        "lost": tally.lost.total(),
        "lostByCause": dict(tally.lost),
        "lostDetails": tally.lost_details,
        "unexplained": tally.unexplained,
        "behind": behind,
    }


def share(gate: Gate, users: Mapping[str, int], weights: Mapping[str, int], trial: str | None) -> dict[str, Any]:
    """How one plan's split came out in distinct users; ``sigma`` is how far from the weight, where that is known."""
    rollout, generation, reason = gate
    total = sum(users.values())
    row: dict[str, Any] = {"rollout": rollout, "generation": generation, "reason": reason, "revision": trial}
    row |= {"users": total, "arms": dict(sorted(users.items()))}
    for arm, weight in weights.items():
        p, count = weight / 10_000, users.get(arm, 0)
        deviation = math.sqrt(total * p * (1 - p))
        row.setdefault("weights", {})[arm] = f"{weight / 100:.2f}"
        row.setdefault("sigma", {})[arm] = round((count - total * p) / deviation, 2) if deviation else 0.0
    return row


def text(result: Mapping[str, Any]) -> str:
    """The summary as people read it."""
    head = "{users} users, {requests} requests in {seconds} s ({requestsPerSecond}/s)".format_map(result)
    lines = [head]
    for v in result["versions"]:
        lines.append(
            f"  {v['arm']:<8} {v['revision']:<12} {v['users']} users ({v['usersPercent']} %), {v['requests']} requests "
            f"({v['requestsPercent']} %), {v['errors']} errors ({v['errorPercent']} %), "
            f"p50 {v['latencyMs']['p50']} ms, p99 {v['latencyMs']['p99']} ms"
        )
    for row in result["generations"]:
        total = row["users"]
        arms = ", ".join(f"{arm} {n} ({_percent(n, total)} %)" for arm, n in row["arms"].items() if arm != STABLE)
        sigma = "".join(f", {s:+.1f} sigma from {row['weights'][arm]} %" for arm, s in row.get("sigma", {}).items())
        lines.append(
            f"  generation {row['generation']} ({row['reason']}): {total} users, {arms or 'none on trial'}{sigma}"
        )
    lines += [f"  FLIP user {f['user']}: {f['before']} -> {f['after']}: {f['why']}" for f in result["flipDetails"]]
    lines += [f"  LOST {detail}" for detail in result["lostDetails"]]
    if result["behind"]:
        lines.append(f"  {result['behind']} answers of an older plan than the user had seen: replicas differed")
    return "\n".join(
        [*lines, "ok: no flip, no request lost" if result["ok"] else "FAILED: " + "; ".join(result["faults"])]
    )


def _users(tally: Tally) -> int:
    return sum(version.users for version in tally.versions.values())


def _told(tally: Tally) -> int:
    return tally.requests - tally.unexplained - tally.lost.total()


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0
