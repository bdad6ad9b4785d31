"""One synthetic user without the network: who it is, what it asks next, and what it makes of the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from loadtest.cookies import CookieJar
from loadtest.flip import SPREAD_S, Answer, Flip, Ledger, Track
from loadtest.options import Options
from loadtest.tag import Tagger
from loadtest.tally import Tally

LOST_STATUSES = frozenset((502, 503, 504))  # what a proxy answers when it got no answer
OWN_FAULT = 500  # and from there on, where nothing is explained: the proxy's own fault, not a version's
LOGIN_STEP = 2  # the step at which a user of identity "login" is first named by the header


class Reply(Protocol):
    """What a client brings back."""

    @property
    def status(self) -> int: ...  # noqa: D102

    @property
    def fields(self) -> Mapping[str, Sequence[str]]: ...  # noqa: D102  # names in lower case


@dataclass(frozen=True, slots=True)
class Request:
    """One request of a journey; ``fields`` are its headers."""

    method: str
    target: str
    fields: Mapping[str, str]


@dataclass(slots=True)
class Person:
    """A user with an identity of its own.

    Attributes:
        seat: The place in the crowd; who leaves is replaced in the same seat.
        name: The value of the header that names the user; the number alone where only a cookie does.
        is_known: An answer to a request that named the user has come.
        revision: The version seen last.
    """

    seat: int
    name: str
    rng: Random
    step: int = 0
    is_known: bool = False
    revision: str | None = None
    flipped: bool = False
    jar: CookieJar = field(default_factory=CookieJar)
    track: Track = field(default_factory=Track)


@dataclass(frozen=True, slots=True)
class Sight:
    """What one user saw of one request, as it is reported."""

    user: str
    seat: int
    status: int
    answer: Answer | None
    flip: Flip | None
    lost: str = ""


class Crowd:
    """All users of one run: their identities, their journey, and the ledger and tally of what they saw.

    Args:
        tagger: Marks their requests as synthetic; None: they count as users.
    """

    def __init__(
        self, options: Options, journey: Sequence[tuple[str, str]], ids: Iterator[int], tagger: Tagger | None = None
    ) -> None:
        self.options = options
        self.journey = journey
        self.ledger = Ledger(SPREAD_S)
        self.tally = Tally()
        self._ids = ids
        self._tagger = tagger
        self._is_over = False
        self._named = options.identity != "cookie"
        self._version_header = options.version_header.lower()

    def arrive(self, seat: int) -> Person:
        """A new user with an identity that nobody had before."""
        number = next(self._ids)
        self.tally.arrived += 1
        self.tally.active += 1
        rng = Random(f"{self.options.seed}.{number}")
        person = Person(seat, f"{self.options.user_prefix}{number}" if self._named else str(number), rng)
        person.step = rng.randrange(len(self.journey)) if self.options.identity != "login" else 0
        return person

    def close(self) -> None:
        """The run is over: who is there now is who the summary tells of."""
        self._is_over = True

    def leave(self, person: Person) -> None:
        """The user goes for good."""
        if self._is_over:
            return
        self.tally.active -= 1
        self.tally.left(person.revision)

    def has_finished(self, person: Person) -> bool:
        """Whether the user, at the end of a journey, leaves for good."""
        at_end = person.step % len(self.journey) == 0
        return at_end and person.rng.uniform(0, 100) < self.options.leave_percent

    def ask(self, person: Person, now: float) -> Request:
        """The user's next request. ``now``: unix seconds, for cookies that have ended."""
        method, target = self.journey[person.step % len(self.journey)]
        fields = {"User-Agent": "cohort-loadtest", "Accept": "*/*", "X-Cohort-Explain": "1"}
        if self._tagger is not None:
            fields |= self._tagger.fields(now)
        identity = self.options.identity
        if identity == "header" or (identity == "login" and person.step >= LOGIN_STEP):
            fields[self.options.user_header] = person.name
        if identity != "header" and (cookies := person.jar.header(target, now)):
            fields["Cookie"] = cookies
        if self.options.connections == "close":
            fields["Connection"] = "close"
        return Request(method, target, fields)

    def take(self, person: Person, request: Request, reply: Reply, seconds: float, now: float) -> Sight:
        """Judge and count a whole answer, which is the service's own or one that the proxy gave in its place."""
        for line in reply.fields.get("set-cookie", ()):
            person.jar.take(line, now)
        served = self._one(reply, self._version_header) if self._version_header else None
        answer = read_answer(reply, served)
        if served is None and (reply.status in LOST_STATUSES or (reply.status >= OWN_FAULT and answer is None)):
            return self.lose(person, request, str(reply.status), f"answered {reply.status}", answer)
        flip = None
        if answer is not None:
            is_named = self.options.user_header in request.fields
            flip = self.ledger.see(person.track, answer, rekeyed=is_named and not person.is_known, now=now)
            person.is_known = person.is_known or is_named
        person.revision = self.tally.answered(answer, person.revision, reply.status, seconds)
        if flip:
            self.tally.flip(person.name, flip, not person.flipped)
            person.flipped = True
        person.step += 1
        return Sight(person.name, person.seat, reply.status, answer, flip)

    def lose(self, person: Person, request: Request, cause: str, message: str, answer: Answer | None = None) -> Sight:
        """Count a request that was lost: no whole answer, or the proxy's word that there is none."""
        by = f" by {answer}" if answer else ""
        self.tally.lose(cause, f"user {person.name}: {request.method} {request.target}: {message}{by}")
        person.step += 1
        return Sight(person.name, person.seat, 0, answer, None, cause)

    @staticmethod
    def _one(reply: Reply, name: str) -> str | None:
        values = reply.fields.get(name)
        return ", ".join(values) if values else None


def read_answer(reply: Reply, served: str | None = None) -> Answer | None:
    """What the explained headers say; None: not all of them are there."""
    values = [
        reply.fields.get(f"x-cohort-{name}", ()) for name in ("generation", "revision", "arm", "reason", "rollout")
    ]
    if any(len(value) != 1 for value in values):
        return None
    generation, revision, arm, reason, rollout = (value[0] for value in values)
    if not generation.isdecimal():
        return None
    return Answer(int(generation), revision, arm, reason, rollout, served)
