"""One rollout under way: the thin loop around the state machine.

Events go into `rollout.step` one at a time; the new state is on disk before anything is done about it, but the abort
latch, which comes before everything. What is to be done is levelled, not queued: each proxy's own task compares what
the proxy shows with what it should have and makes up the difference, so a crash loses no command.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic import TypeAdapter

from controller import past, planner, rollout
from controller import status as statuses
from controller.ask import Refused
from controller.errors import ControllerError, Outranked, PlanRefused, Temporary
from controller.events import (
    Asked,
    Command,
    Event,
    Keyed,
    LatchFailed,
    Measure,
    Measured,
    Observed,
    Publish,
    Record,
    SetLatch,
    Tell,
    Tick,
    Unanswered,
    Verb,
)
from controller.evidence import Evidence, Share
from controller.look import parse_look
from controller.net.proxies import ProxyClient
from controller.net.store import Moved, Stored
from controller.spec import TemplateSpec
from controller.state import Abort, Latch, ProxyView, Stage, State, Trial, serialise
from controller.status import ConditionStatus, Status, WeightStatus
from controller.version import Version
from proxy.document import DocumentError, validate
from proxy.plan import Endpoint, Plan

TICK_S = 0.2  # how late a timed pause may end
SHARE_S = 60.0  # how far back the measured share looks where no template has a longer window
EVIDENCE_S = 5.0  # so often is stored what the proxies counted: where their counters stand by then is enough
CONFIRM_S = 10.0  # a plan is put again so often, so that a proxy's plan age tells a controller that is cut off
RETRY_S = 1.0  # after the state could not be stored
CATCH_UP_S = 0.1  # until the next look at a proxy that somebody else is just giving the plan; then twice as long
OUTRANKED_S = 0.2  # after a proxy turned out to have another plan than a moment ago

log = logging.getLogger("cohort.controller")


@dataclass(frozen=True, slots=True)
class Clocks:
    """Where time comes from: monotonic seconds for what lasts, Unix seconds for people."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]


class Ledger(Protocol):
    """Where a rollout is kept.

    Attributes:
        checkpoint_s: How often elapsed time alone is stored.
    """

    checkpoint_s: float

    async def save(self, moved: Moved) -> None:
        """Store a transition; raises `Temporary`, and then it has not happened."""

    async def show(self, moved: Moved) -> None:
        """Something has changed that is not stored."""

    async def tell(self, key: str, at: float, told: Sequence[Tell]) -> None:
        """Tell people of something that is no transition; raises `Temporary`."""


Publisher = Callable[[State, Plan], Mapping[str, Any]]


def timestamp(wall_s: float) -> str:
    """UTC to the second, as RFC 3339 writes it."""
    return datetime.fromtimestamp(wall_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def printable(text: str) -> str:
    """The text on one line, whatever a peer has put into it."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)


class Engine:
    """One rollout with its proxies and its place in the store.

    Args:
        state: As it was stored, or a new one.
        stored: The row that it came from; None: a new one.
        clients: One a proxy.
        secrets: Split secrets by `planner.key_id`, the current one first.
        poll_s: Seconds between two looks at a proxy.
        publisher: Makes of a plan what the ledger publishes; None: proxies are given the plan itself.
    """

    def __init__(
        self,
        state: State,
        stored: Stored | None,
        *,
        ledger: Ledger,
        clients: Sequence[ProxyClient],
        secrets: Mapping[str, bytes],
        clocks: Clocks,
        poll_s: float,
        publisher: Publisher | None = None,
    ) -> None:
        now = clocks.monotonic()
        self.state = replace(state, views=tuple(ProxyView(client.address, now) for client in clients))
        self.problem = self._reason = ""
        self._ledger = ledger
        self._publisher = publisher
        self._stored_text = stored.state if stored else ""
        self._stored_at = now
        self._clients = list(clients)
        self._tasks: asyncio.TaskGroup | None = None
        self._following: dict[str, asyncio.Task[None]] = {}
        self._secrets = secrets
        self._clocks = clocks
        self._poll_s = poll_s
        self._lock = asyncio.Lock()
        self._wake = {client.address: asyncio.Event() for client in clients}
        self._put_at = {client.address: now for client in clients}
        self._plan: Plan | None = None
        self._gather(self.state, stored.evidence if stored else "")
        self._share: Share | None = None
        self._kept = stored.evidence if stored else ""
        self._kept_at = now
        self._version = stored.version if stored else 0
        self._conditions = _parse_conditions(stored)
        self._shown: tuple[Status, str] | None = None
        self._changed = asyncio.Condition()

    @property
    def key(self) -> str:
        """``namespace/name``."""
        return self.state.document.key

    @property
    def version(self) -> int:
        """The resource version: differs whenever the status does."""
        return self._version

    def plan(self) -> Plan | None:
        """The plan in force; None while nothing is known of stable."""
        # The generation changes whenever the content does, so it stands for the plan.
        if self._plan is None or self._plan.generation != self.state.generation:
            self._plan = planner.plan(self.state, self._secrets)
        return self._plan

    # Life

    async def run(self) -> None:
        """Work until cancelled."""
        keyed = Keyed(next(iter(self._secrets)), tuple(self._secrets))
        if self.state.split_key not in self._secrets:  # without that its plan would send users elsewhere
            await self.apply(keyed)
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            tasks.create_task(self._tick(keyed), name="tick")
            for client in self._clients:
                self._begin(client)

    def _begin(self, client: ProxyClient) -> None:
        assert self._tasks is not None  # it runs
        self._following[client.address] = self._tasks.create_task(self._follow(client), name=f"proxy {client.address}")

    async def serve(self, clients: Sequence[ProxyClient]) -> None:
        """From now on these are the proxies: a new one holds an advance until it has the plan, one that left does not.

        Args:
            clients: Those that were there before are the same objects.
        """
        async with self._lock:
            now = self._clocks.monotonic()
            gone = [client for client in self._clients if client not in clients]
            new = [client for client in clients if client not in self._clients]
            self._clients = list(clients)
            for client in gone:
                if task := self._following.pop(client.address, None):
                    task.cancel()
            for client in new:
                self._wake[client.address] = asyncio.Event()
                self._put_at[client.address] = now
            known = {view.address: view for view in self.state.views if view.address not in {c.address for c in gone}}
            views = tuple(known.get(client.address) or ProxyView(client.address, now) for client in clients)
            self.state = replace(self.state, views=views, abort=_among(self.state.abort, views))
        for client in new:
            if self._tasks is not None:
                self._begin(client)

    async def _tick(self, event: Event) -> None:
        """Let time pass, after a first event. Where that cannot be stored an abort is still carried to all proxies."""
        said = ""
        while True:
            try:
                await self.apply(event)
                event, said = Tick(), ""
                await asyncio.sleep(TICK_S)
            except Temporary as error:
                said = self._complain(error, said)
                await asyncio.sleep(RETRY_S)
            except Exception:  # a task's root: a fault of ours must not take the kill switch away
                log.exception("%s: a tick failed", self.key)
                await asyncio.sleep(RETRY_S)

    async def _follow(self, client: ProxyClient) -> None:
        """Look at one proxy again and again, and give it what it lacks."""
        wake = self._wake[client.address]
        catch_up_s, said = CATCH_UP_S, ""
        while True:
            wake.clear()
            pause_s = self._poll_s
            try:
                if not await self._level(client):
                    pause_s, catch_up_s = min(pause_s, catch_up_s), catch_up_s * 2
                said = ""
            except Outranked as error:
                log.info("%s: %s", client.address, error)
                await asyncio.sleep(OUTRANKED_S)
                continue
            except Temporary as error:
                said = self._complain(error, said)
            except Exception:  # a task's root: a fault of ours must not take the kill switch away
                log.exception("%s: a look at %s failed", self.key, client.address)
            try:
                async with asyncio.timeout(pause_s):
                    await wake.wait()
                catch_up_s = CATCH_UP_S
            except TimeoutError:
                pass

    def _complain(self, error: Temporary, said: str) -> str:
        """Tell a problem unless it is the one that was told last; returns it."""
        if str(error) != said:
            log.error("%s: %s", self.key, error)
        return str(error)

    async def _level(self, client: ProxyClient) -> bool:
        """Look at a proxy once; latch it, give it the plan and read its counters as need be.

        Returns:
            Whether it can wait until the next poll: False where it is about to have a plan that others give it.

        Raises:
            Outranked: It has another plan than it had a moment ago.
            Temporary: The state could not be stored.
        """
        shown = await self._look(client)
        if shown is None:
            return True
        if self.state.stage is Stage.ABORTED and shown["latch"] is None:
            await self._latch(client)
        plan = self.plan()
        etag = shown["plan"]["etag"] if shown["plan"] else None
        if plan and (
            not client.has(plan, shown["plan"]) or self._clocks.monotonic() - self._put_at[client.address] >= CONFIRM_S
        ):
            await self._put(client, plan, etag)
        await self._count(client)
        return not client.is_fed or plan is None or client.has(plan, shown["plan"])

    async def _put(self, client: ProxyClient, plan: Plan, etag: str | None) -> None:
        try:
            await client.put(plan, etag)
        except Outranked:
            raise
        except ControllerError as error:
            await self.apply(Unanswered(client.address, str(error), refused=isinstance(error, PlanRefused)))
        else:
            self._put_at[client.address] = self._clocks.monotonic()
            await self._look(client)

    async def _look(self, client: ProxyClient) -> dict[str, Any] | None:
        """What a proxy shows; None if it does not answer."""
        try:
            shown = await client.state()
            served = await self._served(client, shown)
            view = self._view(client, shown, served)
        except ControllerError as error:
            await self.apply(Unanswered(client.address, str(error)))
            return None
        await self.apply(Observed(view))
        return shown

    async def _served(self, client: ProxyClient, shown: Mapping[str, Any]) -> Version | None:
        """What the proxy calls stable: of use only where nothing else is known."""
        if self.state.stage is not Stage.EMPTY or not isinstance(shown.get("plan"), dict):
            return None
        try:
            stable = validate(Plan, await client.plan()).arms[0]
        except DocumentError:
            return None  # of another version of cohort
        if not stable.endpoints and not stable.dns:
            return None
        return Version(
            addresses=tuple(_address(endpoint) for endpoint in stable.endpoints),
            dns=stable.dns,
            revision=stable.revision,
            health_check=stable.health_check,
            tls=stable.tls,
        )

    def _view(self, client: ProxyClient, shown: Mapping[str, Any], served: Version | None = None) -> ProxyView:
        try:
            plan, latch = shown["plan"], shown["latch"]
            mine = self.plan()
            return ProxyView(
                client.address,
                self._clocks.monotonic(),
                answered=True,
                uid=str(plan["uid"]) if plan else "",
                generation=int(plan["generation"]) if plan else 0,
                is_current=bool(plan and mine and client.has(mine, plan)),
                latch=_standing(latch) if latch else None,
                served=served,
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise Temporary(f"GET /state: expected the document of a proxy, got one without {error}") from None

    async def _count(self, client: ProxyClient) -> None:
        """Read a proxy's counters; without them its users are simply not heard of."""
        try:
            look = parse_look(await client.stats())
        except (ControllerError, ValueError) as error:
            log.warning("%s: %s", client.address, error)
            return
        self._evidence.add(client.address, look, self._clocks.monotonic())
        self._share = self._evidence.share() if self.state.is_current else None

    # Events

    async def apply(self, event: Event, latched: Sequence[Event] | None = None) -> None:
        """Let something happen to the rollout.

        Args:
            event: What happened.
            latched: What came of latching the proxies, where that was done for it already.

        Raises:
            Refused: What was asked for is refused; that is on record.
            Temporary: The state could not be stored; nothing has happened but the latch.
        """
        async with self._lock:
            await self._apply(event, latched)

    async def _apply(self, event: Event, latched: Sequence[Event] | None = None) -> None:
        refusal: Refused | None = None
        try:
            state, commands = rollout.step(self.state, event, self._clocks.monotonic())
        except Refused as error:
            assert isinstance(event, Asked)  # nothing else is ever refused
            refusal = error
            state, commands = rollout.refused(self.state, event, str(error))
        results = list(latched or ())
        if state.stage is Stage.ABORTED and self.state.stage is not Stage.ABORTED and latched is None:
            results = await self._latch_all(commands)
        try:
            await self._save(state, commands, may_wait=isinstance(event, Tick | Measured))
        except Temporary:
            if isinstance(event, Observed):
                self._hear(event.view)
            raise
        self._take(state)
        results += self._execute(commands)
        await self._show()
        for result in results:
            await self._apply(result)
        if refusal:
            raise refusal

    def _hear(self, view: ProxyView) -> None:
        """Note that a proxy has answered; of its latch nothing, for what has to follow from that is not stored."""
        before = self.state.view(view.address)
        if before and self.state.stage is not Stage.EMPTY:
            heard = replace(view, latch=before.latch, refusal=before.refusal)
            views = tuple(heard if known is before else known for known in self.state.views)
            self.state = replace(self.state, views=views)

    def _take(self, state: State) -> None:
        """Go over to a new state; another attempt begins with no evidence, another plan with no measured share."""
        before, self.state = self.state, state
        trial = _judged(state)
        if (trial.attempt if trial else 0) != self._attempt:
            self._gather(state, "")
        if not state.is_current or before.generation != state.generation:
            self._evidence.restart_share()
            self._share = None

    def _gather(self, state: State, kept: str) -> None:
        """Begin to gather evidence of what is judged now; or go on, with what a controller before this one has kept."""
        trial = _judged(state)
        self._attempt = trial.attempt if trial else 0
        known = None
        try:
            known = past.read(kept, self._attempt) if kept else None
        except ValueError as error:
            log.info("%s: %s", self.key, error)
        keep_s = _longest_window_s(trial.templates if trial else {})
        revision = trial.version.revision if trial else None
        self._evidence = Evidence(state.uid, revision, keep_s, self._clocks.monotonic(), known)

    def _keep(self, state: State, now: float) -> None:
        """Have the evidence of what is being measured stored with the state."""
        trial = _judged(state)
        if trial is None or not (trial.run or trial.background):
            self._kept = ""
        elif trial.attempt != self._attempt:
            self._kept, self._kept_at = "", float("-inf")
        elif now - self._kept_at >= EVIDENCE_S:
            found = self._evidence.past(now)
            self._kept, self._kept_at = past.write(found, trial.attempt) if found else "", now

    async def _save(self, state: State, commands: Sequence[Command], may_wait: bool) -> None:
        """Store a transition; of those that only let time pass, one a second."""
        told = [command for command in commands if isinstance(command, Tell)]
        measured = [command for command in commands if isinstance(command, Record)]
        is_quiet = may_wait and not told and not measured and state.generation == self.state.generation
        now = self._clocks.monotonic()
        if is_quiet and now - self._stored_at < self._ledger.checkpoint_s:
            return
        text = serialise(state)
        if text == self._stored_text and not told and not measured:
            return
        self._keep(state, now)
        is_quiet = may_wait and _place(state) == _place(self.state)
        await self._ledger.save(replace(self._moved(state, text), told=told, measured=measured, is_quiet=is_quiet))
        self._stored_text, self._stored_at = text, now
        for tell in told:
            level = logging.WARNING if tell.is_warning else logging.INFO
            log.log(level, "%s: %s: %s", self.key, tell.reason, printable(tell.message))

    def _moved(self, state: State, text: str) -> Moved:
        """A state with all that is kept beside it."""
        plan = planner.plan(state, self._secrets) if self._publisher and state.generation else None
        conditions = self._stamped(state)
        return Moved(
            Stored(
                self.key, text, _CONDITIONS.dump_json(conditions, by_alias=True).decode(), self._version, self._kept
            ),
            self._status_of(state, conditions),
            self._clocks.wall(),
            plan,
            self._publisher(state, plan) if self._publisher and plan else None,
        )

    def _execute(self, commands: Sequence[Command]) -> list[Event]:
        """Do what is to be done at once, and wake the tasks that do the rest."""
        results: list[Event] = []
        for command in commands:
            match command:
                case Publish() | SetLatch():
                    for wake in self._wake.values():
                        wake.set()
                case Measure(attempt, index, metric, provider):
                    reading = self._evidence.measure(provider, self._clocks.monotonic())
                    results.append(Measured(attempt, index, metric, reading))
        return results

    # The latch

    async def _latch_all(self, commands: Sequence[Command]) -> list[Event]:
        """Latch every proxy at once; what comes of it is told as events, and each one's own task tries again."""
        latch = next((command for command in commands if isinstance(command, SetLatch)), None)
        if latch is None:
            return []
        return list(await asyncio.gather(*(self._try_latch(client, latch) for client in self._clients)))

    async def _try_latch(self, client: ProxyClient, latch: SetLatch) -> Event:
        try:
            standing = _standing(await client.abort(latch.id, latch.by, latch.reason))
        except Temporary as error:
            return LatchFailed(client.address, str(error))
        view = self.state.view(client.address)
        assert view is not None  # one a client
        return Observed(replace(view, seen=self._clocks.monotonic(), answered=True, latch=standing))

    async def _latch(self, client: ProxyClient) -> None:
        abort = self.state.abort
        if abort:
            command = SetLatch(abort.id, abort.revision, abort.by, abort.text)
            await self.apply(await self._try_latch(client, command))

    # What others ask

    async def act(self, asked: Asked) -> str:
        """Do what somebody asks for.

        Returns:
            What was done, in a sentence.

        Raises:
            Refused: It makes no sense now.
            Temporary: It could not be stored.
        """
        latched: list[Event] | None = None
        if asked.verb is Verb.ABORT:
            # Before all else, and before whoever holds the lock: a disk that hangs must not keep users on the canary.
            try:
                _, commands = rollout.step(self.state, asked, self._clocks.monotonic())
            except Refused:
                commands = ()
            latched = await self._latch_all(commands)
        await self.apply(asked, latched)
        done = next(action for action in reversed(self.state.actions) if action.uid == asked.uid)
        if latched is None:
            return done.message
        failed = [event.address for event in latched if isinstance(event, LatchFailed)]
        late = f"; not latched yet, tried again: {', '.join(failed)}" if failed else ""
        return f"{done.message}: {len(latched) - len(failed)} of {len(latched)} proxies are latched{late}"

    def status(self) -> Status:
        """The rollout as people see it, now."""
        return self._status_of(self.state, self._conditions)

    def _status_of(self, state: State, conditions: tuple[ConditionStatus, ...]) -> Status:
        plan = self.plan() if state.generation == self.state.generation else None
        return statuses.status(
            state,
            self._clocks.monotonic(),
            digest=plan.digest if plan else "",
            share=self._share,
            conditions=conditions,
            resource_version=self._version,
        )

    def _stamped(self, state: State) -> tuple[ConditionStatus, ...]:
        return statuses.stamp(
            self._conditions,
            statuses.conditions(state, self._clocks.monotonic(), self.problem, self._reason or "Invalid"),
            state.document_generation,
            timestamp(self._clocks.wall()),
        )

    async def note(self, problem: str, reason: str = "") -> None:
        """Note what is wrong with the rollout's documents, and in one word; empty: nothing any more."""
        if problem == self.problem:
            return
        self.problem, self._reason = problem, reason
        told = Tell("DocumentRefused", problem, is_warning=True) if problem else Tell("DocumentMended", "all is well")
        await self._ledger.tell(self.key, self._clocks.wall(), [told])
        await self._show()

    async def changed(self, since: int, limit_s: float) -> None:
        """Wait until the status is another than at a resource version, or for so many seconds."""
        try:
            async with asyncio.timeout(limit_s), self._changed:
                await self._changed.wait_for(lambda: self._version != since)
        except TimeoutError:
            pass

    async def _show(self) -> None:
        """Count a change of the status, and wake those who wait for one."""
        self._conditions = self._stamped(self.state)
        shown = (_settled(self.status()), self.problem)
        if shown != self._shown:
            self._version += 1
            self._shown = shown
            await self._ledger.show(self._moved(self.state, self._stored_text))
            async with self._changed:
                self._changed.notify_all()


def _among(standing: Abort | None, views: Sequence[ProxyView]) -> Abort | None:
    """An abort, without the failures of proxies that left."""
    if standing is None:
        return None
    return replace(standing, failed=tuple(at for at in standing.failed if at in {view.address for view in views}))


def _judged(state: State) -> Trial | None:
    """What users are on while it is judged."""
    return state.trial if state.stage in (Stage.STEPS, Stage.FILLING) else None


def _place(state: State) -> tuple[int, Stage, int]:
    """What differs when more has happened than that time has passed."""
    return state.generation, state.stage, state.trial.index if state.trial else -1


def _settled(status: Status) -> Status:
    """The status without the numbers and sentences that change each second while it stays the same."""
    return status.model_copy(
        update={
            "step": status.step and status.step.model_copy(update={"elapsed": ""}),
            "weight": status.weight and WeightStatus(programmed=status.weight.programmed),
            "verdict": status.verdict and status.verdict.model_copy(update={"message": "", "need": None}),
            "conditions": tuple(condition.model_copy(update={"message": ""}) for condition in status.conditions),
            "resource_version": 0,
        }
    )


def _standing(value: Mapping[str, Any]) -> Latch:
    revision = value.get("revision")
    return Latch(str(value["id"]), revision and str(revision), str(value.get("by", "")), str(value.get("reason", "")))


def _address(endpoint: Endpoint) -> str:
    host = f"[{endpoint.address}]" if ":" in endpoint.address else endpoint.address
    return f"{host}:{endpoint.port}"


def _longest_window_s(templates: Mapping[str, TemplateSpec]) -> float:
    windows = [metric.provider.cohort.window for spec in templates.values() for metric in spec.metrics]
    return max(windows, default=SHARE_S)


def _parse_conditions(stored: Stored | None) -> tuple[ConditionStatus, ...]:
    return _CONDITIONS.validate_json(stored.conditions) if stored else ()


_CONDITIONS = TypeAdapter(tuple[ConditionStatus, ...])
