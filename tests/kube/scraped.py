"""What a Prometheus would have of an installation: targets as its monitors say, and all that they tell."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.kube.cluster import Cluster
from tests.kube.installation import Installation

GROUP = "monitoring.coreos.com"
KINDS = ("PodMonitor", "ServiceMonitor", "PrometheusRule")
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
Targets = set[tuple[str, int]]  # address and port


def define(cluster: Cluster) -> None:
    """Make the kinds of the Prometheus operator known, as far as the API server has to know them."""
    for kind in KINDS:
        names = {"kind": kind, "plural": f"{kind.lower()}s", "singular": kind.lower(), "listKind": f"{kind}List"}
        schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
        version = {"name": "v1", "served": True, "storage": True, "schema": schema}
        spec = {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]}
        metadata = {"name": f"{names['plural']}.{GROUP}"}
        cluster.apply(
            {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": metadata,
                "spec": spec,
            }
        )
        cluster.until(lambda plural=names["plural"]: cluster.exists(f"/apis/{GROUP}/v1/{plural}"))


def monitor(shop: Installation, kind: str) -> Any:
    """The one object of a kind that the chart has made."""
    items = shop.cluster.call("GET", f"/apis/{GROUP}/v1/namespaces/{shop.namespace}/{kind.lower()}s")["items"]
    (found,) = items
    return found["spec"]


def by_pods(shop: Installation) -> Targets:
    """Targets of the PodMonitor: ports by their names, those of native sidecars among them."""
    spec = monitor(shop, "PodMonitor")
    found: Targets = set()
    for pod in _selected(shop, "/api/v1/namespaces/{}/pods", spec):
        containers = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]
        ports = {port["name"]: port["containerPort"] for one in containers for port in one.get("ports", ())}
        found |= {(pod["status"]["podIP"], ports[end["port"]]) for end in spec["podMetricsEndpoints"]}
    return found


def by_services(shop: Installation) -> Targets:
    """Targets of the ServiceMonitor: what its Services have behind the ports that it names."""
    spec = monitor(shop, "ServiceMonitor")
    wanted = {end["port"] for end in spec["endpoints"]}
    found: Targets = set()
    for service in _selected(shop, "/api/v1/namespaces/{}/services", spec):
        query = f"?labelSelector=kubernetes.io/service-name={service['metadata']['name']}"
        path = f"/apis/discovery.k8s.io/v1/namespaces/{shop.namespace}/endpointslices{query}"
        for part in shop.cluster.call("GET", path)["items"]:
            ports = [port["port"] for port in part["ports"] if port["name"] in wanted]
            found |= {(address, port) for one in part["endpoints"] for address in one["addresses"] for port in ports}
    return found


def _selected(shop: Installation, path: str, spec: Any) -> Any:
    labels = ",".join(f"{key}={value}" for key, value in spec["selector"]["matchLabels"].items())
    return shop.cluster.call("GET", f"{path.format(shop.namespace)}?labelSelector={labels}")["items"]


class Scraped:
    """Series by their names.

    Attributes:
        labels: Of each series, its labels; ``values`` its value, in the same order.
        declared: Names that are told without a series: counters of what has not happened.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self.labels: dict[str, list[dict[str, str]]] = defaultdict(list)
        self.values: dict[str, list[float]] = defaultdict(list)
        self.declared: set[str] = set()
        for text in texts:
            for family in text_string_to_metric_families(text):
                self.declared |= set(_names(family.name, family.type))
                for sample in family.samples:
                    self.labels[sample.name].append(dict(sample.labels))
                    self.values[sample.name].append(sample.value)

    def label_names(self, name: str) -> set[str]:
        """All that a series of this name has."""
        return {label for one in self.labels.get(name, ()) for label in one}


def _names(family: str, kind: str) -> Iterator[str]:
    yield from (family + suffix for suffix in SUFFIXES.get(kind, ("",)))


async def scrape(shop: Installation, targets: Targets) -> Scraped:
    """Ask every target."""
    async with aiohttp.ClientSession(connector=shop.pods.connector(force_close=True)) as session:

        async def one(address: str, port: int) -> str:
            async with session.get(f"http://{address}:{port}/metrics") as answer:
                assert answer.status == 200, (address, port, answer.status)
                return await answer.text()

        return Scraped(await asyncio.gather(*(one(*target) for target in targets)))


def rules(shop: Installation) -> dict[str, str]:
    """Expressions of the alerts, by their names."""
    groups = monitor(shop, "PrometheusRule")["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def dashboard(shop: Installation) -> Any:
    """The board that Grafana finds."""
    (found,) = [
        item
        for item in shop.cluster.call("GET", f"/api/v1/namespaces/{shop.namespace}/configmaps")["items"]
        if (item["metadata"].get("labels") or {}).get("grafana_dashboard") == "1"
    ]
    (text,) = found["data"].values()
    return json.loads(text)
