"""What pods reach on the bridge: the API server by a relay, the names of Services, and their addresses as rules."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.kube.pods.network import BRIDGE
from tests.kube.pods.services import CHAIN, Record, answer

RELAY_PORT = 6443
DNS_PORT = 53
TTL_S = 5  # as the kubernetes plugin of CoreDNS
CUT, RENEW = signal.SIGUSR1, signal.SIGUSR2  # what tests ask of the runner
RESTORE_S = 0.1
CHUNK_BYTES = 65_536
Zone = Callable[[], Iterable[Record]]


class Relay:
    """From the bridge to the API server, which listens on the loopback of the machine's own namespace."""

    def __init__(self, host: str, port: int, outside: ThreadPoolExecutor) -> None:
        self._target = host, port
        self._outside = outside  # its thread is still in that namespace, and so are sockets that it makes
        self._connections: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Reset every connection of a Pod, as a load balancer that is restarted does; the runner's own stay."""
        for writer in self._connections:
            if writer.get_extra_info("peername")[0] != BRIDGE:
                writer.transport.abort()

    async def serve(self) -> None:
        """For ever."""
        server = await asyncio.start_server(self._relay, BRIDGE, RELAY_PORT)
        async with server:
            await server.serve_forever()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        there: asyncio.StreamWriter | None = None
        self._connections.add(writer)
        try:
            made = await loop.run_in_executor(self._outside, _nonblocking)
            await loop.sock_connect(made, self._target)
            back, there = await asyncio.open_connection(sock=made)
            async with asyncio.TaskGroup() as group:
                group.create_task(_pump(reader, there))
                group.create_task(_pump(back, writer))
        except* OSError:
            pass
        finally:
            self._connections.discard(writer)
            writer.transport.abort()
            if there:
                there.transport.abort()


def _nonblocking() -> socket.socket:
    made = socket.socket()
    made.setblocking(False)
    return made


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof() if writer.can_write_eof() else writer.close()


class Names(asyncio.DatagramProtocol):
    """The cluster's DNS server, over UDP and TCP."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone
        self._transport: asyncio.DatagramTransport

    async def serve(self) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, (BRIDGE, DNS_PORT))
        server = await asyncio.start_server(self._stream, BRIDGE, DNS_PORT)
        try:
            await server.serve_forever()
        finally:
            transport.close()

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]  # it is one
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        if reply := respond(data, self._zone):
            self._transport.sendto(reply, addr)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while size := int.from_bytes(await reader.readexactly(2)):
                reply = respond(await reader.readexactly(size), self._zone)
                writer.write(len(reply).to_bytes(2) + reply)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.transport.abort()


def respond(data: bytes, zone: Zone) -> bytes:
    """The answer to a query; empty to what is none."""
    try:
        query = dns.message.from_wire(data)
        (question,) = query.question
    except (dns.exception.DNSException, ValueError):
        return b""
    reply = dns.message.make_response(query, recursion_available=True)
    reply.flags |= dns.flags.AA
    name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
    found = answer(name, kind, zone())
    if found is None:
        found = _below(name, zone)
    if found is None:
        reply.set_rcode(dns.rcode.NXDOMAIN)
    for record in found or ():
        value = record.value if record.kind == "A" else f"{record.value}."
        _add(reply, name, record.kind, value)
    return bytes(reply.to_wire())


def _below(name: str, zone: Zone) -> list[Record] | None:
    """No data rather than no such name for what other names lie below: a resolver may stop at the latter."""
    return [] if any(record.name.endswith(f".{name.lower().rstrip('.')}") for record in zone()) else None


def _add(reply: dns.message.Message, name: str, kind: str, value: str) -> None:
    given = dns.rrset.from_text(name, TTL_S, "IN", kind, value)
    for known in reply.answer:
        if known.name == given.name and known.rdtype == given.rdtype:
            known.add(given[0])
            return
    reply.answer.append(given)


def prepare_rules() -> None:
    """Hang the chains of all Services into the tables; replies find their way back through this namespace."""
    _restore(
        f"*nat\n:{CHAIN} - [0:0]\n-A PREROUTING -j {CHAIN}\n-A OUTPUT -j {CHAIN}\n"
        "-A POSTROUTING -m conntrack --ctstate DNAT -j MASQUERADE\nCOMMIT\n"
        f"*filter\n:{CHAIN} - [0:0]\n-A FORWARD -j {CHAIN}\n-A OUTPUT -j {CHAIN}\nCOMMIT\n"
    )
    for name, value in (("ip_forward", "1"), ("conf/all/send_redirects", "0"), ("conf/br0/send_redirects", "0")):
        with open(f"/proc/sys/net/ipv4/{name}", "w") as file:
            file.write(value)


def write_rules(text: str) -> None:
    """Put new rules in the chains, all at once."""
    _restore(text)


def _restore(text: str) -> None:
    """Again if somebody else changed the tables in between."""
    for last in (False, False, False, True):
        if subprocess.run(["iptables-restore", "--noflush"], input=text, text=True, check=last).returncode == 0:
            return
        time.sleep(RESTORE_S)


def kubernetes_slice() -> Mapping[str, Any]:
    """The endpoints of the Service `kubernetes`: nothing else writes them here."""
    return {
        "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [BRIDGE], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": RELAY_PORT, "protocol": "TCP"}],
    }
