"""A share that is changed and a canary that is aborted under load: until when are requests still answered as before?"""

from __future__ import annotations

import contextlib
import http.client
import statistics
import threading
import time
from collections.abc import Iterator

from tests.bench.client import FIRST_USER, Door, WrongAnswerError, ask
from tests.bench.peers.job import Job, Peer
from tests.bench.workload import user_id

CONNECTIONS = 4  # of the prober: old workers may serve those that they have
PAUSE_S = 0.002
AFTER_S = 0.5  # that is watched after a change has been seen
PATIENCE_S = 30.0
ALL = 100


class Prober:
    """Asks for one user again and again, in turn over a few kept connections."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._arms = {body: arm for arm, body in door.workload.answers().items()}
        self._connections = [door.open() for _ in range(CONNECTIONS)]
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.user = ""
        self.seen: list[tuple[float, str]] = []  # when it was asked for, and the version that answered
        self.error: Exception | None = None

    def arm_of(self, user: str, connection: http.client.HTTPConnection | None = None) -> str:
        """Who answers a user now; once more if the connection was closed meanwhile, as every client does."""
        connection = connection or self._connections[0]
        for last in (False, True):
            try:
                status, body = ask(connection, self._door.workload, user)
                break
            except (http.client.HTTPException, ConnectionError):
                connection.close()
                if last:
                    raise
        if status != 200 or body not in self._arms:
            raise WrongAnswerError(f"expected 200 and a backend's bytes, got {status} {body[:80]!r}")
        return self._arms[body]

    def _run(self) -> None:
        try:
            while not self._has_ended.wait(PAUSE_S):
                for connection in self._connections:
                    user, asked_at = self.user, time.monotonic()
                    self.seen.append((asked_at, self.arm_of(user, connection)))
        except (OSError, http.client.HTTPException, WrongAnswerError) as error:
            self.error = error

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Ask while the block runs.

        Raises:
            WrongAnswerError: At its end, if something else was answered than a backend's bytes.
        """
        self._thread.start()
        try:
            yield
        finally:
            self._has_ended.set()
            self._thread.join()
            for connection in self._connections:
                connection.close()
        if self.error is not None:
            raise WrongAnswerError(f"during a change: {self.error}") from self.error

    def last_of(self, arm: str, since: float) -> float:
        """Seconds from a moment until the last request that this version answered; 0 if there was none.

        Raises:
            WrongAnswerError: It still answers after a long time.
        """
        deadline = since + PATIENCE_S
        while time.monotonic() < deadline and self.error is None:
            asked = [asked_at for asked_at, seen in self.seen if asked_at > since and seen == arm]
            last = max(asked, default=since)
            others = [asked_at for asked_at, seen in self.seen if asked_at > last and seen != arm]
            if others and time.monotonic() - last > AFTER_S:
                return last - since
            time.sleep(0.05)
        raise WrongAnswerError(f"the change was not in force within {PATIENCE_S:g} s")


def changes(door: Door, peer: Peer, job: Job, pid: int) -> dict[str, float]:
    """Everybody to the canary and back, twice, then nobody, then as before; times in milliseconds."""
    percent = job.canary_percent
    prober = Prober(door)
    candidates = [user_id(FIRST_USER + number) for number in range(200)]
    arms = {user: prober.arm_of(user) for user in candidates}
    stable, canary = (next(user for user in candidates if arms[user] == arm) for arm in ("stable", "canary"))
    prober.user = stable

    def change(share: int, before: str) -> float:
        since = time.monotonic()
        peer.change(job, pid, share)
        return prober.last_of(before, since) * 1e3

    with prober.running():
        times = [change(*step) for step in ((ALL, "stable"), (percent, "canary")) * 2]
        prober.user = canary
        time.sleep(AFTER_S / 5)  # until its first answers are those of this user
        abort_ms = change(0, "canary")
        change(percent, "stable")
    return {"change_ms": statistics.median(times), "slowest_ms": max(times), "abort_ms": abort_ms}
