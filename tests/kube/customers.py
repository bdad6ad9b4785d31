"""Users of an installation: real requests by its Service, every answer held against the plans by the flip oracle.

The users, their cookies and the oracle are those of `cohort loadtest`; what differs is that they ask from within the
pods' network, and that plans are learnt from the rollout's status.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import aiohttp

from demo.app import VERSION_HEADER
from loadtest.flip import Ledger
from loadtest.options import Options, parse_journey
from loadtest.person import Crowd, Person, Request
from loadtest.plans import parse_facts
from tests.kube.cluster import KubeError
from tests.kube.pods.session import PodRunner

LEARN_S = 0.4  # between looks at the status
CLOSE_SHARE = 0.5  # of requests that ask for their connection to end, so that the next one may reach another proxy
SPREAD_S = 10.0  # how far apart an abort may reach the proxies here; how fast it is, a test of its own tells
TIMEOUT_S = 60.0  # a machine that does much else is slow, not wrong


@dataclass(frozen=True, slots=True)
class Reply:
    """What the crowd wants of an answer."""

    status: int
    fields: Mapping[str, list[str]]


class Customers:
    """Users who come while a block runs.

    Attributes:
        crowd: Who they are, and what was made of each answer; `loadtest.tally` counts versions by revision.
        arms: By (generation, arm), how many answers there were.

    Args:
        pods: Whose network they ask from.
        address: Of the Service, ``http://host[:port]``.
        status: The rollout's, now.
        number: How many come.
        think_s: Shortest and longest pause of a user between two requests.
        journey: As `loadtest.options` has it.
        identity: cookie (minted for each), header or login.
    """

    def __init__(
        self,
        pods: PodRunner,
        address: str,
        status: Callable[[], Mapping[str, Any]],
        number: int,
        think_s: tuple[float, float] = (0.2, 0.8),
        journey: str = "/",
        identity: str = "cookie",
    ) -> None:
        options = Options(
            address, number, 0.0, think_s=think_s, identity=identity, version_header=VERSION_HEADER, seed=number
        )
        self.crowd = Crowd(options, parse_journey(journey), count(1))
        self.crowd.ledger = Ledger(SPREAD_S)
        self.arms: dict[tuple[int, str], int] = {}
        self._pods, self._address, self._status = pods, address, status
        self._number = number

    # -- what they have seen

    @property
    def answers(self) -> int:
        """Whole answers of a version, errors of its own among them."""
        return self.crowd.tally.requests - self.failed

    @property
    def failed(self) -> int:
        """Requests without an answer of a version: no connection, a torn one, or the proxy's own 502, 503, 504."""
        return self.crowd.tally.lost.total()

    @property
    def flips(self) -> int:
        """Answers of another version than a plan of their generation gives."""
        return self.crowd.tally.flips

    @property
    def errors(self) -> int:
        """Answers of 500 and above that a version itself gave."""
        return sum(version.errors for version in self.crowd.tally.versions.values())

    def of(self, revision: str) -> int:
        """Answers of one version."""
        version = self.crowd.tally.versions.get(revision)
        return version.requests if version else 0

    def users_of(self, revision: str) -> int:
        """Users whose last answer was of that version."""
        version = self.crowd.tally.versions.get(revision)
        return version.users if version else 0

    def check(self) -> None:
        """Nothing was lost and nobody flipped."""
        tally = self.crowd.tally
        assert not self.failed, (self.failed, tally.lost_details[:10])
        assert not self.flips, (self.flips, tally.flip_details[:10])
        assert not tally.unexplained, tally.unexplained

    async def more(self, answers: int) -> None:
        """Wait for so many more answers."""
        enough = self.answers + answers
        while self.answers < enough:
            await asyncio.sleep(0.05)

    # -- what they do

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """They come, and go at the end of the block once their last answer is there."""
        going, failure = asyncio.Event(), None
        async with asyncio.TaskGroup() as group:
            group.create_task(self._learn(going))
            for seat in range(self._number):
                group.create_task(self._live(seat, going))
            try:
                yield
            except BaseException as error:  # it is raised again below, and not as one of a group
                failure = error
            self.crowd.close()
            going.set()
        if failure:
            raise failure

    async def _live(self, seat: int, going: asyncio.Event) -> None:
        person = self.crowd.arrive(seat)
        limits = aiohttp.ClientTimeout(total=TIMEOUT_S)
        jar = aiohttp.DummyCookieJar()  # the person has one
        async with aiohttp.ClientSession(connector=self._pods.connector(), cookie_jar=jar, timeout=limits) as session:
            while not going.is_set():
                await self._ask(session, person)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(going.wait(), person.rng.uniform(*self.crowd.options.think_s))

    async def _ask(self, session: aiohttp.ClientSession, person: Person) -> None:
        request, began = self.crowd.ask(person, time.time()), time.perf_counter()
        try:
            reply = await self._exchange(session, request, person.rng.random() < CLOSE_SHARE)
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is one
            self.crowd.lose(person, request, type(error).__name__, str(error))
            return
        sight = self.crowd.take(person, request, reply, time.perf_counter() - began, time.time())
        if sight.answer:
            key = sight.answer.generation, sight.answer.arm
            self.arms[key] = self.arms.get(key, 0) + 1

    async def _exchange(self, session: aiohttp.ClientSession, request: Request, is_last: bool) -> Reply:
        headers = dict(request.fields) | ({"Connection": "close"} if is_last else {})
        url = self._address + request.target
        async with session.request(request.method, url, headers=headers, allow_redirects=False) as answer:
            await answer.read()
            fields: dict[str, list[str]] = {}
            for name, value in answer.headers.items():
                fields.setdefault(name.lower(), []).append(value)
            return Reply(answer.status, fields)

    async def _learn(self, going: asyncio.Event) -> None:
        """Take in the plans that are published; those that no look has seen are judged by the answers alone."""
        known = 0
        while not going.is_set():
            with contextlib.suppress(OSError, KubeError, http.client.HTTPException):
                plan = (await asyncio.to_thread(self._status)).get("plan") or {}
                if plan.get("generation", 0) != known and plan.get("document"):
                    known = plan["generation"]
                    for facts in parse_facts(json.dumps(plan["document"]).encode()):
                        self.crowd.ledger.learn(facts)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(going.wait(), LEARN_S)
