"""What was measured, as the JSON file that docs/performance.md is rendered from."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")
SUBJECT = "cohort"
WRITTEN = (":!/tests/bench/results", ":!/docs")  # what a run or a rendering writes is no change of what is measured


@dataclass(frozen=True, slots=True)
class Measurement:
    """One entrant in one round; figures by the names of `tests.bench.figures.FIGURES`."""

    round: int
    entrant: str
    figures: Mapping[str, float]


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and greatest."""
    figures = {"median": statistics.median(values), "low": min(values), "high": max(values)}
    return {name: _short(value) for name, value in figures.items()}


def _short(value: float) -> float:
    """Four digits that count: more say nothing, and a file that is read by people gets long."""
    return float(f"{value:.4g}") if abs(value) < 1000 else float(round(value))


def pairs(entrants: Iterable[str]) -> list[tuple[str, str]]:
    """Who is compared with whom: a variant with its plain peer, else the subject with every other peer.

    >>> pairs(["cohort", "nginx"]), pairs(["cohort", "cohort, 2 workers", "nginx", "nginx, 2 workers"])
    ([('cohort', 'nginx')], [('cohort, 2 workers', 'cohort'), ('nginx, 2 workers', 'nginx')])
    """
    names = list(entrants)
    variants = [(name, name.partition(",")[0]) for name in names if "," in name]
    if variants:
        return [pair for pair in variants if pair[1] in names]
    return [(SUBJECT, name) for name in names if name != SUBJECT] if SUBJECT in names else []


def summary(measurements: list[Measurement]) -> dict[str, Any]:
    """Each figure by entrant, and each figure's ratio of the pairs within the same round."""
    by: dict[str, dict[str, dict[int, float]]] = {}
    entrants = list(dict.fromkeys(one.entrant for one in measurements))
    for one in measurements:
        for name, value in one.figures.items():
            by.setdefault(name, {}).setdefault(one.entrant, {})[one.round] = value
    return {
        "figures": {
            name: {entrant: spread(list(rounds.values())) for entrant, rounds in values.items()}
            for name, values in by.items()
        },
        "ratios": [
            {"of": of, "to": to, **{name: ratio for name, values in by.items() if (ratio := _ratio(values, of, to))}}
            for of, to in pairs(entrants)
        ],
    }


def _ratio(values: dict[str, dict[int, float]], of: str, to: str) -> dict[str, float] | None:
    ours, theirs = values.get(of, {}), values.get(to, {})
    found = [ours[number] / theirs[number] for number in ours if theirs.get(number)]
    return spread(found) if found else None


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
    return head + ("+" if head and _git("status", "--porcelain", "--untracked-files=no", "--", ":/", *WRITTEN) else "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def now() -> str:
    """The date, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d")


def save(facts: dict[str, Any], measurements: list[Measurement]) -> Path:
    """Write ``results/NAME.json``, whole or not at all."""
    rows = [{"round": one.round, "entrant": one.entrant, **_shortened(one.figures)} for one in measurements]
    document = {**facts, "summary": summary(measurements), "measurements": rows}
    path = RESULTS / f"{facts['name']}.json"
    path.parent.mkdir(exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(_text(document))
    draft.rename(path)
    return path


def saved(name: str) -> dict[str, Any]:
    """What ``results/NAME.json`` has; empty if there is none."""
    path = RESULTS / f"{name}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _shortened(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: _short(value) for name, value in figures.items()}


def _text(document: dict[str, Any]) -> str:
    """JSON of which every measurement and every spread has one line."""
    lines = json.dumps({key: value for key, value in document.items() if key != "measurements"}, indent=1)
    rows = ",\n".join("  " + json.dumps(row) for row in document["measurements"])
    return lines.removesuffix("\n}") + ',\n "measurements": [\n' + rows + "\n ]\n}\n"


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()
