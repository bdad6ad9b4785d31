"""What stays open over a reload, what is opened, and what is dropped."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.config import ProxySettings
from proxy.document import validate
from proxy.net.openings import ADMIN, METRICS, TRAFFIC, Opening, Openings
from proxy.net.sockets import ListenError, text

LISTEN = {"metrics": {"listen": "127.0.0.1:0"}}


def settings(*addresses: str, workers: int = 1, **changes: Any) -> ProxySettings:
    listeners = [{"address": address} for address in addresses or ("127.0.0.1:0",)]
    return validate(ProxySettings, LISTEN | {"listeners": listeners, "workers": workers} | changes)


@pytest.fixture
def stack() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as opened:
        yield opened


def test_what_is_asked_for_again_stays_the_same_socket(tmp_path: Path, stack: contextlib.ExitStack) -> None:
    """F28: a listening socket is never closed while its address is in the settings."""
    first = Openings(settings(), tmp_path)
    stack.callback(first.close)
    second = Openings(settings(), tmp_path, first.all)
    assert [each.sock for each in second.all] == [each.sock for each in first.all]
    assert (second.fresh, second.dropped) == ([], [])
    assert {each.use.kind for each in second.all} == {TRAFFIC, METRICS, ADMIN}


def test_two_listeners_on_port_0_are_two(tmp_path: Path, stack: contextlib.ExitStack) -> None:
    """They are told apart by their turn; the one that is left keeps its port."""
    first = Openings(settings("127.0.0.1:0", "127.0.0.1:0"), tmp_path)
    stack.callback(first.close)
    assert len(set(first.names())) == 2
    second = Openings(settings(), tmp_path, first.all)
    assert second.names() == first.names()[:1]
    assert [text(each.sock) for each in second.dropped] == first.names()[1:]


def test_more_workers_get_sockets_on_the_same_port(tmp_path: Path, stack: contextlib.ExitStack) -> None:
    """They do not listen before their worker does: nobody must wait in a queue that nobody empties."""
    first = Openings(settings(), tmp_path)
    first.listen()
    stack.callback(first.close)
    second = Openings(settings(workers=3), tmp_path, first.all)
    stack.callback(second.close)
    assert [text(sock) for slot in second.slots() for sock, _ in slot] == first.names() * 3
    asks = [each.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for each in second.fresh]
    assert asks == [0, 0]


def test_sockets_of_workers_that_are_no_more_go_to_all_others(tmp_path: Path, stack: contextlib.ExitStack) -> None:
    """Closing one would reset its queue; more workers later get it back."""
    first = Openings(settings(workers=4), tmp_path)
    stack.callback(first.close)
    second = Openings(settings(workers=2), tmp_path, first.all)
    assert [len(slot) for slot in second.slots()] == [3, 3]
    assert second.dropped == []
    assert len(second.names()) == 1
    third = Openings(settings(workers=4), tmp_path, second.all)
    assert [len(slot) for slot in third.slots()] == [1, 1, 1, 1]
    assert third.fresh == []


def test_a_listener_may_move_to_another_host_of_its_port(tmp_path: Path, stack: contextlib.ExitStack) -> None:
    """The port is taken by ourselves only."""
    first = Openings(settings(), tmp_path)
    stack.callback(first.close)
    port = first.names()[0].rpartition(":")[2]
    second = Openings(settings(f":{port}"), tmp_path, first.all)
    stack.callback(second.close)
    assert f"0.0.0.0:{port}" in second.names()
    assert len(second.dropped) == 1


def test_what_cannot_be_opened_leaves_nothing_open(tmp_path: Path, stack: contextlib.ExitStack) -> None:
    """Neither a socket nor a file; what was open stays."""
    first = Openings(settings(), tmp_path)
    stack.callback(first.close)
    changes = {"metrics": {"listen": "192.0.2.1:0"}, "admin": {"listen": "unix:other.sock"}}
    wanted = settings("127.0.0.1:0", "127.0.0.1:0", **changes)
    with pytest.raises(ListenError, match=r"metrics.listen"):
        Openings(wanted, tmp_path, first.all)
    assert not (tmp_path / "other.sock").exists()
    assert all(each.sock.fileno() >= 0 for each in first.all)


def test_a_dropped_unix_socket_leaves_no_file(tmp_path: Path, stack: contextlib.ExitStack) -> None:
    first = Openings(settings(), tmp_path)
    stack.callback(first.close)
    second = Openings(settings(admin={"listen": "unix:other.sock"}), tmp_path, first.all)
    stack.callback(second.close)
    [dropped] = second.dropped
    assert isinstance(dropped, Opening)
    second.close_dropped()
    assert [path.name for path in tmp_path.glob("*.sock")] == ["other.sock"]
