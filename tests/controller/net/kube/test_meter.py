"""The API server, counted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from controller.errors import Temporary
from controller.net.kube.client import ApiRefused
from controller.net.kube.meter import Meter

PODS = "/api/v1/namespaces/shop/pods"


class Answers:
    """An API server: what it answers to each request, or sends in each watch; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.now = 0.0

    async def ask(self, method: str, path: str, body: Any = None, **_: Any) -> dict[str, Any]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"answer": answer}

    async def watch(self, path: str, version: str, limit_s: int) -> AsyncIterator[dict[str, Any]]:
        for event in self.answers.pop(0):
            if isinstance(event, Exception):
                raise event
            yield event


def metered(*answers: Any) -> tuple[Meter, Answers]:
    server = Answers(*answers)
    return Meter(server, lambda: server.now), server


async def test_requests_are_counted_by_what_came_of_them() -> None:
    meter, _ = metered("one", "two", ApiRefused(409, "taken"), Temporary("nobody"))
    assert await meter.ask("GET", "/apis/x") == {"answer": "one"}
    await meter.ask("GET", "/apis/x")
    with pytest.raises(ApiRefused):
        await meter.ask("PUT", "/apis/x")
    with pytest.raises(Temporary):
        await meter.ask("GET", "/apis/x")
    assert meter.requests == {("GET", "ok"): 2, ("PUT", "409"): 1, ("GET", "none"): 1}


@pytest.mark.parametrize(
    ("answer", "age_s"),
    [
        ("one", 0.0),
        (ApiRefused(404, "not there"), 0.0),
        (ApiRefused(409, "taken"), 0.0),
        (ApiRefused(401, "who asks?"), 9.0),
        (ApiRefused(403, "no"), 9.0),
        (ApiRefused(500, "etcd is away"), 9.0),
        (Temporary("nobody"), 9.0),
    ],
    ids=str,
)
async def test_the_server_s_age_counts_from_its_last_use(answer: Any, age_s: float) -> None:
    """A refusal that only a working server gives is of use; one for which nothing goes on is not."""
    meter, server = metered(answer)
    server.now = 9.0
    try:
        await meter.ask("GET", "/apis/x")
    except Temporary:
        pass
    assert meter.age_s == age_s


@pytest.mark.parametrize(
    ("events", "cause"),
    [
        ([], "ended"),
        ([{"type": "ADDED", "object": {}}, Temporary("reset")], "lost"),
        ([ApiRefused(410, "too old")], "gone"),
        ([ApiRefused(403, "no")], "refused"),
        ([{"type": "ERROR", "object": {"code": 410}}], "gone"),
        ([{"type": "ERROR", "object": {"code": 500}}], "refused"),
        ([{"type": "ERROR"}], "refused"),
    ],
    ids=str,
)
async def test_watches_are_counted_by_how_they_end(events: list[Any], cause: str) -> None:
    """Once each, and what came is handed on."""
    meter, _ = metered(events)
    seen = []
    try:
        async for event in meter.watch(PODS, "5", 30):
            seen.append(event)
            if event["type"] == "ERROR":
                break
    except Temporary:
        pass
    assert seen == [event for event in events if isinstance(event, dict)]
    assert meter.watches == {("pods", cause): 1}


async def test_an_event_is_a_sign_of_life() -> None:
    """Bookmarks come each minute where nothing happens."""
    meter, server = metered([{"type": "BOOKMARK", "object": {}}])
    server.now = 50.0
    async for _ in meter.watch(PODS, "5", 30):
        assert meter.age_s == 0.0
