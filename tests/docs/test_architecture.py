from __future__ import annotations

from proxy.exchange import TRANSITIONS
from tests.docs.architecture import MODULES, PAGE, ROOT, render, states, summary

TEXT = PAGE.read_text()


def test_generated_parts_are_what_the_sources_say() -> None:
    """House rule: diagrams and maps come from the tables, and a test fails when they drift."""
    assert render(TEXT) == TEXT, "run make docs"


def test_the_map_covers_every_package() -> None:
    """Each folder of modules that is installed is on the map."""
    packages = {
        str(path.parent.relative_to(ROOT))
        for top in ("proxy", "controller", "loadtest", "demo")
        for path in ROOT.glob(f"{top}/**/*.py")
    }
    assert {mark[1] for mark in MODULES.finditer(TEXT)} == packages


def test_every_module_says_what_it_is() -> None:
    """The map is made of docstrings."""
    assert [
        path
        for top in ("proxy", "controller", "loadtest", "demo")
        for path in ROOT.glob(f"{top}/**/*.py")
        if not summary(path)
    ] == []


def test_the_diagram_has_every_transition() -> None:
    """One arrow for each outcome in the table, and the two ends."""
    assert states().count("-->") == sum(map(len, TRANSITIONS.values())) + 2
