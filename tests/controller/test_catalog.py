"""A folder's documents: what is declared, what is wrong, and what goes on counting."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller import catalog
from controller.catalog import File

EXAMPLES = Path(__file__).parents[2] / "examples" / "rollout"
CHECKOUT = (EXAMPLES / "checkout.yaml").read_bytes()
RATE = (EXAMPLES / "success-rate.yaml").read_bytes()
LATENCY = (EXAMPLES / "latency.yaml").read_bytes()


def files(**contents: bytes) -> list[File]:
    return [catalog.read(f"{name}.yaml", content, None) for name, content in contents.items()]


def test_a_rollout_comes_with_its_templates() -> None:
    """The examples as they are."""
    found = catalog.declared(files(checkout=CHECKOUT, rate=RATE, latency=LATENCY))
    assert list(found) == ["shop/checkout"]
    assert found["shop/checkout"].problem == ""
    assert set(found["shop/checkout"].templates) == {"success-rate", "latency"}


def test_a_broken_file_leaves_the_last_good_document() -> None:
    """F17: refused as a whole, and said."""
    good = catalog.read("checkout.yaml", CHECKOUT, None)
    bad = catalog.read("checkout.yaml", CHECKOUT[:200], good)
    assert bad.document == good.document
    found = catalog.declared([bad, *files(rate=RATE, latency=LATENCY)])["shop/checkout"]
    assert found.document == good.document
    assert found.problem.startswith("checkout.yaml: ")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00\x01\x02",
        b"[1, 2]",
        b"kind: CanaryRolout\nmetadata: {name: x}",
        b"kind: CanaryRollout\nmetadata: {name: checkout, namespace: shop}\nspec: {}",
        b"kind: CanaryRollout\n---\nkind: CanaryRollout",
        b"{" * 100,
        b"a: &a [*a]",
    ],
)
def test_a_new_file_that_is_no_document_is_a_problem(content: bytes) -> None:
    """Whatever is in it."""
    read = catalog.read("x.yaml", content, None)
    assert read.document is None
    assert read.problem.startswith("x.yaml: ")


def test_a_rollout_that_never_was_good_is_shown_with_its_fault() -> None:
    """As far as it says its own name."""
    content = b"kind: CanaryRollout\nmetadata: {name: checkout, namespace: shop}\nspec: {}"
    found = catalog.declared(files(checkout=content))
    assert found["shop/checkout"].document is None
    assert "spec.stable: required field is missing" in found["shop/checkout"].problem


@pytest.mark.parametrize(
    "content",
    [
        b"apiVersion: apps/v1\nkind: Deployment",
        b"kind: Plan",
        b"apiVersion: cohort.dev/v1alpha1\nkind: ControllerSettings",
    ],
)
def test_documents_of_others_are_passed_over(content: bytes) -> None:
    """A team's folder has more than rollouts."""
    assert catalog.read("x.yaml", content, None) == File("x.yaml")


def test_a_template_that_is_missing_is_a_fault_of_the_rollout() -> None:
    """It cannot be judged by what is not there."""
    found = catalog.declared(files(checkout=CHECKOUT, rate=RATE))["shop/checkout"]
    assert found.document is None
    assert "no AnalysisTemplate latency in namespace shop" in found.problem


def test_a_broken_template_is_said_at_the_rollouts_that_name_it() -> None:
    """Its last good version counts."""
    good = catalog.read("rate.yaml", RATE, None)
    bad = catalog.read("rate.yaml", RATE.replace(b"successRate", b"sucessRate"), good)
    found = catalog.declared([*files(checkout=CHECKOUT, latency=LATENCY), bad])["shop/checkout"]
    assert found.document is not None
    assert found.problem.startswith("rate.yaml: spec.metrics[0].provider.cohort.metric")


def test_one_template_in_two_files_is_neither() -> None:
    """Which judges would depend on the order of names."""
    found = catalog.declared(files(checkout=CHECKOUT, rate=RATE, again=RATE, latency=LATENCY))["shop/checkout"]
    assert found.problem == "AnalysisTemplate success-rate is declared by two files: remove one"


def test_one_rollout_in_two_files_is_neither() -> None:
    """Which counts would depend on the order of names."""
    found = catalog.declared(files(a=CHECKOUT, b=CHECKOUT, rate=RATE, latency=LATENCY))["shop/checkout"]
    assert found.document is None
    assert found.problem == "shop/checkout is declared by a.yaml and b.yaml: remove one"


def test_a_file_that_cannot_be_read_leaves_the_last_good_document() -> None:
    """Rights, or a link to nowhere."""
    good = catalog.read("checkout.yaml", CHECKOUT, None)
    gone = catalog.unreadable("checkout.yaml", "permission denied", good)
    assert (gone.document, gone.problem) == (good.document, "checkout.yaml: permission denied")
