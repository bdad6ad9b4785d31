"""What was measured, as the JSON file that docs/performance.md is rendered from."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
SUBJECT = "cohort"


@dataclass(frozen=True, slots=True)
class Measurement:
    """One peer in one round; ``cpu_us`` is CPU time of all the peer's threads for one request."""

    round: int
    peer: str
    cpu_us: float
    requests: int
    requests_per_s: float
    core_used: float
    p50_us: int
    p99_us: int


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def summary(measurements: list[Measurement]) -> dict[str, Any]:
    """CPU time by peer, and the subject's ratio to each other peer within the same round."""
    by_peer: dict[str, dict[int, float]] = {}
    for one in measurements:
        by_peer.setdefault(one.peer, {})[one.round] = one.cpu_us
    ours = by_peer.get(SUBJECT, {})
    return {
        "cpu_us": {peer: spread(list(rounds.values())) for peer, rounds in by_peer.items()},
        "ratio": {
            peer: spread([ours[number] / cost for number, cost in rounds.items() if number in ours])
            for peer, rounds in by_peer.items()
            if ours and peer != SUBJECT
        },
    }


def machine() -> dict[str, Any]:
    """The processor, its cores and the kernel."""
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(models),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def commit() -> str:
    """The commit measured, ``+`` if the tree had changes; empty outside a repository or without git."""
    head = _git("rev-parse", "--short=12", "HEAD")
    return head + ("+" if head and _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def now() -> str:
    """The date, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d")


def save(name: str, facts: dict[str, Any], measurements: list[Measurement]) -> Path:
    """Write ``results/NAME.json``."""
    document = {**facts, "summary": summary(measurements), "measurements": [asdict(one) for one in measurements]}
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
