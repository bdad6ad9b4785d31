"""``python -m tests.wire``: run a file of wire cases against a real proxy, or search for new ones."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from tests.wire.case import CaseFileError, load
from tests.wire.schedule import run_all

OWN_CASES = Path(__file__).with_name("cases.yaml")


def main() -> int:
    """Exit status: 0 if every `must` case of phase 1 passed, 1 if not, 2 if the file cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m tests.wire", description=__doc__)
    parser.add_argument("--cases", type=Path, default=OWN_CASES, metavar="FILE")
    parser.add_argument("--only", action="append", metavar="ID", help="may be given more than once")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for each case, and the bytes of it")
    given = parser.parse_args()
    try:
        file = load(given.cases)
    except (OSError, CaseFileError) as error:
        print(error, file=sys.stderr)
        return 2
    report = asyncio.run(run_all(file, given.only or []))
    for line in report.lines(given.verbose):
        print(line)
    return 0 if report.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
