from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/security.md").read_text()
PROOF = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
UNPROVEN = ("**A dependency swapped**",)  # the lock file is the proof


def test_every_proof_exists() -> None:
    """A control without its test is a claim."""
    missing = [
        f"{path}::{name}"
        for path, name in PROOF.findall(PAGE)
        if not (ROOT / path).exists()
        or not re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_every_threat_has_a_proof() -> None:
    """The third column is never empty."""
    rows = [row for row in PAGE.splitlines() if row.startswith("| **")]
    assert rows
    assert [
        row for row in rows if not PROOF.search(row) and not row.startswith(tuple(f"| {x}" for x in UNPROVEN))
    ] == []
