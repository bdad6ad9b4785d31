"""Faults of the machine around the proxy: disks, pipes, clocks, limits of the kernel. F19 to F26."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.faults.ledger import between, failures, only, p99, short
from tests.faults.run import Fault, Run
from tests.faults.stand import Stand, cpu_s, descriptors, pss_mib, rss_mib
from tests.support.require import find

CGROUPS = (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"))
BIG_BYTES = 4 << 20
SOURCES = Path(__file__).parents[2] / "proxy"


class Disk:
    """The state directory on a tmpfs of 1 MiB in a mount namespace of the proxy's own.

    Where this machine allows no mount, RLIMIT_FSIZE of the supervisor stands in: nothing can be written either.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._filler: Path | None = None
        self._pid = 0
        user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
        self._unshare = (find("unshare", "util-linux"), *user, "--mount")
        tried = subprocess.run([*self._unshare, "mount", "-t", "tmpfs", "none", state], capture_output=True)
        self.is_mounted = tried.returncode == 0

    @property
    def prefix(self) -> tuple[str, ...]:
        script = 'exec "$@" >/dev/full 2>/dev/full'
        if not self.is_mounted:
            return ("sh", "-c", script, "sh")
        return (
            *self._unshare,
            "sh",
            "-c",
            f'mount -t tmpfs -o size=1m,mode=700 none "$0" && {script}',
            str(self._state),
        )

    def fill(self, pid: int) -> None:
        self._pid = pid
        if not self.is_mounted:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            return
        self._filler = self.seen(pid) / "filler"
        with self._filler.open("wb", buffering=0) as filler, contextlib.suppress(OSError):
            while filler.write(b"f" * 4096):
                pass

    def free(self) -> None:
        if self._filler is not None:
            self._filler.unlink()
        else:
            resource.prlimit(self._pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def seen(self, pid: int) -> Path:
        """The directory as the proxy sees it."""
        return Path(f"/proc/{pid}/root{self._state}") if self.is_mounted else self._state

    def files(self, pid: int) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.seen(pid).iterdir() if path.suffix == ".json"}


async def full_disk(run: Run) -> None:
    """F19: the state directory is full, all logs go to /dev/full."""
    check = run.check
    state = run.folder / "proxy-0" / "state"
    state.mkdir(parents=True, mode=0o700)
    disk = Disk(state)
    check.note("a tmpfs of 1 MiB" if disk.is_mounted else "no mounts on this machine: RLIMIT_FSIZE instead")
    async with run.stand(prefix=disk.prefix, log={"access": "stdout"}) as stand:
        supervisor = stand.proxy.program.process.pid  # type: ignore[union-attr]
        async with stand.load() as load:
            await asyncio.sleep(1)
            before = disk.files(supervisor)
            disk.fill(supervisor)
            began, cpu = time.monotonic(), cpu_s(supervisor)
            refused = []
            while time.monotonic() < began + run.scale.loss_s:
                refused.append((await stand.proxy.put_plan(stand.plan()))[0])
                await asyncio.sleep(run.scale.pick(5, 0.5))
            busy = (cpu_s(supervisor) - cpu) / (time.monotonic() - began)
            after = disk.files(supervisor)
            disk.free()
            await stand.adopt(stand.plan())
        run.no_loss(load.rows)
        check.exactly("answers to a new plan", ",".join(sorted({str(status) for status in refused})), "507")
        check.true("files in the state directory unchanged", after == before and "plan.json" in before)
        check.at_least("log lines dropped and counted", await stand.metric("cohort_log_dropped_total"), len(load.rows))
        check.at_most("CPU of the supervisor meanwhile", busy * 100, 20, "%")
        check.exactly("restarts", sum(worker["restarts"] for worker in (await stand.proxy.state())["workers"]))


async def stuck_reader(run: Run) -> None:
    """F20: whoever reads standard output is stopped; 40,000 long lines come meanwhile, more than workers keep."""
    check = run.check
    fifo = run.folder / "log"
    os.mkfifo(fifo)
    reader = await asyncio.create_subprocess_exec("cat", str(fifo), stdout=asyncio.subprocess.DEVNULL)
    prefix = ("sh", "-c", 'exec "$@" >"$0"', str(fifo))
    try:
        async with run.stand(prefix=prefix, log={"access": "stdout"}) as stand:
            await stand.adopt(
                stand.plan(routes=[{"name": "none", "matches": [{"path": {"value": "/none"}}], "answer": 404}])
            )
            async with stand.load() as load:
                await asyncio.sleep(run.scale.pick(10, 1))
                reader.send_signal(signal.SIGSTOP)
                began = time.monotonic()
                for _ in range(8):
                    await _pipelined(stand.proxy.port, 5000)
                burst = time.monotonic()
                await asyncio.sleep(run.scale.loss_s)
                dropped = await stand.metric("cohort_log_dropped_total")
                reader.send_signal(signal.SIGCONT)
                ended = time.monotonic()
                await asyncio.sleep(0.5)
        run.no_loss(load.rows)
        quiet = short(between(load.rows, burst + 0.2, ended))
        check.at_least("dropped lines", dropped, 1)
        check.says("worst latency", max(row.latency for row in quiet) * 1000, "ms")
        run.quick("", quiet, 50, between(load.rows, 0, began))
        check.at_most(
            "worst during the burst", max(row.latency for row in short(between(load.rows, began, burst))), 1.0, "s"
        )
    finally:
        if reader.returncode is None:
            reader.kill()
        await reader.wait()


LONG_BYTES = 1000  # of a target, so that one worker's half of the lines is twice what it keeps


async def _pipelined(port: int, count: int) -> None:
    """That many requests that a route answers, on one connection; returns when all are answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = b"GET /none?%b HTTP/1.1\r\nHost: shop\r\n\r\n" % (b"x" * LONG_BYTES)
    try:
        writer.write(request * (count - 1) + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        async with asyncio.timeout(60):
            while await reader.read(1 << 16):
                pass
    finally:
        writer.close()


CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* Wall clocks are off by as many seconds as the file OFFSET_FILE says; the others are left alone. */
static volatile long *offset;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void set_up(void) {
    int file = open(getenv("OFFSET_FILE"), O_RDONLY);
    offset = mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    close(file);
    real = dlsym(RTLD_NEXT, "clock_gettime");
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (!real) set_up();
    int status = real(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += *offset;
    return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (at) *at = exact.tv_sec;
    return exact.tv_sec;
}
"""


class Clock:
    """A wall clock that can be put elsewhere, for programs that are started through its prefix."""

    def __init__(self, folder: Path) -> None:
        self._offset = folder / "offset"
        self._library = folder / "clock.so"
        self._source = folder / "clock.c"
        self.set(0)

    async def build(self) -> None:
        self._source.write_text(CLOCK)
        command = (find("cc", "gcc libc6-dev"), "-shared", "-fPIC", "-o", str(self._library), str(self._source), "-ldl")
        process = await asyncio.create_subprocess_exec(*command)
        assert await process.wait() == 0

    def set(self, seconds: int) -> None:
        with self._offset.open("r+b" if self._offset.exists() else "wb") as file:
            file.write(seconds.to_bytes(8, "little", signed=True))

    @property
    def prefix(self) -> tuple[str, ...]:
        return ("env", f"LD_PRELOAD={self._library}", f"OFFSET_FILE={self._offset}")


async def jumping_clock(run: Run) -> None:
    """F21: by an hour forth, then back, then by a day back; users are known by cookies that expire."""
    from tests.faults.control import known_users

    check = run.check
    clock = Clock(run.folder)
    await clock.build()
    count = round(run.scale.pick(2000, 50))
    async with run.stand(prefix=clock.prefix, timeouts={"upstreamKeepAlive": "4s"}) as stand:
        await stand.adopt(stand.plan(3000, users=[{"mint": {"maxAge": "2160h"}}]))
        dates = []
        async with stand.load(cookies=known_users(stand.keys, count)) as load:
            for seconds in (0, 3600, 0, -3600, 0, -86_400):
                clock.set(seconds)
                await asyncio.sleep(run.scale.loss_s / 6)
                dates.append(round((await _date(stand.proxy.port)) - time.time()))
        run.no_loss(load.rows)
        check.true("the proxy saw the jumps", [round(date, -2) for date in dates] == [0, 3600, 0, -3600, 0, -86_400])
        seen: dict[str, set[str]] = {}
        for row in load.rows:
            if row.reason == "split":  # `fallback` is a move that is allowed, and so is no answer
                seen.setdefault(row.user, set()).add(row.arm)
        check.exactly("users that changed version", sum(len(arms) > 1 for arms in seen.values()))
        state = await stand.proxy.state()
        check.exactly("restarts of workers", sum(worker["restarts"] for worker in state["workers"]))
        check.exactly("wall clock in deadlines", ", ".join(wall_deadlines()) or "none", "none")


async def _date(port: int) -> float:
    """What the proxy says the time is."""
    from email.utils import parsedate_to_datetime

    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /.cohort/none HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
    try:
        head = (await reader.read()).decode("latin-1")
    finally:
        writer.close()
    found = re.search(r"(?m)^Date: (.*)\r$", head)
    assert found, head
    return parsedate_to_datetime(found[1]).timestamp()


def wall_deadlines() -> list[str]:
    """Lines of the proxy where a deadline, a time-out or a wait is reckoned from the wall clock."""
    pattern = re.compile(r"(deadline|timeout|expire|until|wait)\w*\s*[-+]?[=<>].*\b(time\.time\(|wall)")
    found = []
    for path in sorted((SOURCES / "net").glob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.name}:{number}")
    return found


async def suspended(run: Run) -> None:
    """F22: all of the proxy's processes are stopped for 5 s; meanwhile the services close what is idle."""
    check = run.check
    async with run.stand() as stand:
        pids = [stand.proxy.program.process.pid, *await stand.workers()]  # type: ignore[union-attr]
        async with stand.load(timeout_s=run.scale.pick(3, 1.5), stream_s=run.scale.pick(10, 1)) as load:
            await asyncio.sleep(run.scale.pick(20, 1))
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            began = time.monotonic()
            try:
                await asyncio.sleep(0.5)
                await stand.stable[0].end(signal.SIGKILL)
                await stand.stable[0].start()
                await asyncio.sleep(run.scale.pick(4.5, 2.5))
            finally:
                for pid in pids:
                    os.kill(pid, signal.SIGCONT)
            continued = time.monotonic()
            await asyncio.sleep(run.scale.after_s + 1)
        # What came while it was stopped may have timed out at its client; what was sent on a dead connection is 502.
        run.losses(load.rows, began, continued + 1, only("timeout", "502", "truncated", "reset"))
        check.exactly("errors sent later than 1 s after", sum(row.sent > continued + 1 for row in failures(load.rows)))
        check.exactly("restarts of workers", sum(w["restarts"] for w in (await stand.proxy.state())["workers"]))


async def few_descriptors(run: Run) -> None:
    """F23: ulimit -n 256, and more clients than that; one worker."""
    check = run.check
    async with run.stand(workers=1, prefix=(find("prlimit", "util-linux"), "--nofile=256:256")) as stand:
        (worker,) = await stand.workers()
        async with stand.load(rate=100, upload_s=0, stream_s=0, sockets=0, new_share=0.0) as load:
            await asyncio.sleep(1)
            idle = [await _connect(stand.proxy.port) for _ in range(400)]
            try:
                began, cpu = time.monotonic(), cpu_s(worker)
                await asyncio.sleep(run.scale.pick(20, 2))
                ended = time.monotonic()
                busy = (cpu_s(worker) - cpu) / (ended - began)
                check.exactly("admin answers", (await stand.proxy.state())["ready"], wanted=True)
                open_files = descriptors(worker)
                rejected = await stand.metric("cohort_downstream_rejected_total", cause="connections")
            finally:
                for writer in idle:
                    writer.close()
            left = time.monotonic()
            fresh_s = await _until_answered(stand.proxy.port)
            await asyncio.sleep(0.5)
        run.losses(load.rows, 0, 0, only())
        check.says("descriptors open", open_files)
        check.at_least("counted", rejected, 1)
        check.at_most("CPU", busy * 100, 50, "%")
        check.at_most("new clients are served again after", fresh_s, 2, "s")
        check.says("from", time.monotonic() - left, "s")


async def _connect(port: int) -> asyncio.StreamWriter:
    return (await asyncio.open_connection("127.0.0.1", port))[1]


async def _until_answered(port: int) -> float:
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
    try:
        async with asyncio.timeout(30):
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
    finally:
        writer.close()
    return time.monotonic() - began


@contextlib.contextmanager
def memory_limit(run: Run, limit_bytes: int) -> Iterator[tuple[tuple[str, ...], Path | None]]:
    """A prefix that bounds memory, and the cgroup if there is one: of version 2, else 1, else RLIMIT_DATA."""
    for root, name in CGROUPS:
        group = Path(root) / f"faults-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            if _bounds(group, name, limit_bytes):
                run.check.note(f"memory bounded by {group / name}")
                yield ("sh", "-c", f'echo $$ >{group}/cgroup.procs && exec "$0" "$@"'), group
                return
        finally:
            with contextlib.suppress(OSError):  # one of its processes may still be ending
                group.rmdir()
    run.check.note("no memory cgroup on this machine: RLIMIT_DATA of each process instead")
    yield (find("prlimit", "util-linux"), f"--data={limit_bytes}"), None


def _bounds(group: Path, name: str, limit_bytes: int) -> bool:
    """Whether the group bounds memory and takes processes in: not where it, or its parent, lacks the controller."""
    if not (group / name).exists():
        return False
    (group / name).write_text(str(limit_bytes))
    tried = subprocess.run(["sh", "-c", f"echo $$ >{group}/cgroup.procs"], capture_output=True)
    return tried.returncode == 0


async def slow_readers(run: Run) -> None:
    """F24: 2000 clients ask for 4 MiB each and read nothing; one worker, 128 MiB for all of the proxy."""
    check = run.check
    readers = round(run.scale.pick(2000, 600))
    _raise_files()
    with memory_limit(run, 128 << 20) as (prefix, group):
        async with run.stand(workers=1, prefix=prefix, limits={"workerBufferBytes": 16 << 20}) as stand:
            (worker,) = await stand.workers()
            supervisor = stand.proxy.program.process.pid  # type: ignore[union-attr]
            await stand.adopt(stand.plan(0))
            async with stand.load(rate=50, upload_s=0, stream_s=0, sockets=0) as load:
                await asyncio.sleep(1)
                for service in stand.stable:
                    await service.behave(body_bytes=BIG_BYTES)
                load.change(paused=True)
                await asyncio.sleep(0.5)
                socks = await _ask_and_ignore(stand.proxy.port, readers)
                for service in stand.stable:
                    await service.behave(mode="ok")
                load.change(paused=False)
                try:
                    most, end = 0.0, time.monotonic() + run.scale.pick(30, 2)
                    while time.monotonic() < end:
                        most = max(most, rss_mib(worker))
                        await asyncio.sleep(0.2)
                    whole_mib, kernel = pss_mib(worker, supervisor), _socket_memory_mib()
                    whole = [await _read_whole(sock) for sock in socks[:20]]
                finally:
                    for sock in socks:
                        sock.close()
                await asyncio.sleep(1)
            run.losses(load.rows, 0, 0, only())
            check.says("slow readers", readers)
            check.at_most("RSS of the worker", most, 100, "MiB")
            check.at_most("with the supervisor, shared pages once", whole_mib, 100, "MiB")
            check.at_most("held by sockets in the kernel", kernel, readers * 2.0, "MiB")
            check.exactly("bytes of those that read in the end", sorted(set(whole)), [BIG_BYTES])
            check.exactly("restarts", (await stand.proxy.state())["workers"][0]["restarts"])
            if group is not None:
                check.exactly("OOM kills", _oom_kills(group))


def _oom_kills(group: Path) -> int:
    """Of version 2 or 1."""
    for name in ("memory.events", "memory.oom_control"):
        if (group / name).exists():
            words = (group / name).read_text().split()
            return int(words[words.index("oom_kill") + 1])
    raise FileNotFoundError(group)


def _raise_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _ask_and_ignore(port: int, count: int) -> list[socket.socket]:
    """Clients that take nothing but what their kernel does, which is as little as it lets them."""
    socks = []
    for number in range(count):
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        sock.send(b"GET / HTTP/1.1\r\nHost: shop\r\nX-Nonce: slow\r\nCookie: uid=s%d\r\n\r\n" % number)
        socks.append(sock)
        if number % 50 == 0:
            await asyncio.sleep(0.02)
    await asyncio.sleep(1)
    return socks


def _socket_memory_mib() -> float:
    """Of all TCP sockets in this network namespace."""
    words = Path("/proc/net/sockstat").read_text().split("TCP:")[1].split("\n")[0].split()
    return int(words[words.index("mem") + 1]) * resource.getpagesize() / (1 << 20)


async def _read_whole(sock: socket.socket) -> int:
    """Take the answer after all; returns the bytes of its body."""
    reader, writer = await asyncio.open_connection(sock=sock.dup())
    try:
        async with asyncio.timeout(20):
            await reader.readuntil(b"\r\n\r\n")
            return len(await reader.readexactly(BIG_BYTES))
    except (asyncio.IncompleteReadError, OSError, TimeoutError) as error:
        return len(error.partial) if isinstance(error, asyncio.IncompleteReadError) else -1
    finally:
        writer.close()


async def busy_core(run: Run) -> None:
    """F25: proxy and a spinning program pinned to the same core."""
    check = run.check
    core = str(min(os.sched_getaffinity(0)))
    async with run.stand(prefix=("taskset", "-c", core), timeouts={"responseHead": "5s"}) as stand:
        spinner = await asyncio.create_subprocess_exec("taskset", "-c", core, "sh", "-c", "while :; do :; done")
        try:
            most, slowest = 0.0, 0.0
            async with stand.load(rate=run.scale.pick(150, 50)) as load:
                end = time.monotonic() + run.scale.pick(100, 3)
                while time.monotonic() < end:
                    began = time.monotonic()
                    most = max(most, await stand.metric("cohort_ejected_endpoints"))
                    slowest = max(slowest, await _healthz(stand))
                    await asyncio.sleep(max(0.0, began + 0.5 - time.monotonic()))
        finally:
            spinner.kill()
            await spinner.wait()
    lost = failures(load.rows)
    check.says("requests", len(load.rows))
    check.exactly("lost", len(lost))
    check.exactly("endpoints ejected", int(most))
    check.at_most("health within", slowest, 1, "s")
    for row in lost[:3]:
        check.note(str(row))


async def _healthz(stand: Stand) -> float:
    began = time.monotonic()
    await stand.proxy.get("/healthz")
    return time.monotonic() - began


async def connection_storm(run: Run) -> None:
    """F26: 5000 connects at once, which then stay idle; a worker takes 2000 clients, and there are two."""
    check = run.check
    count, cap, workers = round(run.scale.pick(5000, 3000)), round(run.scale.pick(2000, 1000)), 2
    _raise_files()
    async with run.stand(limits={"connections": cap}, workers=workers) as stand:
        async with stand.load(new_share=0.0) as load:
            await asyncio.sleep(1)
            began = time.monotonic()
            socks = await _storm(stand.proxy.port, count)
            try:
                await asyncio.sleep(run.scale.pick(20, 3))
                accepted = await stand.metric("cohort_downstream_connections")
                refused = await stand.metric("cohort_downstream_rejected_total", cause="connections")
            finally:
                for sock in socks:
                    sock.close()
            ended = time.monotonic()
            fresh_s = await _until_answered(stand.proxy.port)
            await asyncio.sleep(1)
        run.losses(load.rows, 0, 0, only())
        during = short(between(load.rows, began, ended))
        check.says("connects at once", count)
        check.at_most("accepted", accepted, cap * workers)
        check.at_least("limits reached and counted", refused, 1)
        check.at_most("victims' p99", p99(during), 1, "s")
        check.at_most("new clients are served again after", fresh_s, 2, "s")


async def _storm(port: int, count: int) -> list[socket.socket]:
    socks = []
    for _ in range(count):
        sock = socket.socket()
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect(("127.0.0.1", port))
        socks.append(sock)
    await asyncio.sleep(0)
    return socks


FAULTS = {
    "F19": Fault(
        "state directory full, logs to /dev/full",
        "the old plan stays on disk and in force, lines are dropped and counted, no traceback loop; 0 lost",
        full_disk,
    ),
    "F20": Fault("reader of the log stopped", "nobody waits for it; dropped lines are counted; 0 lost", stuck_reader),
    "F21": Fault(
        "wall clock jumps by an hour and by a day",
        "0 lost, nobody changes version, no deadline reckoned from the wall clock",
        jumping_clock,
    ),
    "F22": Fault("proxy SIGSTOP for 5 s, then SIGCONT", "no error later than 1 s after it goes on", suspended),
    "F23": Fault(
        "ulimit -n 256", "accepting pauses without spinning; clients there are served; recovers", few_descriptors
    ),
    "F24": Fault("128 MiB of memory, 2000 slow readers", "back-pressure; RSS below 100 MiB, no OOM kill", slow_readers),
    "F25": Fault("proxy on a busy core", "no endpoint ejected for our own slowness; health within 1 s", busy_core),
    "F26": Fault(
        "5000 connects at once, then idle", "accepted up to the cap; victims' p99 below 1 s", connection_storm
    ),
}
