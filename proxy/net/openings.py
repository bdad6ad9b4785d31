"""Every listening socket of one proxy by what it is for, so that a reload keeps those that stay and opens what is new.

A socket that clients may be queued on is never closed while its address is in the settings, even if there are fewer
workers than before: closing one of SO_REUSEPORT resets its queue. What is left over then is accepted by every worker.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from proxy.config import ProxySettings, host_port
from proxy.net.sockets import (
    BACKLOG,
    bind_more,
    bind_slots,
    listen_one,
    listen_unix,
    remove_unix,
    text,
)

TRAFFIC, METRICS, ADMIN, CONTROL = "listeners", "metrics", "admin", "control"


@dataclass(frozen=True, slots=True)
class Use:
    """What a socket is for.

    Attributes:
        kind: A field of the settings: listeners, metrics, admin or control.
        address: As the settings write it.
        turn: The how-manieth listener of this address, from 0: port 0 may be there twice.
        slot: Of the worker; 0 for sockets of the supervisor itself.
    """

    kind: str
    address: str
    turn: int = 0
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Opening:
    """One listening socket.

    Attributes:
        inode: Of a Unix socket's file, so that nobody else's is removed; 0 for others.
    """

    use: Use
    sock: socket.socket
    inode: int = 0

    def close(self, base: Path) -> None:
        """Close it, and remove a Unix socket's file."""
        if self.inode:
            remove_unix(base / self.use.address.removeprefix("unix:"), self.inode)
        self.sock.close()


class Openings:
    """All sockets that settings ask for.

    Attributes:
        all: Those that were there before and are still wanted, and new ones.
        dropped: Those that were there before and are not wanted any more; still open.
        fresh: New ones, of `all`.

    Args:
        base: The directory that relative paths start from.
        before: What is open already.

    Raises:
        ListenError: An address cannot be listened on; nothing new stays open.
    """

    def __init__(self, settings: ProxySettings, base: Path, before: Iterable[Opening] = ()) -> None:
        self.all: list[Opening] = []
        self.fresh: list[Opening] = []
        self._settings = settings
        self._base = base
        self._before: dict[Use, list[Opening]] = {}
        known = list(before)
        for opening in known:
            self._before.setdefault(opening.use, []).append(opening)
        self._ports = {_port(opening.sock) for opening in known if opening.use.kind == TRAFFIC}
        with ExitStack() as stack:
            stack.callback(self._close_fresh)
            for use, index in self._listeners():
                self._open_listener(use, f"listeners[{index}].address")
            self._open_own(Use(METRICS, settings.metrics.listen), "metrics.listen")
            self._open_own(Use(ADMIN, settings.admin.listen), "admin.listen")
            if settings.control.listen:
                self._open_own(Use(CONTROL, settings.control.listen), "control.listen")
            stack.pop_all()
        self.dropped = [opening for openings in self._before.values() for opening in openings]

    def listen(self) -> None:
        """Have clients wait for workers that are not there yet; at a first start, not where others serve."""
        for opening in self.all:
            if opening.use.kind == TRAFFIC:
                opening.sock.listen(BACKLOG)

    def close(self) -> None:
        """Close all."""
        for opening in [*self.all, *self.dropped]:
            opening.close(self._base)

    def close_dropped(self) -> None:
        """Close those that are not wanted any more."""
        for opening in self.dropped:
            opening.close(self._base)
        self.dropped = []

    def own(self, kind: str) -> list[socket.socket]:
        """The supervisor's sockets of one kind."""
        return [opening.sock for opening in self.all if opening.use.kind == kind]

    def slots(self) -> list[list[tuple[socket.socket, int]]]:
        """The sockets of each slot, each with the index of its listener in the settings."""
        found: list[list[tuple[socket.socket, int]]] = [[] for _ in range(self._settings.workers)]
        indexes = {(use.address, use.turn): index for use, index in self._listeners()}
        for opening in self.all:
            if opening.use.kind == TRAFFIC:
                entry = (opening.sock, indexes[(opening.use.address, opening.use.turn)])
                is_left_over = opening.use.slot >= len(found)
                for slot in found if is_left_over else [found[opening.use.slot]]:
                    slot.append(entry)
        return found

    def names(self) -> list[str]:
        """Where clients are taken, in the order of the settings."""
        order = {(use.address, use.turn): index for use, index in self._listeners()}
        first = [opening for opening in self.all if opening.use.kind == TRAFFIC and opening.use.slot == 0]
        first.sort(key=lambda opening: order[(opening.use.address, opening.use.turn)])
        return [text(opening.sock) for opening in first]

    def _listeners(self) -> list[tuple[Use, int]]:
        """Each listener's use, its turn counted, and its index in the settings."""
        seen: dict[str, int] = {}
        found = []
        for index, listener in enumerate(self._settings.listeners):
            turn = seen.get(listener.address, 0)
            seen[listener.address] = turn + 1
            found.append((Use(TRAFFIC, listener.address, turn), index))
        return found

    def _open_listener(self, use: Use, what: str) -> None:
        kept = [known for known in self._before if (known.kind, known.address, known.turn) == (use.kind, *_place(use))]
        like: list[socket.socket] = []
        for known in sorted(kept, key=lambda known: known.slot):
            openings = self._before.pop(known)
            like = like or [opening.sock for opening in openings]
            self.all += openings
        slots = sorted({*range(self._settings.workers)} - {known.slot for known in kept})
        if like:
            made = bind_more(like, len(slots), what)
        else:
            made = bind_slots(use.address, len(slots), what, is_ours=host_port(use.address)[1] in self._ports)
        for slot, sockets in zip(slots, made, strict=True):
            self._add(Opening(Use(use.kind, use.address, use.turn, slot), sock) for sock in sockets)

    def _open_own(self, use: Use, what: str) -> None:
        if use in self._before:
            self.all += self._before.pop(use)
        elif use.address.startswith("unix:"):
            path = self._base / use.address.removeprefix("unix:")
            sock = listen_unix(path, what)
            self._add([Opening(use, sock, path.stat().st_ino)])
        else:
            self._add(Opening(use, sock) for sock in listen_one(use.address, what))

    def _add(self, openings: Iterable[Opening]) -> None:
        added = list(openings)
        self.all += added
        self.fresh += added

    def _close_fresh(self) -> None:
        for opening in self.fresh:
            opening.close(self._base)


def _place(use: Use) -> tuple[str, int]:
    return use.address, use.turn


def _port(sock: socket.socket) -> int:
    return int(sock.getsockname()[1])
