"""What one image of the supervisor leaves to the next over exec: open descriptors, and a document about them.

A reload and an upgrade are the same: the supervisor executes its own command anew, with the process id that it has, and
the new image finds here what it must not lose. Workers stay its children, sockets stay open, the memory stays. Images
of two versions may meet over it: fields are added, never changed, and each has a default.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.config import ProxySettings
from proxy.document import validate
from proxy.net.credentials import Credentials
from proxy.net.openings import Opening, Use
from proxy.net.start import Start

VARIABLE = "COHORT_HANDOVER"  # the document's descriptor


@dataclass(frozen=True, slots=True)
class OpeningRecord:
    """One listening socket; fields as of `openings.Use` and `openings.Opening`."""

    kind: str
    address: str
    turn: int
    slot: int
    descriptor: int
    inode: int = 0


@dataclass(frozen=True, slots=True)
class WorkerRecord:
    """One worker.

    Attributes:
        line: Descriptor of the line to it.
        memory: Descriptor of the memory that it has mapped.
        staged: Sequence of the last plan that it acknowledged.
        ends_at: Monotonic seconds at which it is ended, if it has been told to retire; else None: it serves.
    """

    pid: int
    line: int
    memory: int
    place: int
    staged: int
    ends_at: float | None = None


@dataclass(frozen=True, slots=True)
class Handover:
    """The document.

    Attributes:
        pid: Of both images.
        settings, token, credentials: What the new version has read, as of `start.Start`; empty in the document of a
            rehearsal.
        state_dir: Absolute. ``lock`` is the descriptor that holds it.
        memory: Descriptor of the shared memory in use.
        plan: The document in force, as JSON; None: there is none. ``sequence`` is what workers know it by.
        plan_file: Absolute, None if there is none.
        latch: The abort that stands, as its document.
        rejected: Plans refused so far, by reason. ``reloads`` likewise: reloads so far by how they ended.
        credentials_refused: How often changed certificates and keys were.
        trips: How often the local breaker has aborted, by arm.
        dropped: Log lines of the supervisor that were lost.
        discovery: What is known of endpoints beside the plan, as `discovery.Discovery.known` returns it.
        level: The log's, if it was set while the proxy ran; ``settings_level`` is what the settings said then.
        is_asked_again: A further reload was asked for while this one was under way.
    """

    pid: int
    boot: str
    state_dir: str
    lock: int
    memory: int
    openings: tuple[OpeningRecord, ...] = ()
    workers: tuple[WorkerRecord, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    token: str | None = None
    credentials: dict[str, Any] = field(default_factory=dict)
    plan: str | None = None
    sequence: int = 0
    plan_since_s: float = 0.0
    plan_file: str | None = None
    latch: dict[str, Any] | None = None
    latch_stored: bool = True
    rejected: dict[str, int] = field(default_factory=dict)
    reloads: dict[str, int] = field(default_factory=dict)
    credentials_refused: int = 0
    trips: dict[str, int] = field(default_factory=dict)
    dropped: int = 0
    discovery: dict[str, Any] = field(default_factory=dict)
    level: str | None = None
    settings_level: str = ""
    is_asked_again: bool = False

    def start(self) -> Start:
        """What the rehearsal read, so that nothing has to be read again."""
        return Start(validate(ProxySettings, self.settings), self.token, Credentials.parse(self.credentials))

    def descriptors(self) -> set[int]:
        """All that must stay open over exec, but for the document's own."""
        workers = {descriptor for worker in self.workers for descriptor in (worker.line, worker.memory)}
        return {self.lock, self.memory, *workers, *(opening.descriptor for opening in self.openings)}


def write(document: Handover) -> int:
    """A descriptor, not yet inheritable, from which `read` reads the document."""
    descriptor = os.memfd_create("cohort-handover", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(json.dumps(dataclasses.asdict(document)).encode())
    return descriptor


def read(descriptor: int) -> Handover:
    """The document behind a descriptor, which is closed; what a later version added is left out.

    Raises:
        OSError: There is no such descriptor.
        ValueError: It is no document of ours.
    """
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        found = json.load(file)
    try:
        openings = tuple(_known(OpeningRecord, record) for record in found.pop("openings"))
        workers = tuple(_known(WorkerRecord, record) for record in found.pop("workers"))
        document: Handover = _known(Handover, found | {"openings": openings, "workers": workers})
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"no handover: {error}") from None
    return document


def _known(kind: type[Any], record: dict[str, Any]) -> Any:
    names = {each.name for each in dataclasses.fields(kind)}
    return kind(**{name: value for name, value in record.items() if name in names})


def take() -> Handover | None:
    """What the image before this one left, None at a first start; to be called once, before children are started."""
    text = os.environ.pop(VARIABLE, None)
    if text is None:
        return None
    document = read(int(text))
    if document.pid != os.getpid():
        return None  # somebody's child inherited the variable, not the descriptors
    for descriptor in document.descriptors():
        os.set_inheritable(descriptor, False)
    return document


def records(openings: Iterable[Opening]) -> tuple[OpeningRecord, ...]:
    """For the document."""
    return tuple(
        OpeningRecord(use.kind, use.address, use.turn, use.slot, opening.sock.fileno(), opening.inode)
        for opening in openings
        for use in [opening.use]
    )


def openings(found: Iterable[OpeningRecord]) -> list[Opening]:
    """From the document; each descriptor belongs to its socket from then on."""
    return [
        Opening(
            Use(record.kind, record.address, record.turn, record.slot),
            socket.socket(fileno=record.descriptor),
            record.inode,
        )
        for record in found
    ]


def command() -> list[str]:
    """What this process was started with, to be executed again.

    A script is executed by its own first line: after an upgrade that may name another interpreter.
    """
    script = sys.orig_argv[1] if len(sys.orig_argv) > 1 else ""
    if sys.argv and script == sys.argv[0] and "/" in script and os.access(script, os.X_OK) and Path(script).is_file():
        return sys.orig_argv[1:]
    return [sys.executable, *sys.orig_argv[1:]]


def execute(document: Handover) -> None:
    """Become the next image.

    Raises:
        OSError: The command cannot be executed; all is as before.
    """
    own = write(document)
    kept = [own, *document.descriptors()]
    arguments = command()
    try:
        for descriptor in kept:
            os.set_inheritable(descriptor, True)
        os.execve(arguments[0], arguments, os.environ | {VARIABLE: str(own)})  # noqa: S606  # that is the point
    finally:
        for descriptor in kept:
            os.set_inheritable(descriptor, False)
        os.close(own)
