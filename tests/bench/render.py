"""docs/performance.md and its charts from the result files: no number on that page is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tests.bench.bounds import Bound, bounds
from tests.bench.charts import bars
from tests.bench.figures import COLUMNS, FIGURES
from tests.bench.results import RESULTS, SUBJECT
from tests.bench.tables import ratio_of
from tests.bench.workload import WORKLOADS

PAGE = Path(__file__).parents[2] / "docs/performance.md"
CHARTS = PAGE.with_suffix("")
TRIED = Path(__file__).with_name("tried.yaml")
PROFILE = Path(__file__).with_name("profile.json")  # date, commit, about, phases: name, us, about

HEAD = """\
# Performance

What a request costs that passes cohort, beside other proxies that do the same job. Every figure, table and chart below
is rendered by `make bench-docs` from the files in `tests/bench/results/`, which `make bench` writes; a test fails when
this page and those files differ.

**How it is measured.** Every proxy does the same job: split users between two services by a cookie, obey a header that
overrides the split, keep connections alive on both sides, tell the service the client's address in `X-Forwarded-For`.
Each has one worker, pinned to core 0 with all its threads and helper processes; the generator and the services share
core 1, so that a cheap proxy is not driven to its limit: *of a core* says how far it was. CPU time is what the kernel
accounts to every thread of the proxy (`/proc/PID/task/*/schedstat`), divided by the requests answered. Rounds are
interleaved, one proxy after another, and ratios are taken within a round, so that whatever else the machine does falls
on all alike. Figures are medians, with the least and the greatest round in brackets. Before, during and after each
round a client compares answers with the services' bytes; before and after it also sees that each of up to 400 users
keeps one version, that their share fits the weight and that the header overrides it. The generator looks at status
codes and at the number of bytes, and the services count what they answered. One wrong answer fails the run. No access
logs unless a table says so; our limits, time-outs and counters are on, as they always are.

What is not written is each program's default. nginx, HAProxy, Envoy and Caddy are configured in `tests/bench/peers/`,
as a person would configure them who knows them. `aiohttp` is a proxy of a hundred lines with that library's server and
client; `relay` passes on bytes without a look at them, on the event loop that we use: the floor for a proxy in Python,
which splits nobody.

**Do it again:** `make bench` takes about 20 minutes on two cores that do nothing else. `ARGS="--workloads small-get"`
and `--peers`, `--rounds`, `--seconds` narrow it, `--short` shows that it runs, `--resume` goes on after a run that was
ended, `--before CHECKOUT` measures another checkout of cohort beside this one.
"""


def page(documents: dict[str, dict[str, Any]]) -> str:
    """The whole page, from the result files' contents by name."""
    where = {_where(document) for document in documents.values()}
    parts = [HEAD]
    if len(where) == 1:
        parts += [where.pop() + "\n"]
    parts += [_others(documents), _bounds(documents)]
    parts += [_section(document, has_where=len(where) > 1) for document in documents.values()]
    parts += [_profile(json.loads(PROFILE.read_text()) if PROFILE.exists() else {})]
    parts += [_tried(yaml.safe_load(TRIED.read_text())), _commands(documents)]
    return "\n".join(part for part in parts if part)


def charts(documents: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The charts of the page, by file name: each workload's first figure."""
    return {f"{name}.svg": _chart(document) for name, document in documents.items()}


def documents() -> dict[str, dict[str, Any]]:
    """Every result file by name, in the order of the workloads; those of workloads that are no more come last."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    order = list(WORKLOADS)
    return dict(sorted(found.items(), key=lambda item: order.index(item[0]) if item[0] in order else len(order)))


def write() -> None:
    """The page and its charts; charts of results that are no more go."""
    found = documents()
    PAGE.write_text(page(found))
    CHARTS.mkdir(exist_ok=True)
    for path in CHARTS.glob("*.svg"):
        path.unlink()
    for name, text in charts(found).items():
        (CHARTS / name).write_text(text)


def _where(document: dict[str, Any]) -> str:
    machine = document["machine"]
    return (
        f"Measured {document['date']} at commit {document['commit']} on {machine['cpu']}, {machine['cores']} cores, "
        f"Linux {machine['kernel']}, Python {machine['python']}."
    )


def _others(documents: dict[str, dict[str, Any]]) -> str:
    shares = {name: document["others"] for name, document in documents.items() if document.get("others") is not None}
    if not shares:
        return ""
    worst = max(shares, key=lambda name: shares[name])
    return f"Other programs had at most {shares[worst]:.0%} of the proxies' core while that was measured ({worst}).\n"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _bounds(documents: dict[str, dict[str, Any]]) -> str:
    rows = [_bound(bound, documents.get(bound.workload, {})) for bound in bounds()]
    table = _table(["workload", "figure", "must be", "measured", ""], rows)
    return f"## What must hold\n\nMedians of the ratios within a round; *stretch* would be good to have.\n\n{table}\n"


def _bound(bound: Bound, document: dict[str, Any]) -> list[str]:
    value = bound.value(document)
    figure = f"{FIGURES[bound.figure].label}, {bound.of}" + (f" : {bound.to}" if bound.to else "")
    must = bound.text() + (", stretch" if bound.is_stretch else "")
    verdict = bound.verdict(document)
    return [
        f"[{bound.workload}](#{bound.workload})" if document else bound.workload,
        figure,
        must,
        f"{value['median']:.2f} ({value['low']:.2f} to {value['high']:.2f})" if value else "",
        verdict if verdict == "met" else f"**{verdict}**",
    ]


def _section(document: dict[str, Any], has_where: bool) -> str:
    workload, summary = document["workload"], document["summary"]
    columns = COLUMNS[workload["kind"]]
    variants = len(workload["variants"]) > 1
    heads = ["proxy"]
    for name, has_ratio in columns.items():
        heads += [FIGURES[name].label, *(["it : the first" if variants else f"{SUBJECT} : it"] if has_ratio else [])]
    rows = [_cells(entrant, summary, columns) for entrant in summary["figures"][next(iter(columns))]]
    left_out = [f"- Left out: {peer}, which {reason}." for peer, reason in document["left_out"].items()]
    parts = [f"## {document['name']}", workload["about"] + " " + _parameters(workload, document["prepared"])]
    parts += [_where(document)] if has_where else []
    parts += [f"![{document['name']}](performance/{document['name']}.svg)", _table(heads, rows)]
    parts += ["\n".join(left_out)] if left_out else []
    return "\n\n".join(parts) + "\n"


def _parameters(workload: dict[str, Any], prepared: dict[str, Any]) -> str:
    if workload["kind"] == "memory":
        return (
            f"{prepared['connections']:,} of them; {workload['rounds']} rounds, each with a peer that has just started."
        )
    rate = f"{prepared['rate']:,} requests a second, " if "rate" in prepared else ""
    return (
        f"{rate}{workload['connections']:,} connections, {workload['users']:,} users, {workload['canary_percent']} % "
        f"of them on the canary; {workload['rounds']} rounds of {workload['seconds']} s."
    )


def _cells(entrant: str, summary: dict[str, Any], columns: dict[str, bool]) -> list[str]:
    cells = [f"**{entrant}**" if entrant == SUBJECT else entrant]
    ratios = ratio_of(summary, entrant)
    for name, has_ratio in columns.items():
        cells.append(_spread(FIGURES[name].text, summary["figures"].get(name, {}).get(entrant)))
        if has_ratio:
            cells.append(_spread("{:.2f}".format, ratios.get(name)))
    return cells


def _spread(text: Any, value: dict[str, float] | None) -> str:
    return f"{text(value['median'])} ({text(value['low'])} to {text(value['high'])})" if value else ""


def _chart(document: dict[str, Any]) -> str:
    name = next(iter(COLUMNS[document["workload"]["kind"]]))
    return bars(document["name"], FIGURES[name], document["summary"]["figures"][name])


def _profile(profile: dict[str, Any]) -> str:
    """Where the time of a request goes, if that was measured."""
    if not profile:
        return ""
    total = sum(phase["us"] for phase in profile["phases"])
    rows = [
        [phase["name"], f"{phase['us']:.1f}", f"{phase['us'] / total:.0%}", phase["about"]]
        for phase in profile["phases"]
    ]
    table = _table(["phase", "µs a request", "share", "what happens"], rows)
    where = f"Profile of {profile['date']}, commit {profile['commit']}. {profile['about']}"
    return f"## Where the microseconds go\n\n{where}\n\n{table}\n"


def _tried(entries: list[dict[str, Any]]) -> str:
    if not entries:
        return ""
    rows = [
        [
            str(entry["idea"]),
            str(entry["before"]),
            str(entry["after"]),
            "yes" if entry["kept"] else "no",
            str(entry["why"]),
        ]
        for entry in entries
    ]
    return "## What was tried\n\n" + _table(["idea", "before", "after", "kept", "why"], rows) + "\n"


def _commands(documents: dict[str, dict[str, Any]]) -> str:
    """How each program was started, from the first workload that has it, and which version of it that was."""
    commands: dict[str, str] = {}
    versions: dict[str, str] = {}
    for document in documents.values():
        commands = document["commands"] | commands
        versions = document["versions"] | versions
    named = {name: versions.get(name.partition(",")[0], "") for name in commands}
    lines = [f"- {version}: `{commands[name]}`" for name, version in named.items() if version]
    return "## The programs\n\n" + "\n".join(lines) + "\n"


if __name__ == "__main__":
    write()
