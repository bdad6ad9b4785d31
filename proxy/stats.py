"""The document of ``GET /stats``: what a controller judges from, added up over one proxy's workers.

Counts only grow (until ``boot`` or ``uid`` change), so a reader takes differences for any window it wants. Registers of
distinct users are merged over replicas by maximum, see `proxy.sketch`.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from proxy.counters import Stats
from proxy.plan import Plan
from proxy.region import REGISTERS
from proxy.sketch import estimate


def stats_document(stats: Stats, plan: Plan | None, boot: str, now_wall_s: float) -> dict[str, Any]:
    """Numbers by arm and source.

    Args:
        stats: As `counters.read` returns them for this plan.
        plan: The one in force; without one there are no arms.
        boot: Differs at each start of the supervisor, where all numbers begin at zero.
        now_wall_s: Unix seconds.
    """
    head: dict[str, Any] = {"boot": boot, "now": round(now_wall_s, 3)}
    if plan is None:
        return head | {
            "rollout": None,
            "uid": None,
            "revision": None,
            "generation": 0,
            "endpointsVersion": 0,
            "arms": {},
        }
    arms = dict.fromkeys([arm.name for arm in plan.arms])
    arms |= dict.fromkeys(labels[1] for labels in stats.series if labels[0] == "requests")
    return head | {
        "rollout": f"{plan.rollout.namespace}/{plan.rollout.name}",
        "uid": plan.rollout.uid,
        "revision": plan.revision,
        "generation": plan.generation,
        "endpointsVersion": plan.endpoints_version,
        "arms": {arm: {"sources": _sources(stats, arm), "users": _users(stats, arm)} for arm in arms},
    }


def _sources(stats: Stats, arm: str) -> dict[str, Any]:
    found: dict[str, Any] = {source: _no_requests() for source in ("user", "forced")}
    for labels, count in stats.series.items():
        if labels[0] != "requests" or labels[1] != arm:
            continue
        _, _, _, source, code, outcome = labels
        numbers = found.setdefault(source, _no_requests())
        numbers["requests"] += count
        numbers["failures"] += count if outcome == "failed" else 0
        numbers["codes"][code] = numbers["codes"].get(code, 0) + count
    for labels, cells in stats.times.items():
        if len(labels) == 2 and labels[0] == arm:
            found.setdefault(labels[1], _no_requests())["latency"] = [list(pair) for pair in sorted(cells.items())]
    return found


def _no_requests() -> dict[str, Any]:
    return {"requests": 0, "failures": 0, "codes": {}, "latency": []}


def _users(stats: Stats, arm: str) -> dict[str, Any]:
    total = stats.users.get(arm, bytes(REGISTERS))
    return {
        "total": b64encode(total).decode(),
        "estimate": estimate(total),
        "epochs": {str(epoch): b64encode(set_).decode() for epoch, set_ in sorted(stats.epochs.get(arm, {}).items())},
    }
