"""The plan: everything that decides what a proxy serves, one immutable document validated as a whole.

The controller writes plans and a person may; the proxy is a pure function of one. The parts that a CanaryRollout has in
common with a plan (users, routes, preview, explain) are these very models.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
from typing import Annotated, Any, Literal

import re2
from pydantic import AfterValidator, Field, model_validator

from proxy.assign import BUCKETS
from proxy.document import Document, Duration, Fault, Percent, parse, refuse

NAME = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"  # a Kubernetes label value in lower case, so that it fits a metric
TOKEN = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}$"  # RFC 9110 section 5.6.2
_LABEL = re.compile(r"[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?")  # RFC 1123 section 2.1, and _ as Kubernetes and SRV names
MAX_VALUE = 1024  # a quarter of Gateway API's: an API server reckons with the worst of every bound (controller.crd)
MAX_LIST = 64  # Gateway API allows 64 matches a rule
MAX_MATCHES = 16
MAX_FIELDS = 8  # headers, queries or cookies in one match

Name = Annotated[str, Field(pattern=NAME, max_length=63)]
Token = Annotated[str, Field(pattern=TOKEN, max_length=256)]
Value = Annotated[str, Field(max_length=MAX_VALUE)]
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.:/@]{0,126}[A-Za-z0-9])?$", max_length=128)]
Method = Annotated[str, Field(pattern=r"^[A-Z]{1,20}$", max_length=20)]
HostPattern = Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$", max_length=255)]


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text))
    except ValueError as error:
        raise ValueError(f"expected a network such as 192.0.2.0/24: {error}") from None


def _path(text: str) -> str:
    if not text.startswith("/") or "?" in text or "#" in text or not text.isascii() or not text.isprintable():
        raise ValueError(f"expected a path that starts with / and has neither ? nor #, got {text!r}")
    return text


def _target(text: str) -> str:
    path, _, query = text.partition("?")
    _path(path)
    if "#" in query or " " in text or not text.isascii() or not text.isprintable():
        raise ValueError(f"expected a path, with or without a query, that has neither blanks nor #, got {text!r}")
    return text


def _schema(**keys: object) -> Any:
    """What a schema says beside the validator, which has the better messages. `controller.crd` knows the formats."""
    return Field(json_schema_extra=keys)  # type: ignore[arg-type]  # JSON values


_PATH_PATTERN = r"^/[ -\x22$->@-~]*$"
Network = Annotated[str, Field(max_length=64), _schema(format="network"), AfterValidator(_network)]
Path = Annotated[str, Field(max_length=1024), _schema(pattern=_PATH_PATTERN), AfterValidator(_path)]
Target = Annotated[
    str, Field(max_length=1024), _schema(pattern=r"^/[!-\x22$->@-~]*(\?[!-\x22$-~]*)?$"), AfterValidator(_target)
]


def _host_name(text: str) -> str:
    labels = text.lower().removesuffix(".").split(".")
    if not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdecimal():
        raise ValueError(f"expected a DNS name such as checkout.shop.svc.cluster.local, got {text!r}")
    return text


HostName = Annotated[str, Field(max_length=253), _schema(format="hostname"), AfterValidator(_host_name)]


class _Matcher(Document):
    """What all matches share: a type and the value it compares with."""

    type: str
    value: Value | None = None

    @model_validator(mode="after")
    def _check(self) -> _Matcher:
        if (self.value is None) != (self.type == "Present"):
            need = "has no value" if self.type == "Present" else "needs a value"
            raise ValueError(f"a match of type {self.type} {need}")
        if self.type == "RegularExpression":
            compile_regex(self.value or "")
        return self


class PathMatch(_Matcher):
    """How the path must look. PathPrefix compares whole segments, so ``/pay`` does not match ``/payments``.

    Attributes:
        type: PathPrefix compares whole segments: /pay does not match /payments. As Gateway API.
        value: For RegularExpression RE2 syntax, and the whole path must match.
    """

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: Value

    @model_validator(mode="after")
    def _check_path(self) -> PathMatch:
        if self.type != "RegularExpression":
            _path(self.value)
        return self


class FieldMatch(_Matcher):
    """One header, query parameter or cookie by name. A RegularExpression (RE2) must match the whole value.

    Attributes:
        type: RegularExpression is RE2 and must match the whole value. As Gateway API.
        value: What to compare with; Present has none.
        name: Of a header without regard to case; of a cookie or parameter exactly.
    """

    name: Token
    type: Literal["Exact", "Prefix", "Suffix", "RegularExpression", "Present"] = "Exact"


class Match(Document):
    """Conditions that must all hold.

    Attributes:
        path: How the path must look.
        headers: Header fields; all must match.
        query_params: Query parameters; all must match.
        cookies: Cookies; all must match.
        method: The method, in capitals.
        hostnames: Exact names, or *. and a name for any one or more labels before it; without port.
        client_networks: Networks of the client's address (behind trusted peers the forwarded one).
    """

    path: PathMatch | None = None
    headers: tuple[FieldMatch, ...] = Field(default=(), max_length=MAX_FIELDS)
    query_params: tuple[FieldMatch, ...] = Field(default=(), max_length=MAX_FIELDS)
    cookies: tuple[FieldMatch, ...] = Field(default=(), max_length=MAX_FIELDS)
    method: Method | None = None
    hostnames: tuple[HostPattern, ...] = Field(default=(), max_length=16)
    client_networks: tuple[Network, ...] = Field(default=(), max_length=MAX_LIST)

    @model_validator(mode="after")
    def _check(self) -> Match:
        conditions = self.path, self.headers, self.query_params, self.cookies, self.method, self.hostnames
        if not any(conditions) and not self.client_networks:
            raise ValueError(
                "a match needs a condition: path, headers, queryParams, cookies, method, hostnames or clientNetworks"
            )
        return self


class Split(Document):
    """Takes part in the split with bounds of its own: the common weight, raised to atLeast and cut to atMost.

    Attributes:
        at_least: The common weight is raised to this. 0: as the others.
        at_most: The common weight is cut to this. 100: as the others.
    """

    at_least: Percent = 0
    at_most: Percent = BUCKETS

    @model_validator(mode="after")
    def _check(self) -> Split:
        if self.at_least > self.at_most:
            raise ValueError("atLeast is above atMost")
        return self


class Route(Document):
    """A choice beside the weights: an arm, a share of its own, or an answer. Routes count in the order listed.

    Attributes:
        name: The reason that headers and metrics show: route/NAME.
        matches: One of them suffices.
        arm: The version for whoever matches.
        split: Takes part in the split with bounds of its own.
        answer: The status code that cohort answers itself, whichever version was picked.
        always: Counts before the preview cookie and the steps' header routes.
        trust: From whom a match of headers counts.
        strip_prefix: Taken off the path before the service sees it; it gets X-Forwarded-Prefix, and Location
            gets it back.
    """

    name: Name
    matches: tuple[Match, ...] = Field(min_length=1, max_length=MAX_MATCHES)
    arm: Name | None = None
    split: Split | None = None
    answer: Annotated[int, Field(ge=400, le=599)] | None = None
    always: bool = False
    trust: Literal["TrustedPeers", "Anyone"] = "TrustedPeers"
    strip_prefix: Path | None = None

    @model_validator(mode="after")
    def _check(self) -> Route:
        if sum(choice is not None for choice in (self.arm, self.split, self.answer)) != 1:
            raise ValueError("exactly one of arm, split and answer is needed")
        if self.answer is not None and self.strip_prefix is not None:
            raise ValueError("stripPrefix has no meaning beside answer: remove one")
        if self.always and self.split is not None:
            raise ValueError("always needs arm or answer: a share is never unconditional")
        return self


class HeaderRoute(Document):
    """A header route set by a rollout's step: whoever sends the headers gets the canary. Headers count from anyone."""

    name: Name
    matches: tuple[FieldMatch, ...] = Field(min_length=1, max_length=16)


class HeaderSource(Document):
    """A header that names the user. With TrustedPeers it counts only from the networks in the proxy's settings.

    Attributes:
        name: Case does not matter.
        trust: TrustedPeers: counts only from trustedPeers, others' is removed.
    """

    name: Token
    trust: Literal["TrustedPeers", "Anyone"] = "TrustedPeers"


class JwtSource(Document):
    """A claim of a bearer token, not verified: it counts as anonymous input.

    Attributes:
        header: Where the token is, after Bearer.
        claim: Its text or number is the user's name.
    """

    header: Token = "Authorization"
    claim: Annotated[str, Field(min_length=1, max_length=64)]


class CookieSource(Document):
    """A cookie of the service's own that names the user.

    Attributes:
        name: Its value is the user's name, byte for byte.
    """

    name: Token


class ClientAddressSource(Document):
    """The client's address, for clients that keep no cookies; IPv6 is cut to a prefix, which one household shares.

    Attributes:
        ipv6_prefix: Leading bits that count of an IPv6 address.
    """

    ipv6_prefix: Annotated[int, Field(ge=16, le=128)] = 64


class MintSource(Document):
    """A signed first-party cookie, made at the first answer. Default name: ``cohort_<rollout>``.

    Attributes:
        max_age: How long the browser keeps the cookie.
        name: The cookie's name. Absent: cohort_ and the rollout's name.
    """

    max_age: Annotated[Duration, Field(ge=60, le=400 * 86400)] = 2160 * 3600.0  # 90 d; browsers cut at 400 d
    name: Token | None = None


class UserSource(Document):
    """One place where a user's key may be found.

    Attributes:
        header: A header that names the user.
        jwt: A claim of a bearer token.
        cookie: A cookie of the service's own.
        client_address: The client's address.
        mint: A signed cookie of ours; last in the list, because it always succeeds.
    """

    header: HeaderSource | None = None
    jwt: JwtSource | None = None
    cookie: CookieSource | None = None
    client_address: ClientAddressSource | None = None
    mint: MintSource | None = None

    @model_validator(mode="after")
    def _check(self) -> UserSource:
        kinds = (self.header, self.jwt, self.cookie, self.client_address, self.mint)
        if sum(kind is not None for kind in kinds) != 1:
            raise ValueError("exactly one of header, jwt, cookie, clientAddress and mint is needed")
        return self

    @property
    def label(self) -> str:
        """The source as it goes into the user key and as ``whoami --key`` spells it."""
        if self.header:
            return f"header:{self.header.name.lower()}"
        if self.jwt:
            return f"jwt:{self.jwt.claim}"
        if self.cookie:
            return f"cookie:{self.cookie.name}"
        return "clientAddress" if self.client_address else "mint"


class Preview(Document):
    """The page and the links that pin a browser to a version.

    Attributes:
        path: Where the page is. Below /.cohort/, the one place that cohort takes from the service.
        access: Token: links with a valid token pin. Public: anybody may.
    """

    path: Path = "/.cohort/preview"
    access: Literal["Token", "Public", "Disabled"] = "Disabled"

    @model_validator(mode="after")
    def _check(self) -> Preview:
        if not self.path.startswith("/.cohort/"):
            raise ValueError("path must lie below /.cohort/, the one place that cohort reserves")
        return self


class Mirror(Document):
    """A share of users whose requests are copied to another arm; the answers to the copies are dropped.

    Attributes:
        arm: Who gets the copies; canary means nobody while no revision is on trial.
        percent: Of users.
        methods: Whose requests are copied; others than GET and HEAD make the service do things twice.
    """

    arm: Name
    percent: Percent
    methods: Annotated[tuple[Method, ...], Field(min_length=1, max_length=16)] = ("GET", "HEAD")


class Breaker(Document):
    """The line above which the proxy aborts by itself, from its own counters.

    Attributes:
        error_percent: Share of a version's answers that may fail. Half is no statistics any more: it is broken.
        requests: Fewer answers within the window decide nothing.
        window: How far back it looks: long enough for twenty answers, short enough to act before people do.
        minimum_users: So many users must have met failures; with 1, one user alone can trip it.
    """

    error_percent: Annotated[Percent, Field(gt=0)] = 5_000
    requests: Annotated[int, Field(ge=1, le=1_000_000)] = 20
    window: Annotated[Duration, Field(ge=1, le=600)] = 10.0
    minimum_users: Annotated[int, Field(ge=1, le=16)] = 3


Users = Annotated[tuple[UserSource, ...], Field(min_length=1, max_length=8)]
Routes = Annotated[tuple[Route, ...], Field(max_length=MAX_LIST)]
Explain = Literal["OnRequest", "Always", "Never"]
OnArmDown = Literal["Stable", "Error"]  # users of a version that cannot be reached get stable, or 503


class RolloutRef(Document):
    """Whose plan this is. A cookie's default name has the name in it, an order of generations holds within one uid."""

    namespace: Name = "default"
    name: Annotated[str, Field(pattern=NAME, max_length=52)]
    uid: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]


class Endpoint(Document):
    """One address of a version: an IP address, never a name, because nothing is resolved on the request path."""

    address: str
    port: Annotated[int, Field(ge=1, le=65535)]

    @model_validator(mode="after")
    def _check(self) -> Endpoint:
        try:
            ipaddress.ip_address(self.address)
        except ValueError:
            raise ValueError(f"address: expected an IPv4 or IPv6 address, got {self.address!r}") from None
        return self


class Dns(Document):
    """Where a version listens, by name: every address that the name has, at one port. Asked anew by its TTL.

    Attributes:
        host: The name. A final dot leaves the search list out.
        port: The TCP port, at every address.
    """

    host: HostName
    port: Annotated[int, Field(ge=1, le=65535)]

    @property
    def place(self) -> tuple[str, int]:
        """What is the same for every spelling."""
        return self.host.lower().removesuffix("."), self.port


class HealthCheck(Document):
    """How each endpoint of a version is asked whether it is well: a GET at an interval.

    Attributes:
        path: What is asked for, by GET; any 2xx or 3xx is well (checks). The usual name.
        interval: From one check of an endpoint to the next.
        timeout: For the head of the answer, connecting included; at most the interval. As Kubernetes' probes.
        unhealthy: Failures in a row that turn an endpoint out; healthy: passes in a row that bring it back.
        healthy: Passes in a row that bring it back. A process that crashes in a loop may pass once.
    """

    path: Target = "/healthz"
    interval: Annotated[Duration, Field(ge=0.1, le=3600)] = 5.0  # out after 15 s at the latest; requests are faster
    timeout: Annotated[Duration, Field(ge=0.05, le=60)] = 1.0  # as Kubernetes' probes
    unhealthy: Annotated[int, Field(ge=1, le=100)] = 3  # as Kubernetes' failureThreshold: one lost packet is none
    healthy: Annotated[int, Field(ge=1, le=100)] = 2  # a process that crashes in a loop may pass once

    @model_validator(mode="after")
    def _check(self) -> HealthCheck:
        if self.timeout > self.interval:
            raise ValueError("timeout is above interval: a check would begin before the last one has ended")
        return self


def _server_name(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return _host_name(text)


class ArmTls(Document):
    """The endpoints of an arm speak TLS, and must prove a name. An empty mapping is enough.

    Attributes:
        server_name: Absent: the name that they are found by, or each one's address.
    """

    server_name: (
        Annotated[str, Field(max_length=253), _schema(format="server-name"), AfterValidator(_server_name)] | None
    ) = None


class Arm(Document):
    """One version: its revision, its share of users in basis points and where it listens."""

    name: Name
    revision: Revision
    weight_bp: Annotated[int, Field(ge=0, le=BUCKETS)]
    endpoints: tuple[Endpoint, ...] = Field(default=(), max_length=5000)
    dns: Dns | None = None
    health_check: HealthCheck | None = None

    tls: ArmTls | None = None

    @model_validator(mode="after")
    def _check(self) -> Arm:
        if self.dns is not None and self.endpoints:
            raise ValueError("exactly one of endpoints and dns is needed")
        return self

    def proven_name(self, address: str) -> str | None:
        """What the endpoint at an address must prove to be; None: it is spoken to without TLS."""
        if self.tls is None:
            return None
        return (self.tls.server_name or (self.dns.host if self.dns else address)).removesuffix(".")


class Plan(Document):
    """What a proxy serves. Newer is the greater (generation, endpointsVersion) of the same rollout uid.

    Attributes:
        revision: The revision on trial; absent: none, and then ``arm: canary`` means stable.
        salt: 64 hexadecimal digits, as `assign.salt` makes them.
        arms: Stable first, then the canary, then a third; their weights sum to 10,000.
        header_routes: Those that the rollout's steps have set so far.
        lifts: Ids of abort latches that this plan ends.
    """

    api_version: Literal["cohort.dev/v1alpha1"] = "cohort.dev/v1alpha1"
    kind: Literal["Plan"] = "Plan"
    rollout: RolloutRef
    generation: Annotated[int, Field(ge=1, le=2**53)]
    endpoints_version: Annotated[int, Field(ge=0, le=2**53)] = 0
    revision: Revision | None = None
    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    arms: tuple[Arm, ...] = Field(min_length=1, max_length=3)
    users: Users
    routes: Routes = ()
    header_routes: Annotated[tuple[HeaderRoute, ...], Field(max_length=16)] = ()
    preview: Preview = Preview()
    explain: Explain = "OnRequest"
    on_arm_down: OnArmDown = "Stable"
    mirror: Mirror | None = None
    breaker: Breaker | None = None
    lifts: Annotated[tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")], ...], Field(max_length=MAX_LIST)] = ()

    @model_validator(mode="after")
    def _check(self) -> Plan:
        refuse(_problems(self))
        return self

    @property
    def version(self) -> tuple[int, int]:
        """What orders plans of one uid."""
        return (self.generation, self.endpoints_version)

    @property
    def digest(self) -> str:
        """32 hexadecimal digits that differ when any field does."""
        return hashlib.blake2b(self.model_dump_json(by_alias=True).encode(), digest_size=16).hexdigest()

    @property
    def core_digest(self) -> str:
        """The same for plans that differ in nothing but endpoints, their version and the salt.

        What is left at its default is left out, so that two versions of cohort agree on it.
        """
        without: Any = {"salt": True, "endpoints_version": True, "arms": {"__all__": {"endpoints"}}}
        value = self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=without)
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    @property
    def etag(self) -> str:
        """The entity tag of this plan on the admin API, quotes included."""
        return f'"{self.generation}.{self.endpoints_version}.{self.digest}"'

    @property
    def mint(self) -> MintSource | None:
        """The mint source, if one is listed."""
        return self.users[-1].mint

    @property
    def cookie_name(self) -> str:
        """The name of the cookie that carries the user key."""
        return (self.mint and self.mint.name) or f"cohort_{self.rollout.name}"


def user_faults(users: tuple[UserSource, ...]) -> list[Fault]:
    """What is wrong with a list of user sources as a whole."""
    faults = [Fault(f"users[{i}]", "mint must be the last source") for i, u in enumerate(users[:-1]) if u.mint]
    labels = [user.label for user in users]
    faults += [Fault(f"users[{i}]", f"{x} is listed twice") for i, x in enumerate(labels) if x in labels[:i]]
    return faults


def route_faults(routes: tuple[Route, ...], arms: tuple[str, ...]) -> list[Fault]:
    """What is wrong with a list of routes as a whole: repeated names and unknown arms."""
    faults = []
    for i, route in enumerate(routes):
        if route.name in [other.name for other in routes[:i]]:
            faults.append(Fault(f"routes[{i}].name", f"{route.name} is used twice"))
        if route.arm is not None and route.arm not in arms:
            faults.append(Fault(f"routes[{i}].arm", f"expected one of {', '.join(arms)}, got {route.arm!r}"))
    return faults


def _problems(plan: Plan) -> list[Fault]:
    names = [arm.name for arm in plan.arms]
    faults = user_faults(plan.users)
    # A plan may name the canary while no revision is on trial: then it means stable.
    faults += route_faults(plan.routes, tuple(dict.fromkeys((*names, "stable", "canary"))))
    others = tuple(dict.fromkeys((*names[1:], "canary")))
    if plan.mirror and plan.mirror.arm not in others:
        faults.append(Fault("mirror.arm", f"expected one of {', '.join(others)}, got {plan.mirror.arm!r}"))
    total = sum(arm.weight_bp for arm in plan.arms)
    if len(set(names)) != len(names):
        faults.append(Fault("arms", "names must differ"))
    if total != BUCKETS:
        faults.append(Fault("arms", f"weightBp must sum to {BUCKETS}, got {total}"))
    if plan.revision is None and plan.arms[0].weight_bp != BUCKETS:
        faults.append(Fault("arms[0].weightBp", f"without a revision on trial the first arm has all {BUCKETS}"))
    routes = [route.name for route in plan.header_routes]
    if len(set(routes)) != len(routes):
        faults.append(Fault("headerRoutes", "names must differ"))
    return faults


def parse_plan(text: bytes | str) -> Plan:
    """Read a plan from YAML or JSON.

    Raises:
        DocumentError: With every fault and its field path.
    """
    return parse(Plan, text)


def compile_regex(pattern: str) -> Any:
    """Compile a user's regular expression: RE2, linear in the input, over bytes as latin-1.

    Raises:
        ValueError: Not RE2 syntax, or too large a program.
    """
    options = re2.Options()
    options.max_mem = 1 << 20
    options.log_errors = False
    options.encoding = re2.Options.Encoding.LATIN1
    try:
        return re2.compile(pattern.encode(), options)
    except re2.error as error:
        reason = error.args[0].decode() if error.args and isinstance(error.args[0], bytes) else str(error)
        raise ValueError(f"not a regular expression of RE2: {reason}") from None
