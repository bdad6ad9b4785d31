"""The service behind the proxy: reads requests strictly or carelessly, answers by a script or with what it got."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.wire.case import Step
from tests.wire.lenient import PERSONALITIES, Incomplete, Seen, read_all
from tests.wire.link import Link, play
from tests.wire.strict import Message, RequestReader, ResponseReader

PROBE = b"/wire-probe/"  # targets of our own requests, which no case counts
BOTH = (b"HTTP/1.1", b"HTTP/1.0")
SHOWN_BYTES = 65_536  # of a body in the echo


@dataclass(frozen=True)
class Script:
    """What a service does for each request, or once for each connection when ``when`` is `connect`."""

    steps: Sequence[Step]
    when: str


class Service:
    """One endpoint.

    Attributes:
        arm: What it says in X-Up.
        gets_copies: What comes here are copies, which no case counts.
        calls: Connections since `begin`, and those before it that are still open.
        script: For the case at hand; None: the reference echo.
        arrived: Requests of the case at hand on all connections, in the order in which their heads came.
    """

    def __init__(self, arm: str, personality: str = "") -> None:
        self.arm = arm
        self.gets_copies = False
        self.personality = personality
        self.calls: list[Call] = []
        self.script: Script | None = None
        self.arrived: list[Message] = []
        self.changed = asyncio.Event()
        self._dropped: list[Call] = []
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self._accepting = asyncio.create_task(self._accept())

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(self._socket)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.calls.append(Call(self, sock))

    def begin(self, script: Script | None, is_fresh: bool) -> None:
        """Start a case: forget what is over, and with ``is_fresh`` end what is idle."""
        self.script = script
        self.arrived = []
        for call in self.calls:
            if is_fresh or call.link.is_over:
                call.drop()
                self._dropped.append(call)
            call.begin()
        self.calls = [call for call in self.calls if not call.link.is_over]

    async def close(self) -> None:
        """Stop listening and end all connections."""
        self._accepting.cancel()
        for call in (*self.calls, *self._dropped):
            await call.close()
        with contextlib.suppress(asyncio.CancelledError):
            await self._accepting
        self._socket.close()


@dataclass
class Written:
    """Bytes of an answer as they left: when, and up to where in the stream."""

    at: float
    end: int


@dataclass
class Call:
    """One connection from the proxy.

    Attributes:
        reader: The strict reading of what came.
        answers: The reading of what was sent back.
        first: The first message of the case at hand.
        is_playing: A script is under way.
        violations: What the proxy did that it must not.
    """

    service: Service
    sock: socket.socket
    reader: RequestReader = field(default_factory=RequestReader)
    answers: ResponseReader = field(default_factory=lambda: ResponseReader(exact=False, versions=BOTH))
    first: int = 0
    begin_at: int = 0
    violations: list[str] = field(default_factory=list)
    writes: list[Written] = field(default_factory=list)
    written_from: int = 0

    def __post_init__(self) -> None:
        self._news = asyncio.Event()
        self._echo_from = -1
        self.is_playing = False
        self._prepaid = False
        self._served = 0
        self.link = Link(self.sock, self._data, self._end, self._written)
        self._serving = asyncio.create_task(self._serve())

    def begin(self) -> None:
        """A case begins: what came before is not of interest any more."""
        self.first = len(self.reader.messages)
        self.begin_at = len(self.reader.stream)
        self.written_from = len(self.answers.stream)
        self.violations = []
        self.writes = []

    # --- what came

    def _data(self, data: bytes) -> None:
        reader = self.reader
        known = len(reader.messages)
        if self.answers.tunnel:
            reader.tunnel = True
        if self.must_close and not reader.tunnel:
            self.violations.append("I5: used again after a response that broke its framing")
        reader.feed(data)
        for message in reader.messages[known:]:
            if self.answers.owed and not self._prepaid:
                self.violations.append("I2: a request before the last one was answered")
            if self._prepaid:
                self._prepaid = False
            else:
                self.answers.expect(message.method)
            if not message.target.startswith(PROBE):
                self.service.arrived.append(message)
        if self._echo_from >= 0:
            self._send_back()
        self._tell()

    def _end(self) -> None:
        self.reader.end(self.link.ended == "reset")
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self.service.changed.set()

    @property
    def requests(self) -> list[Message]:
        """Requests of the case at hand, the last one possibly incomplete."""
        return [message for message in self.reader.messages[self.first :] if not message.target.startswith(PROBE)]

    @property
    def received(self) -> bytes:
        """Bytes of the case at hand, without those of our own requests."""
        stream, kept, at = self.reader.stream, bytearray(), self.begin_at
        for message in self.reader.messages[self.first :]:
            if message.target.startswith(PROBE):
                kept += stream[at : message.begin]
                at = message.end
        return bytes(kept + stream[at:])

    @property
    def sent(self) -> bytes:
        """Bytes sent back in the case at hand."""
        return bytes(self.answers.stream[self.written_from :])

    @property
    def must_close(self) -> bool:
        """The response broke its framing, or ended early: nobody may use this connection again."""
        return self.answers.fault is not None

    @property
    def is_touched(self) -> bool:
        """The case at hand has something to do with it."""
        return bool(self.requests) or self.reader.is_partial or bool(self.writes)

    def misread(self) -> list[str]:
        """Where the careless services read something else than the strict one."""
        if self.reader.fault or self.reader.tunnel:
            return []
        begin = self.reader.messages[self.first].begin if len(self.reader.messages) > self.first else 0
        strict = [Seen.of(message) for message in self.reader.messages[self.first :] if message.complete]
        found = []
        for name, personality in PERSONALITIES.items():
            seen = read_all(personality, bytes(self.reader.stream[begin : self.reader.at])) if strict else []
            if seen != strict:
                found.append(f"I2: a {name} service reads {seen} where a strict one reads {strict}")
        return found

    # --- what is answered

    async def _serve(self) -> None:
        script = self.service.script
        if script is not None and script.when == "connect":
            self.answers.expect(b"GET")  # what is sent now answers the request to come
            self._prepaid = True
            await self._play(script)
        if self.service.personality:
            await self._serve_carelessly(PERSONALITIES[self.service.personality])
            return
        while not self.link.is_over:
            await self._until(lambda: len(self.reader.messages) > self._served or self.reader.fault is not None)
            if self.reader.fault is not None:
                await self.link.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                self.link.do("shut_wr")
                return
            message = self.reader.messages[self._served]
            self._served += 1
            script = self.service.script
            if message.target.startswith(PROBE) or script is None:
                await self._reply(message)
            elif script.when != "connect":
                if script.when == "request":
                    await self._complete(message)
                await self._play(script)

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._news.clear()
            await self._news.wait()

    async def _complete(self, message: Message) -> None:
        await self._until(lambda: message.complete)

    async def _reply(self, message: Message) -> None:
        if b"100-continue" in message.options(b"expect"):
            await self.link.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await self._complete(message)
        await self.link.write(echo(self.service.arm, message))

    async def _serve_carelessly(self, personality: Callable[[bytes, int], tuple[Seen, int]]) -> None:
        """Answer every request that a careless reading finds."""
        at = 0
        if self.service.script is not None:
            raise ValueError("a careless service has no script")
        while not self.link.is_over:
            try:
                seen, at = personality(bytes(self.reader.stream), at)
            except Incomplete:
                self._news.clear()
                await self._news.wait()
                continue
            message = Message(0, 0, b"", [], seen.method, seen.target, body=bytearray(seen.body))
            await self.link.write(echo(self.service.arm, message))

    async def _play(self, script: Script) -> None:
        async def wait(_: int) -> None:
            known = len(self.reader.messages)
            await self._until(lambda: len(self.reader.messages) > known)

        self.is_playing = True
        try:
            await play(script.steps, self.link, wait, self._start_echo)
        finally:
            self.is_playing = False
            self.service.changed.set()
        if self.link.closed:
            self.answers.end(self.link.closed == "rst")
            if self.answers.current is not None:
                self.answers.fault = self.answers.fault or "ended within a response"

    def _start_echo(self) -> None:
        self._echo_from = self.reader.messages[-1].end if self.reader.messages else 0
        self.reader.tunnel = True
        self._send_back()

    def _send_back(self) -> None:
        data = bytes(self.reader.stream[self._echo_from :])
        self._echo_from += len(data)
        with contextlib.suppress(OSError):
            self.link.sock.send(data)

    def _written(self, data: bytes) -> None:
        """Read an answer as it leaves."""
        self.answers.feed(data)
        self.writes.append(Written(time.monotonic(), len(self.answers.stream)))

    def drop(self) -> None:
        """End it, and wait for nothing."""
        self._serving.cancel()
        if not self.link.is_over or not self.link.closed:
            self.link.do("close")

    async def close(self) -> None:
        """End it."""
        self.drop()
        await asyncio.gather(self._serving, return_exceptions=True)
        await self.link.close()


def echo(arm: str, message: Message) -> bytes:
    """The reference answer: what was got, as JSON, with the version's name beside it."""
    body = json.dumps(
        {
            "up": arm,
            "method": message.method.decode("latin-1"),
            "target": message.target.decode("latin-1"),
            "fields": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in message.fields],
            "body": message.body[:SHOWN_BYTES].decode("latin-1"),
            "bodyBytes": len(message.body),
        }
    ).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Up: %b\r\nContent-Length: %d\r\n\r\n"
    head %= (arm.encode(), len(body))
    return head if message.method == b"HEAD" else head + body
