"""The faults of a cluster at full length: ``python -m tests.kube.faults [SEED ...]``, a round for each seed."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from tests.kube.cluster import Cluster
from tests.kube.conftest import DEFINITIONS
from tests.kube.faults import scenes
from tests.kube.faults.stage import strategy
from tests.kube.installation import prepared
from tests.kube.keeper import PREFIX
from tests.kube.pods.session import PodRunner


async def rounds(cluster: Cluster, runner: PodRunner, seeds: list[int]) -> None:
    """Each on what the one before has left."""
    with prepared(cluster, runner) as shop:
        await shop.install(strategy=strategy())
        for number, seed in enumerate(seeds):
            for scene, part in zip(scenes.ALL, "ab", strict=True):
                await scene(shop, f"v{number}{part}", seed)


def main(seeds: list[int]) -> None:
    """The command."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    cluster = Cluster(folder)
    try:
        cluster.start()
        cluster.kubectl("apply", "--server-side", "-f", str(DEFINITIONS))
        runner = PodRunner(cluster)
        runner.start()
        asyncio.run(rounds(cluster, runner, seeds))
        runner.close()
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [6])
