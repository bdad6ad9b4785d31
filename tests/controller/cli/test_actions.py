"""The verbs that steer."""

from __future__ import annotations

import getpass
import json

import pytest

from tests.controller.cli.conftest import Run
from tests.support.fake_controller import FakeController


@pytest.mark.parametrize(
    ("line", "action"),
    [
        ("promote checkout", {"verb": "Promote"}),
        ("promote checkout --full", {"verb": "PromoteFull"}),
        ("pause checkout", {"verb": "Pause"}),
        ("resume checkout", {"verb": "Resume"}),
        ("abort checkout", {"verb": "Abort"}),
        ("abort checkout --reason slow", {"verb": "Abort", "reason": "slow"}),
        ("retry checkout", {"verb": "Retry"}),
        ("retry", {"verb": "Retry"}),
        ("set weight checkout 25", {"verb": "SetWeight", "weight": "25"}),
        ("set weight 0.25", {"verb": "SetWeight", "weight": "0.25"}),
        ("start --revision v2", {"verb": "Start", "revision": "v2"}),
        (
            "start checkout --revision v2 --addresses 127.0.0.1:9002,[::1]:9003",
            {"verb": "Start", "revision": "v2", "addresses": ["127.0.0.1:9002", "[::1]:9003"]},
        ),
        (
            "start checkout --revision v2 --dns v2.example:80",
            {"verb": "Start", "revision": "v2", "dns": {"host": "v2.example", "port": 80}},
        ),
    ],
)
def test_each_verb_is_one_action(controller: FakeController, run: Run, line: str, action: dict[str, object]) -> None:
    """product.md C2: the verbs, sent with who asks."""
    result = run(*line.split(), "--by", "anna")
    assert (result.code, result.err) == (0, "")
    assert result.out == f"shop/checkout: {action['verb']} is done\n"
    assert controller.posted == [{**action, "by": "anna"}]
    assert controller.asked[-1] == ("POST", "/api/v1/rollouts/shop/checkout/actions")


def test_who_asks_is_the_login_name_if_it_is_not_given(controller: FakeController, run: Run) -> None:
    """The record says who it was."""
    run("pause")
    assert controller.posted[0]["by"] == getpass.getuser()


def test_the_result_as_json(run: Run) -> None:
    """`-o json`."""
    assert json.loads(run("pause", "-o", "json").out) == {"result": "Done", "message": "Pause is done"}


def test_a_refusal_is_told_with_its_reason(controller: FakeController, run: Run) -> None:
    """surface.md: exit 1 refused."""
    controller.script.append((409, {"error": "there is nothing to promote: no revision is on trial"}))
    result = run("promote", "checkout", "-n", "shop")
    assert (result.code, result.out) == (1, "")
    assert result.err == "Error: there is nothing to promote: no revision is on trial\n"


@pytest.mark.parametrize(
    "line",
    [
        "set weight checkout 101",
        "set weight checkout 25%",
        "set weight checkout 0.125",
        "set weight checkout",
        "set weight",
        "set weight shop checkout 25",
        "set speed 25",
        "start checkout --addresses 127.0.0.1:9002",
        "start checkout --revision v2 --addresses 127.0.0.1:9002,",
        "start checkout --revision v2 --dns v2.example",
        "start checkout --revision v2 --dns :80",
        "start checkout --revision v2 --dns v2.example:80 --addresses 127.0.0.1:9002",
        "promote checkout --timeout 5",
        "promote checkout --timeout 0s",
        "promote checkout extra",
        "promote --nonsense",
    ],
)
def test_wrong_use_is_refused_before_anybody_is_asked(controller: FakeController, run: Run, line: str) -> None:
    """surface.md: exit 2 wrong use."""
    result = run(*line.split())
    assert (result.code, result.out) == (2, "")
    assert "Error: " in result.err
    assert controller.asked == []


def test_an_abort_is_not_refused_for_a_long_reason(controller: FakeController, run: Run) -> None:
    """An abort outranks everything; the API takes 1,024 characters."""
    assert run("abort", "--reason", "x" * 5000).code == 0
    assert controller.posted[0]["reason"] == "x" * 1024


def test_an_abort_that_finds_no_controller_names_the_other_way(controller: FakeController, run: Run) -> None:
    """product.md B8: with the controller dead, each proxy still takes an abort."""
    controller.script.append(b"")
    result = run("abort", "checkout", "-n", "shop")
    assert result.code == 3
    assert "POST /abort to the admin API" in result.err
