from __future__ import annotations

from tests.image.render import PAGE, render


def test_the_page_shows_what_was_measured() -> None:
    """House rule: every figure is rendered from a result file."""
    assert PAGE.read_text() == render(PAGE.read_text()), "run make image"
