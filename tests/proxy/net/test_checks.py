"""Active checks: the real probe against scripted services, and the schedule against a scripted probe."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.health import Health
from proxy.net import checks
from proxy.net.checks import Checks, HttpProbe, Target
from proxy.net.credentials import Credentials, upstream_context
from proxy.plan import HealthCheck
from tests.support.certificates import Authority
from tests.support.dataplane import replies, service

AUTHORITY = Authority()


@pytest.fixture
async def probe() -> AsyncIterator[HttpProbe]:
    found = HttpProbe(lambda: upstream_context(Credentials((), AUTHORITY.pem)))
    await found.open()
    yield found
    await found.close()


def target(port: int, address: str = "127.0.0.1", **check: Any) -> Target:
    return Target("stable", address, port, f"shop.example:{port}", HealthCheck(**({"path": "/healthz"} | check)))


def answered(line: bytes) -> bytes:
    body = b"" if line.startswith(b"204") else b"Content-Length: 2\r\n\r\nok"
    return b"HTTP/1.1 %b\r\nLocation: /other\r\n%b" % (line, body or b"\r\n")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"200 OK", ""), (b"204 No Content", ""), (b"302 Found", ""), (b"399 x", ""),
        (b"400 Bad Request", "status 400"), (b"404 Not Found", "status 404"), (b"500 x", "status 500"),
    ],
)  # fmt: skip
async def test_any_2xx_and_3xx_passes(probe: HttpProbe, line: bytes, error: str) -> None:
    """Redirects are not followed: the service answered, that is all that is asked."""
    async with service(replies(answered(line))) as (running, port):
        assert await probe.ask(target(port)) == error
        assert len(running.heads) == 1


async def test_an_arm_with_tls_is_checked_by_tls(probe: HttpProbe, tmp_path: Path) -> None:
    """And passes only if it proves its name, as for requests."""
    tls = AUTHORITY.server(AUTHORITY.issue("shop.test"), tmp_path)
    async with service(replies(answered(b"200 OK")), tls=tls) as (running, port):
        proven = replace(target(port), server_name="shop.test")
        assert await probe.ask(proven) == ""
        assert "Hostname mismatch" in await probe.ask(replace(proven, server_name="other.test"))
        assert len(running.heads) == 1


async def test_what_is_sent(probe: HttpProbe) -> None:
    async with service(replies(answered(b"200 OK"))) as (running, port):
        await probe.ask(target(port, path="/a%2fb?full=1&x=%20"))
        await probe.ask(target(port))
    lines = running.heads[0].decode().split("\r\n")
    assert lines[0] == "GET /a%2fb?full=1&x=%20 HTTP/1.1"
    assert f"Host: shop.example:{port}" in lines
    assert "User-Agent: cohort-health-check" in lines
    assert running.connections == 2


async def test_nobody_there_silence_and_nonsense_fail(probe: HttpProbe) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert "ClientConnectorError" in await probe.ask(target(bound.getsockname()[1]))
    async with service(replies(b"SSH-2.0-x\r\n\r\n")) as (_, port):
        assert await probe.ask(target(port))
    async with service(replies(b"")) as (_, port):
        assert await probe.ask(target(port, timeout=0.1)) == "no answer within 0.1 s"


async def test_an_endless_body_is_not_read(probe: HttpProbe) -> None:
    async with service(replies(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 100_000)) as (_, port):
        assert await probe.ask(target(port)) == ""


async def test_ipv6_is_checked_too(probe: HttpProbe) -> None:
    async with service(replies(answered(b"200 OK")), "::1") as (_, port):
        assert await probe.ask(target(port, "::1")) == ""


class Scripted:
    """A probe that asks a function."""

    def __init__(self, say: Callable[[Target], Awaitable[str]]) -> None:
        self._say = say
        self.asked: list[Target] = []
        self.active = self.most_active = 0

    async def open(self) -> None: ...
    async def close(self) -> None: ...

    async def ask(self, target: Target) -> str:
        self.asked.append(target)
        self.active += 1
        self.most_active = max(self.most_active, self.active)
        try:
            return await self._say(target)
        finally:
            self.active -= 1


@contextlib.asynccontextmanager
async def running(say: Callable[[Target], Awaitable[str]]) -> AsyncIterator[tuple[Checks, Scripted, list[Any]]]:
    """Checks under way; the list has what was unhealthy at each change."""
    probe, changes = Scripted(say), list[Any]()
    found = Checks(probe, lambda: changes.append(found.unhealthy), asyncio.get_running_loop().time, lambda: 0.5)
    task = asyncio.create_task(found.run())
    try:
        yield found, probe, changes
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not is_so():
            await asyncio.sleep(0.005)


FAST = {"interval": 0.1, "timeout": 0.05}


async def test_an_endpoint_goes_out_and_comes_back_and_each_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    says = "status 500"

    async def say(_: Target) -> str:
        return says

    with caplog.at_level(logging.INFO):
        async with running(say) as (found, probe, changes):
            found.follow([target(80, **FAST)])
            await until(lambda: len(changes) == 1)
            assert len(probe.asked) == 3
            await until(lambda: len(probe.asked) == 5)
            assert found.health(target(80, **FAST)) == Health(False, 0, "status 500")
            says = ""
            await until(lambda: len(changes) == 2)
    assert changes == [[("127.0.0.1", 80)], []]
    assert caplog.messages == [
        "endpoint 127.0.0.1:80 of arm stable is unhealthy: status 500",
        "endpoint 127.0.0.1:80 of arm stable is healthy again",
    ]


async def test_what_is_no_longer_followed_is_no_longer_asked_nor_unhealthy() -> None:
    async def say(_: Target) -> str:
        return "status 500"

    async with running(say) as (found, probe, _):
        found.follow([target(80, **FAST), target(81, **FAST)])
        await until(lambda: len(found.unhealthy) == 2)
        found.follow([target(81, **FAST)])
        assert found.unhealthy == [("127.0.0.1", 81)]
        await asyncio.sleep(0.05)
        probe.asked.clear()
        await until(lambda: len(probe.asked) >= 3)
        assert {asked.port for asked in probe.asked} == {81}


async def test_another_check_of_an_endpoint_takes_its_verdict_over() -> None:
    """A changed interval must not bring a sick endpoint back."""

    async def say(_: Target) -> str:
        return "status 500"

    async with running(say) as (found, _, _):
        found.follow([target(80, **FAST)])
        await until(lambda: len(found.unhealthy) == 1)
        found.follow([target(80, interval=0.2, timeout=0.1)])
        assert found.unhealthy == [("127.0.0.1", 80)]


async def test_many_are_checked_a_bounded_number_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "CONCURRENCY", 20)

    async def say(_: Target) -> str:
        await asyncio.sleep(0.001)
        return "status 500"

    async with running(say) as (found, probe, _):
        found.follow([target(port, interval=1.0, timeout=0.5, unhealthy=1) for port in range(1, 601)])
        await until(lambda: len(found.unhealthy) == 600)
        assert probe.most_active == 20


async def test_checks_leave_open_files_to_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """F23: ``ulimit -n 256``; the admin API has another quarter."""
    monkeypatch.setattr(checks, "open_files", lambda: 256)

    async def say(_: Target) -> str:
        await asyncio.sleep(0.001)
        return "status 500"

    async with running(say) as (found, probe, _):
        found.follow([target(port, interval=1.0, timeout=0.5, unhealthy=1) for port in range(1, 501)])
        await until(lambda: len(found.unhealthy) == 500)
        assert probe.most_active == 64


async def test_a_fault_of_the_probe_is_a_failure_of_the_check() -> None:
    async def say(_: Target) -> str:
        raise ZeroDivisionError

    async with running(say) as (found, _, _):
        found.follow([target(80, **FAST)])
        await until(lambda: len(found.unhealthy) == 1)
        assert found.health(target(80, **FAST)).error == "ZeroDivisionError"
