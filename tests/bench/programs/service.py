"""The backends that nginx cannot be: answers in chunks of 1 KiB, each written by itself, and WebSocket echo.

``python -m tests.bench.programs.service STATUS_PORT ANSWER_BYTES ARM=PORT...``; the status is that of nginx's
stub_status.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import sys
from dataclasses import dataclass
from typing import cast

import uvloop

CHUNK_BYTES = 1024
MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
KEY = re.compile(rb"(?i)\r\nsec-websocket-key: *([^\r]+)\r\n")
FORWARDED = re.compile(rb"(?i)\r\nx-forwarded-for: *([^\r]+)\r\n")
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(slots=True)
class Counts:
    """Of both arms."""

    connections: int = 0
    requests: int = 0


class Service(asyncio.Protocol):
    """One connection; requests have no bodies and do not overlap."""

    transport: asyncio.Transport

    def __init__(self, counts: Counts, body: bytes) -> None:
        self._counts = counts
        self._chunks = [body[at : at + CHUNK_BYTES] for at in range(0, len(body), CHUNK_BYTES)]
        self._buffer = b""
        self._is_echo = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._counts.connections += 1

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._is_echo:
            self._echo()
        elif self._buffer.endswith(b"\r\n\r\n"):
            head, self._buffer = self._buffer, b""
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        self._counts.requests += 1
        if key := KEY.search(head):
            accept = base64.b64encode(hashlib.sha1(key[1].strip() + MAGIC).digest())
            self._is_echo = True
            self.transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept
            )
        elif head.startswith(b"GET /forwarded-for "):
            found = FORWARDED.search(head)
            seen = found[1] if found else b""
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(seen), seen))
        else:
            self.transport.write(STREAM)
            self._stream(0)

    def _stream(self, index: int) -> None:
        if self.transport.is_closing():
            return
        if index == len(self._chunks):
            self.transport.write(b"0\r\n\r\n")
            return
        chunk = self._chunks[index]
        self.transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        asyncio.get_running_loop().call_soon(self._stream, index + 1)

    def _echo(self) -> None:
        """Whole masked frames of less than 126 bytes, each sent back as it came."""
        while len(self._buffer) >= 6 and len(self._buffer) >= 6 + (self._buffer[1] & 127):
            size = self._buffer[1] & 127
            frame, self._buffer = self._buffer[: 6 + size], self._buffer[6 + size :]
            self._counts.requests += 1
            self.transport.write(bytes((frame[0], size)) + unmask(frame[2:6], frame[6:]))
            if frame[0] & 15 == 8:
                self.transport.close()


def unmask(key: bytes, data: bytes) -> bytes:
    """RFC 6455, section 5.3; the same masks."""
    mask = (key * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data) ^ int.from_bytes(mask)).to_bytes(len(data))


class Status(asyncio.Protocol):
    """Says what was counted."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        number, requests = self._counts.connections, self._counts.requests
        text = f"Active connections: 1 \nserver accepts handled requests\n {number} {number} {requests} \n".encode()
        self._transport.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
        self._transport.close()


async def main(status_port: int, answer_bytes: int, arms: dict[str, int]) -> None:
    """Serve until the process is ended."""
    loop, counts = asyncio.get_running_loop(), Counts()
    for arm, port in arms.items():
        body = f"{arm}\n".encode().ljust(answer_bytes, b".")
        await loop.create_server(lambda body=body: Service(counts, body), "127.0.0.1", port, backlog=4096)
    server = await loop.create_server(lambda: Status(counts), "127.0.0.1", status_port)
    await server.serve_forever()


if __name__ == "__main__":
    pairs = [argument.split("=") for argument in sys.argv[3:]]
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), {arm: int(port) for arm, port in pairs}))
