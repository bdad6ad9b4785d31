"""Stacks sorted into phases."""

from __future__ import annotations

import pytest

from tests.bench.profile import PHASES, phase_of, shares

LOOP = "run (asyncio/runners.py:118);run_forever (loop.c:33397);uv_run (core.c:464);uv__io_poll (linux.c:1546)"
READ = f"{LOOP};uv__read (stream.c:1154);CPyPy_downstream___Downstream___buffer_updated (cohort__mypyc.so)"


@pytest.mark.parametrize(
    ("stack", "phase"),
    [
        (f"{LOOP};epoll_pwait (libc.so.6)", "poll"),
        (f"{LOOP};uv__read (stream.c:1063);read (libc.so.6)", "receive"),
        (f"{READ};CPyDef_relay___Relay___connected (cohort__mypyc.so);write (libc.so.6)", "send"),
        (f"{LOOP};uv__stream_io (stream.c:1210)", "event loop"),
        (READ, "exchange"),
        (f"{READ};CPyDef_memo___HeadMemo___parse (cohort__mypyc.so);PyDict_GetItem (python3.11)", "read heads"),
        (f"{READ};CPyDef_decide___Splitter___decide (cohort__mypyc.so);CPyDef_assign___bucket (c.so)", "decide"),
        ("main (proxy/net/worker.py:99);buffer_updated (proxy/net/upstream.py:210)", "exchange"),
        ("main (proxy/net/worker.py:99);_head (proxy/net/relay.py:3);head (proxy/forward.py:88)", "write heads"),
        (f"{READ};CPyDef_server___Server___count (c.so);CPyDef_counters___Counters___user (c.so)", "account"),
    ],
)
def test_a_stack_belongs_to_the_innermost_phase(stack: str, phase: str) -> None:
    """Compiled or not; what the kernel does is told apart."""
    assert phase_of(stack).name == phase


def test_shares_leave_out_threads_that_wait() -> None:
    """The log's thread is no part of a request."""
    found = shares([f"{LOOP};epoll_pwait (libc.so.6) 3", f"{READ} 1", "Thread._bootstrap (threading.py:995);wait 90"])
    assert (found["poll"], found["exchange"], found["send"]) == (0.75, 0.25, 0)


def test_no_module_is_in_two_phases() -> None:
    """Else the first one would get all of it."""
    names = [name for phase in PHASES for name in phase.modules]
    assert len(names) == len(set(names))
