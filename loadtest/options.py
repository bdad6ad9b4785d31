"""What one run of synthetic users is told, and the short spellings that people type."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
JOURNEYS = {"shop": "/,/product,/cart,POST /checkout", "home": "/"}
IDENTITIES = ("cookie", "header", "login")
MANY_USERS = 2_000
HIGHEST_PORT = 65_535
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_STEP = re.compile(r"(?:([A-Z]+) )?(/[\x21-\x7e]*)")


@dataclass(frozen=True, slots=True)
class Options:
    """One run.

    Attributes:
        target: ``http://host:port`` of the proxy, without a path.
        users: Users at a time; ``spawn_rate`` of them arrive in a second.
        duration_s: 0: until it is stopped.
        think_s: Shortest and longest pause between a user's requests.
        journey: Requests as ``parse_journey`` reads them.
        identity: One of `IDENTITIES`.
        user_header: The header that names the user, and what each name begins with.
        leave_percent: Share of users who leave for good after a journey; a new user comes in the place of each.
        connections: ``keep-alive`` (one a user), ``close`` (one a request), a number that all users share, or ``auto``:
            one a user, but of more than `MANY_USERS` all share that many, for proxies bound their connections (by
            default ours 10,000 a worker) and whoever waits for one is not served.
        version_header: A response header by which the service names its own version, compared with the proxy's word.
        plans: URL or file with plans, so that their weights can be held against moves; empty: none.
        report: URL or file that is told what each user saw last; empty: none.
        synthetic_key: File of the secret that signs every request as synthetic; empty: none is, and all count as
            users' requests.
        rollout: ``namespace/name`` to sign for.
        web_port: Port of locust's own page; 0: none.
        workers: The fewest workers that a master waits for; 0: this process is no master.
        bind: Where a master takes workers, and its page visitors, as ``host:port``; ``*`` is every address.
        master: The master whose worker this process is, as ``host:port``; empty: none.
        progress_s: Seconds between progress lines; 0: none.
    """

    target: str
    users: int
    spawn_rate: float
    duration_s: float = 0.0
    think_s: tuple[float, float] = (1.0, 3.0)
    journey: str = "shop"
    identity: str = "cookie"
    user_header: str = "X-User-Id"
    user_prefix: str = "user-"
    leave_percent: float = 0.0
    connections: str = "auto"
    timeout_s: float = 30.0
    version_header: str = ""
    plans: str = ""
    report: str = ""
    synthetic_key: str = ""
    rollout: str = ""
    web_port: int = 0
    workers: int = 0
    bind: str = "127.0.0.1:5557"
    master: str = ""
    progress_s: float = 5.0
    seed: int = 0
    output: str = "table"


def to_json(options: Options) -> str:
    """One line, for the command line of the process that runs the users."""
    return json.dumps(asdict(options))


def from_json(text: str) -> Options:
    """What `to_json` wrote."""
    values = json.loads(text)
    return Options(**{**values, "think_s": tuple(values["think_s"])})


def shared_connections(options: Options) -> int:
    """How many connections all users share; 0: each has its own."""
    if options.connections == "auto":
        return MANY_USERS if options.users > MANY_USERS else 0
    return int(options.connections) if options.connections.isdecimal() else 0


def parse_duration(text: str) -> float:
    """Seconds of ``250ms``, ``1.5s``, ``10m`` or ``2h``.

    Raises:
        ValueError: Anything else.
    """
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError(f"expected a duration such as 500ms, 30s or 10m, got {text!r}")
    return float(match[1]) * _UNIT_S[match[2]]


def parse_think(text: str) -> tuple[float, float]:
    """Shortest and longest think time in seconds of ``1s..3s``, or of ``2s`` for always the same.

    Raises:
        ValueError: Not durations, or the longest is shorter.
    """
    low, dots, high = text.partition("..")
    think = (parse_duration(low), parse_duration(high if dots else low))
    if think[0] > think[1]:
        raise ValueError(f"the shortest think time comes first: {high}..{low}")
    return think


def parse_journey(text: str) -> list[tuple[str, str]]:
    """Method and target of each step of ``/,/cart,POST /checkout``, or of a journey's name.

    Raises:
        ValueError: No step, an unknown method, or a target that does not begin with a slash.
    """
    steps = []
    for step in JOURNEYS.get(text, text).split(","):
        match = _STEP.fullmatch(step.strip())
        if not match or (match[1] or "GET") not in METHODS:
            names = ", ".join(JOURNEYS)
            raise ValueError(f'expected one of {names} or steps such as "/,/cart,POST /checkout", got {step.strip()!r}')
        steps.append((match[1] or "GET", match[2]))
    return steps


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of ``host:port``; ``*`` as a host stays as it is.

    Raises:
        ValueError: Anything else.
    """
    host, _, port = text.rpartition(":")
    if not host or not re.fullmatch(r"[A-Za-z0-9.*:\[\]-]+", host) or not port.isascii() or not port.isdecimal():
        raise ValueError(f"expected HOST:PORT, got {text!r}")
    if not 0 < int(port) <= HIGHEST_PORT:
        raise ValueError(f"expected a port from 1 to {HIGHEST_PORT}, got {port}")
    return host, int(port)


def parse_target(text: str) -> tuple[str, int]:
    """Host and port of ``http://host[:port]``.

    Raises:
        ValueError: Anything else, a path or a user included.
    """
    url = urlsplit(text)
    if url.scheme != "http" or not url.hostname or url.path not in ("", "/") or url.query or url.username:
        raise ValueError(f"expected http://HOST:PORT without a path, got {text!r}")
    return url.hostname, url.port or 80
