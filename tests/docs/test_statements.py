"""The statements of four pages and their proofs."""

from __future__ import annotations

import re

import pytest

from tests.docs.statements import ROOT, Statement, is_known, statements

PAGES = ("behaviour", "security", "resources", "failure-modes")


def page(name: str) -> str:
    """The text of a page in docs/."""
    return (ROOT / f"docs/{name}.md").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_every_statement_names_its_proof(name: str) -> None:
    """The issue's rule: complete and true, each statement named by a test."""
    assert [str(one) for one in statements(page(name)) if one.needs_proof and not one.is_proven] == []


@pytest.mark.parametrize("name", [*PAGES, "upgrade"])
def test_every_proof_exists(name: str) -> None:
    """A name that no test has is a claim; one that two have does not say which."""
    assert {proof for one in statements(page(name)) for proof in one.proofs if not is_known(proof)} == set()


def test_the_wire_contract_is_covered_item_by_item() -> None:
    """Nineteen items, which the sources cite by number, each with statements of its own."""
    found = {int(number[1]) for one in statements(page("behaviour")) if (number := re.match(r"(\d+)\. ", one.heading))}
    assert found == set(range(1, 20))


def test_every_threat_of_the_model_is_on_the_page() -> None:
    """15 to the data plane, 8 to split and evidence, 11 to steering: defended, or said not to be."""
    threats = {f"{kind}{number}" for kind, most in (("D", 15), ("S", 8), ("C", 11)) for number in range(1, most + 1)}
    assert threats - set(re.findall(r"\b[DSC]\d+\b", page("security"))) == set()


def test_what_needs_a_proof() -> None:
    """Paragraphs, items and rows do; what leads to them does not."""
    text = "# T\n\nIntro.\n\n## H\n\nOne. [CL-02]\n\nTwo.\n\nThese:\n\n- a [test_pool.py::test_x]\n- b\n\n"
    text += "| h |\n|---|\n| r |\n"
    found = statements(text)
    assert [one.text.strip() for one in found] == [
        "One. [CL-02]", "Two.", "These:", "- a [test_pool.py::test_x]", "- b", "| r |",
    ]  # fmt: skip
    assert [one.needs_proof and not one.is_proven for one in found] == [False, True, False, False, True, True]


def test_a_table_behind_a_proof_is_covered() -> None:
    """As a list of what the paragraph said."""
    found = statements("## H\n\nAs told. [CL-02]\n\n| h |\n|---|\n| r |\n\n## I\n\n| h |\n|---|\n| r |\n")
    assert [one.needs_proof for one in found] == [True, False, True]


def test_code_and_generated_parts_are_left_out() -> None:
    """The one explains, the other has a test of its own."""
    text = "## H\n\nOne. [TE]\n\n```\nx\n\ny\n```\n\n<!-- modules: proxy -->\n\n| a |\n|---|\n| b |\n"
    assert [one.text for one in statements(text)] == ["One. [TE]"]


@pytest.mark.parametrize(
    ("proof", "is_there"),
    [
        ("CL-02", True),
        ("CL-99", False),
        ("CL", True),
        ("H2-01", False),
        ("ZZ", False),
        ("test_statements.py::test_what_needs_a_proof", True),
        ("docs/test_statements.py::test_what_needs_a_proof", True),
        ("proxy/test_statements.py::test_what_needs_a_proof", False),
        ("test_statements.py::test_that_is_not_there", False),
        ("ements.py::test_what_needs_a_proof", False),
    ],
)
def test_what_is_a_proof(proof: str, is_there: bool) -> None:
    """A part of a file's name is none, nor is a case that is not run."""
    assert is_known(proof) is is_there


def test_a_proof_stands_at_the_end() -> None:
    """So that what follows it is not taken for proven."""
    assert not Statement("H", "One. [CL-02] And two.").is_proven
    assert Statement("H", "One.\n[CL-02,\nTE]").is_proven
    assert Statement("H", "| One | [CL-02] |").is_proven
