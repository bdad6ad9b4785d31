"""The admin API: how a controller, or a person, steers one proxy.

``docs/openapi-admin.yaml`` describes it. Every answer is JSON; an error has ``error``, a text that says what was
expected, what came and what to do, and ``faults`` where a document is to blame.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal

from aiohttp import web

from proxy.document import MAX_DOCUMENT_BYTES, Document, DocumentError, Fault, parse
from proxy.latch import Abort, Who
from proxy.net.keeper import NO_PLAN, Keeper, Refused
from proxy.plan import parse_plan

if TYPE_CHECKING:
    from proxy.net.supervisor import Supervisor

log = logging.getLogger("cohort.admin")

HOSTS = frozenset(("localhost", "127.0.0.1", "[::1]"))  # DNS can make any other name mean this machine
JSON, YAML = "application/json", "application/yaml"  # a page of another site cannot send either without being asked
FAILURES = 10  # wrong tokens at once; then one each `FAILURE_S`
FAILURE_S = 1.0
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LogLevel(Document):
    """A request to change the level of the log."""

    level: Literal["debug", "info", "warning", "error"]


class Drain(Document):
    """A request to leave, or to reload."""

    by: Who | None = None


class AccessRules:
    """Who may ask: reliability.md, C1-C3.

    A browser is kept out by Host (DNS rebinding), Origin (pages of other sites) and Content-Type (forms). Wrong tokens
    are answered at a bounded rate; the right one is always heard, because it may bring an abort.

    Args:
        token: None where the mode of the socket's file is the guard.
        now: Monotonic seconds.
        hosts: What Host may say; none: anything, where a certificate is pinned.
    """

    def __init__(self, token: str | None, now: Callable[[], float], hosts: frozenset[str] = HOSTS) -> None:
        self._expected = token.encode() if token is not None else None
        self._hosts = hosts
        self._now = now
        self._failures = 0.0
        self._failed_at = 0.0

    def check(self, request: web.Request) -> None:
        """Refuse a request that may not be made.

        Raises:
            Refused: 401, 403, 415 or 429.
        """
        host = request.headers.get("Host", "").lower()
        name, _, port = host.rpartition(":")
        if self._hosts and (name if port.isdecimal() else host) not in self._hosts:
            raise Refused(403, f"Host: expected one of {', '.join(sorted(HOSTS))}, with or without a port")
        if request.headers.get("Origin", f"http://{host}").lower() != f"http://{host}":
            raise Refused(403, "Origin: pages of other sites may not ask")
        self._check_token(request.headers.get("Authorization", ""))
        if request.method in ("PUT", "POST"):
            allowed = (JSON, YAML) if request.path == "/plan" else (JSON,)
            if request.content_type not in allowed or request.headers.get("Content-Encoding"):
                raise Refused(415, f"Content-Type: expected {' or '.join(allowed)}, without Content-Encoding")

    def expect(self, token: str) -> None:
        """From now on this is the token."""
        self._expected = token.encode()

    def _check_token(self, given: str) -> None:
        if self._expected is None:
            return
        scheme, _, token = given.partition(" ")
        is_right = hmac.compare_digest(token.encode("utf-8", "surrogateescape"), self._expected)
        if is_right and scheme.lower() == "bearer":
            return
        now = self._now()
        self._failures = max(0.0, self._failures - (now - self._failed_at) / FAILURE_S) + 1
        self._failed_at = now
        if self._failures > FAILURES:
            self._failures = FAILURES
            raise Refused(429, "too many wrong tokens. Wait a second, and send the one in tokenFile")
        log.warning("admin API: a wrong token was sent")
        raise Refused(401, "Authorization: expected 'Bearer ' and the token in tokenFile")


def admin_app(supervisor: Supervisor, rules: AccessRules, admit: Callable[[web.Request], None]) -> web.Application:
    """The admin API.

    Args:
        admit: Called for each request that may be made.
    """

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        rules.check(request)
        admit(request)
        return await handler(request)

    api = _Admin(supervisor)
    app = web.Application(middlewares=[errors_are_json, guard], client_max_size=MAX_DOCUMENT_BYTES)
    app.add_routes(
        [
            *probes(supervisor),
            web.get("/plan", api.get_plan),
            web.put("/plan", api.put_plan),
            web.get("/state", api.get_state),
            web.get("/stats", api.get_stats),
            web.get("/endpoints", api.get_endpoints),
            web.get("/config", api.get_config),
            web.post("/abort", api.abort),
            web.post("/drain", api.drain),
            web.post("/reload", api.reload),
            web.post("/log-level", api.set_log_level),
        ]
    )
    return app


def probes(supervisor: Supervisor) -> list[web.RouteDef]:
    """``GET /ready`` and ``GET /healthz``."""

    async def ready(_: web.Request) -> web.Response:
        reason = supervisor.unready
        return _json({"ready": True}) if reason is None else _json({"ready": False, "reason": reason}, 503)

    async def healthz(_: web.Request) -> web.Response:
        return _json({"healthy": True})  # that there is an answer says all: workers are the supervisor's care

    return [web.get("/ready", ready), web.get("/healthz", healthz)]


def replica_routes(supervisor: Supervisor) -> list[web.RouteDef]:
    """What controllers of other replicas may ask: ``GET /state /stats`` and ``POST /abort``."""
    api = _Admin(supervisor)
    return [web.get("/state", api.get_state), web.get("/stats", api.get_stats), web.post("/abort", api.abort)]


@web.middleware
async def errors_are_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A middleware that turns every refusal into one form."""
    try:
        return await handler(request)
    except Refused as refused:
        return _error(refused.status, str(refused), refused.faults)
    except DocumentError as error:
        return _error(422, "the document is refused as a whole", error.faults)
    except web.HTTPException as error:
        text = {404: "no such path", 413: f"the body is larger than {MAX_DOCUMENT_BYTES} bytes"}.get(error.status)
        response = _error(error.status, text or error.reason, [])
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response


def _error(status: int, message: str, faults: list[Fault]) -> web.Response:
    body: dict[str, Any] = {"error": message}
    if faults:
        body["faults"] = [{"path": fault.path, "message": fault.message} for fault in faults]
    response = _json(body, status)
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if status == 429:
        response.headers["Retry-After"] = "1"
    return response


def _json(body: Any, status: int = 200) -> web.Response:
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False) + "\n"
    return web.Response(text=text, status=status, content_type=JSON, headers={"Cache-Control": "no-store"})


class _Admin:
    """The handlers."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._keeper: Keeper = supervisor.keeper

    async def get_plan(self, _: web.Request) -> web.Response:
        in_force = self._keeper.in_force
        if in_force is None:
            response = _error(404, f"no plan yet. PUT one with If-Match: {NO_PLAN}", [])
        else:
            response = web.Response(text=in_force.document, content_type=JSON, headers={"Cache-Control": "no-store"})
        response.headers["ETag"] = self._keeper.etag
        return response

    async def put_plan(self, request: web.Request) -> web.Response:
        if_match = ",".join(request.headers.getall("If-Match", ()))
        content = await request.read()
        try:
            plan = await asyncio.to_thread(parse_plan, content)
        except DocumentError as error:
            message = "the plan is refused as a whole"
            raise self._keeper.reject("invalid", Refused(422, message, error.faults)) from None
        if not if_match:
            raise Refused(428, f"If-Match: expected the entity tag of the plan in force, {self._keeper.etag}, or *")
        in_force = await self._keeper.adopt(plan, "the admin API", if_match)
        response = _json(in_force.summary())
        response.headers["ETag"] = in_force.etag
        return response

    async def get_state(self, _: web.Request) -> web.Response:
        return _json(self._supervisor.state())

    async def get_stats(self, _: web.Request) -> web.Response:
        return _json(self._supervisor.stats())

    async def get_endpoints(self, _: web.Request) -> web.Response:
        return _json(self._supervisor.endpoints())

    async def get_config(self, _: web.Request) -> web.Response:
        return _json(self._supervisor.settings.model_dump(mode="json", by_alias=True))

    async def abort(self, request: web.Request) -> web.Response:
        latch = await self._keeper.abort(parse(Abort, await request.read()))
        return _json(latch.model_dump(mode="json", by_alias=True))

    async def drain(self, request: web.Request) -> web.Response:
        by = parse(Drain, await request.read() or b"{}").by
        log.info("asked to leave by %r", by or "somebody")
        self._supervisor.leave()
        return _json({"draining": True}, 202)

    async def reload(self, request: web.Request) -> web.Response:
        by = parse(Drain, await request.read() or b"{}").by
        log.info("asked to reload by %r", by or "somebody")
        self._supervisor.reload.ask()
        return _json({"reloading": True, "reloads": self._supervisor.reload.counts}, 202)

    async def set_log_level(self, request: web.Request) -> web.Response:
        level = parse(LogLevel, await request.read()).level
        self._supervisor.set_log_level(level)
        return _json({"level": level})
