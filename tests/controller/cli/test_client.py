"""The client of the controller's API: what comes back, and what is said when nothing useful does."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.cli import client as client_module
from controller.cli.client import Client
from controller.cli.exits import NotReachable, Refused, TimedOut, WrongUse
from tests.controller.cli.conftest import Run
from tests.support.fake_controller import FakeController

JSON = b"Content-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("status", "body", "error", "text"),
    [
        (401, {"error": "no token"}, Refused, "Give it by --token-file"),
        (403, {"error": "host 'x' is not this controller's"}, Refused, "^host 'x' is not this controller's$"),
        (429, {"error": "too many requests"}, Refused, "^too many requests$"),
        (404, {"error": "there is no rollout a/b"}, WrongUse, "there is no rollout a/b. 'cohort get -A' lists"),
        (404, {"detail": "nginx"}, NotReachable, "expected an answer of a cohort controller"),
        (409, {"error": "no revision is on trial"}, Refused, "^no revision is on trial$"),
        (422, {"error": "weight is above 100"}, WrongUse, "weight is above 100"),
        (422, {"faults": [{"path": "weight", "message": "above 100"}]}, WrongUse, "^weight: above 100$"),
        (500, {"error": "disk full"}, NotReachable, "got status 500: disk full. Its log says more"),
        (302, {}, NotReachable, "got status 302. Check --server"),
        (200, ["a"], NotReachable, "application/json that is no JSON object"),
    ],
)
def test_each_answer_means_one_exit(
    controller: FakeController, status: int, body: object, error: type[Exception], text: str
) -> None:
    """surface.md: 1 refused, 2 wrong use, 3 not reachable; never a traceback."""
    controller.script.append((status, body))
    with pytest.raises(error, match=text):
        Client(controller.url).rollout("a", "b")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\r\n" + JSON + b"\r\n{",
        b"HTTP/1.1 200 OK\r\n" + JSON + b"\r\n\xff",
        b"HTTP/1.1 200 OK\r\n" + JSON + b'Content-Length: 40\r\n\r\n{"items": []',
        b"HTTP/1.1 200 OK\r\n" + JSON + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\n" + JSON + b'\r\n{"items": [1]}',
        b"HTTP/1.1 200 OK\r\n" + JSON + b'\r\n{"items": 1}',
        b"HTTP/1.1 200 OK\r\n" + JSON + b"\r\n{}",
        b"HTTP/1.1 200 OK\r\n" + JSON + b"\r\n" + b"[" * 100_000,
    ],
    ids=range(11),
)
def test_whatever_else_listens_there_is_told_as_not_reachable(controller: FakeController, answer: bytes) -> None:
    """Another program on the port, a proxy's error page, a controller that dies while it answers."""
    controller.script.append(answer)
    with pytest.raises(NotReachable, match=r"http://127\.0\.0\.1:\d+"):
        Client(controller.url).rollouts(None)


def test_an_answer_without_end_is_not_read_to_its_end(
    controller: FakeController, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limits on everything that a peer can make big."""
    monkeypatch.setattr(client_module, "MAX_ANSWER_BYTES", 1000)
    controller.script.append(b"HTTP/1.1 200 OK\r\n" + JSON + b"\r\n" + b" " * 2000)
    with pytest.raises(NotReachable, match="more than 1000 bytes"):
        Client(controller.url).rollouts(None)


def test_nobody_there_is_told_with_what_to_do(free_port: Callable[[], int]) -> None:
    """surface.md: exit 3 not reachable; what was expected, what came, what to do."""
    with pytest.raises(NotReachable, match=r"Connection refused\. Start one with 'cohort controller --config FILE'"):
        Client(f"http://127.0.0.1:{free_port()}").rollouts(None)


@pytest.mark.parametrize("dribble", [b"", b"HTTP/1.1 200 OK\r\nX: "], ids=["silent", "dribbling"])
def test_the_deadline_holds_for_the_whole_answer(dribble: bytes) -> None:
    """house-style.md: every await on a peer has a deadline; one byte now and then does not stretch it."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(dribble)
                while not over.wait(0.05):
                    connection.sendall(dribble and b"x")

        thread = threading.Thread(target=serve)
        thread.start()
        started = time.monotonic()
        with pytest.raises(TimedOut, match=r"has not answered within 0\.3 s"):
            Client(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.3).rollouts(None)
        assert time.monotonic() - started < 3
        over.set()
        thread.join()


def test_an_action_that_was_not_answered_may_have_happened() -> None:
    """The error says so: sending it again blindly could be wrong."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        pytest.raises(TimedOut, match="It may still be carried out: look with 'cohort status'"),
    ):
        Client(f"http://127.0.0.1:{server.getsockname()[1]}", timeout_s=0.1).act("a", "b", {})


@pytest.mark.parametrize(
    "server",
    [
        "127.0.0.1:8090",
        "localhost",
        "ftp://127.0.0.1",
        "http://",
        "http://127.0.0.1:99999",
        "http://127.0.0.1:x",
        "http://[::1",
        "http://user:secret@127.0.0.1",
        "http://127.0.0.1/?x=1",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/\r\nX: y",
        "http://ü.example/",
        "",
    ],
)
def test_an_address_that_is_none_is_wrong_use(server: str) -> None:
    """surface.md: exit 2; the error shows a right one."""
    with pytest.raises(WrongUse, match=r"expected a controller's address such as http://127\.0\.0\.1:8090"):
        Client(server)


def test_a_path_in_the_address_is_a_prefix(controller: FakeController) -> None:
    """A controller behind a path of an ingress; names are escaped."""
    controller.script.append((200, {}))
    Client(f"{controller.url}/cohort/").rollout("a/b", "c?d")
    assert controller.asked == [("GET", "/cohort/api/v1/rollouts/a%2Fb/c%3Fd")]


def test_the_token_of_a_file_is_sent(controller: FakeController, run: Run, tmp_path: Path) -> None:
    """`--token-file`, COHORT_TOKEN_FILE; the newline at its end is none of it."""
    controller.token = "s3cret"
    (tmp_path / "token").write_text("s3cret\n")
    assert run("get").code == 1
    assert run("get", "--token-file", str(tmp_path / "token")).code == 0


@pytest.mark.parametrize("content", [None, b"", b"a\r\nX-Evil: 1", b"\xff", b"a" * 9000], ids=range(5))
def test_a_token_file_without_a_token_is_told(
    controller: FakeController, run: Run, tmp_path: Path, content: bytes | None
) -> None:
    """What cannot be a token never goes into a header."""
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    result = run("get", "--token-file", str(tmp_path / "token"))
    assert result.code == 2
    assert str(tmp_path) in result.err
    assert controller.asked == []
