"""The process of the synthetic users against a scripted proxy: what it counts, says and exits with."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.fake_ingress import FakeProxy, running

START = [sys.executable, "-c", "from loadtest.cli import command; command()"]
QUICK = ["--users", "10", "--spawn-rate", "100", "--think", "10ms..30ms", "--duration", "500ms", "--progress", "200ms"]


@pytest.fixture
async def proxy() -> AsyncIterator[FakeProxy]:
    async with running(FakeProxy()) as proxy:
        yield proxy


async def start(proxy: FakeProxy, *arguments: str) -> asyncio.subprocess.Process:
    command = [*START, "--target", proxy.url, *QUICK, "-o", "json", *arguments]
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)


async def load(proxy: FakeProxy, *arguments: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, summary and what was said meanwhile."""
    process = await start(proxy, *arguments)
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, json.loads(out) if out else {}, err.decode()


async def test_users_keep_their_version(proxy: FakeProxy) -> None:
    """Each user has an identity of its own, keeps it in its cookies, and the summary tells the shares of users."""
    proxy.fault = lambda number, path: "500" if number % 10 == 0 else ""
    code, result, said = await load(proxy, "--plans", f"{proxy.url}/fake/plan", "--version-header", "X-Version")
    assert (code, result["ok"], result["flips"], result["lost"]) == (0, True, 0, 0), said
    assert result["users"] == len(proxy.keys) == 10
    assert result["requests"] > 30
    assert {row["revision"] for row in result["versions"]} <= {"v1", "v2"}
    assert sum(row["users"] for row in result["versions"]) == 10
    errors = sum(row["errors"] for row in result["versions"])
    assert errors == sum(row["codes"].get("500", 0) for row in result["versions"]) > 0
    [row] = result["generations"]
    assert (row["users"], row["revision"], row["weights"]) == (10, "v2", {"canary": "25.00"})
    assert sum(row["arms"].values()) == 10
    assert set(proxy.paths) >= {"GET /", "GET /product", "GET /cart", "POST /checkout"}
    assert "10 users | " in said
    assert "lost 0 | flips 0" in said


async def test_a_flip_fails_and_is_reported(proxy: FakeProxy) -> None:
    """The issue, "Synthetic users": a flip is a failure with both answers printed; a report tells it of the seat."""
    proxy.fault = lambda number, path: "flip" if number == 40 else ""
    code, result, said = await load(proxy, "--report", f"{proxy.url}/fake/report")
    assert (code, result["ok"]) == (1, False)
    assert result["flips"] >= 1
    assert result["flippedUsers"] == 1
    detail = result["flipDetails"][0]
    assert {detail["before"].split()[0], detail["after"].split()[0]} == {"stable", "canary"}
    assert f"FLIP user {detail['user']}: {detail['before']} then {detail['after']}" in said
    assert {row["seat"] for row in proxy.reports} == set(range(10))
    assert {row["user"] for row in proxy.reports if row["flip"]} == {detail["user"]}


async def test_a_lost_request_fails(proxy: FakeProxy) -> None:
    """Lost: no whole answer, or the proxy's word that there is none. A kept connection that had ended loses nothing."""
    faults = {"/cut": "truncate", "/reset": "reset", "/503": "503", "/silent": "silent", "/": "stale"}
    proxy.fault = lambda number, path: faults[path]
    journey = "/,POST /cut,/,POST /reset,/,POST /503,/,POST /silent"
    code, result, _ = await load(proxy, "--timeout", "300ms", "--journey", journey, "--duration", "1s")
    assert code == 1
    assert set(result["lostByCause"]) == {"truncated", "closed", "503", "timeout"}
    assert all("POST /" in detail for detail in result["lostDetails"])
    assert result["flips"] == 0


async def test_a_rollout_under_way_is_no_flip(proxy: FakeProxy, tmp_path: Path) -> None:
    """Weights rise, an abort, a lift, another revision: all moves are allowed ones. A file takes reports too."""
    file = tmp_path / "report.jsonl"
    task = asyncio.create_task(
        load(proxy, "--duration", "1500ms", "--plans", f"{proxy.url}/fake/plan", "--report", str(file))
    )
    while len(proxy.paths) < 30:
        await asyncio.sleep(0.01)
    for generation, (weight, aborted, revision) in enumerate(
        [(5000, False, "v2"), (5000, True, "v2"), (100, False, "v2"), (10_000, False, "v2"), (5000, False, "v3")], 2
    ):
        proxy.aborted = aborted
        if not aborted:
            proxy.generation, proxy.weight_bp, proxy.revision = generation, weight, revision
        await asyncio.sleep(0.2)
    code, result, said = await task
    assert (code, result["flips"]) == (0, 0), said
    assert [row["generation"] for row in result["generations"]] == [1, 2, 4, 5, 6]
    rows = [row for line in file.read_text().splitlines() for row in json.loads(line)["users"]]
    assert {row["seat"] for row in rows} == set(range(10))


@pytest.mark.parametrize("kind", ["close", "3", "keep-alive"])
async def test_connections_are_kept_shared_or_closed(proxy: FakeProxy, kind: str) -> None:
    """Identities stay apart however connections are used."""
    code, result, _ = await load(proxy, "--connections", kind)
    assert code == 0
    assert len(proxy.keys) == 10
    expected = {"close": result["requests"], "3": 3, "keep-alive": 10}
    assert len(proxy.connections) == expected[kind]


async def test_users_who_leave_are_replaced(proxy: FakeProxy) -> None:
    """Users come and go: each newcomer has an identity of its own, and as many are there as before."""
    code, result, _ = await load(proxy, "--leave", "100", "--identity", "header", "--user-prefix", "vip-")
    assert code == 0
    assert proxy.keys <= {f"vip-{n}" for n in range(1, result["users"] + 1)}
    assert len(proxy.keys) > 12
    assert sum(row["users"] for row in result["versions"]) <= 10


async def test_a_signal_ends_the_run_with_a_summary(proxy: FakeProxy) -> None:
    """Ctrl-C: requests under way are not lost ones, and the summary comes."""
    process = await start(proxy, "--duration", "0s")
    while len(proxy.paths) < 30:
        await asyncio.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, _ = await process.communicate()
    assert process.returncode == 0
    assert json.loads(out)["lost"] == 0


async def test_nobody_listens(proxy: FakeProxy, free_port: Callable[[], int]) -> None:
    """Connections refused are lost requests."""
    proxy.url = f"http://127.0.0.1:{free_port()}"
    code, result, _ = await load(proxy)
    assert code == 1
    assert set(result["lostByCause"]) == {"connect"}


async def test_locusts_own_page(proxy: FakeProxy, free_port: Callable[[], int]) -> None:
    """--web: locust's page is there while the users run."""
    port = free_port()
    process = await start(proxy, "--duration", "0s", "--web", str(port))
    while len(proxy.paths) < 30:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.0\r\n\r\n")
    page = await reader.read()
    writer.close()
    process.send_signal(signal.SIGTERM)
    _, said = await process.communicate()
    assert page.startswith(b"HTTP/1.1 200")
    assert b"ocust" in page
    assert f"http://127.0.0.1:{port}/" in said.decode()
    assert process.returncode == 0


async def test_what_goes_wrong_beside_the_users_is_said(proxy: FakeProxy, free_port: Callable[[], int]) -> None:
    """Reports that nobody takes and plans that are none do not fail the run, but nobody has to guess."""
    nobody = f"http://127.0.0.1:{free_port()}/"
    code, _, said = await load(proxy, "--report", nobody, "--plans", f"{proxy.url}/no/plan")
    assert code == 0
    assert "reports were not delivered" in said
    assert "no plan was learnt" in said


@pytest.mark.parametrize("option", ["--report", "--plans", "--target"])
async def test_an_unknown_host_is_wrong_use(proxy: FakeProxy, option: str) -> None:
    """Said at once, before any user comes."""
    code, _, said = await load(proxy, option, "http://no-such-host.invalid")
    assert code == 2
    assert "cohort loadtest: " in said


async def test_a_taken_port_for_locusts_page_is_wrong_use(proxy: FakeProxy) -> None:
    """Said at once, not in a traceback of locust's."""
    code, _, said = await load(proxy, "--web", proxy.url.rpartition(":")[2])
    assert code == 2
    assert "in use" in said


async def test_a_key_file_that_is_none_is_wrong_use(proxy: FakeProxy, tmp_path: Path) -> None:
    """Said at once: unmarked, its users would pass for real ones."""
    key = tmp_path / "synthetic"
    key.write_text("hunter2")
    code, _, said = await load(proxy, "--synthetic-key", str(key), "--rollout", "shop/checkout")
    assert code == 2
    assert f"cohort loadtest: {key}: expected 64 hexadecimal digits" in said
    assert "hunter2" not in said
    assert not proxy.paths


@pytest.mark.parametrize(
    "arguments",
    [
        ["--synthetic-key", __file__],
        ["--rollout", "shop/checkout"],
        ["--synthetic-key", "/no/such/file", "--rollout", "shop/checkout"],
        ["--synthetic-key", __file__, "--rollout", "checkout"],
    ],
)
async def test_a_key_and_a_rollout_belong_together(proxy: FakeProxy, arguments: list[str]) -> None:
    code, _, said = await load(proxy, *arguments)
    assert code == 2
    assert "--synthetic-key" in said or "--rollout" in said
    assert not proxy.paths
