"""One end of one TCP connection, with everything a script may do to it, resets included."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from tests.wire.case import Await, Do, Drip, Echo, Pause, Step, Write
from tests.wire.secure import Secure

READ_BYTES = 65_536
WRITE_BYTES = 16_384  # at once: what is written is taken apart too, which takes longer than writing it
DRIP_S = 15.0  # the format's bound on a drip without a number
WAIT_S = 15.0  # and ours on a wait
_RESET = struct.pack("ii", 1, 0)


class Link:
    """A socket, a task that reads it, and what has been seen of the other side.

    Attributes:
        ended: `""` while the other side may still send, then `eof` or `reset`.
        ended_at: When that was, monotonic seconds.
        closed: What this side has done: `""`, `shut_wr`, `close` or `rst`.
        sent: Bytes handed to the kernel.
        sent_at: When the last of them were.
        is_blocked: A write waits for the other side to read.

    Args:
        on_data: Called with the bytes of each read.
        on_end: Called once the other side has closed or reset.
        on_write: Called with bytes that are about to be sent.
        secure: TLS, its handshake done; ``sent`` and what is called hear of what is inside.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_data: Callable[[bytes], None],
        on_end: Callable[[], None],
        on_write: Callable[[bytes], object] = bytes,
        secure: Secure | None = None,
    ) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.ended = ""
        self.ended_at = 0.0
        self.closed = ""
        self.sent = bytearray()
        self.sent_at = time.monotonic()
        self.is_blocked = False
        self.progress_at = self.sent_at
        self._on_data = on_data
        self._on_end = on_end
        self._on_write = on_write
        self._secure = secure
        self._may_read = asyncio.Event()
        self._may_read.set()
        self._reading = asyncio.create_task(self._read())

    @property
    def is_over(self) -> bool:
        """Nothing more will come."""
        return bool(self.ended) or self.closed in ("close", "rst")

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._may_read.wait()
                data = await loop.sock_recv(self.sock, READ_BYTES)
                if not data:
                    # Without close_notify it is as if it had been reset: what came may be part of what was sent.
                    self.ended = "eof" if self._secure is None or self._secure.is_over else "reset"
                    break
                if self._secure is not None:
                    data = self._secure.opened(data)
                if data:
                    self._on_data(data)
        except OSError:
            self.ended = "reset"
        self.ended_at = time.monotonic()
        self._on_end()

    async def write(self, data: bytes) -> None:
        """Send bytes; what cannot be sent any more is lost silently, as on a real wire."""
        loop = asyncio.get_running_loop()
        view = memoryview(data)
        try:
            while view and self.closed not in ("shut_wr", "close", "rst"):
                self.is_blocked = True
                part = view[:WRITE_BYTES]
                self._on_write(bytes(part))
                await loop.sock_sendall(self.sock, self._secure.sealed(bytes(part)) if self._secure else part)
                self.is_blocked = False
                self.sent += part
                self.sent_at = self.progress_at = time.monotonic()
                view = view[WRITE_BYTES:]
                if view:
                    await asyncio.sleep(0)  # others have cases too
        except OSError:
            pass
        finally:
            self.is_blocked = False

    def taken(self) -> int:
        """Bytes that the other side has read: what was sent, without what lies in the queues of the kernel."""
        here, there = (f"{port:04X}" for _, port in (self.sock.getsockname(), self.sock.getpeername()))
        waiting = 0
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, local, remote, _, queues, *_ = line.split()
            unsent, _, unread = queues.partition(":")
            ports = (local.partition(":")[2], remote.partition(":")[2])
            if ports == (here, there):
                waiting += int(unsent, 16)
            elif ports == (there, here):
                waiting += int(unread, 16)
        return len(self.sent) - waiting

    def do(self, verb: str) -> None:
        """One of `case.VERBS`."""
        if verb == "stop_read":
            self._may_read.clear()
        elif verb == "resume_read":
            self._may_read.set()
        elif verb == "shut_wr":
            self.closed = self.closed or "shut_wr"
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)
        else:
            self.closed = verb
            if verb == "rst":
                with contextlib.suppress(OSError):
                    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._forget()
            self._reading.cancel()
            self.sock.close()

    def _forget(self) -> None:
        """Let the loop forget the socket now: by the time it would by itself, another one may have its number."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self.sock)
        loop.remove_writer(self.sock)

    async def close(self) -> None:
        """Let go of the socket, whatever state it is in."""
        if self.closed not in ("close", "rst"):
            self.do("close")
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading


async def play(
    steps: Sequence[Step], link: Link, wait: Callable[[int], Awaitable[None]], echo: Callable[[], object]
) -> None:
    """Carry out a script whose strings are filled in.

    Args:
        wait: For an interim status, or one more response where it is 0.
        echo: Begin to send back what comes.
    """
    for step in steps:
        if isinstance(step, Write):
            await _write(step, link)
        elif isinstance(step, Pause):
            await asyncio.sleep(step.ms / 1000)
        elif isinstance(step, Await):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wait(step.status), WAIT_S)
        elif isinstance(step, Drip):
            await _drip(step, link)
        elif isinstance(step, Do):
            link.do(step.verb)
        elif isinstance(step, Echo):
            echo()


async def _write(step: Write, link: Link) -> None:
    data = step.data
    if not step.split:
        await link.write(data)
        return
    for at in range(0, len(data), step.split):
        if link.is_over:
            return
        await link.write(data[at : at + step.split])
        await asyncio.sleep(0.001)


async def _drip(step: Drip, link: Link) -> None:
    began = time.monotonic()
    dripped = 0
    while not link.is_over and (dripped < step.times if step.times else time.monotonic() - began < DRIP_S):
        await link.write(step.text.encode("latin-1"))
        dripped += 1
        await asyncio.sleep(step.every_ms / 1000)
    if not step.times:
        link.sent_at = began  # a time-out in total counts from where the dripping began
