"""What one rollout of the demo looks like over time, and whether it ended as it had to. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PROMOTED, ROLLED_BACK = "promoted", "rolled-back"
HEADER = f"{'time':>6}  {'phase':<11} {'step':>5} {'weight':>8} {'measured':>9}  {'users':<16} {'errors':<18} verdict"


@dataclass(frozen=True, slots=True)
class Moment:
    """The rollout at one time, out of the controller's document.

    Attributes:
        stable: Revision; ``canary`` likewise, None: nothing on trial.
        abort: Why it was aborted; empty: it was not.
    """

    phase: str
    step: str
    programmed: str
    measured: str
    stable: str | None
    canary: str | None
    verdict: str
    abort: str


def moment(document: Mapping[str, Any]) -> Moment:
    """Read a rollout's document; what is missing in it stays empty."""
    status = document.get("status") or {}
    step, weight = status.get("step") or {}, status.get("weight") or {}
    revision, abort = status.get("revision") or {}, status.get("abort") or {}
    return Moment(
        phase=str(status.get("phase", "")),
        step=f"{step['index']}/{step['total']}" if step.get("total") else "",
        programmed=str(weight.get("programmed") or ""),
        measured=str(weight.get("measured") or ""),
        stable=revision.get("stable"),
        canary=revision.get("canary"),
        verdict=_verdict(status.get("verdict") or {}),
        abort=str(abort.get("reason") or ""),
    )


def _verdict(verdict: Mapping[str, Any]) -> str:
    decision, reason, message = (str(verdict.get(name) or "") for name in ("decision", "reason", "message"))
    need = " and ".join(f"{n} more {unit}" for unit, n in (verdict.get("need") or {}).items() if n)
    return f"{decision} {reason}".strip() + (f": {detail}" if (detail := f"needs {need}" if need else message) else "")


def ending(now: Moment, trial: str) -> str | None:
    """How the rollout of ``trial`` has ended: `PROMOTED`, `ROLLED_BACK`, another end in words, or None: it has not."""
    if now.phase == "Healthy" and now.stable == trial:
        return PROMOTED
    if now.phase in ("Aborted", "Degraded"):
        is_judged = now.phase == "Aborted" and now.abort == "AnalysisFailed"
        return ROLLED_BACK if is_judged else f"{now.phase} ({now.abort})"
    return None


def line(seconds: float, now: Moment, versions: Mapping[str, Mapping[str, Any]]) -> str:
    """One row below `HEADER`; users and errors are those of stable and canary, as the users saw them.

    The proxies count users by tens of seconds: until they have, the share is that of the users, marked by ``~``.
    """
    revisions = [revision for revision in dict.fromkeys((now.stable, now.canary)) if revision]
    rows = [versions.get(revision, {}) for revision in revisions]
    users = " ".join(f"{name}:{row.get('users', 0)}" for name, row in zip(revisions, rows, strict=True))
    errors = " ".join(f"{name}:{_share(row)}" for name, row in zip(revisions, rows, strict=True))
    everybody = sum(row.get("users", 0) for row in rows)
    measured = now.measured
    if not measured and now.canary and now.canary != now.stable and everybody:
        measured = f"~{100 * rows[-1].get('users', 0) / everybody:.2f}"
    minutes, rest = divmod(int(seconds), 60)
    return (
        f"{minutes:>3}:{rest:02d}  {now.phase:<11} {now.step:>5} {now.programmed:>8} {measured:>9}  "
        f"{users:<16} {errors:<18} {now.verdict}"
    ).rstrip()


def share(row: Mapping[str, Any]) -> str:
    """One plan's split as the users saw it, out of the summary of ``cohort loadtest``."""
    text = f"generation {row['generation']} ({row['reason']}): {row['users']} users"
    for arm, sigma in row.get("sigma", {}).items():
        share = 100 * row["arms"].get(arm, 0) / row["users"]
        text += f", {share:.2f} % of them on {arm} for {row['weights'][arm]} % programmed ({sigma:+.1f} sigma)"
    return text


def faults(ended: str, expected: str, summary: Mapping[str, Any]) -> list[str]:
    """Why a run has failed; empty: it ended as it had to, with no flip and no request lost.

    Args:
        ended: As `ending` says it.
        expected: `PROMOTED` or `ROLLED_BACK`.
        summary: What the users saw, as ``cohort loadtest -o json`` tells it.
    """
    found = [] if ended == expected else [f"expected the version to be {expected}, it was {ended}"]
    return found + [str(fault) for fault in summary["faults"]]


def _share(row: Mapping[str, Any]) -> str:
    share = row.get("errorPercent")
    return "-" if share is None else f"{share:.2f}%"
