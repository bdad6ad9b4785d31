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


async def round_of(cluster: Cluster, runner: PodRunner, seed: int) -> None:
    """All scenes, one after the other, on an installation of their own."""
    with prepared(cluster, runner) as shop:
        await shop.install(strategy=strategy())
        for number, scene in enumerate(scenes.ALL):
            await scene(shop, f"v{number + 2}", seed)


def main(seeds: list[int]) -> None:
    """The command."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    cluster = Cluster(folder)
    try:
        cluster.start()
        cluster.kubectl("apply", "--server-side", "-f", str(DEFINITIONS))
        runner = PodRunner(cluster)
        runner.start()
        for seed in seeds:
            asyncio.run(round_of(cluster, runner, seed))
        runner.close()
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [6])
