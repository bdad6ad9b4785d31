"""The access log: one JSON object a line, written by a thread of its own, so that a slow reader blocks no request."""

from __future__ import annotations

import json
import os
import select
import stat
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from proxy.errors import ProxyError
from proxy.http1 import Request

if TYPE_CHECKING:
    from proxy.net.relay import Relay

MAX_WAITING = 16_384  # lines; at 10,000 requests a second a reader may stall for over a second
FLUSH_S = 0.1
_LINE_END = 0x0A
_FILE_BLOCK = 1_048_576
_TARGET_SHOWN = 2048  # bytes of a target that a line shows

Line = tuple[Any, ...]


class AccessLog:
    """Collects what happened and writes it elsewhere.

    Args:
        descriptor: Where to write, or None for no log.
        dropped: Called for each line that found no room.
    """

    def __init__(self, descriptor: int | None, dropped: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._dropped = dropped
        self._lines: list[Line] = []
        self._wake = threading.Event()
        self._stopped = False
        # A pipe is shared by all workers: only what is written at once stays in one piece.
        is_pipe = descriptor is not None and stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        self._most = select.PIPE_BUF if is_pipe else _FILE_BLOCK
        self._is_torn = False  # part of a line was written before a disk was full
        self._thread: threading.Thread | None = None
        if descriptor is not None:
            self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
            self._thread.start()

    def exchange(self, wall_s: float, relay: Relay, seconds: float) -> None:
        """One exchange that a service had a part in."""
        if self._descriptor is None:
            return
        request = relay.request
        self._add(
            (wall_s, relay.client_text, request.method, request.host, request.target, relay.status, relay.sent,
             relay.received, seconds, relay.upstream_s, relay.request_id, relay.arm.name, relay.reason,
             relay.generation, relay.endpoint_text, relay.exchange.attempts)
        )  # fmt: skip

    def local(self, wall_s: float, peer: str, request: Request, status: int, request_id: bytes, seconds: float) -> None:
        """An answer of the proxy's own."""
        if self._descriptor is not None:
            self._add(
                (wall_s, peer, request.method, request.host, request.target, status, 0, 0, seconds, 0.0, request_id)
            )

    def refused(self, wall_s: float, peer: str, error: ProxyError, request_id: bytes) -> None:
        """Bytes that were no request."""
        if self._descriptor is not None:
            self._add((wall_s, peer, b"", b"", b"", error.status, 0, 0, 0.0, 0.0, request_id, str(error)))

    def _add(self, line: Line) -> None:
        if len(self._lines) >= MAX_WAITING:
            self._dropped()
        else:
            self._lines.append(line)

    def _run(self) -> None:
        while not self._stopped:
            self._wake.wait(FLUSH_S)
            self.flush()

    def flush(self) -> None:
        """Write what waits; what cannot be written is dropped and counted."""
        lines, self._lines = self._lines, []
        if self._descriptor is None:
            return
        for block in _blocks([format_line(line) for line in lines], self._most):
            self._write(block)

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
        self._stopped = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join(1.0)


def _blocks(lines: Iterable[bytes], most: int) -> Iterator[bytes]:
    """Whole lines in blocks of at most so many bytes; a line that is longer is one by itself."""
    block: list[bytes] = []
    size = 0
    for line in lines:
        if block and size + len(line) > most:
            yield b"".join(block)
            block, size = [], 0
        block.append(line)
        size += len(line)
    if block:
        yield b"".join(block)


def format_line(line: Line) -> bytes:
    """One line of the log; bytes of a peer are latin-1 with JSON's escapes, so no peer can add or break a line."""
    wall_s, client, method, host, target, status, sent, received, seconds, upstream_s, request_id, *rest = line
    record: dict[str, Any] = {
        "time": round(wall_s, 3),
        "client": client,
        "method": method.decode("latin-1"),
        "host": host.decode("latin-1"),
        "target": target[:_TARGET_SHOWN].decode("latin-1"),
        "status": status,
        "sent": sent,
        "received": received,
        "seconds": round(seconds, 6),
        "upstreamSeconds": round(upstream_s, 6),
        "requestId": request_id.decode("latin-1"),
    }
    if len(rest) == 1:
        record["refused"] = rest[0]
    elif rest:
        arm, reason, generation, endpoint, attempts = rest
        record |= {"arm": arm, "reason": reason, "generation": generation, "endpoint": endpoint, "attempts": attempts}
    return json.dumps(record, separators=(",", ":")).encode() + b"\n"
