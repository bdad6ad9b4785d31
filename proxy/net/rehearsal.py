"""A reload's rehearsal: the new version, in a process of its own, checks the new settings and opens what they need.

Whatever can go wrong goes wrong there, while the proxy serves on as before: settings, certificates, keys, token, the
plan in force under the new version, addresses that are taken. What the rehearsal has opened it sends back, so that the
next image of the supervisor has nothing left to do that can be refused.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.document import DocumentError, Fault
from proxy.net import handover
from proxy.net.handover import Handover
from proxy.net.openings import Opening, Openings, Use
from proxy.net.sockets import ListenError
from proxy.net.start import Start
from proxy.plan import Plan

VARIABLE = "COHORT_REHEARSAL"  # in the child: descriptors of the document and of the line back
LIMIT_S = 30.0  # imports on a busy machine; thousands of certificates
BATCH = 200  # descriptors in one message; the kernel takes 253
MESSAGE_BYTES = 200_000  # of one: addresses of that many sockets
SHOWN = 2000  # characters of what a child said on standard error


class RehearsalError(Exception):
    """The reload is refused.

    Attributes:
        faults: Why, one text each, with field paths where a document is to blame.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Prepared:
    """A reload that can be carried out.

    Attributes:
        settings, token, credentials: As of `start.Start`, as documents.
        openings: New ones.
    """

    settings: dict[str, Any]
    token: str | None
    credentials: dict[str, Any]
    openings: list[Opening]


Read = Callable[[Path], Start]


# --- in the supervisor


async def rehearse(document: Handover, command: Sequence[str]) -> Prepared:
    """Have the new version look at the new settings.

    Args:
        document: What it would take over; of that it is given the listening sockets, to look at.
        command: What to execute.

    Raises:
        RehearsalError: The settings are refused, or the new version does not work at all.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    paper = handover.write(document)
    found: list[Opening] = []
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                pass_fds=[paper, theirs.fileno(), *(each.descriptor for each in document.openings)],
                env=os.environ | {VARIABLE: f"{paper}:{theirs.fileno()}"},
            )
        said = await _watch(process, ours, found)
        answer = _answer(paper)
    except OSError as error:
        said, answer = str(error), {}
    finally:
        ours.close()
        os.close(paper)
    if "settings" in answer:
        return Prepared(answer["settings"], answer["token"], answer["credentials"], found)
    for opening in found:
        opening.sock.close()
    raise RehearsalError(answer.get("faults") or [f"the command does not start: {said[-SHOWN:].strip()}"])


def _answer(paper: int) -> dict[str, Any]:
    """What the child wrote over the document; empty if it did not come to that."""
    with os.fdopen(os.dup(paper), "rb") as file:
        file.seek(0)
        found = json.load(file)
    answer: dict[str, Any] = found.get("answer", {})
    return answer


async def _watch(process: asyncio.subprocess.Process, ours: socket.socket, found: list[Opening]) -> str:
    """Take what the child sends until it ends; returns what it said on standard error."""
    try:
        async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(_receive(ours, found))
            _, said = await process.communicate()
    except TimeoutError:
        return f"no answer within {LIMIT_S:g} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return said.decode("utf-8", "replace")


async def _receive(ours: socket.socket, found: list[Opening]) -> None:
    loop = asyncio.get_running_loop()
    while True:
        readable = asyncio.Event()
        loop.add_reader(ours, readable.set)
        try:
            await readable.wait()
        finally:
            loop.remove_reader(ours)
        data, descriptors, _, _ = socket.recv_fds(ours, MESSAGE_BYTES, BATCH)
        if not data:
            return
        found += [
            Opening(Use(*use), socket.socket(fileno=descriptor), inode)
            for (*use, inode), descriptor in zip(json.loads(data), descriptors, strict=True)
        ]


# --- in the child


def is_asked() -> bool:
    """Whether this process is a rehearsal."""
    return VARIABLE in os.environ


def perform(path: Path, read: Read) -> int:
    """Rehearse a start with the settings at a path, and say how it went; returns the exit status.

    Args:
        read: `start.read_start`.
    """
    paper, line = map(int, os.environ.pop(VARIABLE).split(":"))
    document = handover.read(os.dup(paper))
    with socket.socket(fileno=line) as theirs, os.fdopen(paper, "r+b", buffering=0) as file:
        try:
            start, opened = _prepare(path, document, read)
        except DocumentError as error:
            return _say(file, {"faults": [str(fault) for fault in error.faults]})
        except ListenError as error:
            return _say(file, {"faults": [str(error)]})
        for first in range(0, len(opened), BATCH):
            batch = opened[first : first + BATCH]
            told = [(each.use.kind, each.use.address, each.use.turn, each.use.slot, each.inode) for each in batch]
            socket.send_fds(theirs, [json.dumps(told).encode()], [each.sock.fileno() for each in batch])
        settings = start.settings.model_dump(mode="json", by_alias=True)
        return _say(file, {"settings": settings, "token": start.token, "credentials": start.credentials.document()})


def _prepare(path: Path, document: Handover, read: Read) -> tuple[Start, list[Opening]]:
    base = path.absolute().parent
    start = read(path)
    if str((base / start.settings.state_dir).absolute()) != document.state_dir:
        message = (
            f"cannot change while the proxy runs; it is {document.state_dir}. Change it back, or restart the proxy"
        )
        raise DocumentError([Fault("stateDir", message)])
    if document.plan is not None:
        try:
            Plan.model_validate_json(document.plan)
        except ValueError as error:
            raise DocumentError([Fault("", f"this version refuses the plan in force: {error}")]) from None
    return start, Openings(start.settings, base, handover.openings(document.openings)).fresh


def _say(file: io.FileIO, answer: dict[str, Any]) -> int:
    file.truncate(0)
    file.seek(0)
    file.write(json.dumps({"answer": answer}).encode())
    return 1 if "faults" in answer else 0
