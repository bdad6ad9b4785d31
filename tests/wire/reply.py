"""Answers that nobody knows the right handling of: a service that says anything, and what the client gets of it.

The oracle is a comparison again. A strict reader takes apart what the service writes. The client may get an error of
the proxy's own; but what it gets as the service's answer must be that answer: its status, its body or a visibly cut
part of it, and no field that the service did not write.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, replace
from typing import Any

from tests.wire import oracle
from tests.wire.attack import CASE, settle
from tests.wire.case import Do, Pause, Step, Write
from tests.wire.client import Client
from tests.wire.oracle import Evidence
from tests.wire.run import probe
from tests.wire.service import BOTH, Script
from tests.wire.stand import Stand
from tests.wire.strict import Message, ResponseReader

ANSWER_S = 6.0  # longer than any time-out of the proxy
# What the proxy says for itself beside a service's fields; it also may make Cache-Control stricter.
_OWN_FIELDS = frozenset((b"date", b"connection", b"content-length", b"transfer-encoding", b"cache-control"))


@dataclass(frozen=True)
class Reply:
    """What a service writes for one request, and how it ends.

    Attributes:
        request: Complete, with its method first.
        segments: Written one by one.
        end: `close`, `rst`, or empty where the connection stays open.
    """

    request: bytes
    segments: tuple[bytes, ...]
    end: str

    @property
    def data(self) -> bytes:
        """All that is written."""
        return b"".join(self.segments)

    def with_data(self, data: bytes) -> Reply:
        """Another answer in its place."""
        return replace(self, segments=(data,))

    def fields(self) -> dict[str, Any]:
        """As a case has it: the client may get the service's own answer, or an error of the proxy's."""
        up: list[object] = [segment.decode("latin-1") for segment in self.segments]
        said = self.said()
        outcome = {"status": sorted({502, 504, *([said.status] if said else [])}), "connection": "any"}
        return {
            "send": [self.request.decode("latin-1")],
            "up": up + ([{"do": self.end}] if self.end else []),
            "expect": [outcome, {**outcome, "note": "incomplete"}],
        }

    def said(self) -> Message | None:
        """The answer that a strict reader finds."""
        return next(iter(self.read().finals), None)

    def read(self) -> ResponseReader:
        """What is written, as a strict reader has it."""
        reader = ResponseReader(exact=False, versions=BOTH)
        reader.expect(self.request.partition(b" ")[0])
        reader.feed(self.data)
        reader.end(self.end == "rst")
        return reader

    @property
    def steps(self) -> tuple[Step, ...]:
        """For the service."""
        steps: list[Step] = []
        for segment in self.segments:
            steps += [Pause(1), Write(segment.decode("latin-1"))] if steps else [Write(segment.decode("latin-1"))]
        return (*steps, Do(self.end)) if self.end else tuple(steps)


async def reply(stand: Stand, given: Reply) -> list[str]:
    """Have the service write it, and return what the proxy did wrong."""
    changed = asyncio.Event()
    for service in stand.services.values():
        service.changed = changed
        service.begin(Script(given.steps, "request"), is_fresh=False)
    services = list(stand.services.values())
    evidence = Evidence(replace(CASE, up=given.steps), [], services, before=await stand.metrics())
    client = await Client.connect(stand.port, changed)
    evidence.clients = [client]
    found = []
    try:
        await client.link.write(given.request)
        try:
            async with asyncio.timeout(ANSWER_S):
                while not (client.final_at or client.is_over):
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            found.append(f"open: neither answer nor close within {ANSWER_S:g} s")
        client.conclude()
        if not client.is_over and not client.finals[-1].closes and not found:
            while any(call.is_playing and not call.link.is_over for call in evidence.calls):
                await asyncio.sleep(0.001)
            wrong = await client.ask(secrets.token_hex(8).encode(), stand.host, 1.0)
            found += [f"next: the next request on this connection got {wrong}"] * bool(wrong)
    finally:
        await client.close()
    await settle(stand, evidence)
    evidence.log = stand.new_log()
    found += differences(given, client.finals) + oracle.lasting(evidence)
    if not stand.is_alive:
        found.append("I7: the proxy or its worker has ended")
    return found + await probe(stand)


def differences(given: Reply, finals: list[Message]) -> list[str]:
    """Where the client got something else than what a strict reader finds in what the service wrote."""
    reader, said = given.read(), given.said()
    if len(finals) > 1:
        return [f"number: {len(finals)} answers to one request"]
    if not finals or (finals[0].status in (502, 504) and finals[0].all(b"x-request-id")):
        return []  # nothing, or an error of the proxy's own
    got = finals[0]
    if said is None or got.status != said.status:
        return [f"status: the client got {got.status}, the service said {said and said.status}: {reader.fault}"]
    found = []
    if got.body != said.body[: len(got.body)]:
        found.append(f"body: the client got {bytes(got.body[:80])!r}, the service said {bytes(said.body[:80])!r}")
    if got.complete and not (said.complete and len(got.body) == len(said.body)):
        found.append(f"cut: the answer looks whole, the service's was not: {reader.fault}")
    mine = {(name.lower(), value) for name, value in said.fields}
    for name, value in got.fields:
        if (name.lower(), value) not in mine and name.lower() not in _OWN_FIELDS:
            found.append(f"field: {name!r}: {value[:80]!r} is not the service's")
    return found
