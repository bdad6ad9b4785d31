"""Autobahn's cases in a process of their own: ``python -m tests.websocket.fuzz client|server ADDRESS CASE...``.

Prints the verdicts as one JSON object: by case what is said of its messages, of its end, and the code of the Close
frame that came. As a client it takes the service at a URL through the cases; as a server, at HOST:PORT, it prints a
line once it listens, and the client decides when the run is over.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Coroutine, Sequence

from kosoku import FailureError, run_fuzzingclient, run_fuzzingserver

CONCURRENCY = 8  # of cases chosen by a pattern; named ones are run one after another


async def client(url: str, cases: Sequence[str]) -> None:
    """Fuzz a service."""
    is_pattern = any("*" in case for case in cases)
    await _report(run_fuzzingclient(url, cases, None, CONCURRENCY if is_pattern else 1))


async def server(address: str, cases: Sequence[str]) -> None:
    """Fuzz a client."""
    host, _, port = address.rpartition(":")
    async with run_fuzzingserver(cases, host=host, port=int(port)) as running:
        print("listening", flush=True)
        await _report(running.get_result())


async def _report(run: Coroutine[None, None, list]) -> None:  # type: ignore[type-arg]
    try:
        results = await run
    except FailureError as error:  # cases that fail, as those of the other program may
        results = error.results
    print(json.dumps({r.case_id: (r.behavior.value, r.behavior_close.value, r.remote_close_code) for r in results}))


if __name__ == "__main__":
    asyncio.run({"client": client, "server": server}[sys.argv[1]](sys.argv[2], sys.argv[3:]))
