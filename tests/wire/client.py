"""A raw client: sends what a script says and reads what comes back strictly, knowing the method of each request."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.wire.case import Step
from tests.wire.link import Link, play
from tests.wire.secure import Secure
from tests.wire.service import PROBE
from tests.wire.strict import ClientRequestReader, Message, ResponseReader

CONNECT_S = 5.0
ALERT = b"\x15"  # the type of a record, RFC 8446 section 5.1
SCANNED_BYTES = 262_144  # of what is sent: methods of requests further back are not needed by any case


class Client:
    """One client connection.

    Attributes:
        reader: The strict reading of the answers.
        final_at: When each final response was complete, monotonic seconds.
        is_done: The script has been carried out.
        arrivals: When bytes came, and up to where.
        changed: Set whenever anything happens.
        is_raw: What is sent goes to a port with TLS as it is.
    """

    def __init__(
        self, sock: socket.socket, changed: asyncio.Event, versions: Sequence[bytes], secure: Secure | None = None
    ) -> None:
        self.reader = ResponseReader(versions=versions)
        self.final_at: list[float] = []
        self.arrivals: list[tuple[float, int]] = []
        self.is_done = self.is_raw = False
        self.changed = changed
        self._sent = ClientRequestReader()
        self._expected = 0
        self._waited = 0
        self._concluded: tuple[int, int, int, bool, str] | None = None
        self._news = asyncio.Event()
        self.link = Link(sock, self._data, self._end, self._written, secure)

    @classmethod
    async def connect(
        cls,
        port: int,
        changed: asyncio.Event,
        versions: Sequence[bytes] = (b"HTTP/1.1",),
        tls: Mapping[str, Any] | None = None,
    ) -> Client:
        """Open a connection on loopback, for answers of these versions; ``tls`` as in `Secure`."""
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
                secure = None if tls is None else Secure(tls)
                is_agreed = secure is None or await secure.shake(sock)
        except BaseException:
            sock.close()
            raise
        client = cls(sock, changed, versions, secure if is_agreed else None)
        if not is_agreed:
            client.link.do("shut_wr")  # what the script sends goes nowhere
        return client

    def conclude(self) -> None:
        """The case is over: what comes or is done from here on is not part of it."""
        state = (len(self.reader.finals), len(self.reader.stream), len(self.link.sent), *self._end_state())
        self._concluded = self._concluded or state

    def _end_state(self) -> tuple[bool, str]:
        return self.link.is_over, self.link.closed

    @property
    def finals(self) -> list[Message]:
        """Final responses of the case, the last one possibly incomplete."""
        return self.reader.finals[: self._concluded[0] if self._concluded else None]

    @property
    def received(self) -> bytes:
        """All bytes that came in the case."""
        return bytes(self.reader.stream[: self._concluded[1] if self._concluded else None])

    @property
    def sent(self) -> bytes:
        """All bytes of the case."""
        return bytes(self.link.sent[: self._concluded[2] if self._concluded else None])

    @property
    def is_over(self) -> bool:
        """Closed, by whichever side."""
        return self._concluded[3] if self._concluded else self.link.is_over

    @property
    def closed(self) -> str:
        """What this side did to the connection in the case: one of `case.VERBS`, or nothing."""
        return self._concluded[4] if self._concluded else self.link.closed

    def _written(self, data: bytes) -> None:
        """Find the requests in what is sent, as far as they can be told."""
        if self._sent.fault is None and len(self._sent.stream) < SCANNED_BYTES:
            self._sent.feed(data[:SCANNED_BYTES])
        methods = [message.method for message in self._sent.messages]
        if self._sent.fault is not None:
            words = bytes(self._sent.stream[self._sent.at : self._sent.at + 64]).split()
            methods.append(b"HEAD?" if b"HEAD" in words else b"GET")
        for method in methods[self._expected :]:
            self.reader.expect(method)
        self._expected = len(methods)

    def _data(self, data: bytes) -> None:
        if self.is_raw and not self.reader.stream and data[:1] == ALERT:
            return  # what TLS says to bytes that are none; no answer in the sense of HTTP
        self.reader.feed(data)
        now = time.monotonic()
        self.arrivals.append((now, len(self.reader.stream)))
        self._note(now)

    def _end(self) -> None:
        self.reader.end(self.link.ended == "reset")
        self._note(time.monotonic())

    def _note(self, now: float) -> None:
        complete = sum(message.complete for message in self.reader.finals)
        self.final_at += [now] * (complete - len(self.final_at))
        self._news.set()
        self.changed.set()

    async def run(self, steps: Sequence[Step]) -> None:
        """Carry out a script."""
        try:
            await play(steps, self.link, self._wait, bytes)
        finally:
            self.is_done = True
            self.changed.set()

    async def _wait(self, status: int) -> None:
        """Until one more final response is complete, or an interim one is there, or the end."""
        self._waited += status in (0, 101)
        while not self.link.ended and self.reader.fault is None:
            if status in (0, 101):
                if len(self.final_at) >= self._waited:
                    return
            elif any(message.status == status for message in self.reader.messages):
                return
            self._news.clear()
            await self._news.wait()

    async def ask(self, nonce: bytes, host: bytes, within_s: float) -> str:
        """One more request with a nonce on this connection; returns what is wrong with the answer, or nothing."""
        self.conclude()
        known = len(self.reader.finals)
        await self.link.write(b"GET %b%b HTTP/1.1\r\nHost: %b\r\n\r\n" % (PROBE, nonce, host))
        try:
            async with asyncio.timeout(within_s):
                while len(self.final_at) <= known and not self.link.ended and self.reader.fault is None:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return f"no answer within {within_s:g} s"
        answers = self.reader.finals[known:]
        if self.reader.fault is not None:
            return f"an answer that is no HTTP: {self.reader.fault}"
        if len(answers) != 1 or not answers[0].complete:
            return f"{len(answers)} answers, connection {self.link.ended or 'open'}"
        if answers[0].status != 200 or PROBE + nonce not in answers[0].body:
            return f"{answers[0].status} with {bytes(answers[0].body[:200])!r}"
        return ""

    async def close(self) -> None:
        """Let go of the connection."""
        self.conclude()
        await self.link.close()
