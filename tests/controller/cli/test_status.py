"""``cohort status`` and the view that it shows."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from controller.cli import watch
from controller.cli.view import step_text
from tests.controller.cli.conftest import Run
from tests.support.fake_controller import FakeController, rollout


def soon(action: Any, *args: Any, **kwargs: Any) -> threading.Timer:
    """Do something a moment later, while the command waits."""
    timer = threading.Timer(0.1, action, args, kwargs)
    timer.start()
    return timer


def test_shows_where_the_rollout_stands(run: Run) -> None:
    """product.md F1: steps as done, now and next; weight as programmed and as measured with its range."""
    result = run("status", "checkout")
    assert result.code == 0
    assert result.out == (
        "Name:      shop/checkout\n"
        "Phase:     Progressing\n"
        "Stable:    v1\n"
        "Canary:    v2\n"
        "Weight:    5.00 %, measured 4.93 % (4.71 to 5.16)\n"
        "Step:      2 of 5 done, at pause 10m for 4m10s\n"
        "Plan:      generation 42, 2/3 proxies have it; waiting for unix:b.sock\n"
        "\n"
        "Steps:\n"
        "  done   1  setHeaderRoute qa\n"
        "  done   2  setWeight 5\n"
        "  now    3  pause 10m\n"
        "  next   4  analysis success-rate\n"
        "  next   5  pause until promoted\n"
        "\n"
        "Conditions:\n"
        "  TYPE    STATUS   REASON    MESSAGE\n"
        "  Ready   True     Serving   -\n"
    )


def test_shows_the_verdict_with_its_need_and_the_abort(controller: FakeController, run: Run) -> None:
    """product.md D5: it says how many users or minutes are missing."""
    controller.change(
        verdict={
            "decision": "Hold",
            "reason": "NotEnoughData",
            "message": "success-rate has 40 requests",
            "need": {"requests": 210, "users": 3, "minutes": 0},
        },
        abort={"id": "1b7e", "revision": "v2", "by": "anna", "reason": "Requested"},
    )
    out = run("status", "checkout").out
    assert "Verdict:   Hold (NotEnoughData): success-rate has 40 requests; still needs 210 requests, 3 users\n" in out
    assert "Abort:     Requested by anna of revision v2 id 1b7e\n" in out


def test_without_a_trial_no_step_is_marked(controller: FakeController, run: Run) -> None:
    """The steps are those of the next revision then; none of them is done or next."""
    del controller.items["shop", "checkout"]["status"]["step"]
    out = run("status", "checkout").out
    assert "Step:" not in out
    assert "         2  setWeight 5\n" in out


def test_wide_adds_the_digest_and_the_actions(controller: FakeController, run: Run) -> None:
    """surface.md: `-o wide`, `status.actions`."""
    controller.change(actions=[{"uid": "8e0c", "verb": "Promote", "result": "Done", "by": "anna"}])
    out = run("status", "checkout", "-o", "wide").out
    assert "digest 9c1e" in out
    assert "  Promote   Done     anna   -\n" in out


@pytest.mark.parametrize(
    ("phase", "code"),
    [("Healthy", 0), ("Paused", 0), ("Holding", 0), ("Pending", 0), ("Aborted", 1), ("Degraded", 1)],
)
def test_exits_by_the_phase(controller: FakeController, run: Run, phase: str, code: int) -> None:
    """surface.md: exit 0 done or healthy, 1 degraded or aborted."""
    controller.change(phase=phase)
    assert run("status", "checkout").code == code


@pytest.mark.parametrize(("phase", "code"), [("Healthy", 0), ("Aborted", 1), ("Degraded", 1)])
def test_watch_follows_until_it_has_ended(controller: FakeController, run: Run, phase: str, code: int) -> None:
    """surface.md: `status -w`, the exit code is the result."""
    timer = soon(controller.change, phase=phase, step={"index": 5, "total": 5})
    result = run("status", "-w")
    timer.join()
    assert result.code == code
    first, last = result.out.splitlines()
    assert "Progressing; step 2/5 pause 10m; weight 5.00 %, measured 4.93 % (4.71 to 5.16)" in first
    assert f"{phase}; step 5/5; weight" in last


def test_watch_as_json_is_one_line_a_change(controller: FakeController, run: Run) -> None:
    """A stream for programs: each line is a document."""
    timer = soon(controller.change, phase="Healthy")
    lines = run("status", "-w", "-o", "json").out.splitlines()
    timer.join()
    assert [json.loads(line)["status"]["phase"] for line in lines] == ["Progressing", "Healthy"]


def test_watch_says_when_its_time_is_over(run: Run) -> None:
    """surface.md: exit 4 timed out; the error says where it stands and what to do."""
    started = time.monotonic()
    result = run("status", "checkout", "-w", "--timeout", "200ms")
    assert result.code == 4
    assert time.monotonic() - started < 5
    assert "shop/checkout has not ended within 0.2 s: Progressing; step 2/5 pause 10m" in result.err
    assert "--timeout waits longer" in result.err


def test_watch_survives_a_controller_that_is_away_for_a_moment(
    controller: FakeController, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """product.md C4: a controller killed anywhere resumes, and so does whoever watches."""
    monkeypatch.setattr(watch, "RETRY_S", 0.01)
    controller.script.extend([(200, rollout()), b"", b"HTTP/1.1 200 OK\r\n", (503, {"error": "starting"})])
    timer = soon(controller.change, phase="Healthy")
    result = run("status", "checkout", "-n", "shop", "-w")
    timer.join()
    assert result.code == 0
    assert result.err.count("Trying again for 60 s.") == 1


def test_watch_gives_up_on_a_controller_that_stays_away(
    controller: FakeController, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """surface.md: exit 3 not reachable."""
    monkeypatch.setattr(watch, "RETRY_S", 0.01)
    monkeypatch.setattr(watch, "GRACE_S", 0.05)
    controller.script.extend([(200, rollout()), *[b""] * 1000])
    assert run("status", "checkout", "-n", "shop", "-w").code == 3


def test_watch_of_a_rollout_that_is_removed_ends(controller: FakeController, run: Run) -> None:
    """Its document was deleted: there is nothing to wait for any more."""
    controller.script.extend([(200, rollout()), (404, {"error": "there is no rollout shop/checkout"})])
    result = run("status", "checkout", "-n", "shop", "-w")
    assert result.code == 2
    assert "there is no rollout shop/checkout" in result.err


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ({"setWeight": 25}, "setWeight 25"),
        ({"setWeight": "100.00"}, "setWeight 100"),
        ({"setWeight": "12.50"}, "setWeight 12.5"),
        ({"setWeight": "0.25", "pause": None}, "setWeight 0.25"),
        ({"setWeight": None, "pause": {"duration": None}}, "pause until promoted"),
        ({"pause": {"duration": "10m"}}, "pause 10m"),
        ({"analysis": {"templates": [{"templateName": "a"}, {"templateName": "b"}]}}, "analysis a, b"),
        ({"setHeaderRoute": {"name": "qa", "match": []}}, "setHeaderRoute qa"),
        ({"later": {"x": 1}}, "later -"),
        ({}, "{}"),
        (None, "-"),
    ],
)
def test_a_step_in_a_few_words(step: object, text: str) -> None:
    """As the document has it, nulls of a full dump left out."""
    assert step_text(step) == text


@pytest.mark.parametrize("value", [None, [], {}, "x", 1, [1], {"x": [1]}], ids=str)
def test_a_status_of_any_shape_is_shown(controller: FakeController, run: Run, value: object) -> None:
    """A controller of another version may say more, less or other things: never a traceback."""
    document = rollout()
    for part in document["status"]:
        controller.items["shop", "checkout"] = rollout(**dict[str, Any]({part: value, "abort": value}))
        for line in ("status checkout -n shop -o wide", "get checkout -n shop -o wide"):
            assert run(*line.split()).code == 0
    for part in ("spec", "status", "metadata"):
        controller.items["shop", "checkout"] = {**document, part: value}
        assert run("status", "checkout", "-n", "shop").code == 0
