"""Inject faults and say what was measured, a line each: ``python -m tests.faults [F01 ...] [--short] [--json]``."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from tests.bench.results import commit, machine, now
from tests.faults.run import Run, Scale
from tests.faults.table import FAULTS

RESULTS = Path(__file__).parent / "results"


async def inject(name: str, scale: Scale, folder: Path) -> Run:
    """One fault's run; what breaks the run itself is a failure too."""
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder, scale)
    try:
        await FAULTS[name].inject(run)
    except Exception:
        run.check.true("the run itself", holds=False)
        run.check.note(traceback.format_exc())
    return run


def line(name: str, run: Run) -> str:
    """``F10 pass endpoints empty, then back: recovery 87 ms (<= 200 ms); ...``"""
    figures = "; ".join(map(str, run.check.figures))
    return f"{name} {'pass' if run.check.holds else 'FAIL'} {FAULTS[name].what}: {figures}"


def document(name: str, run: Run, seconds: float) -> dict[str, Any]:
    """What a result file keeps of one fault."""
    fault = FAULTS[name]
    return {"what": fault.what, "required": fault.required, "seconds": round(seconds, 1)} | run.check.document()


def _save(found: dict[str, Any], scale: Scale) -> None:
    """Into the result file, in place of what was there for these faults."""
    path = RESULTS / "faults.json"
    kept = json.loads(path.read_text())["faults"] if path.exists() else {}
    about = {"date": now(), "commit": commit(), "machine": machine(), "rate": scale.rate}
    entries = {name: entry | about for name, entry in found.items()}
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"faults": dict(sorted((kept | entries).items()))}, indent=1) + "\n")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("ids", nargs="*", metavar="ID", help=f"of {', '.join(FAULTS)}; none: all")
    parser.add_argument(
        "--short", action="store_true", help="as in CI: seconds instead of minutes, a third of the load"
    )
    parser.add_argument("--json", action="store_true", help="print one document instead of lines")
    parser.add_argument("--save", action="store_true", help="keep the figures for docs/reliability.md")
    options = parser.parse_args()
    if unknown := set(options.ids) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    scale, found = Scale(options.short), {}
    for name in options.ids or FAULTS:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            began = time.monotonic()
            run = asyncio.run(inject(name, scale, Path(folder)))
            found[name] = document(name, run, time.monotonic() - began)
        if not options.json:
            print(line(name, run), flush=True)
            for note in () if run.check.holds else run.check.notes:
                print(f"    {note}", flush=True)
        if options.save:
            _save({name: found[name]}, scale)
    if options.json:
        print(json.dumps(found, indent=1))
    passed = sum(entry["holds"] for entry in found.values())
    print(f"{passed} passed, {len(found) - passed} failed", file=sys.stderr if options.json else sys.stdout)
    return 0 if passed == len(found) else 1


if __name__ == "__main__":
    sys.exit(main())
