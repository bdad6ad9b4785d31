"""The access log: one JSON object a line, written by a thread of its own, so that a slow reader blocks no request."""

from __future__ import annotations

import os
import select
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from proxy.errors import ProxyError
from proxy.http1 import Request
from proxy.logline import PLAIN_END, Lines, figures, refusal

if TYPE_CHECKING:
    from proxy.net.relay import Relay

MAX_WAITING_BYTES = 8_388_608  # at 10,000 requests a second and 400 bytes a line a reader may stall for two seconds
FLUSH_S = 0.1
TOGETHER = 64  # lines made at once, in 0.1 ms: each alone takes twice as long, because its code is not in the cache
_LINE_END = 0x0A
_FILE_BLOCK = 1_048_576


class AccessLog:
    """Collects lines, which the loop makes, and has a thread write them: none of the loop's time is spent on waiting.

    Args:
        descriptor: Where to write, or None for no log.
        dropped: Called for each line that found no room.
    """

    def __init__(self, descriptor: int | None, dropped: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._dropped = dropped
        self._make = Lines()
        self._ended: list[tuple[float, Relay, float]] = []
        self._waiting: deque[bytes] = deque()  # one or more whole lines each
        # Bytes since the start. Each number is changed by one thread alone, so they need no lock.
        self._added = 0
        self._taken = 0
        self._wake = threading.Event()
        self._stopped = False
        # A pipe is shared by all workers: only what is written at once stays in one piece.
        is_pipe = descriptor is not None and stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        self._most = select.PIPE_BUF if is_pipe else _FILE_BLOCK
        self._is_torn = False  # part of a line was written before a disk was full
        self._writer: threading.Thread | None = None
        if descriptor is not None:
            self._writer = threading.Thread(target=self._run, name="access-log", daemon=True)
            self._writer.start()

    def exchange(self, wall_s: float, relay: Relay, seconds: float) -> None:
        """One exchange that a service had a part in. Cost: its line is made together with others', 2 us each then."""
        if self._descriptor is not None:
            self._ended.append((wall_s, relay, seconds))
            if len(self._ended) >= TOGETHER:
                self.turn()

    def turn(self) -> None:
        """Make the lines of exchanges that have ended; to be called from time to time."""
        ended, self._ended = self._ended, []
        if ended:
            self._add("".join([self._line(*one) for one in ended]), len(ended))

    def _line(self, wall_s: float, relay: Relay, seconds: float) -> str:
        request, make = relay.request, self._make
        return (
            make.beginning(wall_s, relay.client_text, request.method, request.host, request.target)
            + figures(relay.status, relay.sent, relay.received, seconds, relay.upstream_s, relay.request_id)
            + make.tail(relay.arm.name, relay.reason, relay.generation, relay.endpoint_text, relay.exchange.attempts)
        )

    def local(self, wall_s: float, peer: str, request: Request, status: int, request_id: bytes, seconds: float) -> None:
        """An answer of the proxy's own."""
        if self._descriptor is not None:
            self.turn()  # lines of one worker stand in order
            beginning = self._make.beginning(wall_s, peer, request.method, request.host, request.target)
            self._add(beginning + figures(status, 0, 0, seconds, 0.0, request_id) + PLAIN_END)

    def refused(self, wall_s: float, peer: str, error: ProxyError, request_id: bytes) -> None:
        """Bytes that were no request."""
        if self._descriptor is not None:
            self.turn()  # lines of one worker stand in order
            beginning = self._make.beginning(wall_s, peer, b"", b"", b"")
            self._add(beginning + figures(error.status, 0, 0, 0.0, 0.0, request_id) + refusal(str(error)))

    def _add(self, text: str, lines: int = 1) -> None:
        data = text.encode()
        if self._added - self._taken >= MAX_WAITING_BYTES:
            for _ in range(lines):
                self._dropped()
        else:
            self._added += len(data)
            self._waiting.append(data)

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(FLUSH_S)
            self.flush()

    def flush(self) -> None:
        """Write what waits; what cannot be written is dropped and counted."""
        if self._descriptor is None:
            return
        data = b"".join([self._waiting.popleft() for _ in range(len(self._waiting))])
        for block in _blocks(data, self._most):
            self._write(block)
            self._taken += len(block)

    def _write(self, block: bytes) -> None:
        assert self._descriptor is not None
        lines = block.count(b"\n")
        if self._is_torn:
            block = b"\n" + block
        try:
            while block:
                written = os.write(self._descriptor, block)
                self._is_torn = block[written - 1] != _LINE_END
                block = block[written:]
        except OSError:
            for _ in range(min(lines, block.count(b"\n"))):
                self._dropped()

    def close(self) -> None:
        """Write the rest and stop; waits at most a second for a reader that is stuck."""
        self.turn()
        self._stopped = True
        self._wake.set()
        if self._writer is not None:
            self._writer.join(1.0)


def _blocks(data: bytes, most: int) -> Iterator[bytes]:
    """Whole lines in blocks of at most so many bytes; a line that is longer is one by itself."""
    at = 0
    while at < len(data):
        end = data.rfind(b"\n", at, at + most) + 1 or data.find(b"\n", at) + 1
        yield data[at:end]
        at = end
