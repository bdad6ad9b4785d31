"""The real components: which programs there are, where they come from and where a test finds them.

One Go module a component, its dependencies fixed by ``go.mod`` and ``go.sum``; a finished build lies in
``~/.cache/cohort/kube/<hash of its go.sum>``, so a clean checkout builds only what has changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
KUBERNETES = "v1.36.4"
VERSION = "k8s.io/component-base/version"
# Without these /version says v0.0.0, and a chart's kubeVersion refuses to install.
LDFLAGS = f"-s -w -X {VERSION}.gitVersion={KUBERNETES} -X {VERSION}.gitMajor=1 -X {VERSION}.gitMinor=36"


@dataclass(frozen=True, slots=True)
class Module:
    """One Go module.

    Attributes:
        name: Its folder here.
        programs: What a test calls each program, and the package it is built from.
        cold_s: Seconds that a build with nothing in Go's cache took on two cores.
    """

    name: str
    programs: Mapping[str, str]
    cold_s: int

    @property
    def folder(self) -> Path:
        """Where its go.mod lies."""
        return HERE / self.name

    @property
    def target(self) -> Path:
        """Where its programs belong: named by what they are built from."""
        return builds() / hashlib.sha256((self.folder / "go.sum").read_bytes()).hexdigest()[:20]


MODULES = (
    Module("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}, 50),
    Module(
        "k8s",
        {name: f"k8s.io/kubernetes/cmd/{name}" for name in ("kube-apiserver", "kube-controller-manager", "kubectl")},
        300,
    ),
    Module("helm", {"helm": "helm.sh/helm/v4/cmd/helm"}, 150),
)


def builds() -> Path:
    """The folder of finished builds."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cohort" / "kube"


def find(program: str) -> Path:
    """A program, looked for as envtest does: its own variable, the folder of all, our build.

    Raises:
        FileNotFoundError: It is nowhere; the message says how to build it.
    """
    for path in _places(program):
        if os.access(path, os.X_OK):
            return path.absolute()
    raise FileNotFoundError(
        f"{program} is not built: make kube-tools, or name yours in {variable(program)} or KUBEBUILDER_ASSETS"
    )


def variable(program: str) -> str:
    """The environment variable that names one program: ``TEST_ASSET_KUBE_APISERVER``."""
    return "TEST_ASSET_" + program.upper().replace("-", "_")


def _places(program: str) -> Iterator[Path]:
    if named := os.environ.get(variable(program)):
        yield Path(named)
    if folder := os.environ.get("KUBEBUILDER_ASSETS"):
        yield Path(folder) / program
    yield from (module.target / program for module in MODULES if program in module.programs)
