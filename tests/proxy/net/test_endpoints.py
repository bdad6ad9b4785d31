"""Endpoints that fail, arms that are down, and limits: the data plane in this process, services behind it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from proxy.document import validate
from proxy.errors import UpstreamError
from proxy.net.pool import Endpoint
from proxy.net.upstream import Upstream
from proxy.plan import Plan
from tests.support.dataplane import REPLY, Handler, Proxy, Service, plan, replies, series, service, until

GET = b"GET /a HTTP/1.1\r\nHost: t\r\nCookie: uid=1\r\nX-Cohort-Explain: 1\r\nConnection: close\r\n\r\n"
POST = b"POST /a HTTP/1.1\r\nHost: t\r\nCookie: uid=1\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"


@pytest.fixture
def bound() -> Iterator[socket.socket]:
    """A socket that has a port but does not listen yet."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        yield found


@pytest.fixture
def dead(bound: socket.socket) -> int:
    """A port that refuses."""
    return int(bound.getsockname()[1])


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that never answers a SYN: its queue is full."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                filler.connect(full.getsockname())
        yield full.getsockname()[1]


class Gate:
    """A service that reads heads and answers when told."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    def __call__(self, running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await running.read_head(reader)
                await self.opened.wait()
                writer.write(REPLY)

        return serve


@contextlib.asynccontextmanager
async def asked(proxy: Proxy, request: bytes, times: int = 1) -> AsyncIterator[list[asyncio.Task[bytes]]]:
    """Requests under way, each on a connection of its own; their answers are awaited at the end."""
    tasks = [asyncio.create_task(proxy.ask(request)) for _ in range(times)]
    yield tasks
    await asyncio.gather(*tasks)


async def ask(proxy: Proxy, request: bytes, times: int) -> list[bytes]:
    """Status codes, one request after the other."""
    return [(await proxy.ask(request))[9:12] for _ in range(times)]


async def test_an_endpoint_that_refuses_is_left_out_at_once(dead: int) -> None:
    """F01: after the first refused connection nobody else meets it; any method goes elsewhere."""
    async with service(replies(REPLY)) as (_, port), Proxy({"endpoints": {"ejection": "60s"}}) as proxy:
        proxy.adopt(plan([dead, port], []))
        assert await ask(proxy, POST, 30) == [b"200"] * 30
        assert series(proxy, "upstream_failures") == {("stable", "connect"): 1}
        assert series(proxy, "retries") == {("stable",): 1}
        await until(lambda: series(proxy, "ejected").get(("stable",)) == 1)


async def test_an_endpoint_is_probed_and_comes_back(bound: socket.socket, dead: int) -> None:
    """Rejoining costs no request: the connection is tried beside them."""
    async with service(replies(REPLY)) as (_, port), Proxy({"endpoints": {"ejection": "100ms"}}) as proxy:
        proxy.adopt(plan([dead, port], []))
        while not series(proxy, "retries"):
            await proxy.ask(GET)
        await until(lambda: series(proxy, "ejected").get(("stable",)) == 1)
        back = await asyncio.start_server(answer_all, sock=bound)
        async with back:
            found = proxy.server._endpoints[("127.0.0.1", dead, None, False)]
            await until(lambda: not found.standing.is_out)
            found.since = -100.0  # its slow start is over
            while found.standing.failures:
                assert await ask(proxy, GET, 1) == [b"200"]
            assert series(proxy, "upstream_failures") == {("stable", "connect"): 1}
            await until(lambda: not any(series(proxy, "ejected").values()))


async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(REPLY)
    writer.close()


async def test_one_that_never_answers_is_ejected_after_a_row_of_time_outs() -> None:
    """F02: and a try that took too long is repeated elsewhere within the total time."""
    settings = {"timeouts": {"perTry": "300ms", "responseHead": "10s"}, "endpoints": {"failures": 3, "ejection": "60s"}}
    hung = Gate()
    async with service(hung) as (_, slow), service(replies(REPLY)) as (_, port), Proxy(settings) as proxy:
        proxy.adopt(plan([slow, port], []))
        found = proxy.server._endpoints[("127.0.0.1", slow, None, False)]
        while not found.standing.is_out:
            async with asked(proxy, GET, 4) as answers:
                pass
            assert all(task.result().startswith(b"HTTP/1.1 200 ") for task in answers)
        assert series(proxy, "upstream_failures").get(("stable", "timeout"), 0) == 0
        assert await ask(proxy, GET, 10) == [b"200"] * 10
        await until(lambda: series(proxy, "ejected").get(("stable",)) == 1)
        hung.opened.set()


async def test_the_total_time_holds_over_all_tries() -> None:
    """`timeouts.responseHead` is the client's wait, however often is tried."""
    settings = {"timeouts": {"perTry": "500ms", "responseHead": "2s"}}
    hung = Gate()
    async with service(hung) as (backend, slow), Proxy(settings) as proxy:
        proxy.adopt(plan([slow], []))
        began = asyncio.get_running_loop().time()
        assert await ask(proxy, GET, 1) == [b"504"]
        assert asyncio.get_running_loop().time() - began < 5
        assert len(backend.heads) == 2
        assert await ask(proxy, POST, 1) == [b"504"]
        assert len(backend.heads) == 3
        hung.opened.set()


async def test_an_answer_of_whatever_status_ejects_nobody() -> None:
    """An endpoint is judged by whether it answers: a 500 is evidence about the version."""
    broken = b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n"
    async with (
        service(replies(broken)) as (bad, one),
        service(replies(REPLY)) as (_, two),
        Proxy({"endpoints": {"failures": 1, "slowStart": "0s"}}) as proxy,
    ):
        proxy.adopt(plan([one, two], []))
        await ask(proxy, GET, 40)
        assert len(bad.heads) > 5
        await asyncio.sleep(0.3)
        assert not any(series(proxy, "ejected").values())


async def test_closing_idle_connections_is_no_failure() -> None:
    """A service may close what is idle at any time (RFC 9112 section 9.5)."""

    def once(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            writer.write(REPLY)
            await running.read_head(reader)  # closes instead of answering

        return serve

    async with service(once) as (_, port), Proxy({"endpoints": {"failures": 1}}) as proxy:
        proxy.adopt(plan([port], []))
        assert await ask(proxy, GET, 6) == [b"200"] * 6
        assert not proxy.server._endpoints[("127.0.0.1", port, None, False)].standing.failures


async def test_users_of_an_arm_that_is_down_get_stable(dead: int) -> None:
    """`onArmDown: Stable`: the failure counts against the canary all the same, with its user."""
    async with service(replies(REPLY)) as (old, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], [dead], 10_000))
        got = await proxy.ask(GET)
        assert got.startswith(b"HTTP/1.1 200 ")
        assert b"X-Cohort-Arm: stable\r\n" in got
        assert b"X-Cohort-Reason: fallback\r\n" in got
        assert (await proxy.ask(POST)).startswith(b"HTTP/1.1 200 ")
        assert b"X-Cohort-Reason: fallback\r\n" in old.heads[1]
        counted = series(proxy, "requests")
        assert counted == {
            ("canary", "split", "user", "502", "failed"): 2,
            ("stable", "fallback", "forced", "200", "ok"): 2,
        }
        assert series(proxy, "upstream_failures") == {("canary", "connect"): 2}


async def test_an_arm_without_endpoints_is_down() -> None:
    async with service(replies(REPLY)) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], [], 10_000))
        assert b"X-Cohort-Reason: fallback\r\n" in await proxy.ask(GET)
        assert ("canary", "split", "user", "503", "failed") in series(proxy, "requests")


async def test_an_error_instead_of_stable_if_the_plan_says_so(dead: int) -> None:
    """`onArmDown: Error`."""
    async with service(replies(REPLY)) as (old, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], [dead], 10_000, onArmDown="Error"))
        assert await ask(proxy, GET, 1) == [b"502"]
        assert not old.connections


async def test_a_silent_endpoint_costs_one_request_its_connect_time(silent: int) -> None:
    """F05: the next ones go elsewhere at once; with nothing else they are told at once."""
    settings: dict[str, Any] = {"timeouts": {"connect": "300ms"}, "endpoints": {"ejection": "60s"}}
    async with service(replies(REPLY)) as (_, port), Proxy(settings) as proxy:
        proxy.adopt(plan([port], [silent], 10_000))
        for _ in range(5):
            assert b"X-Cohort-Reason: fallback\r\n" in await proxy.ask(GET)
        counted = series(proxy, "requests")
        assert counted[("canary", "split", "user", "504", "failed")] == 1
        assert counted[("canary", "split", "user", "503", "failed")] == 4


async def test_requests_above_the_limit_wait_for_room() -> None:
    """`limits.armRequests`: the service never sees more at once."""
    gate = Gate()
    async with service(gate) as (backend, port), Proxy({"limits": {"armRequests": 2}}) as proxy:
        proxy.adopt(plan([port], []))
        async with asked(proxy, GET, 6) as answers:
            await until(lambda: len(proxy.server._rooms[("stable", False)].waiting) == 4)
            assert len(backend.heads) == 2
            gate.opened.set()
        assert all(task.result().startswith(b"HTTP/1.1 200 ") for task in answers)
        assert proxy.server._rooms[("stable", False)].busy == 0


async def test_a_request_that_finds_no_place_to_wait_is_503_at_once() -> None:
    """`limits.armPending`; the other arm does not notice."""
    gate = Gate()
    limits = {"armRequests": 1, "armPending": 1}
    async with service(gate) as (_, slow), service(replies(REPLY)) as (_, port), Proxy({"limits": limits}) as proxy:
        proxy.adopt(plan([port], [slow], 10_000))
        async with asked(proxy, GET, 2):
            await until(lambda: proxy.server._rooms[("canary", False)].is_full)
            got = await proxy.ask(GET)
            assert got.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 1\r\n" in got
            assert series(proxy, "upstream_failures") == {("canary", "overflow"): 1}
            assert await ask(proxy, GET.replace(b"Cookie: uid=1\r\n", b""), 5) == [b"200"] * 5
            gate.opened.set()


async def test_waiting_for_room_takes_no_longer_than_connecting() -> None:
    gate = Gate()
    settings = {"limits": {"armRequests": 1}, "timeouts": {"connect": "300ms"}}
    async with service(gate) as (_, port), Proxy(settings) as proxy:
        proxy.adopt(plan([port], []))
        async with asked(proxy, GET) as first:
            await until(lambda: proxy.server._rooms[("stable", False)].busy == 1)
            assert await ask(proxy, POST, 1) == [b"503"]
            assert not proxy.server._rooms[("stable", False)].waiting
            gate.opened.set()
        assert first[0].result().startswith(b"HTTP/1.1 200 ")


async def test_a_client_that_leaves_while_it_waits_takes_up_no_room() -> None:
    gate = Gate()
    async with service(gate) as (backend, port), Proxy({"limits": {"armRequests": 1}}) as proxy:
        proxy.adopt(plan([port], []))
        async with asked(proxy, GET):
            await until(lambda: proxy.server._rooms[("stable", False)].busy == 1)
            _, writer = await proxy.open()
            writer.write(GET)
            await until(lambda: bool(proxy.server._rooms[("stable", False)].waiting))
            writer.close()
            await until(lambda: not proxy.server._rooms[("stable", False)].waiting)
            gate.opened.set()
        assert len(backend.heads) == 1


async def test_one_who_waits_for_the_canary_when_it_is_aborted_gets_stable() -> None:
    """F34: no request starts on the canary after the abort, whatever it was waiting for."""
    gate = Gate()
    async with (
        service(gate) as (new, slow),
        service(replies(REPLY)) as (_, port),
        Proxy({"limits": {"armRequests": 1}}) as proxy,
    ):
        proxy.adopt(plan([port], [slow], 10_000))
        async with asked(proxy, GET, 2) as answers:
            await until(lambda: bool(proxy.server._rooms[("canary", False)].waiting))
            proxy.words.latch = 1
            gate.opened.set()
        assert sorted(b"X-Cohort-Reason: abort\r\n" in task.result() for task in answers) == [False, True]
        assert len(new.heads) == 1


async def test_a_connection_that_is_made_after_the_abort_carries_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """F34: connecting may take as long as a second."""
    going = asyncio.Event()
    async with service(replies(REPLY)) as (new, canary), service(replies(REPLY)) as (_, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], [canary], 10_000))
        connect = proxy.server._open

        async def slowly(endpoint: Endpoint) -> Upstream:
            connection = await connect(endpoint)
            if endpoint.port == canary:
                proxy.words.latch = 1
                going.set()
            return connection

        monkeypatch.setattr(proxy.server, "_open", slowly)
        got = await proxy.ask(GET)
        assert going.is_set()
        assert b"X-Cohort-Reason: abort\r\n" in got
        assert not new.heads


async def test_new_connections_come_no_faster_than_allowed() -> None:
    """F37: `limits.armConnectsPerSecond`, however many clients come at once; here 8 a second, two each quarter."""
    gate = Gate()
    settings = {"limits": {"armConnectsPerSecond": 8}, "timeouts": {"connect": "20s"}}
    async with service(gate) as (backend, port), Proxy(settings) as proxy:
        proxy.adopt(plan([port], []))
        began = asyncio.get_running_loop().time()
        async with asked(proxy, GET, 8) as answers:
            await until(lambda: backend.connections == 8)
            assert asyncio.get_running_loop().time() - began > 0.5
            gate.opened.set()
        assert all(task.result().startswith(b"HTTP/1.1 200 ") for task in answers)


async def test_a_free_connection_is_used_before_a_new_one_is_allowed() -> None:
    gate = Gate()
    settings = {"limits": {"armConnectsPerSecond": 4}, "timeouts": {"connect": "20s"}}
    async with service(gate) as (backend, port), Proxy(settings) as proxy:
        proxy.adopt(plan([port], []))
        gate.opened.set()
        async with asked(proxy, GET, 20):
            pass
        assert backend.connections < 20


async def test_retries_are_a_tenth_of_the_requests_at_most() -> None:
    """F36, contract item 15: 10 % within the window, ten of them however quiet it is."""

    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    def closing(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)

        return serve

    async with service(closing) as (backend, port), Proxy({}) as proxy:
        proxy.adopt(plan([port], []))
        assert await ask(proxy, GET, 300) == [b"502"] * 300
        assert 310 <= len(backend.heads) <= 331


async def test_the_window_of_the_budget_forgets() -> None:
    async with Proxy({}) as proxy:
        server = proxy.server
        server._requests, server._retries = 50, 10
        assert not server.may_retry
        for second in range(12):
            server._turn_window(1e9 + 2 * second)
        assert (server._requests, server._retries) == (0, 0)
        assert server.may_retry


async def test_time_outs_of_a_loop_that_stood_still_are_nobodys_fault() -> None:
    """F22, F25: no endpoint is ejected for our own slowness."""
    async with service(replies(REPLY)) as (_, port), Proxy({"endpoints": {"failures": 1}}) as proxy:
        proxy.adopt(plan([port], []))
        await proxy.ask(GET)
        found = proxy.server._endpoints[("127.0.0.1", port, None, False)]
        proxy.server._slept(asyncio.get_running_loop().time())
        proxy.server.endpoint_failed(found, UpstreamError("timeout", "no answer in time", 504))
        assert not found.standing.failures
        proxy.server._judges_from = 0.0
        proxy.server.endpoint_failed(found, UpstreamError("timeout", "no answer in time", 504))
        assert found.standing.failures == 1


async def test_an_answer_that_came_while_the_loop_stood_still_is_not_late() -> None:
    """It is in the kernel, but a loop looks at its timers first."""

    def answering(running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await running.read_head(reader)
            writer.write(REPLY)
            time.sleep(1.5)  # the loop is to stand still

        return serve

    async with service(answering) as (_, port), Proxy({"timeouts": {"responseHead": "400ms"}}) as proxy:
        proxy.adopt(plan([port], []))
        assert (await proxy.ask(GET)).startswith(b"HTTP/1.1 200 ")


async def test_a_connection_made_while_the_loop_stood_still_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same; and its endpoint is not left out."""
    async with service(replies(REPLY)) as (_, port), Proxy({"timeouts": {"connect": "300ms"}}) as proxy:
        proxy.adopt(plan([port], []))
        connect = proxy.server.loop.create_connection

        def slowly(*arguments: Any) -> Any:
            proxy.server.loop.call_soon(time.sleep, 1.5)
            return connect(*arguments)

        monkeypatch.setattr(proxy.server, "loop", Standing(proxy.server.loop, slowly))
        assert (await proxy.ask(GET)).startswith(b"HTTP/1.1 200 ")
        assert not any(endpoint.standing.is_out for endpoint in proxy.server._endpoints.values())


async def test_a_connection_that_is_not_there_after_all_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once more the connect time-out, and no more."""
    async with Proxy({"timeouts": {"connect": "300ms"}}) as proxy:
        proxy.adopt(plan([1], []))

        async def never(*_: Any) -> None:
            proxy.server.loop.call_soon(time.sleep, 1.5)
            await asyncio.Event().wait()

        monkeypatch.setattr(proxy.server, "loop", Standing(proxy.server.loop, never))
        assert (await proxy.ask(GET)).startswith(b"HTTP/1.1 504 ")


class Standing:
    """A loop that makes connections in another way."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connect: Callable[..., Any]) -> None:
        self._loop = loop
        self.create_connection = connect

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


async def test_an_address_that_comes_back_by_a_plan_is_used_at_once(bound: socket.socket, dead: int) -> None:
    """F10: recovery within 200 ms of the event; nothing of its bad past is kept."""
    async with Proxy({"endpoints": {"ejection": "60s"}}) as proxy:
        proxy.adopt(plan([dead], []))
        assert await ask(proxy, GET, 2) == [b"502", b"502"]
        proxy.adopt(plan([], []))
        assert await ask(proxy, GET, 1) == [b"503"]
        back = await asyncio.start_server(answer_all, sock=bound)
        async with back:
            proxy.adopt(plan([dead], []))
            assert await ask(proxy, GET, 2) == [b"200", b"200"]


def test_stable_takes_over_unless_a_plan_says_otherwise() -> None:
    assert plan([1], []).on_arm_down == "Stable"
    assert validate(Plan, plan([1], [], onArmDown="Error").model_dump(by_alias=True)).on_arm_down == "Error"
