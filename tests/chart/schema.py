"""charts/cohort/values.schema.json: what is the chart's own, and below it the models that read the same fields later.

``python -m tests.chart.schema`` writes it; a test fails when it is stale.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from controller.spec import RolloutSpec, TemplateSpec
from proxy.config import Endpoints, Limits, ResolverSettings, Timeouts

Json = dict[str, Any]
CHART = Path(__file__).parents[2] / "charts/cohort"
SCHEMA = CHART / "values.schema.json"
MODELS = (RolloutSpec, TemplateSpec, Endpoints, Limits, ResolverSettings, Timeouts)
OURS = r"^(app\.kubernetes\.io|helm\.sh)/"  # a second label of the same name would be no YAML

TEXT: Json = {"type": "string"}
FLAG: Json = {"type": "boolean"}
FREE: Json = {"type": "object"}  # Kubernetes' own types: the API server checks them
LIST: Json = {"type": "array", "items": {"type": "object"}}
TEXTS: Json = {"type": "array", "items": TEXT}
NAMES: Json = {"type": "object", "additionalProperties": TEXT}
LABELS: Json = NAMES | {"propertyNames": {"not": {"pattern": OURS}}}
DURATION: Json = {"type": "string", "pattern": "^([0-9]+h)?([0-9]+m)?([0-9]+s)?$", "minLength": 2}
LEASE: Json = {"type": "string", "pattern": "^(([2-9]|[1-9][0-9]|[12][0-9][0-9]|300)s|[1-5]m)$"}  # 2 s to 5 min
_PAUSE = r"[0-9]+(\.[0-9]+)?(ms|s|m|h)"
THINK: Json = {"type": "string", "pattern": rf"^{_PAUSE}(\.\.{_PAUSE})?$"}
_IPV4 = r"[0-9]{1,3}(\.[0-9]{1,3}){3}(/(3[0-2]|[12]?[0-9]))?"
_IPV6 = r"[0-9a-fA-F:]*:[0-9a-fA-F:.]*(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?"
NETWORK: Json = {"type": "string", "pattern": f"^({_IPV4}|{_IPV6})$"}  # what no pattern can tell the proxy refuses
PORT: Json = {"type": "integer", "minimum": 1, "maximum": 65535}


def number(least: int = 0, most: int | None = None) -> Json:
    """An integer within bounds."""
    return {"type": "integer", "minimum": least} | ({} if most is None else {"maximum": most})


def choice(*values: str) -> Json:
    """One of some words."""
    return {"enum": list(values)}


def block(**properties: Json) -> Json:
    """A mapping with these keys and no others."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


def model(name: str) -> Json:
    """What a model reads, or nothing."""
    return {"anyOf": [{"type": "object", "maxProperties": 0}, {"$ref": f"#/$defs/{name}"}]}


RESOURCES = block(requests=FREE, limits=FREE, claims=LIST)
PROXY = block(
    replicas=number(0, 1000),
    workers=number(1, 64),
    trustedPeers={"type": "array", "items": NETWORK, "maxItems": 64},
    proxyProtocol=FLAG,
    tlsSecrets=TEXTS,
    initialPlanWait=DURATION,
    lameDuckSeconds=number(0, 3600),
    drainSeconds=number(0, 86_400),
    log=block(access=choice("stdout", "off"), level=choice("debug", "info", "warning", "error")),
    timeouts={"$ref": "#/$defs/Timeouts"},
    limits={"$ref": "#/$defs/Limits"},
    endpoints={"$ref": "#/$defs/Endpoints"},
    resolver={"$ref": "#/$defs/ResolverSettings"},
    initialPlanPort=number(0, 65_535),
    resources=RESOURCES,
    service=block(
        type=choice("ClusterIP", "NodePort", "LoadBalancer"),
        port=PORT,
        httpsPort=PORT,
        annotations=NAMES,
        loadBalancerClass=TEXT,
        externalTrafficPolicy=choice("", "Cluster", "Local"),
    ),
    strategy=FREE,
    podDisruptionBudget=block(enabled=FLAG, maxUnavailable={"type": ["integer", "string"]}),
    autoscaling=block(
        enabled=FLAG,
        minReplicas=number(1, 1000),
        maxReplicas=number(1, 1000),
        targetCPUUtilizationPercentage=number(1, 100),
        behavior=FREE,
    ),
    podAnnotations=NAMES,
    podLabels=LABELS,
    priorityClassName=TEXT,
    nodeSelector=NAMES,
    tolerations=LIST,
    affinity=FREE,
    topologySpreadConstraints=LIST,
    extraArgs=TEXTS,
    extraEnv=LIST,
    extraVolumes=LIST,
    extraVolumeMounts=LIST,
)
ROOT: Json = block(
    nameOverride=TEXT,
    fullnameOverride=TEXT | {"maxLength": 40},
    commonLabels=LABELS,
    clusterDomain=TEXT,
    extraObjects={"type": "array", "items": {"type": ["object", "string"]}},
    image=block(
        registry=TEXT,
        repository=TEXT,
        tag=TEXT,
        digest={"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
        pullPolicy=choice("Always", "IfNotPresent", "Never"),
        pullSecrets=TEXTS,
    ),
    proxy=PROXY,
    controller=block(nativeSidecar=FLAG, leaseDuration=LEASE, resources=RESOURCES, extraArgs=TEXTS, extraEnv=LIST),
    serviceAccount=block(create=FLAG, name=TEXT, annotations=NAMES),
    rbac=block(create=FLAG, clusterRole=FLAG, aggregate=FLAG, admissionPolicy=FLAG),
    keys=block(existingSecret=TEXT, resources=RESOURCES),
    networkPolicy=block(enabled=FLAG, trafficFrom=LIST, metricsFrom=LIST, controlFrom=LIST),
    monitoring=block(
        labels=LABELS,
        interval=DURATION,
        podMonitor=block(enabled=FLAG),
        serviceMonitor=block(enabled=FLAG),
        prometheusRule=block(enabled=FLAG),
        dashboards=block(enabled=FLAG, annotations=NAMES),
    ),
    loadtest=block(
        enabled=FLAG,
        users=number(1, 100_000),
        spawnRate=number(0, 10_000),
        workers=number(0, 1000),
        web=FLAG,
        journey=TEXT,
        think=THINK,
        resources=RESOURCES,
        extraArgs=TEXTS,
        extraEnv=LIST,
    ),
    test=block(users=number(1, 10_000), duration=DURATION, path={"type": "string", "pattern": "^/"}),
    **{"global": FREE},  # Helm gives it to every chart that is a part of another
)


def definitions() -> Json:
    """The models' own schemas, the service of a version possibly still without a name."""
    found: Json = {}
    for one in MODELS:
        schema = TypeAdapter(one).json_schema(ref_template="#/$defs/{model}", by_alias=True)
        found |= schema.pop("$defs", {}) | {one.__name__: schema}
    found["ServiceRef"]["properties"]["name"] = {"type": "string"}
    return found


def rollout(known: Json) -> Json:
    """Every field of a CanaryRollout's spec that a cluster takes, and what the chart does with it."""
    fields = dict(known["RolloutSpec"]["properties"])
    del fields["workloadRef"]
    for name in ("revisionFrom", "mirror", "breaker"):
        fields[name] = model(name[0].upper() + name[1:])
    fields["preview"], fields["strategy"] = model("Preview"), model("Strategy")
    fields["users"] = {**fields["users"]}
    del fields["users"]["minItems"]
    template = known["TemplateSpec"]
    analysis = template | {
        "properties": {"name": TEXT, **template["properties"]},
        "required": ["name", *template["required"]],
    }
    own = {"create": FLAG, "name": TEXT | {"maxLength": 52}, "annotations": NAMES}
    return block(**own, **fields, analysisTemplates={"type": "array", "items": analysis})


def schema() -> Json:
    """All of it."""
    known = definitions()
    root = ROOT | {"properties": ROOT["properties"] | {"rollout": rollout(known)}}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **root, "$defs": known}


def text() -> str:
    """As it is committed."""
    return json.dumps(_plain(schema()), indent=1, sort_keys=True) + "\n"


def _plain(value: Any) -> Any:
    """Without titles, which repeat the names, and defaults, which are those of values.yaml."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: {name: _plain(item) for name, item in inner.items()} if key in ("properties", "$defs") else _plain(inner)
        for key, inner in value.items()
        if key in ("properties", "$defs") or not (key in ("title", "default", "gt") and not isinstance(inner, dict))
    }


if __name__ == "__main__":
    SCHEMA.write_text(text())
