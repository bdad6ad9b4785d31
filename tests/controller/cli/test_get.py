"""``cohort get``."""

from __future__ import annotations

import json

import yaml

from tests.controller.cli.conftest import Run
from tests.support.fake_controller import FakeController, rollout


def test_lists_every_rollout_in_aligned_columns(controller: FakeController, run: Run) -> None:
    """surface.md: `-o table` is the default; product.md F1."""
    controller.items["pay", "cart"] = rollout("cart", "pay", phase="Healthy", step=None)
    result = run("get")
    assert result.code == 0
    header, first, second = result.out.splitlines()
    assert header.split() == ["NAMESPACE", "NAME", "PHASE", "STEP", "WEIGHT", "STABLE", "CANARY", "VERDICT"]
    assert first.split() == ["shop", "checkout", "Progressing", "2/5", "5.00", "%", "v1", "v2", "-"]
    assert second.split()[:4] == ["pay", "cart", "Healthy", "-"]
    assert header.index("PHASE") == first.index("Progressing") == second.index("Healthy")


def test_wide_adds_what_was_measured_and_which_proxies_have_it(run: Run) -> None:
    """surface.md: `-o wide`."""
    header, line = run("get", "-o", "wide").out.splitlines()
    assert header.split()[-4:] == ["MEASURED", "GENERATION", "PROXIES", "ABORT"]
    assert line.split()[-5:] == ["4.93", "%", "42", "2/3", "-"]


def test_json_and_yaml_carry_the_documents_as_the_controller_has_them(controller: FakeController, run: Run) -> None:
    """surface.md: `-o json|yaml`, for programs."""
    whole = {"items": list(controller.items.values())}
    assert json.loads(run("get", "-o", "json").out) == whole
    assert yaml.safe_load(run("get", "-o", "yaml").out) == whole
    assert json.loads(run("get", "checkout", "-o", "json").out) == whole["items"][0]


def test_namespace_narrows_the_list_and_all_namespaces_widens_it_again(
    controller: FakeController, run: Run, monkeypatch: object
) -> None:
    """`-n` and its variable select; `-A` overrules both."""
    controller.items["pay", "cart"] = rollout("cart", "pay")
    assert [line.split()[1] for line in run("get", "-n", "pay").out.splitlines()] == ["NAME", "cart"]
    assert len(run("get", "-n", "pay", "-A").out.splitlines()) == 3


def test_none_is_said_on_standard_error_and_is_no_fault(controller: FakeController, run: Run) -> None:
    """An empty list is an answer; programs get an empty list."""
    controller.items.clear()
    result = run("get", "-n", "pay")
    assert (result.code, result.out, result.err) == (0, "", "There is no rollout in namespace pay.\n")
    assert json.loads(run("get", "-o", "json").out) == {"items": []}


def test_status_of_any_shape_is_shown_without_failing(controller: FakeController, run: Run) -> None:
    """A controller of another version may leave parts out."""
    controller.items["shop", "checkout"]["status"] = None
    assert run("get", "-o", "wide").out.splitlines()[1].split() == ["shop", "checkout", *["-"] * 10]


def test_what_a_terminal_would_obey_is_escaped(controller: FakeController, run: Run) -> None:
    """A verdict's reason or a revision is text from elsewhere: it must not move the cursor."""
    controller.change(revision={"stable": "\x1b[2Jv1", "canary": "v\u009b2"})
    assert "\\x1b[2Jv1" in run("get").out
    for output in ("json", "yaml"):
        assert not set("\x1b\u009b") & set(run("get", "-o", output).out)
