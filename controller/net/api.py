"""The controller's REST API, version 1: `openapi` describes it, and a test holds the two together."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from aiohttp import web

from controller.ask import Refused
from controller.errors import Temporary
from controller.events import Asked, Verb
from controller.messages import (
    ActionAnswer,
    ActionRequest,
    EventAnswer,
    PreviewAnswer,
    PreviewRequest,
)
from controller.net.engine import Engine, timestamp
from controller.net.guard import Guard, failure
from controller.net.openapi import openapi
from controller.spec import CanaryRollout
from controller.state import Stage
from controller.version import Version
from controller.whoami import parse_key, whoami
from proxy.document import Document, DocumentError, Fault, validate
from proxy.keys import Keys
from proxy.preview import make_token

MAX_BODY_BYTES = 262_144  # ten times 256 addresses with a reason of 1,024 characters
MAX_WAIT_S = 60.0  # common proxies in between drop a connection that is silent for longer
MAX_EVENTS = 1000

log = logging.getLogger("cohort.controller")

Answer = TypeVar("Answer", bound=Document)


class Rollouts(Protocol):
    """What the API shows."""

    def items(self) -> list[dict[str, Any]]:
        """Every rollout as JSON."""
        ...

    def engine(self, key: str) -> Engine | None:
        """The one of ``namespace/name``, if it is under way."""
        ...

    def metrics(self) -> str:
        """What Prometheus reads."""
        ...

    async def events(self, key: str, after: int, limit: int) -> list[EventAnswer]:
        """What happened to a rollout."""
        ...


def rollout_json(document: CanaryRollout, uid: str, generation: int, status: dict[str, Any]) -> dict[str, Any]:
    """A rollout as the API shows it: the document as it was written, and the status."""
    written = document.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return {
        "apiVersion": document.api_version,
        "kind": document.kind,
        "metadata": {
            "name": document.metadata.name,
            "namespace": document.metadata.namespace,
            "uid": uid,
            "generation": generation,
        },
        "spec": written["spec"],
        "status": status,
    }


def engine_json(engine: Engine) -> dict[str, Any]:
    """A rollout that is under way."""
    status = plain(engine.status())
    return rollout_json(engine.state.document, engine.state.uid, engine.state.document_generation, status)


def plain(document: Document) -> dict[str, Any]:
    """A document as JSON values."""
    value: dict[str, Any] = document.model_dump(mode="json", by_alias=True, exclude_none=True)
    return value


class Api:
    """The handlers.

    Args:
        rollouts: What is shown and steered.
        keys: The installation's secrets.
        wall: Unix seconds.
    """

    def __init__(self, rollouts: Rollouts, keys: Keys, wall: Callable[[], float]) -> None:
        self._rollouts = rollouts
        self._keys = keys
        self._wall = wall

    def application(self, guard: Guard) -> web.Application:
        """The server's routes behind its doors."""
        app = web.Application(middlewares=[_errors, guard.middleware], client_max_size=MAX_BODY_BYTES)
        one = "/api/v1/rollouts/{namespace}/{name}"
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/metrics", self._metrics),
                web.get("/api/v1/openapi.json", self._openapi),
                web.get("/api/v1/rollouts", self._list),
                web.get(one, self._get),
                web.get(f"{one}/events", self._events),
                web.post(f"{one}/actions", self._act),
                web.get(f"{one}/whoami", self._whoami),
                web.post(f"{one}/preview", self._preview),
            ]
        )
        app.on_response_prepare.append(_headers)
        return app

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            body=self._rollouts.metrics().encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def _openapi(self, request: web.Request) -> web.Response:
        return web.json_response(openapi())

    async def _list(self, request: web.Request) -> web.Response:
        namespace = _query(request, "namespace")
        items = self._rollouts.items()
        return web.json_response(
            {"items": [i for i in items if namespace is None or i["metadata"]["namespace"] == namespace]}
        )

    async def _get(self, request: web.Request) -> web.Response:
        wait_s = _number(request, "wait", 0.0)
        since = _number(request, "since", -1.0)
        key = _key(request)
        engine = self._rollouts.engine(key)
        if engine and wait_s > 0 and since == engine.version:
            await engine.changed(engine.version, min(wait_s, MAX_WAIT_S))
        for item in self._rollouts.items():
            if key == f"{item['metadata']['namespace']}/{item['metadata']['name']}":
                return web.json_response(item)
        raise _unknown(key)

    async def _events(self, request: web.Request) -> web.Response:
        after = _number(request, "after", 0.0)
        self._require(request)
        found = await self._rollouts.events(_key(request), int(after), MAX_EVENTS)
        return web.json_response({"items": [plain(event) for event in found]})

    async def _act(self, request: web.Request) -> web.Response:
        engine = self._engine(request)
        asked = await _body(request, ActionRequest)
        message = await engine.act(
            Asked(
                verb=asked.verb,
                uid=secrets.token_hex(4),
                by=asked.by,
                revision=None if asked.verb is Verb.START else asked.revision,
                version=_version(asked, engine.state.document) if asked.verb is Verb.START else None,
                weight_bp=asked.weight or 0,
                reason=asked.reason or "",
            )
        )
        return web.json_response(plain(ActionAnswer(result="Done", message=message)))

    async def _whoami(self, request: web.Request) -> web.Response:
        engine = self._engine(request)
        plan = engine.plan()
        if plan is None:
            raise Refused("no plan is in force yet: no proxy has answered")
        text = _query(request, "key")
        if text is None:
            raise _faulty("key", "expected SOURCE=VALUE, such as header:x-user-id=anna")
        try:
            key = parse_key(text, plan.users, self._keys.identity.current)
        except ValueError as error:
            raise _faulty("key", str(error)) from None
        return web.json_response(plain(whoami(key, plan, engine.state.stage is Stage.ABORTED)))

    async def _preview(self, request: web.Request) -> web.Response:
        engine = self._engine(request)
        asked = await _body(request, PreviewRequest)
        preview = engine.state.document.spec.preview
        if preview.access == "Disabled":
            raise Refused("preview is disabled: set spec.preview.access to Token or Public in the document")
        plan = engine.plan()
        arms = [arm.name for arm in plan.arms] if plan else []
        if asked.arm not in arms:
            raise Refused(f"there is no {asked.arm} now, only {', '.join(arms) or 'nothing'}")
        expires = int(self._wall() + asked.ttl)
        token = make_token(self._keys.preview, engine.key, asked.arm, expires)
        return web.json_response(plain(PreviewAnswer(token=token, path=f"{preview.path}?token={token}")))

    def _engine(self, request: web.Request) -> Engine:
        """The engine of a rollout that is under way."""
        self._require(request)
        engine = self._rollouts.engine(_key(request))
        if engine is None:
            raise Refused("this rollout is not under way: its condition Accepted says why")
        return engine

    def _require(self, request: web.Request) -> None:
        key = _key(request)
        if not any(key == f"{i['metadata']['namespace']}/{i['metadata']['name']}" for i in self._rollouts.items()):
            raise _unknown(key)


class _Unknown(Exception):
    """There is no such rollout."""


def _unknown(key: str) -> _Unknown:
    return _Unknown(f"there is no rollout {key}")


def _faulty(path: str, message: str) -> DocumentError:
    return DocumentError([Fault(path, message)])


def _key(request: web.Request) -> str:
    return f"{request.match_info['namespace']}/{request.match_info['name']}"


def _query(request: web.Request, name: str) -> str | None:
    values = request.query.getall(name, [])
    if len(values) > 1:
        raise _faulty(name, "is given twice")
    return values[0] if values else None


def _number(request: web.Request, name: str, default: float) -> float:
    text = _query(request, name)
    if text is None:
        return default
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 2**53:
        raise _faulty(name, f"expected a number from 0, got {text!r}")
    return number


async def _body(request: web.Request, model: type[Answer]) -> Answer:
    try:
        value = json.loads(await request.text())
    except (ValueError, RecursionError) as error:
        raise _faulty("", f"not JSON: {error}") from None
    return validate(model, value)


def _version(asked: ActionRequest, document: CanaryRollout) -> Version:
    canary = document.spec.canary
    assert asked.revision is not None  # ActionRequest has seen to it
    if asked.addresses is None and asked.dns is None:
        if canary is None or canary.revision != asked.revision:
            raise _faulty("addresses", f"or dns is needed: the document's canary is not {asked.revision}")
        return canary
    # Whatever else the document says of a canary, or else of stable, is true of this one too.
    like = (canary or document.spec.stable).model_dump(mode="json", by_alias=True)
    place = {"addresses": asked.addresses or (), "dns": asked.dns and asked.dns.model_dump()}
    return validate(Version, like | place | {"revision": asked.revision})


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    """Every failure is JSON with a reason."""
    try:
        answer: web.StreamResponse = await handler(request)
    except Refused as error:
        return failure(409, str(error))
    except DocumentError as error:
        faults = [{"path": fault.path, "message": fault.message} for fault in error.faults]
        return web.json_response({"error": str(error), "faults": faults}, status=422)
    except _Unknown as error:
        return failure(404, str(error))
    except Temporary as error:
        return failure(503, str(error))
    except web.HTTPException as error:
        return failure(error.status, error.reason, {k: v for k, v in error.headers.items() if k == "Allow"})
    except Exception:  # the root of a request's task
        log.exception("%s %s failed", request.method, request.path)
        return failure(500, "the controller has a fault: see its log")
    return answer


async def _headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "cohort"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"


def event_json(seq: int, at: float, kind: str, reason: str, message: str) -> EventAnswer:
    """An event as the API shows it."""
    return EventAnswer(seq=seq, at=timestamp(at), type=kind, reason=reason, message=message)
