"""Plans, secrets and requests for tests of who gets which version."""

from __future__ import annotations

from typing import Any

from proxy.decide import Decision, Splitter
from proxy.document import validate
from proxy.http1 import HeadLimits, Request, parse_request
from proxy.identity import TrustedPeers
from proxy.keys import Keys, Secret
from proxy.plan import Plan

NOW = 1_700_000_000.0
MINTED = bytes(range(16))
SALT = "00112233445566778899aabbccddeeff" * 2
LIMITS = HeadLimits(block_bytes=1 << 20, count=1000, target_bytes=65_536)
KEYS = Keys(*(Secret(bytes([number]) * 32) for number in range(1, 7)))
TRUSTED = TrustedPeers(["10.0.0.0/8"])


def arms(*weights_bp: int) -> list[dict[str, Any]]:
    """Stable with what is left, then the canary, then a third arm."""
    names = ("stable", "canary", "baseline")
    shares = (10_000 - sum(weights_bp), *weights_bp)
    return [
        {"name": name, "revision": f"v{i}", "weightBp": share}
        for i, (name, share) in enumerate(zip(names, shares, strict=False), start=1)
    ]


def plan(**fields: Any) -> Plan:
    """A plan with 25 % on the canary and a minted key, but for the fields given."""
    whole: dict[str, Any] = {
        "rollout": {"namespace": "shop", "name": "checkout", "uid": "7c9f"},
        "generation": 1,
        "revision": "v2",
        "salt": SALT,
        "arms": arms(2_500),
        "users": [{"mint": {}}],
    }
    return validate(Plan, whole | fields)


def splitter(keys: Keys = KEYS, rng: bytes = MINTED, **fields: Any) -> Splitter:
    """A splitter of `plan`, whose random bytes are always the same."""
    return Splitter(plan(**fields), keys, TRUSTED, lambda count: rng[:count])


def request(target: str = "/", *lines: str, method: str = "GET", host: str = "shop.example") -> Request:
    """A request as the real parser makes it; lines are header lines in latin-1."""
    head = "".join(f"{line}\r\n" for line in (f"{method} {target} HTTP/1.1", f"Host: {host}", *lines, ""))
    return parse_request(head.encode("latin-1"), LIMITS)


def decide(
    chosen: Splitter,
    target: str = "/",
    *lines: str,
    client: str = "192.0.2.1",
    trusted: bool = False,
    secure: bool = False,
    latched: bool = False,
    now: float = NOW,
    method: str = "GET",
    host: str = "shop.example",
) -> Decision:
    """Decide about one request."""
    return chosen.decide(request(target, *lines, method=method, host=host), client, trusted, secure, latched, now)


def cookie_of(line: bytes) -> str:
    """The Cookie header line that a browser sends back for a Set-Cookie line."""
    return "Cookie: " + line.decode().removeprefix("Set-Cookie: ").split(";")[0]
