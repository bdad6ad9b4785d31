"""docs/reliability.md from the result file: no number on that page is typed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.faults.__main__ import RESULTS
from tests.faults.table import FAULTS

PAGE = Path(__file__).parents[2] / "docs/reliability.md"

HEAD = """\
# Reliability

What happens when something breaks. Each fault is injected into real processes on one machine while clients keep
coming; the figures are rendered by `make faults-docs` from `tests/faults/results/`, which `make faults` writes, and a
test fails when this page and the file differ. CI injects each of them for seconds, with the same bounds but wider
ones on times (`tests/faults/test_faults.py`).

**How it is measured.** An open loop sends 300 requests a second from a process of its own: latency counts from the
moment at which a request should have been sent, so that no stall hides. 32 kept connections, a tenth of the requests
on new ones, a tenth POST of 4 KiB, always one upload of 8 s, one event stream of 10 s and two WebSockets. Each
request has a nonce that the service echoes; a service notes what it was sent at once, in a file, so that one that is
killed has told all. An answer counts as whole only with its own nonce and all of the body that the service meant to
send. What ends otherwise than the fault allows, while it lasts and shortly after, or at all before and later, is
lost: that is the ledger. At 30,000 requests without a loss less than one in 10,000 is lost (95 %). Where memory,
descriptors or a busy core are the point, fewer requests come.
"""


def page(document: dict[str, Any]) -> str:
    """The whole page, from the result file's content; a fault without a result is named as such."""
    faults = document["faults"]
    missing = [f"- {name}: {fault.what}" for name, fault in FAULTS.items() if name not in faults]
    rest = ["## Not measured at full length yet", "", *missing, ""] if missing else []
    return "\n".join([HEAD, *(_section(name, entry) for name, entry in faults.items()), *rest])


def document() -> dict[str, Any]:
    """The result file."""
    content: dict[str, Any] = json.loads((RESULTS / "faults.json").read_text())
    return content


def _section(name: str, entry: dict[str, Any]) -> str:
    machine, verdict = entry["machine"], "Holds" if entry["holds"] else "**Does not hold**"
    lines = [
        f"## {name}: {entry['what']}",
        "",
        f"Required: {entry['required']}.",
        "",
        "| figure | measured | bound |",
        "|---|---|---|",
        *(f"| {_cell(figure, 'name')} | {figure['value']} | {figure['bound']} |" for figure in entry["figures"]),
        "",
        f"{verdict}; {entry['seconds']:.0f} s at {entry['rate']:g} requests a second, {entry['date']}, "
        f"commit {entry['commit']}; {machine['cpu']}, {machine['cores']} cores, "
        f"Linux {machine['kernel']}, Python {machine['python']}.",
        "",
    ]
    return "\n".join(lines)


def _cell(figure: dict[str, Any], key: str) -> str:
    text = str(figure[key])
    return text if figure["holds"] else f"**{text}**"


if __name__ == "__main__":
    PAGE.write_text(page(document()))
