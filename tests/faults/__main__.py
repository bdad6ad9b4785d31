"""Inject faults and say what was measured, a line each: ``python -m tests.faults [F01 ...] [--short] [--json]``."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.bench.results import commit, machine, now
from tests.faults.run import Run, Scale
from tests.faults.table import FAULTS

ALONE = frozenset(("F20", "F24", "F25", "F26", "F31"))  # they use up a core, or look at what belongs to all
Done = Callable[[str, Run, float], None]
RESULTS = Path(__file__).parent / "results"


async def inject(name: str, scale: Scale) -> tuple[Run, float]:
    """One fault's run and its seconds; what breaks the run itself is a failure too."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        run = Run(Path(folder), scale)
        try:
            await FAULTS[name].inject(run)
        except Exception:
            run.check.true("the run itself", holds=False)
            run.check.note(traceback.format_exc())
    return run, time.monotonic() - began


async def inject_all(names: Sequence[str], scale: Scale, jobs: int, done: Done) -> None:
    """Several at once, then those that need the machine for themselves.

    Args:
        done: Called with the name, the run and its seconds as soon as each has ended.
    """
    room = asyncio.Semaphore(jobs)

    async def one(name: str) -> None:
        async with room:
            done(name, *await inject(name, scale))

    await asyncio.gather(*(one(name) for name in names if jobs > 1 and name not in ALONE))
    for name in names:
        if jobs == 1 or name in ALONE:
            await one(name)


def line(name: str, run: Run) -> str:
    """``F10 pass endpoints empty, then back: recovery 87 ms (<= 200 ms); ...``"""
    figures = "; ".join(map(str, run.check.figures))
    return f"{name} {'pass' if run.check.holds else 'FAIL'} {FAULTS[name].what}: {figures}"


def document(name: str, run: Run, seconds: float) -> dict[str, Any]:
    """What a result file keeps of one fault."""
    fault = FAULTS[name]
    return {"what": fault.what, "required": fault.required, "seconds": round(seconds, 1)} | run.check.document()


def _about(scale: Scale) -> dict[str, Any]:
    """What holds for all of one command, taken before its first result changes the tree."""
    return {"date": now(), "commit": commit(), "machine": machine(), "rate": scale.rate}


def _save(found: dict[str, Any], about: dict[str, Any]) -> None:
    """Into the result file, in place of what was there for these faults."""
    path = RESULTS / "faults.json"
    kept = json.loads(path.read_text())["faults"] if path.exists() else {}
    entries = {name: entry | about for name, entry in found.items()}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"faults": dict(sorted((kept | entries).items()))}, indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("ids", nargs="*", metavar="ID", help=f"of {', '.join(FAULTS)}; none: all")
    parser.add_argument("--short", action="store_true", help="as in CI: seconds instead of minutes, a third the load")
    parser.add_argument("--json", action="store_true", help="one document a line instead of text")
    parser.add_argument("--save", action="store_true", help="keep the figures for docs/reliability.md")
    parser.add_argument("--jobs", type=int, default=1, help="how many at once; more than one only with --short")
    options = parser.parse_args()
    if unknown := set(options.ids) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    if options.jobs > 1 and not options.short:
        parser.error("figures of full length are measured one after another: --jobs is for --short")
    return options


def main() -> int:
    """The command."""
    options, passed = _options(), 0
    scale, names = Scale(options.short), options.ids or list(FAULTS)
    about = _about(scale)

    def done(name: str, run: Run, seconds: float) -> None:
        nonlocal passed
        passed += run.check.holds
        if options.save:
            _save({name: document(name, run, seconds)}, about)
        if options.json:
            print(json.dumps({"id": name, "line": line(name, run)} | document(name, run, seconds)), flush=True)
            return
        print(line(name, run), flush=True)
        for note in () if run.check.holds else run.check.notes:
            print(f"    {note}", flush=True)

    asyncio.run(inject_all(names, scale, options.jobs, done))
    if not options.json:
        print(f"{passed} passed, {len(names) - passed} failed")
    return 0 if passed == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())
