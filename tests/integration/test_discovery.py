"""A whole proxy whose endpoints are names: what happens to users while the name server says something else."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.plan import Plan
from tests.support.dataplane import Handler, Service, replies, service
from tests.support.dataplane import plan as plan_of
from tests.support.dns_stub import DnsStub, dns_stub
from tests.support.supervised import ProxyProcess, proxy_process, until, write_plan

pytestmark = pytest.mark.integration

NAME = "shop.example"
STUCK = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


def reply(text: str) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text.encode())


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Two services on one port of two addresses, each answering with its own last digit."""
    async with (
        service(replies(reply("1")), "127.0.0.1") as (_, port),
        service(replies(reply("2")), "127.0.0.2", port),
    ):
        yield port


@pytest.fixture
async def stub() -> AsyncIterator[DnsStub]:
    async with dns_stub() as running:
        yield running


def named(port: int, generation: int = 1) -> Plan:
    """A plan whose stable version is the name; there is no canary."""
    arm = {"name": "stable", "revision": "v1", "weightBp": 10_000, "dns": {"host": NAME, "port": port}}
    return plan_of([], [], arms=[arm], revision=None, generation=generation)


def checked(port: int, generation: int = 1) -> Plan:
    """A plan whose stable version has two addresses that are checked."""
    arm = {
        "name": "stable", "revision": "v1", "weightBp": 10_000,
        "endpoints": [{"address": address, "port": port} for address in ("127.0.0.1", "127.0.0.2")],
        "healthCheck": {"interval": "400ms", "timeout": "400ms", "unhealthy": 2},
    }  # fmt: skip
    return plan_of([], [], arms=[arm], revision=None, generation=generation)


class Patient:
    """A service whose check can be told to fail while requests are answered."""

    def __init__(self) -> None:
        self.is_well = True

    def __call__(self, running: Service) -> Handler:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                is_check = (await running.read_head(reader)).startswith(b"GET /healthz ")
                writer.write(reply("1") if self.is_well or not is_check else STUCK)

        return serve


def resolver(stub: DnsStub) -> dict[str, object]:
    return {"servers": [stub.server], "timeout": "500ms"}


async def arm(proxy: ProxyProcess) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = (await proxy.ask("GET", "/endpoints")).json["arms"]["stable"]
    return found


async def test_a_changed_answer_counts_within_its_ttl_and_a_second(tmp_path: Path, stub: DnsStub, port: int) -> None:
    """F07: both workers, connections that are open included, and nobody is answered by the old address after that."""
    stub.answer(NAME, "127.0.0.1", ttl=1)
    async with proxy_process(tmp_path, named(port), workers=2, resolver=resolver(stub)) as proxy:
        await proxy.until_ready()
        assert (await proxy.get()).body == b"1"
        stub.answer(NAME, "127.0.0.2", ttl=1)
        changed = time.monotonic()
        bodies: list[tuple[float, bytes]] = []
        while time.monotonic() < changed + 3:
            sent = time.monotonic() - changed
            bodies.append((sent, (await proxy.get()).body))
            await asyncio.sleep(0.01)
        assert {body for _, body in bodies} <= {b"1", b"2"}
        assert {body for sent, body in bodies if sent > 2} == {b"2"}
        endpoints = (await arm(proxy))["endpoints"]
        assert endpoints == [{"address": "127.0.0.2", "port": port, "healthy": None, "error": None}]


@pytest.mark.parametrize("problem", ["SERVFAIL", "NXDOMAIN", "empty", "silence", "slow"])
async def test_trouble_of_the_name_server_is_not_the_users(
    tmp_path: Path, stub: DnsStub, port: int, problem: str
) -> None:
    """F08: the last good address stays, a metric and the log tell, no request waits."""
    stub.answer(NAME, "127.0.0.1", ttl=1)
    async with proxy_process(tmp_path, named(port), resolver=resolver(stub)) as proxy:
        await proxy.until_ready()
        if problem == "slow":
            stub.answer(NAME, "127.0.0.2", delay_s=5)
        else:
            stub.answer(NAME, problem=problem)

        async def failed() -> bool:
            return sum((await proxy.metric("cohort_dns_failures_total")).values()) >= 1

        await until(failed)
        for _ in range(20):
            began = time.monotonic()
            assert (await proxy.get()).body == b"1"
            assert time.monotonic() - began < 0.5
        kind = {"empty": "empty", "silence": "timeout", "slow": "timeout"}.get(problem, problem.lower())
        assert f"({kind}); its 1 addresses stay" in proxy.log
        assert str((await arm(proxy))["dns"]["error"]).startswith(f"{kind}: ")  # type: ignore[index]  # JSON


async def test_a_proxy_that_is_there_before_its_name_becomes_ready_by_itself(
    tmp_path: Path, stub: DnsStub, port: int
) -> None:
    """F39."""
    async with proxy_process(tmp_path, named(port), resolver=resolver(stub)) as proxy:

        async def served() -> bool:
            return (await proxy.get()).status == 503

        await until(served)
        assert (await proxy.ask("GET", "/ready")).json["reason"] == f"no address of {NAME} is known yet"
        stub.answer(NAME, "127.0.0.1")
        await proxy.until_ready()
        assert (await proxy.get()).body == b"1"


async def test_a_worker_that_is_replaced_knows_the_addresses(tmp_path: Path, stub: DnsStub, port: int) -> None:
    """The snapshot is sent to it before its plan."""
    stub.answer(NAME, "127.0.0.1", ttl=300)
    async with proxy_process(tmp_path, named(port), resolver=resolver(stub)) as proxy:
        pid = (await proxy.until_ready())["workers"][0]["pid"]
        os.kill(pid, signal.SIGKILL)
        assert (await proxy.get()).body == b"1"
        assert (await proxy.state())["workers"][0]["pid"] != pid


async def test_a_plan_that_turns_addresses_into_a_name_loses_no_request(
    tmp_path: Path, stub: DnsStub, port: int
) -> None:
    """The plan waits until the name is known."""
    stub.answer(NAME, "127.0.0.2", delay_s=0.3)
    whole = plan_of([port], []).model_dump(mode="json", by_alias=True)
    first = plan_of([], [], arms=whole["arms"][:1], revision=None)
    async with proxy_process(tmp_path, first, resolver=resolver(stub)) as proxy:
        await proxy.until_ready()
        write_plan(tmp_path, named(port, 2))
        bodies = set()
        end = time.monotonic() + 2
        while time.monotonic() < end:
            bodies.add((await proxy.get()).body)
        assert bodies == {b"1", b"2"}


async def test_an_endpoint_that_fails_its_checks_is_left_out_by_all_workers(tmp_path: Path) -> None:
    """Its requests would be answered: only the check knows."""
    patient = Patient()
    async with (
        service(patient, "127.0.0.1") as (_, port),
        service(replies(reply("2")), "127.0.0.2", port),
        proxy_process(tmp_path, checked(port), workers=2, endpoints={"slowStart": "0s"}) as proxy,
    ):

        async def health() -> list[object]:
            return [endpoint["healthy"] for endpoint in (await arm(proxy))["endpoints"]]  # type: ignore[index]  # JSON

        async def is_out() -> bool:
            return await health() == [False, True]

        async def is_back() -> bool:
            return await health() == [True, True]

        await proxy.until_ready()
        assert {(await proxy.get()).body for _ in range(30)} == {b"1", b"2"}
        patient.is_well = False
        await until(is_out)
        await asyncio.sleep(0.3)  # the workers hear of it a tenth of a second later
        assert {(await proxy.get()).body for _ in range(30)} == {b"2"}
        assert (await proxy.metric("cohort_unhealthy_endpoints")) == {'{arm="stable",rollout="shop/checkout"}': 1}
        patient.is_well = True
        await until(is_back)
        await asyncio.sleep(0.3)
        assert {(await proxy.get()).body for _ in range(30)} == {b"1", b"2"}
