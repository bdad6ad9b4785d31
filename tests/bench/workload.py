"""What is sent: workloads as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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
class Workload:
    """One kind of request and the split that a peer has to make of its senders.

    Attributes:
        fields: Of each request; ``@USER@`` stands for the user's id, which the cookie ``uid`` carries.
        about: What the page says about it.
        answer_bytes: Size of the body that either backend answers with.
        answer_id: Each answer has a header field of its own, as services that trace do.
        connections: Kept alive by the generator.
        users: Distinct ids, sent in turn.
        canary_percent: The share of users that the peer must send to the second backend.
    """

    name: str
    about: str
    path: str = "/products/42?color=blue"
    fields: tuple[tuple[str, str], ...] = BROWSER_FIELDS
    answer_bytes: int = 126
    answer_id: bool = False
    connections: int = 64
    users: int = 10_000
    canary_percent: int = 25

    def request(self, user: str = "@USER@") -> bytes:
        """The bytes of one user's request."""
        lines = [f"GET {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in self.fields)]
        return "\r\n".join([*lines, "", ""]).replace("@USER@", user).encode()

    def answers(self) -> Mapping[str, bytes]:
        """The body that each backend answers with, by arm."""
        return {arm: f"{arm}\n".encode().ljust(self.answer_bytes, b".") for arm in ("stable", "canary")}


_SAME = Workload(
    "small-get",
    "Every request has the same header lines but for its cookie, every answer those of its second: what browsers of "
    "one kind and a plain service send. We remember such lines, so that a look-up does for parsing.",
)
_NEW = Workload(
    "small-get-new-lines",
    "The same with a `Referer` and an answer's id that were not seen before, so that nothing can be remembered.",
    fields=tuple((name, f"{value}?from=@USER@" if name == "Referer" else value) for name, value in BROWSER_FIELDS),
    answer_id=True,
)
WORKLOADS = {workload.name: workload for workload in (_SAME, _NEW)}
