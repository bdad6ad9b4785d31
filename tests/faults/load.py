"""The load: an open loop of requests from a process of its own, so that nothing that is measured disturbs it.

Started as ``python -m tests.faults.load ROWS``; the first line on standard input is the mix, later ones change it
(``{"ports": [...]}``, ``{"rate": 100}``, ``{"paused": true}``) or end it (``{"stop": true}``). The rows go to the file
ROWS at the end.
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from tests.faults.client import Answer, Connection, Fault, Pool
from tests.faults.frames import CLOSE, TEXT, client_frame, read_frame
from tests.faults.ledger import Row

POST_BYTES = 4096
MIX_BYTES = 1 << 24  # a mix with ten thousand cookies
CHUNK_S = 0.1  # between the pieces of an upload
SOCKET_S = 0.2  # between the messages of a WebSocket


@dataclass(frozen=True)
class Mix:
    """What is sent. The shares and long requests are those of the fault table's preamble.

    Attributes:
        ports: Of proxies on loopback; each request takes one of them by chance.
        rate: Requests a second, beside the long ones.
        cookies: A Cookie header's value for each user, who takes what answers set; empty: ``uid=u0`` and so on for as
            many as ``users`` says.
        upload_s, stream_s: How long one upload and one event stream last; one of each at any time, 0 for none.
        sockets: WebSockets open at any time.
        ca: File of the authority that the proxies' certificates come from; empty: plain HTTP.
    """

    ports: list[int]
    rate: float
    connections: int = 32
    new_share: float = 0.1
    post_share: float = 0.1
    users: int = 10_000
    cookies: tuple[str, ...] = ()
    upload_s: float = 8.0
    stream_s: float = 10.0
    sockets: int = 2
    timeout_s: float = 20.0
    path: str = "/"
    ca: str = ""
    seed: int = 7


class Generator:
    """Sends by the mix until told to stop."""

    def __init__(self, mix: Mix) -> None:
        self._mix = mix
        self._ports = list(mix.ports)
        self._rate = mix.rate
        self._rng = random.Random(mix.seed)
        self._tls = ssl.create_default_context(cafile=mix.ca) if mix.ca else None
        self._pool = Pool(mix.connections, self._tls)
        self._stopping = asyncio.Event()
        self._count = 0
        self._is_paused = False
        self._jar = {f"u{number}": cookie for number, cookie in enumerate(mix.cookies)}
        self.rows: list[Row] = []

    def obey(self, message: dict[str, object]) -> None:
        """A line from whoever started us."""
        if "ports" in message:
            self._ports = list(message["ports"])  # type: ignore[call-overload]
        if "rate" in message:
            self._rate = float(message["rate"])  # type: ignore[arg-type]
        if "paused" in message:
            self._is_paused = bool(message["paused"])
        if "stop" in message:
            self._stopping.set()

    async def run(self) -> None:
        """Send until stopped, then wait for what is under way."""
        mix = self._mix
        async with asyncio.TaskGroup() as tasks:
            if mix.upload_s:
                tasks.create_task(self._again("upload", mix.upload_s, self._upload))
            if mix.stream_s:
                tasks.create_task(self._again("stream", mix.stream_s, self._stream))
            for _ in range(mix.sockets):
                tasks.create_task(self._again("socket", 0.0, self._socket))
            await self._pace(tasks)
        await self._pool.close()

    async def _pace(self, tasks: asyncio.TaskGroup) -> None:
        due = time.monotonic()
        while not self._stopping.is_set():
            now = time.monotonic()
            while due <= now:
                if not self._is_paused:
                    tasks.create_task(self._one(due))
                due += 1 / self._rate
            await asyncio.sleep(min(due - now, 0.05))

    async def _again(self, kind: str, seconds: float, send: Callable[[int, str, str], Awaitable[Answer]]) -> None:
        """One long request after another, as long as there is time for a whole one."""
        while not self._stopping.is_set():
            began = time.monotonic()
            patience_s = seconds + self._mix.timeout_s if kind != "socket" else None  # each message has its own
            await self._record(kind, began, send, patience_s)
            if time.monotonic() - began < 0.1:  # refused: a client waits before it comes again
                await asyncio.sleep(0.1)

    async def _one(self, intended: float) -> None:
        drawn = self._rng.random()
        if drawn < self._mix.new_share:
            await self._record("new", intended, self._new, self._mix.timeout_s)
        elif drawn < self._mix.new_share + self._mix.post_share:
            await self._record("post", intended, self._kept_post, self._mix.timeout_s)
        else:
            await self._record("get", intended, self._kept, self._mix.timeout_s)

    async def _record(
        self, kind: str, intended: float, send: Callable[[int, str, str], Awaitable[Answer]], patience_s: float | None
    ) -> None:
        self._count += 1
        nonce, number = f"n{self._mix.seed}-{self._count}", self._count
        user = f"u{number % (len(self._jar) or self._mix.users)}"
        sent, outcome, detail = time.monotonic(), "ok", ""
        answer = Answer()
        try:
            async with asyncio.timeout(patience_s):
                answer = await send(self._rng.choice(self._ports), nonce, user)
            outcome, detail = judge(answer, nonce)
        except Fault as fault:
            outcome, detail, answer = fault.outcome, str(fault), fault.answer or answer
        except TimeoutError:
            outcome = "timeout"
        said = answer.fields
        if self._jar and "set-cookie" in said:
            self._jar[user] = said["set-cookie"].split(";")[0]
        self.rows.append(
            Row(
                kind, nonce, user, intended, sent, time.monotonic(), outcome, answer.status,
                said.get("x-cohort-arm", ""), said.get("x-cohort-reason", ""),
                int(said.get("x-cohort-generation", 0)), said.get("x-endpoint", ""), detail,
            )
        )  # fmt: skip

    def _head(self, method: str, nonce: str, user: str, *more: str, path: str = "") -> bytes:
        first = f"{method} {path or self._mix.path} HTTP/1.1"
        staff = ("X-Staff: yes",) if is_staff(user) else ()
        fields = (
            "Host: shop",
            f"X-Nonce: {nonce}",
            f"Cookie: {self._jar.get(user, f'uid={user}')}",
            "X-Cohort-Explain: 1",
            *staff,
            *more,
        )
        return "\r\n".join((first, *fields, "", "")).encode()

    # --- short requests

    async def _kept(self, port: int, nonce: str, user: str) -> Answer:
        return await self._on_kept(port, self._head("GET", nonce, user))

    async def _kept_post(self, port: int, nonce: str, user: str) -> Answer:
        head = self._head("POST", nonce, user, f"Content-Length: {POST_BYTES}")
        return await self._on_kept(port, head + nonce.encode().ljust(POST_BYTES, b"."))

    async def _on_kept(self, port: int, data: bytes) -> Answer:
        connection = await self._pool.take(port)
        is_kept = False
        try:
            connection.send(data)
            answer = await connection.answer()
            is_kept = answer.keeps
            return answer
        finally:
            if is_kept:
                self._pool.give(port, connection)
            else:
                connection.close()

    async def _new(self, port: int, nonce: str, user: str) -> Answer:
        connection = await Connection.open(port, self._tls)
        try:
            connection.send(self._head("GET", nonce, user, "Connection: close"))
            return await connection.answer()
        finally:
            connection.close()

    # --- long ones

    async def _upload(self, port: int, nonce: str, user: str) -> Answer:
        """Pieces in chunks until there is an answer, which may come early; the service says how much came."""
        connection = await Connection.open(port, self._tls)
        answering = asyncio.create_task(connection.answer())
        count = round(self._mix.upload_s / CHUNK_S)
        try:
            connection.send(self._head("POST", nonce, user, "Transfer-Encoding: chunked", path="/upload"))
            for _ in range(count):
                connection.send(b"400\r\n%b\r\n" % (b"u" * 1024))
                if (await asyncio.wait([answering], timeout=CHUNK_S))[0]:
                    break
            connection.send(b"0\r\n\r\n")
            answer = await answering
        finally:
            answering.cancel()
            connection.close()
        if answer.status == 200 and answer.fields.get("x-received") != str(count * 1024):
            raise Fault("truncated", f"the service took {answer.fields.get('x-received')} of {count * 1024} bytes")
        return answer

    async def _stream(self, port: int, nonce: str, user: str) -> Answer:
        """Events without an end that the framing tells, until the last one says that it is the last."""
        connection = await Connection.open(port, self._tls)
        try:
            path = f"/stream/{self._mix.stream_s:g}"
            connection.send(self._head("GET", nonce, user, "Accept: text/event-stream", path=path))
            answer = await connection.answer()
            if answer.status == 200 and not answer.body.endswith(b"data: end\n\n"):
                raise Fault("wrong nonce", "a whole answer without its last event")
            return answer
        finally:
            connection.close()

    async def _socket(self, port: int, nonce: str, user: str) -> Answer:
        """Messages that come back, until we stop: ended by a close of ours, or by one of the other side."""
        connection = await Connection.open(port, self._tls)
        try:
            lines = (
                "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            )  # fmt: skip
            connection.send(self._head("GET", nonce, user, *lines, path="/socket"))
            answer = await connection.head()
            if answer.status != 101:
                async for part in connection.parts(answer):
                    answer.body += part
                return answer
            await self._talk(connection, nonce, answer)
            return answer
        finally:
            connection.close()

    async def _talk(self, connection: Connection, nonce: str, answer: Answer) -> None:
        turn = 0
        while not self._stopping.is_set():
            turn += 1
            text = f"{nonce} {turn}".encode()
            connection.send(client_frame(TEXT, text))
            async with asyncio.timeout(self._mix.timeout_s):
                kind, payload = await read_frame(connection.reader)
            if kind == CLOSE:
                answer.fields["x-detail"] = f"closed {int.from_bytes(payload[:2], 'big')}"
                return
            if payload != text:
                raise Fault("wrong nonce", f"{payload[:40]!r} for {text!r}")
            await asyncio.sleep(SOCKET_S)
        connection.send(client_frame(CLOSE, (1000).to_bytes(2, "big")))
        async with asyncio.timeout(self._mix.timeout_s):
            while (await read_frame(connection.reader))[0] != CLOSE:
                pass


def judge(answer: Answer, nonce: str) -> tuple[str, str]:
    """Outcome and detail of an answer that came whole by its framing; its service says how long the body is."""
    fields = answer.fields
    if answer.status >= 400:
        return "status", f"retry after {fields.get('retry-after', 'nothing')}"
    if fields.get("x-nonce") != nonce:
        return "wrong nonce", f"{fields.get('x-nonce')} for {nonce}"
    if int(fields.get("x-body", len(answer.body))) != len(answer.body):
        return "wrong nonce", f"short body: {len(answer.body)} of {fields['x-body']}"
    return "ok", fields.get("x-detail", "")


def is_staff(user: str) -> bool:
    """Every tenth of the users sends a header that routes may look at."""
    return user.endswith("0")


async def main(path: Path) -> None:
    """Read the mix, send, write the rows."""
    reader = asyncio.StreamReader(MIX_BYTES)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    given = json.loads(await reader.readline())
    generator = Generator(Mix(**given | {"cookies": tuple(given["cookies"])}))

    async def obey() -> None:
        while line := await reader.readline():
            generator.obey(json.loads(line))
        generator.obey({"stop": True})  # whoever started us is gone

    obeying = asyncio.create_task(obey())
    print('{"ready":true}', flush=True)
    await generator.run()
    obeying.cancel()
    transport.close()
    path.write_text("".join(json.dumps(row) + "\n" for row in generator.rows))


def mix_line(mix: Mix) -> bytes:
    """The first line for `main`."""
    return json.dumps(asdict(mix)).encode() + b"\n"


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(Path(sys.argv[1])))
