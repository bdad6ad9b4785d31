"""One client connection: a request out, an answer in, and what became of it. It trusts nothing that it is told."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

LIMIT_BYTES = 1 << 20  # what is read ahead of a stream
IDLE_S = 60.0  # below the proxy's 75 s: a connection that both sides may end at once is a race that nobody can win


class Fault(Exception):
    """The request did not come back whole; ``outcome`` says how, ``answer`` what had come."""

    def __init__(self, outcome: str, detail: str, answer: Answer | None = None) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.answer = answer


@dataclass
class Answer:
    """A head, with what came of the body."""

    status: int = 0
    fields: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    keeps: bool = True


class Connection:
    """A connection that may be used for one request after another."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, tls: ssl.SSLContext | None = None, name: str = "shop") -> Connection:
        """Connect, over TLS to a proxy that proves a name if there is a context.

        Raises:
            Fault: `refused` or `reset`.
        """
        try:
            more = {"ssl": tls, "server_hostname": name} if tls else {}
            return cls(*await asyncio.open_connection("127.0.0.1", port, limit=LIMIT_BYTES, **more))
        except ConnectionRefusedError as error:
            raise Fault("refused", str(error)) from None
        except OSError as error:
            raise Fault("reset", f"connecting: {error}") from None

    @property
    def is_over(self) -> bool:
        """The other side has ended it already: a client that looks would not use it."""
        return self.reader.at_eof() or self.reader.exception() is not None or self.writer.is_closing()

    def close(self) -> None:
        self.writer.close()

    def send(self, data: bytes) -> None:
        """Write; where the connection has ended, whoever reads next finds out."""
        if not self.writer.is_closing():
            self.writer.write(data)

    async def head(self) -> Answer:
        """The final head, interim ones skipped.

        Raises:
            Fault: `reset`: the connection ended first.
        """
        try:
            while True:
                head = await self.reader.readuntil(b"\r\n\r\n")
                first, *lines = head[:-4].decode("latin-1").split("\r\n")
                status = int(first.split(" ")[1])
                if status >= 200 or status == 101:
                    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                    return Answer(status, fields, keeps=fields.get("connection", "").lower() != "close")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError) as error:
            raise Fault("reset", f"before a head: {error}") from None

    async def parts(self, answer: Answer) -> AsyncIterator[bytes]:
        """The body as it comes, by its own framing.

        Raises:
            Fault: `truncated`: the connection ended first.
        """
        reader = self.reader
        try:
            if "chunked" in answer.fields.get("transfer-encoding", ""):
                while size := int((await reader.readuntil(b"\r\n"))[:-2], 16):
                    yield (await reader.readexactly(size + 2))[:-2]
                while await reader.readuntil(b"\r\n") != b"\r\n":
                    pass
            elif (length := answer.fields.get("content-length")) is not None:
                yield await reader.readexactly(int(length))
            else:
                answer.keeps = False
                while data := await reader.read(65_536):
                    yield data
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError) as error:
            raise Fault("truncated", f"in a body: {error}", answer) from None

    async def answer(self) -> Answer:
        """A whole answer.

        Raises:
            Fault: `reset` or `truncated`.
        """
        found = await self.head()
        async for part in self.parts(found):
            found.body += part
        return found


class Pool:
    """Kept connections: the one used last is used first, and one more is opened when all are busy."""

    def __init__(self, size: int, tls: ssl.SSLContext | None) -> None:
        self._size = size
        self._tls = tls
        self._idle: list[tuple[int, float, Connection]] = []

    async def take(self, port: int) -> Connection:
        """An idle connection to this port, or a new one.

        Raises:
            Fault: As `Connection.open`.
        """
        while self._idle:
            to, since, connection = self._idle.pop()
            if to == port and time.monotonic() - since < IDLE_S and not connection.is_over:
                return connection
            connection.close()
        return await Connection.open(port, self._tls)

    def give(self, port: int, connection: Connection) -> None:
        """Put one back whose answer was complete."""
        if len(self._idle) < self._size:
            self._idle.append((port, time.monotonic(), connection))
        else:
            connection.close()

    async def close(self) -> None:
        for _, _, connection in self._idle:
            connection.close()
        for _, _, connection in self._idle:
            with contextlib.suppress(OSError):
                await connection.writer.wait_closed()
