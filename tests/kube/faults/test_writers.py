"""The oracle sees two writers, and what the fence refused."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kube.faults.writers import accepted, fenced, problems, writes


def event(version: int, term: int, identity: str, code: int = 200, said: str = "", kind: str = "json") -> Any:
    status = {"leader": {"identity": identity, "term": term}}
    patch = [{"op": "test", "path": "/metadata/uid", "value": "1"}, {"op": "add", "path": "/status", "value": status}]
    reference = {"resource": "canaryrollouts", "subresource": "status", "namespace": "shop", "name": "web"}
    return {
        "verb": "patch",
        "objectRef": reference,
        "requestObject": patch if kind == "json" else {"status": status},
        "responseStatus": {"code": code, "message": said},
        "responseObject": {"metadata": {"resourceVersion": str(version)}, "status": status},
        "stageTimestamp": "2026-01-01T00:00:00.000000Z",
    }


def test_one_writer_after_the_other_is_well() -> None:
    events = [event(3, 1, "a"), event(9, 2, "b", kind="merge"), event(11, 2, "b"), event(20, 3, "a")]
    assert problems(writes(events, "shop")) == []


@pytest.mark.parametrize(
    ("events", "told"),
    [
        ([event(3, 2, "b"), event(5, 1, "a")], "after term 2"),
        ([event(10, 1, "a"), event(9, 2, "b")], "after term 2"),  # the log's order is not the API server's
        ([event(3, 1, "a"), event(5, 1, "b")], "is of b and of a"),
    ],
    ids=["a late write", "told in another order", "two of one term"],
)
def test_two_writers_are_seen(events: list[Any], told: str) -> None:
    (problem,) = problems(writes(events, "shop"))
    assert told in problem


def test_what_was_refused_or_is_of_another_namespace_counts_for_nothing() -> None:
    refused = event(0, 1, "a", 422, "status.leader: another controller has taken over")
    events = [event(3, 2, "b"), refused, event(0, 1, "a", 404, "not found")]
    found = writes([*events, event(4, 1, "a") | {"objectRef": {"resource": "leases"}}], "shop")
    assert [write.version for write in accepted(found)] == [3]
    assert [write.leader for write in fenced(found)] == [(1, "a")]
    assert problems(found) == []
    assert writes(events, "elsewhere") == []
