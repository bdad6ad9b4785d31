"""The whole proxy as real processes: what users, operators and machines do to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from proxy.plan import Plan, RolloutRef
from tests.support.dataplane import plan as plan_for
from tests.support.dataplane import replies, service
from tests.support.supervised import ProxyProcess, proxy_process, until, write_plan

pytestmark = pytest.mark.integration

STABLE = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstable"
CANARY = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ncanary"


@pytest.fixture
async def ports() -> AsyncIterator[tuple[int, int]]:
    """Two versions of a service."""
    async with service(replies(STABLE)) as (_, stable), service(replies(CANARY)) as (_, canary):
        yield stable, canary


def plan(ports: tuple[int, int], generation: int = 1, canary_bp: int = 10_000, lifts: tuple[str, ...] = ()) -> Plan:
    return plan_for([ports[0]], [ports[1]], canary_bp, generation=generation, lifts=list(lifts))


class Load:
    """Clients that ask one after the other, each on one connection.

    Attributes:
        answers: When each request was sent, and its answer.
    """

    def __init__(self, port: int, clients: int) -> None:
        self.answers: list[tuple[float, bytes]] = []
        self.is_over = False
        self._tasks = [asyncio.create_task(self._run(port, number)) for number in range(clients)]

    async def _run(self, port: int, user: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while not self.is_over:
            sent = time.monotonic()
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nCookie: uid=%d\r\n\r\n" % user)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            self.answers.append((sent, await reader.readexactly(6)))
        writer.close()

    async def end(self) -> None:
        """Raises what a client met."""
        self.is_over = True
        async with asyncio.timeout(30):
            await asyncio.gather(*self._tasks)


async def kill_workers(proxy: ProxyProcess, number: signal.Signals, count: int) -> list[int]:
    pids = [worker["pid"] for worker in (await proxy.state())["workers"]][:count]
    for pid in pids:
        os.kill(pid, number)
    return pids


async def until_replaced(proxy: ProxyProcess, pids: list[int]) -> None:
    async def replaced() -> bool:
        workers = (await proxy.state())["workers"]
        return all(worker["plan"] and worker["pid"] not in pids for worker in workers)

    await until(replaced)


async def test_a_plan_is_acknowledged_by_every_worker_before_put_answers(
    tmp_path: Path, ports: tuple[int, int]
) -> None:
    """design.md, the pieces, 1: staged by all, then flipped by one word. Without a plan: 503, not ready (F39)."""
    async with proxy_process(tmp_path, workers=2) as proxy:
        assert (await proxy.ask("GET", "/ready")).status == 503
        assert (await proxy.ask("GET", "/plan")).fields["etag"] == '"none"'
        answer = await proxy.put(plan(ports), '"none"')
        assert answer.status == 200
        state = await proxy.state()
        assert [worker["plan"] for worker in state["workers"]] == [1, 1]
        assert state["plan"]["etag"] == answer.fields["etag"]
        await proxy.until_ready()
        assert {(await proxy.get()).body for _ in range(8)} == {b"canary"}


async def test_concurrent_puts_leave_one_winner(tmp_path: Path, ports: tuple[int, int]) -> None:
    """C5: a lost update is told by 412, and all workers agree on the winner."""
    async with proxy_process(tmp_path, plan(ports), workers=2) as proxy:
        etag = (await proxy.until_ready())["plan"]["etag"]
        offers = [plan(ports, generation, generation) for generation in range(2, 8)]
        answers = await asyncio.gather(*(proxy.put(offer, etag) for offer in offers))
        assert sorted(answer.status for answer in answers) == [200] + [412] * 5
        state = await proxy.state()
        assert [worker["plan"] for worker in state["workers"]] == [state["plan"]["generation"]] * 2
        winner = next(offer for offer in offers if offer.generation == state["plan"]["generation"])
        assert (await proxy.put(winner, etag)).status == 200


async def test_a_killed_worker_is_replaced_and_loses_no_count(tmp_path: Path, ports: tuple[int, int]) -> None:
    """F30: restarted within a second; its slot's counters and queue go to the next one."""
    async with proxy_process(tmp_path, plan(ports)) as proxy:
        await proxy.until_ready()
        for _ in range(5):
            await proxy.get()
        pids = await kill_workers(proxy, signal.SIGKILL, 1)
        assert (await proxy.get()).body == b"canary"  # queued on the socket that outlived the worker
        await until_replaced(proxy, pids)
        assert sum((await proxy.metric("cohort_requests_total")).values()) == 6
        assert (await proxy.state())["workers"][0]["restarts"] == 1
        assert (await proxy.metric("cohort_users"))['{arm="canary",rollout="shop/checkout"}'] == 1


async def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path: Path, ports: tuple[int, int]) -> None:
    """design.md, the pieces, 1: silent for 2 s; a plan that comes meanwhile is not held up for ever."""
    async with proxy_process(tmp_path, plan(ports), workers=2) as proxy:
        await proxy.until_ready()
        pids = await kill_workers(proxy, signal.SIGSTOP, 1)
        assert (await proxy.put(plan(ports, 2))).status == 200
        await until_replaced(proxy, pids)
        state = await proxy.state()
        assert [worker["plan"] for worker in state["workers"]] == [2, 2]
        assert [worker["restarts"] for worker in state["workers"]] == [1, 0]


async def test_a_worker_that_only_waits_for_a_processor_is_left_alone(tmp_path: Path, ports: tuple[int, int]) -> None:
    """F15 on a machine that does other things: the next worker would have to wait as well, and connections be lost."""
    async with proxy_process(tmp_path, plan(ports)) as proxy:
        [worker] = (await proxy.until_ready())["workers"]
        processor = {min(os.sched_getaffinity(0))}
        for thread in os.listdir(f"/proc/{worker['pid']}/task"):
            os.sched_setscheduler(int(thread), os.SCHED_IDLE, os.sched_param(0))
            os.sched_setaffinity(int(thread), processor)
        with busy(processor, 3):
            for _ in range(60):
                await asyncio.sleep(0.1)
                [found] = (await proxy.state())["workers"]
                if found["heartbeatAgeS"] > 2.3:
                    break
        await asyncio.sleep(0.5)
        [after] = (await proxy.state())["workers"]
        assert (after["pid"], after["restarts"]) == (worker["pid"], 0)
        assert (await proxy.get()).status == 200


@contextlib.contextmanager
def busy(processors: set[int], count: int) -> Iterator[None]:
    """So many processes that always have something to do."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            hog = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(hog.kill)
            os.sched_setaffinity(hog.pid, processors)
        yield


async def test_a_stopped_proxy_finds_its_workers_alive(tmp_path: Path, ports: tuple[int, int]) -> None:
    """F22: the supervisor's clock stands still with it, so nobody is killed for a pause of the machine."""
    async with proxy_process(tmp_path, plan(ports)) as proxy:
        [worker] = (await proxy.until_ready())["workers"]
        for pid in (worker["pid"], proxy.process.pid):
            os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(2.5)
        os.kill(proxy.process.pid, signal.SIGCONT)
        await asyncio.sleep(0.5)
        os.kill(worker["pid"], signal.SIGCONT)
        await asyncio.sleep(0.5)
        assert (await proxy.state())["workers"][0]["pid"] == worker["pid"]


async def test_every_worker_dying_while_a_plan_is_staged_keeps_the_plan_in_force(
    tmp_path: Path, ports: tuple[int, int]
) -> None:
    """The answer comes, and a plan that may have killed them all is not kept."""
    async with proxy_process(tmp_path, plan(ports)) as proxy:
        await proxy.until_ready()
        pids = await kill_workers(proxy, signal.SIGSTOP, 1)
        answer = await proxy.put(plan(ports, 2))
        assert (answer.status, "try again" in answer.json["error"]) == (503, True)
        await until_replaced(proxy, pids)
        assert (await proxy.state())["plan"]["generation"] == 1
        assert (await proxy.put(plan(ports, 2))).status == 200


async def test_an_abort_outlives_restarts_and_every_plan_that_does_not_lift_it(
    tmp_path: Path, ports: tuple[int, int]
) -> None:
    """design.md, the pieces, 5, and F34: on disk before the answer; only a plan that names it ends it."""
    async with proxy_process(tmp_path, plan(ports)) as proxy:
        await proxy.until_ready()
        assert (await proxy.get()).body == b"canary"
        answer = await proxy.abort(reason="it burns")
        latch = answer.json
        assert (await proxy.get()).body == b"stable"
        assert (latch["revision"], latch["by"], latch["reason"]) == ("v2", "anna", "it burns")
        assert (await proxy.abort(by="ben")).json == latch
        await proxy.kill()
        await proxy.start()
        await proxy.until_ready()
        answer = await proxy.get()
        assert (answer.body, answer.fields["x-cohort-reason"]) == (b"stable", "abort")
        assert (await proxy.put(plan(ports, 2))).status == 200
        assert (await proxy.put(plan(ports, 1))).status == 409
        assert (await proxy.state())["latch"] == latch
        assert (await proxy.get()).body == b"stable"
        assert (await proxy.put(plan(ports, 3, lifts=(latch["id"],)))).status == 200
        assert (await proxy.state())["latch"] is None
        assert (await proxy.get()).body == b"canary"
        assert (await proxy.abort(id=latch["id"])).status == 409
        assert not (tmp_path / "state" / "latch.json").exists()


async def test_a_bad_plan_file_is_refused_whole_and_counted_and_the_last_good_one_stays(
    tmp_path: Path, ports: tuple[int, int]
) -> None:
    """F17, while running and at a restart, where the last good plan is the one on disk."""
    async with proxy_process(tmp_path, plan(ports)) as proxy:
        await proxy.until_ready()
        write_plan(tmp_path, "generation: 2\nroutes: 7\n")

        async def refused() -> bool:
            samples = await proxy.metric("cohort_plan_rejected_total")
            return samples['{reason="invalid",rollout="shop/checkout"}'] == 1

        await until(refused)
        assert "rollout: required field is missing" in proxy.log
        assert (await proxy.state())["plan"]["generation"] == 1
        await proxy.stop()
        await proxy.start()
        assert (await proxy.until_ready())["plan"]["generation"] == 1
        write_plan(tmp_path, plan(ports, 2, 0))

        async def adopted() -> bool:
            return bool((await proxy.state())["plan"]["generation"] == 2)

        await until(adopted)
        assert (await proxy.get()).body == b"stable"


async def test_a_start_with_the_initial_plan_alone_is_not_ready_until_a_live_one_comes(
    tmp_path: Path, ports: tuple[int, int]
) -> None:
    """Whoever asks is served all the same: from stable, as that plan says."""
    (tmp_path / "initial.yaml").write_text(plan(ports, 1, 0).model_dump_json(by_alias=True))
    changes = {"planFile": None, "initialPlan": "initial.yaml", "initialPlanWait": "5m"}
    async with proxy_process(tmp_path, None, **changes) as proxy:
        await until_known(proxy)
        answer = await proxy.ask("GET", "/ready")
        assert (answer.status, answer.json["reason"]) == (503, "there is the initial plan alone yet")
        assert (await proxy.get()).body == b"stable"
        live = plan(ports).model_copy(update={"rollout": RolloutRef(name="checkout", uid="live")})
        assert (await proxy.put(live)).status == 200
        assert (await proxy.ask("GET", "/ready")).status == 200


async def until_known(proxy: ProxyProcess) -> None:
    """Wait until every worker has a plan."""

    async def known() -> bool:
        workers = (await proxy.state())["workers"]
        return bool(workers) and all(worker["plan"] for worker in workers)

    await until(known)


async def test_the_newer_of_plan_file_and_last_good_plan_wins_at_a_start(
    tmp_path: Path, ports: tuple[int, int]
) -> None:
    """surface.md, Plan; an older file is refused, and says so."""
    async with proxy_process(tmp_path, plan(ports)) as proxy:
        await proxy.until_ready()
        assert (await proxy.put(plan(ports, 5))).status == 200
        await proxy.stop()
        await proxy.start()
        assert (await proxy.until_ready())["plan"]["generation"] == 5
        assert "older than the plan in force" in proxy.log
        await proxy.stop()
        write_plan(tmp_path, plan(ports, 6))
        await proxy.start()
        assert (await proxy.until_ready())["plan"]["generation"] == 6


async def test_a_swapped_symbolic_link_is_noticed(tmp_path: Path, ports: tuple[int, int]) -> None:
    """F17: a ConfigMap is a link to a folder that is swapped."""
    for generation in (1, 2):
        folder = tmp_path / f"data{generation}"
        folder.mkdir()
        write_plan(folder, plan(ports, generation))
    (tmp_path / "data").symlink_to("data1")
    async with proxy_process(tmp_path, planFile="data/plan.yaml") as proxy:
        assert (await proxy.until_ready())["plan"]["generation"] == 1
        (tmp_path / "new").symlink_to("data2")
        os.rename(tmp_path / "new", tmp_path / "data")

        async def adopted() -> bool:
            return bool((await proxy.state())["plan"]["generation"] == 2)

        await until(adopted)


async def test_sigterm_finishes_what_is_under_way_and_ends_with_zero(tmp_path: Path, ports: tuple[int, int]) -> None:
    """B7, F27: not ready at once, the answer under way is whole; a second SIGTERM changes nothing."""
    async with proxy_process(tmp_path, plan(ports), timeouts={"lameDuck": "1s", "drain": "5s"}) as proxy:
        state = await proxy.until_ready()
        pid = state["workers"][0]["pid"]
        for _ in range(2):
            proxy.process.send_signal(signal.SIGTERM)

        async def leaving() -> bool:
            return bool((await proxy.state())["draining"])

        await until(leaving)
        assert (await proxy.ask("GET", "/ready")).json == {"ready": False, "reason": "the proxy is leaving"}
        answer = await proxy.get()
        assert (answer.body, answer.fields["connection"]) == (b"canary", "close")
        assert await proxy.stop() == 0
        assert not Path(f"/proc/{pid}").exists()
        assert not (tmp_path / "admin.sock").exists()


async def test_a_worker_that_dies_while_leaving_is_not_replaced(tmp_path: Path, ports: tuple[int, int]) -> None:
    """The proxy ends sooner then, and in order."""
    async with proxy_process(tmp_path, plan(ports), timeouts={"lameDuck": "20s"}) as proxy:
        await proxy.until_ready()
        assert (await proxy.ask("POST", "/drain", {"by": "anna"})).status == 202
        await kill_workers(proxy, signal.SIGKILL, 1)
        async with asyncio.timeout(18):
            assert await proxy.process.wait() == 0


async def test_workers_end_with_their_supervisor_and_the_port_is_free_again(
    tmp_path: Path, ports: tuple[int, int], free_port: object
) -> None:
    """A worker that no abort can reach must not serve on; the next start takes the same port."""
    assert callable(free_port)
    address = f"127.0.0.1:{free_port()}"
    async with proxy_process(tmp_path, plan(ports), listeners=[{"address": address}]) as proxy:
        await proxy.until_ready()
        await proxy.kill()
        await proxy.start()
        await proxy.until_ready()
        assert (await proxy.get()).body == b"canary"


async def test_plans_change_under_load_without_a_failed_request_and_an_abort_ends_the_canary(
    tmp_path: Path, ports: tuple[int, int]
) -> None:
    """F18, F28, F34: no request is lost, every request is counted, and none starts on the canary after the abort."""
    async with proxy_process(tmp_path, plan(ports), workers=2) as proxy:
        state = await proxy.until_ready()
        load = Load(int(state["listeners"][0].rpartition(":")[2]), 8)
        for generation in range(2, 102):
            assert (await proxy.put(plan(ports, generation, generation * 97 % 10_001))).status == 200
        assert (await proxy.put(plan(ports, 200))).status == 200
        assert (await proxy.abort()).status == 200
        aborted = time.monotonic()
        await asyncio.sleep(0.2)
        await load.end()
        late = {body for sent, body in load.answers if sent > aborted}
        assert late == {b"stable"}
        assert {body for _, body in load.answers} == {b"stable", b"canary"}
        assert sum((await proxy.metric("cohort_requests_total")).values()) == len(load.answers)
        assert (await proxy.state())["latch"] is not None


async def test_the_log_level_reaches_the_workers(tmp_path: Path, ports: tuple[int, int]) -> None:
    """POST /log-level, no restart."""
    async with proxy_process(tmp_path, plan(ports)) as proxy:
        await proxy.until_ready()
        assert (await proxy.ask("POST", "/log-level", {"level": "debug"})).json == {"level": "debug"}
        assert (await proxy.ask("POST", "/log-level", {"level": "loud"})).status == 422
