"""The build of the modules that requests pass: programs run it, it passes their tests, it is never of old sources."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType

import pytest

from proxy.net import compiled
from tests import COMPILED_HERE
from tests.support.dataplane import REPLY, plan, replies, service
from tests.support.supervised import ProxyProcess, proxy_process

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[1]
# Beside all pure modules, the ones that run in the process of their tests.
NET = ("accesslog", "arrival", "attacks", "dataplane", "dial", "discovered", "endpoints", "mirror", "pool", "promises",
       "propagation", "tls", "tls_layer", "tunnel")  # fmt: skip
PATIENCE_S = 900.0


@pytest.fixture
def build() -> Path:
    """The folder of the build of these sources."""
    folder = compiled.folder()
    if not folder.is_dir():
        pytest.skip("these sources are not compiled: make compiled")
    return folder


def has_library(pid: int) -> bool:
    return compiled.LIBRARY in Path(f"/proc/{pid}/maps").read_text()


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[ProxyProcess]:
    async with service(replies(REPLY)) as (_, port), proxy_process(folder) as proxy:
        await proxy.put(plan([port], []))
        assert (await proxy.get()).body == b"ok"
        yield proxy


async def test_programs_run_the_build(build: Path, tmp_path: Path) -> None:
    """Whatever tests start is what is deployed: supervisor and workers."""
    async with serving(tmp_path) as proxy:
        workers = [worker["pid"] for worker in (await proxy.state())["workers"]]
        assert all(has_library(pid) for pid in (proxy.process.pid, *workers))
        (labels,) = await proxy.metric("cohort_build_info")
        assert 'compiled="true"' in labels
        assert ", compiled" in proxy.log


async def test_without_a_build_the_sources_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler, another interpreter, or switched off: the same proxy, which says so."""
    monkeypatch.setenv(compiled.SWITCH, "1")
    async with serving(tmp_path) as proxy:
        workers = [worker["pid"] for worker in (await proxy.state())["workers"]]
        assert not any(has_library(pid) for pid in (proxy.process.pid, *workers))
        (labels,) = await proxy.metric("cohort_build_info")
        assert 'compiled="false"' in labels
        assert ", not compiled" in proxy.log


def test_in_tests_the_sources_run() -> None:
    """They are looked into, and replaced in part."""
    assert (COMPILED_HERE in os.environ) == compiled.IS_IN_USE


@pytest.mark.slow
@pytest.mark.timeout(PATIENCE_S)
def test_the_build_passes_the_tests_of_its_modules(build: Path) -> None:
    """Once more in a process that runs the build, without tests that replace parts of modules (tests/conftest.py)."""
    files = [f"tests/proxy/net/test_{name}.py" for name in NET]
    pure = sorted(str(path) for path in Path(ROOT, "tests/proxy").glob("test_*.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *pure, *files]
    environment = os.environ | {COMPILED_HERE: "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout[-8000:]


def copied(folder: Path) -> Path:
    """A checkout with nothing built in it."""
    shutil.copytree(ROOT / "proxy", folder / "proxy", ignore=shutil.ignore_patterns("_compiled", "__pycache__"))
    for name in ("hatch_build.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("controller", "loadtest", "demo"):
        (folder / name).mkdir()
    return folder


def test_a_byte_changed_anywhere_and_the_build_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build of other sources is never taken for these, not even of ones that it only imports."""
    own = compiled.folder().name
    monkeypatch.setattr(compiled, "PACKAGE", copied(tmp_path) / "proxy")
    assert compiled.folder().name == own
    for name in ("plan.py", "net/tls.py"):
        path = tmp_path / "proxy" / name
        before = path.read_bytes()
        path.write_bytes(before + b"\n")
        assert compiled.folder().name != own
        path.write_bytes(before)
    (tmp_path / "proxy/new.py").touch()
    assert compiled.folder().name != own


def test_without_a_compiler_nothing_fails(tmp_path: Path) -> None:
    """It is said what is missing, and how to get it."""
    command = [sys.executable, copied(tmp_path) / "hatch_build.py"]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=True)
    assert "apt-get install gcc" in done.stderr
    assert not (tmp_path / "proxy/_compiled").exists()


def loaded(folder: Path) -> ModuleType:
    """The program of a checkout, without running it; this process goes on with what it has."""
    spec = importlib.util.spec_from_file_location("hatch_build_of_a_copy", folder / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_of_two_builds_at_once_the_first_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy may have started from it already. Builds of older sources go, those for other interpreters do not."""
    monkeypatch.setenv(compiled.SWITCH, "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    names = ("first.abi", "older.abi", "other.abi2", "second")
    first, older, other, second = (tmp_path / name for name in names)
    for folder in (first, older, other, second):
        folder.mkdir()
        (folder / folder.name).touch()
    loaded(ROOT)._put(second, first)
    assert (first / "first.abi").exists()
    assert not older.exists()
    assert other.exists()


def wheel_of(folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "out"]
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    (wheel,) = (folder / "out").iterdir()
    return wheel


def test_a_wheel_has_the_build_of_its_sources(build: Path, tmp_path: Path) -> None:
    """Then it is one for this platform."""
    shutil.copytree(build, copied(tmp_path) / "proxy/_compiled" / build.name)
    wheel = wheel_of(tmp_path)
    assert not wheel.name.endswith("-none-any.whl")
    library = f"{compiled.LIBRARY}{sysconfig.get_config_var('EXT_SUFFIX')}"
    assert f"proxy/_compiled/{build.name}/library/{library}" in zipfile.ZipFile(wheel).namelist()


def test_a_wheel_without_a_build_is_for_every_platform(tmp_path: Path) -> None:
    """And has no older one either."""
    (copied(tmp_path) / "proxy/_compiled/older").mkdir(parents=True)
    (tmp_path / "proxy/_compiled/older/library").touch()
    wheel = wheel_of(tmp_path)
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not any("_compiled" in name for name in zipfile.ZipFile(wheel).namelist())
