"""What workers count and what a reader sees of it."""

from __future__ import annotations

import mmap
import os
import random
import subprocess
import sys
from pathlib import Path

from proxy import region, sketch
from proxy.counters import Counters, Stats, Tally, clear_gauges, read, tallies
from proxy.region import REGION_BYTES

UID, REVISION = "4a1c", "v2"


def memory() -> memoryview:
    return memoryview(bytearray(REGION_BYTES))


def writer(place: memoryview) -> Counters:
    counters = Counters(place)
    counters.new_revision(UID, REVISION)
    return counters


def stats(*places: memoryview) -> Stats:
    return read(places, UID, REVISION)


def test_slots_are_added_up_and_users_are_merged() -> None:
    """design.md, the pieces, 6: summed over workers, distinct users by maximum."""
    places = memory(), memory()
    for place in places:
        counters = writer(place)
        counters.request("canary", "split", "user", 200, False)
        counters.request("canary", "split", "user", 500, True)
        counters.upstream_failure("canary", "connect")
        counters.retry("canary")
        counters.rekeyed()
        counters.downstream_rejected("limit")
        counters.log_dropped()
        counters.request_seconds("canary", 0.25)
        counters.upstream_seconds("canary", "user", 0.125)
        counters.user("canary", b"0123456789abcdef", 170)
        counters.connections(3)
        counters.pending("canary", 2)
    found = stats(*places)
    assert found.series == {
        ("requests", "canary", "split", "user", "200", "ok"): 2,
        ("requests", "canary", "split", "user", "500", "failed"): 2,
        ("upstream_failures", "canary", "connect"): 2,
        ("retries", "canary"): 2,
        ("rekeyed",): 2,
        ("rejected", "limit"): 2,
        ("pending", "canary"): 4,
    }
    assert found.times[("canary",)] == {sketch.cell(0.25): 2}
    assert found.times[("canary", "user")] == {sketch.cell(0.125): 2}
    assert sketch.estimate(found.users["canary"]) == 1
    assert sketch.estimate(found.epochs["canary"][170]) == 1
    assert (found.connections, found.log_dropped) == (6, 2)


def test_a_new_writer_goes_on_counting_but_its_gauges_start_at_zero() -> None:
    """A worker killed loses nothing, except the connections that died with it."""
    place = memory()
    for _ in range(2):
        counters = writer(place)
        counters.request("stable", "split", "user", 200, False)
        counters.request_seconds("stable", 1.0)
        counters.user("stable", os.urandom(16), 170)
        counters.connections(1)
        counters.pending("stable", 1)
    found = stats(place)
    assert found.series[("requests", "stable", "split", "user", "200", "ok")] == 2
    assert found.times[("stable",)] == {sketch.cell(1.0): 2}
    assert sketch.estimate(found.users["stable"]) == 2
    assert (found.connections, found.series[("pending", "stable")]) == (1, 1)
    clear_gauges(place)
    assert stats(place).connections == 0
    assert ("pending", "stable") not in stats(place).series


def test_another_revision_forgets_the_users_and_nothing_else() -> None:
    """cohort_users counts the users of this revision; requests go on, as Prometheus expects."""
    place = memory()
    counters = writer(place)
    counters.user("canary", os.urandom(16), 170)
    counters.retry("canary")
    counters.new_revision(UID, REVISION)
    assert sketch.estimate(stats(place).users["canary"]) == 1
    counters.new_revision(UID, "v3")
    assert (stats(place).users, stats(place).epochs) == ({}, {})
    counters.user("stable", os.urandom(16), 170)
    found = read([place], UID, "v3")
    assert list(found.users) == ["stable"]
    assert sketch.estimate(found.users["stable"]) == 1
    assert found.series == {("retries", "canary"): 1}


def test_no_revision_on_trial_is_one_of_its_own() -> None:
    """After a promotion nobody is on trial: those users are counted apart from any revision's."""
    place = memory()
    counters = writer(place)
    counters.user("stable", os.urandom(16), 170)
    counters.new_revision(UID, None)
    assert read([place], UID, None).users == {}


def test_another_rollout_starts_at_zero_and_keeps_what_belongs_to_the_proxy() -> None:
    """Numbers of one rollout must never appear under the name of another."""
    place = memory()
    counters = writer(place)
    counters.request("canary", "route/staff", "forced", 200, False)
    counters.request_seconds("canary", 1.0)
    counters.user("canary", os.urandom(16), 170)
    counters.downstream_rejected("limit")
    counters.pending("canary", 1)
    counters.new_revision("another", REVISION)
    assert read([place], UID, REVISION).times == {}
    found = read([place], "another", REVISION)
    assert found.series == {("rejected", "limit"): 1, ("pending", "canary"): 1}
    assert all(not counts for counts in found.times.values())
    assert found.users == {}
    counters.request("canary", "route/staff", "forced", 200, False)
    counters.pending("canary", 0)
    counters.request_seconds("canary", 1.0)
    found = read([place], "another", REVISION)
    assert found.series[("requests", "canary", "route/staff", "forced", "200", "ok")] == 1
    assert found.times[("canary",)] == {sketch.cell(1.0): 1}
    assert ("pending", "canary") not in found.series


def test_a_worker_that_still_counts_for_another_rollout_is_left_out() -> None:
    """Between the flip and its next request a worker has the old rollout's numbers."""
    old, new = memory(), memory()
    writer(old).request("canary", "split", "user", 200, False)
    Counters(new).new_revision("another", None)
    assert read([old, new], "another", None).series == {}


def test_refusals_before_the_first_plan_are_kept() -> None:
    """Without a plan there is no rollout yet, but there are clients to turn away."""
    place = memory()
    counters = Counters(place)
    counters.downstream_rejected("no_plan")
    counters.new_revision(UID, REVISION)
    assert stats(place).series == {("rejected", "no_plan"): 1}


def test_a_version_that_answers_with_every_code_cannot_hide_its_failures() -> None:
    """Room is bounded: what finds none keeps arm, source and outcome, for both arms; threat A8."""
    place = memory()
    counters = writer(place)
    for number in range(region.SERIES + 500):
        counters.request("canary", f"route/r{number // 900}", "user", 100 + number % 900, True)
    for number in range(10):
        counters.request("stable", f"route/late{number}", "user", 200, False)
        counters.retry("canary")
    found = stats(place)
    failed = sum(n for labels, n in found.series.items() if labels[1:2] == ("canary",) and labels[-1] == "failed")
    assert failed == region.SERIES + 500
    assert found.series[("requests", "stable", "other", "user", "other", "ok")] == 10
    assert found.series[("retries", "canary")] == 10


def test_labels_without_end_raise_nothing_and_are_still_counted() -> None:
    """The hot path has no exceptions, not even for our own mistakes."""
    place = memory()
    counters = writer(place)
    for number in range(region.SERIES + 10):
        counters.upstream_failure(f"arm{number}", "connect")
        counters.upstream_seconds(f"arm{number}", "user", 1.0)
        counters.user(f"arm{number}", os.urandom(16), 170)
    counters.downstream_rejected("x" * 500)
    found = stats(place)
    assert sum(found.series.values()) == region.SERIES + 11
    assert sum(sum(counts.values()) for counts in found.times.values()) == region.SERIES + 10
    assert len(found.users) == region.ARMS
    assert Counters(place) is not None


def test_the_ring_keeps_the_last_epochs_and_drops_older_ones() -> None:
    """Windows of up to two minutes for minimumUsers and users per window."""
    place = memory()
    counters = writer(place)
    rng = random.Random(1)
    for epoch in range(100, 120):
        counters.user("canary", rng.randbytes(16), epoch)
        counters.user("canary", rng.randbytes(16), epoch)
    found = stats(place).epochs["canary"]
    assert sorted(found) == list(range(108, 120))
    assert {sketch.estimate(registers) for registers in found.values()} == {2}


def test_a_clock_set_back_counts_on() -> None:
    """Wall clocks jump (F21); the worst is an epoch that begins anew."""
    place = memory()
    counters = writer(place)
    for epoch in (100, 50, 100, 50):
        counters.user("canary", random.Random(epoch).randbytes(16), epoch)
    found = stats(place)
    assert sketch.estimate(found.users["canary"]) == 2
    assert {epoch: sketch.estimate(registers) for epoch, registers in found.epochs["canary"].items()} == {50: 1, 100: 1}


WRITER = """
import mmap, sys
from proxy.counters import Counters
counters = Counters(memoryview(mmap.mmap(int(sys.argv[1]), 0)))
counters.new_revision("4a1c", "v2")
number = 0
while True:
    counters.connections(2**62 + 1)
    counters.request("canary", "split", "user", 200, False)
    counters.connections(-(2**62 + 1))
    number += 1
    print(number, flush=True)
"""


def test_a_killed_writer_loses_nothing_and_its_numbers_are_never_torn(tmp_path: Path) -> None:
    """design.md, the pieces, 6: one slot a worker slot, so a killed worker loses nothing (F30)."""
    fd = os.memfd_create("counters")
    os.ftruncate(fd, REGION_BYTES)
    place = memoryview(mmap.mmap(fd, REGION_BYTES))
    header, said = region.Region(place).header, tmp_path / "said"
    with (
        said.open("wb") as out,
        subprocess.Popen([sys.executable, "-c", WRITER, str(fd)], pass_fds=[fd], stdout=out) as process,
    ):
        while not said.stat().st_size:
            assert process.poll() is None
        seen = {header[region.CONNECTIONS] for _ in range(100_000)}
        while len(seen) < 2:  # a busy machine may have run only one of the two processes so far
            seen.add(header[region.CONNECTIONS])
        process.kill()
    os.close(fd)
    assert seen == {0, 2**62 + 1}
    before = stats(place).series[("requests", "canary", "split", "user", "200", "ok")]
    assert before - int(said.read_bytes().split(b"\n")[-2]) in (0, 1)
    writer(place).request("canary", "split", "user", 200, False)
    assert stats(place).series[("requests", "canary", "split", "user", "200", "ok")] == before + 1


def test_tallies_hold_what_tells_something_of_a_version() -> None:
    """For the breaker: users' and forced answers, failed ones by user, over all workers; none that a client left."""
    places = memory(), memory()
    for place in places:
        counters = writer(place)
        for source, code, failed in (("user", 200, False), ("forced", 500, True), ("user", 502, True)):
            counters.request("canary", "split", source, code, failed)
        counters.request("canary", "mirror", "mirror", 500, True)
        counters.request("canary", "split", "user", 499, False)
        counters.user_failed("canary", b"0123456789abcdef")
        counters.user_failed("canary", None)
    found = tallies(places, UID, REVISION, ["canary", "third"])
    assert (found["canary"].answers, found["canary"].failed, found["canary"].users) == (6, 4, 2)
    assert found["third"] == Tally()
    assert found["canary"].since(found["canary"]) == Tally()
    assert tallies(places, UID, REVISION, ["canary"])["canary"] == found["canary"]
    writer(places[0]).new_revision(UID, "v3")
    later = tallies(places, UID, "v3", ["canary"])["canary"]
    assert (later.answers, later.failed, later.users) == (6, 4, 0)
    assert tallies(places, "other", None, ["canary"]) == {"canary": Tally()}
