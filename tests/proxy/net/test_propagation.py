"""Two rollouts, one behind the other: the inner one goes along with the outer one, step by step."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

from tests.support.dataplane import REPLY, Proxy, Service, plan, replies, series, service, until

LOCAL = {"trustedPeers": ["127.0.0.0/8"]}


class Chain:
    """An outer cohort, an inner one as both versions behind it, and the inner one's two versions."""

    def __init__(self, outer: Proxy, inner: Proxy, services: list[Service]) -> None:
        self.outer, self.inner = outer, inner
        self.stable, self.canary = services

    def adopt(self, generation: int, canary_bp: int, **changes: Any) -> None:
        """The outer one's plan."""
        port = self.inner.port
        self.outer.adopt(plan([port], [port], canary_bp, generation=generation, **changes))

    async def ask(self, *lines: bytes) -> bytes:
        told = b"".join(line + b"\r\n" for line in (b"Host: t", b"Cookie: uid=1", b"Connection: close", *lines))
        return await self.outer.ask(b"GET /a HTTP/1.1\r\n%b\r\n" % told)


@contextlib.asynccontextmanager
async def chain(**inside: Any) -> AsyncIterator[Chain]:
    async with (
        service(replies(REPLY)) as (old, stable),
        service(replies(REPLY)) as (new, canary),
        Proxy(LOCAL) as inner,
        Proxy({}) as outer,
    ):
        inner.adopt(plan([stable], [canary], **inside))
        yield Chain(outer, inner, [old, new])


def field(head: bytes, name: bytes) -> bytes:
    [value] = re.findall(rb"(?im)^%b: (.*)\r$" % re.escape(name), head)
    return bytes(value)


async def test_the_inner_version_follows_the_outer_one() -> None:
    """A9: by weight, then by an abort in front; one trace and one request id all the way."""
    async with chain() as both:
        trace = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        both.adopt(1, 10_000)
        await both.ask(b"X-Request-Id: mine", b"traceparent: " + trace, b"tracestate: a=1", b"baggage: k=v")
        [head] = both.canary.heads
        assert field(head, b"X-Cohort-Reason") == b"outer"
        assert field(head, b"X-Request-Id") == b"mine"
        assert (field(head, b"traceparent"), field(head, b"tracestate")) == (trace, b"a=1")
        assert field(head, b"baggage") == b"k=v,cohort.arm=canary"
        both.outer.words.latch = 1
        await both.ask()
        [head] = both.stable.heads
        assert (field(head, b"X-Cohort-Arm"), field(head, b"X-Cohort-Reason")) == (b"stable", b"outer")
        assert series(both.inner, "requests") == {
            ("canary", "outer", "forced", "200", "ok"): 1,
            ("stable", "outer", "forced", "200", "ok"): 1,
        }


async def test_an_abort_inside_outranks_the_outer_choice() -> None:
    async with chain() as both:
        both.adopt(1, 10_000)
        both.inner.words.latch = 1
        await both.ask()
        assert field(both.stable.heads[0], b"X-Cohort-Reason") == b"abort"


async def test_a_client_cannot_reach_through_to_the_inner_one() -> None:
    """What he says of arms ends at the outer one."""
    async with chain() as both:
        both.adopt(1, 0)
        await both.ask(b"X-Cohort-Arm: canary", b"baggage: cohort.arm=canary")
        assert not both.canary.heads
        assert field(both.stable.heads[0], b"baggage") == b"cohort.arm=stable"


async def test_a_copy_is_a_copy_all_the_way() -> None:
    """Counted as one inside, not copied once more, and told as one to whatever lies behind."""
    mirror = {"arm": "canary", "percent": 100}
    async with chain(mirror=mirror) as both:
        both.adopt(1, 0, mirror=mirror)
        await both.ask()
        await until(lambda: len(series(both.inner, "requests")) == 2)
        assert series(both.inner, "requests") == {
            ("stable", "outer", "forced", "200", "ok"): 1,
            ("canary", "outer", "mirror", "200", "ok"): 1,
        }
        assert not series(both.inner, "mirrored")
        assert field(both.canary.heads[0], b"baggage") == b"cohort.arm=canary;mirror"
        assert field(both.stable.heads[0], b"baggage") == b"cohort.arm=stable"
