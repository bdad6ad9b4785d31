"""Active checks: each endpoint of an arm with `healthCheck` is asked at its interval. In the supervisor.

A GET on a connection of its own; 200 to 399 passes, anything else fails, redirects are not followed. However many
endpoints there are, at most `CONCURRENCY` are asked at once: where they all are silent a round takes longer instead.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from yarl import URL

from proxy.health import Health, first_wait_s, judge, wait_s
from proxy.net.web import open_files
from proxy.plan import HealthCheck

log = logging.getLogger("cohort.discovery")

CONCURRENCY = (
    256  # 5,000 silent endpoints with a time-out of 1 s take 20 s a round; and a quarter of the open files at most
)
AGENT = "cohort-health-check"
_MESSAGE_CHARS = 200

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Target:
    """One endpoint and how it is checked.

    Attributes:
        host: What is sent as Host.
        server_name: What the endpoint must prove to be by TLS; None: it is asked without.
    """

    arm: str
    address: str
    port: int
    host: str
    check: HealthCheck
    server_name: str | None = None

    @property
    def place(self) -> Place:
        """Address and port."""
        return self.address, self.port

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class Probe(Protocol):
    """Who asks. ``ask`` returns what is wrong with an endpoint, empty if nothing is."""

    async def open(self) -> None: ...  # noqa: D102
    async def ask(self, target: Target) -> str: ...  # noqa: D102
    async def close(self) -> None: ...  # noqa: D102


class HttpProbe:
    """Asks by HTTP, each time on a new connection: one that is kept would not notice that nobody listens any more.

    Args:
        context: Returns how services are verified now.
    """

    def __init__(self, context: Callable[[], ssl.SSLContext]) -> None:
        self._context = context
        self._session: aiohttp.ClientSession

    async def open(self) -> None:
        """To be called before, within the loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=("Accept-Encoding",),
            headers={"User-Agent": AGENT},
        )

    async def close(self) -> None:
        """Let go of all connections."""
        await self._session.close()

    async def ask(self, target: Target) -> str:
        """Check one endpoint, within its time-out."""
        name = target.server_name
        url = URL(f"{'http' if name is None else 'https'}://{target}{target.check.path}", encoded=True)
        tls: dict[str, Any] = {} if name is None else {"ssl": self._context(), "server_hostname": name}
        try:
            async with (
                asyncio.timeout(target.check.timeout),
                self._session.get(url, headers={"Host": target.host}, allow_redirects=False, **tls) as answer,
            ):
                return "" if 200 <= answer.status < 400 else f"status {answer.status}"
        except TimeoutError:
            return f"no answer within {target.check.timeout:g} s"
        except (OSError, aiohttp.ClientError) as error:
            return " ".join(f"{type(error).__name__}: {error}".split())[:_MESSAGE_CHARS]


class _Watch:
    """One endpoint that is checked."""

    __slots__ = ("health", "is_over", "target")

    def __init__(self, target: Target, health: Health) -> None:
        self.target = target
        self.health = health
        self.is_over = False


class Checks:
    """Checks endpoints, and says when a verdict changes.

    Args:
        probe: Who asks.
        changed: Called after any change of `unhealthy`.
        now: Monotonic seconds. ``chance``: from 0 to 1, drawn anew at each call.
    """

    def __init__(
        self, probe: Probe, changed: Callable[[], None], now: Callable[[], float], chance: Callable[[], float]
    ) -> None:
        self._probe = probe
        self._changed = changed
        self._now, self._chance = now, chance
        self._watches: dict[Target, _Watch] = {}
        self._remembered: dict[Place, Health] = {}
        self._due: list[tuple[float, int, _Watch]] = []
        self._numbers = itertools.count()
        self._woken = asyncio.Event()
        self._slots = asyncio.Semaphore(min(CONCURRENCY, open_files() // 4))

    @property
    def unhealthy(self) -> list[Place]:
        """Endpoints that fail a check, sorted; of several checks of one endpoint any counts."""
        return sorted({target.place for target, watch in self._watches.items() if not watch.health.is_healthy})

    def health(self, target: Target) -> Health:
        """What is known of one endpoint."""
        watch = self._watches.get(target)
        return watch.health if watch else Health()

    def remember(self, unhealthy: Iterable[Place]) -> None:
        """Take over verdicts of another watcher."""
        self._remembered = {place: Health(is_healthy=False, error="not checked again yet") for place in unhealthy}

    def follow(self, targets: Iterable[Target]) -> None:
        """Check these from now on, and no others any more. Another check of one endpoint takes its verdict over."""
        wanted = dict.fromkeys(targets)
        before = self._remembered | {target.place: watch.health for target, watch in self._watches.items()}
        self._remembered = {}
        for target in self._watches.keys() - wanted:
            self._watches.pop(target).is_over = True
        for target in wanted:
            if target not in self._watches:
                known = before.get(target.place, Health())
                watch = self._watches[target] = _Watch(target, Health(known.is_healthy, 0, known.error))
                self._plan(watch, first_wait_s(target.check, self._chance()))
        self._woken.set()

    async def run(self) -> None:
        """Check, until cancelled."""
        await self._probe.open()
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    watch = await self._next()
                    await self._slots.acquire()
                    tasks.create_task(self._check(watch))
        finally:
            await self._probe.close()

    async def _next(self) -> _Watch:
        """Wait for the next check that is due."""
        while True:
            while self._due and self._due[0][2].is_over:
                heapq.heappop(self._due)
            wait = self._due[0][0] - self._now() if self._due else None
            if wait is not None and wait <= 0:
                return heapq.heappop(self._due)[2]
            self._woken.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._woken.wait()

    def _plan(self, watch: _Watch, seconds: float) -> None:
        heapq.heappush(self._due, (self._now() + seconds, next(self._numbers), watch))

    async def _check(self, watch: _Watch) -> None:
        began = self._now()
        try:
            error = await self._probe.ask(watch.target)
        except Exception as fault:  # this task's root: what no probe foresees must not end the proxy
            log.exception("checking %s failed", watch.target)
            error = type(fault).__name__
        finally:
            self._slots.release()
        if watch.is_over:
            return
        self._learn(watch, error)
        took = self._now() - began
        self._plan(watch, max(0.0, wait_s(watch.target.check, self._chance()) - took))
        self._woken.set()

    def _learn(self, watch: _Watch, error: str) -> None:
        before, target = watch.health.is_healthy, watch.target
        watch.health = judge(watch.health, error, target.check)
        if watch.health.is_healthy == before:
            return
        if before:
            log.warning("endpoint %s of arm %s is unhealthy: %s", target, target.arm, error)
        else:
            log.info("endpoint %s of arm %s is healthy again", target, target.arm)
        self._changed()
