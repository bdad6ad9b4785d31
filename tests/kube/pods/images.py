"""What stands for an image: programs of this machine, a user, a root made of both."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]
NOBODY = 65532
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
OF_ETC = (
    "ssl",
    "ca-certificates.conf",
    "alternatives",
    "ld.so.cache",
    "localtime",
    "mime.types",
    "protocols",
    "services",
)
USERS = f"root:x:0:0:root:/root:/bin/sh\nnonroot:x:{NOBODY}:{NOBODY}:nonroot:/:/bin/sh\n"
GROUPS = f"root:x:0:\nnonroot:x:{NOBODY}:\n"


@dataclass(frozen=True, slots=True)
class Image:
    """One image.

    Attributes:
        entrypoint: What runs if the container names no ``command``.
        arguments: What it is given if the container names no ``args`` and no ``command``.
        environment: Variables that the container may override.
        user: The user and group id it runs as unless the Pod says otherwise.
        folder: The working directory.
        shows: More files and folders of this machine that it sees, read-only, at the same place.
    """

    entrypoint: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: int = NOBODY
    folder: str = "/"
    shows: tuple[str, ...] = ()


IMAGES = {
    "cohort": Image(("cohort",)),
    "python": Image(("python",)),
}
PATH = f"{CHECKOUT}/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def resolve(name: str, images: Mapping[str, Image]) -> Image | None:
    """The image that a reference means: by its whole text, without its tag, or by its last word.

    ``registry.test/team/cohort:1.0`` is found as such, as ``registry.test/team/cohort`` and as ``cohort``.
    """
    plain = name.partition("@")[0]
    head, slash, last = plain.rpartition("/")
    last = last.partition(":")[0]
    return next((images[key] for key in (name, plain, head + slash + last, last) if key in images), None)


def binds(image: Image) -> Iterator[tuple[str, str, bool]]:
    """What of this machine a root shows, as (here, there, read-only)."""
    seen = {*SYSTEM, *image.shows, str(CHECKOUT), sys.base_prefix}
    for path in sorted(seen):
        if os.path.exists(path) and not os.path.islink(path) and not _is_below(path, seen - {path}):
            yield path, path, True
    for name in OF_ETC:
        if os.path.exists(f"/etc/{name}"):
            yield os.path.realpath(f"/etc/{name}"), f"/etc/{name}", True


def links() -> dict[str, str]:
    """The links of the system's root, such as ``/bin`` where ``/usr`` is merged."""
    return {path: os.readlink(path) for path in SYSTEM if os.path.islink(path)}


def _is_below(path: str, others: set[str]) -> bool:
    return any(path.startswith(other + "/") for other in others)
