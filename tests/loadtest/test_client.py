"""The client of one user against scripted servers: what is a whole answer, what is lost, and what is asked again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from loadtest.client import Connection, LostError, SharedConnections, resolve

OK = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"


class Script:
    """A server that gives each connection its list of answers, one a request, and then closes it."""

    def __init__(self, *connections: list[bytes]) -> None:
        self.heads: list[bytes] = []
        self.closed = threading.Semaphore(0)
        self._connections = connections
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Script:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)

    def _serve(self) -> None:
        for answers in self._connections:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(2)
                for answer in answers:
                    self.heads.append(self._head(connection))
                    connection.sendall(answer)
                    if answer == b"":
                        connection.recv(1)  # silence until the client gives up
            self.closed.release()

    @staticmethod
    def _head(connection: socket.socket) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65_536)
            if not more:
                raise OSError
            data += more
        return data


@pytest.fixture
def connections() -> Iterator[list[Connection]]:
    made: list[Connection] = []
    yield made
    for connection in made:
        connection.close()


def connect(script: Script, made: list[Connection], timeout_s: float = 5.0) -> Connection:
    made.append(Connection(("127.0.0.1", script.port), f"127.0.0.1:{script.port}", timeout_s))
    return made[-1]


@pytest.mark.parametrize(
    ("method", "answer", "status", "body"),
    [
        pytest.param("GET", OK, 200, b"ok", id="length"),
        pytest.param("GET", CHUNKED, 200, b"ok", id="chunked"),
        pytest.param("GET", b"HTTP/1.1 200 OK\r\n\r\nok", 200, b"ok", id="until close"),
        pytest.param("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", id="no body"),
        pytest.param("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, b"", id="head"),
        pytest.param("POST", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK, 200, b"ok", id="interim"),
        pytest.param("GET", b"HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n", 503, b"", id="error"),
    ],
)  # fmt: skip
def test_whole_answers(connections: list[Connection], method: str, answer: bytes, status: int, body: bytes) -> None:
    """RFC 9112 section 6: each framing has its end."""
    with Script([answer]) as script:
        reply = connect(script, connections).exchange(method, "/a", {"X-B": "3"})
    assert (reply.status, reply.body) == (status, body)
    assert script.heads[0].startswith(f"{method} /a HTTP/1.1\r\nHost: 127.0.0.1:{script.port}\r\nX-B: 3\r\n".encode())


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "truncated", id="short of its length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", "truncated", id="in a chunk"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "truncated", id="no last chunk"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", "truncated", id="in the head"),
        pytest.param(b"SSH-2.0-OpenSSH\r\n", "protocol", id="no HTTP"),
        pytest.param(b"", "timeout", id="silence"),
    ],
)
def test_lost_answers(connections: list[Connection], answer: bytes, cause: str) -> None:
    """Truncation is no success, whatever the framing."""
    with Script([answer]) as script, pytest.raises(LostError) as lost:
        connect(script, connections, timeout_s=0.2).exchange("GET", "/", {})
    assert lost.value.cause == cause


def test_a_connection_is_kept_until_one_side_closes(connections: list[Connection]) -> None:
    """As browsers do."""
    with Script([OK, OK], [LAST], [OK]) as script:
        connection = connect(script, connections)
        for _ in range(2):
            assert connection.exchange("GET", "/", {}).fields["x-a"] == ["1", "2"]
        for _ in range(2):  # seen to have ended before anything is sent, so that even a POST is not lost
            script.closed.acquire(timeout=5)
            assert connection.exchange("POST", "/", {}).status == 200
    assert len(script.heads) == 4


@pytest.mark.parametrize(("method", "heads"), [("GET", 3), ("POST", 2)])
def test_a_request_that_a_kept_connection_swallowed(connections: list[Connection], method: str, heads: int) -> None:
    """RFC 9112 section 9.3.1: an idempotent one is sent once more on a new connection, another is lost."""

    class Swallow(Script):
        def _serve(self) -> None:
            connection, _ = self._server.accept()
            with connection:
                self.heads.append(self._head(connection))
                connection.sendall(OK)
                self.heads.append(self._head(connection))
            super()._serve()

    with Swallow([OK]) as script:
        connection = connect(script, connections)
        connection.exchange("GET", "/", {})
        if method == "GET":
            assert connection.exchange(method, "/", {}).status == 200
        else:
            with pytest.raises(LostError) as lost:
                connection.exchange(method, "/", {})
            assert lost.value.cause == "closed"
    assert len(script.heads) == heads


def test_a_new_connection_that_ends_is_not_tried_again(connections: list[Connection]) -> None:
    """Only a kept connection may have ended by chance."""
    with Script([], [OK]) as script, pytest.raises(LostError) as lost:
        connect(script, connections).exchange("GET", "/", {})
    assert lost.value.cause == "closed"


def test_nobody_listens(connections: list[Connection]) -> None:
    """Refused is lost."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    connections.append(Connection(("127.0.0.1", port), "x", 1.0))
    with pytest.raises(LostError) as lost:
        connections[0].exchange("GET", "/", {})
    assert lost.value.cause == "connect"


def test_shared_connections(connections: list[Connection]) -> None:
    """The one used last is used next, because it is the most likely to be open still."""
    with Script([OK, OK, OK]) as script:
        shared = SharedConnections([connect(script, connections) for _ in range(3)])
        for _ in range(3):
            assert shared.exchange("GET", "/", {}).status == 200
    assert len(script.heads) == 3


def test_resolve() -> None:
    """Once a run, so that no look-up slows a request."""
    assert resolve("127.0.0.1", 80) == ("127.0.0.1", 80)
    assert resolve("::1", 80)[0] == "::1"
