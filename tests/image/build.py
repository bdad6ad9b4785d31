"""The image, built from the Dockerfile by buildah on a base made by debootstrap; both need root, neither a daemon.

The base, a minimal Debian with Python, is kept in ``~/.cache/cohort/image``, so that only the first build downloads it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.require import PATH, find

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cohort/image"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SUITE = "bookworm"
PACKAGES = "python3,python3-venv,ca-certificates"
BASE, IMAGE = "localhost/cohort-base", "localhost/cohort"
CERTIFICATES = (
    "/etc/ssl/certs/ca-certificates.crt"  # an authority that the machine's owner added counts in the build too
)
DOWNLOADED = ("var/cache/apt/archives", "var/lib/apt/lists")  # debootstrap leaves them, an image does not need them
ISOLATION = ("--isolation", "chroot")  # the one that needs no other program


class BuildError(Exception):
    """A program failed; the message ends with the end of what it printed."""


def call(*argv: str) -> str:
    """Run a program and return what it printed on standard output.

    Raises:
        BuildError: It failed.
    """
    environment = os.environ | {"PATH": PATH, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise BuildError(f"{' '.join(argv)} ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def base_archive() -> Path:
    """The base's tree as a tar file, made when it is not there."""
    archive = CACHE / f"{SUITE}-{PACKAGES.replace(',', '-')}.tar"
    if archive.exists():
        return archive
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        tree, draft = Path(folder) / "tree", Path(folder) / "base.tar"
        call(find("debootstrap"), "--variant=minbase", f"--include={PACKAGES}", SUITE, str(tree), *_mirror())
        for name in DOWNLOADED:
            shutil.rmtree(tree / name)
            (tree / name).mkdir()
        call("tar", "-C", str(tree), "--numeric-owner", "-cf", str(draft), ".")
        draft.replace(archive)
    return archive


def _mirror() -> list[str]:
    """Where this machine gets the suite from, if it says so; else debootstrap knows."""
    with contextlib.suppress(BuildError, OSError):
        return call("apt-get", "indextargets", "--format", "$(REPO_URI)", f"Codename: {SUITE}").split()[:1]
    return []


class Builder:
    """Buildah with a storage of its own.

    Args:
        storage: An empty folder; `close` removes it.
    """

    def __init__(self, storage: Path) -> None:
        self._storage = storage
        places = ("--root", str(storage / "root"), "--runroot", str(storage / "run"))
        # Compiling takes a minute of a core; whoever measures meanwhile goes first.
        self._buildah = ("nice", find("buildah"), *places, "--storage-driver", "vfs")

    def close(self) -> None:
        """Remove images and containers; nothing may be mounted any more."""
        shutil.rmtree(self._storage)

    def __call__(self, *arguments: str) -> str:
        """Run buildah."""
        return call(*self._buildah, *arguments).strip()

    def make_base(self) -> None:
        """Import the base's tree, by a Dockerfile of two lines."""
        archive = base_archive()
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            os.link(archive, Path(folder) / "base.tar")
            (Path(folder) / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n")
            self("bud", *ISOLATION, "-t", BASE, folder)

    def make_image(self, version: str) -> None:
        """Build the Dockerfile as a person would, on the base made before."""
        mounts = ("-v", f"{CERTIFICATES}:{CERTIFICATES}:ro") if Path(CERTIFICATES).exists() else ()
        arguments = ("--build-arg", f"BASE={BASE}", "--build-arg", f"VERSION={version}")
        self("bud", *ISOLATION, "--network", "host", *arguments, *mounts, "-t", IMAGE, str(ROOT))

    def inspect(self, image: str) -> Any:
        """What is known of an image; ``["OCIv1"]`` has its configuration."""
        return json.loads(self("inspect", "--type", "image", image))

    def compressed(self, image: str) -> int:
        """Bytes of an image as a registry hands it out: its layers, by gzip."""
        with tempfile.TemporaryDirectory(dir=self._storage) as folder:
            self("push", "--quiet", image, f"oci:{folder}/image")
            return sum(blob.stat().st_size for blob in Path(folder).glob("image/blobs/sha256/*"))

    @contextlib.contextmanager
    def container(self, image: str) -> Iterator[str]:
        """A container of an image, by its name."""
        name = self("from", "--pull-never", image)
        try:
            yield name
        finally:
            self("rm", name)

    @contextlib.contextmanager
    def tree(self, image: str) -> Iterator[Path]:
        """A copy of an image's files."""
        with self.container(image) as name:
            try:
                yield Path(self("mount", name))
            finally:
                self("umount", name)


def tree_bytes(folder: Path) -> int:
    """Bytes of all files below a folder, hard links once."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            stat = os.lstat(os.path.join(parent, name))
            found[stat.st_ino] = stat.st_size
    return sum(found.values())
