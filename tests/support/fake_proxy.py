"""A proxy as its admin API shows it: plans, the latch, counters; no traffic. It obeys the contract, and may be broken.

Pure; `tests.support.fake_admin` serves one on a socket.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from typing import Any

from proxy import sketch
from proxy.plan import Plan

TOTAL_REGISTERS, EPOCH_REGISTERS, EPOCH_S = 4096, 1024, 10


@dataclass
class FakeProxy:
    """One proxy.

    Attributes:
        is_up: Whether it answers at all.
        refuses_latch: Whether POST /abort fails, as with a full disk; ``refuses_plan`` likewise with 422.
        aborts: Ids of the latches that were asked for.
        history: Every plan that came into force.
    """

    boot: str = "boot-1"
    is_up: bool = True
    refuses_latch: bool = False
    refuses_plan: bool = False
    plan: Plan | None = None
    latch: dict[str, Any] | None = None
    history: list[Plan] = field(default_factory=list)
    aborts: list[str] = field(default_factory=list)
    counts: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    users: dict[str, bytearray] = field(default_factory=dict)
    epochs: dict[str, dict[int, bytearray]] = field(default_factory=dict)

    def put(self, plan: Plan, if_match: str) -> tuple[int, dict[str, Any]]:
        """PUT /plan: status and body."""
        current = self.plan.etag if self.plan else '"none"'
        if if_match not in ("*", current):
            return 412, {"error": f"the plan is {current}"}
        if self.refuses_plan:
            return 422, {"faults": [{"path": "arms", "message": "this proxy is broken"}]}
        if self.plan and self.plan.rollout.uid == plan.rollout.uid:
            if plan.version < self.plan.version or (plan.version == self.plan.version and plan.etag != self.plan.etag):
                return 409, {"error": "older"}
            if plan.etag == self.plan.etag:
                return 200, {}
        if not self.plan or (self.plan.rollout.uid, self.plan.revision) != (plan.rollout.uid, plan.revision):
            self.users.clear()
            self.epochs.clear()
        self.plan = plan
        self.history.append(plan)
        if self.latch and self.latch["id"] in plan.lifts:
            self.latch = None
        return 200, {}

    def abort(self, by: str, latch_id: str, reason: str = "") -> tuple[int, dict[str, Any]]:
        """POST /abort: a latch that stands is returned."""
        if self.refuses_latch:
            return 500, {"error": "no space left on device"}
        self.aborts.append(latch_id)
        revision = self.plan.revision if self.plan else None
        self.latch = self.latch or {"id": latch_id, "revision": revision, "by": by, "at": 0, "reason": reason}
        return 200, self.latch

    def state(self) -> dict[str, Any]:
        """GET /state."""
        plan = self.plan
        return {
            "boot": self.boot,
            "ready": plan is not None,
            "plan": plan
            and {
                "generation": plan.generation,
                "endpointsVersion": plan.endpoints_version,
                "uid": plan.rollout.uid,
                "revision": plan.revision,
                "digest": plan.digest,
                "core": plan.core_digest,
                "etag": plan.etag,
            },
            "latch": self.latch,
            "workers": [],
            "draining": False,
        }

    def restart(self, boot: str) -> None:
        """A new supervisor: plan and latch are on disk, counters start again."""
        self.boot = boot
        self.counts.clear()
        self.users.clear()
        self.epochs.clear()

    def serve(self, arm: str, requests: int, failures: int = 0, seconds: float = 0.05, source: str = "user") -> None:
        """Count some requests."""
        cell = self.counts.setdefault((arm, source), {"requests": 0, "failures": 0, "latency": {}})
        cell["requests"] += requests
        cell["failures"] += failures
        index = sketch.cell(seconds)
        cell["latency"][index] = cell["latency"].get(index, 0) + requests

    def meet(self, arm: str, keys: list[bytes], now: float) -> None:
        """Count some users."""
        for key in keys:
            sketch.add(self.users.setdefault(arm, bytearray(TOTAL_REGISTERS)), key)
            epochs = self.epochs.setdefault(arm, {})
            sketch.add(epochs.setdefault(int(now) // EPOCH_S, bytearray(EPOCH_REGISTERS)), key)

    def stats(self, now: float) -> dict[str, Any]:
        """GET /stats."""
        plan = self.plan
        arms: dict[str, Any] = {}
        for (arm, source), cell in self.counts.items():
            shown = arms.setdefault(arm, {"sources": {}})
            failures, requests = cell["failures"], cell["requests"]
            shown["sources"][source] = {
                "requests": requests,
                "failures": failures,
                "codes": {"200": requests - failures, "500": failures},
                "latency": [[index, count] for index, count in sorted(cell["latency"].items())],
            }
        for arm, registers in self.users.items():
            arms.setdefault(arm, {"sources": {}})["users"] = {
                "total": base64.b64encode(bytes(registers)).decode(),
                "estimate": sketch.estimate(bytes(registers)),
                "epochs": {str(e): base64.b64encode(bytes(r)).decode() for e, r in self.epochs[arm].items()},
            }
        return {
            "boot": self.boot,
            "now": now,
            "rollout": f"{plan.rollout.namespace}/{plan.rollout.name}" if plan else None,
            "uid": plan.rollout.uid if plan else None,
            "revision": plan.revision if plan else None,
            "generation": plan.generation if plan else 0,
            "endpointsVersion": 0,
            "arms": arms,
        }
