"""Documents that `cohort lint` refuses, each with what it says: an API server has to refuse the same ones."""

from __future__ import annotations

from typing import Any

from controller.spec import AnalysisTemplate
from proxy.document import validate


def rollout_value(**spec: Any) -> dict[str, Any]:
    return {
        "kind": "CanaryRollout",
        "metadata": {"name": "checkout", "namespace": "shop"},
        "spec": {
            "stable": {"addresses": ["127.0.0.1:9001"], "revision": "v1"},
            "canary": {"addresses": ["127.0.0.1:9002"], "revision": "v2"},
            "strategy": {"canary": {"steps": [{"setWeight": 5}, {"pause": {}}]}},
            **spec,
        },
    }


def steps(*items: Any, **more: Any) -> dict[str, Any]:
    return {"strategy": {"canary": {"steps": list(items), **more}}}


def route(**fields: Any) -> dict[str, Any]:
    return {"routes": [{"name": "a", "matches": [{"method": "GET"}], **fields}]}


def match(**fields: Any) -> dict[str, Any]:
    return route(arm="canary", matches=[fields])


def template_value(name: str = "success-rate", namespace: str | None = None, **metric: Any) -> dict[str, Any]:
    return {
        "kind": "AnalysisTemplate",
        "metadata": {"name": name} | ({"namespace": namespace} if namespace else {}),
        "spec": {
            "metrics": [
                {
                    "name": "rate",
                    "interval": "30s",
                    "count": 6,
                    "successCondition": "result[0] >= 0.99",
                    "provider": {"cohort": {"metric": "successRate"}},
                    **metric,
                }
            ]
        },
    }


def template(name: str = "success-rate", namespace: str | None = None, **metric: Any) -> AnalysisTemplate:
    return validate(AnalysisTemplate, template_value(name, namespace, **metric))


QA = {"setHeaderRoute": {"name": "qa", "match": [{"headerName": "X", "headerValue": {"exact": "y"}}]}}
ROLLOUTS: list[tuple[dict[str, Any], str]] = [
    (
        {"canary": {"dns": {"host": "a", "port": 1}, "addresses": ["127.0.0.1:1"], "revision": "v2"}},
        "spec.canary: exactly one of addresses, dns and service is needed",
    ),
    ({"canary": {"revision": "v2"}}, "spec.canary: exactly one of addresses, dns and service is needed"),
    (
        {"canary": {"dns": {"host": "127.0.0.1", "port": 1}, "revision": "v2"}},
        "spec.canary.dns.host: expected a DNS name",
    ),
    (
        {
            "stable": {"dns": {"host": "Shop.example", "port": 80}, "revision": "v1"},
            "canary": {"dns": {"host": "shop.example.", "port": 80}, "revision": "v2"},
        },
        "spec.canary.dns: shop.example.:80 is stable's too, yet of another revision",
    ),
    (
        {
            "stable": {
                "addresses": ["127.0.0.1:1"],
                "revision": "v1",
                "healthCheck": {"interval": "1s", "timeout": "2s"},
            }
        },
        "spec.stable.healthCheck: timeout is above interval",
    ),
    ({"stable": {"addresses": ["127.0.0.1:9001"]}}, "spec.stable.revision: required field is missing"),
    (
        {"stable": {"addresses": [], "revision": "v1"}},
        "spec.stable: exactly one of addresses, dns and service is needed",
    ),
    ({"stable": {"addresses": ["localhost:80"], "revision": "v1"}}, "spec.stable.addresses[0]: expected an IP"),
    ({"stable": {"addresses": ["127.0.0.1"], "revision": "v1"}}, "spec.stable.addresses[0]: expected an IP"),
    ({"stable": {"addresses": ["127.0.0.1:0"], "revision": "v1"}}, "spec.stable.addresses[0]: expected an IP"),
    ({"stable": {"addresses": ["127.0.0.1:70000"], "revision": "v1"}}, "spec.stable.addresses[0]: expected an IP"),
    (
        {"stable": {"addresses": ["[::1]:80", "[0::1]:80"], "revision": "v1"}},
        "spec.stable.addresses[1]: [0::1]:80 is listed twice",
    ),
    ({"mirror": {"percent": 1}}, "spec.mirror.arm: required field is missing"),
    ({"mirror": {"arm": "stable", "percent": 1}}, "spec.mirror.arm: expected canary, the only arm beside stable"),
    ({"mirror": {"arm": "canary", "percent": 101}}, "spec.mirror.percent: expected a percentage"),
    ({"judge": {}}, "spec.judge: unknown field"),
    ({"breaker": {"errorPercent": 0}}, "spec.breaker.errorPercent: "),
    ({"breaker": {"window": "1h"}}, "spec.breaker.window: "),
    ({"breaker": {"requests": 0}}, "spec.breaker.requests: "),
    ({"onArmDown": "stable"}, "spec.onArmDown: Input should be 'Stable' or 'Error'"),
    ({"strategy": {"blueGreen": {}}}, "spec.strategy.canary: required field is missing"),
    (steps(), "spec.strategy.canary.steps: "),
    (steps({}), "spec.strategy.canary.steps[0]: exactly one of"),
    (steps({"setWeight": 5, "pause": {}}), "spec.strategy.canary.steps[0]: exactly one of"),
    (steps({"setWeight": 5.5}), "spec.strategy.canary.steps[0].setWeight: expected a percentage"),
    (steps({"setWeight": 101}), "spec.strategy.canary.steps[0].setWeight: expected a percentage"),
    (steps({"pause": {"duration": 10}}), "spec.strategy.canary.steps[0].pause.duration: expected a duration"),
    (steps({"pause": {"duration": "0s"}}), "spec.strategy.canary.steps[0].pause.duration: "),
    (steps({"setMirrorRoute": {}}), "spec.strategy.canary.steps[0].setMirrorRoute: unknown field"),
    (steps({"setWeight": 5}, progressDeadlineSeconds=600), "spec.strategy.canary.progressDeadlineSeconds: unknown"),
    (
        steps({"setHeaderRoute": {"name": "qa"}}),
        "spec.strategy.canary.steps[0].setHeaderRoute.name: removes qa, which no step before has set",
    ),
    (
        steps({"setHeaderRoute": {"name": "qa", "match": [{"headerName": "X", "headerValue": {}}]}}),
        "spec.strategy.canary.steps[0].setHeaderRoute.match[0].headerValue: exactly one of",
    ),
    (
        steps({"setHeaderRoute": {"name": "qa", "match": [{"headerName": "X", "headerValue": {"regex": "("}}]}}),
        "spec.strategy.canary.steps[0].setHeaderRoute.match[0].headerValue: not a regular expression",
    ),
    (
        steps({"pause": {}}, analysis={"templates": [{"templateName": "x"}], "startingStep": 1}),
        "spec.strategy.canary.analysis.startingStep: there are steps 0 to 0, got 1",
    ),
    (
        steps({"analysis": {"templates": [{"templateName": "x"}, {"templateName": "x"}]}}),
        "spec.strategy.canary.steps[0].analysis.templates[1].templateName: x is listed twice",
    ),
    (
        {"routes": [{"name": "a", "matches": [{"method": "GET"}], "arm": "third"}]},
        "spec.routes[0].arm: expected one of stable, canary, got 'third'",
    ),
    ({"users": [{"mint": {}}, {"cookie": {"name": "uid"}}]}, "spec.users[0]: mint must be the last source"),
    (route(), "spec.routes[0]: exactly one of arm, split and answer is needed"),
    (route(arm="canary", answer=404), "spec.routes[0]: exactly one of arm, split and answer is needed"),
    (route(answer=404, stripPrefix="/x"), "spec.routes[0]: stripPrefix has no meaning beside answer"),
    (route(split={}, always=True), "spec.routes[0]: always needs arm or answer"),
    (route(split={"atLeast": "50.5", "atMost": 50}), "spec.routes[0].split: atLeast is above atMost"),
    (route(answer=399), "spec.routes[0].answer: "),
    (route(arm="canary", stripPrefix="x"), "spec.routes[0].stripPrefix: expected a path"),
    (route(arm="canary", matches=[]), "spec.routes[0].matches: "),
    (route(arm="canary", matches=[{}]), "spec.routes[0].matches[0]: a match needs a condition"),
    (route(arm="canary", matches=[{"path": None}]), "spec.routes[0].matches[0]: a match needs a condition"),
    (route(arm="canary", matches=[{"headers": []}]), "spec.routes[0].matches[0]: a match needs a condition"),
    (route(arm="canary", matches=[{"clientNetworks": []}]), "spec.routes[0].matches[0]: a match needs a condition"),
    (route(arm="canary", name="Not_A_Name"), "spec.routes[0].name: "),
    (route(arm="canary", trust="Nobody"), "spec.routes[0].trust: "),
    (match(path={"value": "x"}), "spec.routes[0].matches[0].path: expected a path"),
    (match(path={"value": "/a?b"}), "spec.routes[0].matches[0].path: expected a path"),
    (match(path={"type": "Prefix", "value": "/"}), "spec.routes[0].matches[0].path.type: "),
    (match(path={"type": "RegularExpression", "value": "("}), "spec.routes[0].matches[0].path: not a regular"),
    (match(path={"type": "RegularExpression", "value": "(?=x)"}), "spec.routes[0].matches[0].path: not a regular"),
    (match(headers=[{"name": "X"}]), "spec.routes[0].matches[0].headers[0]: a match of type Exact needs a value"),
    (
        match(cookies=[{"name": "a", "type": "Present", "value": "x"}]),
        "spec.routes[0].matches[0].cookies[0]: a match of type Present has no value",
    ),
    (match(queryParams=[{"name": "a b", "value": "x"}]), "spec.routes[0].matches[0].queryParams[0].name: "),
    (match(headers=[{"name": "X", "value": "x" * 1025}]), "spec.routes[0].matches[0].headers[0].value: "),
    (match(headers=[{"name": "X", "value": "x"}] * 9), "spec.routes[0].matches[0].headers: "),
    (match(method="get"), "spec.routes[0].matches[0].method: "),
    (match(hostnames=["Shop.example"]), "spec.routes[0].matches[0].hostnames[0]: "),
    (match(clientNetworks=["192.0.2.1/24"]), "spec.routes[0].matches[0].clientNetworks[0]: expected a network"),
    (match(clientNetworks=["192.0.2.0/33"]), "spec.routes[0].matches[0].clientNetworks[0]: expected a network"),
    (match(clientNetworks=["2001:db8::1/32"]), "spec.routes[0].matches[0].clientNetworks[0]: expected a network"),
    (match(clientNetworks=["example.com"]), "spec.routes[0].matches[0].clientNetworks[0]: expected a network"),
    (
        {"routes": [{"name": "a", "matches": [{"method": "GET"}], "arm": "stable"}] * 2},
        "spec.routes[1].name: a is used twice",
    ),
    ({"users": []}, "spec.users: "),
    ({"users": [{}]}, "spec.users[0]: exactly one of header, jwt, cookie, clientAddress and mint is needed"),
    ({"users": [{"mint": {}, "clientAddress": {}}]}, "spec.users[0]: exactly one of"),
    ({"users": [{"mint": {}}, {"mint": {}}]}, "spec.users[0]: mint must be the last source"),
    (
        {"users": [{"header": {"name": "X-User"}}, {"header": {"name": "x-user"}}]},
        "spec.users[1]: header:x-user is listed twice",
    ),
    ({"users": [{"mint": {"maxAge": "59s"}}]}, "spec.users[0].mint.maxAge: "),
    ({"users": [{"mint": {"maxAge": "9601h"}}]}, "spec.users[0].mint.maxAge: "),
    ({"users": [{"mint": {"maxAge": "90 d"}}]}, "spec.users[0].mint.maxAge: expected a duration"),
    ({"users": [{"clientAddress": {"ipv6Prefix": 8}}]}, "spec.users[0].clientAddress.ipv6Prefix: "),
    ({"preview": {"path": "/preview"}}, "spec.preview: path must lie below /.cohort/"),
    ({"mirror": {"arm": "canary", "percent": "1.234"}}, "spec.mirror.percent: expected a percentage"),
    ({"mirror": {"arm": "canary", "percent": 1, "methods": []}}, "spec.mirror.methods: "),
    ({"breaker": {"errorPercent": "0.00"}}, "spec.breaker.errorPercent: "),
    (
        {"canary": {"addresses": ["127.0.0.1:9001"], "revision": "v2"}},
        "spec.canary.addresses[0]: 127.0.0.1:9001 is stable's too, yet of another revision",
    ),
    ({"canary": {"dns": {"host": "a", "port": 0}, "revision": "v2"}}, "spec.canary.dns.port: "),
    ({"canary": {"dns": {"host": "a..b", "port": 1}, "revision": "v2"}}, "spec.canary.dns.host: expected a DNS name"),
    ({"canary": {"dns": {"host": "a.7", "port": 1}, "revision": "v2"}}, "spec.canary.dns.host: expected a DNS name"),
    (
        {"canary": {"dns": {"host": "a", "port": 1}, "revision": "v2", "tls": {"serverName": "-"}}},
        "spec.canary.tls.serverName: expected a DNS name",
    ),
    ({"canary": {"dns": {"host": "a", "port": 1}, "revision": "v 2"}}, "spec.canary.revision: "),
    (
        {"canary": {"dns": {"host": "a", "port": 1}, "revision": "v2", "healthCheck": {"path": "/a b"}}},
        "spec.canary.healthCheck.path: expected a path",
    ),
    ({"stable": {"service": {"name": "x"}}}, "spec.stable.service.port: required field is missing"),
    ({"stable": {"service": {"name": "X", "port": 80}}}, "spec.stable.service.name: "),
    ({"stable": {"service": {"name": "x", "port": 0}}}, "spec.stable.service.port"),
    ({"stable": {"service": {"name": "x", "port": "80"}}}, "spec.stable.service.port"),
    ({"stable": {"service": {"name": "x", "port": "a-name-too-long-for"}}}, "spec.stable.service.port"),
    (
        {"stable": {"service": {"name": "x", "port": 80}, "revision": "v1"}},
        "spec.stable.revision: is read from the pods of the service",
    ),
    (
        {"stable": {"service": {"name": "x", "port": 80}}, "canary": {"service": {"name": "x", "port": 81}}},
        "spec.canary.service.name: x is stable's too",
    ),
    ({"revisionFrom": {"podLabel": "version"}}, "spec.revisionFrom: has no meaning without a service"),
    (
        {"stable": {"service": {"name": "x", "port": 80}}, "revisionFrom": {"podLabel": "not a label"}},
        "spec.revisionFrom.podLabel: ",
    ),
    ({"workloadRef": {"kind": "Deployment", "name": "checkout"}}, "spec.workloadRef: cohort manages no workloads"),
    (steps({"setWeight": "100.01"}), "spec.strategy.canary.steps[0].setWeight: expected a percentage"),
    (steps({"setWeight": -1}), "spec.strategy.canary.steps[0].setWeight: expected a percentage"),
    (steps({"analysis": {"templates": []}}), "spec.strategy.canary.steps[0].analysis.templates: "),
    (steps(*[{"pause": {}}] * 101), "spec.strategy.canary.steps: "),
    (
        steps(QA, {"setHeaderRoute": {"name": "qa"}}, {"setHeaderRoute": {"name": "qa"}}),
        "spec.strategy.canary.steps[2].setHeaderRoute.name: removes qa, as a step before does",
    ),
    (
        steps({"setHeaderRoute": {"name": "qa"}}, QA),
        "spec.strategy.canary.steps[0].setHeaderRoute.name: removes qa, which no step before has set",
    ),
    (steps(*[QA] * 17), "spec.strategy.canary.steps[16].setHeaderRoute: at most 16 steps may set a header route"),
]
METRICS: list[tuple[dict[str, Any], str]] = [
    ({"successCondition": "result >"}, "spec.metrics[0].successCondition: expected result, result[0] or a number"),
    ({"successCondition": None}, "spec.metrics[0]: successCondition or failureCondition is needed"),
    ({"interval": None}, "spec.metrics[0].interval: is needed to measure 6 times"),
    ({"failureLimit": 7}, "spec.metrics[0].failureLimit: is 7, but only 6 measurements are taken"),
    ({"inconclusiveLimit": 7}, "spec.metrics[0].inconclusiveLimit: is 7"),
    ({"consecutiveSuccessLimit": 7}, "spec.metrics[0].consecutiveSuccessLimit: is 7"),
    ({"count": 0}, "spec.metrics[0].count: "),
    ({"provider": {"prometheus": {}}}, "spec.metrics[0].provider.prometheus: unknown field"),
    ({"provider": {"cohort": {"metric": "p95"}}}, "spec.metrics[0].provider.cohort.metric: "),
    ({"provider": {"cohort": {"metric": "p99", "window": "2h"}}}, "spec.metrics[0].provider.cohort.window: "),
    ({"successCondition": "(result > 1"}, "spec.metrics[0].successCondition: expected )"),
    ({"failureCondition": "result > 1)"}, "spec.metrics[0].failureCondition: expected &&"),
    ({"successCondition": "result > 1) && (result < 2"}, "spec.metrics[0].successCondition: expected &&"),
    ({"successCondition": "(" * 33 + "result > 1" + ")" * 33}, "spec.metrics[0].successCondition: nested deeper"),
    ({"successCondition": "1 > 0"}, "spec.metrics[0].successCondition: the comparison"),
    ({"successCondition": "result > 1e999"}, "spec.metrics[0].successCondition: the number"),
    ({"successCondition": ""}, "spec.metrics[0].successCondition: "),
    ({"interval": "500ms"}, "spec.metrics[0].interval: "),
    ({"interval": "25h"}, "spec.metrics[0].interval: "),
    ({"interval": 30}, "spec.metrics[0].interval: expected a duration"),
    ({"failureLimit": -2}, "spec.metrics[0].failureLimit: "),
    ({"provider": {}}, "spec.metrics[0].provider.cohort: required"),
    ({"provider": {"cohort": {"metric": "p99", "minimumRequests": -1}}}, "spec.metrics[0].provider.cohort.minimum"),
]
