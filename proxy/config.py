"""Settings of one proxy: parsed once, validated whole, frozen. Each default carries its reason."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from proxy.document import Document, Duration
from proxy.plan import Network

MIB = 1_048_576
_SERVER = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?")
_RECEIVED_BY = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?::[0-9]{1,5})?")  # RFC 9110 section 7.6.3
_TCP = re.compile(r"(\[[0-9a-fA-F:]+\]|[0-9.]*):(\d{1,5})")


def _listen(text: str) -> str:
    match = _TCP.fullmatch(text)
    if match and 0 <= int(match[2]) <= 65535:
        return text
    raise ValueError(f"expected :PORT, IPV4:PORT or [IPV6]:PORT, got {text!r}")


def _listen_or_unix(text: str) -> str:
    return text if text.startswith("unix:") and len(text) > 5 else _listen(text)


def _server(text: str) -> str:
    try:
        host, port = server_port(text)
        ipaddress.ip_address(host)
    except ValueError:
        port = 0
    if not 1 <= port <= 65535:
        raise ValueError(f"expected IPV4, IPV4:PORT, [IPV6] or [IPV6]:PORT, got {text!r}")
    return text


def _received_by(text: str) -> str:
    if _RECEIVED_BY.fullmatch(text):
        return text
    raise ValueError(f"expected a token of RFC 9110, with or without :PORT, got {text!r}")


Listen = Annotated[str, AfterValidator(_listen)]
ListenOrUnix = Annotated[str, AfterValidator(_listen_or_unix)]


def host_port(listen: str) -> tuple[str, int]:
    """Host and port of a `Listen`; an empty host is every address of both families."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def server_port(server: str) -> tuple[str, int]:
    """Address and port of a name server, 53 where none is named.

    Raises:
        ValueError: It is no such text.
    """
    match = _SERVER.fullmatch(server)
    if not match:
        raise ValueError(server)
    return match[1] or match[2], int(match[3] or 53)


FilePath = Annotated[str, Field(min_length=1, max_length=4096)]


class KeyPair(Document):
    """A certificate with those that lead to its authority, and its private key: two PEM files, watched."""

    cert_file: FilePath
    key_file: FilePath


class ListenerTls(Document):
    """TLS with the clients of one listener. The name that a client asks for chooses the certificate."""

    certificates: Annotated[tuple[KeyPair, ...], Field(min_length=1, max_length=64)]
    min_version: Literal["1.2", "1.3"] = "1.2"  # RFC 8996 ended what is older; RFC 9325 still allows 1.2


class Listener(Document):
    """One address that takes traffic."""

    address: Listen = ":8080"
    tls: ListenerTls | None = None
    proxy_protocol: bool = False


class UpstreamTls(Document):
    """How services are verified, and what this proxy shows them, where an arm of the plan says ``tls``."""

    ca_file: FilePath | None = None
    cert_file: FilePath | None = None
    key_file: FilePath | None = None

    @model_validator(mode="after")
    def _check(self) -> UpstreamTls:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("certFile and keyFile belong together: give both or none")
        return self


class Admin(Document):
    """Where the supervisor can be steered: a Unix socket, or a loopback address with a token."""

    listen: ListenOrUnix = "unix:admin.sock"
    token_file: str | None = None

    @model_validator(mode="after")
    def _check(self) -> Admin:
        if not self.listen.startswith("unix:"):
            if host_port(self.listen)[0] not in ("127.0.0.1", "::1"):
                raise ValueError("listen: the admin API binds a Unix socket or a loopback address only")
            if self.token_file is None:
                raise ValueError("tokenFile: an admin API on a TCP port needs a token")
        return self


class ControlTls(Document):
    """What the control port shows: the installation's own certificate, which whoever asks has pinned.

    Attributes:
        cert_file: The certificate, PEM. Read again when it changes.
        key_file: Its private key.
    """

    cert_file: FilePath = "keys/tls.crt"
    key_file: FilePath = "keys/tls.key"


class Control(Document):
    """Where the other replicas' controllers ask, in a cluster: by TLS and with a token, three things and no others.

    Attributes:
        listen: Empty: there is no such port.
        token_file: Read at each request.
        tls: What it shows.
    """

    listen: Listen | Literal[""] = ""
    token_file: FilePath = "keys/control"
    tls: ControlTls = ControlTls()


class Metrics(Document):
    """Where Prometheus and probes ask."""

    listen: Listen = ":8082"


class Log(Document):
    """The access log, JSON lines on standard output or off, and the level of our own log on standard error."""

    access: Literal["stdout", "off"] = "stdout"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Limits(Document):
    """Bounds on what a peer can make big. Each is a number of its unit; contract item 17."""

    header_block_bytes: Annotated[int, Field(ge=1024, le=MIB)] = 32_768  # four times nginx's 8 KiB line: big cookies
    header_count: Annotated[int, Field(ge=10, le=1000)] = 100  # as Apache and Envoy
    target_bytes: Annotated[int, Field(ge=256, le=65_536)] = 16_384  # RFC 9112 asks for at least 8,000
    body_bytes: Annotated[int, Field(ge=0, le=2**50)] = 0  # 0: unlimited; a stream costs no memory
    pipelined: Annotated[int, Field(ge=1, le=1000)] = 32  # no client is known to pipeline deeper
    buffer_bytes: Annotated[int, Field(ge=16_384, le=MIB)] = 65_536  # one direction of one connection
    worker_buffer_bytes: Annotated[int, Field(ge=MIB, le=4096 * MIB)] = 32 * MIB  # all of one worker
    connections: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000  # client connections of one worker
    arm_requests: Annotated[int, Field(ge=1, le=1_000_000)] = (
        10_000  # one arm's at once: as many as clients; lower it to shield a service
    )
    arm_pending: Annotated[int, Field(ge=0, le=1_000_000)] = (
        1024  # beyond them, until one ends; as Envoy's circuit breaker
    )
    mirror_requests: Annotated[int, Field(ge=1, le=100_000)] = 64  # copies under way at once in one worker
    mirror_pending: Annotated[int, Field(ge=1, le=100_000)] = 256  # copies that wait: 16 MiB of bodies at the most
    mirror_body_bytes: Annotated[int, Field(ge=0, le=MIB)] = 65_536  # a copy is held whole until it is sent
    arm_connects_per_second: Annotated[int, Field(ge=4, le=1_000_000)] = 2000  # a service without keep-alive fits below


class Timeouts(Document):
    """Bounds on what a peer can make slow; contract item 17."""

    head: Annotated[Duration, Field(gt=0)] = 10.0  # first to last byte of a request head: slowloris
    connect: Annotated[Duration, Field(gt=0)] = 1.0  # an endpoint in the same cluster answers within milliseconds
    response_head: Annotated[Duration, Field(gt=0)] = 60.0  # nginx's proxy_read_timeout; over all tries
    per_try: Annotated[Duration, Field(ge=0)] = 0.0  # to the head within one try; 0: only responseHead counts
    body_idle: Annotated[Duration, Field(gt=0)] = 60.0  # no byte either way
    tunnel_idle: Annotated[Duration, Field(gt=0)] = 600.0  # NATs and load balancers forget an idle connection sooner
    keep_alive: Annotated[Duration, Field(gt=0)] = 75.0  # longer than the 60 s of common load balancers in front
    upstream_keep_alive: Annotated[Duration, Field(gt=0)] = 55.0  # shorter than the 60 s of common servers behind
    lame_duck: Annotated[Duration, Field(ge=0)] = 5.0  # endpoints' lists are updated within seconds of SIGTERM
    drain: Annotated[Duration, Field(ge=0)] = 30.0  # Kubernetes' default grace period
    abort_drain: Annotated[Duration, Field(ge=0)] = 10.0  # streams on the canary after an abort


class ResolverSettings(Document):
    """Where the names in a plan are looked up."""

    servers: Annotated[tuple[Annotated[str, AfterValidator(_server)], ...], Field(max_length=8)] = ()
    timeout: Annotated[Duration, Field(ge=0.1, le=30)] = 2.0  # one server's; a lost packet must not cost a TTL of 5 s
    min_ttl: Annotated[Duration, Field(ge=1, le=3600)] = 1.0  # a TTL of 0 must not make a flood of questions
    max_ttl: Annotated[Duration, Field(ge=1, le=86_400)] = 300.0  # a wrong record must not stay for a day
    family: Literal["Both", "IPv4", "IPv6"] = "Both"

    @model_validator(mode="after")
    def _check(self) -> ResolverSettings:
        if self.min_ttl > self.max_ttl:
            raise ValueError("minTtl is above maxTtl")
        return self


class Endpoints(Document):
    """When an endpoint that does not answer is left out, for how long, and how one comes in."""

    failures: Annotated[int, Field(ge=1, le=1000)] = 5  # in a row, as Envoy; a refused connection counts at once
    ejection: Annotated[Duration, Field(ge=0.1)] = 1.0  # doubled each time: a restart takes seconds, not minutes
    longest_ejection: Annotated[Duration, Field(ge=0.1)] = 30.0  # a pod that is replaced is back within this
    panic_percent: Annotated[int, Field(ge=0, le=100)] = 50  # fewer in good standing than this: as Envoy, use all
    slow_start: Annotated[Duration, Field(ge=0)] = 10.0  # caches and compilers warm up; 0: at once


class ProxySettings(Document):
    """All that one proxy is told at its start; paths are relative to the settings file."""

    api_version: Literal["cohort.dev/v1alpha1"] = "cohort.dev/v1alpha1"
    kind: Literal["ProxySettings"] = "ProxySettings"
    listeners: Annotated[tuple[Listener, ...], Field(min_length=1, max_length=8)] = (Listener(),)
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    trusted_peers: Annotated[tuple[Network, ...], Field(max_length=64)] = ()
    upstream_tls: UpstreamTls = UpstreamTls()
    default_host: Annotated[str, Field(max_length=255)] = "localhost"  # for HTTP/1.0 requests without Host
    via: Annotated[str, Field(max_length=255), AfterValidator(_received_by)] | None = None  # no word of us unasked
    plan_file: str | None = None
    initial_plan: str | None = None
    initial_plan_wait: Annotated[Duration, Field(ge=0)] = 0.0  # on one machine nobody else takes clients meanwhile
    state_dir: str = "state"
    keys_dir: str = "keys"
    admin: Admin = Admin()
    control: Control = Control()
    metrics: Metrics = Metrics()
    log: Log = Log()
    endpoints: Endpoints = Endpoints()
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    resolver: ResolverSettings = ResolverSettings()
