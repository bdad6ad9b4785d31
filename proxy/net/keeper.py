"""What is in force: the plan and the abort latch, each on disk before it counts, and the words that tell the workers.

A plan goes through in this order: validated, staged at every worker, kept as the last good one, flipped by one word,
and only then the latch that it names is lifted. A supervisor killed between any two of these starts again with the old
plan or the new one, and with the latch if there is any doubt.

An abort waits for none of that: its word is set first, so it is in force within microseconds; it is answered when it
is on disk too. If the disk refuses (full, say) the abort stands in memory, is tried again each second, and whoever
asked is told so by an error: the users' safety first, then the truth about it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

from proxy.document import Fault
from proxy.latch import Abort, Latch, is_lifted, latch
from proxy.plan import Plan
from proxy.shared import Board, Words
from proxy.succession import Order, order

log = logging.getLogger("cohort.plan")

REASONS = ("invalid", "older", "conflict", "worker", "storage")  # labels of cohort_plan_rejected_total
NO_PLAN = '"none"'  # the entity tag where there is no plan


class Refused(Exception):
    """A request that is not carried out; what was in force stays.

    Attributes:
        status: The status code of the admin API.
        faults: What is wrong with a document, field by field; empty if the document is not to blame.
        may_recover: Offering the same again later can succeed.
    """

    def __init__(self, status: int, message: str, faults: list[Fault] | None = None, may_recover: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.faults = faults or []
        self.may_recover = may_recover


class StageError(Exception):
    """A plan did not come to be staged at the workers.

    Attributes:
        faults: What a worker says is wrong with the plan; empty if workers died or did not answer.
    """

    def __init__(self, message: str, faults: list[Fault] | None = None) -> None:
        super().__init__(message)
        self.faults = faults or []


class Store(Protocol):
    """Where the last good plan and the latch are kept; `statedir.StateDir` is one. Every method may raise OSError."""

    def write_plan(self, plan: Plan) -> None: ...  # noqa: D102
    def write_latch(self, latch: Latch) -> None: ...  # noqa: D102
    def remove_latch(self) -> None: ...  # noqa: D102


class Preparation(Protocol):
    """What a plan needs before it comes into force; `discovery.Discovery` finds its endpoints. Neither may raise."""

    async def prepare(self, plan: Plan) -> None: ...  # noqa: D102
    def settle(self, plan: Plan | None) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class InForce:
    """The plan that is in force, and what is asked of it often: each costs a pass over the whole document.

    Attributes:
        sequence: What the workers know it by.
        since_s: Monotonic seconds when it came into force or was last confirmed.
    """

    plan: Plan
    sequence: int
    document: str
    digest: str
    core: str
    etag: str
    since_s: float

    def summary(self) -> dict[str, Any]:
        """What `GET /state` tells of the plan: neither the salt nor what is long."""
        return {
            "generation": self.plan.generation,
            "endpointsVersion": self.plan.endpoints_version,
            "uid": self.plan.rollout.uid,
            "revision": self.plan.revision,
            "digest": self.digest,
            "core": self.core,
            "etag": self.etag,
        }


class Keeper:
    """The one place where the plan and the latch change.

    Attributes:
        in_force: The plan in force, None before the first.
        latch: The abort that stands, None if none does.
        is_stored: The latch is on disk.
        rejected: Plans refused so far, by reason.

    Args:
        words: Written here only.
        stage: Stages a plan (its sequence, its document as JSON) at every worker; raises StageError.
        now: Monotonic seconds. ``wall``: Unix seconds.
        preparation: Told of each plan before it is staged, and of the one in force afterwards.
    """

    def __init__(
        self,
        words: Words | Board,
        store: Store,
        stage: Callable[[int, str], Awaitable[None]],
        now: Callable[[], float],
        wall: Callable[[], float],
        preparation: Preparation | None = None,
    ) -> None:
        self.in_force: InForce | None = None
        self.latch: Latch | None = None
        self.is_stored = True
        self.rejected = dict.fromkeys(REASONS, 0)
        self.staging = asyncio.Lock()  # held while a plan is on its way, and while a new worker stages the current one
        self._words = words
        self._store = store
        self._stage = stage
        self._now, self._wall = now, wall
        self._preparation = preparation
        self._sequence = 0
        self._latches = 0
        self._latching = asyncio.Lock()
        self._lifting: frozenset[str] = frozenset()  # ids that the plan on its way lifts

    @property
    def etag(self) -> str:
        """The entity tag of what is in force."""
        return self.in_force.etag if self.in_force else NO_PLAN

    def restore_latch(self, stored: Latch | None) -> None:
        """Go on with the abort of the last supervisor; before any worker serves."""
        if stored:
            self.latch = stored
            self._set_word()
            log.warning("an abort stands, everybody is on stable: %s by %s at %s", stored.id, stored.by, stored.at)

    def resume(self, plan: Plan | None, sequence: int, since_s: float, latch: Latch | None, is_stored: bool) -> None:
        """Go on in the place of another keeper, whose words and workers stay.

        Args:
            plan: In force, known to the workers by ``sequence``, since ``since_s``.
            latch: The abort that stands. ``is_stored``: on disk.
        """
        self._sequence = sequence
        self.latch, self.is_stored = latch, is_stored
        if plan is not None:
            document = plan.model_dump_json(by_alias=True)
            self.in_force = InForce(plan, sequence, document, plan.digest, plan.core_digest, plan.etag, since_s)
        self._latches = self._words.latch

    @property
    def latching(self) -> asyncio.Lock:
        """Held while the latch changes, on disk or in memory."""
        return self._latching

    @property
    def sequence(self) -> int:
        """The last number that a plan was given."""
        return self._sequence

    async def adopt(self, plan: Plan, origin: str, if_match: str | None = None, is_durable: bool = False) -> InForce:
        """Put a plan in force.

        Args:
            plan: Validated.
            origin: Where it comes from, for the log.
            if_match: The entity tags, or ``*``, that the caller takes to be in force; None: whatever is.
            is_durable: The next start finds this plan elsewhere, so that a full disk is no reason to refuse it.

        Returns:
            What is in force afterwards: this plan. The very plan that is in force is confirmed, whatever `if_match`.

        Raises:
            Refused: 412 another plan is in force than the caller knows; 409 older, or other content under the same
                version; 422 the workers cannot use it; 503 workers died meanwhile; 507 it cannot be stored.
        """
        async with self.staging:
            current = self.in_force
            how = order(current.plan if current else None, plan)
            if current and how is Order.SAME:
                return await self._confirm(current)
            if if_match is not None and not _matches(if_match, self.etag):
                raise Refused(412, f"If-Match: {if_match} is not in force, {self.etag} is. Read the plan again")
            if current and how is not Order.NEWER:
                raise self.reject(how.value, Refused(409, _out_of_order(current.plan, plan, how)))
            self._lifting = frozenset(plan.lifts)
            try:
                if self._preparation:
                    await self._preparation.prepare(plan)
                return await self._put(plan, origin, is_durable)
            finally:
                self._lifting = frozenset()
                if self._preparation:
                    self._preparation.settle(self.in_force.plan if self.in_force else None)

    async def _confirm(self, current: InForce) -> InForce:
        async with self._latching:
            await self._lift(current.plan)  # if the disk refused it the last time
            self.in_force = replace(current, since_s=self._now())
        return self.in_force

    async def _put(self, plan: Plan, origin: str, is_durable: bool) -> InForce:
        # Numbers are never used twice: a worker may still hold one that was staged and never flipped.
        self._sequence += 1
        document = plan.model_dump_json(by_alias=True)
        offered = InForce(plan, self._sequence, document, plan.digest, plan.core_digest, plan.etag, self._now())
        try:
            await self._stage(offered.sequence, document)
        except StageError as error:
            status = 422 if error.faults else 503
            refused = Refused(status, str(error), error.faults, may_recover=not error.faults)
            raise self.reject("invalid" if error.faults else "worker", refused) from None
        try:
            await asyncio.to_thread(self._store.write_plan, plan)
        except OSError as error:
            message = f"the plan cannot be stored: {error}. Make room in stateDir"
            if not is_durable:
                raise self.reject("storage", Refused(507, message, may_recover=True)) from None
            log.error("%s", message)
        async with self._latching:
            self.in_force = offered
            self._words.plan_sequence = offered.sequence
            log.info("plan %s of %s is in force, from %s", offered.etag, plan.rollout.name, origin)
            await self._lift(plan)
        return offered

    async def _lift(self, plan: Plan) -> None:
        if self.latch is None or not is_lifted(self.latch, plan):
            return
        try:
            await asyncio.to_thread(self._store.remove_latch)
        except OSError as error:
            message = f"the plan is in force, but the abort {self.latch.id} cannot be removed from stateDir: {error}"
            raise Refused(507, message, may_recover=True) from None
        log.warning("abort %s is lifted by the plan of generation %d", self.latch.id, plan.generation)
        self.latch, self.is_stored = None, True
        self._words.latch = 0

    def reject(self, reason: str, refused: Refused) -> Refused:
        """Count and log a plan that is refused, and return why."""
        self.rejected[reason] += 1
        faults = "; ".join(str(fault) for fault in refused.faults[:20])
        log.error("plan refused (%s): %s", reason, f"{refused}: {faults}" if faults else refused)
        return refused

    async def abort(self, abort: Abort) -> Latch:
        """Send everybody to stable.

        Returns:
            The abort that stands from now on. One that stood before is returned as it is, unless a plan that lifts it
            is on its way: who aborts after that plan was sent means the plan too.

        Raises:
            Refused: 409 the id was lifted already: a late repetition; 507 in force, but not stored.
        """
        async with self._latching:
            lifted = self._lifting | frozenset(self.in_force.plan.lifts if self.in_force else ())
            if abort.id in lifted:
                raise Refused(409, f"the abort {abort.id} was lifted by a plan. Abort again under another id")
            if self.latch is None or self.latch.id in lifted:
                revision = self.in_force.plan.revision if self.in_force else None
                self.latch, self.is_stored = latch(abort, secrets.token_hex(8), revision, self._wall()), False
                self._set_word()
                log.warning("abort %s by %r: %s", self.latch.id, abort.by, abort.reason or "no reason given")
            await self._store_latch()
            if not self.is_stored:
                message = (
                    f"the abort {self.latch.id} is in force, everybody is on stable; but it is not stored, so it would "
                    "not survive a restart. It is tried again each second: make room in stateDir"
                )
                raise Refused(507, message, may_recover=True)
            return self.latch

    async def retry_latch(self) -> None:
        """Try again to store an abort that could not be stored."""
        async with self._latching:
            await self._store_latch()

    async def _store_latch(self) -> None:
        if self.latch is None or self.is_stored:
            return
        try:
            await asyncio.to_thread(self._store.write_latch, self.latch)
            self.is_stored = True
        except OSError as error:
            log.error("abort %s is in force but cannot be stored: %s", self.latch.id, error)

    def _set_word(self) -> None:
        self._latches += 1
        self._words.latch = self._latches


def _matches(if_match: str, etag: str) -> bool:
    tags = [tag.strip() for tag in if_match.split(",")]
    return "*" in tags or etag in tags


def _out_of_order(current: Plan, offered: Plan, how: Order) -> str:
    version = f"(generation {offered.generation}, endpointsVersion {offered.endpoints_version})"
    if how is Order.CONFLICT:
        return f"{version} is in force already with other content. Raise the generation"
    in_force = f"(generation {current.generation}, endpointsVersion {current.endpoints_version})"
    return f"{version} is older than the plan in force {in_force}. Raise the generation"
