"""Deciding: while the Lease is held, an engine steps the rollout from where the status has left it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from controller import cluster, state
from controller.errors import Temporary
from controller.events import Documented
from controller.net.engine import Clocks, Engine
from controller.net.kube.actions import Actions
from controller.net.kube.lease import Elector
from controller.net.kube.ledger import Api, Ledger, take_over
from controller.net.kube.namespace import Namespace
from controller.net.kube.once import Once
from controller.net.kube.peers import Peers
from controller.net.store import Stored
from controller.published import Incomplete, publish
from controller.state import State
from proxy.plan import Plan

AGAIN_S = 1.0  # until this one takes over anew after deciding has failed: each takeover is a write that all watch

log = logging.getLogger("cohort.kube")

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Means:
    """What an engine needs beside the rollout.

    Attributes:
        secrets: Split secrets by `planner.key_id`, the current one first.
        poll_s: Seconds between two looks at a proxy.
    """

    secrets: Mapping[str, bytes]
    clocks: Clocks
    poll_s: float


class Holder:
    """The part of a replica that decides, whenever it is its turn.

    Args:
        api: The API server.
        namespace: As it is now.
        elector: Says whose turn it is.
        peers: The proxies of all replicas.
        actions: What people ask for.
        means: Of every engine.
    """

    def __init__(
        self, api: Api, namespace: Namespace, elector: Elector, peers: Peers, actions: Actions, means: Means
    ) -> None:
        self._api = api
        self._namespace = namespace
        self._elector = elector
        self._peers = peers
        self._actions = actions
        self._means = means
        self._engine: Engine | None = None
        self._ledger: Ledger | None = None
        self._taken: Object | None = None
        self._again_at = float("-inf")
        self._problems = Once()

    @property
    def engine(self) -> Engine | None:
        """What decides here; None: it is not this one's turn."""
        return self._engine

    async def decide(self, tasks: asyncio.TaskGroup) -> None:
        """Have an engine from when the Lease is ours until another one has taken over, and tell it all: one look.

        Args:
            tasks: Where an engine runs.

        Raises:
            Temporary: Look again.
        """
        rollout = self._namespace.rollout
        if self._engine and (rollout is None or self._is_over(rollout)):
            self._stop()
        if rollout is None:
            return
        if self._engine is None:
            if not self._elector.is_held:
                self._taken = None
                return
            if self._means.clocks.monotonic() < self._again_at:
                return
            await self._begin(rollout, tasks)
        if self._engine is not None and self._ledger is not None:
            await self._supply(self._engine, self._ledger, rollout)

    # Whose turn it is

    def _is_over(self, rollout: Object) -> bool:
        """Whether somebody else has taken over; who only has the Lease may be unable to.

        Until then this one watches on: without the Lease nothing is stored, so nothing is done but to carry an abort to
        all proxies.
        """
        assert self._ledger is not None  # beside an engine
        term = ((rollout.get("status") or {}).get("leader") or {}).get("term") or 0
        is_another = term > self._ledger.term or rollout["metadata"]["uid"] != self._ledger.uid
        return self._ledger.is_fenced or is_another

    def _stop(self) -> None:
        log.info("deciding ends")
        self._running.cancel()
        self._engine = self._ledger = self._taken = None

    def _lose(self, engine: Engine) -> None:
        if self._engine is engine:
            self._engine = self._ledger = self._taken = None
            self._again_at = self._means.clocks.monotonic() + AGAIN_S

    # Taking over

    async def _begin(self, rollout: Object, tasks: asyncio.TaskGroup) -> None:
        """Take over: the fence first, then the state as the one before has left it."""
        if self._taken is None or self._taken["metadata"]["uid"] != rollout["metadata"]["uid"]:
            await self._check(rollout)
            self._taken = await take_over(self._api, rollout, self._elector.identity)
        status = self._taken["status"]
        begun = _parsed(status.get("state") or "")
        resolved = self._namespace.resolved(rollout, begun)
        ledger = Ledger(self._api, self._taken, self._elector, self._elector.identity)
        if begun is None:
            begun = await self._new(rollout, resolved, ledger, (status.get("plan") or {}).get("generation") or 0)
        if begun is None:
            return
        self._ledger, self._engine = ledger, self._made(begun, status, ledger)
        self._running = tasks.create_task(self._work(self._engine), name="engine")
        log.info("deciding for %s, term %s", begun.document.key, status["leader"]["term"])

    async def _check(self, rollout: Object) -> None:
        """Leave a status that this version cannot read to whoever can, in an upgrade of cohort; raises `Temporary`."""
        try:
            _parsed((rollout.get("status") or {}).get("state") or "")
        except Temporary:
            await self._elector.give_way()
            raise

    async def _new(self, rollout: Object, resolved: cluster.Resolved, ledger: Ledger, generation: int) -> State | None:
        """The state of a rollout that was never decided on, or of which that was lost: the numbers of plans go on.

        Returns:
            None: it cannot begin, as its status says now.
        """
        if resolved.found.document is None:
            await ledger.refuse(resolved.reason, resolved.found.problem, rollout, self._means.clocks.wall())
            return None
        begun = state.new(resolved.found.document, resolved.found.templates, str(rollout["metadata"]["uid"]))
        return replace(begun, generation=generation)

    def _made(self, begun: State, status: Object, ledger: Ledger) -> Engine:
        conditions = json.dumps(status.get("conditions") or [])
        return Engine(
            begun,
            Stored(begun.document.key, status.get("state") or "", conditions, 0, status.get("evidence") or ""),
            ledger=ledger,
            clients=self._peers.clients(),
            secrets=self._means.secrets,
            clocks=self._means.clocks,
            poll_s=self._means.poll_s,
            publisher=self._publish,
        )

    def _publish(self, begun: State, plan: Plan) -> Mapping[str, Any]:
        try:
            return publish(begun, plan, tuple(self._means.secrets))
        except Incomplete as error:
            raise Temporary(str(error)) from None

    async def _work(self, engine: Engine) -> None:
        """Run an engine; one that ends by a fault is begun again from what is stored."""
        try:
            await engine.run()
        except* Temporary as group:
            self._problems.say(str(group.exceptions[0]))
            self._lose(engine)
        except* Exception:  # a task's root
            log.exception("deciding failed")
            self._lose(engine)

    # What the engine has to know

    async def _supply(self, engine: Engine, ledger: Ledger, rollout: Object) -> None:
        """Tell the engine of replicas, documents and actions."""
        await engine.serve(self._peers.clients())
        await self._peers.retire()
        resolved = self._namespace.resolved(rollout, engine.state)
        found = resolved.found
        is_new = found.document is not None and (
            found.document != engine.state.document or found.templates != engine.state.templates
        )
        if found.document is not None:
            ledger.generation = int(rollout["metadata"].get("generation") or 0)
        if found.document is not None and (is_new or engine.state.is_document_missing):
            await engine.apply(Documented(found.document, found.templates))
        await engine.note(found.problem, resolved.reason)
        await self._actions.carry_out(engine)
        if self._elector.is_held:
            await self._actions.collect(engine)


def _parsed(text: str) -> State | None:
    """What a status says of the state, None where it says nothing yet; raises `Temporary`."""
    try:
        return state.parse(text) if text else None
    except ValueError as error:
        raise Temporary(f"the status is of another version of cohort, nothing is decided: {error}") from None
