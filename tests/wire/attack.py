"""Bytes that nobody knows the right answer to: the proxy must read them as a strict reader does, or refuse them.

The oracle is a comparison. A strict reader takes apart what the client sends; what reaches the service must be some of
these very requests in this order, each answer must be the one to its request, and the invariants of all cases hold.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.wire import oracle
from tests.wire.case import Case, Outcome
from tests.wire.client import Client
from tests.wire.lenient import Seen
from tests.wire.oracle import Evidence
from tests.wire.run import probe
from tests.wire.stand import Stand
from tests.wire.strict import ClientRequestReader, Message

END_S = 5.0  # for the proxy to answer and close once the client has said that it is done
SETTLE_S = 3.0
SEGMENT_S = 0.001  # between two segments, so that they arrive apart
CASE = Case(id="attack", class_="attack", sev="must", why="", send=(), expect=(Outcome((200,)),))


@dataclass(frozen=True)
class Attack:
    """What a client sends before it closes its side: segments that are written one by one."""

    segments: tuple[bytes, ...]

    @property
    def data(self) -> bytes:
        """All of it."""
        return b"".join(self.segments)

    def with_data(self, data: bytes) -> Attack:
        """Other bytes in its place."""
        return Attack((data,))

    def fields(self) -> dict[str, Any]:
        """As a case has it: the client may get less than a strict reader finds in its bytes, never more."""
        reader = ClientRequestReader()
        reader.feed(self.data)
        complete = sum(message.complete for message in reader.messages)
        send: list[object] = [segment.decode("latin-1") for segment in self.segments]
        outcome = {
            "status": [200, 204, 400, 405, 414, 417, 431, 501, 505, 0],
            "responses": {"min": 0, "max": len(reader.messages) + 1},
            "connection": "close",
            "upstream_sees": {"min": 0, "max": complete},
        }
        return {"send": [*send, {"do": "shut_wr"}], "expect": [outcome]}


async def attack(stand: Stand, given: Attack) -> list[str]:
    """Send it, and return what the proxy did wrong."""
    changed = asyncio.Event()
    for service in stand.services.values():
        service.changed = changed
        service.begin(None, is_fresh=False)
    evidence = Evidence(CASE, [], list(stand.services.values()), before=await stand.metrics())
    client = await Client.connect(stand.port, changed)
    evidence.clients = [client]
    try:
        for number, segment in enumerate(given.segments):
            if number:
                await asyncio.sleep(SEGMENT_S)
            await client.link.write(segment)
        client.link.do("shut_wr")
        await _until_over(client)
        found = [] if client.is_over else [f"not closed within {END_S:g} s"]
    finally:
        await client.close()
    await settle(stand, evidence)
    evidence.log = stand.new_log()
    found += differences(given.data, evidence) + oracle.lasting(evidence)
    if not stand.is_alive:
        found.append("I7: the proxy or its worker has ended")
    return found + await probe(stand)


async def _until_over(client: Client) -> None:
    try:
        async with asyncio.timeout(END_S):
            while not client.is_over:
                client.changed.clear()
                await client.changed.wait()
    except TimeoutError:
        pass


async def settle(stand: Stand, evidence: Evidence) -> None:
    """Wait until the proxy has closed and counted what it has to."""
    for _ in range(int(SETTLE_S / 0.05)):
        evidence.after = await stand.metrics()
        if not oracle.unsettled(evidence):
            return
        await asyncio.sleep(0.05)


def differences(data: bytes, evidence: Evidence) -> list[str]:
    """Where the proxy read something else than a strict reader of the same bytes."""
    reader = ClientRequestReader()
    reader.feed(data)
    told = [_origin(message) for message in reader.messages if message.complete]
    arrived = [message for service in evidence.services for message in service.arrived]
    seen = [Seen.of(message) for message in arrived if message.complete]
    found = []
    if not _is_part(seen, told):
        found.append(f"reading: the service read {_list(seen)}, the client said {_list(told)}")
    answers = [message for client in evidence.clients for message in client.finals]
    answered = [message for message in answers if message.all(b"x-up")]
    asked = [message for message in arrived if message.complete][: len(answered)]
    if [_target(message) for message in answered] != [_echoed(message) for message in asked]:
        found.append(f"order: answers to {[_target(message) for message in answered]}, which is another than asked")
    if len(answers) > len(reader.messages) + 1:
        found.append(f"number: {len(answers)} answers to {len(reader.messages)} requests")
    return found


def _origin(message: Message) -> Seen:
    """A request as it goes on: an absolute target in origin form."""
    seen = Seen.of(message)
    if not seen.target.lower().startswith((b"http://", b"https://")):
        return seen
    rest = seen.target.partition(b"://")[2]
    at = min((rest.find(mark) for mark in (b"/", b"?") if mark in rest), default=len(rest))
    target = rest[at:]
    return Seen(seen.method, target if target.startswith(b"/") else b"/" + target, seen.body)


def _is_part(some: Sequence[Seen], of: Sequence[Seen]) -> bool:
    """Whether ``some`` is what is left of ``of`` when others are taken out."""
    rest = iter(of)
    return all(one in rest for one in some)


def _list(seen: Sequence[Seen]) -> str:
    return "[" + ", ".join(f"{one.method!r} {one.target[:60]!r} {one.body[:60]!r}" for one in seen[:5]) + "]"


def _echoed(message: Message) -> bytes:
    return b"" if message.method == b"HEAD" else message.target


def _target(message: Message) -> bytes:
    """Whose answer it is, by the echo in its body; empty for one to HEAD, which has none."""
    return json.loads(bytes(message.body))["target"].encode("latin-1") if message.body else b""
