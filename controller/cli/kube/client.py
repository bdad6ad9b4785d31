"""A cluster as the commands that watch and steer see it: what `controller.cli.client.Client` is for a controller.

The status is read from the custom resource; whatever somebody asks for is a RolloutAction, and its result is waited for
in the status.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from controller.cli.client import REQUEST_S
from controller.cli.exits import Refused, TimedOut, WrongUse
from controller.cli.kube.config import Access
from controller.cli.kube.server import Missing, Server
from controller.cli.output import at

Json = dict[str, Any]

API = "/apis/cohort.dev/v1alpha1"
PAGE = 500  # objects a request, as kubectl asks
PRIVATE = ("state", "evidence")  # of a status: for controllers, and long


class KubeClient:
    """Rollouts, actions and events of one cluster.

    Attributes:
        namespace: Where names are looked for that come without a namespace.
        advice: What to do where there is no rollout.
    """

    advice = "apply a CanaryRollout, or look elsewhere by -n NAMESPACE or -A"

    def __init__(self, access: Access, timeout_s: float | None = None) -> None:
        self._server = Server(access, timeout_s)
        self.namespace: str | None = access.namespace
        self.timeout_s = timeout_s
        self.deadline = self._server.deadline

    def rollouts(self, namespace: str | None) -> list[Json]:
        """Every rollout of a namespace; None: of the context's, empty: of all."""
        where = self.namespace if namespace is None else namespace
        base = f"{API}/namespaces/{quote(where, safe='')}" if where else API
        found = [_shown(item) for item in self._list(f"{base}/canaryrollouts")]
        if where and not found:
            self._require(where)
        return found

    def _require(self, namespace: str) -> None:
        """A namespace that is not there has no rollouts either, which would mislead; who may not look is not told."""
        try:
            self._server.ask("GET", f"/api/v1/namespaces/{quote(namespace, safe='')}")
        except Missing:
            raise WrongUse(f"there is no namespace {namespace!r} at {self._server.label}.") from None
        except Refused:
            pass

    def rollout(self, namespace: str, name: str) -> Json:
        """One rollout: document and status."""
        try:
            return _shown(self._server.ask("GET", _path(namespace, "canaryrollouts", name)))
        except Missing:
            raise WrongUse(
                f"there is no rollout {name!r} in namespace {namespace}{self._near(namespace, name)}"
            ) from None

    def _near(self, namespace: str, name: str) -> str:
        """How a sentence goes on that says that a rollout is not there."""
        import difflib

        try:
            known = sorted(str(at(item, "metadata", "name")) for item in self.rollouts(namespace))
        except Refused:
            return "."
        if near := difflib.get_close_matches(name, known, 1):
            return f": did you mean {near[0]!r}?"
        return f": there is {', '.join(known[:20]) or 'none'}."

    def wait(self, namespace: str, name: str, since: object, wait_s: float) -> Json:
        """The same as soon as it is another than ``since``, or after ``wait_s`` seconds."""
        if since is None:
            return self.rollout(namespace, name)
        query = {"fieldSelector": f"metadata.name={name}", "resourceVersion": str(since)}
        event = self._server.watch(_path(namespace, "canaryrollouts"), query, wait_s)
        kind = at(event, "type")
        if kind == "DELETED":
            raise WrongUse(f"{namespace}/{name} has been deleted.")
        if event is not None and kind in ("ADDED", "MODIFIED"):
            return _shown(event["object"])
        return self.rollout(namespace, name)  # nothing new, or the server no longer knows what was before

    def events(self, namespace: str, name: str, after: int) -> list[Json]:
        """Its events with a number above ``after``, oldest first."""
        query = {"fieldSelector": f"involvedObject.kind=CanaryRollout,involvedObject.name={name}"}
        path = f"/api/v1/namespaces/{quote(namespace, safe='')}/events"
        found = sorted((_event(item) for item in self._list(path, query)), key=lambda event: int(event["seq"]))
        return [event for event in found if event["seq"] > after]

    def act(self, namespace: str, name: str, action: Json) -> Json:
        """Ask for one action, and wait for its result."""
        shown = self.rollout(namespace, name)
        revision = action.get("revision") or at(shown, "status", "revision", "canary")
        if action["verb"] == "Start":
            raise WrongUse("in a cluster a revision starts with its pods: deploy it behind the canary's Service.")
        if not revision:
            raise Refused(f"{namespace}/{name}: no revision is on trial, everyone is on stable")
        spec = {"rollout": name, "verb": action["verb"], "revision": revision, "requestedBy": self._user(action)}
        spec |= {key: action[key] for key in ("weight", "reason") if key in action}
        made = self._server.ask(
            "POST", _path(namespace, "rolloutactions"), {"fieldValidation": "Strict"}, _document(name, spec)
        )
        return self._result(namespace, name, str(at(made, "metadata", "uid")), shown)

    def whoami(self, namespace: str, name: str, key: str) -> Json:
        """Refused: that takes the installation's secret."""
        raise WrongUse("whoami needs a controller's API: give --server without --context and --kubeconfig.")

    def preview(self, namespace: str, name: str, arm: str, ttl: str) -> Json:
        """Refused likewise."""
        raise WrongUse("preview needs a controller's API: give --server without --context and --kubeconfig.")

    def _list(self, path: str, query: dict[str, str] | None = None) -> list[Json]:
        """All items, page by page."""
        items: list[Json] = []
        more = ""
        while True:
            page = {**(query or {}), "limit": str(PAGE)} | ({"continue": more} if more else {})
            answer = self._server.ask("GET", path, page)
            items += [item for item in answer.get("items") or [] if isinstance(item, dict)]
            more = str(at(answer, "metadata", "continue") or "")
            if not more:
                return items

    def _user(self, action: Json) -> str:
        """Who one is, as the server knows it: an action in somebody else's name is refused."""
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        answer = self._server.ask("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", None, body)
        user = str(at(answer, "status", "userInfo", "username"))
        if action.get("by") not in (None, user):
            raise WrongUse(f"--by has no meaning in a cluster: its API server knows that {user} asks.")
        return user

    def _result(self, namespace: str, name: str, uid: str, shown: Json) -> Json:
        """What became of an action, as soon as the status says so."""
        deadline = self.deadline or time.monotonic() + REQUEST_S
        while not (found := _done(at(shown, "status", "actions"), uid)):
            try:
                left = deadline - time.monotonic()
                shown = self.wait(namespace, name, at(shown, "metadata", "resourceVersion"), max(left, 0.0))
            except TimedOut:
                left = 0.0
            if left <= 0:
                raise TimedOut(
                    "the action is created, but no controller has said what became of it: look with "
                    f"'status {name} -n {namespace} -o wide', and whether the pods of cohort run."
                )
        if found.get("result") != "Done":
            raise Refused(str(found.get("message") or "refused"))
        return found


def _path(namespace: str, plural: str, *name: str) -> str:
    return "/".join((f"{API}/namespaces", *(quote(part, safe="") for part in (namespace, plural, *name))))


def _document(name: str, spec: Json) -> Json:
    """An action. Kubernetes takes 58 characters of a prefix and adds five."""
    metadata = {"generateName": f"{name}-{str(spec['verb']).lower()}"[:57] + "-"}
    return {"apiVersion": "cohort.dev/v1alpha1", "kind": "RolloutAction", "metadata": metadata, "spec": spec}


def _done(actions: Any, uid: str) -> Json | None:
    items: Iterable[Any] = actions if isinstance(actions, list) else ()
    return next((item for item in items if isinstance(item, dict) and item.get("uid") == uid), None)


def _shown(rollout: Json) -> Json:
    """A rollout without what is no business of a person's."""
    metadata = {key: value for key, value in (rollout.get("metadata") or {}).items() if key != "managedFields"}
    status = {key: value for key, value in (rollout.get("status") or {}).items() if key not in PRIVATE}
    return rollout | {"metadata": metadata} | ({"status": status} if status else {})


def _event(item: Json) -> Json:
    """An event as `events` shows it; a repetition is a new version of the same object, and so a new number."""
    version = str(at(item, "metadata", "resourceVersion") or "")
    when = (
        at(item, "series", "lastObservedTime")
        or item.get("lastTimestamp")
        or item.get("eventTime")
        or at(item, "metadata", "creationTimestamp")
    )
    return {
        "seq": int(version) if version.isascii() and version.isdecimal() else 0,
        "at": when,
        "type": item.get("type"),
        "reason": item.get("reason"),
        "message": item.get("message"),
    }
