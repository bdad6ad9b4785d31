"""The status of one rollout as its holder writes it: fenced, only with the Lease, and only what is new."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from controller.errors import Temporary
from controller.events import Tell
from controller.net.kube.client import ApiRefused
from controller.net.kube.ledger import Fenced, Ledger, take_over
from controller.net.store import Moved, Stored
from controller.state import Phase
from controller.status import PlanStatus, Status
from tests.controller.net.kube.stage import ROLLOUT
from tests.support import virtual
from tests.support.fake_api import FakeApi


class Lease:
    is_held = True


class Broken(FakeApi):
    """An API server that cannot be reached while it is told so."""

    is_up = True
    is_answer_lost = False
    asked = 0

    async def ask(self, method: str, path: str, body: Any = None, **more: Any) -> dict[str, Any]:
        self.asked += 1
        if not self.is_up:
            raise Temporary("no answer")
        answer = await super().ask(method, path, body, **more)
        if self.is_answer_lost:
            raise Temporary("the connection was lost")
        return answer


class Kept:
    """A rollout, and the ledger of whoever has taken it over."""

    def __init__(self) -> None:
        self.api = Broken(lambda: 1_700_000_000.0)
        self.lease = Lease()
        self.ledger: Ledger

    async def begin(self, identity: str = "a") -> Ledger:
        if ROLLOUT not in self.api.objects:
            body = {"kind": "CanaryRollout", "metadata": {"name": "web"}, "spec": {}}
            await self.api.ask("POST", ROLLOUT.rpartition("/")[0], body)
        taken = await take_over(self.api, self.api.objects[ROLLOUT], identity)
        self.ledger = Ledger(self.api, taken, self.lease, identity)
        return self.ledger

    @property
    def status(self) -> Any:
        return self.api.objects[ROLLOUT].get("status")


def moved(state: str = "1", *, is_quiet: bool = False, evidence: str = "", generation: int = 1, **more: Any) -> Moved:
    plan = PlanStatus(generation=generation, digest="d", replicas=1, current=1)
    status = Status(observed_generation=1, phase=Phase.HEALTHY, plan=plan)
    return Moved(Stored("shop/web", state, "[]", 3, evidence), status, 0.0, is_quiet=is_quiet, **more)


def kept(test: Callable[[Kept], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """The test under virtual time, with a ledger."""

    def run() -> None:
        async def go() -> None:
            it = Kept()
            await it.begin()
            await test(it)

        virtual.run(go())

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@kept
async def test_a_transition_is_stored_with_what_people_see_of_it(it: Kept) -> None:
    """One write: state, evidence, phase, and who wrote it."""
    await it.ledger.save(moved("1", evidence="e"))
    assert (it.status["state"], it.status["evidence"], it.status["phase"]) == ("1", "e", "Healthy")
    assert it.status["leader"] == {"identity": "a", "term": 1}
    assert "resourceVersion" not in it.status
    await it.ledger.save(moved("2"))
    assert "evidence" not in it.status


@kept
async def test_what_is_stored_already_is_not_written_again(it: Kept) -> None:
    """Each write is one to etcd, and all replicas are told of it."""
    await it.ledger.save(moved("1"))
    count = it.api.asked
    await it.ledger.save(moved("1"))
    await it.ledger.show(moved("1"))
    assert it.api.asked == count


@kept
async def test_who_was_overtaken_writes_nothing_more(it: Kept) -> None:
    """Frozen past its Lease and thawed; not even an elapsed second, though the Lease still seems to be its own."""
    await it.ledger.save(moved("1"))
    frozen = it.ledger
    await it.begin("b")
    for _ in range(2):
        with pytest.raises(Fenced):
            await frozen.save(moved("2", is_quiet=True))
    assert frozen.is_fenced
    await frozen.show(moved("3"))
    assert (it.status["state"], it.status["leader"]) == ("1", {"identity": "b", "term": 2})
    asked = it.api.asked
    await frozen.show(moved("4"))
    assert it.api.asked == asked


@kept
async def test_a_plan_of_an_earlier_number_is_refused_and_is_no_fence(it: Kept) -> None:
    """It has not happened; the ledger goes on."""
    await it.ledger.save(moved("1", generation=5))
    with pytest.raises(ApiRefused):
        await it.ledger.save(moved("2", generation=4))
    assert not it.ledger.is_fenced
    await it.ledger.save(moved("3", generation=5))
    assert it.status["state"] == "3"


@kept
async def test_nothing_else_is_decided_on_top_of_a_write_whose_answer_was_lost(it: Kept) -> None:
    """It was carried out, and its plan has been published: another plan of that number must not follow it."""
    await it.ledger.save(moved("1"))
    it.api.is_answer_lost = True
    with pytest.raises(Temporary):
        await it.ledger.save(moved("2", generation=2))
    it.api.is_answer_lost = False
    assert not it.ledger.is_fenced  # not known yet; it goes on judging
    with pytest.raises(Fenced):
        await it.ledger.save(moved("other", generation=2))
    assert it.ledger.is_fenced
    assert (it.status["state"], it.status["plan"]["generation"]) == ("2", 2)


@kept
async def test_a_write_that_was_lost_on_its_way_costs_nothing(it: Kept) -> None:
    """Of the first state, of a later one, and with checkpoints meanwhile that were lost too."""
    for before in ("1", "3"):
        it.api.is_up = False
        with pytest.raises(Temporary):
            await it.ledger.save(moved(before))
        await it.ledger.save(moved(before + "a", is_quiet=True))
        it.api.is_up = True
        await it.ledger.save(moved(before))
        assert it.status["state"] == before


@kept
async def test_without_the_lease_only_time_goes_on(it: Kept) -> None:
    """In memory: measurements and clocks. A transition has not happened."""
    it.lease.is_held = False
    await it.ledger.save(moved("1", is_quiet=True))
    with pytest.raises(Temporary, match="Lease"):
        await it.ledger.save(moved("1"))
    await it.ledger.show(moved("1"))
    assert "state" not in it.status
    it.lease.is_held = True
    await it.ledger.save(moved("1"))
    assert it.status["state"] == "1"


@kept
async def test_a_checkpoint_that_fails_is_made_up_for(it: Kept) -> None:
    """The API server is away: time goes on, transitions wait; what failed is not taken for written."""
    it.api.is_up = False
    await it.ledger.save(moved("1", is_quiet=True))
    with pytest.raises(Temporary, match="no answer"):
        await it.ledger.save(moved("1"))
    it.api.is_up = True
    await it.ledger.save(moved("1", is_quiet=True))
    assert it.status["state"] == "1"


@kept
async def test_a_resource_made_anew_under_the_name_is_not_written_to(it: Kept) -> None:
    """Its uid is another one, and so is its rollout."""
    await it.api.ask("DELETE", ROLLOUT)
    await it.api.ask("POST", ROLLOUT.rpartition("/")[0], {"metadata": {"name": "web"}, "spec": {}})
    with pytest.raises(Temporary, match="uid"):
        await it.ledger.save(moved("1"))
    assert it.status is None


@kept
async def test_events_are_told_after_the_write_and_may_be_lost(it: Kept) -> None:
    """Of a write that failed nobody is told; an Event that is not taken changes nothing."""
    told = [Tell("Aborted", "v2", is_warning=True)]
    it.api.is_up = False
    with pytest.raises(Temporary):
        await it.ledger.save(moved("1", told=told))
    await it.ledger.tell("shop/web", 0.0, told)
    it.api.is_up = True
    assert not [path for path in it.api.objects if "/events/" in path]
    await it.ledger.save(moved("1", told=told))
    (event,) = (item for path, item in it.api.objects.items() if "/events/" in path)
    assert (event["reason"], event["type"], event["note"]) == ("Aborted", "Warning", "v2")
    assert event["regarding"]["uid"] == it.api.objects[ROLLOUT]["metadata"]["uid"]


@kept
async def test_a_takeover_leaves_all_else_as_it_is_and_needs_the_latest(it: Kept) -> None:
    """Two that begin at once: one of them looks again."""
    await it.ledger.save(moved("1", evidence="e"))
    seen = it.api.objects[ROLLOUT]
    await take_over(it.api, seen, "b")
    with pytest.raises(ApiRefused, match="409"):
        await take_over(it.api, seen, "c")
    assert it.status["leader"] == {"identity": "b", "term": 2}
    assert (it.status["state"], it.status["evidence"]) == ("1", "e")


@kept
async def test_a_refusal_to_begin_is_written_once(it: Kept) -> None:
    """With the time since when; nothing else of the status is claimed."""
    await it.ledger.refuse("RevisionUnknown", "no pods", it.api.objects[ROLLOUT], 0.0)
    count = len(it.api.written)
    await it.ledger.refuse("RevisionUnknown", "no pods", it.api.objects[ROLLOUT], 99.0)
    assert len(it.api.written) == count
    assert {(c["type"], c["status"], c["reason"]) for c in it.status["conditions"]} == {
        ("Accepted", "False", "RevisionUnknown"),
        ("Ready", "False", "RevisionUnknown"),
    }
    await it.ledger.refuse("ServiceUnusable", "no Service", it.api.objects[ROLLOUT], 99.0)
    assert {c["lastTransitionTime"] for c in it.status["conditions"]} == {"1970-01-01T00:00:00Z"}
