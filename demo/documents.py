"""The documents of the demo's installation: settings of proxy and controller, the rollout, and how it is judged.

What the thresholds can get wrong, for a canary that fails 3 % of its requests and one that fails 0.1 %. All users make
400 requests a second, so canary users some 20 at the first step; a look covers the last 30 s and at least 150 requests.
It fails at more than 2 % errors:

    requests   fails at   0.1 % fails by chance   3 % is found
         150          4                  1.8e-5           66 %
         300          7                  3.1e-8           80 %
         600         13                  1.1e-13          91 %
        1500         31                  6.2e-30          99 %
        3000         61                  7.5e-57        99.96 %

There is a look every 2 s from the first 150 requests until promotion. A good version is rolled back by chance in fewer
than one rollout in 5,000, which is the sum over all looks even where only five users have the canary at the first step.
A bad one would have to pass the looks of four steps, of which the last three alone let pass fewer than one in 100,000.
``tests/demo/test_documents.py`` computes all of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

NAMESPACE, NAME = "demo", "shop"
REQUESTS_A_SECOND = 400  # of all users together, however many there are: two shared cores carry it with ease
STEPS_PERCENT = (5, 25, 50, 100)
MAX_ERROR_SHARE = "0.02"
MINIMUM_REQUESTS = 150
MEASURE_EVERY_S, MEASUREMENTS = 5, 5  # 20 s a step: the proxies' count of users begins with its next ten seconds
LOOK_S = 2  # between two looks in the background: a version that turns bad is gone within seconds
API_VERSION = "cohort.dev/v1alpha1"


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the demo's processes listen, all on loopback."""

    traffic: int
    metrics: int
    controller: int
    console: int


def proxy_settings(ports: Ports, workers: int) -> dict[str, Any]:
    """``ProxySettings``; it stops at once, because nobody else sends it traffic."""
    return {
        "kind": "ProxySettings",
        "listeners": [{"address": f"127.0.0.1:{ports.traffic}"}],
        "workers": workers,
        "admin": {"listen": "unix:admin.sock"},
        "metrics": {"listen": f"127.0.0.1:{ports.metrics}"},
        "log": {"access": "off", "level": "info"},
        "timeouts": {"lameDuck": "0s", "drain": "3s"},
    }


def controller_settings(ports: Ports) -> dict[str, Any]:
    """``ControllerSettings`` beside the proxy's: the keys are the same."""
    return {
        "kind": "ControllerSettings",
        "rollouts": "rollouts",
        "state": "controller.db",
        "proxies": [{"address": "unix:admin.sock"}],
        "keysDir": "keys",
        "api": {"listen": f"127.0.0.1:{ports.controller}"},
    }


def analysis_template(name: str, **limits: Any) -> dict[str, Any]:
    """An AnalysisTemplate that bounds the canary's share of errors; ``limits`` as Argo spells them."""
    provider: dict[str, Any] = {"metric": "errorRate", "arm": "canary", "window": "30s"}
    provider |= {"minimumRequests": MINIMUM_REQUESTS, "minimumUsers": 5}
    condition = f"result[0] <= {MAX_ERROR_SHARE}"
    metric = {"name": "error-rate", "successCondition": condition, "provider": {"cohort": provider}}
    return {
        "apiVersion": API_VERSION,
        "kind": "AnalysisTemplate",
        "metadata": {"name": name},
        "spec": {"metrics": [metric | limits]},
    }


def rollout(stable_port: int) -> dict[str, Any]:
    """The CanaryRollout; without a canary, which ``start`` names when the users are there."""
    steps: list[dict[str, Any]] = []
    for percent in STEPS_PERCENT:
        steps += [{"setWeight": percent}, {"analysis": {"templates": [{"templateName": "few-errors"}]}}]
    return {
        "apiVersion": API_VERSION,
        "kind": "CanaryRollout",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {
            "stable": {"addresses": [f"127.0.0.1:{stable_port}"], "revision": "v1"},
            "users": [{"mint": {"maxAge": "2160h"}}],
            "routes": _routes(),
            "preview": {"access": "Public"},
            "strategy": {
                "canary": {
                    "steps": steps,
                    "analysis": {"templates": [{"templateName": "errors-watch"}]},
                }
            },
        },
    }


def _routes() -> list[dict[str, Any]]:
    return [
        {"name": "payments-never", "matches": [_below("/payments")], "arm": "stable", "always": True},
        {"name": "demo-page", "matches": [_below("/demo")], "arm": "stable", "always": True},
        {
            "name": "page-toggle",
            "matches": [{"headers": [{"name": "X-Canary", "value": "yes"}]}],
            "trust": "Anyone",
            "arm": "canary",
        },
        {"name": "canary-url", "matches": [_below("/canary")], "arm": "canary", "stripPrefix": "/canary"},
        {"name": "stable-url", "matches": [_below("/stable")], "arm": "stable", "stripPrefix": "/stable"},
    ]


def _below(path: str) -> dict[str, Any]:
    return {"path": {"value": path}}


def write(folder: Path, ports: Ports, workers: int, stable_port: int) -> None:
    """Write every document into a folder as the programs are told to find them."""
    rollouts = folder / "rollouts"
    rollouts.mkdir()
    documents = {
        folder / "proxy.yaml": proxy_settings(ports, workers),
        folder / "controller.yaml": controller_settings(ports),
        rollouts / "few-errors.yaml": analysis_template(
            "few-errors", interval=f"{MEASURE_EVERY_S}s", count=MEASUREMENTS
        ),
        rollouts / "errors-watch.yaml": analysis_template("errors-watch", interval=f"{LOOK_S}s"),
        rollouts / "shop.yaml": rollout(stable_port),
    }
    for path, document in documents.items():
        path.write_text(yaml.safe_dump(document, sort_keys=False))
