"""Watches a worker from outside while a case runs: its memory, its life, and whether its loop ever stands still."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path

PERIOD_S = 0.02
PATIENCE_S = 5.0
PING = b"OPTIONS * HTTP/1.1\r\nHost: ping\r\n\r\n"  # answered by the proxy itself and counted nowhere
PAGE_BYTES = 4096


class Watch(threading.Thread):
    """Asks the proxy for ``OPTIONS *`` all the time on one connection.

    A late answer counts as a blocked loop only for the time in which both the worker and this thread had a processor:
    what the scheduler gave to others is nobody's fault.
    """

    def __init__(self, port: int, pid: int) -> None:
        super().__init__(name=f"watch-{pid}", daemon=True)
        self._port = port
        self._process = Path(f"/proc/{pid}")
        self._end = threading.Event()
        self._lock = threading.Lock()
        self._blocked_s = 0.0
        self._peak = 0
        self._trouble = ""
        self._base = self.resident

    @property
    def resident(self) -> int:
        """Bytes of the worker in memory, 0 if it is gone."""
        with contextlib.suppress(OSError):
            return int((self._process / "statm").read_text().split()[1]) * PAGE_BYTES
        return 0

    def begin(self) -> None:
        """A case begins."""
        with self._lock:
            self._blocked_s = 0.0
            self._trouble = ""
            self._base = self._peak = self.resident

    def told(self) -> tuple[float, int, str]:
        """Since `begin`: the longest block in seconds, growth of memory in bytes, and what else was wrong."""
        with self._lock:
            return self._blocked_s, self._peak - self._base, self._trouble

    def run(self) -> None:
        """Until `stop`."""
        while not self._end.is_set():
            answers = 0
            try:
                with socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE_S) as sock:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    while not self._end.wait(PERIOD_S):
                        self._ping(sock)
                        answers += 1
            except OSError as error:
                if answers and isinstance(error, ConnectionError):
                    continue  # idle for too long, where this thread had no processor: the next connection tells
                with self._lock:
                    self._trouble = f"the proxy does not answer: {error!r}"
                self._end.wait(PERIOD_S)

    def _ping(self, sock: socket.socket) -> None:
        waited = self._waited_s()
        began = time.monotonic()
        sock.sendall(PING)
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = sock.recv(4096)
            if not part:
                raise ConnectionResetError("closed")
            answer += part
        blocked = time.monotonic() - began - (self._waited_s() - waited)
        with self._lock:
            self._blocked_s = max(self._blocked_s, blocked)
            self._peak = max(self._peak, self.resident)

    def _waited_s(self) -> float:
        """How long the worker and this thread have waited for a processor, in total."""
        total = 0
        for path in (self._process / "schedstat", Path("/proc/thread-self/schedstat")):
            with contextlib.suppress(OSError, ValueError, IndexError):
                total += int(path.read_text().split()[1])
        return total / 1e9

    def stop(self) -> None:
        """End it."""
        self._end.set()
        self.join()
