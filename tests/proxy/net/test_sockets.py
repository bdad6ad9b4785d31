"""Listening sockets: one a slot and family, and a clear word where a port is taken."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from proxy.net.sockets import ListenError, listen_one, listen_slots, listen_unix, remove_unix, text

HAS_IPV6 = Path("/proc/net/if_inet6").exists()
Keep = Callable[[list[socket.socket]], list[socket.socket]]


@pytest.fixture
def keep() -> Iterator[Keep]:
    """Sockets that are closed after the test."""
    held: list[socket.socket] = []

    def add(sockets: list[socket.socket]) -> list[socket.socket]:
        held.extend(sockets)
        return sockets

    yield add
    for sock in held:
        sock.close()


def test_every_slot_listens_on_one_port_of_both_families(keep: Keep) -> None:
    """An empty host is every address; port 0 is the same free port everywhere."""
    slots = [keep(slot) for slot in listen_slots(":0", 3, "listeners[0].address")]
    names = [sock.getsockname()[:2] for slot in slots for sock in slot]
    assert len({port for _, port in names}) == 1
    assert {host for host, _ in names} == ({"0.0.0.0", "::"} if HAS_IPV6 else {"0.0.0.0"})
    assert [len(slot) for slot in slots] == [2 if HAS_IPV6 else 1] * 3


def test_connections_wait_for_a_worker_that_is_not_there_yet(keep: Keep) -> None:
    """A socket outlives its worker: what is queued is not lost."""
    [[sock]] = [keep(slot) for slot in listen_slots("127.0.0.1:0", 1, "x")]
    with socket.create_connection(sock.getsockname()) as client:
        accepted, _ = sock.accept()
        accepted.close()
        assert client.recv(1) == b""


@pytest.mark.parametrize(
    "listen", [lambda at: listen_slots(at, 2, "listeners[0].address"), lambda at: listen_one(at, "metrics.listen")]
)
def test_a_port_of_another_proxy_of_ours_is_not_shared_without_a_word(
    keep: Keep, listen: Callable[[str], object]
) -> None:
    """SO_REUSEPORT would let two of one user take turns."""
    [[sock]] = [keep(slot) for slot in listen_slots("127.0.0.1:0", 1, "x")]
    with pytest.raises(ListenError, match=r"(listeners\[0\]|metrics).*127.0.0.1:\d+: something else listens there"):
        listen(text(sock))


def test_a_port_taken_in_one_family_only_is_taken(keep: Keep) -> None:
    """Else half of the clients would reach another program."""
    [taken] = keep(listen_one("127.0.0.1:0", "x"))
    with pytest.raises(ListenError, match="something else listens there"):
        listen_slots(f":{taken.getsockname()[1]}", 1, "x")


def test_an_address_of_another_machine_is_told() -> None:
    """TEST-NET-1 is nobody's."""
    with pytest.raises(ListenError, match="does not have that address"):
        listen_slots("192.0.2.1:0", 1, "x")


@pytest.mark.skipif(not HAS_IPV6, reason="no IPv6 here; enable it in the kernel to run this")
def test_ipv6_addresses_are_spelled_with_brackets(keep: Keep) -> None:
    """As the settings write them."""
    [sock] = keep(listen_one("[::1]:0", "x"))
    assert text(sock).startswith("[::1]:")


def test_a_unix_socket_is_for_its_owner_alone(tmp_path: Path, keep: Keep) -> None:
    """C1: mode 0600 from its creation on; the mask of the process is as it was."""
    before = os.umask(0o022)
    os.umask(before)
    [sock] = keep([listen_unix(tmp_path / "admin.sock", "admin.listen")])
    assert (tmp_path / "admin.sock").stat().st_mode & 0o777 == 0o600
    after = os.umask(before)
    assert after == before
    assert text(sock) == f"unix:{tmp_path}/admin.sock"


def test_a_socket_file_that_nobody_listens_on_is_replaced(tmp_path: Path, keep: Keep) -> None:
    """After a SIGKILL it is still there."""
    path = tmp_path / "admin.sock"
    listen_unix(path, "x").close()
    keep([listen_unix(path, "x")])
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


@pytest.mark.parametrize("what", ["listener", "file"])
def test_a_socket_in_use_and_a_file_in_the_way_are_left_alone(tmp_path: Path, keep: Keep, what: str) -> None:
    """Nothing of anybody else is removed."""
    path = tmp_path / "admin.sock"
    if what == "file":
        path.write_text("mine")
    else:
        keep([listen_unix(path, "x")])
    with pytest.raises(ListenError, match=r"admin.listen: .*(another process listens|no socket is in the way)"):
        listen_unix(path, "admin.listen")
    assert path.exists()


def test_a_path_that_is_too_long_is_told(tmp_path: Path) -> None:
    """The kernel takes 107 bytes."""
    with pytest.raises(ListenError, match="too long"):
        listen_unix(tmp_path / ("x" * 120), "admin.listen")


def test_only_our_own_socket_file_is_removed_at_the_end(tmp_path: Path, keep: Keep) -> None:
    """Another proxy may have its own there by now."""
    path = tmp_path / "admin.sock"
    keep([listen_unix(path, "x")])
    made = path.stat().st_ino
    path.rename(tmp_path / "moved")
    remove_unix(path, made)
    path.write_text("another's")
    remove_unix(path, made)
    assert path.exists()
    (tmp_path / "moved").rename(path)
    remove_unix(path, made)
    assert not path.exists()
