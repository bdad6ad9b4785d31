"""What is found out about a plan's endpoints beside the plan: the addresses behind names, and who passes its checks.

In the supervisor. Each name is followed by a task of its own, checks are `checks.Checks`' business. Whatever changes
goes to the workers as one whole snapshot, so that a worker that missed one has missed nothing. A new plan is prepared
before it comes into force: its names are asked for first, so that a change from addresses to a name loses no request.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from proxy.config import ResolverSettings
from proxy.metrics import Found
from proxy.names import KINDS, NOTHING, Bounds, Failed, Known, Outcome, learn, wait_s
from proxy.net.checks import Checks, Place, Probe, Target
from proxy.plan import Arm, HealthCheck, Plan

log = logging.getLogger("cohort.discovery")

PREPARE_S = 2.0  # a plan waits so long for the first answers; then its arms come to have endpoints when they come
GATHER_S = 0.1  # verdicts of checks are collected so long before the workers hear of them
SHOWN = 20  # addresses in one line of the log


class Asks(Protocol):
    """Who resolves names; `resolver.Resolver` does."""

    async def ask(self, host: str) -> dict[int, Outcome]: ...  # noqa: D102


@dataclass(slots=True)
class _Name:
    """One name that is followed.

    Attributes:
        tried: A first round has ended, however it did.
    """

    host: str
    known: Known = NOTHING
    tried: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Discovery:
    """Follows the names of the plan in force and of the one on its way, and checks the endpoints of the former.

    Args:
        resolver: Who resolves names.
        probe: Who checks endpoints.
        tell: Takes each new snapshot as JSON: ``names`` with the addresses of each, ``unhealthy`` with pairs of address
            and port.
        now: Monotonic seconds. ``chance``: from 0 to 1, drawn anew at each call.
    """

    def __init__(
        self,
        resolver: Asks,
        probe: Probe,
        settings: ResolverSettings,
        tell: Callable[[str], None],
        now: Callable[[], float],
        chance: Callable[[], float],
    ) -> None:
        self._resolver = resolver
        self._bounds = Bounds(settings.min_ttl, settings.max_ttl)
        self._tell = tell
        self._has_news = asyncio.Event()
        self._checks = Checks(probe, self._has_news.set, now, chance)
        self._now, self._chance = now, chance
        self._names: dict[str, _Name] = {}
        self._remembered: dict[str, Known] = {}
        self._plans: list[Plan] = []
        self._failures: dict[tuple[str, str], int] = {}
        self._told = _document({}, [])  # what a worker takes to be so that was told nothing
        self._tasks: asyncio.TaskGroup | None = None
        self._is_running = asyncio.Event()

    async def run(self) -> None:
        """Follow, until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            self._is_running.set()
            self._tasks.create_task(self._publish_verdicts())
            await self._checks.run()

    # --- what the keeper says

    async def prepare(self, plan: Plan) -> None:
        """A plan is on its way: learn its names, for `PREPARE_S` at most."""
        await self._is_running.wait()
        self._plans = [*self._plans[:1], plan]
        self._follow_names()
        self._publish()
        try:
            async with asyncio.timeout(PREPARE_S):
                for host in _hosts([plan]):
                    await self._names[host].tried.wait()
        except TimeoutError:
            log.warning("a plan goes on without addresses of %s", ", ".join(self._unknown([plan])))

    def settle(self, plan: Plan | None) -> None:
        """This plan is in force now, and no other is on its way."""
        self._plans = [plan] if plan else []
        self._follow_names()
        self._follow_checks()
        self._publish()

    # --- a successor

    def known(self) -> dict[str, Any]:
        """All that `resume` needs, as values of JSON."""
        names = {
            host: [sorted(name.known.by_family.items()), name.known.answered_s, name.known.ttl_s]
            for host, name in self._names.items()
        }
        failures = [[*labels, count] for labels, count in self._failures.items()]
        return {"names": names, "unhealthy": self._checks.unhealthy, "failures": failures}

    async def resume(self, plan: Plan | None, known: dict[str, Any]) -> None:
        """Go on in the place of another one: the last good answers stay, verdicts too, and all is asked for anew."""
        await self._is_running.wait()
        for host, (by_family, answered_s, ttl_s) in known.get("names", {}).items():
            families = {family: tuple(addresses) for family, addresses in by_family}
            self._remembered[host] = Known(families, answered_s, ttl_s)
        self._failures = {(arm, kind): count for arm, kind, count in known.get("failures", ())}
        self._checks.remember((address, port) for address, port in known.get("unhealthy", ()))
        self.settle(plan)
        self._remembered = {}

    # --- what the admin API and the metrics ask

    def waits_for(self, plan: Plan) -> str | None:
        """The name of the first arm, as long as it has no address; None: it has one, or needs none."""
        return next(iter(self._unknown([plan])), None) if plan.arms[0].dns else None

    def _places(self, arm: Arm) -> list[tuple[str, int]]:
        """Where an arm listens, as far as that is known."""
        if arm.dns is None:
            return [(endpoint.address, endpoint.port) for endpoint in arm.endpoints]
        return [(address, arm.dns.port) for address in self._known(arm.dns.host).addresses]

    def document(self, arm: Arm) -> dict[str, Any]:
        """One arm in ``GET /endpoints``."""
        shown = [
            {"address": address, "port": port} | self._health(arm, address, port) for address, port in self._places(arm)
        ]
        return {"dns": self._source(arm), "endpoints": shown}

    def _health(self, arm: Arm, address: str, port: int) -> dict[str, Any]:
        if arm.health_check is None:
            return {"healthy": None, "error": None}
        health = self._checks.health(_target(arm, arm.health_check, address, port))
        return {"healthy": health.is_healthy, "error": health.error or None}

    def _source(self, arm: Arm) -> dict[str, Any] | None:
        if arm.dns is None:
            return None
        known = self._known(arm.dns.host)
        has_answer = known.answered_s is not None
        return {
            "host": arm.dns.host,
            "port": arm.dns.port,
            "ageS": round(self._now() - (known.answered_s or 0.0), 3) if has_answer else None,
            "ttlS": known.ttl_s if has_answer else None,
            "failures": known.failures,
            "error": f"{known.problem.kind}: {known.problem.message}" if known.problem else None,
        }

    def found(self, plan: Plan | None) -> Found:
        """What the metrics tell of the plan in force."""
        arms = plan.arms if plan else ()
        unhealthy = set(self._checks.unhealthy)
        answered = {arm.name: self._known(arm.dns.host).answered_s for arm in arms if arm.dns}
        return Found(
            endpoints={arm.name: len(self._places(arm)) for arm in arms},
            dns_ages_s={name: self._now() - since for name, since in answered.items() if since is not None},
            dns_failures={(arm.name, kind): 0 for arm in arms if arm.dns for kind in KINDS} | self._failures,
            unhealthy={
                arm.name: sum(place in unhealthy for place in self._places(arm)) for arm in arms if arm.health_check
            },
        )

    def _known(self, host: str) -> Known:
        name = self._names.get(host)
        return name.known if name else NOTHING

    def _unknown(self, plans: Iterable[Plan]) -> Iterator[str]:
        return (host for host in _hosts(plans) if not self._known(host).addresses)

    # --- names

    def _follow_names(self) -> None:
        """Ask for the names of the plans, and for no others any more."""
        assert self._tasks is not None
        wanted = _hosts(self._plans)
        for host in self._names.keys() - wanted:
            task = self._names.pop(host).task
            assert task is not None
            task.cancel()
        for host in wanted:
            if host not in self._names:
                name = self._names[host] = _Name(host, self._remembered.get(host, NOTHING))
                name.task = self._tasks.create_task(self._follow(name))

    async def _follow(self, name: _Name) -> None:
        while True:
            try:
                outcomes = await self._resolver.ask(name.host)
            except Exception as error:  # this task's root: what the resolver did not foresee must not end the proxy
                log.exception("asking for %s failed", name.host)
                outcomes = {0: Failed("network", type(error).__name__)}
            self._learn(name, outcomes)
            await asyncio.sleep(wait_s(name.known, self._bounds, self._chance()))

    def _learn(self, name: _Name, outcomes: dict[int, Outcome]) -> None:
        before, name.known = name.known, learn(name.known, outcomes, self._now())
        name.tried.set()
        if name.known.problem:
            self._count(name.host, name.known.problem.kind)
        _report(name.host, before, name.known)
        if name.known.addresses != before.addresses:
            self._follow_checks()
            self._publish()

    def _count(self, host: str, kind: str) -> None:
        for arm in {arm.name for plan in self._plans for arm in plan.arms if arm.dns and arm.dns.host == host}:
            self._failures[(arm, kind)] = self._failures.get((arm, kind), 0) + 1

    # --- checks

    def _follow_checks(self) -> None:
        self._checks.follow(
            _target(arm, arm.health_check, address, port)
            for plan in self._plans[:1]
            for arm in plan.arms
            if arm.health_check
            for address, port in self._places(arm)
        )

    # --- the snapshot

    async def _publish_verdicts(self) -> None:
        """Many endpoints that fail at once make few snapshots."""
        while True:
            await self._has_news.wait()
            await asyncio.sleep(GATHER_S)
            self._has_news.clear()
            self._publish()

    def _publish(self) -> None:
        names = {host: name.known.addresses for host, name in sorted(self._names.items())}
        document = _document(names, self._checks.unhealthy)
        if document != self._told:
            self._told = document
            self._tell(document)


def _document(names: Mapping[str, Sequence[str]], unhealthy: Sequence[Place]) -> str:
    return json.dumps({"names": names, "unhealthy": unhealthy}, separators=(",", ":"))


def _target(arm: Arm, check: HealthCheck, address: str, port: int) -> Target:
    """Host is the arm's name, or the endpoint's own address as a kubelet sends it."""
    host = arm.dns.host if arm.dns else f"[{address}]" if ":" in address else address
    return Target(arm.name, address, port, f"{host}:{port}", check, arm.proven_name(address))


def _hosts(plans: Iterable[Plan]) -> dict[str, None]:
    """The names in plans, each once, in their order."""
    return {arm.dns.host: None for plan in plans for arm in plan.arms if arm.dns}


def _report(host: str, before: Known, known: Known) -> None:
    """A line of the log for what has changed; a trouble that lasts is told once."""
    old, new = before.problem, known.problem
    if new and (old is None or old.kind != new.kind):
        kept = f"its {len(known.addresses)} addresses stay" if known.addresses else "it has no address yet"
        log.warning("%s: %s (%s); %s", host, new.message, new.kind, kept)
    elif old and not new:
        log.info("%s: answered again", host)
    if known.addresses != before.addresses:
        more = ", ..." if len(known.addresses) > SHOWN else ""
        log.info("%s: %d addresses: %s%s", host, len(known.addresses), ", ".join(known.addresses[:SHOWN]), more)
