"""A synthetic user without the network: identity, journey, and what it makes of an answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import count

from loadtest.options import Options, parse_journey
from loadtest.person import Crowd, Person
from loadtest.tag import Tagger

OPTIONS = Options(target="http://127.0.0.1:8080", users=1, spawn_rate=1)
EXPLAINED = {
    "x-cohort-arm": ["stable"],
    "x-cohort-revision": ["v1"],
    "x-cohort-reason": ["split"],
    "x-cohort-generation": ["7"],
    "x-cohort-rollout": ["shop/checkout"],
}
ON_CANARY = {**EXPLAINED, "x-cohort-arm": ["canary"], "x-cohort-revision": ["v2"]}


@dataclass
class Reply:
    status: int
    fields: dict[str, list[str]]


def crowd(**changes: object) -> Crowd:
    options = replace(OPTIONS, **changes)  # type: ignore[arg-type]
    return Crowd(options, parse_journey(options.journey), count(1))


def exchange(crowd: Crowd, person: Person, reply: Reply) -> str:
    """One request with its answer: "flip", "lost" or nothing."""
    sight = crowd.take(person, crowd.ask(person, 0), reply, 0.01, 0)
    return "flip" if sight.flip else "lost" if sight.lost else ""


def test_cookies_come_back() -> None:
    """Identity cookie: what an answer sets goes with the next request, and nothing names the user but that."""
    people = crowd()
    person = people.arrive(0)
    assert "Cookie" not in people.ask(person, 0).fields
    exchange(people, person, Reply(200, {**EXPLAINED, "set-cookie": ["cohort_shop=a; Path=/", "theme=dark"]}))
    fields = people.ask(person, 0).fields
    assert fields["Cookie"] == "cohort_shop=a; theme=dark"
    assert fields["X-Cohort-Explain"] == "1"
    assert "X-User-Id" not in fields


def test_a_marked_crowd_still_has_users_with_identities() -> None:
    """E1: signed as synthetic."""
    marked = Crowd(
        replace(OPTIONS, identity="header"), parse_journey("home"), count(1), Tagger(b"s" * 32, "shop/checkout")
    )
    fields = marked.ask(marked.arrive(0), 1_700_000_000.0).fields
    assert fields["X-User-Id"] == "user-1"
    assert len(fields["X-Cohort-Synthetic"]) == 36
    people = crowd()
    assert "X-Cohort-Synthetic" not in people.ask(people.arrive(0), 0).fields


def test_a_login_names_the_user_from_the_third_request_on() -> None:
    """Identity login: an anonymous user becomes a named one and may move once, not twice."""
    people = crowd(identity="login")
    person = people.arrive(0)
    assert [exchange(people, person, Reply(200, ON_CANARY)) for _ in range(2)] == ["", ""]
    assert people.ask(person, 0).fields["X-User-Id"] == "user-1"
    assert exchange(people, person, Reply(200, EXPLAINED)) == ""
    assert exchange(people, person, Reply(200, ON_CANARY)) == "flip"


def test_the_journey_is_walked_in_order_and_begins_anywhere() -> None:
    """Users do not march in step: each begins at another page."""
    people = crowd()
    starts = {people.arrive(seat).step for seat in range(40)}
    assert starts == {0, 1, 2, 3}
    person = people.arrive(0)
    person.step = 2
    seen = []
    for _ in range(3):
        request = people.ask(person, 0)
        seen.append(f"{request.method} {request.target}")
        people.take(person, request, Reply(200, EXPLAINED), 0.01, 0)
    assert seen == ["GET /cart", "POST /checkout", "GET /"]


def test_equal_seeds_make_equal_users() -> None:
    """--seed makes think times and journeys repeatable."""
    first, second, other = (crowd(seed=seed).arrive(0).rng.random() for seed in (1, 1, 2))
    assert first == second != other


def test_what_the_proxy_answers_itself_is_lost() -> None:
    """A 503 that names no version came from the proxy; a service that says who it is has an error of its own."""
    people = crowd(version_header="X-Version")
    person = people.arrive(0)
    assert exchange(people, person, Reply(503, EXPLAINED)) == "lost"
    assert exchange(people, person, Reply(503, {**EXPLAINED, "x-version": ["v1"]})) == ""
    assert exchange(people, person, Reply(500, EXPLAINED)) == ""
    assert exchange(people, person, Reply(500, {})) == "lost"
    assert people.tally.lost == {"503": 1, "500": 1}
    assert people.tally.versions["v1"].errors == 2


def test_a_service_of_another_version_is_a_flip() -> None:
    """The service's own word counts: a proxy that names one version and asks another is found."""
    people = crowd(version_header="X-Version")
    assert exchange(people, people.arrive(0), Reply(200, {**EXPLAINED, "x-version": ["v2"]})) == "flip"


def test_answers_without_explanation_are_counted_apart() -> None:
    """Missing, repeated or malformed fields explain nothing, and a run of such answers fails."""
    people = crowd()
    person = people.arrive(0)
    for fields in (
        {},
        {**EXPLAINED, "x-cohort-arm": ["stable", "canary"]},
        {**EXPLAINED, "x-cohort-generation": ["x"]},
    ):
        assert exchange(people, person, Reply(200, fields)) == ""
    assert people.tally.unexplained == 3
    assert "no answer was explained" in people.tally.faults()[0]


def test_who_leaves_is_counted_no_more() -> None:
    """Users of a version are those who are there; a new user in the seat has an identity of its own."""
    people = crowd(leave_percent=100.0)
    person = people.arrive(0)
    person.step = 3
    assert exchange(people, person, Reply(200, EXPLAINED)) == ""
    assert people.has_finished(person)
    people.leave(person)
    newcomer = people.arrive(0)
    assert (newcomer.name, people.tally.arrived, people.tally.active) == ("2", 2, 1)
    assert people.tally.versions["v1"].users == 0
    people.close()
    people.leave(newcomer)
    assert people.tally.active == 1
