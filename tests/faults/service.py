"""A service that misbehaves on demand, in a process of its own so that it can be stopped and killed.

Started as ``python -m tests.faults.service NAME HOST PORT LOG``. Lines on standard input change what it does
(``{"mode": "hang"}``), each is acknowledged by a line with its counts. The file LOG gets a line for each request as
soon as its head is there: time, method, nonce, attempt, connection, target.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

import uvloop

from tests.faults.frames import CLOSE, accept_key, read_frame, server_frame

RESET = struct.pack("ii", 1, 0)
EVENT_S = 0.1
PIECE = b"x" * 65_536


@dataclass(frozen=True)
class Behaviour:
    """What is done with a short request; uploads, streams and sockets are served as ever.

    Attributes:
        mode: One of `MODES`.
        latency_s: Before the answer.
        share: Of requests to which the mode applies; the others get an answer.
        body_bytes: Of an answer.
    """

    mode: str = "ok"
    latency_s: float = 0.0
    share: float = 1.0
    body_bytes: int = 512


class Request:
    """One request's head and the connection that it came on."""

    def __init__(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = head[:-4].decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ", 2)
        self.fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.nonce = self.fields.get("x-nonce", "-")
        self.reader = reader
        self.writer = writer

    async def body(self) -> int:
        """Read it; returns its size in bytes."""
        size = 0
        if "chunked" in self.fields.get("transfer-encoding", ""):
            while length := int((await self.reader.readuntil(b"\r\n"))[:-2], 16):
                await self.reader.readexactly(length + 2)
                size += length
            await self.reader.readuntil(b"\r\n")
        elif length := int(self.fields.get("content-length", 0)):
            size = len(await self.reader.readexactly(length))
        return size

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def reset(self) -> None:
        """End the connection by RST."""
        sock = self.writer.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.writer.transport.abort()


class Service:
    """The process's service."""

    def __init__(self, name: str, log: int) -> None:
        self.name = name
        self.behaviour = Behaviour()
        self.requests = 0
        self.connections = 0
        self.open = 0
        self._log = log
        self._rng = random.Random(name)

    def head(self, request: Request, status: str, *lines: str) -> bytes:
        fields = (f"X-Nonce: {request.nonce}", f"X-Endpoint: {self.name}", *lines)
        return "\r\n".join((f"HTTP/1.1 {status}", *fields, "", "")).encode()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        self.open += 1
        number = self.connections
        self._write("CONNECT", "-", "-", number, "-")
        try:
            while not writer.is_closing():
                request = Request(await reader.readuntil(b"\r\n\r\n"), reader, writer)
                self._note(request, number)
                await self._answer(request)
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.open -= 1
            writer.close()

    def _note(self, request: Request, connection: int) -> None:
        self.requests += 1
        attempt = request.fields.get("x-cohort-attempt", "1")
        self._write(request.method, request.nonce, attempt, connection, request.target)

    def _write(self, *words: object) -> None:
        """At once: a process that is killed keeps nothing back."""
        os.write(self._log, " ".join(map(str, (f"{time.monotonic():.6f}", *words))).encode() + b"\n")

    async def _answer(self, request: Request) -> None:
        if request.target == "/stream/held":
            request.send(self.head(request, "200 OK", "Content-Length: 2") + b"o")
            now = self.behaviour
            while self.behaviour is now:  # until it is told anything
                await asyncio.sleep(0.02)
            request.send(b"k")
        elif request.target.startswith("/stream/"):
            await self._stream(request, float(request.target.rpartition("/")[2]))
        elif request.fields.get("upgrade", "").lower() == "websocket":
            await self._socket(request)
        elif request.target.startswith("/echo/"):
            word = request.target.removeprefix("/echo/")
            request.send(self.head(request, "200 OK", f"X-Word: {word}", "Content-Length: 0"))
        elif request.target == "/upload":
            size = await request.body()
            request.send(self.head(request, "200 OK", f"X-Received: {size}", "Content-Length: 2") + b"ok")
        else:
            now = self.behaviour
            size = await request.body()
            if now.latency_s:
                await asyncio.sleep(now.latency_s)
            mode = now.mode if now.share >= 1 or self._rng.random() < now.share else "ok"
            await MODES[mode](self, request, now)

    async def _stream(self, request: Request, seconds: float) -> None:
        lines = ("Content-Type: text/event-stream", "Transfer-Encoding: chunked")
        request.send(self.head(request, "200 OK", *lines))
        for turn in range(round(seconds / EVENT_S)):
            event = f"data: {request.nonce} {turn}\n\n".encode()
            request.send(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(EVENT_S)
        request.send(b"b\r\ndata: end\n\n\r\n0\r\n\r\n")

    async def _socket(self, request: Request) -> None:
        accept = f"Sec-WebSocket-Accept: {accept_key(request.fields.get('sec-websocket-key', ''))}"
        lines = ("Connection: Upgrade", "Upgrade: websocket", accept)
        request.send(self.head(request, "101 Switching Protocols", *lines))
        kind = 0
        with contextlib.suppress(Exception):
            while kind != CLOSE:
                kind, payload = await read_frame(request.reader)
                request.send(server_frame(kind, payload))
        request.writer.close()


# --- what it does with short requests

Mode = Callable[[Service, Request, Behaviour], Awaitable[None]]


async def _ok(service: Service, request: Request, now: Behaviour) -> None:
    lines = (f"Content-Length: {now.body_bytes}", f"X-Body: {now.body_bytes}")
    request.send(service.head(request, "200 OK", *lines) + b"." * now.body_bytes)


async def _drip(service: Service, request: Request, now: Behaviour) -> None:
    """In small pieces, so that it is under way for a while."""
    data = service.head(request, "200 OK", "Content-Length: 600") + b"d" * 600
    for at in range(0, len(data), 16):
        request.send(data[at : at + 16])
        await request.writer.drain()
        await asyncio.sleep(0.001)


async def _error(service: Service, request: Request, now: Behaviour) -> None:
    request.send(service.head(request, "500 Internal Server Error", "Content-Length: 3") + b"bad")


async def _hang(service: Service, request: Request, now: Behaviour) -> None:
    await asyncio.sleep(3600)


async def _reset(service: Service, request: Request, now: Behaviour) -> None:
    request.reset()


async def _reset_in_body(service: Service, request: Request, now: Behaviour) -> None:
    """By each framing in turn, after a part that has surely left."""
    framing = ("Content-Length: 200000", "Transfer-Encoding: chunked", "Connection: close")[service.requests % 3]
    piece = b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if "chunked" in framing else PIECE
    request.send(service.head(request, "200 OK", framing, "X-Body: 200000") + piece)
    await request.writer.drain()
    await asyncio.sleep(0.05)
    request.reset()


async def _truncate(service: Service, request: Request, now: Behaviour) -> None:
    request.send(service.head(request, "200 OK", "Content-Length: 200000") + PIECE)
    request.writer.close()


async def _storm(service: Service, request: Request, now: Behaviour) -> None:
    """An answer to each, and the end of each connection."""
    request.send(service.head(request, "200 OK", "Content-Length: 2", "Connection: close") + b"ok")
    request.writer.close()


async def _garbage(service: Service, request: Request, now: Behaviour) -> None:
    request.send(b"\x00\x01\x02 no HTTP at all \xff\r\n\r\n" * 20)


async def _interims(service: Service, request: Request, now: Behaviour) -> None:
    for _ in range(100_000):
        request.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
        await request.writer.drain()


async def _big_head(service: Service, request: Request, now: Behaviour) -> None:
    request.send(b"HTTP/1.1 200 OK\r\n")
    for number in range(100 * 16):
        request.send(b"X-%d: %b\r\n" % (number, PIECE))
        await request.writer.drain()


MODES: dict[str, Mode] = {
    "ok": _ok,
    "drip": _drip,
    "error": _error,
    "hang": _hang,
    "reset": _reset,
    "reset in body": _reset_in_body,
    "truncate": _truncate,
    "garbage": _garbage,
    "storm": _storm,
    "interims": _interims,
    "big head": _big_head,
}


def listen(host: str, port: int) -> socket.socket:
    """A listener on a port that whoever started us holds, so that it stays ours while we are dead."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind((host, port))
    return sock


async def main(name: str, host: str, port: int, log: str) -> None:
    """Serve until standard input ends."""
    service = Service(name, os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT))
    server = await asyncio.start_server(service.serve, sock=listen(host, port), backlog=4096, limit=1 << 20)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print('{"ready":true}', flush=True)
    while line := await reader.readline():
        change: dict[str, Any] = json.loads(line)
        service.behaviour = replace(Behaviour(), **change) if change else service.behaviour
        counts = {"requests": service.requests, "connections": service.connections, "open": service.open}
        print(json.dumps(counts), flush=True)
    server.close()
    os._exit(0)  # connections that hang by our own doing are not waited for


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]))
