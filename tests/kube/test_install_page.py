"""docs/install.md and docs/upgrade.md: every command, in its order, does what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kube.cluster import Cluster
from tests.kube.pods.session import PodRunner

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/install.md").read_text()
UPGRADE = (ROOT / "docs/upgrade.md").read_text()
STEP_S = 700.0  # longer than any command of the page waits itself
OURS = "page-shop"


def sections(page: str) -> dict[str, list[str]]:
    """Blocks of commands by heading; the namespace is one that no other test has."""
    found: dict[str, list[str]] = {}
    for part in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
        found[heading] = [re.sub(r"(-n|namespace) shop\b", rf"\1 {OURS}", block) for block in blocks]
    return found


class Reader:
    """Somebody who types what the page says."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        for name in ("kubectl", "helm"):
            (folder / name).symlink_to(cluster.programs[name])
        path = f"{folder}:{Path(sys.executable).parent}:/usr/bin:/bin"
        self._environment = {"PATH": path, "HOME": str(folder), "KUBECONFIG": str(cluster.kubeconfig)}
        self._sections = sections(PAGE) | sections(UPGRADE)

    def follow(self, heading: str) -> str:
        """Run the commands of a section; all they said."""
        return "\n".join(self.type(block) for block in self._sections.pop(heading))

    def type(self, block: str) -> str:
        """Run one block."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block],
            cwd=ROOT, env=self._environment, capture_output=True, text=True, timeout=STEP_S,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        return done.stdout

    @property
    def left(self) -> list[str]:
        """Sections with commands that nobody has followed."""
        return [heading for heading, blocks in self._sections.items() if blocks]


@pytest.fixture
def reader(definitions: Cluster, pods: PodRunner, tmp_path: Path) -> Iterator[Reader]:
    yield Reader(definitions, tmp_path)
    assert "Traceback" not in pods.log, pods.log
    if definitions.exists(f"/api/v1/namespaces/{OURS}"):  # a failure on the way
        definitions.call("DELETE", f"/api/v1/namespaces/{OURS}")


def test_the_page_keeps_its_word(reader: Reader) -> None:
    """From an empty namespace to a promotion, an abort and its end; users lose nothing and see one version each."""
    reader.follow("An application")
    told = reader.follow("cohort")
    assert "STATUS: deployed" in told
    assert re.search(r"Phase: +Succeeded", told)
    assert "ok: no flip, no request lost" in told
    told = reader.follow("A first rollout")
    assert "green" in told
    assert "Healthy" in told.splitlines()[-1] or "Healthy" in told
    told = reader.follow("One that is taken back")
    assert re.search(r"cohort .*Aborted", told)
    assert "STATUS: deployed" in reader.follow("In this order")
    assert "Rollback was a success" in reader.follow("Back again")
    said = reader.type(f"kubectl logs -n {OURS} deployment/users --tail=1")
    assert "lost 0 | flips 0" in said
    reader.follow("And then")
    assert reader.left == []


def test_its_manifests_are_for_the_image_that_the_page_builds() -> None:
    """And pods that one may not start in a namespace that enforces `restricted` would be no example."""
    image = re.search(r"docker build -t (\S+)", PAGE)
    assert image is not None
    for path in (ROOT / "examples/install").glob("*.yaml"):
        images = re.findall(r"image: (\S+)", path.read_text())
        assert set(images) <= {image[1]}, path
