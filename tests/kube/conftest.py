"""The cluster of a session, and a namespace for each test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kube.cluster import PROGRAMS, Cluster
from tests.kube.keeper import PREFIX, sweep
from tests.kube.pods.session import PROGRAMS as RUNNER_PROGRAMS
from tests.kube.pods.session import PodRunner, is_root
from tests.kube.pods.space import RESTRICTED, Space
from tests.kube.tools import find
from tests.support.require import require

DEFINITIONS = Path(__file__).parents[2] / "charts/cohort/crds"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """One for all tests of a session; skips where its programs are not built (in CI that is a failure)."""
    try:
        for program in PROGRAMS:
            find(program)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))  # short: a socket file's path has at most 107 bytes
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def pods(cluster: Cluster) -> Iterator[PodRunner]:
    """Runs the cluster's pods as processes; skips where the tests' user is not root."""
    if not is_root():
        pytest.skip("pods need network namespaces, which only root may make")
    for program, package in RUNNER_PROGRAMS.items():
        require(program, package)
    runner = PodRunner(cluster)
    runner.start()
    yield runner
    runner.close()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A namespace of this test's own."""
    name = cluster.make_namespace()
    yield name
    cluster.mend()
    cluster.call("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture
def restricted(cluster: Cluster) -> Iterator[str]:
    """The same where Pod Security enforces `restricted`."""
    name = cluster.make_namespace(**RESTRICTED)
    yield name
    cluster.mend()
    cluster.call("DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="session")
def definitions(cluster: Cluster) -> Cluster:
    """The cluster with cohort's definitions, applied as the docs say."""
    cluster.kubectl("apply", "--server-side", "-f", str(DEFINITIONS))
    # `kubectl wait` fails on a definition that has no conditions yet; what counts is that all of it is served.
    for path in sorted(DEFINITIONS.glob("*.yaml")):
        cluster.until(lambda plural=path.stem: cluster.exists(f"/apis/cohort.dev/v1alpha1/{plural}"))
    cluster.until(lambda: cluster.run("kubectl", "get", "cohort", "-A").returncode == 0)
    return cluster


@pytest.fixture
def space(cluster: Cluster, pods: PodRunner, restricted: str) -> Iterator[Space]:
    """A `restricted` namespace with pods that run; fails if the runner itself had a fault."""
    yield Space(cluster, pods, restricted)
    assert "Traceback" not in pods.log, pods.log
