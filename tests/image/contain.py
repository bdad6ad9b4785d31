"""Becomes a program in a container as the chart asks for one, without a container runtime.

``python -m tests.image.contain TREE --bind SOURCE:TARGET ... -- COMMAND ...`` in a mount namespace of its own: TREE is
the root, read-only; user and group 65532; no capability, neither to have nor to gain; no new privileges. Only the
network is the caller's. Binds ending in ``:ro`` are read-only. The last thing before the program begins is a line on
standard error: the monotonic clock, in seconds.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import time
from pathlib import Path

USER = 65_532
CLONE_NEWNS = 0x0002_0000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x1, 0x20, 0x1000, 0x4000, 0x4_0000
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 24, 38, 47, 4
LAST_CAPABILITY = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
LIBC = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    _check(LIBC.mount(source.encode(), target.encode(), kind.encode(), flags, None), f"mount {source} {target}")


def _bind(source: str, target: Path, read_only: bool) -> None:
    """A container runtime makes the places of its mounts, too."""
    if os.path.isdir(source):
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.touch()
    _mount(source, str(target), "", MS_BIND | MS_REC)
    if read_only:
        _mount("", str(target), "", MS_BIND | MS_REMOUNT | MS_RDONLY)


def enter(tree: str, binds: list[str]) -> None:
    """Make ``tree`` the root of this process alone.

    Raises:
        OSError: Not root, or a place is missing.
    """
    _check(LIBC.unshare(CLONE_NEWNS), "unshare")
    _mount("", "/", "", MS_REC | MS_PRIVATE)
    _mount(tree, tree, "", MS_BIND)
    for one in ("/proc:/proc", "/dev:/dev", *binds):
        source, target, *mode = one.split(":")
        _bind(source, Path(tree + target), mode == ["ro"])
    _mount("", tree, "", MS_BIND | MS_REMOUNT | MS_RDONLY)
    os.chroot(tree)
    os.chdir("/")


def drop() -> None:
    """Become the user whom the chart names, for good."""
    for capability in range(LAST_CAPABILITY + 1):
        _check(LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "capability")
    _check(LIBC.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient capabilities")
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    _check(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")


def main() -> None:
    """Become the program; the environment is the image's, and nothing of the caller's."""
    parser = argparse.ArgumentParser()
    parser.add_argument("tree")
    parser.add_argument("--bind", action="append", default=[])
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    enter(options.tree, options.bind)
    drop()
    environment = dict(one.split("=", 1) for one in options.env)
    os.write(2, f"{time.monotonic()}\n".encode())
    os.execve(options.command[0], options.command, environment)


if __name__ == "__main__":
    main()
