"""``python -m tests.wire``: run a file of wire cases against a real proxy, or search for new ones."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from pathlib import Path

from tests.wire.case import CaseFile, CaseFileError, load
from tests.wire.schedule import run_all
from tests.wire.search import run_permutations, run_search

OWN_CASES = Path(__file__).with_name("cases.yaml")


def main() -> int:
    """Exit status: 0 if every `must` case of phase 1 passed, 1 if not, 2 if the file cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m tests.wire", description=__doc__)
    parser.add_argument("--cases", type=Path, default=OWN_CASES, metavar="FILE")
    parser.add_argument("--only", action="append", metavar="ID", help="may be given more than once")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each case, and the bytes of it")
    search = parser.add_mutually_exclusive_group()
    search.add_argument("--mutate", type=float, metavar="SECONDS", help="search for bytes that are read differently")
    search.add_argument("--permutations", action="store_true", help="Content-Length by Transfer-Encoding, all of them")
    parser.add_argument("--seed", type=int, metavar="N", help="of --mutate; printed where it is drawn")
    given = parser.parse_args()
    try:
        file = load(given.cases)
    except (OSError, CaseFileError) as error:
        print(error, file=sys.stderr)
        return 2
    if given.mutate is not None or given.permutations:
        return _search(file, given)
    report = asyncio.run(run_all(file, given.only or []))
    for line in report.lines(given.verbose):
        print(line)
    return 0 if report.is_good else 1


def _search(file: CaseFile, given: argparse.Namespace) -> int:
    if given.permutations:
        findings = asyncio.run(run_permutations(file.limits))
    else:
        seed = random.randrange(1 << 32) if given.seed is None else given.seed
        print(f"seed {seed}", flush=True)
        findings = asyncio.run(run_search(file, given.mutate, seed, is_told=True))
    for line in findings.lines():
        print(line)
    return 1 if findings.found else 0


if __name__ == "__main__":
    sys.exit(main())
