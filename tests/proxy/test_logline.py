from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.logline import HOST_SHOWN, PLAIN_END, TARGET_SHOWN, Lines, figures, refusal

FIGURES = figures(200, 126, 7, 0.000412, 0.000041, b"4f" * 16)


def line(lines: Lines, method: bytes = b"GET", host: bytes = b"shop.example", target: bytes = b"/") -> dict[str, Any]:
    """A whole line as a reader has it."""
    text = lines.beginning(1763719999.25, "127.0.0.1", method, host, target) + FIGURES
    text += lines.tail("canary", "split", 4, "127.0.0.1:8080", 1)
    assert text.count("\n") == 1
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_line_says_it_all() -> None:
    """The fields of docs/operations.md, in their order."""
    assert line(Lines(), target=b"/products/42?color=blue") == {
        "time": 1763719999.25,
        "client": "127.0.0.1",
        "method": "GET",
        "host": "shop.example",
        "target": "/products/42?color=blue",
        "status": 200,
        "sent": 126,
        "received": 7,
        "seconds": 0.000412,
        "upstreamSeconds": 0.000041,
        "requestId": "4f" * 16,
        "arm": "canary",
        "reason": "split",
        "generation": 4,
        "endpoint": "127.0.0.1:8080",
        "attempts": 1,
    }


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20), st.binary(max_size=20)), max_size=20))
def test_no_bytes_of_a_peer_break_a_line(sent: list[tuple[bytes, bytes, bytes]]) -> None:
    """LG: whatever is sent reads back as it was, also where it is remembered."""
    lines = Lines()
    for method, host, target in sent * 2:
        found = line(lines, method, host, target)
        told = tuple(found[name].encode("latin-1") for name in ("method", "host", "target"))
        assert told == (method, host, target)


def test_what_is_very_long_is_cut() -> None:
    """A line of a hostile peer is longer than others, but bounded."""
    found = line(Lines(), host=b"\xff" * 30_000, target=b"\xff" * 16_384)
    assert (len(found["host"]), len(found["target"])) == (HOST_SHOWN, TARGET_SHOWN)


def test_ever_new_hosts_and_endpoints_cost_no_memory() -> None:
    """What is remembered is bounded."""
    lines = Lines()
    for number in range(5000):
        line(lines, host=b"host-%d" % number)
        lines.tail("canary", "split", number, "127.0.0.1:8080", 1)
    assert len(lines._quoted) <= 1024
    assert len(lines._tails) <= 1024


@pytest.mark.parametrize("wall_s", [1.5, 1763719999.999])
def test_time_is_that_of_the_line(wall_s: float) -> None:
    """The text of the last time is kept for the next line, and no longer."""
    lines = Lines()
    line(lines)
    text = lines.beginning(wall_s, "::1", b"", b"", b"") + FIGURES + PLAIN_END
    assert json.loads(text)["time"] == wall_s


def test_a_refusal_tells_why() -> None:
    text = Lines().beginning(1.5, "::1", b"", b"", b"") + FIGURES + refusal('expected "x", got \x00\n')
    assert json.loads(text)["refused"] == 'expected "x", got \x00\n'
