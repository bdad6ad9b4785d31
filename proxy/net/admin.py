"""The supervisor's HTTP: the admin API for whoever steers this proxy, metrics and probes for everybody else."""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from pydantic import Field

from proxy.document import MAX_DOCUMENT_BYTES, Document, DocumentError, Fault, parse
from proxy.latch import Abort
from proxy.metrics import CohortCollector
from proxy.net.keeper import Refused
from proxy.plan import parse_plan

if TYPE_CHECKING:
    from proxy.net.supervisor import Supervisor

log = logging.getLogger("cohort.admin")

HOSTS = frozenset(("localhost", "127.0.0.1", "::1"))  # whom a browser may be talked into asking: nobody else
FAILURES_PER_MINUTE = 10  # wrong tokens; more are refused without a look
_WRITES = ("PUT", "POST")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LogLevel(Document):
    """A request to change the level of the log."""

    level: Literal["debug", "info", "warning", "error"]


class Drain(Document):
    """A request to leave; it has no fields yet."""

    by: Annotated[str, Field(max_length=256)] = ""


class AccessRules:
    """Who may ask: the right Host (DNS rebinding), no foreign Origin (a browser's pages), JSON, and the token.

    Args:
        token: None where the socket's file mode is the guard.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token.encode() if token else None
        self._failures: list[float] = []

    def check(self, request: web.Request) -> None:
        """Refuse a request.

        Raises:
            Refused: 401, 403, 415 or 429, with what to do.
        """
        host = request.headers.get("Host", "").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if name.strip("[]") not in HOSTS:
            raise Refused(403, f"Host: expected one of {', '.join(sorted(HOSTS))}")
        origin = request.headers.get("Origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise Refused(403, "Origin: pages of other sites may not ask")
        self._check_token(request.headers.get("Authorization", ""))
        if request.method in _WRITES and request.content_type not in ("application/json", "application/yaml"):
            raise Refused(415, "Content-Type: expected application/json")

    def _check_token(self, given: str) -> None:
        if self._token is None:
            return
        now = time.monotonic()
        self._failures = [at for at in self._failures if at > now - 60]
        if len(self._failures) >= FAILURES_PER_MINUTE:
            raise Refused(429, "too many wrong tokens. Try again in a minute")
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), b"Bearer " + self._token):
            self._failures.append(now)
            raise Refused(401, "Authorization: expected Bearer and the token of tokenFile")


@web.middleware
async def _errors_are_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Refused as refused:
        return _error(refused.status, str(refused), refused.faults)
    except DocumentError as error:
        return _error(422, "the document is refused as a whole", error.faults)
    except web.HTTPException as error:
        return _error(error.status, error.reason or "", [])


def _error(status: int, message: str, faults: list[Fault]) -> web.Response:
    body: dict[str, Any] = {"error": message}
    if faults:
        body["faults"] = [{"path": fault.path, "message": fault.message} for fault in faults]
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    response = _json(body, status, headers)
    response.force_close()  # what is left of a refused request's body is never read as another request
    return response


def _json(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    text = json.dumps(body, separators=(",", ":")) + "\n"
    return web.Response(
        text=text,
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def admin_app(supervisor: Supervisor, rules: AccessRules) -> web.Application:
    """The admin API; ``docs/openapi-admin.yaml`` describes it."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        rules.check(request)
        return await handler(request)

    api = _Admin(supervisor)
    app = web.Application(middlewares=[_errors_are_json, guard], client_max_size=MAX_DOCUMENT_BYTES)
    app.add_routes(
        [
            *_probes(supervisor),
            web.get("/plan", api.get_plan),
            web.put("/plan", api.put_plan),
            web.get("/state", api.get_state),
            web.get("/stats", api.get_stats),
            web.get("/endpoints", api.get_endpoints),
            web.get("/config", api.get_config),
            web.post("/abort", api.abort),
            web.post("/drain", api.drain),
            web.post("/log-level", api.set_log_level),
        ]
    )
    return app


def exposition_app(supervisor: Supervisor) -> web.Application:
    """Metrics and probes, and nothing else."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(CohortCollector(supervisor.snapshot))

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(middlewares=[_errors_are_json], client_max_size=1024)
    app.add_routes([*_probes(supervisor), web.get("/metrics", metrics)])
    return app


def _probes(supervisor: Supervisor) -> list[web.RouteDef]:
    async def ready(_: web.Request) -> web.Response:
        if supervisor.is_ready:
            return _json({"ready": True})
        why = "draining" if supervisor.is_draining else "no plan" if supervisor.plan is None else "workers are starting"
        return _json({"ready": False, "reason": why}, 503)

    async def healthz(_: web.Request) -> web.Response:
        return _json({"ok": True})  # that it is answered says that the loop turns

    return [web.get("/ready", ready), web.get("/healthz", healthz)]


class _Admin:
    """The handlers."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._keeper = supervisor.keeper

    async def get_plan(self, _: web.Request) -> web.Response:
        in_force = self._keeper.in_force
        if in_force is None:
            raise Refused(404, "no plan yet: PUT one with If-Match: *")
        return web.Response(
            text=in_force.document,
            content_type="application/json",
            headers={"ETag": in_force.etag, "Cache-Control": "no-store"},
        )

    async def put_plan(self, request: web.Request) -> web.Response:
        plan = parse_plan(await request.read())
        if_match = request.headers.get("If-Match")
        if if_match is None:
            raise Refused(428, f"If-Match: needed, with the entity tag in force ({self._keeper.etag}) or *")
        in_force = await self._keeper.adopt(plan, "the admin API", if_match)
        body = {"generation": plan.generation, "endpointsVersion": plan.endpoints_version, "etag": in_force.etag}
        return _json(body, headers={"ETag": in_force.etag})

    async def get_state(self, _: web.Request) -> web.Response:
        return _json(self._supervisor.state())

    async def get_stats(self, _: web.Request) -> web.Response:
        return _json(self._supervisor.stats())

    async def get_endpoints(self, _: web.Request) -> web.Response:
        plan = self._supervisor.plan
        arms = plan.arms if plan else ()
        return _json({"arms": [arm.model_dump(mode="json", by_alias=True) for arm in arms]})

    async def get_config(self, _: web.Request) -> web.Response:
        return _json(self._supervisor.settings.model_dump(mode="json", by_alias=True))

    async def abort(self, request: web.Request) -> web.Response:
        latch = await self._keeper.abort(parse(Abort, await request.read()))
        return _json(latch.model_dump(mode="json", by_alias=True))

    async def drain(self, request: web.Request) -> web.Response:
        parse(Drain, await request.read() or b"{}")
        self._supervisor.leave()
        return _json({"draining": True}, 202)

    async def set_log_level(self, request: web.Request) -> web.Response:
        level = parse(LogLevel, await request.read()).level
        self._supervisor.set_log_level(level)
        return _json({"level": level})
