"""The oracle sees what a bad proxy would do: here nothing stands between client and service but the wire."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from tests.wire import attack, oracle
from tests.wire.case import Case, Do, Outcome, Range, Write
from tests.wire.client import Client
from tests.wire.oracle import Evidence
from tests.wire.service import Script, Service
from tests.wire.stand import Samples

CASE = Case(id="x", class_="x", sev="must", why="", send=(), expect=(Outcome((200,)),))
GET = b"GET /a HTTP/1.1\r\nHost: t\r\n\r\n"
COUNTED = {("cohort_requests_total", frozenset({("code", "200")})): 1.0}
RELAYED = {("cohort_upstream_duration_seconds_count", frozenset({("arm", "stable")})): 1.0}


@contextlib.asynccontextmanager
async def wire(*answer: Write | Do, when: str = "request") -> AsyncIterator[tuple[Client, Service, Evidence]]:
    """A client connected to a service."""
    service = Service("stable")
    service.begin(Script(answer, when) if answer else None, is_fresh=False)
    changed = asyncio.Event()
    service.changed = changed
    client = await Client.connect(service.port, changed)
    client.is_done = True
    try:
        yield client, service, Evidence(CASE, [client], [service], after=COUNTED | RELAYED)
    finally:
        await client.close()
        await service.close()


async def said(client: Client, data: bytes, is_over: bool = False) -> None:
    """Send, and wait for a complete answer, or for the end."""
    await client.link.write(data)
    async with asyncio.timeout(5):
        while not (client.is_over if is_over else client.final_at):
            await asyncio.sleep(0.005)


async def test_clean_exchange_breaks_nothing() -> None:
    """What all others differ from in one thing."""
    async with wire() as (client, _, evidence):
        await said(client, GET)
        assert oracle.violations(evidence) == []
        assert oracle.mismatches(Outcome((200,), connection="keepalive", upstream_sees=Range(1, 1)), evidence) == []


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({}, {}, "read 1 requests, the proxy counted 0"),
        ({}, {("cohort_requests_total", frozenset({("code", "200")})): 2.0}, "read 1 requests, the proxy counted 2"),
        ({}, COUNTED, "of 1 requests 0 were answered, 0 failed and 0 clients left"),
        ({}, COUNTED | {("cohort_upstream_failures_total", frozenset({("kind", "timeout")})): 1.0}, ""),
        ({}, COUNTED | RELAYED | {("cohort_retries_total", frozenset({("arm", "x")})): 1.0}, ""),
        (COUNTED, RELAYED | {("cohort_requests_total", frozenset({("code", "200")})): 2.0}, ""),
        ({}, {("cohort_requests_total", frozenset({("code", "499")})): 2.0}, ""),
    ],
    ids=["not counted", "counted twice", "not accounted for", "failed", "retry", "before", "client gone"],
)
async def test_counts_must_agree(before: Samples, after: Samples, text: str) -> None:
    """I1; a request whose client left may not have been sent, one that was repeated may not have been read."""
    async with wire() as (client, _, evidence):
        await said(client, GET)
        evidence.before, evidence.after = before, after
        found = [fault for fault in oracle.violations(evidence) if fault.startswith("I1")]
        assert (text in found[0]) if text else not found


async def test_a_copy_is_nobodys_answer_but_must_be_clean() -> None:
    """I1 and I2 for mirrors: at most one copy of each request, and a clean one."""
    async with wire() as (client, _, evidence), wire() as (other, mirror, _):
        await said(client, GET)
        await said(other, GET)
        mirror.gets_copies = True
        evidence.services = [*evidence.services, mirror]
        assert oracle.violations(evidence) == []
        mirror.calls[0].reader.messages *= 2
        assert "I1: 2 copies of 1 requests" in oracle.violations(evidence)
        await other.link.write(b"GET /x HTTP/1.1\r\nHost: t\r\nX : y\r\n\r\n")
        await asyncio.sleep(0.02)
        assert any(fault.startswith("I2: upstream of stable: field line") for fault in oracle.violations(evidence))


@pytest.mark.parametrize(
    "data",
    [
        b"GET http://t/a HTTP/1.1\r\nHost: t\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /a HTTP/1.1\nHost: t\n\n",
    ],
)
async def test_dirty_request_is_seen(data: bytes) -> None:
    """I2."""
    async with wire() as (client, _, evidence):
        await said(client, data)
        assert any(fault.startswith("I2") for fault in oracle.violations(evidence))


async def test_target_of_nobody_is_seen() -> None:
    """I2: the service must not get a target that the client did not send."""
    async with wire() as (client, _, evidence):
        await said(client, GET)
        client._concluded = (1, len(client.reader.stream), 0, False, "")  # as if it had sent nothing
        assert any("is not one that the client sent" in fault for fault in oracle.violations(evidence))


async def test_careless_reading_is_seen() -> None:
    """I2: clean to the strict reader, another message to a careless one."""
    async with wire() as (client, _, evidence):
        await said(client, b"POST /a HTTP/1.1\r\nHost: t\r\nTransfer_Encoding: chunked\r\n\r\n")
        await asyncio.sleep(0.02)
        assert any("folding service reads" in fault for fault in oracle.violations(evidence))


async def test_smuggled_request_is_seen() -> None:
    """I3, unless the case wants it."""
    async with wire() as (client, _, evidence):
        await said(client, GET.replace(b"/a", b"/SMUGGLED"))
        assert any(fault.startswith("I3") for fault in oracle.violations(evidence))
        evidence.case = replace(CASE, expect=(Outcome((200,), up_has=("GET /SMUGGLED",)),))
        assert not any(fault.startswith("I3") for fault in oracle.violations(evidence))


async def test_half_a_request_is_seen() -> None:
    """I5: only on a connection that is closed."""
    async with wire() as (client, service, evidence):
        await client.link.write(b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nhalf")
        async with asyncio.timeout(5):
            while not service.arrived:
                await asyncio.sleep(0.005)
        assert any("part of a request" in fault for fault in oracle.violations(evidence))
        client.link.do("close")
        async with asyncio.timeout(5):
            while not service.calls[0].link.is_over:
                await asyncio.sleep(0.005)
        assert not any("part of a request" in fault for fault in oracle.violations(evidence))


async def test_connection_with_surplus_must_be_closed() -> None:
    """I5, and nobody may send another request on it."""
    async with wire(Write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokEVIL")) as (client, _, evidence):
        await said(client, GET)
        assert any("still open" in fault for fault in oracle.violations(evidence))
        await client.link.write(GET)
        await asyncio.sleep(0.05)
        assert any("used again" in fault for fault in oracle.violations(evidence))


@pytest.mark.parametrize("body", ["Traceback (most recent call last)", "127.0.0.1:8080 refused", "File proxy/relay.py"])
async def test_internals_are_seen(body: str) -> None:
    """I6."""
    answer = Write(f"HTTP/1.1 502 Bad\r\nContent-Length: {len(body)}\r\n\r\n{body}")
    async with wire(answer) as (client, _, evidence):
        await said(client, GET)
        assert any(fault.startswith("I6") for fault in oracle.violations(evidence))


async def test_answer_that_is_no_http_is_seen() -> None:
    """I6."""
    async with wire(Write("HTTP/1.1 200 OK\r\n\r\nhello"), Do("close")) as (client, _, evidence):
        await said(client, GET, is_over=True)
        assert any("to the client" in fault for fault in oracle.violations(evidence))


@pytest.mark.parametrize("line", ["Traceback (most recent call last):", "Task exception was never retrieved"])
async def test_log_is_read(line: str) -> None:
    """I7."""
    async with wire() as (client, _, evidence):
        await said(client, GET)
        evidence.log = f"all is well\n{line}\n"
        assert any(fault.startswith("I7") for fault in oracle.violations(evidence))


def test_growth_and_blocks_are_faults() -> None:
    """I7: 8 MiB, 100 ms."""
    assert oracle.grown(8 << 20, "", True) == []
    assert len(oracle.grown((8 << 20) + 1, "", False)) == 2
    assert (oracle.blocked(0.1), len(oracle.blocked(0.11))) == ([], 1)


@pytest.mark.parametrize(
    ("fault", "is_late"),
    [
        ("I4: a victim got no answer within 1 s", True),
        ("I4: a victim got 504 with b'504 Gateway Timeout'", True),
        ("I4: a victim got 200 with b'EVIL'", False),
        ("I7: the proxy or its worker has ended", False),
        ("reading: the service read [], the client said []", False),
    ],
)
def test_only_the_clocks_faults_are_looked_at_again(fault: str, is_late: bool) -> None:
    """A busy machine is late, too; nothing else has an excuse."""
    assert oracle.is_late(fault) == is_late


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Outcome((400,)), "status"),
        (Outcome((0,)), "status"),
        (Outcome((200,), then=((200,),)), "responses"),
        (Outcome((200,), responses=Range(2, 3)), "responses"),
        (Outcome((200,), connection="close"), "connection"),
        (Outcome((200,), upstream_sees=Range(0, 0)), "upstream_sees"),
        (Outcome((200,), up_has=("x-nothing",)), "up_has"),
        (Outcome((200,), up_lacks=("host: T",)), "up_lacks"),
        (Outcome((200,), cl_has=("x-nothing",)), "cl_has"),
        (Outcome((200,), cl_lacks=("x-UP: stable",)), "cl_lacks"),
        (Outcome((200,), note="the client can tell the body is incomplete"), "the response looks whole"),
    ],
)
async def test_other_outcome_is_told(outcome: Outcome, text: str) -> None:
    """Each part of an outcome by itself; texts are compared without case."""
    async with wire() as (client, _, evidence):
        await said(client, GET)
        assert [fault[: len(text)] for fault in oracle.mismatches(outcome, evidence)] == [text]


async def test_incomplete_answer_passes_only_where_it_is_wanted() -> None:
    """A truncated response is no 200, unless the case is about truncation."""
    async with wire(Write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), Do("close")) as (client, _, evidence):
        await said(client, GET, is_over=True)
        assert oracle.mismatches(Outcome((200,)), evidence) == ["a response is incomplete"]
        assert oracle.mismatches(Outcome((200,), connection="close", note="incomplete"), evidence) == []


async def test_attack_is_compared_with_the_strict_reading() -> None:
    """What a service got must be what the client said, in the same order."""
    async with wire() as (client, _, evidence):
        await said(client, GET)
        assert attack.differences(GET, evidence) == []
        assert attack.differences(GET + GET, evidence) == []  # the proxy may refuse what it could read
        assert attack.differences(GET.replace(b"/a", b"/b"), evidence)[0].startswith("reading")
        assert attack.differences(b"", evidence)[0].startswith("reading")
