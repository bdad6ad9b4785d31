"""What is known of a name: its last good addresses, and when to ask again.

A name is asked for in rounds, both address families at once. A round that brings any address counts as an answer; one
that brings none (the name does not exist, no server answers, the answer is empty) changes nothing but the time of the
next one: a name server's trouble must not become the service's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, replace

V4, V6 = 4, 6
KINDS = ("empty", "network", "nxdomain", "servfail", "timeout", "unusable")  # labels of cohort_dns_failures_total
JITTER_S = 0.5  # at most so late: proxies that began together do not ask together for ever
FIRST_RETRY_S = 1.0
MOST_ADDRESSES = 1000  # of one family that are used, the lowest ones, by all proxies alike; no service has more
LAST_RETRY_S = 30.0  # a name server that is down is asked twice a minute
UNKNOWN_RETRY_S = 5.0  # while a name has no address at all, its users wait for us


@dataclass(frozen=True, slots=True)
class Found:
    """One family's answer.

    Attributes:
        addresses: In any order; empty: the name has none of this family.
        ttl_s: How long they may be used; of no meaning where there are none.
    """

    addresses: tuple[str, ...]
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Failed:
    """One family's failure: a kind of `KINDS`, and what happened."""

    kind: str
    message: str


Outcome = Found | Failed


@dataclass(frozen=True, slots=True)
class Bounds:
    """Between which seconds a TTL counts."""

    min_ttl_s: float
    max_ttl_s: float


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of one name.

    Attributes:
        by_family: The last good addresses of each family, sorted, at most `MOST_ADDRESSES`.
        answered_s: Monotonic seconds of the last good answer; None: there was none yet.
        ttl_s: Of that answer, as the server gave it.
        failures: Rounds without an address since then.
        problem: What was wrong with the last round, even where one family answered; None: nothing.
    """

    by_family: Mapping[int, tuple[str, ...]]
    answered_s: float | None = None
    ttl_s: float = 0.0
    failures: int = 0
    problem: Failed | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        """All addresses, IPv4 first."""
        return tuple(address for _, found in sorted(self.by_family.items()) for address in found)


NOTHING = Known({})


def learn(known: Known, outcomes: Mapping[int, Outcome], now_s: float) -> Known:
    """What is known after one round.

    A family whose question failed keeps its addresses if the other one answered.

    Args:
        outcomes: By family, of those that were asked; not empty.
        now_s: Monotonic seconds.
    """
    usable = {family: _usable(outcome) for family, outcome in outcomes.items()}
    problem = next((outcome for outcome in usable.values() if isinstance(outcome, Failed)), None)
    answers = {family: outcome for family, outcome in usable.items() if isinstance(outcome, Found)}
    ttls = [answer.ttl_s for answer in answers.values() if answer.addresses]
    if not ttls:
        problem = problem or Failed("empty", "the answer has no address")
        return replace(known, failures=known.failures + 1, problem=problem)
    kept = {family: known.by_family.get(family, ()) for family in usable}
    fresh = {family: tuple(sorted(set(answer.addresses))[:MOST_ADDRESSES]) for family, answer in answers.items()}
    return Known(kept | fresh, now_s, min(ttls), 0, problem)


def _usable(outcome: Outcome) -> Outcome:
    """An answer without what can be nobody's service; a failure if nothing is left."""
    if isinstance(outcome, Failed) or not outcome.addresses:
        return outcome
    addresses = tuple(text for text in outcome.addresses if is_usable(text))
    return Found(addresses, outcome.ttl_s) if addresses else Failed("unusable", f"only {outcome.addresses[0]}")


def is_usable(address: str) -> bool:
    """Whether an address may be an endpoint: no wildcard, multicast or link-local one, where metadata services are."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return not (ip.is_unspecified or ip.is_multicast or ip.is_link_local or address == "255.255.255.255")


def wait_s(known: Known, bounds: Bounds, chance: float) -> float:
    """Seconds until the next round.

    Args:
        chance: From 0 to 1, drawn for each round: a little late after an answer, a little early after a failure.
    """
    if known.failures:
        last = LAST_RETRY_S if known.answered_s is not None else UNKNOWN_RETRY_S
        return min(FIRST_RETRY_S * 2.0 ** min(known.failures - 1, 10), last) * (1 - chance / 4)
    ttl_s = min(max(known.ttl_s, bounds.min_ttl_s), bounds.max_ttl_s)
    return ttl_s + chance * min(JITTER_S, ttl_s / 10)


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """Addresses by name, in lower case, of a hosts file; what is no address of ours is passed over, as libc does."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        try:
            ipaddress.ip_address(address)
        except ValueError:
            continue
        for name in names:
            found[name.lower()] = (*found.get(name.lower(), ()), address)
    return found
