"""The order in which plans and aborts come into force, and what is left when something fails in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from proxy import shared
from proxy.document import Fault
from proxy.latch import Abort, Latch, latch
from proxy.net.keeper import Keeper, Refused, StageError
from proxy.plan import Plan
from tests.support.plans import plan

FULL = OSError(28, "No space left on device")
ABORT = Abort(by="anna")


class Desk:
    """A keeper among fakes.

    Attributes:
        done: What happened, in order.
        fails: What is raised instead, by its name in ``done``.
        during: What else happens while a plan is staged.
    """

    def __init__(self) -> None:
        self.words = shared.Words(memoryview(bytearray(shared.size(1))))
        self.keeper = Keeper(self.words, self, self.stage, lambda: 50.0, lambda: 1_788_264_000.0)
        self.done: list[str] = []
        self.fails: dict[str, Exception] = {}
        self.during: Callable[[], Any] | None = None
        self.stored: Plan | None = None
        self.latch: Latch | None = None

    def note(self, what: str) -> None:
        self.done.append(f"{what} plan={self.words.plan_sequence} latch={self.words.latch}")
        if what in self.fails:
            raise self.fails[what]

    async def stage(self, sequence: int, document: str) -> None:
        assert Plan.model_validate_json(document)
        self.note("stage")
        if self.during:
            await self.during()

    def write_plan(self, plan: Plan) -> None:
        self.note("write_plan")
        self.stored = plan

    def write_latch(self, latch: Latch) -> None:
        self.note("write_latch")
        self.latch = latch

    def remove_latch(self) -> None:
        self.note("remove_latch")
        self.latch = None


@pytest.fixture
def desk() -> Desk:
    return Desk()


def version(generation: int, *lifts: str, **fields: Any) -> Plan:
    return plan(generation=generation, lifts=list(lifts), **fields)


async def refused(desk: Desk, offered: Plan, if_match: str | None = None, **options: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        await desk.keeper.adopt(offered, "a test", if_match, **options)
    return caught.value


async def test_a_plan_is_staged_then_stored_then_flipped_then_its_latch_is_lifted(desk: Desk) -> None:
    """design.md, the pieces, 1 and 5: killed in between, it starts with the old plan or the new one, and the latch."""
    made = await desk.keeper.abort(ABORT)
    await desk.keeper.adopt(version(1, made.id), "a test")
    assert desk.done == [
        "write_latch plan=0 latch=1",
        "stage plan=0 latch=1",
        "write_plan plan=0 latch=1",
        "remove_latch plan=1 latch=1",
    ]
    assert (desk.words.plan_sequence, desk.words.latch) == (1, 0)
    assert (desk.keeper.latch, desk.latch) == (None, None)


async def test_an_abort_is_in_force_before_it_is_stored_and_stored_before_it_is_answered(desk: Desk) -> None:
    """The users' safety first."""
    await desk.keeper.adopt(version(1), "a test")
    made = await desk.keeper.abort(Abort(by="anna", reason="errors"))
    assert desk.done[-1] == "write_latch plan=1 latch=1"
    assert desk.latch == made == desk.keeper.latch
    assert (made.revision, made.at) == ("v2", "2026-09-01T12:00:00Z")


async def test_an_abort_that_stands_is_returned_as_it_is(desk: Desk) -> None:
    """Idempotent, whoever asks and under whatever id."""
    made = await desk.keeper.abort(ABORT)
    assert await desk.keeper.abort(Abort(by="ben", id="feedface")) == made
    assert len(desk.done) == 1


async def test_a_full_disk_does_not_hinder_an_abort_but_is_told(desk: Desk) -> None:
    """F19: in force, not persisted, tried again."""
    desk.fails["write_latch"] = FULL
    with pytest.raises(Refused, match=r"is in force.*not stored") as caught:
        await desk.keeper.abort(ABORT)
    assert caught.value.status == 507
    assert (desk.words.latch, desk.keeper.is_stored) == (1, False)
    with pytest.raises(Refused, match="not stored"):
        await desk.keeper.abort(ABORT)
    assert desk.words.latch == 1
    del desk.fails["write_latch"]
    await desk.keeper.retry_latch()
    assert desk.latch == desk.keeper.latch
    assert desk.keeper.is_stored
    await desk.keeper.retry_latch()
    assert len(desk.done) == 3


async def test_a_plan_that_does_not_name_it_leaves_the_latch(desk: Desk) -> None:
    """So no controller that lags behind can undo an abort."""
    made = await desk.keeper.abort(ABORT)
    await desk.keeper.adopt(version(1), "a test")
    await desk.keeper.adopt(version(2, "deadbeef"), "a test")
    assert (desk.words.latch, desk.latch) == (1, made)


async def test_an_abort_during_the_plan_that_lifts_the_last_one_stands(desk: Desk) -> None:
    """Who aborts after the lifting plan was sent means that plan too: it must not be lost."""
    first = await desk.keeper.abort(ABORT)
    second: list[Latch] = []

    async def during() -> None:
        second.append(await desk.keeper.abort(Abort(by="ben")))

    desk.during = during
    await desk.keeper.adopt(version(1, first.id), "a test")
    assert second[0].id != first.id
    assert (desk.keeper.latch, desk.latch) == (second[0], second[0])
    assert desk.words.latch == 2


async def test_a_late_repetition_of_a_lifted_abort_is_refused(desk: Desk) -> None:
    """Its id is in the plan in force, which would end it at the next start."""
    made = await desk.keeper.abort(ABORT)
    await desk.keeper.adopt(version(1, made.id), "a test")
    with pytest.raises(Refused, match="was lifted") as caught:
        await desk.keeper.abort(Abort(by="anna", id=made.id))
    assert caught.value.status == 409
    assert desk.words.latch == 0


async def test_a_latch_that_cannot_be_removed_stands_until_the_plan_is_sent_again(desk: Desk) -> None:
    """The word is cleared last, so that a restart never brings back an abort that was said to be over."""
    made = await desk.keeper.abort(ABORT)
    desk.fails["remove_latch"] = FULL
    error = await refused(desk, version(1, made.id))
    assert (error.status, error.may_recover) == (507, True)
    assert (desk.words.plan_sequence, desk.words.latch) == (1, 1)
    desk.fails.clear()
    await desk.keeper.adopt(version(1, made.id), "a test")
    assert (desk.words.latch, desk.latch) == (0, None)


async def test_an_abort_of_the_last_supervisor_goes_on(desk: Desk) -> None:
    """Survives restarts."""
    stored = latch(ABORT, "0123456789abcdef", "v2", 0.0)
    desk.keeper.restore_latch(stored)
    assert (desk.words.latch, await desk.keeper.abort(ABORT)) == (1, stored)
    await desk.keeper.adopt(version(1, stored.id), "a test")
    assert desk.words.latch == 0


@pytest.mark.parametrize(
    ("offered", "if_match", "status"),
    [
        (version(1), None, 409),
        (version(2, explain="Always"), None, 409),
        (version(1), "*", 409),
        (version(3), '"1.0.00"', 412),
        (version(3), '"none"', 412),
    ],
    ids=["older", "conflict", "older in any case", "another tag", "none"],
)
async def test_what_may_not_follow_is_refused(desk: Desk, offered: Plan, if_match: str | None, status: int) -> None:
    """C5 and surface.md, Plan."""
    await desk.keeper.adopt(version(2), "a test")
    error = await refused(desk, offered, if_match)
    assert (error.status, error.may_recover) == (status, False)
    assert desk.words.plan_sequence == 1
    assert desk.stored == version(2)
    assert sum(desk.keeper.rejected.values()) == (1 if status == 409 else 0)


@pytest.mark.parametrize("if_match", [None, "*", "tag", 'W/"x", tag'], ids=str)
async def test_what_is_in_force_can_be_replaced(desk: Desk, if_match: str | None) -> None:
    """By its entity tag, among others, or whatever it is."""
    await desk.keeper.adopt(version(2), "a test", '"none"')
    await desk.keeper.adopt(version(3), "a test", if_match and if_match.replace("tag", desk.keeper.etag))
    assert desk.words.plan_sequence == 2


async def test_the_same_plan_again_is_confirmed_without_being_staged(desk: Desk) -> None:
    """A PUT whose answer was lost is repeated with the old tag."""
    first = await desk.keeper.adopt(version(2), "a test", '"none"')
    again = await desk.keeper.adopt(version(2), "a test", '"none"')
    assert again == first
    assert desk.done.count("stage plan=0 latch=0") == 1
    assert len(desk.done) == 2


async def test_another_rollout_starts_afresh(desk: Desk) -> None:
    """A generation of another uid says nothing."""
    await desk.keeper.adopt(version(9), "a test")
    await desk.keeper.adopt(version(1, rollout={"name": "other", "uid": "other"}), "a test")
    assert desk.words.plan_sequence == 2


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (StageError("no", [Fault("arms", "bad")]), 422, "invalid"),
        (StageError("no worker lived"), 503, "worker"),
    ],
    ids=["refused", "gone"],
)
async def test_a_plan_that_workers_do_not_take_changes_nothing(
    desk: Desk, error: StageError, status: int, reason: str
) -> None:
    """The last good one stays; its number is never used again."""
    await desk.keeper.adopt(version(1), "a test")
    desk.fails["stage"] = error
    found = await refused(desk, version(2))
    assert (found.status, found.faults, found.may_recover) == (status, error.faults, not error.faults)
    assert desk.keeper.rejected[reason] == 1
    desk.fails.clear()
    await desk.keeper.adopt(version(2), "a test")
    assert desk.words.plan_sequence == 3


async def test_a_plan_that_cannot_be_stored_is_not_served(desk: Desk) -> None:
    """Else a restart would go back to the one before it. F19."""
    await desk.keeper.adopt(version(1), "a test")
    desk.fails["write_plan"] = FULL
    error = await refused(desk, version(2))
    assert (error.status, error.may_recover, desk.words.plan_sequence) == (507, True, 1)


async def test_a_plan_that_the_next_start_finds_anyway_is_served_from_a_full_disk(desk: Desk) -> None:
    """The plan file, or the last good one itself, at a start."""
    desk.fails["write_plan"] = FULL
    await desk.keeper.adopt(version(1), "a test", is_durable=True)
    assert desk.words.plan_sequence == 1


async def test_plans_are_put_in_force_one_after_the_other(desk: Desk) -> None:
    """Concurrent PUTs with one tag have one winner."""

    async def during() -> None:
        await asyncio.sleep(0)

    desk.during = during
    results = await asyncio.gather(
        *(desk.keeper.adopt(version(number), "a test", '"none"') for number in (3, 1, 2)), return_exceptions=True
    )
    assert [isinstance(result, Refused) for result in results] == [False, True, True]
    assert desk.stored == version(3)


class Prepared:
    """A preparation that notes when it is told of what."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def prepare(self, plan: Plan) -> None:
        self._desk.note(f"prepare {plan.generation}")

    def settle(self, plan: Plan | None) -> None:
        self._desk.note(f"settle {plan.generation if plan else None}")


@pytest.fixture
def prepared(desk: Desk) -> Desk:
    desk.keeper = Keeper(desk.words, desk, desk.stage, lambda: 50.0, lambda: 1_788_264_000.0, Prepared(desk))
    return desk


async def test_a_plan_is_prepared_before_it_is_staged_and_settled_when_it_is_in_force(prepared: Desk) -> None:
    """Its names are known before any worker has it; the old one's are given up after the flip."""
    await prepared.keeper.adopt(version(1), "a test")
    assert [note.partition(" plan=")[0] for note in prepared.done] == ["prepare 1", "stage", "write_plan", "settle 1"]
    assert prepared.done[-1].endswith("plan=1 latch=0")


async def test_a_plan_that_is_refused_after_its_preparation_leaves_the_one_in_force_settled(prepared: Desk) -> None:
    await prepared.keeper.adopt(version(1), "a test")
    prepared.fails["stage"] = StageError("no", [Fault("x", "y")])
    await refused(prepared, version(2))
    assert prepared.done[-1].startswith("settle 1 ")


async def test_a_plan_that_is_refused_at_once_is_not_prepared(prepared: Desk) -> None:
    await prepared.keeper.adopt(version(2), "a test")
    prepared.done.clear()
    await refused(prepared, version(1))
    assert prepared.done == []
