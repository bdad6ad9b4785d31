"""The pods' network: a namespace with a bridge, and a namespace with an address for each Pod.

Nothing of it is in the machine's own namespace, so that several runs at once do not meet. A run holds a lock while
it lives; what belongs to a lock that nobody holds is of a run that was killed, and is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import secrets
import shutil
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeVar

from tests.kube.pods.sandbox import setns

LOCKS = Path("/run/cohort-kube")
NAMESPACES = Path("/run/netns")
BRIDGE = "10.99.0.1"
ADDRESSES = [f"10.99.0.{last}" for last in range(2, 255)]
SERVICES = "10.96.0.0/16"
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Link:
    """One Pod's place in the network.

    Attributes:
        namespace: The file of its namespace.
        address: Its IPv4 address.
    """

    namespace: Path
    address: str


class Network:
    """One run's network.

    Attributes:
        run: The run's id; the names of all its namespaces begin with ``ck-<run>``.
        control: The file of the namespace that has the bridge.
    """

    def __init__(self, folder: Path) -> None:
        sweep()
        self.run = secrets.token_hex(3)
        self._lock = _take_lock(self.run, folder)
        self._free = deque(ADDRESSES)  # the one that was given back longest ago is the next
        self.control = self._add("")
        ip(
            self.control.name,
            "link set lo up",
            "link add br0 type bridge forward_delay 0",
            f"addr add {BRIDGE}/24 dev br0",
            "link set br0 up",
            f"route add {SERVICES} dev br0",  # so that a packet to a Service gets as far as its rule
        )

    def attach(self) -> Link:
        """A namespace for a new Pod.

        Raises:
            IndexError: 253 pods are there.
        """
        address = self._free.popleft()
        number = address.rpartition(".")[2]
        namespace = self._add(f"-{number}")
        hardware = "0a:58:" + ":".join(f"{int(part):02x}" for part in address.split("."))  # no stale ARP entry lies
        ip(
            self.control.name,
            f"link add v{number} type veth peer name eth0 address {hardware} netns {namespace.name}",
            f"link set v{number} master br0 up",
        )
        ip(
            namespace.name,
            "link set lo up",
            f"addr add {address}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {BRIDGE}",
        )
        return Link(namespace, address)

    def detach(self, link: Link) -> None:
        """Take a Pod's namespace away, and its device with it."""
        ip(self.control.name, f"link del v{link.address.rpartition('.')[2]}")
        _delete(link.namespace.name)
        self._free.append(link.address)

    def close(self) -> None:
        """Remove all of it."""
        _remove(self.run)
        (LOCKS / self.run).unlink()
        self._lock.close()

    def _add(self, suffix: str) -> Path:
        name = f"ck-{self.run}{suffix}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        return NAMESPACES / name


def ip(namespace: str, *commands: str) -> None:
    """Run commands of ip(8) in a namespace, all of them by one process.

    Raises:
        subprocess.CalledProcessError: One failed; those after it were not tried.
    """
    subprocess.run(["ip", "-n", namespace, "-batch", "-"], input="\n".join(commands), text=True, check=True)


def within(namespace: Path, call: Callable[[], Result]) -> Result:
    """Call a function in a network namespace, by a thread that lives for it; sockets that it opens stay there."""
    results: list[Result] = []

    def work() -> None:
        setns(str(namespace))
        results.append(call())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return results[0]


def sweep() -> None:
    """Remove what runs that were killed have left: namespaces and their folders."""
    LOCKS.mkdir(exist_ok=True)
    for path in LOCKS.iterdir():
        with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder = lock.read().strip()
            _remove(path.name)
            if folder:
                shutil.rmtree(folder, ignore_errors=True)
            path.unlink()


def _take_lock(run: str, folder: Path) -> TextIO:
    """The lock's file names the folder that goes with it; it gets its name when held, so no sweep finds it free."""
    draft = LOCKS.parent / f"cohort-kube-{run}"
    lock = draft.open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    lock.write(str(folder))
    lock.flush()
    draft.rename(LOCKS / run)
    return lock


def _remove(run: str) -> None:
    for path in list(NAMESPACES.glob(f"ck-{run}*")):
        _delete(path.name)


def _delete(name: str) -> None:
    subprocess.run(["ip", "netns", "del", name], check=True)
