"""Where tests find the components, and that a build counts only when it is whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.kube.tools import MODULES, Module, __main__, builds, find, variable

GO = """#!/bin/sh
while [ "$1" != -o ]; do shift; done
echo "$3" >&2
case "$3" in *"$FAILS") echo "does not compile" >&2; exit 1;; esac
printf '#!/bin/sh\\n' > "$2"; chmod +x "$2"
"""


@pytest.fixture(autouse=True)
def nothing_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, and no variable that names a program."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith(("TEST_ASSET_", "KUBEBUILDER_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that writes an empty script for each program, and fails for the package that ``FAILS`` ends."""
    path = tmp_path / "bin" / "go"
    path.parent.mkdir()
    path.write_text(GO)
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAILS", "/nothing")


def program(path: Path) -> Path:
    """Something that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(0o755)
    return path


def test_a_program_is_looked_for_as_envtest_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own variable goes before the folder of all, and that before our build."""
    assert variable("kube-apiserver") == "TEST_ASSET_KUBE_APISERVER"
    built = program(next(module.target for module in MODULES if "etcd" in module.programs) / "etcd")
    assert find("etcd") == built
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path))
    assert find("etcd") == built
    theirs = program(tmp_path / "etcd")
    assert find("etcd") == theirs
    monkeypatch.setenv("TEST_ASSET_ETCD", str(program(tmp_path / "mine")))
    assert find("etcd") == tmp_path / "mine"


def test_a_missing_program_says_how_to_get_it() -> None:
    with pytest.raises(FileNotFoundError, match="helm is not built: make kube-tools, or name yours in TEST_ASSET_HELM"):
        find("helm")


@pytest.mark.usefixtures("go")
def test_a_build_makes_every_program_and_a_second_one_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    assert __main__.main() == 0
    assert all(find(program) for module in MODULES for program in module.programs)
    assert "building etcd, k8s, helm" in capfd.readouterr().out
    assert __main__.main() == 0
    assert capfd.readouterr().out == ""


@pytest.mark.usefixtures("go")
def test_a_build_that_ends_early_is_not_taken_for_whole(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its programs lie in a folder that the next build removes."""
    monkeypatch.setenv("FAILS", "/kubectl")
    assert __main__.main() == 1
    assert "does not compile" in capfd.readouterr().err
    with pytest.raises(FileNotFoundError):
        find("kube-apiserver")
    monkeypatch.setenv("FAILS", "/nothing")
    assert __main__.main() == 0
    assert "building k8s, helm" in capfd.readouterr().out
    assert find("kube-apiserver")
    assert sorted(builds().iterdir()) == sorted([builds() / "lock", *(module.target for module in MODULES)])


def test_without_go_the_build_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(__main__, "ELSEWHERE", ())
    assert __main__.main() == 1
    assert "Go 1.26 or newer is needed" in capfd.readouterr().out


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_what_is_built_is_what_the_module_requires(module: Module) -> None:
    """The packages are tools of the module, so ``go mod tidy`` keeps all that they need."""
    text = (module.folder / "go.mod").read_text()
    assert f"go {__main__.GO}" in text
    assert all(package in text for package in module.programs.values())
