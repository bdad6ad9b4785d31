"""The generated parts of docs/rollout.md: the phases as a diagram, and which verb is taken in which phase.

The diagram follows a line ``<!-- phases: controller.rollout -->``, the table ``<!-- verbs: controller.rollout -->``;
both are written from `rollout.TRANSITIONS`.
"""

from __future__ import annotations

import re
from pathlib import Path

from controller.events import (
    Documented,
    Keyed,
    LatchFailed,
    Measured,
    Missing,
    Observed,
    Tick,
    Unanswered,
    Verb,
)
from controller.rollout import TRANSITIONS, Kind
from controller.state import Phase

PAGE = Path(__file__).parents[2] / "docs/rollout.md"
PHASES = re.compile(r"<!-- phases: controller\.rollout -->\n\n```mermaid\n(.*?)```\n", re.DOTALL)
VERBS = re.compile(r"<!-- verbs: controller\.rollout -->\n\n((?:\|.*\n)*)")
WORDS: dict[Kind, str] = {
    Documented: "document",
    Missing: "document",
    Keyed: "keys",
    Observed: "proxies",
    Unanswered: "proxies",
    LatchFailed: "proxies",
    Tick: "time",
    Measured: "measurement",
    **{verb: verb.value for verb in Verb},
}


def render(page: str) -> str:
    """The page with its generated parts as the table has them."""
    page = PHASES.sub(lambda _: f"<!-- phases: controller.rollout -->\n\n```mermaid\n{phases()}```\n", page)
    return VERBS.sub(lambda _: f"<!-- verbs: controller.rollout -->\n\n{verbs()}", page)


def phases() -> str:
    """Every change of phase, with all that may cause it on one arrow."""
    lines = ["stateDiagram-v2", "    [*] --> Pending"]
    for start, row in TRANSITIONS.items():
        for end in Phase:
            causes = dict.fromkeys(WORDS[kind] for kind, ends in row.items() if end in ends and end is not start)
            if causes:
                lines.append(f"    {start.value} --> {end.value}: {', '.join(causes)}")
    return "\n".join([*lines, ""])


def verbs() -> str:
    """A row for each phase and a column for each verb: where it may lead, or nothing where it is refused."""
    rows = [f"| phase | {' | '.join(verb.value for verb in Verb)} |", f"|---|{'---|' * len(Verb)}"]
    for start, row in TRANSITIONS.items():
        cells = [", ".join(end.value for end in row.get(verb, ())) for verb in Verb]
        rows.append(f"| **{start.value}** | {' | '.join(cells)} |")
    return "\n".join([*rows, ""])
