"""The figures of docs/image.md from the result file: no number on that page is typed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.image.__main__ import RESULT

PAGE = Path(__file__).parents[2] / "docs/image.md"
FIGURES = re.compile(r"<!-- figures -->\n.*?<!-- end -->", re.DOTALL)


def render(page: str) -> str:
    """The page with its figures as the result file has them."""
    return FIGURES.sub(lambda _: f"<!-- figures -->\n\n{figures(json.loads(RESULT.read_text()))}\n\n<!-- end -->", page)


def figures(result: dict[str, Any]) -> str:
    """A table, and where and when it was measured."""
    files, pulled, ready, machine = result["bytes"], result["compressed_bytes"], result["ready_s"], result["machine"]
    rows = [
        ("to pull (gzip), of that our own", _mb(pulled["whole"]), _mb(pulled["ours"])),
        ("on the node, of that our own", _mb(files["whole"]), _mb(files["ours"])),
        (
            "from exec to ready, median and range",
            f"{ready['median']:.2f} s",
            f"{ready['low']:.2f}-{ready['high']:.2f} s",
        ),
        ("to build, without the base", f"{result['build_s']} s", ""),
    ]
    table = ["| | | |", "|---|---|---|", *(f"| {name} | {one} | {other} |" for name, one, other in rows)]
    where = (
        f"{result['date']}, commit {result['commit']}; base: {result['base']}; {result['starts']} starts with warm "
        f"caches; {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}, "
        f"load average {result['load']:.1f}."
    )
    return "\n".join([*table, "", where])


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


def main() -> None:
    """Write the page anew."""
    PAGE.write_text(render(PAGE.read_text()))


if __name__ == "__main__":
    main()
