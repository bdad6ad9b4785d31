"""Which case runs where and when: several proxies side by side, each with one case at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.wire.case import Await, Case, CaseFile, Drip, Pause
from tests.wire.features import obstacle
from tests.wire.lenient import PERSONALITIES
from tests.wire.profile import response_head_ms
from tests.wire.run import STUCK, Result, at_rest, leaks, own_descriptors, probe, run_case
from tests.wire.stand import stand

LANES = 6  # proxies at once: most cases wait most of the time
QUICK_MS = 200
BATCH = 70  # cases of one set-up that one proxy takes


@dataclass(frozen=True)
class Group:
    """Cases that one proxy can run."""

    profile: str
    response_head_ms: int
    personality: str
    cases: Sequence[Case]


@dataclass
class Report:
    """What became of all cases.

    Attributes:
        skipped: By id, with the reason.
        late: What only the clock was against.
    """

    results: list[Result] = field(default_factory=list)
    skipped: dict[str, tuple[Case, str]] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)
    late: list[tuple[Group, Result]] = field(default_factory=list)

    @property
    def failed(self) -> dict[str, Result]:
        """By id, the first variant of each; what failed only before a careless service comes last."""
        found: dict[str, Result] = {}
        for result in sorted(self.results, key=lambda result: "@" in result.case.label):
            if not result.is_passed:
                found.setdefault(result.case.id, result)
        return found

    @property
    def passed(self) -> set[str]:
        """Ids of which every variant passed."""
        return {result.case.id for result in self.results} - self.failed.keys()

    @property
    def is_good(self) -> bool:
        """Every `must` case of phase 1 has run and passed, and nothing leaked."""
        failed = any(result.case.is_mandatory for result in self.failed.values())
        missing = any(case.is_mandatory for case, _ in self.skipped.values())
        return not failed and not missing and not self.leaks

    def lines(self, is_verbose: bool) -> Iterator[str]:
        """The report; the last line has the numbers."""
        if is_verbose:
            for result in self.results:
                if result.is_passed:
                    yield f"ok {result.case.label} {result.shown}"
        for result in self.failed.values():
            faults = "; ".join(result.faults + result.timing)
            yield f"FAIL {result.case.label} [{result.case.sev}] {faults} | {result.shown}"
        yield from (f"LEAK {text}" for text in self.leaks)
        reasons: dict[str, list[str]] = {}
        for name, (case, reason) in self.skipped.items():
            reasons.setdefault(reason, []).append(f"{name}{'' if case.is_mandatory else ' (optional)'}")
        for reason, names in reasons.items():
            yield f"not run: {reason}: {', '.join(names)}"
        yield f"{len(self.passed)} passed, {len(self.failed)} failed"


def groups(cases: Sequence[Case], limits: Mapping[str, int]) -> list[Group]:
    """Sort cases by the proxy that they need; classes stay together."""
    by_need: dict[tuple[str, int], list[Case]] = {}
    for case in cases:
        by_need.setdefault((case.profile, response_head_ms(case, limits)), []).append(case)
    found = []
    for (profile, head_ms), wanted in by_need.items():
        batch: list[Case] = []
        for class_ in dict.fromkeys(case.class_ for case in wanted):
            batch += [case for case in wanted if case.class_ == class_]
            if len(batch) >= BATCH:
                found.append(Group(profile, head_ms, "", batch))
                batch = []
        if batch:
            found.append(Group(profile, head_ms, "", batch))
    return found


def careless_groups(cases: Sequence[Case], limits: Mapping[str, int]) -> list[Group]:
    """Once more, before careless services, what a client sends to a service that just echoes."""
    firsts = {case.id: case for case in reversed(cases)}.values()  # of a case's variants one: I2 asks for all anyway
    chosen = [case for case in firsts if case.up is None and not case.endpoints and _is_quick(case)]
    return [
        replace(group, personality=name, cases=[replace(case, label=f"{case.label}@{name}") for case in group.cases])
        for name in PERSONALITIES
        for group in groups([case for case in chosen if case.profile == "base" and case.port == "data"], limits)
    ]


def _is_quick(case: Case) -> bool:
    """Neither many runs nor long pauses, and no wait for 100, which careless services never send."""
    return case.repeat * case.conns == 1 and not any(
        isinstance(step, Drip)
        or (isinstance(step, Pause) and step.ms > QUICK_MS)
        or (isinstance(step, Await) and 100 <= step.status < 200)
        for step in case.send
    )


async def run_all(file: CaseFile, only: Sequence[str]) -> Report:
    """Run cases of a file, all or those named."""
    report = Report()
    wanted = []
    for case in file.cases:
        if only and case.id not in only:
            continue
        reason = obstacle(case)
        if reason:
            report.skipped[case.id] = (case, reason)
        else:
            wanted.append(case)
    lanes = asyncio.Semaphore(LANES)
    planned = [*groups(wanted, file.limits), *careless_groups(wanted, file.limits)]
    async with asyncio.TaskGroup() as tasks:
        for group in planned:
            tasks.create_task(_run_group(group, file.limits, report, lanes))
    await _run_late(report, file.limits)
    return report


async def _run_group(
    group: Group, limits: Mapping[str, int], report: Report, lanes: asyncio.Semaphore, is_again: bool = False
) -> None:
    async with lanes, stand(group.profile, limits, group.response_head_ms, group.personality) as running:
        await probe(running)
        await at_rest(running)
        idle = own_descriptors(running)
        cases = group.cases
        for index, case in enumerate(cases):
            result = await run_case(running, case)
            if STUCK in result.faults and not is_again:
                # A loop that has lost one of its sockets loses the next ones of that number too.
                await asyncio.to_thread(asyncio.run, _run_apart(replace(group, cases=cases[index:]), limits, report))
                return
            report.results.append(result)
            if result.timing and not result.faults:
                report.late.append((group, result))
            following = cases[index + 1 :]
            if not following or following[0].class_ != case.class_:
                report.leaks += [f"{group.profile}, class {case.class_}: {text}" for text in await leaks(running, idle)]


async def _run_apart(group: Group, limits: Mapping[str, int], report: Report) -> None:
    """In a loop and before a proxy of their own; what is stuck there too has failed."""
    await _run_group(group, limits, report, asyncio.Semaphore(1), is_again=True)


async def _run_late(report: Report, limits: Mapping[str, int]) -> None:
    """Once more, alone, what only the clock was against: the machine may have been busy with the other proxies."""
    for group, late in report.late:
        async with stand(group.profile, limits, group.response_head_ms, group.personality) as running:
            again = await run_case(running, late.case)
        report.results = [again if result is late else result for result in report.results]
