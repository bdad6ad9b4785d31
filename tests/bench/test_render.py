from __future__ import annotations

from tests.bench.render import PAGE, documents, page


def test_the_page_shows_what_was_measured() -> None:
    """House rule: every number in docs/performance.md is rendered from a result file."""
    assert documents(), "no result file: run make bench"
    assert PAGE.read_text() == page(documents()), "run make bench-docs"
