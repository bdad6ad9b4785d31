from __future__ import annotations

import yaml

from tests.bench import render
from tests.bench.render import CHARTS, PAGE, TRIED, charts, documents, page


def test_the_page_shows_what_was_measured() -> None:
    """House rule: every number in docs/performance.md is rendered from a result file."""
    assert documents(), "no result file: run make bench"
    assert PAGE.read_text() == page(documents()), "run make bench-docs"
    assert {path.name: path.read_text() for path in CHARTS.iterdir()} == charts(documents()), "run make bench-docs"


def test_a_profile_is_shown_by_phase() -> None:
    """Shares are of the sum, and nothing is shown where nothing was measured."""
    phases = [{"name": "read", "us": 5.0, "about": "recv"}, {"name": "decide", "us": 15.0, "about": "hash"}]
    shown = render._profile({"date": "2026-01-01", "commit": "c0ffee", "about": "By hand.", "phases": phases})
    assert "| read | 5.0 | 25% | recv |" in shown
    assert "| decide | 15.0 | 75% | hash |" in shown
    assert render._profile({}) == ""


def test_what_was_tried_is_told_whole() -> None:
    """An idea without its figures is an opinion."""
    for entry in yaml.safe_load(TRIED.read_text()):
        assert set(entry) == {"idea", "before", "after", "kept", "why"}
        assert isinstance(entry["kept"], bool)
