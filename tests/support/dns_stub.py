"""A name server for tests: answers over UDP and TCP on loopback what a script says, badly where it says so."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

PROBLEMS = ("SERVFAIL", "NXDOMAIN", "REFUSED", "empty", "silence", "garbage")


@dataclass(frozen=True)
class Script:
    """What is said of one name.

    Attributes:
        alias: A CNAME in front of the addresses.
        delay_s: Before each answer.
        problem: Instead of addresses, one of `PROBLEMS`.
        truncated: Over UDP only the hint to come again by TCP.
    """

    addresses: tuple[str, ...] = ()
    ttl: int = 1
    alias: str = ""
    delay_s: float = 0.0
    problem: str = ""
    truncated: bool = False


class DnsStub:
    """A name server; names that it was not told of do not exist.

    Attributes:
        port: Of both protocols on 127.0.0.1.
        queries: Every question answered so far, as ``("name.", "A")``.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.queries: list[tuple[str, str]] = []
        self._scripts: dict[str, Script] = {}

    @property
    def server(self) -> str:
        """As `resolver.servers` of ProxySettings names it."""
        return f"127.0.0.1:{self.port}"

    def answer(self, name: str, *addresses: str, ttl: int = 1, alias: str = "", delay_s: float = 0.0,
               problem: str = "", truncated: bool = False) -> None:  # fmt: skip
        """Say this of a name from now on."""
        assert not problem or problem in PROBLEMS
        self._scripts[f"{name}."] = Script(addresses, ttl, alias, delay_s, problem, truncated)

    async def reply(self, data: bytes, by_tcp: bool) -> bytes:
        """The answer to one message; empty: none."""
        query = dns.message.from_wire(data)
        question = query.question[0]
        name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        self.queries.append((name, kind))
        script = self._scripts.get(name, Script(problem="NXDOMAIN"))
        await asyncio.sleep(script.delay_s)
        response = dns.message.make_response(query)
        if script.problem in ("silence", "garbage"):
            return b"" if script.problem == "silence" else data[:2] + b"nonsense"
        if script.problem in ("SERVFAIL", "NXDOMAIN", "REFUSED"):
            response.set_rcode(dns.rcode.from_text(script.problem))
        elif script.truncated and not by_tcp:
            response.flags |= dns.flags.TC
        elif not script.problem:
            self._fill(response, name, kind, script)
        return response.to_wire()

    @staticmethod
    def _fill(response: dns.message.Message, name: str, kind: str, script: Script) -> None:
        if script.alias:
            response.answer.append(dns.rrset.from_text(name, script.ttl, "IN", "CNAME", f"{script.alias}."))
            name = f"{script.alias}."
        family = {"A": 4, "AAAA": 6}.get(kind)
        if found := [text for text in script.addresses if ipaddress.ip_address(text).version == family]:
            response.answer.append(dns.rrset.from_text(name, script.ttl, "IN", kind, *found))


class _Udp(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.stub: DnsStub
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.create_task(self._answer(data, addr))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _answer(self, data: bytes, addr: tuple[str, int]) -> None:
        if reply := await self.stub.reply(data, by_tcp=False):
            self._transport.sendto(reply, addr)


@contextlib.asynccontextmanager
async def dns_stub() -> AsyncIterator[DnsStub]:
    """A running name server."""
    stub: DnsStub

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            reply = await stub.reply(await reader.readexactly(size), by_tcp=True)
            writer.write(struct.pack("!H", len(reply)) + reply)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    transport, udp = await asyncio.get_running_loop().create_datagram_endpoint(_Udp, ("127.0.0.1", port))
    udp.stub = stub = DnsStub(port)
    try:
        yield stub
    finally:
        transport.close()
        server.close()
        for task in udp.tasks:
            task.cancel()
        await asyncio.gather(*udp.tasks, return_exceptions=True)
        await server.wait_closed()
