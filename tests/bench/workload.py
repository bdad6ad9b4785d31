"""What is sent and who is measured with it: workloads as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

USER = "@USER@"  # stands for the user's id in a request

BROWSER_FIELDS = (
    ("Host", "shop.example"),
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"),
    ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"),
    ("Accept-Language", "en-US,en;q=0.5"),
    ("Accept-Encoding", "gzip, deflate, br"),
    ("Connection", "keep-alive"),
    ("Referer", "http://shop.example/products"),
    ("Cookie", "theme=dark; uid=@USER@; lang=en"),
    ("Upgrade-Insecure-Requests", "1"),
)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run a peer; more than one in a workload, and each but the first is compared with the first.

    Attributes:
        label: Added to the peer's name; empty for the first.
        changes: Fields of its `Job`.
    """

    label: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of request and the split that a peer has to make of its senders.

    Attributes:
        about: What the page says about it.
        kind: How it is measured: a key of `tests.bench.kinds.KINDS`.
        fields: Of each request; ``@USER@`` stands for the user's id, which the cookie ``uid`` carries.
        body_bytes: Of each request; 0: a GET, else a POST.
        answer_bytes: Size of the body that either backend answers with.
        answer_id: Each answer has a header field of its own, as services that trace do.
        is_streamed: The answer comes in chunks of 1 KiB, each written by itself.
        closes: Each request has a connection of its own.
        has_tls: The client speaks TLS 1.3.
        connections: Kept alive by the generator.
        users: Distinct ids, sent in turn.
        canary_percent: The share of users that the peer must send to the second backend.
        needs: What `Peer.lacks` is asked for; who lacks one of these is left out.
        only: Peers that are measured; empty: all.
        rounds, seconds: If nobody says otherwise.
    """

    name: str
    about: str
    kind: str = "load"
    path: str = "/products/42?color=blue"
    fields: tuple[tuple[str, str], ...] = BROWSER_FIELDS
    body_bytes: int = 0
    answer_bytes: int = 126
    answer_id: bool = False
    is_streamed: bool = False
    closes: bool = False
    has_tls: bool = False
    connections: int = 64
    users: int = 10_000
    canary_percent: int = 25
    needs: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = (Variant(),)
    only: tuple[str, ...] = ()
    rounds: int = 3
    seconds: int = 2

    def head(self, user: str = USER) -> bytes:
        """The bytes of one user's request up to the body."""
        fields = [(name, "close" if self.closes and name == "Connection" else value) for name, value in self.fields]
        if self.body_bytes:
            fields += [("Content-Type", "application/json"), ("Content-Length", str(self.body_bytes))]
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
        return "\r\n".join([*lines, "", ""]).replace(USER, user).encode()

    def request(self, user: str = USER) -> bytes:
        """The bytes of one user's request."""
        return self.head(user) + b"b" * self.body_bytes

    @property
    def method(self) -> str:
        """GET, or POST where there is a body."""
        return "POST" if self.body_bytes else "GET"

    def answers(self) -> Mapping[str, bytes]:
        """The body that each backend answers with, by arm."""
        return {arm: f"{arm}\n".encode().ljust(self.answer_bytes, b".") for arm in ("stable", "canary")}


def user_id(number: int) -> str:
    """The same ids as users.lua makes: evenly spread digits first, the number last."""
    return f"{number * 2_654_435_761 % 2**32:08x}-0000-4000-8000-{number:012x}"


_SAME = Workload(
    "small-get",
    "Every request has the same header lines but for its cookie, every answer those of its second: what browsers of "
    "one kind and a plain service send. We remember such lines, so that a look-up does for parsing.",
    rounds=5,
)
_NEW = replace(
    _SAME,
    name="small-get-new-lines",
    about="The same with a `Referer` and an answer's id that were not seen before, so that nothing can be remembered.",
    fields=tuple((name, f"{value}?from=@USER@" if name == "Referer" else value) for name, value in BROWSER_FIELDS),
    answer_id=True,
    rounds=3,
)
_MANY = Workload(
    "big-headers",
    "40 header fields, among them cookies of 4 KiB, as behind a single sign-on.",
    fields=(
        *((name, value) for name, value in BROWSER_FIELDS if name != "Cookie"),
        *((f"X-Request-Detail-{number:02}", f"value-{number:04}-of-a-usual-length") for number in range(31)),
        (
            "Cookie",
            "; ".join(f"session_part_{number:02}={'0123456789abcdef' * 7}" for number in range(32)) + "; uid=@USER@",
        ),
    ),
)
_PLAIN = (
    _MANY,
    Workload("post-4k", "POST with a body of 4 KiB, answered with 126 bytes.", body_bytes=4096),
    Workload("answer-64k", "Answers of 64 KiB with a Content-Length.", answer_bytes=65_536, connections=32),
    Workload(
        "answer-1m", "Answers of 1 MiB with a Content-Length.", answer_bytes=1_048_576, connections=16, users=1_000
    ),
    Workload(
        "chunked",
        "Answers of 32 chunks of 1 KiB, each written by itself by the service and passed on as it comes.",
        answer_bytes=32_768,
        is_streamed=True,
        connections=32,
    ),
    Workload("new-connection", "A new connection for every request.", closes=True),
    Workload("tls", "TLS 1.3 with the client, connections kept alive.", has_tls=True, needs=("tls",)),
    Workload(
        "tls-handshake",
        "A new TLS 1.3 connection for every request, nothing resumed; the certificate's key is on P-256.",
        has_tls=True,
        closes=True,
        needs=("tls",),
    ),
)
_IDLE = "connections that have each had one answer and wait: the memory that they add to a proxy that has warmed up."
_OTHER = (
    Workload(
        "latency",
        "The small GET at a fixed rate, the same for all: half of what cohort takes, at most 6,000 a second. An open "
        "loop by oha, as one user, whose times count from when a request should have been sent (coordinated omission).",
        kind="latency",
        seconds=4,
    ),
    Workload("idle-1000", f"1,000 {_IDLE}", kind="memory", connections=1_000, needs=("idle",)),
    Workload(
        "idle-10000",
        f"As many as may be open, up to 10,000 {_IDLE}",
        kind="memory",
        connections=10_000,
        needs=("idle",),
        rounds=2,
    ),
    Workload(
        "websocket",
        "Messages of 64 bytes to an echo service and back over WebSocket connections; a request is one both ways.",
        kind="echo",
        answer_bytes=4096,
        is_streamed=True,
        variants=(Variant(changes={"upgrades": True}),),
    ),
    Workload(
        "change",
        "Everybody to the canary and back, twice, then nobody (for cohort an abort), by each proxy's own means under a "
        "load of small GETs: from the command to the last request that is answered as before, of one every few ms.",
        kind="change",
        needs=("change",),
        variants=(Variant(changes={"is_changed": True}),),
        seconds=6,
    ),
    Workload(
        "workers",
        "The small GET with one worker and with two. The second one runs on the core of generator and services, so "
        "that what a request costs says more than how many there are.",
        variants=(Variant(), Variant(", 2 workers", {"workers": 2})),
        needs=("workers",),
    ),
    Workload(
        "access-log",
        "The small GET without and with a line of the access log for each, written to a file.",
        variants=(Variant(), Variant(", access log", {"has_log": True})),
        only=("cohort", "nginx"),
        rounds=5,
    ),
    Workload(
        "compiled",
        "The small GET with the modules that `make compiled` makes, and with the same sources run as Python.",
        variants=(Variant(), Variant(", not compiled", {"is_compiled": False})),
        only=("cohort",),
    ),
)
WORKLOADS = {workload.name: workload for workload in (_SAME, _NEW, *_PLAIN, *_OTHER)}
