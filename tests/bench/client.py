"""A plain client that sees, before, beside and after a load, that answers are the backends' and the split is sticky."""

from __future__ import annotations

import contextlib
import http.client
import re
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.workload import USER, Workload, user_id

FIRST_USER = 1_000_000  # none of those that the generator sends
PAUSE_S = 0.05
ADDRESS = re.compile(rb"\d+\.\d+\.\d+\.\d+")  # Envoy writes another one of this machine's for a client on loopback
TIMEOUT_S = 20.0  # of a machine that does other things too


class WrongAnswerError(Exception):
    """A peer did not do the job that is measured."""


@dataclass(frozen=True, slots=True)
class Door:
    """Where a peer is to be asked, and what it may be asked for.

    Attributes:
        splits: It looks at requests at all: all but a relay.
    """

    port: int
    workload: Workload
    tls: ssl.SSLContext | None = None
    splits: bool = True

    def open(self) -> http.client.HTTPConnection:
        """A connection, which is made with the first request."""
        if self.tls is not None:
            return http.client.HTTPSConnection("localhost", self.port, timeout=TIMEOUT_S, context=self.tls)
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT_S)


def ask(
    connection: http.client.HTTPConnection, workload: Workload, user: str, path: str = "", **more: str
) -> tuple[int, bytes]:
    """One request of the workload, and its answer's status and body."""
    connection.putrequest(workload.method, path or workload.path, skip_host=True, skip_accept_encoding=True)
    for name, value in [*workload.fields, *((name.replace("_", "-"), value) for name, value in more.items())]:
        close = workload.closes and name == "Connection"
        connection.putheader(name, "close" if close else value.replace(USER, user))
    if workload.body_bytes:
        connection.putheader("Content-Length", str(workload.body_bytes))
    connection.endheaders(b"b" * workload.body_bytes if workload.body_bytes else None)
    answer = connection.getresponse()
    return answer.status, answer.read()


def is_up(door: Door) -> bool:
    """Whether one request is answered with 200."""
    connection = door.open()
    try:
        return ask(connection, door.workload, user_id(0))[0] == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def check(door: Door, canary_percent: int | None = None) -> float:
    """The canary's share of a sample of users, each of whom is asked for twice.

    Raises:
        WrongAnswerError: An answer that is no backend's, a user with two versions, a share far from the weight, a
            header that overrides nothing, or a service that does not learn the client's address.
    """
    workload = door.workload
    expected = (workload.canary_percent if canary_percent is None else canary_percent) / 100 if door.splits else 0.0
    users = 60 if workload.closes and workload.has_tls else 400  # a handshake takes as long as ten requests
    sample = max(16, min(users, 8_000_000 // workload.answer_bytes))
    with contextlib.closing(door.open()) as connection:
        share = sum(_arm(connection, door, user) == "canary" for user in range(sample)) / sample
        if door.splits:
            _check_override(connection, door)
    five_deviations = 5 * (expected * (1 - expected) / sample) ** 0.5
    if abs(share - expected) > five_deviations + 0.01:
        raise WrongAnswerError(f"expected {expected:.0%} of users on the canary, got {share:.1%}")
    return share


def _arm(connection: http.client.HTTPConnection, door: Door, user: int) -> str:
    """The version of one user.

    Raises:
        WrongAnswerError: Wrong bytes, or two versions.
    """
    seen = [ask(connection, door.workload, user_id(FIRST_USER + user)) for _ in range(2)]
    arms = [
        arm
        for status, body in seen
        for arm, bytes_ in door.workload.answers().items()
        if (200, bytes_) == (status, body)
    ]
    if len(arms) != 2:
        raise WrongAnswerError(
            f"expected 200 and a backend's bytes, got {[(status, body[:80]) for status, body in seen]}"
        )
    if arms[0] != arms[1]:
        raise WrongAnswerError(f"user {user} saw two versions")
    return arms[0]


def _check_override(connection: http.client.HTTPConnection, door: Door) -> None:
    answers = door.workload.answers()
    for user in range(4):
        if ask(connection, door.workload, user_id(FIRST_USER + user), X_Canary="yes") != (200, answers["canary"]):
            raise WrongAnswerError("expected the canary for X-Canary: yes")
    _, seen = ask(connection, door.workload, user_id(0), path="/forwarded-for")
    if not ADDRESS.fullmatch(seen):
        raise WrongAnswerError(f"expected the client's address in X-Forwarded-For, got {seen[:80]!r}")


class _Watch:
    def __init__(self, door: Door) -> None:
        self._door = door
        self._has_ended = threading.Event()
        self.asked = 0
        self.error: Exception | None = None

    def run(self) -> None:
        """Ask again and again, each user twice."""
        try:
            with contextlib.closing(self._door.open()) as connection:
                while True:
                    _arm(connection, self._door, self.asked)
                    self.asked += 2
                    if self._has_ended.wait(PAUSE_S):
                        return
        except (OSError, http.client.HTTPException, WrongAnswerError) as error:
            self.error = error

    def end(self) -> None:
        self._has_ended.set()


@contextlib.contextmanager
def watched(door: Door) -> Iterator[_Watch]:
    """Compare answers while the block loads the peer; ``asked`` of what is yielded counts them afterwards.

    Raises:
        WrongAnswerError: At the block's end, if one was wrong.
    """
    watch = _Watch(door)
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        yield watch
    finally:
        watch.end()
        thread.join()
    if watch.error is not None:
        raise WrongAnswerError(f"under load: {watch.error}") from watch.error
