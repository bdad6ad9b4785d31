"""Locust's view of a synthetic user: one greenlet that asks, is judged, thinks and asks again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Protocol

from locust import User, task

from loadtest.client import LostError, Reply
from loadtest.person import Crowd, Person, Request, Sight


class Client(Protocol):
    """A connection of one user, or one that all share."""

    def exchange(self, method: str, target: str, fields: Mapping[str, str], body: bytes = b"") -> Reply:
        """One request and its whole answer, or a `LostError`."""

    def close(self) -> None:
        """The user goes."""


def user_class(crowd: Crowd, connect: Callable[[], Client], watch: Callable[[Sight], None]) -> type[User]:
    """The class that locust makes its users of.

    Args:
        connect: Makes the client of one user.
        watch: Is told what each request of each user came to.
    """
    seats = count()
    shortest, longest = crowd.options.think_s

    class Visitor(User):
        host = crowd.options.target
        person: Person

        def on_start(self) -> None:
            self.client = connect()
            self.person = crowd.arrive(next(seats))

        def on_stop(self) -> None:
            crowd.leave(self.person)
            self.client.close()

        def wait_time(self) -> float:
            return self.person.rng.uniform(shortest, longest)

        @task
        def ask(self) -> None:
            request = crowd.ask(self.person, time.time())
            began = time.perf_counter()
            sight, length = _exchange(crowd, self.client, self.person, request)
            watch(sight)
            self.environment.events.request.fire(
                request_type=request.method,
                name=request.target,
                response_time=(time.perf_counter() - began) * 1000,
                response_length=length,
                exception=_failure(sight),
                context={},
            )
            if crowd.has_finished(self.person):
                seat = self.person.seat
                self.on_stop()
                self.client, self.person = connect(), crowd.arrive(seat)

    return Visitor


def _exchange(crowd: Crowd, client: Client, person: Person, request: Request) -> tuple[Sight, int]:
    began = time.perf_counter()
    try:
        reply = client.exchange(request.method, request.target, request.fields)
    except LostError as error:
        return crowd.lose(person, request, error.cause, str(error)), 0
    return crowd.take(person, request, reply, time.perf_counter() - began, time.time()), len(reply.body)


def _failure(sight: Sight) -> Any:
    """What locust's own page lists as a failure."""
    if sight.flip:
        return AssertionError(f"FLIP: {sight.flip}")
    if sight.lost:
        return ConnectionError(f"lost: {sight.lost}")
    if sight.status >= 500:
        return RuntimeError(f"{sight.status} of {sight.answer.revision if sight.answer else 'an unknown version'}")
    return None
