"""What stands for ``<<name>>`` in the strings of a case."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from tests.wire import profile as profiles
from tests.wire.case import Case, Drip, Outcome, Step, Write, placeholders, substitute
from tests.wire.client import Client
from tests.wire.stand import Stand

VISITS = 200  # until a user of the canary is found: at 10 % all but one run in a thousand million needs fewer
_COOKIE = re.compile(rb"set-cookie: *" + profiles.COOKIE.encode() + rb"=([^;\r\n]+)", re.IGNORECASE)


class FillError(Exception):
    """A name that nothing stands for."""


class Filler:
    """Values for one run of a case.

    Attributes:
        nonce: Another one for each run.
        versions: Which version the users of genuine cookies had, by name.
    """

    def __init__(self, stand: Stand, case: Case) -> None:
        self._stand = stand
        self._case = case
        self._values = dict(case.values)
        self._colliding = colliding_names()
        self.nonce = secrets.token_hex(8)
        self.versions: dict[str, str] = {}

    async def prepare(self) -> None:
        """Obtain what must be obtained from the proxy before the case."""
        for name in ("genuine", "genuine_canary", "genuine_stable"):
            if any(name in placeholders(text) for text in self._texts()):
                self._values[name], self.versions[name] = await self._genuine(name.partition("_")[2])

    def _texts(self) -> Iterator[str]:
        for step in (*self._case.send, *(self._case.up or ())):
            if isinstance(step, (Write, Drip)):
                yield substitute(step.text, self._values)

    async def _genuine(self, version: str) -> tuple[str, str]:
        """The cookie of a new user, of one version if that matters."""
        for _ in range(VISITS):
            client = await Client.connect(self._stand.port, asyncio.Event())
            wrong = await client.ask(b"cookie", self._stand.host, 5.0)
            answer = bytes(client.reader.stream)
            await client.close()
            found = _COOKIE.search(answer)
            if wrong or not found:
                raise FillError(f"no cookie to be had for <<genuine>> in profile {self._stand.profile}: {wrong}")
            up = client.reader.finals[0].all(b"x-up")[0].decode()
            if not version or up == version:
                return found[1].decode("latin-1"), up
        raise FillError(f"no user of {version} in {VISITS}")

    def text(self, text: str) -> str:
        """A string with everything filled in but ``<<len>>``.

        Raises:
            FillError: Nothing stands for a name.
        """
        text = substitute(text, self._values)
        return substitute(text, {name: self._value(name) for name in placeholders(text) if name != "len"})

    def _value(self, name: str) -> str:
        if name in self._values:
            return self._values[name]
        if name == "nonce":
            return self.nonce
        if name == "token":
            return self._stand.token
        if name == "port":
            return str(self._stand.port)
        if name == "colliding_name":
            return next(self._colliding)
        if name == "plan":
            return json.dumps(self._plan())
        if name.startswith("plan canary="):
            return self._plan_with(name.removeprefix("plan canary="))
        raise FillError(f"this harness has nothing for <<{name}>>")

    def _plan(self) -> dict[str, Any]:
        document = self._stand.plan()
        document["generation"] += 1
        return document

    def _plan_with(self, weight: str) -> str:
        """A plan whose canary weight is raw text; stable has what is left, so that nothing else is wrong with it."""
        document = self._plan()
        document["arms"][1]["weightBp"] = "canary weight"
        document["arms"][0]["weightBp"] = 10_000 - _meant(weight)
        return json.dumps(document).replace('"canary weight"', weight)

    def steps(self, steps: Sequence[Step]) -> tuple[Step, ...]:
        """A script with everything filled in."""
        found = [self._step(step) for step in steps]
        for index, step in enumerate(found):
            if isinstance(step, Write) and "<<len>>" in step.text:
                body = step.text.partition("\r\n\r\n")[2]
                later = (other.data for other in found[index + 1 :] if isinstance(other, Write))
                size = len(body) or sum(map(len, later))
                found[index] = replace(step, text=substitute(step.text, {"len": str(size)}))
        return tuple(found)

    def _step(self, step: Step) -> Step:
        if isinstance(step, Write) and step.times > 1 and "<<" in step.text:
            return replace(step, text="".join(self.text(step.text) for _ in range(step.times)), times=1)
        if isinstance(step, (Write, Drip)):
            return replace(step, text=self.text(step.text))
        return step

    def outcome(self, outcome: Outcome) -> Outcome:
        """An outcome with everything filled in."""
        return replace(
            outcome,
            up_has=tuple(map(self.text, outcome.up_has)),
            up_lacks=tuple(map(self.text, outcome.up_lacks)),
            cl_has=tuple(map(self.text, outcome.cl_has)),
            cl_lacks=tuple(map(self.text, outcome.cl_lacks)),
        )


def _meant(weight: str) -> int:
    """The number that a careless reader of JSON would take a weight for."""
    try:
        value = list(json.loads(f'{{"weightBp": {weight}}}').values())[-1]
        return int(value)
    except (ValueError, TypeError, OverflowError):
        return 0


def colliding_names() -> Iterator[str]:
    """Field names without end that have the same hash in Java (``31 * h + c``), in each length."""
    for length in itertools.count(7):
        for parts in itertools.product(("Aa", "BB"), repeat=length):
            yield "".join(parts)
