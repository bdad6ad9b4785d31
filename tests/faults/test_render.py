from __future__ import annotations

from tests.faults.render import PAGE, document, page
from tests.faults.table import FAULTS


def test_the_page_shows_what_was_measured() -> None:
    """House rule: every number in docs/reliability.md is rendered from a result file."""
    assert PAGE.read_text() == page(document()), "run make faults-docs"


def test_the_page_shows_full_length_only() -> None:
    """A run of seconds is for CI: its figures promise nothing."""
    entries = document()["faults"]
    assert set(entries) <= set(FAULTS)
    assert {name for name, entry in entries.items() if entry["rate"] < 300} == set()
