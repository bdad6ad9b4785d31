"""Envoy: weighted clusters chosen by a hash of the cookie."""

from __future__ import annotations

import json
from typing import Any

from tests.bench.peers.job import VENV, Job, first_line, replace

HTTP = "filters.network.http_connection_manager.v3.HttpConnectionManager"


class Envoy:
    """One of the peers; what is not written here is Envoy's default. No admin interface."""

    name = "envoy"

    def version(self) -> str:
        """As the program says it, without the build's hash."""
        return "envoy/" + first_line([str(VENV / "envoy"), "--version"]).partition("version:")[2].split("/")[1]

    def lacks(self, need: str) -> str:
        """Nothing."""
        return ""

    def command(self, job: Job) -> list[str]:
        """As many workers as asked for. The routes are a file of their own, which Envoy watches."""
        replace(job.folder / "routes.json", _routes(job, job.canary_percent, 1))
        path = job.folder / "envoy.json"
        path.write_text(json.dumps(_configuration(job), indent=1))
        argv = [str(VENV / "envoy"), "-c", str(path), "--concurrency", str(job.workers)]
        return [*argv, "--disable-hot-restart", "-l", "warning"]

    def change(self, job: Job, pid: int, canary_percent: int) -> None:
        """Another file of routes, moved to where it watches."""
        replace(job.folder / "routes.json", _routes(job, canary_percent, 1000 + canary_percent))


def _configuration(job: Job) -> dict[str, Any]:
    manager: dict[str, Any] = {
        "@type": _type(HTTP),
        "stat_prefix": "ingress",
        "use_remote_address": True,  # appends the client to X-Forwarded-For
        "rds": {
            "route_config_name": "all",
            "config_source": {
                "resource_api_version": "V3",
                "path_config_source": {"path": str(job.folder / "routes.json")},
            },
        },
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": _type("filters.http.router.v3.Router")}}
        ],
    }
    if job.upgrades:
        manager["upgrade_configs"] = [{"upgrade_type": "websocket"}]
    if job.has_log:
        kind = {"@type": _type("access_loggers.file.v3.FileAccessLog"), "path": str(job.folder / "access.log")}
        manager["access_log"] = [{"name": "envoy.access_loggers.file", "typed_config": kind}]
    chain: dict[str, Any] = {
        "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    }
    if job.tls is not None:
        chain["transport_socket"] = _tls(*map(str, job.tls))
    return {
        "node": {"id": "bench", "cluster": "bench"},
        "static_resources": {
            "listeners": [{"name": "all", "address": _address(job.port), "filter_chains": [chain]}],
            "clusters": [_cluster(arm, port) for arm, port in job.backends.items()],
        },
    }


def _routes(job: Job, canary_percent: int, version: int) -> str:
    weights = {"stable": 100 - canary_percent, "canary": canary_percent}
    split = {
        "hash_policy": [{"cookie": {"name": "uid"}}],
        "weighted_clusters": {
            "use_hash_policy": True,
            "clusters": [{"name": arm, "weight": weights[arm]} for arm in job.backends],
        },
    }
    override = {"name": "X-Canary", "string_match": {"exact": "yes"}}
    routes = [
        {"match": {"prefix": "/", "headers": [override]}, "route": {"cluster": "canary"}},
        {"match": {"prefix": "/"}, "route": split},
    ]
    resource = {
        "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
        "name": "all",
        "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
    }
    return json.dumps({"version_info": str(version), "resources": [resource]})


def _tls(certificate: str, key: str) -> dict[str, Any]:
    common = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
        "alpn_protocols": ["http/1.1"],
        "tls_certificates": [{"certificate_chain": {"filename": certificate}, "private_key": {"filename": key}}],
    }
    context = {"@type": _type("transport_sockets.tls.v3.DownstreamTlsContext"), "common_tls_context": common}
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _type(name: str) -> str:
    return f"type.googleapis.com/envoy.extensions.{name}"


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, port: int) -> dict[str, object]:
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
