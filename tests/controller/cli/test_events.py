"""``cohort events``."""

from __future__ import annotations

import json
from typing import Any

from tests.controller.cli.conftest import Run
from tests.support.fake_controller import FakeController


def event(seq: int, reason: str, kind: str = "Normal") -> dict[str, Any]:
    return {"seq": seq, "at": "2026-11-21T04:02:54Z", "type": kind, "reason": reason, "message": f"message {seq}"}


def test_lists_what_happened_oldest_first(controller: FakeController, run: Run) -> None:
    """product.md F1: events."""
    controller.happened = [event(1, "RolloutStarted"), event(2, "Aborted", "Warning")]
    lines = run("events").out.splitlines()
    assert lines[0].split() == ["TIME", "TYPE", "REASON", "MESSAGE"]
    assert [line.split()[1:3] for line in lines[1:]] == [["Normal", "RolloutStarted"], ["Warning", "Aborted"]]
    assert lines[2].endswith("message 2")


def test_json_carries_the_events_as_they_are(controller: FakeController, run: Run) -> None:
    """`-o json`."""
    controller.happened = [event(1, "RolloutStarted")]
    assert json.loads(run("events", "checkout", "-o", "json").out) == {"items": controller.happened}


def test_very_many_are_asked_for_in_parts(controller: FakeController, run: Run) -> None:
    """The API gives so many at a time."""
    first, second = event(1, "RolloutStarted"), event(9, "Aborted")
    controller.script.extend([(200, {"items": [first]}), (200, {"items": [second]}), (200, {"items": []})])
    assert json.loads(run("events", "checkout", "-n", "shop", "-o", "json").out) == {"items": [first, second]}
    assert [target.split("after=")[1] for _, target in controller.asked] == ["0", "1", "9"]


def test_events_without_a_number_are_no_controller_s(controller: FakeController, run: Run) -> None:
    """They could not be followed."""
    controller.script.append((200, {"items": [{"seq": "x"}]}))
    assert run("events", "checkout", "-n", "shop").code == 3


def test_none_yet_is_said_on_standard_error(run: Run) -> None:
    """Nothing on standard output, which a program may read."""
    result = run("events")
    assert (result.code, result.out, result.err) == (0, "", "Nothing has happened yet.\n")


def test_watch_shows_each_event_once_until_its_time_is_over(controller: FakeController, run: Run) -> None:
    """`-w` asks for what comes after the last seen; exit 4 when --timeout has come."""
    controller.happened = [event(4, "RolloutStarted")]
    result = run("events", "checkout", "-n", "shop", "-w", "--timeout", "1500ms", "-o", "json")
    assert result.code == 4
    assert [json.loads(line)["seq"] for line in result.out.splitlines()] == [4]
    assert [target.split("after=")[1] for _, target in controller.asked] == ["0", "4"]
    assert result.err == "Error: stopped after 1.5 s, as --timeout says.\n"
