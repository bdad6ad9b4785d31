"""docs/performance.md from the result files: no number on that page is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.bench.results import RESULTS, SUBJECT

PAGE = Path(__file__).parents[2] / "docs/performance.md"

HEAD = """\
# Performance

What one request costs. Each figure below is rendered by `make bench-docs` from a file in `tests/bench/results/`, which
`make bench` writes; a test fails when this page and the files differ.

**How it is measured.** Every proxy does the same job: split users between two backends by a hash of a cookie, keep
connections alive on both sides, append to `X-Forwarded-For`. Each has one worker, pinned to core 0 with all its
threads and helper processes; generator (wrk) and backends (nginx with constant answers) share core 1. CPU time is what
the kernel accounts to every thread of the proxy (`/proc/PID/task/*/schedstat`), divided by the requests answered.
Rounds are interleaved, one proxy after another, and ratios are taken within a round, so that whatever else the machine
does falls on all alike. Before and after each run a client sees that the answers are the backends' bytes, that each of
400 users keeps one version and that their share fits the weight. No access logs anywhere; our limits, time-outs and
counters are on.
"""


def page(documents: list[dict[str, Any]]) -> str:
    """The whole page, from the result files' contents."""
    return "\n".join([HEAD, *map(_section, documents)])


def documents() -> list[dict[str, Any]]:
    """Every result file, by name."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]


def _section(document: dict[str, Any]) -> str:
    workload, machine = document["workload"], document["machine"]
    lines = [
        f"## {document['name']}",
        "",
        workload["about"],
        "",
        f"GET with {len(workload['fields'])} header fields, answers of {workload['answer_bytes']} bytes, "
        f"{workload['connections']} connections, {workload['users']:,} users, {workload['canary_percent']} % "
        f"of them on the canary; {document['rounds']} rounds of {document['seconds']:g} s.",
        "",
        f"| proxy | CPU us a request | range | requests/s | of the core | {SUBJECT} : it | range |",
        "|---|---|---|---|---|---|---|",
        *(_row(document, peer) for peer in document["summary"]["cpu_us"]),
        "",
        f"{document['date']}, commit {document['commit']}; {machine['cpu']}, {machine['cores']} cores, "
        f"Linux {machine['kernel']}, Python {machine['python']}; {', '.join(document['versions'].values())}.",
        "",
        *(f"- {peer}: `{command}`" for peer, command in document["commands"].items()),
        "",
    ]
    return "\n".join(lines)


def _row(document: dict[str, Any], peer: str) -> str:
    cost, ratio = document["summary"]["cpu_us"][peer], document["summary"]["ratio"].get(peer)
    own = [one for one in document["measurements"] if one["peer"] == peer]
    middle = sorted(own, key=lambda one: one["cpu_us"])[len(own) // 2]
    cells = [
        peer,
        f"{cost['median']:.1f}",
        f"{cost['low']:.1f} - {cost['high']:.1f}",
        f"{middle['requests_per_s']:,.0f}",
        f"{middle['core_used']:.0%}",
        f"{ratio['median']:.2f}" if ratio else "",
        f"{ratio['low']:.2f} - {ratio['high']:.2f}" if ratio else "",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    PAGE.write_text(page(documents()))
