"""Names to addresses, as this machine resolves them: the hosts file, then the name servers with their TTLs.

Runs in the supervisor alone. A worker, and so the request path, never waits for a name.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import suppress
from pathlib import Path

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver

from proxy.config import ResolverSettings, server_port
from proxy.names import V4, V6, Failed, Found, Outcome, parse_hosts

HOSTS, RESOLV_CONF = Path("/etc/hosts"), Path("/etc/resolv.conf")
HOSTS_TTL_S = 5.0  # a file has no TTL; this is how soon a change of it counts
OTHER_FAMILY_S = 1.0  # for the second family once the first has answered: some servers never answer for AAAA
LOOPBACK = {"localhost": ("127.0.0.1", "::1")}  # RFC 6761 section 6.3: never asked of a server
FAMILIES = {"IPv4": (V4,), "IPv6": (V6,), "Both": (V4, V6)}
_TYPES = {V4: "A", V6: "AAAA"}
_MESSAGE_CHARS = 200


class Resolver:
    """Asks for one name at a time, any number at once.

    Args:
        hosts: A file in the form of /etc/hosts; ``conf`` likewise /etc/resolv.conf. Read again when they change.
    """

    def __init__(self, settings: ResolverSettings, hosts: Path = HOSTS, conf: Path = RESOLV_CONF) -> None:
        self._settings = settings
        self._families = FAMILIES[settings.family]
        self._hosts_path, self._conf_path = hosts, conf
        self._hosts: tuple[object, dict[str, tuple[str, ...]]] = (None, {})
        self._servers: tuple[object, dns.asyncresolver.Resolver | None] = (None, None)

    async def ask(self, host: str) -> dict[int, Outcome]:
        """One round: an outcome for each family that the settings allow; never raises for what a server does."""
        plain = host.lower().removesuffix(".")
        listed = (await self._hosts_file()).get(plain) or LOOPBACK.get(plain)
        if listed:
            return _routable({family: Found(_of_family(listed, family), HOSTS_TTL_S) for family in self._families})
        try:
            servers = await self._name_servers()
        except (OSError, dns.exception.DNSException) as error:
            return dict.fromkeys(self._families, Failed("network", _short(f"{self._conf_path}: {error}")))
        return _routable(await self._ask_servers(servers, host))

    async def _ask_servers(self, servers: dns.asyncresolver.Resolver, host: str) -> dict[int, Outcome]:
        tasks = {family: asyncio.create_task(_question(servers, host, family)) for family in self._families}
        try:
            done, late = await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_COMPLETED)
            has_answer = any(isinstance(task.result(), Found) for task in done)
            if late:
                await asyncio.wait(late, timeout=OTHER_FAMILY_S if has_answer else None)
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        late_one = Failed("timeout", f"no answer within {OTHER_FAMILY_S:g} s of the other family's")
        return {family: late_one if task.cancelled() else task.result() for family, task in tasks.items()}

    async def _hosts_file(self) -> dict[str, tuple[str, ...]]:
        stamp = _stamp(self._hosts_path)
        if stamp != self._hosts[0]:
            text = ""
            with suppress(OSError):
                text = await asyncio.to_thread(self._hosts_path.read_text, "utf-8", "replace")
            self._hosts = (stamp, parse_hosts(text))
        return self._hosts[1]

    async def _name_servers(self) -> dns.asyncresolver.Resolver:
        stamp = _stamp(self._conf_path) if not self._settings.servers else "settings"
        if self._servers[1] is None or stamp != self._servers[0]:
            self._servers = (stamp, await asyncio.to_thread(self._configured))
        assert self._servers[1] is not None
        return self._servers[1]

    def _configured(self) -> dns.asyncresolver.Resolver:
        """The servers of the settings, which know no search list; else those of the machine.

        Raises:
            dns.resolver.NoResolverConfiguration: There is no file, or it names no server.
        """
        if self._settings.servers:
            found = dns.asyncresolver.Resolver(configure=False)
            places = [server_port(server) for server in self._settings.servers]
            found.nameservers = [dns.nameserver.Do53Nameserver(host, port) for host, port in places]
        else:
            found = dns.asyncresolver.Resolver(filename=str(self._conf_path))
        found.timeout = self._settings.timeout
        found.lifetime = self._settings.timeout * max(2, len(found.nameservers))
        return found


async def _question(servers: dns.asyncresolver.Resolver, host: str, family: int) -> Outcome:
    """One family of one name. A search domain whose servers fail does not hide the name itself, as with libc."""
    outcome = await _asked(servers, host, family)
    if isinstance(outcome, Failed) and outcome.kind == "servfail" and servers.search and not host.endswith("."):
        itself = await _asked(servers, f"{host}.", family)
        return itself if isinstance(itself, Found) else outcome
    return outcome


async def _asked(servers: dns.asyncresolver.Resolver, host: str, family: int) -> Outcome:
    """The names that a search list makes of one, until one is answered; foreign exceptions end here."""
    try:
        answer = await servers.resolve(host, _TYPES[family], raise_on_no_answer=False, search=True)
    except dns.resolver.NXDOMAIN:
        return Failed("nxdomain", "NXDOMAIN: no such name")
    except dns.exception.Timeout:
        return Failed("timeout", f"no answer within {servers.lifetime:g} s")
    except dns.resolver.NoNameservers as error:
        return _refused(error)
    except OSError as error:
        return Failed("network", _short(str(error)))
    except dns.exception.DNSException as error:
        return Failed("servfail", _short(f"{type(error).__name__}: {error}"))
    addresses = tuple(sorted(str(record.address) for record in answer.rrset or ()))  # servers rotate them
    return Found(addresses, float(answer.chaining_result.minimum_ttl))


def _refused(error: dns.resolver.NoNameservers) -> Failed:
    """Every server said no; the last one's reason."""
    errors = error.kwargs.get("errors") or [("", False, 0, "no server to ask", None)]
    server, _, port, reason, response = errors[-1]
    kind = "network" if isinstance(reason, OSError) and response is None else "servfail"
    return Failed(kind, _short(f"{reason or type(reason).__name__} ({server}, port {port})"))


def _of_family(addresses: tuple[str, ...], family: int) -> tuple[str, ...]:
    return tuple(address for address in addresses if (":" in address) == (family == V6))


def _routable(outcomes: dict[int, Outcome]) -> dict[int, Outcome]:
    """Without addresses that this machine has no route to, unless there is no other: RFC 6724 section 5, rule 1."""
    answers = {family: outcome for family, outcome in outcomes.items() if isinstance(outcome, Found)}
    good = {family: tuple(filter(_has_route, answer.addresses)) for family, answer in answers.items()}
    if not any(good.values()):
        return outcomes
    return outcomes | {family: Found(good[family], answer.ttl_s) for family, answer in answers.items()}


def _has_route(address: str) -> bool:
    """Whether the kernel would know where to send it; libc finds it out the same way."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 53))  # sends nothing
    except OSError as error:
        return error.errno not in (errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


def _stamp(path: Path) -> object:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_ino, found.st_size)


def _short(text: str) -> str:
    return text if len(text) <= _MESSAGE_CHARS else f"{text[:_MESSAGE_CHARS]}..."
