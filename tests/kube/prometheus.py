"""A real Prometheus in front of an installation: it scrapes what monitors lead to, and works out rules."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.kube import scraped
from tests.kube.installation import Installation
from tests.support.require import require

EVERY = "1s"
PORT = 9090  # in the network of the pods, where nobody else has it
PATIENCE_S = 60.0


class Prometheus:
    """One that runs.

    Args:
        session: Reaches the network of the pods.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def get(self, path: str, **query: str) -> Any:
        """The data of an answer of its API."""
        async with self._session.get(f"http://127.0.0.1:{PORT}/api/v1/{path}", params=query) as answer:
            document = await answer.json()
            assert document["status"] == "success", (query, document)
            return document["data"]

    async def has(self, query: str) -> bool:
        """Whether a query has a result now."""
        return bool((await self.get("query", query=query))["result"])

    async def until(self, query: str) -> None:
        """Wait until a query has a result."""
        async with asyncio.timeout(PATIENCE_S):
            while not await self._answers(query):
                await asyncio.sleep(0.2)

    async def _answers(self, query: str) -> bool:
        try:
            return await self.has(query)
        except (aiohttp.ClientError, OSError):
            return False  # it has not begun yet

    async def rules(self) -> dict[str, dict[str, Any]]:
        """Its rules with what came of them, by their names."""
        groups = (await self.get("rules"))["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}


@contextlib.asynccontextmanager
async def running(shop: Installation, folder: Path) -> AsyncIterator[Prometheus]:
    """While the block runs, from the moment at which everything is scraped."""
    targets = scraped.by_pods(shop)
    (folder / "rules.yaml").write_text(yaml.safe_dump(scraped.monitor(shop, "PrometheusRule")))
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(_settings(shop, targets)))
    keeper = shop.cluster.keeper
    keeper.start(
        "prometheus", "nsenter", f"--net={shop.pods.network}", require("prometheus"),
        f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{PORT}",
    )  # fmt: skip
    try:
        async with aiohttp.ClientSession(connector=shop.pods.connector(force_close=True)) as session:
            made = Prometheus(session)
            await made.until(f"count(up == 1) == {len(targets)}")
            yield made
    finally:
        keeper.stop("prometheus")


def _settings(shop: Installation, targets: scraped.Targets) -> dict[str, Any]:
    """Its settings: each target with the labels that the operator gives it."""
    pods = shop.cluster.call("GET", f"/api/v1/namespaces/{shop.namespace}/pods")["items"]
    names = {pod["status"].get("podIP"): pod["metadata"]["name"] for pod in pods}
    known = [
        {"targets": [f"{address}:{port}"], "labels": {"namespace": shop.namespace, "pod": names[address]}}
        for address, port in sorted(targets)
    ]
    return {
        "global": {"scrape_interval": EVERY, "evaluation_interval": EVERY},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "cohort", "static_configs": known}],
    }
