"""Which rollout a command means."""

from __future__ import annotations

import pytest

from tests.controller.cli.conftest import Run
from tests.support.fake_controller import FakeController, rollout


def test_the_only_rollout_needs_no_name(controller: FakeController, run: Run) -> None:
    """If exactly one rollout exists, NAME may be left out."""
    assert run("pause").code == 0
    assert controller.asked[-1][1] == "/api/v1/rollouts/shop/checkout/actions"


def test_a_name_is_found_in_whatever_namespace_it_is(controller: FakeController, run: Run) -> None:
    """The short form is the common case: -n only where it is needed."""
    controller.items["pay", "cart"] = rollout("cart", "pay")
    assert run("pause", "cart").code == 0
    assert controller.asked[-1][1] == "/api/v1/rollouts/pay/cart/actions"


def test_name_and_namespace_together_need_no_listing(
    controller: FakeController, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One request, for an abort in a hurry; the namespace may come from COHORT_NAMESPACE."""
    monkeypatch.setenv("COHORT_NAMESPACE", "shop")
    assert run("abort", "checkout").code == 0
    assert len(controller.asked) == 1


@pytest.mark.parametrize(
    ("others", "line", "text"),
    [
        ([("cart", "shop")], "pause", "expected the NAME of a rollout, because there are 2: shop/cart, shop/checkout."),
        ([("cart", "shop")], "pause -n shop", "because there are 2 in namespace shop: shop/cart, shop/checkout."),
        ([("checkout", "pay")], "pause checkout", "2 rollouts are named 'checkout': pay/checkout, shop/checkout."),
        ([], "pause chekout", "there is no rollout 'chekout': there is shop/checkout."),
        ([], "pause -n pay", "expected a rollout, but there is none in namespace pay"),
        ([], "pause cart -n shop", "there is no rollout shop/cart"),
    ],
)
def test_what_is_not_clear_is_asked_back(
    controller: FakeController, run: Run, others: list[tuple[str, str]], line: str, text: str
) -> None:
    """surface.md: exit 2 wrong use; the error names what there is."""
    controller.items.update({(namespace, name): rollout(name, namespace) for name, namespace in others})
    result = run(*line.split())
    assert result.code == 2
    assert text in result.err
    assert controller.posted in ([], [{"verb": "Pause", "by": controller.posted[0]["by"]}] if controller.posted else [])
