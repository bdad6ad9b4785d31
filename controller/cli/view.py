"""One rollout as a person reads it: where it stands, what it waits for, and every step as done, now or next."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import click

from controller.cli import output as out
from controller.cli.get import proxies, step, verdict

Json = dict[str, Any]

_LABEL = 11  # the longest label below, and a space
_CONDITIONS = ("TYPE", "STATUS", "REASON", "MESSAGE")
_MARKS = (("done", "green"), ("now", "cyan"), ("next", None), ("", None))
_ACTIONS = ("ACTION", "RESULT", "BY", "MESSAGE")


def status_lines(rollout: Json, wide: bool = False) -> list[str]:
    """The whole view, line by line; ``wide`` adds the plan's digest and the actions."""
    status = _status(rollout)
    lines = [f"{label + ':':<{_LABEL}}{text}" for label, text in _facts(rollout, status, wide)]
    lines += _section("Steps", _steps(rollout, status))
    lines += _section("Conditions", _table(_CONDITIONS, status.get("conditions")))
    if wide:
        lines += _section("Actions", _table(_ACTIONS, _actions(status)))
    return lines


def summary(rollout: Json) -> str:
    """The same in one line, for a log: phase, step, weight, and the verdict where there is one."""
    status = _status(rollout)
    parts = [out.phase(status.get("phase"))]
    if out.at(status, "step", "total"):
        parts.append(f"step {step(status)} {_current_step(rollout, status)}".rstrip())
    if out.at(status, "weight", "programmed") is not None:
        parts.append(f"weight {_weight(status)}")
    if out.at(status, "verdict", "decision"):
        parts.append(_verdict(status))
    if out.at(status, "abort"):
        parts.append(f"abort {_abort(status)}")
    return "; ".join(parts)


def _status(rollout: Json) -> Json:
    status = rollout.get("status")
    return status if isinstance(status, dict) else {}


def _facts(rollout: Json, status: Json, wide: bool) -> Iterator[tuple[str, str]]:
    yield "Name", out.identity(rollout)
    yield "Phase", out.phase(status.get("phase"))
    yield "Stable", out.plain(out.at(status, "revision", "stable"))
    yield "Canary", out.plain(out.at(status, "revision", "canary"))
    yield "Weight", _weight(status)
    if out.at(status, "step", "total"):
        yield "Step", _step(rollout, status)
    if out.at(status, "plan"):
        yield "Plan", _plan(status, wide)
    if out.at(status, "verdict", "decision"):
        yield "Verdict", _verdict(status)
    if out.at(status, "abort"):
        yield "Abort", _abort(status)


def _step(rollout: Json, status: Json) -> str:
    text = f"{out.plain(out.at(status, 'step', 'index'))} of {out.plain(out.at(status, 'step', 'total'))} done"
    current, elapsed = _current_step(rollout, status), out.at(status, "step", "elapsed")
    return text + (f", at {current}" if current else "") + (f" for {out.plain(elapsed)}" if current and elapsed else "")


def _weight(status: Json) -> str:
    text = out.percent(out.at(status, "weight", "programmed"))
    measured, low, high = (out.at(status, "weight", key) for key in ("measured", "low", "high"))
    if measured is None:
        return text
    span = f" ({out.plain(low)} to {out.plain(high)})" if low is not None and high is not None else ""
    return f"{text}, measured {out.percent(measured)}{span}"


def _plan(status: Json, wide: bool) -> str:
    text = f"generation {out.plain(out.at(status, 'plan', 'generation'))}, {proxies(status)} proxies have it"
    pending = out.at(status, "plan", "pending")
    if isinstance(pending, list) and pending:
        text += f"; waiting for {', '.join(map(out.plain, pending))}"
    digest = out.at(status, "plan", "digest")
    return f"{text}; digest {out.plain(digest)}" if wide and digest else text


def _verdict(status: Json) -> str:
    text = verdict(status)
    message = out.at(status, "verdict", "message")
    if message:
        text += f": {out.plain(message)}"
    need = out.at(status, "verdict", "need")
    missing = (
        [f"{out.plain(amount)} {unit}" for unit, amount in need.items() if amount] if isinstance(need, dict) else []
    )
    return f"{text}; still needs {', '.join(missing)}" if missing else text


def _abort(status: Json) -> str:
    abort = out.at(status, "abort")
    text = click.style(out.plain(out.at(abort, "reason")), fg="red")
    for word, key in (("by", "by"), ("of revision", "revision"), ("id", "id")):
        if out.at(abort, key):
            text += f" {word} {out.plain(out.at(abort, key))}"
    return text


def _section(title: str, lines: list[str]) -> list[str]:
    return ["", f"{title}:", *("  " + line for line in lines)] if lines else []


def _table(header: tuple[str, ...], items: Any) -> list[str]:
    if not isinstance(items, list) or not items:
        return []
    rows = [[out.plain(out.at(item, title.lower())) for title in header] for item in items]
    return out.columns(header, rows)


def _actions(status: Json) -> list[Json]:
    actions = status.get("actions")
    return [{**item, "action": item.get("verb")} for item in actions or [] if isinstance(item, dict)]


def _steps(rollout: Json, status: Json) -> list[str]:
    steps = out.at(rollout, "spec", "strategy", "canary", "steps")
    if not isinstance(steps, list):
        return []
    now = _step_index(status)
    lines = []
    for number, item in enumerate(steps):
        mark, colour = _MARKS[-1 if now is None else (number >= now) + (number > now)]
        lines.append(f"{click.style(f'{mark:<4}', fg=colour)}  {number + 1:>2}  {step_text(item)}")
    return lines


def _step_index(status: Json) -> int | None:
    """How many steps are done, which is the index of the current one as Argo counts; None: no trial is under way."""
    index = out.at(status, "step", "index")
    return index if isinstance(index, int) else None


def _current_step(rollout: Json, status: Json) -> str:
    steps = out.at(rollout, "spec", "strategy", "canary", "steps")
    index = _step_index(status)
    is_at_one = isinstance(steps, list) and index is not None and 0 <= index < len(steps)
    return step_text(steps[index]) if is_at_one else ""


def step_text(item: object) -> str:
    """One step as its document has it, in a few words: ``setWeight 25``, ``pause 10m``, ``analysis success-rate``."""
    pairs = [(key, value) for key, value in item.items() if value is not None] if isinstance(item, dict) else []
    if not pairs:
        return out.plain(item)
    verb, value = pairs[0]
    detail = value
    if verb == "setWeight":
        detail = re.sub(r"(\.\d*?)0+$", r"\1", str(value)).rstrip(".")
    elif verb == "pause":
        detail = out.at(value, "duration") or "until promoted"
    elif verb == "analysis":
        detail = ", ".join(str(out.at(template, "templateName")) for template in out.at(value, "templates") or [])
    elif isinstance(value, dict):
        detail = value.get("name")
    return f"{out.plain(verb)} {out.plain(detail)}"
