from __future__ import annotations

from tests.bench.render import CHARTS, PAGE, charts, documents, page


def test_the_page_shows_what_was_measured() -> None:
    """House rule: every number in docs/performance.md is rendered from a result file."""
    assert documents(), "no result file: run make bench"
    assert PAGE.read_text() == page(documents()), "run make bench-docs"
    assert {path.name: path.read_text() for path in CHARTS.iterdir()} == charts(documents()), "run make bench-docs"
