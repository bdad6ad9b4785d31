"""The proxy's set-up for each profile: settings and plan, as the head of the file of cases describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.wire import secure
from tests.wire.case import Case, Step

COOKIE = "cohort"
WEIGHTS = {"split": 3_000, "sticky": 1_000}  # of the canary, basis points; 0 elsewhere
HOSTS = {"hosts": b"a.test"}  # a Host that reaches a service, where not any does
DOUBLED = "retry"  # the profile of two endpoints a version
# What a case calls a service of its profile, where that is not the name of its arm.
_ALIASES = {("hosts", "b"): "canary"}
SLOW_PATIENCE = 2  # times the silence of a service whose answer must be waited for
_CANARY_HEADER = [{"headers": [{"name": "X-Canary", "value": "always"}]}]
_ROUTES: dict[str, list[dict[str, Any]]] = {
    "opt_in": [{"name": "x-canary", "matches": _CANARY_HEADER, "arm": "canary", "trust": "Anyone"}],
    "hosts": [
        {"name": "a", "matches": [{"hostnames": ["a.test"]}], "arm": "stable"},
        {"name": "b", "matches": [{"hostnames": ["b.test"]}], "arm": "canary"},
        {"name": "nobody", "matches": [{"path": {"value": "/"}}], "answer": 404},
    ],
    "noroute": [{"name": "noroute", "matches": [{"path": {"value": "/noroute"}}], "answer": 404}],
    "rules": [{"name": "admin", "matches": [{"path": {"value": "/admin"}}], "answer": 403}],
}


def settings(profile: str, limits: Mapping[str, int], response_head_ms: int, admin: str) -> dict[str, Any]:
    """The settings of a proxy on free ports.

    Args:
        limits: Of the file of cases.
        response_head_ms: How long a service may be silent.
        admin: The address of the admin API.
    """

    def duration(name: str, default_ms: int) -> str:
        return f"{limits.get(name, default_ms)}ms"

    document: dict[str, Any] = {
        "kind": "ProxySettings",
        "listeners": [{"address": "127.0.0.1:0"}, secure.listener()],
        "metrics": {"listen": "127.0.0.1:0"},
        "admin": {"listen": admin, "tokenFile": "token"},
        "planFile": "plan.json",
        "timeouts": {
            "head": duration("header_timeout_ms", 2_000),
            "bodyIdle": duration("body_idle_timeout_ms", 2_000),
            "keepAlive": duration("keepalive_idle_ms", 2_000),
            "connect": duration("upstream_connect_ms", 500),
            "responseHead": f"{response_head_ms}ms",
            "lameDuck": "0s",
            "drain": duration("drain_ms", 5_000),
        },
        "limits": {
            "headerBlockBytes": limits.get("header_block_bytes", 32_768),
            "headerCount": limits.get("header_count", 100),
            "targetBytes": limits.get("target_bytes", 16_384),
            "pipelined": limits.get("pipelined_per_connection", 32),
        },
    }
    if profile == "limits":
        document["limits"] |= {
            "bodyBytes": limits.get("body_bytes", 1_048_576),
            "connections": limits.get("client_connections", 200),
        }
    if profile == "trusted":
        document["trustedPeers"] = ["127.0.0.0/8"]
    return document


def plan(profile: str, generation: int, ports: Mapping[str, list[int]], canary_bp: int | None = None) -> dict[str, Any]:
    """A plan for a profile.

    Args:
        ports: Of the endpoints on loopback, by arm.
        canary_bp: The canary's weight, else the profile's own.
    """
    weight = WEIGHTS.get(profile, 0) if canary_bp is None else canary_bp
    users: list[dict[str, Any]] = [{"mint": {"name": COOKIE}}]
    if profile not in WEIGHTS and profile != "mirror":
        users = [{"header": {"name": "X-User-Id"}}]
    mirror = {"arm": "canary", "percent": 100, "methods": ["GET", "POST"]} if profile == "mirror" else None
    return {
        "kind": "Plan",
        "mirror": mirror,
        "rollout": {"namespace": "wire", "name": "cases", "uid": "3f6a4f0e-8f0b-4b52-9d0c-5d6d4a1f7c11"},
        "generation": generation,
        "revision": "v2",
        "salt": "1c0de5a17" * 7 + "0",
        "arms": [
            {"name": name, "revision": revision, "weightBp": share, "endpoints": _endpoints(ports[name])}
            for name, revision, share in (("stable", "v1", 10_000 - weight), ("canary", "v2", weight))
        ],
        "users": users,
        "routes": _ROUTES.get(profile, [{"name": "x-canary", "matches": _CANARY_HEADER, "arm": "canary"}]),
    }


def _endpoints(ports: list[int]) -> list[dict[str, Any]]:
    return [{"address": "127.0.0.1", "port": port} for port in ports]


def response_head_ms(case: Case, limits: Mapping[str, int]) -> int:
    """How long a service may be silent in a case.

    A case that waits for an answer that comes later than the file's own limit, and that takes no 504 for it, needs a
    proxy that is more patient.
    """
    own = limits.get("upstream_response_ms", 1_000)
    takes_timeout = any(504 in (*outcome.status, *sum(outcome.then, ())) for outcome in case.expect)
    return own if case.silence_ms < own or takes_timeout else case.silence_ms * SLOW_PATIENCE


def endpoints(case: Case) -> dict[str, str | tuple[Step, ...]]:
    """States and scripts of single services, by the names that `stand.Stand.services` has."""
    return {_ALIASES.get((case.profile, name), name): state for name, state in case.endpoints.items()}
