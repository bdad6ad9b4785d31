"""Runs attacks against several proxies at once, a given list or a search for some time."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.wire.attack import Attack, attack
from tests.wire.case import CaseFile
from tests.wire.mutate import Given, answers, attacks, reduced, replies, seeds
from tests.wire.oracle import grown, is_late
from tests.wire.permute import permutations
from tests.wire.reply import reply
from tests.wire.stand import Stand, stand

LANES = 2  # a lane keeps half a processor busy, and its proxy another
BATCH = 50  # attacks between two looks at memory
FINDINGS = 10  # then a search has said enough
WHY_CHARS = 200
PROGRESS_S = 10.0
CONFIRMATIONS = 3
PATIENCE_S = 1.0


@dataclass
class Findings:
    """What a search has found: attacks, and what was wrong with each."""

    tried: int = 0
    found: list[tuple[Given, list[str]]] = field(default_factory=list)

    def lines(self) -> Iterator[str]:
        """One line each, the same as cases in the format of the files, then the numbers."""
        for given, faults in self.found:
            yield f"FAIL {'; '.join(faults)} | {given.segments!r}"
        for given, faults in self.found:
            yield as_case(given, faults)
        yield f"{self.tried - len(self.found)} passed, {len(self.found)} failed"


def as_case(given: Given, faults: Sequence[str]) -> str:
    """A finding as a line for a file of cases. JSON is YAML."""
    fields = given.fields()
    mark = hashlib.blake2b(given.data, digest_size=4).hexdigest()
    head = {
        "id": f"FZ-{mark}",
        "class": "fuzz",
        "sev": "must",
        "why": "; ".join(faults)[:WHY_CHARS],
        "source": "search",
    }
    return f"- {json.dumps({**head, **fields})}"


async def run_permutations(limits: Mapping[str, int]) -> Findings:
    """All permutations of Content-Length and Transfer-Encoding."""
    return await _run(permutations(), limits, float("inf"))


async def run_search(file: CaseFile, seconds: float, seed: int, is_told: bool = False) -> Findings:
    """Mutations for so many seconds; the same seed makes the same attacks in the same order.

    Args:
        is_told: Print how far it is, every `PROGRESS_S`.
    """
    rng = random.Random(seed)
    of_clients, of_services = attacks(rng, seeds(file.cases)), replies(rng, answers(file.cases))
    both = (given for pair in zip(of_clients, of_services, strict=False) for given in pair)
    return await _run(both, file.limits, seconds, is_told)


async def _run(given: Iterable[Given], limits: Mapping[str, int], seconds: float, is_told: bool = False) -> Findings:
    findings = Findings()
    source = iter(given)
    progress = asyncio.create_task(_progress(findings)) if is_told else None
    async with asyncio.TaskGroup() as tasks:
        for _ in range(LANES):
            tasks.create_task(_lane(source, limits, seconds, findings))
    if progress is not None:
        progress.cancel()
    return findings


async def _progress(findings: Findings) -> None:
    while True:
        await asyncio.sleep(PROGRESS_S)
        print(f"{findings.tried} tried, {len(findings.found)} found", flush=True)


async def _lane(source: Iterator[Given], limits: Mapping[str, int], seconds: float, findings: Findings) -> None:
    async with stand("base", limits) as running:
        deadline = time.monotonic() + seconds
        running.watch.begin()
        for number, given in enumerate(source):
            faults = await _judged(running, given)
            findings.tried += 1
            if number % BATCH == BATCH - 1:
                faults += _looked(running)
            if faults := await _confirmed(running, given, faults):
                findings.found.append(await _shortest(running, given, faults))
            if time.monotonic() > deadline or len(findings.found) >= FINDINGS or not running.is_alive:
                return


def _looked(running: Stand) -> list[str]:
    """I7 for a batch, without the clock: both lanes and the proxies share the processors."""
    _, growth, trouble = running.watch.told()
    running.watch.begin()
    return grown(growth, trouble, running.is_alive)


async def _confirmed(running: Stand, given: Given, faults: list[str]) -> list[str]:
    """What is late because the machine is busy is not late each time; what the proxy does wrong is wrong again."""
    for _ in range(CONFIRMATIONS):
        if not faults or not all(is_late(fault) for fault in faults) or not running.is_alive:
            break
        await asyncio.sleep(PATIENCE_S)
        _looked(running)
        faults = await _judged(running, given)
    return faults


async def _judged(running: Stand, given: Given) -> list[str]:
    return await (attack(running, given) if isinstance(given, Attack) else reply(running, given))


async def _shortest(running: Stand, given: Given, faults: Sequence[str]) -> tuple[Given, list[str]]:
    kinds = {_kind(fault) for fault in faults}

    async def is_wrong(shorter: Given) -> bool:
        return not kinds.isdisjoint(map(_kind, await _judged(running, shorter)))

    return (await reduced(given, is_wrong) if running.is_alive else given), list(faults)


def _kind(fault: str) -> str:
    return fault.partition(":")[0]
