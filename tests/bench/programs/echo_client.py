"""Talks WebSocket with an echo service: ``python -m tests.bench.programs.echo_client PORT CONNECTIONS SECONDS``.

Each connection sends a message, waits for its echo, compares it and sends the next one. The last line printed is JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

import uvloop

from tests.bench.programs.service import unmask
from tests.bench.workload import user_id

SIZE = 64  # bytes of a message: a line of a chat, a price
KEY = b"\x0f\x1e\x2d\x3c"
HANDSHAKE = (
    "GET /live HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Origin: http://shop.example\r\nCookie: theme=dark; uid={}\r\n\r\n"
)
ACCEPT = b"s3pplmbitxaq9kygzzhzrbk+xoo="  # RFC 6455, section 1.3, in lower case


class Talk(asyncio.Protocol):
    """One connection."""

    transport: asyncio.Transport

    def __init__(self, number: int) -> None:
        self._number = number
        self._buffer = b""
        self._expected = b""
        self._sent_at = 0.0
        self.messages = 0
        self.times: list[float] = []
        self.fault = ""
        self.is_counting = False
        self.has_ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(HANDSHAKE.format(user_id(self._number)).encode())

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._expected:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101 ") or ACCEPT not in head.lower() or rest:
                self._fail(f"expected 101, got {self._buffer[:200]!r}")
                return
        elif len(self._buffer) < len(self._expected):
            return
        elif self._buffer != self._expected:
            self._fail(f"expected {self._expected!r}, got {self._buffer!r}")
            return
        elif self.is_counting:
            self.messages += 1
            self.times.append(time.perf_counter() - self._sent_at)
        self._buffer = b""
        self._send()

    def _send(self) -> None:
        text = b"%d of connection %d" % (time.monotonic_ns(), self._number)
        payload = text.ljust(SIZE, b".")
        self._expected = b"\x81" + bytes((SIZE,)) + payload
        self._sent_at = time.perf_counter()
        self.transport.write(b"\x81" + bytes((SIZE | 128,)) + KEY + unmask(KEY, payload))

    def connection_lost(self, error: Exception | None) -> None:
        if not self.has_ended:
            self._fail(self.fault or "the connection was closed")

    def _fail(self, fault: str) -> None:
        self.fault = fault
        self.has_ended = True
        self.transport.abort()


async def main(port: int, connections: int, seconds: float) -> dict[str, object]:
    """Talk for so long, after a tenth of it to warm up."""
    loop = asyncio.get_running_loop()
    talks = [Talk(number) for number in range(connections)]
    for talk in talks:
        await loop.create_connection(lambda talk=talk: talk, "127.0.0.1", port)
    await asyncio.sleep(seconds / 10)
    began = time.perf_counter()
    for talk in talks:
        talk.is_counting = True
    await asyncio.sleep(seconds)
    for talk in talks:
        talk.is_counting, talk.has_ended = False, True
    duration_s = time.perf_counter() - began
    for talk in talks:
        talk.transport.abort()
    times = sorted(one for talk in talks for one in talk.times)
    return {
        "messages": len(times),
        "duration_s": duration_s,
        "p50_us": times[len(times) // 2] * 1e6 if times else 0,
        "p99_us": times[len(times) * 99 // 100] * 1e6 if times else 0,
        "faults": [talk.fault for talk in talks if talk.fault],
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))))
