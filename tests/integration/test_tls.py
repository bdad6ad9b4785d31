"""A whole proxy with TLS, and real clients before it: curl, openssl, Python's ssl."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.net.credentials import Pair
from tests.support.certificates import Authority, write_pair
from tests.support.dataplane import plan, replies, service
from tests.support.require import require
from tests.support.supervised import PROGRAM, ProxyProcess, proxy_process, settings, until

pytestmark = pytest.mark.integration

AUTHORITY = Authority()
HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
LAST = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"


def listeners(*names: str) -> dict[str, Any]:
    pairs = [{"certFile": f"{name}.crt", "keyFile": f"{name}.key"} for name in names]
    return {"listeners": [{"address": "127.0.0.1:0", "tls": {"certificates": pairs}}]}


async def port_of(proxy: ProxyProcess) -> int:
    return int((await proxy.until_ready())["listeners"][0].rpartition(":")[2])


@contextlib.asynccontextmanager
async def running(folder: Path, **changes: Any) -> AsyncIterator[tuple[ProxyProcess, int]]:
    """A proxy that shows certificates for a.test and b.test, before a service."""
    for name in ("a", "b"):
        write_pair(folder, name, AUTHORITY.issue(f"{name}.test"))
    (folder / "ca.pem").write_bytes(AUTHORITY.pem)
    async with (
        service(replies(HELLO)) as (_, port),
        proxy_process(folder, plan([port], []), **(listeners("a", "b") | changes)) as proxy,
    ):
        yield proxy, await port_of(proxy)


async def command(*words: str | Path) -> tuple[int, str]:
    """Run a program to its end; its status and all that it says."""
    process = await asyncio.create_subprocess_exec(
        *map(str, words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    async with asyncio.timeout(30):
        output, _ = await process.communicate()
    return process.returncode or 0, output.decode(errors="replace")


async def ask(port: int, authority: Authority, name: str = "a.test", data: bytes = LAST) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=authority.client(), server_hostname=name)
    try:
        async with asyncio.timeout(30):
            writer.write(data)
            return await reader.read()
    finally:
        writer.close()


def is_quiet(log: str) -> bool:
    """I7: no traceback, nothing that nobody looked at."""
    return not any(word in log for word in ("Traceback", "never retrieved", "Fatal error", "Exception ignored"))


async def test_curl_gets_the_certificate_of_the_name_that_it_asks_for(tmp_path: Path) -> None:
    """Both names, verified by curl itself, over 1.2 and 1.3."""
    curl = require("curl")
    async with running(tmp_path) as (proxy, port):
        for name in ("a.test", "b.test"):
            for version in ("--tls-max=1.2", "--tlsv1.3"):
                status, said = await command(
                    curl, "-sS", *version.split("="), "--cacert", tmp_path / "ca.pem",
                    "--resolve", f"{name}:{port}:127.0.0.1", f"https://{name}:{port}/",
                )  # fmt: skip
                assert (status, said) == (0, "hello")
        status, said = await command(curl, "-sS", "-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{port}/")
        assert (status, said) == (0, "400")
        assert is_quiet(proxy.log)


@pytest.mark.parametrize(
    ("options", "is_taken"),
    [
        (["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], False),
        (["-tls1_2"], True),
        (["-tls1_3"], True),
        (["-tls1_2", "-cipher", "AES128-SHA"], False),
        (["-alpn", "h2,http/1.1"], True),
    ],
    ids=["1.1", "1.2", "1.3", "weak", "alpn"],
)
async def test_openssl_agrees_on_what_is_spoken(tmp_path: Path, options: list[str], is_taken: bool) -> None:
    """TL-04."""
    openssl = require("openssl")
    async with running(tmp_path) as (proxy, port):
        status, said = await command(
            openssl, "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "b.test",
            "-CAfile", tmp_path / "ca.pem", "-verify_return_error", *options,
        )  # fmt: skip
        assert (status == 0) == is_taken
        assert ("Verification: OK" in said) == is_taken or not is_taken
        if "-alpn" in options:
            assert "ALPN protocol: http/1.1" in said
        assert is_quiet(proxy.log)


async def test_certificates_change_under_load_and_nothing_is_lost(tmp_path: Path) -> None:
    """F32: each rotation counts for new handshakes within seconds; kept and new connections are answered throughout."""
    asked = failed = 0
    is_over = asyncio.Event()
    latest: list[Authority] = [AUTHORITY]

    async def keep(port: int) -> None:
        nonlocal asked, failed
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=AUTHORITY.client(), server_hostname="a.test"
        )
        while not is_over.is_set():
            writer.write(LAST.replace(b"Connection: close\r\n", b""))
            asked += 1
            head = await reader.readuntil(b"\r\n\r\n")
            failed += await reader.readexactly(5) != b"hello" or b" 200 " not in head
            await asyncio.sleep(0.002)
        writer.close()

    async def renew(port: int) -> None:
        nonlocal asked, failed
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        while not is_over.is_set():
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="a.test")
            writer.write(LAST)
            asked += 1
            failed += not (await reader.read()).endswith(b"hello")
            writer.close()
            await asyncio.sleep(0.005)

    async def is_new(port: int) -> bool:
        with contextlib.suppress(ssl.SSLError):
            return (await ask(port, latest[0])).endswith(b"hello")
        return False

    async with running(tmp_path, workers=2) as (proxy, port), asyncio.TaskGroup() as tasks:
        for work in (keep, keep, renew, renew):
            tasks.create_task(work(port))
        for _ in range(3):
            latest[0] = Authority()
            write_pair(tmp_path, "a", latest[0].issue("a.test"))
            await until(lambda: is_new(port))
        write_pair(tmp_path, "a", Pair(latest[0].issue("a.test").certificate, latest[0].issue("a.test").key))

        async def is_refused() -> bool:
            return (await proxy.metric("cohort_credentials_refused_total"))[""] == 1

        await until(is_refused)
        for _ in range(10):
            assert await is_new(port)
        worker = (await proxy.state())["workers"][0]["pid"]
        is_over.set()
        ends = await proxy.metric("cohort_certificate_expiry_timestamp_seconds")
        assert set(ends) == {'{file="a.crt"}', '{file="b.crt"}'}
    assert (failed, asked > 300) == (0, True)
    assert worker
    assert "keyFile" in proxy.log
    assert is_quiet(proxy.log)


async def test_a_worker_that_starts_while_a_file_is_broken_has_the_pair_in_use(tmp_path: Path) -> None:
    """What was in order is kept by the supervisor, not by one worker."""
    async with running(tmp_path) as (proxy, port):
        (tmp_path / "a.key").write_text("garbage")
        before = (await proxy.state())["workers"][0]["pid"]
        os.kill(before, signal.SIGKILL)

        async def is_replaced() -> bool:
            return (await proxy.state())["workers"][0]["pid"] not in (None, before)

        await until(is_replaced)
        await proxy.until_ready()
        assert (await ask(port, AUTHORITY)).endswith(b"hello")


async def test_a_reload_adds_tls_and_refuses_what_cannot_be_used(tmp_path: Path) -> None:
    """Item 10 with TLS: a listener, then a name on it, come by SIGHUP; rotation goes on behind it."""

    async def reload(result: str, document: dict[str, Any]) -> Any:
        settings(tmp_path, **document)
        before = (await proxy.state())["reloads"][result]
        assert proxy.process.returncode is None
        proxy.process.send_signal(signal.SIGHUP)

        async def ended() -> Any:
            with contextlib.suppress(OSError):  # between two images nobody answers
                state = await proxy.state()
                return state if state["reloads"][result] > before else None

        return await until(ended)

    async def is_new() -> bool:
        with contextlib.suppress(ssl.SSLError):
            return (await ask(secure, other, "b.test")).endswith(b"hello")
        return False

    plain = {"listeners": [{"address": "127.0.0.1:0"}]}
    other = Authority()
    async with running(tmp_path, **plain) as (proxy, _):
        one, both = (plain["listeners"] + listeners(*names)["listeners"] for names in ("a", "ab"))
        state = await reload("done", {"listeners": one})
        secure = int(state["listeners"][1].rpartition(":")[2])
        assert (await ask(secure, AUTHORITY)).endswith(b"hello")
        await reload("done", {"listeners": both})
        assert (await ask(secure, AUTHORITY, "b.test", LAST.replace(b"a.test", b"b.test"))).endswith(b"hello")
        (tmp_path / "b.key").write_text("garbage")
        await reload("refused", {"listeners": both})
        assert (await ask(secure, AUTHORITY)).endswith(b"hello")
        write_pair(tmp_path, "b", other.issue("b.test", "a.test"))
        await until(is_new)
        assert is_quiet(proxy.log)


@pytest.mark.parametrize("how", ["--config", "--check"])
async def test_a_broken_pair_is_refused_at_the_start(tmp_path: Path, how: str) -> None:
    """The same verdict, with the field path, before anything is started."""
    settings(tmp_path, **listeners("a"))
    write_pair(tmp_path, "a", Pair(AUTHORITY.issue("a.test").certificate, AUTHORITY.issue("a.test").key))
    status, said = await command(*PROGRAM, how, tmp_path / "proxy.yaml")
    assert status == 1
    assert "proxy.yaml: listeners[0].tls.certificates[0].keyFile: " in said
    assert "this key does not belong to the certificate" in said
    assert not (tmp_path / "admin.sock").exists()


async def test_curl_speaks_the_proxy_protocol(tmp_path: Path) -> None:
    """Version 1 as curl writes it, on a port without TLS and on one with it."""
    curl = require("curl")
    both = listeners("a")["listeners"]
    both = [{"address": "127.0.0.1:0", "proxyProtocol": True}, both[0] | {"proxyProtocol": True}]
    async with running(tmp_path, listeners=both, trustedPeers=["127.0.0.0/8"]) as (proxy, port):
        secure = int((await proxy.state())["listeners"][1].rpartition(":")[2])
        for words in (
            ("--haproxy-protocol", f"http://127.0.0.1:{port}/"),
            ("--haproxy-protocol", "--cacert", str(tmp_path / "ca.pem"), "--resolve", f"a.test:{secure}:127.0.0.1",
             f"https://a.test:{secure}/"),
        ):  # fmt: skip
            assert await command(curl, "-sS", *words) == (0, "hello")
        status, _ = await command(curl, "-sS", f"http://127.0.0.1:{port}/")
        assert status in (52, 56)  # nothing, or a reset
        assert (await proxy.metric("cohort_downstream_rejected_total"))['{cause="preface"}'] == 1
        assert is_quiet(proxy.log)


async def test_hostile_handshakes_leave_no_trace_in_the_log(tmp_path: Path) -> None:
    """I7: garbage, a hello cut at every step, a name that is no text; all counted, nobody else disturbed."""
    hello = ssl.MemoryBIO()
    client = AUTHORITY.client().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="a.test")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    first = hello.read()
    attacks = [first[:size] for size in range(1, len(first), 37)]
    attacks += [
        first.replace(b"a.test", b"\xff.test"),
        b"\x16\x03\x01\xff\xff" + bytes(70_000),
        first + first,
        bytes(5),
    ]
    async with running(tmp_path) as (proxy, port):
        for attack in attacks:
            with socket.create_connection(("127.0.0.1", port)) as sock:
                sock.settimeout(5)
                with contextlib.suppress(OSError):
                    sock.sendall(attack)
                    sock.shutdown(socket.SHUT_WR)
                    while await asyncio.to_thread(sock.recv, 65_536):
                        pass
        assert (await ask(port, AUTHORITY)).endswith(b"hello")
        counted = await proxy.metric("cohort_downstream_rejected_total")
        assert counted['{cause="tls"}'] == len(attacks)
        assert (await proxy.metric("cohort_downstream_connections"))[""] <= 1
        lines = [json.loads(line) for line in proxy.log.splitlines() if '"refused"' in line]
        assert all(line["refused"].startswith("TLS: ") for line in lines)
        assert is_quiet(proxy.log)
