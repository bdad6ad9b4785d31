"""A rollout with its proxies under virtual time: executes the machine's commands, and may be killed at any moment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from controller import planner, rollout, state
from controller.analysis import Reading
from controller.ask import Refused
from controller.events import (
    Asked,
    Command,
    Documented,
    Event,
    Keyed,
    LatchFailed,
    Measure,
    Measured,
    Observed,
    SetLatch,
    Tell,
    Tick,
    Unanswered,
    Verb,
)
from controller.phase import phase
from controller.spec import AnalysisTemplate, CanaryRollout, TemplateSpec, template_metrics
from controller.state import Latch, Phase, ProxyView, Stage
from controller.version import Version
from proxy.document import validate
from proxy.plan import Plan
from tests.support.fake_proxy import FakeProxy

SECRETS = {planner.key_id(b"s" * 32): b"s" * 32}
TICK_S = 0.2
STEPS: tuple[Any, ...] = ({"setWeight": 5}, {"pause": {"duration": "10s"}}, {"setWeight": 25}, {"pause": {}})


def document(
    *steps: Any,
    stable: str = "v1",
    canary: str | None = "v2",
    stable_port: int = 9001,
    canary_port: int = 9002,
    background: Any = None,
    **spec: Any,
) -> CanaryRollout:
    strategy: dict[str, Any] = {"steps": list(steps or STEPS)}
    if background:
        strategy["analysis"] = background
    value: dict[str, Any] = {
        "metadata": {"name": "checkout", "namespace": "shop"},
        "spec": {
            "stable": {"addresses": [f"127.0.0.1:{stable_port}"], "revision": stable},
            "strategy": {"canary": strategy},
            **spec,
        },
    }
    if canary:
        value["spec"]["canary"] = {"addresses": [f"127.0.0.1:{canary_port}"], "revision": canary}
    return validate(CanaryRollout, value)


def template(name: str = "rate", dry: bool = False, **metric: Any) -> AnalysisTemplate:
    spec: dict[str, Any] = {
        "metrics": [
            {
                "name": name,
                "interval": "5s",
                "count": 2,
                "successCondition": "result[0] >= 0.99",
                "provider": {"cohort": {"metric": "successRate"}},
                **metric,
            }
        ]
    }
    if dry:
        spec["dryRun"] = [{"metricName": name}]
    return validate(AnalysisTemplate, {"metadata": {"name": name}, "spec": spec})


def version(revision: str, port: int) -> Version:
    return Version(addresses=(f"127.0.0.1:{port}",), revision=revision)


def _standing(latch: dict[str, Any]) -> Latch:
    return Latch(latch["id"], latch["revision"], latch["by"], latch.get("reason", ""))


class World:
    """One rollout, its store, and its proxies.

    Attributes:
        told: Reasons of the events for people, in order.
        weights: Weight of the canary in every plan that came into force at the first proxy.
        readings: What each metric reads now.
        kill_after: Called after each stored transition; true kills the controller there.
    """

    def __init__(self, doc: CanaryRollout | None = None, proxies: int = 2, *templates: AnalysisTemplate) -> None:
        self.doc = doc or document()
        self.known = list(templates)
        self.now = 100.0
        self.proxies = {f"unix:{i}": FakeProxy() for i in range(proxies)}
        self.told: list[str] = []
        self.messages: list[str] = []
        self.readings: dict[str, Reading] = {}
        self.kill_after: Callable[[], bool] = lambda: False
        self.stored = ""
        self.since_poll = 9.0
        self.tick_s = TICK_S
        self._plan: Plan | None = None
        self.state = state.new(self.doc, self.templates)
        self.boot()

    @property
    def templates(self) -> Mapping[str, TemplateSpec]:
        return template_metrics(self.doc, self.known)

    @property
    def phase(self) -> Phase:
        return phase(self.state, self.now)

    @property
    def proxy(self) -> FakeProxy:
        return self.proxies["unix:0"]

    @property
    def plan(self) -> Plan | None:
        """The plan in force; a generation stands for one."""
        if self._plan is None or self._plan.generation != self.state.generation:
            self._plan = planner.plan(self.state, SECRETS)
        return self._plan

    @property
    def weights(self) -> list[int]:
        found: list[int] = []
        for plan in self.proxy.history:
            weight = plan.arms[1].weight_bp if len(plan.arms) > 1 else 0
            found += [weight] if not found or found[-1] != weight else []
        return found

    def boot(self) -> None:
        """A controller starts from what is stored."""
        if self.stored:
            self.state = state.parse(self.stored)
        self.state = replace(self.state, views=tuple(ProxyView(name, self.now) for name in self.proxies))
        self.feed(Keyed(next(iter(SECRETS)), tuple(SECRETS)))
        self.feed(Documented(self.doc, self.templates))

    def declare(self, doc: CanaryRollout) -> None:
        self.doc = doc
        self.feed(Documented(doc, self.templates))

    def feed(self, event: Event) -> None:
        before = self.phase
        self.state, commands = rollout.step(self.state, event, self.now)
        allowed = rollout.TRANSITIONS[before][rollout.kind(event)]
        assert self.phase in allowed, f"{before} -> {self.phase} by {rollout.kind(event)}"
        for command in commands:
            if isinstance(command, SetLatch):
                self._execute(command)
        self.stored = state.serialise(self.state)
        if self.kill_after():
            self.kill()
            return
        for command in commands:
            if not isinstance(command, SetLatch):
                self._execute(command)

    def kill(self) -> None:
        """SIGKILL, and a new controller at once; it never gets the same clock."""
        self.kill_after, again = (lambda: False), self.kill_after
        self.now += 1000.0
        self.boot()
        self.kill_after = again

    def ask(self, verb: Verb, **more: Any) -> str:
        self.feed(Asked(verb, f"u{len(self.state.actions)}", "anna", **more))
        return self.state.actions[-1].message

    def refusal(self, verb: Verb, **more: Any) -> str:
        before = self.state
        try:
            self.ask(verb, **more)
        except Refused as refusal:
            assert self.state is before
            return str(refusal)
        raise AssertionError(f"{verb} was not refused")

    def _execute(self, command: Command) -> None:
        match command:
            case SetLatch(latch_id, _, by, _):
                for name, proxy in self.proxies.items():
                    if proxy.latch is None:
                        self._latch(name, proxy, latch_id, by)
            case Measure(attempt, index, metric, _):
                self.feed(Measured(attempt, index, metric, self.readings.get(metric, Reading(1.0))))
            case Tell(reason, message):
                self.told.append(reason)
                self.messages.append(message)

    def _latch(self, name: str, proxy: FakeProxy, latch_id: str, by: str) -> None:
        if not proxy.is_up or proxy.abort(by, latch_id)[0] != 200:
            self.feed(LatchFailed(name, "no answer"))

    def view(self, name: str) -> ProxyView:
        proxy = self.proxies[name]
        plan = self.plan
        shown = proxy.plan
        served = None
        if shown and self.state.stage is Stage.EMPTY:
            arm = shown.arms[0]
            served = Version(addresses=tuple(f"{e.address}:{e.port}" for e in arm.endpoints), revision=arm.revision)
        return ProxyView(
            name,
            self.now,
            answered=True,
            uid=shown.rollout.uid if shown else "",
            generation=shown.generation if shown else 0,
            is_current=bool(plan and shown and shown.etag == plan.etag),
            latch=_standing(proxy.latch) if proxy.latch else None,
            served=served,
        )

    def poll(self, name: str) -> None:
        proxy = self.proxies[name]
        if not proxy.is_up:
            self.feed(Unanswered(name, "connection refused"))
            return
        self.feed(Observed(self.view(name)))
        plan = self.plan
        if plan and (proxy.plan is None or proxy.plan.etag != plan.etag):
            status, _ = proxy.put(plan, "*")
            if status == 422:
                self.feed(Unanswered(name, "refuses the plan", refused=True))
            else:
                self.feed(Observed(self.view(name)))

    def run(self, seconds: float) -> World:
        """Time passes: a tick each 0.2 s, a poll each second."""
        for _ in range(round(seconds / self.tick_s)):
            self.now += self.tick_s
            self.since_poll += self.tick_s
            if self.since_poll >= 0.99:
                self.since_poll = 0.0
                for name in self.proxies:
                    self.poll(name)
            self.feed(Tick())
        return self

    def until(self, *phases: Phase, limit_s: float = 600.0) -> World:
        """Time passes until the rollout is in one of these phases."""
        for _ in range(round(limit_s)):
            if self.phase in phases:
                return self
            self.run(1.0)
        raise AssertionError(
            f"still {self.phase} after {limit_s} s, step {self.state.trial and self.state.trial.index}"
        )
