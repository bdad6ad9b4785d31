"""What workers tell their master, added up."""

from __future__ import annotations

from typing import Any

from loadtest.flip import Answer, Flip, Ledger, PlanFacts, Track
from loadtest.gather import GONE, Gathered, to_plain
from loadtest.tally import KEPT, Tally

STABLE = Answer(1, "v1", "stable", "split", "shop/checkout")
CANARY = Answer(1, "v2", "canary", "split", "shop/checkout")
FACTS = PlanFacts(1, "v2", {"canary": 2500}, "shop/checkout")


def told(stable: int, canary: int, is_final: bool = False) -> dict[str, Any]:
    """The report of a worker with so many users of each version, each of whom asked once."""
    tally, ledger = Tally(arrived=stable + canary, active=stable + canary), Ledger()
    ledger.learn(FACTS)
    for answer in [STABLE] * stable + [CANARY] * canary:
        tally.answered(answer, None, 500 if answer is CANARY else 200, 0.01)
        ledger.see(Track(), answer)
    return to_plain(tally, ledger, is_final)


def test_users_and_requests_of_all_workers_add_up() -> None:
    """Versions, codes, times, and each plan's split in users; a later report of a worker replaces its earlier one."""
    gathered, present = Gathered(), {"a", "b"}
    gathered.take("a", told(1, 0), present)
    gathered.take("a", told(6, 2), present)
    gathered.take("b", told(2, 1), present)
    total = gathered.total(present)
    assert (total.tally.arrived, total.tally.active, total.tally.requests) == (11, 11, 11)
    versions = total.tally.versions
    assert (versions["v1"].users, versions["v2"].users, versions["v2"].errors) == (8, 3, 3)
    assert versions["v2"].codes == {500: 3}
    assert 9 < versions["v1"].quantile_ms(0.5) < 11
    [row] = total.shares()
    assert (row["generation"], row["revision"], row["users"], row["arms"]) == (1, "v2", 11, {"canary": 3, "stable": 8})
    assert row["weights"] == {"canary": "25.00"}


def test_of_a_worker_that_went_the_requests_count_and_no_user_is_left() -> None:
    gathered = Gathered()
    gathered.take("a", told(3, 0), {"a", "b"})
    gathered.take("b", told(1, 0), {"a", "b"})
    total = gathered.total({"b"}).tally
    assert (total.requests, total.arrived, total.active, total.versions["v1"].users) == (4, 4, 1, 1)
    assert gathered.total({"a", "b"}).tally.active == 4  # it was only cut off


def test_workers_that_restart_for_ever_take_no_memory_and_count_once() -> None:
    gathered = Gathered()
    for number in range(3 * GONE):
        gathered.take(str(number), told(1, 0), {str(number)})
    assert len(gathered._last) <= GONE + 1
    assert gathered.total(set()).tally.requests == 3 * GONE
    gathered.take("0", told(1, 0), {"0"})
    assert gathered.total({"0"}).tally.requests == 3 * GONE


def test_flips_and_lost_requests_are_told_in_full_up_to_a_bound() -> None:
    gathered, present = Gathered(), {"a", "b"}
    for worker in present:
        tally = Tally()
        for number in range(KEPT):
            tally.flip(f"user-{number}", Flip(STABLE, CANARY, "why"), first=True)
            tally.lose("timeout", "GET /")
        gathered.take(worker, to_plain(tally, Ledger(), False), present)
    total = gathered.total(present).tally
    assert (total.flips, total.flipped_users, total.lost["timeout"]) == (2 * KEPT, 2 * KEPT, 2 * KEPT)
    assert len(total.flip_details) == len(total.lost_details) == KEPT
    assert any("flips" in fault for fault in total.faults())


def test_the_end_is_the_last_word_of_each_worker_that_is_there() -> None:
    gathered, present = Gathered(), {"a", "b"}
    gathered.take("a", told(1, 0, is_final=True), present)
    assert not gathered.is_final(present)
    gathered.take("b", told(1, 0), present)
    assert not gathered.is_final(present)
    gathered.take("b", told(1, 0, is_final=True), present)
    assert gathered.is_final(present)
    assert gathered.is_final({"a"})
