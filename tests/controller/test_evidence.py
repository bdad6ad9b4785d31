"""Evidence: windows, resets, several proxies, distinct users, and who counts at all."""

from __future__ import annotations

import random
from typing import Any

import pytest

from controller import past
from controller.analysis import Reading
from controller.evidence import STALE_S, Evidence
from controller.look import parse_look
from controller.spec import CohortProvider
from proxy.document import validate
from tests.controller.world import World
from tests.support.fake_proxy import FakeProxy

EPOCH_0 = 1_700_000_000.0


def keys(count: int, seed: int = 1) -> list[bytes]:
    rng = random.Random(seed)
    return [rng.randbytes(16) for _ in range(count)]


def provider(metric: str = "successRate", **more: Any) -> CohortProvider:
    return validate(CohortProvider, {"metric": metric, "minimumRequests": 1, "minimumUsers": 0, **more})


class Watch:
    """Evidence of a rollout at 50 %, fed from fake proxies second by second."""

    def __init__(self, proxies: int = 1, keep_s: float = 60.0) -> None:
        world = World(proxies=1).run(3)
        plan = world.proxy.plan
        assert plan is not None
        self.plan = plan
        self.proxies = [FakeProxy(plan=plan) for _ in range(proxies)]
        self.now = 100.0
        self.evidence = Evidence(plan.rollout.uid, plan.revision, keep_s, self.now)

    @property
    def wall(self) -> float:
        return EPOCH_0 + self.now

    def look(self) -> None:
        for number, proxy in enumerate(self.proxies):
            self.evidence.add(f"unix:{number}", parse_look(proxy.stats(self.wall)), self.now)

    def serve(self, turns: int, *, arm: str = "canary", requests: int = 0, failures: int = 0, **more: Any) -> None:
        for _ in range(turns):
            self.now += 1.0
            for proxy in self.proxies:
                proxy.serve(arm, requests, failures, **more)
            self.look()

    def measure(self, metric: str = "successRate", **more: Any) -> Reading:
        return self.evidence.measure(provider(metric, **more), self.now)

    def value(self, metric: str = "successRate", **more: Any) -> float:
        reading = self.measure(metric, **more)
        assert reading.value is not None, reading
        return reading.value


def test_only_what_came_since_the_first_look_counts() -> None:
    """Counters are older than the trial: what they held at its start is of another time."""
    watch = Watch()
    watch.proxies[0].serve("canary", 1000, 900)
    watch.look()
    assert watch.measure().need is not None
    watch.serve(10, requests=10, failures=1)
    assert watch.value("requests") == 100
    assert watch.value("errorRate") == pytest.approx(0.1)
    assert watch.value("successRate") == pytest.approx(0.9)


def test_a_window_forgets() -> None:
    """What is older than the window does not count, to a hundredth of it."""
    watch = Watch()
    watch.look()
    watch.serve(60, requests=10, failures=10)
    watch.serve(30, requests=10)
    assert watch.value("requests", window="10s") == 100
    assert watch.value("successRate", window="30s") == 1.0
    assert watch.value("successRate", window="60s") == pytest.approx(0.5, abs=0.02)


def test_proxies_add_up() -> None:
    """Requests are summed over proxies; users are merged, so one who met two of them is one."""
    watch = Watch(proxies=3)
    watch.look()
    people = keys(300)
    for number, proxy in enumerate(watch.proxies):
        proxy.meet("canary", people[: 100 + number * 50], watch.wall)
    watch.serve(5, requests=10)
    assert watch.value("requests") == 150
    assert watch.value("users") == pytest.approx(200, rel=0.1)


def test_forced_requests_are_no_evidence() -> None:
    """S6: previews, header routes and probes say nothing of what users meet."""
    watch = Watch()
    watch.look()
    watch.serve(5, requests=100, failures=100, source="forced")
    watch.serve(5, requests=100, failures=100, source="synthetic")
    assert watch.measure().value is None
    watch.serve(5, requests=10)
    assert watch.value() == 1.0


def test_arms_are_apart() -> None:
    """The same window of stable is asked for by name."""
    watch = Watch()
    watch.look()
    watch.serve(5, arm="stable", requests=10, failures=5)
    watch.serve(5, arm="canary", requests=10)
    assert watch.value(arm="stable") == 0.5
    assert watch.value(arm="canary") == 1.0


@pytest.mark.parametrize(("metric", "expected"), [("p50", 0.04), ("p90", 0.04), ("p99", 2.0)])
def test_percentiles_are_of_the_window(metric: str, expected: float) -> None:
    """Seconds to the response head, within 5 %, summed over proxies."""
    watch = Watch(proxies=2)
    watch.look()
    watch.serve(10, requests=1, seconds=60.0)
    watch.serve(60, requests=95, seconds=0.04)
    watch.serve(1, requests=300, seconds=2.0)
    assert watch.value(metric) == pytest.approx(expected, rel=0.05)


def test_without_an_answer_there_is_no_latency() -> None:
    """A canary that refuses every connection has errors and no latency: that is no measurement, nor a good one."""
    watch = Watch()
    watch.look()
    watch.proxies[0].counts[("canary", "user")] = {"requests": 100, "failures": 100, "latency": {}}
    watch.now += 1
    watch.look()
    assert watch.value("errorRate") == 1.0
    assert watch.measure("p99").need is not None


def test_a_restarted_proxy_begins_anew() -> None:
    """Another boot id: counters start at zero, or are restored; either way what was before is not counted twice."""
    watch = Watch()
    watch.look()
    watch.serve(10, requests=10, failures=5)
    watch.proxies[0].restart("boot-2")
    watch.serve(1, requests=1000)
    assert watch.measure().value is None
    watch.serve(5, requests=10)
    assert (watch.value("requests"), watch.value()) == (50, 1.0)


def test_counters_that_fall_begin_anew() -> None:
    """The same boot id and smaller numbers: nobody knows what that means, so nothing is made of it."""
    watch = Watch()
    watch.look()
    watch.serve(10, requests=10)
    watch.proxies[0].counts[("canary", "user")]["requests"] = 5
    watch.serve(1)
    assert watch.measure().value is None
    watch.serve(2, requests=10)
    assert watch.value("requests") == 20


def test_another_revision_is_other_evidence() -> None:
    """Until a proxy has the plan of this trial its numbers are of the one before."""
    watch = Watch()
    other = watch.plan.model_copy(update={"revision": "v0"})
    watch.proxies[0].plan = other
    watch.serve(6, requests=10, failures=10)
    assert watch.measure().error
    watch.proxies[0].plan = watch.plan
    watch.serve(1, requests=10, failures=10)
    watch.serve(5, requests=10)
    assert (watch.value("requests"), watch.value()) == (50, 1.0)


def test_silence_is_no_signal() -> None:
    """C9: numbers that no proxy has confirmed lately are an error, not a result."""
    watch = Watch()
    assert watch.measure().need is not None
    watch.now += STALE_S + 1
    assert "no proxy has told numbers" in watch.measure().error
    watch.look()
    watch.serve(5, requests=100)
    assert watch.value() == 1.0
    watch.now += STALE_S + 1
    assert watch.measure().error


@pytest.mark.parametrize(
    ("requests", "users", "minimum", "need"),
    [
        (5, 20, {"minimumRequests": 100, "minimumUsers": 5}, (50, 0, 1)),
        (5, 2, {"minimumRequests": 10, "minimumUsers": 5}, (0, 3, 1)),
        (0, 0, {"minimumRequests": 10, "minimumUsers": 5}, (10, 5, None)),
        (0, 0, {"minimumRequests": 0, "minimumUsers": 0}, (1, 0, None)),
        (1, 20, {"minimumRequests": 310, "minimumUsers": 0}, (300, 0, 5)),
    ],
)
def test_too_few_is_a_need(
    requests: int, users: int, minimum: dict[str, Any], need: tuple[int, int, int | None]
) -> None:
    """D5: how many requests and users are missing, and how long that takes at the rate of the window."""
    watch = Watch()
    watch.look()
    watch.proxies[0].meet("canary", keys(users), watch.wall)
    watch.serve(10, requests=requests)
    found = watch.measure(**minimum).need
    assert found is not None
    assert (found.requests, found.users, found.minutes) == need


def test_no_minimum_still_needs_a_request() -> None:
    """A rate of nothing is no rate; a number of requests may be zero."""
    watch = Watch()
    watch.look()
    watch.serve(2)
    assert watch.measure("successRate", minimumRequests=0).need is not None
    assert watch.value("requests", minimumRequests=0) == 0


def test_long_windows_outlive_the_proxies_epochs() -> None:
    """A proxy keeps two minutes of registers; what it has told is kept for as long as a window needs."""
    watch = Watch(keep_s=600.0)
    watch.look()
    people = keys(400)
    for minute in range(8):
        watch.proxies[0].meet("canary", people[minute * 50 : minute * 50 + 50], watch.wall)
        watch.serve(1, requests=10)
        watch.proxies[0].epochs["canary"].clear()
        watch.serve(59, requests=10)
    assert watch.value("users", window="10m") == pytest.approx(400, rel=0.1)
    assert watch.value("users", window="2m") == pytest.approx(100, rel=0.2)
    assert watch.value("requests", window="10m") == 4800


def test_memory_is_bounded() -> None:
    """However long a trial lasts, a proxy has at most the slices of its longest window."""
    watch = Watch(keep_s=3600.0)
    watch.look()
    watch.serve(4000, requests=1)
    assert len(watch.evidence._sources["unix:0"].slices) <= 122
    assert watch.value("requests", window="1h") == pytest.approx(3600, rel=0.02)


def test_the_measured_share_is_of_users_since_the_weight() -> None:
    """Users of the weight before would count for both arms, so the share begins with the next epoch."""
    watch = Watch()
    people = keys(4000)
    proxy = watch.proxies[0]
    watch.look()
    proxy.meet("stable", people, watch.wall)
    watch.serve(1)
    assert watch.evidence.share() is None
    watch.now += 10
    proxy.meet("canary", people[:1000], watch.wall)
    proxy.meet("stable", people[1000:], watch.wall)
    watch.serve(1)
    share = watch.evidence.share()
    assert share is not None
    assert share.low < 0.25 < share.high
    assert share.measured == pytest.approx(0.25, abs=0.03)
    assert share.high - share.low < 0.12
    watch.evidence.restart_share()
    assert watch.evidence.share() is None


@pytest.mark.parametrize("canary", [0, 1, 30])
def test_few_users_leave_a_wide_range(canary: int) -> None:
    """Three sigma by Wilson: nobody of 30 does not prove a share of zero."""
    watch = Watch()
    people = keys(30)
    watch.look()
    assert watch.evidence.share() is None
    watch.now += 10
    watch.proxies[0].meet("canary", people[:canary], watch.wall)
    watch.proxies[0].meet("stable", people[canary:], watch.wall)
    watch.serve(1)
    share = watch.evidence.share()
    assert share is not None
    assert 0 <= share.low <= share.measured <= share.high <= 1
    assert share.high - share.low > 0.2


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        None,
        {"boot": "a", "now": 1, "uid": "u", "revision": "v", "generation": 1, "arms": {"canary": {}}},
        {"boot": "a", "now": "x", "uid": "u", "revision": "v", "generation": 1, "arms": {}},
        {"boot": "a", "now": 1, "uid": "u", "revision": "v", "generation": 1, "arms": []},
        {
            "boot": "a",
            "now": 1,
            "uid": "u",
            "revision": "v",
            "generation": 1,
            "arms": {"canary": {"sources": {}, "users": {"epochs": {"1": "!!"}}}},
        },
        {
            "boot": "a",
            "now": 1,
            "uid": "u",
            "revision": "v",
            "generation": 1,
            "arms": {"canary": {"sources": {}, "users": {"epochs": {"1": "AAAA"}}}},
        },
    ],
)
def test_what_is_no_statistics_is_refused(value: Any) -> None:
    """A proxy of another version must not become evidence."""
    with pytest.raises(ValueError, match=r"expected|could not convert"):
        parse_look(value)


class Relay(Watch):
    """Evidence that one controller after another gathers, each by a clock of its own."""

    def take_over(self, gap_s: float = 1.0) -> None:
        """The one before leaves what it has stored; the next one comes when the proxies' clocks have gone on."""
        text = past.write(self.kept(), 1)
        self.offset += 1000.0 - gap_s  # monotonic clocks of two processes have nothing in common
        self.now += 1000.0
        self.evidence = Evidence(self.plan.rollout.uid, self.plan.revision, self.keep_s, self.now, past.read(text, 1))

    def __init__(self, proxies: int = 1, keep_s: float = 60.0) -> None:
        super().__init__(proxies, keep_s)
        self.keep_s, self.offset = keep_s, 0.0

    @property
    def wall(self) -> float:
        return super().wall - self.offset

    def kept(self) -> past.Past:
        found = self.evidence.past(self.now)
        assert found is not None
        return found


def test_the_next_controller_goes_on_with_the_window() -> None:
    """Nothing twice and nothing lost: three controllers measure what one would have."""
    relay = Relay(proxies=2)
    relay.look()
    for _ in range(3):
        relay.serve(10, requests=10, failures=1)
        relay.take_over()
        relay.look()
    assert relay.value("requests", window="60s") == 3 * 10 * 10 * 2
    assert relay.value("errorRate", window="60s") == pytest.approx(0.1)


def test_what_was_counted_while_nobody_looked_counts_once() -> None:
    """A proxy counts on: the difference to where it stood is of this attempt."""
    relay = Relay()
    relay.look()
    relay.serve(5, requests=10)
    relay.proxies[0].serve("canary", 7, 7)
    relay.take_over(gap_s=4.0)
    relay.look()
    relay.look()
    assert relay.value("requests") == 57
    relay.take_over(gap_s=4.0)
    relay.look()
    assert relay.value("requests") == 57


def test_a_proxy_restarted_meanwhile_begins_anew() -> None:
    """Counters are of one boot; what was counted before it still is in the window."""
    relay = Relay(proxies=2)
    relay.look()
    relay.serve(5, requests=10)
    relay.proxies[0].restart("boot-2")
    relay.proxies[0].serve("canary", 1000, 1000)
    relay.take_over()
    relay.look()
    assert relay.value("requests") == 100
    relay.serve(1, requests=10)
    assert relay.value("requests") == 120


def test_a_window_goes_on_forgetting_after_a_takeover() -> None:
    """How old it all is by then the proxies' clocks tell."""
    relay = Relay()
    relay.look()
    relay.serve(20, requests=10, failures=10)
    relay.take_over(gap_s=15.0)
    relay.serve(10, requests=10)
    assert relay.value("requests", window="10s") == 100
    assert relay.value("errorRate", window="60s") == pytest.approx(2 / 3, abs=0.02)
    relay.serve(25, requests=10)
    assert relay.value("errorRate", window="60s") == pytest.approx(10 / 45, abs=0.03)
    relay.serve(30, requests=10)
    assert relay.value("errorRate", window="60s") == 0


def test_what_is_older_than_the_window_when_the_next_one_comes_is_gone() -> None:
    """Controllers were away for an hour: what the proxies counted since is of no window."""
    relay = Relay()
    relay.look()
    relay.serve(20, requests=10, failures=10)
    relay.proxies[0].serve("canary", 1000, 1000)
    relay.take_over(gap_s=3600.0)
    relay.look()
    assert relay.measure().value is None
    relay.serve(5, requests=10)
    assert relay.value("requests") == 50
    assert relay.value("errorRate") == 0


def test_users_of_before_are_not_counted_twice() -> None:
    """Registers are merged by maximum, whoever has looked."""
    relay = Relay(keep_s=600.0)
    people = keys(200)
    relay.look()
    for turn in range(20):
        relay.proxies[0].meet("canary", people[turn * 10 : turn * 10 + 10], relay.wall)
        relay.serve(10, requests=1)
        if turn % 5 == 4:
            relay.take_over()
            relay.proxies[0].epochs["canary"] = dict(list(relay.proxies[0].epochs["canary"].items())[-12:])
            relay.look()
    assert relay.value("users", window="600s") == pytest.approx(200, rel=0.1)


def test_a_controller_that_never_looked_leaves_what_it_was_left() -> None:
    """Killed at once after its takeover."""
    relay = Relay()
    relay.look()
    relay.serve(10, requests=10, failures=1)
    relay.take_over()
    relay.take_over()
    relay.take_over()
    relay.look()
    assert relay.value("requests") == 100


def test_a_proxy_that_did_not_answer_the_one_between_goes_on_where_it_stood() -> None:
    """Its counters were kept for the next but one."""
    relay = Relay(proxies=2)
    relay.look()
    relay.serve(5, requests=10)
    relay.take_over()
    silent = relay.proxies.pop()
    silent.serve("canary", 30, 0)
    relay.look()
    relay.take_over()
    relay.proxies.append(silent)
    relay.look()
    assert relay.value("requests") == 130


def test_a_proxy_that_had_another_plan_in_between_counts_nothing_twice() -> None:
    """Where its counters stood is of use once."""
    relay = Relay(proxies=2)
    relay.look()
    relay.serve(5, requests=10)
    relay.take_over()
    relay.look()
    relay.serve(5, requests=10)
    mine, relay.proxies[0].plan = relay.proxies[0].plan, None
    relay.look()
    relay.proxies[0].plan = mine
    relay.look()
    assert relay.value("requests") == 150  # the proxy's own second half is gone with its plan


def test_nothing_is_left_where_nothing_was_counted() -> None:
    """No proxy has answered yet."""
    assert Relay().evidence.past(100.0) is None
