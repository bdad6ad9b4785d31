"""Listening sockets: made once by the supervisor, one a worker slot and address, and open as long as the service lives.

Every slot has sockets of its own (SO_REUSEPORT), between which the kernel deals new connections. Closing one resets the
connections queued on it, so a worker that dies leaves its sockets, and the queue, to the next worker of its slot.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from pathlib import Path

from proxy.config import host_port

BACKLOG = 4096  # new connections that may wait while a worker is replaced; the kernel cuts it to net.core.somaxconn
_Place = tuple[socket.AddressFamily, str, int]
_ATTEMPTS = 20  # at a port that is free in both families, where the kernel chooses


class ListenError(Exception):
    """An address cannot be listened on; the message says what to do."""


def listen_slots(address: str, slots: int, what: str) -> list[list[socket.socket]]:
    """Listening sockets for every slot; otherwise as `bind_slots`."""
    found = bind_slots(address, slots, what)
    made = [sock for of_slot in found for sock in of_slot]
    try:
        for sock in made:
            sock.listen(BACKLOG)
    except OSError as error:
        for sock in made:
            sock.close()
        raise _refused(address, what, error) from None
    return found


def bind_slots(address: str, slots: int, what: str, is_ours: bool = False) -> list[list[socket.socket]]:
    """Sockets for every slot that do not listen yet: a client is refused, not left waiting.

    Args:
        address: A `config.Listen`; an empty host is every address of both families, port 0 any free port.
        what: The field of the settings, for messages.
        is_ours: This proxy listens on the port already, under another address.

    Returns:
        For each slot its sockets, one a family. All have one port.

    Raises:
        ListenError: The address is not ours or is in use.
    """
    try:
        return _bind_slots(_free_places(address, is_ours), slots)
    except OSError as error:
        raise _refused(address, what, error) from None


def bind_more(like: list[socket.socket], slots: int, what: str) -> list[list[socket.socket]]:
    """Sockets for further slots beside those of one, ``like``; otherwise as `bind_slots`."""
    try:
        return _bind_slots([(sock.family, *sock.getsockname()[:2]) for sock in like], slots)
    except OSError as error:
        raise _refused(text(like[0]), what, error) from None


def _bind_slots(places: list[_Place], slots: int) -> list[list[socket.socket]]:
    made: list[socket.socket] = []
    try:
        for _ in range(slots):
            made += [_bind(place, reuse_port=True) for place in places]
    except OSError:
        for sock in made:
            sock.close()
        raise
    return [made[index : index + len(places)] for index in range(0, len(made), len(places))]


def listen_one(address: str, what: str) -> list[socket.socket]:
    """Listening sockets of the supervisor itself, one a family; otherwise as `listen_slots`."""
    made: list[socket.socket] = []
    try:
        for place in _free_places(address):
            made.append(_bind(place, reuse_port=False))
            made[-1].listen(128)
    except OSError as error:
        for sock in made:
            sock.close()
        raise _refused(address, what, error) from None
    return made


def _free_places(address: str, is_ours: bool = False) -> list[_Place]:
    """Family, host and port of each address, after seeing that nobody else listens there.

    With SO_REUSEPORT two proxies of one user would share a port without a word, so it is bound without that first.
    """
    host, port = host_port(address)
    for attempt in range(_ATTEMPTS):
        held: list[socket.socket] = []
        places: list[_Place] = []
        chosen = port
        try:
            for family, name in _families(host):
                try:
                    held.append(_bind((family, name, chosen), reuse_port=is_ours))
                except OSError as error:
                    if not host and family == socket.AF_INET6 and error.errno in _NO_IPV6:
                        continue
                    raise
                chosen = held[-1].getsockname()[1]
                places.append((family, name, chosen))
            return places
        except OSError as error:
            if port or error.errno != errno.EADDRINUSE or attempt + 1 == _ATTEMPTS:
                raise
        finally:
            for sock in held:
                sock.close()
    raise AssertionError


_NO_IPV6 = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)


def _families(host: str) -> list[tuple[socket.AddressFamily, str]]:
    if not host:
        return [(socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]  # noqa: S104  # what an empty host asks for
    return [(socket.AF_INET6 if ":" in host else socket.AF_INET, host)]


def _bind(place: _Place, *, reuse_port: bool) -> socket.socket:
    family, host, port = place
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not hinder a restart
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def _refused(address: str, what: str, error: OSError) -> ListenError:
    hints = {
        errno.EADDRINUSE: "something else listens there. Stop it, or choose another port",
        errno.EADDRNOTAVAIL: "this machine does not have that address",
        errno.EACCES: "this user may not listen on that port. Choose one above 1023",
    }
    return ListenError(f"{what}: cannot listen on {address}: {hints.get(error.errno or 0, error.strerror)}")


def listen_unix(path: Path, what: str) -> socket.socket:
    """A listening Unix socket with mode 0600. A socket file that nobody listens on any more is replaced.

    Raises:
        ListenError: Somebody listens there, there is another file, or it cannot be made.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        _remove_stale(path)
        before = os.umask(0o177)  # at creation: between bind and chmod anybody could connect
        try:
            sock.bind(str(path))
        finally:
            os.umask(before)
        sock.listen(128)
    except OSError as error:
        sock.close()
        reason = error.strerror or str(error)  # a path that is too long has only a text
        raise ListenError(f"{what}: cannot listen on unix:{path}: {reason}") from None
    return sock


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "a file that is no socket is in the way. Move it, or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except BlockingIOError:
            pass  # a full queue: somebody listens
    raise OSError(errno.EADDRINUSE, "another process listens there. Stop it, or choose another path")


def remove_unix(path: Path, inode: int) -> None:
    """Remove the file of a Unix socket, unless another process has put its own there since it was made."""
    try:
        if path.lstat().st_ino == inode:
            path.unlink()
    except OSError:
        pass  # gone already, or its directory is


def text(sock: socket.socket) -> str:
    """Where a socket listens: ``127.0.0.1:8080``, ``[::1]:8080`` or ``unix:PATH``."""
    name = sock.getsockname()
    if isinstance(name, str):
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"
