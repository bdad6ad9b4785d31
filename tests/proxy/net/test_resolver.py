"""Names looked up with a real name server on loopback, and with files of our own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy.config import ResolverSettings
from proxy.document import validate
from proxy.names import V4, V6, Failed, Found, Outcome
from proxy.net import resolver
from proxy.net.resolver import Resolver
from tests.support.dns_stub import DnsStub, dns_stub

NAME = "shop.example"


@pytest.fixture
async def stub() -> AsyncIterator[DnsStub]:
    async with dns_stub() as running:
        yield running


def make(tmp_path: Path, *servers: str, **settings: Any) -> Resolver:
    document = {"servers": list(servers), "timeout": "300ms"} | settings
    return Resolver(validate(ResolverSettings, document), tmp_path / "hosts", tmp_path / "resolv.conf")


def kinds(outcomes: dict[int, Outcome]) -> list[str]:
    return [outcome.kind for outcome in outcomes.values() if isinstance(outcome, Failed)]


def ask_at(stub: DnsStub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The port of the machine's name servers, which resolv.conf cannot name."""
    configured = Resolver._configured

    def with_port(self: Resolver) -> Any:
        servers = configured(self)
        servers.port = stub.port
        return servers

    monkeypatch.setattr(Resolver, "_configured", with_port)


async def test_both_families_are_asked_and_the_ttl_is_told(tmp_path: Path, stub: DnsStub) -> None:
    stub.answer(NAME, "127.0.0.1", "127.0.0.2", "::1", ttl=7)
    assert await make(tmp_path, stub.server).ask(NAME) == {
        V4: Found(("127.0.0.1", "127.0.0.2"), 7.0),
        V6: Found(("::1",), 7.0),
    }
    assert sorted(stub.queries) == [(f"{NAME}.", "A"), (f"{NAME}.", "AAAA")]


async def test_the_settings_can_leave_out_a_family(tmp_path: Path, stub: DnsStub) -> None:
    stub.answer(NAME, "127.0.0.1", "::1")
    outcomes = await make(tmp_path, stub.server, family="IPv4").ask(NAME)
    assert outcomes == {V4: Found(("127.0.0.1",), 1.0)}
    assert stub.queries == [(f"{NAME}.", "A")]


async def test_an_alias_is_followed(tmp_path: Path, stub: DnsStub) -> None:
    """The shortest TTL of the chain counts; here all have one."""
    stub.answer(NAME, "127.0.0.1", alias="real.example", ttl=3)
    assert (await make(tmp_path, stub.server).ask(NAME))[V4] == Found(("127.0.0.1",), 3.0)


@pytest.mark.parametrize(
    ("problem", "kind"),
    [("SERVFAIL", "servfail"), ("REFUSED", "servfail"), ("NXDOMAIN", "nxdomain"), ("silence", "timeout"),
     ("garbage", "timeout")],
)  # fmt: skip
async def test_a_failure_is_a_value_with_its_kind(tmp_path: Path, stub: DnsStub, problem: str, kind: str) -> None:
    stub.answer(NAME, problem=problem)
    outcomes = await make(tmp_path, stub.server).ask(NAME)
    assert kinds(outcomes) == [kind, kind], outcomes


async def test_an_empty_answer_is_an_answer_without_addresses(tmp_path: Path, stub: DnsStub) -> None:
    stub.answer(NAME, problem="empty")
    outcomes = await make(tmp_path, stub.server).ask(NAME)
    assert [isinstance(outcome, Found) and outcome.addresses for outcome in outcomes.values()] == [(), ()]


async def test_a_server_that_is_not_there_is_a_failure(tmp_path: Path, free_port: Any) -> None:
    outcomes = await make(tmp_path, f"127.0.0.1:{free_port()}").ask(NAME)
    assert set(kinds(outcomes)) <= {"timeout", "network"}
    assert len(outcomes) == 2


async def test_the_next_server_is_asked_when_one_is_silent(tmp_path: Path, stub: DnsStub) -> None:
    async with dns_stub() as silent:
        silent.answer(NAME, problem="silence")
        stub.answer(NAME, "127.0.0.1")
        outcomes = await make(tmp_path, silent.server, stub.server).ask(NAME)
    assert outcomes[V4] == Found(("127.0.0.1",), 1.0)


async def test_a_truncated_answer_is_fetched_by_tcp(tmp_path: Path, stub: DnsStub) -> None:
    addresses = [f"127.0.{i // 250}.{i % 250 + 1}" for i in range(1000)]
    stub.answer(NAME, *addresses, truncated=True)
    outcome = (await make(tmp_path, stub.server).ask(NAME))[V4]
    assert isinstance(outcome, Found)
    assert sorted(outcome.addresses) == sorted(addresses)


async def test_a_family_that_never_answers_holds_up_the_other_one_a_moment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "OTHER_FAMILY_S", 0.1)
    real = resolver._question

    async def question(servers: Any, host: str, family: int) -> Outcome:
        if family == V6:
            await asyncio.sleep(60)
        return await real(servers, host, family)

    monkeypatch.setattr(resolver, "_question", question)
    async with dns_stub() as stub:
        stub.answer(NAME, "127.0.0.1")
        began = time.monotonic()
        outcomes = await make(tmp_path, stub.server).ask(NAME)
    assert time.monotonic() - began < 5
    assert outcomes[V4] == Found(("127.0.0.1",), 1.0)
    assert kinds(outcomes) == ["timeout"]


async def test_many_names_are_asked_at_once(tmp_path: Path, stub: DnsStub) -> None:
    names = [f"n{i}.example" for i in range(50)]
    for i, name in enumerate(names, start=1):
        stub.answer(name, f"127.0.0.{i}", delay_s=0.2)
    asked = make(tmp_path, stub.server, timeout="5s")
    began = time.monotonic()
    found = await asyncio.gather(*(asked.ask(name) for name in names))
    assert time.monotonic() - began < 5
    assert [outcomes[V4] for outcomes in found] == [Found((f"127.0.0.{i}",), 1.0) for i in range(1, 51)]


async def test_the_hosts_file_comes_first_and_is_read_again_when_it_changes(tmp_path: Path, stub: DnsStub) -> None:
    asked = make(tmp_path, stub.server)
    (tmp_path / "hosts").write_text("127.0.0.7 Shop.Example\n")
    assert (await asked.ask(f"{NAME}."))[V4] == Found(("127.0.0.7",), resolver.HOSTS_TTL_S)
    (tmp_path / "hosts").write_text("127.0.0.77 shop.example\n")
    assert (await asked.ask(NAME))[V4] == Found(("127.0.0.77",), resolver.HOSTS_TTL_S)
    (tmp_path / "hosts").unlink()
    assert kinds(await asked.ask(NAME)) == ["nxdomain"] * 2
    assert len(stub.queries) == 2


async def test_localhost_needs_neither_file_nor_server(tmp_path: Path) -> None:
    """RFC 6761 section 6.3."""
    outcome = (await make(tmp_path).ask("localhost"))[V4]
    assert isinstance(outcome, Found)
    assert outcome.addresses == ("127.0.0.1",)


async def test_search_and_ndots_of_the_machine_count(tmp_path: Path, stub: DnsStub, monkeypatch: Any) -> None:
    """As a pod's resolv.conf: short names are completed, a name of the settings' servers is taken as it stands."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch ns.svc.local svc.local\noptions ndots:5\n")
    ask_at(stub, monkeypatch)
    stub.answer("shop.other.svc.local", "127.0.0.9")
    asked = make(tmp_path, timeout="5s", family="IPv4")
    assert await asked.ask("shop.other") == {V4: Found(("127.0.0.9",), 1.0)}
    assert [name for name, _ in stub.queries] == ["shop.other.ns.svc.local.", "shop.other.svc.local."]
    assert kinds(await asked.ask("shop.other.")) == ["nxdomain"]


async def test_a_search_domain_that_fails_does_not_hide_the_name(
    tmp_path: Path, stub: DnsStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As libc: with ndots:5 a public name is looked for in every search domain first."""
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\nsearch broken.example\noptions ndots:5\n")
    ask_at(stub, monkeypatch)
    stub.answer(f"{NAME}.broken.example", problem="SERVFAIL")
    stub.answer(NAME, "127.0.0.9")
    asked = make(tmp_path, timeout="5s", family="IPv4")
    assert await asked.ask(NAME) == {V4: Found(("127.0.0.9",), 1.0)}
    stub.answer(NAME, problem="NXDOMAIN")
    assert kinds(await asked.ask(NAME)) == ["servfail"]


async def test_a_machine_without_name_servers_is_a_failure_until_it_has_some(tmp_path: Path) -> None:
    """F39."""
    asked = make(tmp_path, family="IPv4")
    assert kinds(await asked.ask(NAME)) == ["network"]
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    assert (await asked._name_servers()).nameservers


async def test_addresses_without_a_route_are_left_out_beside_others(
    tmp_path: Path, stub: DnsStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RFC 6724 section 5, rule 1: a machine without IPv6 does not try it at every second request."""
    monkeypatch.setattr(resolver, "_has_route", lambda address: ":" not in address)
    stub.answer(NAME, "127.0.0.1", "2001:db8::1")
    asked = make(tmp_path, stub.server)
    assert (await asked.ask(NAME))[V6] == Found((), 1.0)
    stub.answer(NAME, "2001:db8::1")
    assert (await asked.ask(NAME))[V6] == Found(("2001:db8::1",), 1.0)


async def test_a_question_can_be_given_up(tmp_path: Path, stub: DnsStub) -> None:
    stub.answer(NAME, problem="silence")
    task = asyncio.create_task(make(tmp_path, stub.server, timeout="30s").ask(NAME))
    while len(stub.queries) < 2:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
