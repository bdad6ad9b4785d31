"""How results look: aligned columns for people, JSON and YAML for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import click

Json = dict[str, Any]

NOTHING = "-"
_CONTROLS = re.compile(r"[\x7f-\x9f]")  # JSON escapes those below 0x20 itself; terminals obey these too
_GOOD, _BAD, _BUSY, _WAITING = "green", "red", "cyan", "yellow"
_PHASES = {
    "Healthy": _GOOD,
    "Progressing": _BUSY,
    "Promoting": _BUSY,
    "Pending": _WAITING,
    "Paused": _WAITING,
    "Holding": _WAITING,
    "Aborted": _BAD,
    "Degraded": _BAD,
}


def emit(value: Any, output: str, compact: bool = False) -> None:
    """Print a value as ``json`` or ``yaml``; ``compact`` makes each one line, or one document, of a stream."""
    if output == "yaml":
        import yaml

        text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, default_flow_style=False)
        click.echo(("---\n" if compact else "") + text, nl=False)
        return
    text = json.dumps(value, ensure_ascii=False, indent=None if compact else 2)
    click.echo(_CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text))


def plain(value: object) -> str:
    """A value for people: nothing is a dash, and what a terminal would obey is escaped."""
    text = NOTHING if value is None or value == "" else str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def columns(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Rows as aligned lines, the header first; widths count what is seen, not the colours."""
    table = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(click.unstyle(row[i])) for row in table) for i in range(len(header))]
    return ["   ".join(_pad(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]


def _pad(cell: str, width: int) -> str:
    return cell + " " * (width - len(click.unstyle(cell)))


def phase(name: object) -> str:
    """A phase in its colour."""
    return click.style(plain(name), fg=_PHASES.get(str(name)), bold=True)


def at(value: Any, *path: str) -> Any:
    """What lies under a path of keys in nested mappings; None where there is nothing."""
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def identity(rollout: Json) -> str:
    """``namespace/name`` of a rollout."""
    return f"{plain(at(rollout, 'metadata', 'namespace') or 'default')}/{plain(at(rollout, 'metadata', 'name'))}"


def percent(value: object) -> str:
    """A percentage as a status has it (``"25.00"``), with its sign."""
    return NOTHING if value is None or value == "" else f"{plain(value)} %"
