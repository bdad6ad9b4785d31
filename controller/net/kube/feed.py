"""What every replica does for its own proxy, holder of the Lease or not: plans and aborts, as the status says."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from controller.change import asked_latch_id
from controller.cluster import action_of
from controller.errors import ControllerError
from controller.net.proxies import ProxyClient
from controller.published import Incomplete, Places, complete
from proxy.plan import Plan

CONFIRM_S = 10.0  # a plan is put again so often: its age tells a controller that is cut off

log = logging.getLogger("cohort.kube")

Object = Mapping[str, Any]


class Feed:
    """One proxy.

    Attributes:
        current_at: When it was last found with the published plan, or nothing was published; the start before that.

    Args:
        proxy: Its admin API.
        secrets: Split secrets by `planner.key_id`.
        places: Where a Service's pods are now.
        monotonic: Seconds.
    """

    def __init__(
        self, proxy: ProxyClient, secrets: Mapping[str, bytes], places: Places, monotonic: Callable[[], float]
    ) -> None:
        self._proxy = proxy
        self._secrets = secrets
        self._places = places
        self._monotonic = monotonic
        self.current_at = monotonic()
        self._plan: Plan | None = None
        self._put_at = float("-inf")
        self._latched: set[str] = set()
        self._problem = ""

    async def abort(self, rollout: Object, actions: Mapping[str, Object]) -> None:
        """Latch the proxy for every abort that somebody asks for and the holder has not recorded yet."""
        status = rollout.get("status") or {}
        done = {str(action.get("uid")) for action in status.get("actions") or ()} | self._latched
        on_trial = (status.get("revision") or {}).get("canary")
        for item in actions.values():
            spec = action_of(item, rollout)
            uid = str(item["metadata"]["uid"])
            if spec is None or spec.get("verb") != "Abort" or spec.get("revision") != on_trial or uid in done:
                continue
            await self._latch(uid, spec)

    async def _latch(self, uid: str, spec: Object) -> None:
        try:
            reason = "Requested" + (f": {spec['reason']}" if spec.get("reason") else "")
            await self._proxy.abort(asked_latch_id(uid), str(spec.get("requestedBy") or "somebody"), reason)
        except ControllerError as error:
            log.warning("%s: %s", self._proxy.address, error)
        else:
            self._latched.add(uid)

    async def level(self, rollout: Object) -> None:
        """Give the proxy the published plan, completed, unless it has it."""
        document = ((rollout.get("status") or {}).get("plan") or {}).get("document")
        if not isinstance(document, dict):
            self.current_at = self._monotonic()
            return  # it serves its last good plan, or the initial one
        try:
            await self._level(document)
            self._problem, self.current_at = "", self._monotonic()
        except (Incomplete, ControllerError) as error:
            if str(error) != self._problem:
                self._problem = str(error)
                log.warning("%s: %s", self._proxy.address, error)

    async def _level(self, document: Object) -> None:
        shown = (await self._proxy.state()).get("plan")
        plan = complete(document, self._secrets, self._places, 0)
        is_same = bool(shown and (shown["uid"], shown["generation"]) == (plan.rollout.uid, plan.generation))
        version = int(shown["endpointsVersion"]) if shown and is_same else 0
        plan = plan.model_copy(update={"endpoints_version": version})
        if shown and shown["etag"] == plan.etag:
            if self._monotonic() - self._put_at < CONFIRM_S:
                return
        elif is_same:
            plan = plan.model_copy(update={"endpoints_version": version + 1})
        await self._proxy.put(plan, shown["etag"] if shown else None)
        self._put_at = self._monotonic()
