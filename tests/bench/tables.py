"""What a run prints."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.bounds import bounds
from tests.bench.figures import COLUMNS, FIGURES
from tests.bench.results import saved
from tests.bench.workload import Workload


def ratio_of(summary: dict[str, Any], entrant: str) -> dict[str, Any]:
    """The comparison that an entrant's row shows: as a variant of its own, else as the one compared with."""
    rows = summary["ratios"]
    own = [row for row in rows if row["of"] == entrant and "," in entrant]
    return next(iter(own or [row for row in rows if row["to"] == entrant and "," not in row["of"]]), {})


def print_results(workload: Workload, summary: dict[str, Any], left_out: dict[str, str]) -> None:
    """One workload's table."""
    table = Table("proxy", title=workload.name)
    columns = COLUMNS[workload.kind]
    for name, has_ratio in columns.items():
        for head in (FIGURES[name].label, *(["ratio"] if has_ratio else [])):
            table.add_column(head, justify="right")
    for entrant in next(iter(summary["figures"].values())):
        cells = [entrant]
        for name, has_ratio in columns.items():
            cells.append(_spread(FIGURES[name].text, summary["figures"].get(name, {}).get(entrant)))
            if has_ratio:
                cells.append(_spread("{:.2f}".format, ratio_of(summary, entrant).get(name)))
        table.add_row(*cells)
    Console(width=190).print(table)
    for peer, reason in left_out.items():
        print(f"  left out: {peer} {reason}")


def _spread(text: Any, value: dict[str, float] | None) -> str:
    return f"{text(value['median'])} ({text(value['low'])} to {text(value['high'])})" if value else ""


def print_bounds() -> None:
    """Every bound beside what the last results say."""
    table = Table("workload", "figure", "bound", "measured", "", title="Bounds")
    for bound in bounds():
        document = saved(bound.workload)
        value = bound.value(document)
        what = f"{FIGURES[bound.figure].label}, {bound.of}" + (f" : {bound.to}" if bound.to else "")
        measured = _spread("{:.2f}".format, value)
        verdict = bound.verdict(document) + (" (stretch)" if bound.is_stretch else "")
        table.add_row(bound.workload, what, bound.text(), measured, verdict)
    Console(width=140).print(table)
