"""What stands between the runner and a container's first instruction: namespaces, a root, a user.

``python -IS sandbox.py``, with a specification as JSON on standard input, is started for each container and for each
command run inside one. It stays as the container's parent, and its exit status is the container's, 128 and the signal's
number if one ended it. It is small and standard library only: it starts hundreds of times.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from typing import Any

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID = 0x20000, 0x4000000, 0x8000000, 0x20000000
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
CAPABILITIES = range(41)
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LIBC = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    """Raise what a C function said.

    Raises:
        OSError: The result is not 0.
    """
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def setns(path: str) -> None:
    """Enter a namespace that a file stands for; for the calling thread, or for children to come if of processes."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        check(LIBC.setns(handle, 0), f"setns {path}")
    finally:
        os.close(handle)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    given = (text.encode() or None for text in (source, target, kind))
    source_, target_, kind_ = given
    check(LIBC.mount(source_, target_, kind_, ctypes.c_ulong(flags), options.encode() or None), f"mount {target}")


def bind(source: str, target: str, read_only: bool) -> None:
    """Show a file or folder at another place too."""
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(target, os.O_CREAT | os.O_EXCL, 0o644))
    mount(source, target, flags=MS_BIND | MS_REC)
    if read_only:
        mount("", target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY)


def build(spec: dict[str, Any]) -> None:
    """Make the container's root and namespaces; the next fork is its process 1."""
    setns(spec["net"])
    with open("/proc/sys/net/ipv4/ip_unprivileged_port_start", "w") as file:  # as container runtimes set it
        file.write("0")
    flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID
    check(LIBC.unshare(flags), "unshare")
    mount("", "/", flags=MS_REC | MS_PRIVATE)
    root = spec["root"]
    mount("tmpfs", root, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=64m")
    furnish(root, spec["files"])
    for source, target, read_only in spec["binds"]:
        bind(source, root + target, read_only)
    for target, where in spec["links"].items():
        os.symlink(where, root + target)
    socket.sethostname(spec["hostname"])


def furnish(root: str, files: dict[str, str]) -> None:
    """The folders, devices and files that every root has."""
    for name in ("proc", "dev", "etc", "run", "var", "tmp"):
        os.mkdir(f"{root}/{name}")
    os.chmod(f"{root}/tmp", 0o1777)
    os.symlink("../run", f"{root}/var/run")  # relative: an absolute one would lead out of the root
    for name in DEVICES:
        bind(f"/dev/{name}", f"{root}/dev/{name}", read_only=False)
    for name, where in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")):
        os.symlink(f"/proc/self/fd{where}", f"{root}/dev/{name}")
    os.mkdir(f"{root}/dev/shm")
    mount("tmpfs", f"{root}/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=64m")
    for target, text in files.items():
        with open(root + target, "w") as file:
            file.write(text)


def move_in(spec: dict[str, Any]) -> None:
    """As process 1 of the container: its own /proc, its own root."""
    mount("proc", spec["root"] + "/proc", "proc", MS_NOSUID | MS_NODEV)
    if spec["read_only"]:
        mount("", spec["root"], flags=MS_REMOUNT | MS_BIND | MS_RDONLY)
    os.chroot(spec["root"])


def join(pid: int) -> None:
    """Enter the container whose process 1 has this id."""
    root = os.open(f"/proc/{pid}/root", os.O_RDONLY)
    handles = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in ("net", "ipc", "uts", "pid", "mnt")]
    for handle in handles:
        check(LIBC.setns(handle, 0), "setns")
        os.close(handle)
    os.fchdir(root)
    os.chroot(".")
    os.close(root)


def become(spec: dict[str, Any]) -> None:
    """Take the container's user, without any right that it is not given, and end with the parent."""
    os.umask(0o022)
    if spec["drop"]:
        for capability in CAPABILITIES:
            LIBC.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.setgroups(spec["groups"])
    os.setgid(spec["gid"])
    os.setuid(spec["uid"])
    if spec["locked"]:
        check(LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # after the change of user, which clears it
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and ignored signals stay so over an exec
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    os.chdir(spec["cwd"])


def run(spec: dict[str, Any]) -> int:
    """Start the command and wait for it; its exit status."""
    joins = spec.get("join")
    join(joins) if joins else build(spec)
    told = spec.get("tell")
    if told is not None:
        os.set_inheritable(told, False)
    child = os.fork()
    if child == 0:
        try:
            if not joins:
                move_in(spec)
            become(spec)
            os.execvpe(spec["argv"][0], spec["argv"], spec["env"])
        except BaseException as error:
            print(f"cannot start {spec['argv']}: {error}", file=sys.stderr, flush=True)
            os._exit(127)
    if told is not None:
        os.write(told, f"{child}\n".encode())
        os.close(told)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    specification = json.load(sys.stdin)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    status = run(specification)
    sys.exit(status if status >= 0 else 128 - status)
