from __future__ import annotations

from typing import Literal

from proxy.document import Document
from tests.docs.configuration import PAGE, ROOTS, described, reachable, render, texts

TEXT = PAGE.read_text()


def test_tables_are_what_the_models_say() -> None:
    """The issue's rule: every field with unit, range and default, checked against the models."""
    assert render(TEXT) == TEXT, "run make docs"


def test_every_model_is_described_once() -> None:
    """A document that a person can write has no part that the page leaves out."""
    assert sorted(model.__name__ for model in described(TEXT)) == sorted(model.__name__ for model in reachable(ROOTS))


def test_every_field_says_what_it_is() -> None:
    """The last column is written by hand: a new field has to be explained."""
    assert [field for field, text in texts(TEXT).items() if not text] == []


def test_another_default_changes_the_page() -> None:
    """The check can fail: a page with an older default is not what the model says."""
    assert render(TEXT.replace("| `32,768` |", "| `8,192` |")) == TEXT
    assert TEXT.replace("| `32,768` |", "| `8,192` |") != TEXT


def test_a_field_that_is_gone_leaves_the_page() -> None:
    """Rows come from the model, not from the page."""
    row = "| `kind` | `ProxySettings` | `ProxySettings` |"
    assert render(TEXT.replace(row, f"| `mirrors` | text | absent | gone |\n{row}")) == TEXT


def test_models_are_found_within_unions_and_lists() -> None:
    """Reachable means by any type expression."""

    class Inner(Document):
        kind: Literal["x"]

    class Outer(Document):
        parts: tuple[Inner, ...] | None = None

    assert reachable([Outer]) == [Outer, Inner]
