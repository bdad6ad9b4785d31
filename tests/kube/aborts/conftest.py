"""One installation for all tests of this folder; each begins with a revision on trial and leaves what it likes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kube.aborts.replicas import STEPS, Replicas
from tests.kube.cluster import Cluster
from tests.kube.installation import Installation, prepared
from tests.kube.pods.session import PodRunner


@pytest.fixture(scope="package")
def installed(
    definitions: Cluster, pods: PodRunner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Installation, Path]]:
    """A shop with cohort in front of it and nothing on trial; three replicas."""
    with prepared(definitions, pods) as shop:
        asyncio.run(shop.install(strategy={"canary": {"steps": STEPS}}))
        yield shop, tmp_path_factory.mktemp("secret")


@pytest.fixture
def replicas(installed: tuple[Installation, Path]) -> Iterator[Replicas]:
    """The replicas as they are now."""
    shop, folder = installed
    shop.cluster.mend()
    yield Replicas(shop, folder)
    shop.cluster.mend()
