from __future__ import annotations

import re

from controller.analysis import Decision
from controller.rollout import TRANSITIONS
from controller.state import Phase, Stage
from tests.docs.rollout import PAGE, WORDS, phases, render

TEXT = PAGE.read_text()


def test_generated_parts_are_what_the_table_says() -> None:
    """House rule: diagrams in docs are generated from the tables, and a test fails when they drift."""
    assert render(TEXT) == TEXT, "run make docs"


def test_the_diagram_has_every_change_of_phase() -> None:
    """One arrow for each pair of phases that the table knows, and the start."""
    pairs = {
        (start, end) for start, row in TRANSITIONS.items() for ends in row.values() for end in ends if end != start
    }
    assert phases().count("-->") == len(pairs) + 1


def test_every_event_has_a_word() -> None:
    """No arrow without a cause."""
    assert {kind for row in TRANSITIONS.values() for kind in row} <= set(WORDS)


def test_the_page_explains_every_phase_and_decision() -> None:
    """A reader of `cohort status` finds what it says."""
    for phase in Phase:
        assert re.search(rf"^\| \*\*{phase.value}\*\* \| [^|]{{20}}", TEXT, re.MULTILINE), phase
    analysis = PAGE.with_name("analysis.md").read_text()
    for decision in Decision:
        assert f"**{decision.value}**" in analysis, decision
    assert Stage.CLEARING.value.lower() in TEXT
