"""The image as the chart uses it: built from the Dockerfile, and run."""

from __future__ import annotations

import http.client
import http.server
import json
import shutil
import subprocess
import sys
import tarfile
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.image.build import IMAGE, ISOLATION, ROOT, VERSION, Builder, base_archive, tree_bytes
from tests.image.contain import USER
from tests.image.start import started

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first test builds all of it
BUILD_TOOLS = ("cc", "gcc", "c++", "g++", "cpp", "ld", "as", "make", "uv", "git", "curl", "wget")
SHELLS = ("sh", "bash", "dash", "rbash", "busybox")
FOLDERS = ("opt/cohort/bin", "opt/uv/bin", "usr/local/bin", "usr/bin", "usr/sbin", "bin", "sbin")
OURS = 200 * 10**6  # bytes of the folder that we add; measured 172 MB


@pytest.fixture
def configuration(builder: Builder) -> Any:
    """What the image says of how it is run."""
    return builder.inspect(IMAGE)["OCIv1"]["config"]


class Service(http.server.BaseHTTPRequestHandler):
    """Answers every GET."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def service() -> Iterator[int]:
    """The port of a service."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_the_image_says_what_it_is_and_how_it_is_run(configuration: Any) -> None:
    """OCI image specification, annotations; a user by number, which `runAsNonRoot` can check."""
    labels = configuration["Labels"]
    assert configuration["User"] == f"{USER}:{USER}"
    assert configuration["Entrypoint"] == ["/opt/cohort/bin/cohort"]
    assert labels["org.opencontainers.image.title"] == "cohort"
    assert labels["org.opencontainers.image.version"] == VERSION
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert {"description", "revision"} <= {label.removeprefix("org.opencontainers.image.") for label in labels}


def test_nothing_that_builds_is_in_the_image(tree: Path) -> None:
    """A compiler or a package installer is what an intruder would bring along first."""
    found = [name for name in BUILD_TOOLS for folder in FOLDERS if (tree / folder / name).exists()]
    assert found == []
    assert [*tree.glob("opt/cohort/lib/python3*/site-packages/pip*")] == []
    assert not (tree / "opt/uv").exists()


def test_the_image_has_what_the_lock_file_says(tree: Path) -> None:
    """Each distribution of the image is one that uv.lock pins, at that version, and none is one for development."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    pinned = {(one["name"], one["version"]) for one in lock["package"]}
    found = {_distribution(path) for path in tree.glob("opt/cohort/lib/python3*/site-packages/*.dist-info")}
    assert len(found) > 15
    assert found - pinned == set()
    assert not {"mypy", "ruff", "hypothesis", "uv"} & {name for name, _ in found}


def _distribution(folder: Path) -> tuple[str, str]:
    """Name and version, as the lock file spells them."""
    fields = dict(line.split(": ", 1) for line in (folder / "METADATA").read_text().splitlines()[:8] if ": " in line)
    return fields["Name"].lower().replace("_", "-").replace(".", "-"), fields["Version"]


def test_every_module_is_compiled_beforehand(tree: Path) -> None:
    """On a read-only root nothing can be kept, so that each start would compile everything anew."""
    packages = next(tree.glob("opt/cohort/lib/python3*/site-packages"))
    sources = [path for name in ("proxy", "controller", "aiohttp") for path in packages.glob(f"{name}/**/*.py")]
    assert len(sources) > 100
    assert [path for path in sources if not [*path.parent.glob(f"__pycache__/{path.stem}.*.pyc")]] == []


def test_the_image_is_small(tree: Path) -> None:
    """What is pulled at each node is paid for at each node."""
    assert tree_bytes(tree / "opt/cohort") < OURS


def test_buildah_runs_the_command_as_a_user_without_capabilities(builder: Builder) -> None:
    """The one container runtime at hand."""
    with builder.container(IMAGE) as name:
        run = ("run", *ISOLATION, "--cap-drop", "all", "--user", str(USER), name, "--")
        told = builder(*run, "/opt/cohort/bin/cohort", "version")
        assert told.startswith(f"cohort {VERSION} ")
        assert told.endswith(", compiled)")
        assert builder(*run, "id", "-u") == str(USER)


def test_a_proxy_serves_as_the_chart_starts_it(tree: Path, configuration: Any, service: int, tmp_path: Path) -> None:
    """Read-only root, no capability, no shell in the image, user 65532: it is ready, serves, and leaves in order."""
    _remove_shells(tree)
    with started(tree, configuration, tmp_path, service) as proxy:
        status = (Path("/proc") / str(proxy.process.pid) / "status").read_text()
        fields = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == [str(USER)] * 4
        assert {fields[name].strip() for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb")} == {"0" * 16}
        assert fields["NoNewPrivs"].strip() == "1"
        assert " ro" in _root_mount(proxy.process.pid)
        state = json.loads(proxy.ask("/state")[1])
        assert _get(state["listeners"][0]) == (200, b"ok")
        proxy.process.terminate()
        assert proxy.process.wait(60) == 0
    assert (tmp_path / "state/plan.json").exists()


def _remove_shells(tree: Path) -> None:
    for folder in ("usr/bin", "bin"):
        for name in SHELLS:
            (tree / folder / name).unlink(missing_ok=True)
    assert shutil.which("sh", path=f"{tree}/bin:{tree}/usr/bin") is None


def _root_mount(pid: int) -> str:
    """The options of the root's last mount."""
    lines = (Path("/proc") / str(pid) / "mountinfo").read_text().splitlines()
    return [f" {line.split()[5]}" for line in lines if line.split()[4] == "/"][-1]


def _get(address: str) -> tuple[int, bytes]:
    host, _, port = address.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=30)
    connection.request("GET", "/")
    answer = connection.getresponse()
    try:
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("command", ["proxy", "controller", "loadtest", "demo", "get", "lint"])
def test_every_command_can_be_loaded(tree: Path, configuration: Any, command: str) -> None:
    """All that the command needs is in the image."""
    environment = [part for one in configuration["Env"] for part in ("--env", one)]
    argv = [sys.executable, "-m", "tests.image.contain", *environment, str(tree), "--", *configuration["Entrypoint"]]
    done = subprocess.run([*argv, command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"Usage: cohort {command}")


def test_the_base_is_only_added_to(tree: Path) -> None:
    """A platform team may choose its own base: nothing of it is in our way, and we need one folder."""
    with tarfile.open(base_archive()) as base:
        theirs = {name.removeprefix("./") for name in base.getnames()}
    ours = {path.name for path in tree.iterdir()} | {f"opt/{path.name}" for path in (tree / "opt").iterdir()}
    assert ours - theirs == {"opt/cohort"}
