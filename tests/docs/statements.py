"""The statements of a page, and the tests and wire cases that they name as their proof.

A statement is a paragraph, an item of a list or a row of a table below the first ``##`` heading. It ends with its proof
in square brackets: ``[test_pool.py::test_name, CL-05, TE]``. A test is named by as much of its path as tells it from
others, a wire case by its id, all cases of a family by the family's letters, a fault of ``make faults`` by its number.

No proof of their own need: a paragraph that ends in a colon and leads to a list or a table, a table or a code block
behind a paragraph that has its proof, headings and what stands before the first of them, and whatever is generated
(behind ``<!-- name: source -->``).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.faults.table import FAULTS
from tests.wire.case import load
from tests.wire.features import obstacle

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"
_ONE = r"(?:[\w/]+\.py::test_\w+|[A-Z][A-Z0-9](?:-\d+)?|F\d\d)"
PROOF = re.compile(rf"\[({_ONE}(?:,\s+{_ONE})*)\]")
_END = re.compile(rf"\[{_ONE}(?:,\s+{_ONE})*\][\s|]*\Z")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_GENERATED = re.compile(r"^<!-- \S+: .*? -->\n\n(?:\|.*\n)*", re.MULTILINE)
_ITEM = re.compile(r"^(?=(?:[-*]|\d+\.) )", re.MULTILINE)
_RULE = re.compile(r"^\|[-| :]+\|$")


@dataclass(frozen=True, slots=True)
class Statement:
    """What a page says at one place.

    Attributes:
        heading: The nearest one above.
        text: As it stands there.
        needs_proof: False for what only leads to others.
    """

    heading: str
    text: str
    needs_proof: bool = True

    @property
    def proofs(self) -> list[str]:
        """All tests, cases and families named in it."""
        return [name.strip() for group in PROOF.findall(self.text) for name in group.split(",")]

    @property
    def is_proven(self) -> bool:
        """It ends with a proof."""
        return bool(_END.search(self.text))

    def __str__(self) -> str:
        return f"{self.heading}: {' '.join(self.text.split())[:100]}"


def statements(page: str) -> list[Statement]:
    """Everything that a page says below its first ``##`` heading."""
    text = _FENCE.sub("", _GENERATED.sub("", page))
    found: list[Statement] = []
    heading = ""
    for block in re.split(r"\n\s*\n", text):
        if block.startswith("#"):
            heading, _, block = block.partition("\n")
        if heading.startswith("##") and block.strip():
            found += _of(heading.strip("# "), block.strip("\n"), found[-1] if found else None)
    return found


def _of(heading: str, block: str, before: Statement | None) -> Iterator[Statement]:
    if block.startswith("|"):
        rows = block.splitlines()
        is_covered = before is not None and before.is_proven and before.heading == heading
        yield from (Statement(heading, row, not is_covered) for row in rows[2:] if not _RULE.match(row))
        return
    for part in filter(str.strip, _ITEM.split(block)):
        yield Statement(heading, part, not (part is block and part.rstrip().endswith(":")))


def is_known(proof: str) -> bool:
    """Whether a proof exists: one test of that name in files of that name, or a case that this proxy must pass."""
    if "::" in proof:
        path, name = proof.split("::")
        return [name in names for file, names in tests().items() if f"/{file}".endswith(f"/{path}")].count(True) == 1
    if re.fullmatch(r"F\d\d", proof):
        return proof in faults()
    return proof in cases() or proof in {case[:2] for case in cases()}


@cache
def tests() -> dict[str, frozenset[str]]:
    """The names of the tests in each file, by its path below ``tests``; read, not run."""
    return {
        str(path.relative_to(TESTS)): frozenset(
            node.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
        )
        for path in TESTS.rglob("test_*.py")
    }


@cache
def cases() -> frozenset[str]:
    """The wire cases that are run; those of what is not there yet prove nothing."""
    files = sorted((TESTS / "wire").glob("*.yaml"))
    return frozenset(case.id for file in files for case in load(file).cases if not obstacle(case))


@cache
def faults() -> frozenset[str]:
    """The faults that ``tests/faults`` injects."""
    return frozenset(FAULTS)
