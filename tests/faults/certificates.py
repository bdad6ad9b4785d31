"""Certificates that change, break or expire while clients and services use them. F32."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tests.faults.run import Fault, Run
from tests.faults.stand import Stand
from tests.integration.programs import until
from tests.support.certificates import Authority, write_pair

HOST = "shop"


async def changed_certificates(run: Run) -> None:
    """F32: a new pair, then one whose key does not match, then the next good one; and a service that has expired."""
    check = run.check
    authority = Authority()
    (run.folder / "ca.pem").write_bytes(authority.pem)
    first, second, third = (authority.issue(HOST) for _ in range(3))
    write_pair(run.folder, "shop", first)
    pair = {"certFile": str(run.folder / "shop.crt"), "keyFile": str(run.folder / "shop.key")}
    more = {"listener": {"tls": {"certificates": [pair]}}, "upstreamTls": {"caFile": str(run.folder / "ca.pem")}}
    async with run.stand(**more) as stand:
        async with stand.load(ca=str(run.folder / "ca.pem"), sockets=0) as load:
            await asyncio.sleep(run.scale.pick(20, 0.5))
            kept = await asyncio.open_connection(
                "127.0.0.1", stand.proxy.port, ssl=authority.client(), server_hostname=HOST
            )
            write_pair(run.folder, "shop", second)
            seconds = await _until_shown(stand, authority, second.certificate)
            check.at_most("new certificate shown after", seconds, 5, "s")
            (run.folder / "shop.key").write_bytes(first.key)
            seconds = await _until_refused(stand)
            check.says("broken pair refused after", seconds, "s")
            check.true("the old one kept", await _shown(stand, authority) == _leaf(second.certificate))
            check.true("connection of before still served", await _is_served(*kept))
            write_pair(run.folder, "shop", third)
            seconds = await _until_shown(stand, authority, third.certificate)
            check.at_most("next good pair shown after", seconds, 5, "s")
            await asyncio.sleep(run.scale.pick(80, 0.5))
        run.no_loss(load.rows)
        await _expired_service(run, stand, authority)


def _leaf(chain: bytes) -> bytes:
    """The first certificate of a chain, in DER."""
    text = chain.decode().partition("-----END CERTIFICATE-----")[0] + "-----END CERTIFICATE-----\n"
    return ssl.PEM_cert_to_DER_cert(text)


async def _shown(stand: Stand, authority: Authority) -> bytes:
    context = authority.client()
    _, writer = await asyncio.open_connection("127.0.0.1", stand.proxy.port, ssl=context, server_hostname=HOST)
    try:
        shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return shown
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _until_shown(stand: Stand, authority: Authority, chain: bytes) -> float:
    """By all workers: new connections land on either."""
    began = time.monotonic()

    async def by_all() -> bool:
        return all([await _shown(stand, authority) == _leaf(chain) for _ in range(8)])

    await until(by_all, 20)
    return time.monotonic() - began


async def _until_refused(stand: Stand) -> float:
    began = time.monotonic()

    async def is_counted() -> bool:
        return await stand.metric("cohort_credentials_refused_total") > 0

    await until(is_counted, 20)
    return time.monotonic() - began


async def _is_served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    try:
        writer.write(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nX-Nonce: kept\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(10):
            return (await reader.read()).startswith(b"HTTP/1.1 200")
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def _tls_service(authority: Authority, folder: Path) -> AsyncIterator[int]:
    """A service whose certificate held until long ago."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    context = authority.server(authority.expired("127.0.0.1"), folder)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


async def _expired_service(run: Run, stand: Stand, authority: Authority) -> None:
    check = run.check
    async with _tls_service(authority, run.folder) as port:
        plan = stand.plan(10_000, onArmDown="Error")
        plan["arms"][1] |= {"endpoints": [{"address": "127.0.0.1", "port": port}], "tls": {}}
        await stand.adopt(plan)
        async with stand.load(ca=str(run.folder / "ca.pem"), upload_s=0, stream_s=0, sockets=0, rate=50) as load:
            await asyncio.sleep(run.scale.pick(5, 1))
    canary = [row for row in load.rows if row.arm == "canary"]
    check.exactly("answers for the expired service", sorted({row.what for row in canary}), ["502"])
    counted = await stand.metric("cohort_upstream_failures_total", arm="canary", kind="connect")
    check.at_least("counted", counted, len(canary))
    check.true("with the reason in the log", "expired" in stand.proxy.program.log)


FAULTS = {
    "F32": Fault(
        "certificate rotated, broken pair, expired certificate of a service",
        "new handshakes use the new one, a broken pair is refused and the old one kept, an expired service is 502 with "
        "its reason; 0 lost",
        changed_certificates,
    ),
}
