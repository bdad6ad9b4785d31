"""The generated parts of docs/architecture.md: the map of modules and the states of one exchange.

A map follows a line ``<!-- modules: PACKAGE -->``, the diagram ``<!-- states: proxy.exchange -->``; both are written
from the sources, so that the page cannot describe a tree that is not there.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from proxy import exchange

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/architecture.md"
MODULES = re.compile(r"<!-- modules: (\S+) -->\n\n((?:\|.*\n)*)")
STATES = re.compile(r"<!-- states: proxy\.exchange -->\n\n```mermaid\n(.*?)```\n", re.DOTALL)
ACTIONS = (
    "NOTHING", "SEND", "RELAY", "FINISH", "LINGER", "RETRY", "ANSWER", "TRUNCATE", "CANCEL", "FALL_BACK", "SWITCH",
    "PASS_END",
)  # fmt: skip
NAMES = ("CONNECTING", "WAITING", "RELAYING", "TUNNEL", "DONE")


def render(page: str) -> str:
    """The page with its generated parts as the sources have them."""
    page = MODULES.sub(lambda mark: f"<!-- modules: {mark[1]} -->\n\n{module_map(mark[1])}", page)
    return STATES.sub(lambda _: f"<!-- states: proxy.exchange -->\n\n```mermaid\n{states()}```\n", page)


def module_map(package: str) -> str:
    """A table of the modules in a folder, each with the first line of its docstring."""
    folder = ROOT / package
    rows = [
        f"| `{path.name}` | {summary(path)} |\n" for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"
    ]
    return f"| `{package}/` | {summary(folder / '__init__.py')} |\n|---|---|\n{''.join(rows)}"


def summary(path: Path) -> str:
    """The first paragraph of a module's docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(text.split("\n\n")[0].split()).replace("|", "\\|")


def states() -> str:
    """The table of one exchange as a diagram: ``event / action`` on each arrow."""
    action = {getattr(exchange, name): name.lower() for name in ACTIONS}
    state = {getattr(exchange, name): name.capitalize() for name in NAMES}
    lines = ["stateDiagram-v2", "    [*] --> Connecting"]
    for (start, event), outcomes in exchange.TRANSITIONS.items():
        for what, end in sorted(outcomes):
            lines.append(f"    {state[start]} --> {state[end]}: {event} / {action[what]}")
    return "\n".join([*lines, "    Done --> [*]", ""])
