"""Connections that have been used once and then wait: what each of them costs."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from tests.bench.client import TIMEOUT_S, Door, WrongAnswerError
from tests.bench.workload import user_id


@contextlib.contextmanager
def waiting(door: Door, number: int) -> Iterator[list[socket.socket]]:
    """Open connections that have each had one answer; all of them are still open at the block's end.

    Raises:
        WrongAnswerError: Not the backend's answer, or a connection that the peer closed.
    """
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(_used_once(door, user_id(user))) for user in range(number)]
        yield sockets
        for client in sockets:
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                raise WrongAnswerError(f"an idle connection was closed: {client.recv(100)!r}")


@contextlib.contextmanager
def _used_once(door: Door, user: str) -> Iterator[socket.socket]:
    bodies = tuple(door.workload.answers().values())
    with socket.create_connection(("127.0.0.1", door.port), timeout=TIMEOUT_S) as client:
        client.sendall(door.workload.request(user))
        answer = b""
        while not answer.endswith(bodies):
            data = client.recv(65_536)
            if not data:
                raise WrongAnswerError(f"expected a backend's answer, got {answer[-200:]!r}")
            answer += data
        yield client
