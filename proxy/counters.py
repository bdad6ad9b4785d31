"""What a worker counts, in a region of shared memory that outlives it: one writer a region, any number of readers.

A worker that starts in a slot finds the labels of the one before it and goes on counting, so a killed worker loses
nothing. Room is bounded; a series that finds none is counted with ``other`` as its reason and code, but with its own
arm, source and outcome, so that no version can blur the evidence by answering with a thousand different codes. Nothing
here raises for what a peer does.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import add
from typing import Final

from proxy import region as layout
from proxy.region import EPOCH_REGISTERS, FAILURE_CELLS, REGISTERS, Labels, Region, UserSet, identity
from proxy.sketch import CELLS, EDGES_S, merge, place

OTHER: Final = "other"  # what found no room
EVIDENCE: Final = ("user", "forced")  # sources whose failures tell something of a version
CLIENT_GONE = "499"  # see `net.relay.CLIENT_GONE`
_GAUGES = ("ejected", "pending")
_OF_PROXY = (*_GAUGES, "rejected")  # series that belong to no rollout


class Counters:
    """The writer of one region: the worker in that slot, nobody else.

    Cost of each method: 0.2-0.4 us once its labels were met.

    Args:
        memory: `region.REGION_BYTES` bytes, zero at first, as `shared.region` returns them. Gauges start at zero, all
            else goes on from where the last writer stopped.
    """

    __slots__ = ("_cells", "_header", "_nobody", "_region", "_requests", "_series", "_starts", "_times", "_users")

    def __init__(self, memory: memoryview) -> None:
        clear_gauges(memory)
        self._nobody = 0
        self._region = Region(memory)
        self._header = self._region.header
        self._cells = self._region.cells
        self._times = self._region.times
        self._requests: dict[tuple[str, str, str, int, bool], int] = {}
        self._series = {labels: index for index, labels in self._region.series}
        self._starts = {labels: index * CELLS for index, labels in self._region.histograms}
        self._users = {labels[0]: self._region.users(index) for index, labels in self._region.arms}
        self._claim((OTHER,))  # cell 0 and histogram 0 are for what finds no room at all
        self._start((OTHER,))

    def request(self, arm: str, reason: str, source: str, code: int, failed: bool) -> None:
        """Count one answered request.

        Args:
            arm: Name of the arm that answered.
            reason: As surface.md spells it: ``split``, ``route/staff``.
            source: ``user``, or ``forced`` where something else than the user's key decided.
            code: Status code that the client got.
            failed: It counts as a failure of the version: 5xx, connect failure, time-out, reset, truncation.
        """
        key = (arm, reason, source, code, failed)
        index = self._requests.get(key)
        if index is None:
            index = self._new_request(key)
        self._cells[index] += 1

    def exchange(
        self, arm: str, reason: str, source: str, code: int, failed: bool, whole_s: float, head_s: float
    ) -> None:
        """Count one exchange whole: `request`, `request_seconds` and, if a response head came, `upstream_seconds`.

        Args:
            whole_s: As of `request_seconds`.
            head_s: As of `upstream_seconds`; 0 where no head came.
        """
        index = self._requests.get(key := (arm, reason, source, code, failed)) or self._new_request(key)
        self._cells[index] += 1
        times, starts = self._times, self._starts
        start = starts.get((arm,))
        times[(self._start((arm,)) if start is None else start) + bisect_right(EDGES_S, whole_s)] += 1
        if head_s:
            start = starts.get((arm, source))
            times[(self._start((arm, source)) if start is None else start) + bisect_right(EDGES_S, head_s)] += 1

    def _new_request(self, key: tuple[str, str, str, int, bool]) -> int:
        arm, reason, source, code, failed = key
        outcome = "failed" if failed else "ok"
        index = self._claim(("requests", arm, reason, source, str(code), outcome), layout.SPARE)
        if index:
            self._requests[key] = index
            return index
        # Not remembered under its key: what finds no room has no bound either.
        return self._claim(("requests", arm, OTHER, source, OTHER, outcome))

    def _claim(self, labels: Labels, spare: int = 0) -> int:
        """The cell of a series, a new one if need be; 0 if there is no room."""
        index = self._series.get(labels)
        if index is None:
            index = self._region.series.add(labels, spare)
            if index < 0:
                return 0
            self._series[labels] = index
        return index

    def upstream_failure(self, arm: str, kind: str) -> None:
        """Count one failed attempt: connect, timeout, reset, truncated, protocol or overflow."""
        self._cells[self._claim(("upstream_failures", arm, kind))] += 1

    def retry(self, arm: str) -> None:
        """Count one second attempt."""
        self._cells[self._claim(("retries", arm))] += 1

    def mirrored(self, arm: str, result: str) -> None:
        """Count one copy: sent (an answer came), failed, or dropped before it was sent."""
        self._cells[self._claim(("mirrored", arm, result))] += 1

    def rekeyed(self) -> None:
        """Count one user whose key gave way to one from a source of higher rank."""
        self._cells[self._claim(("rekeyed",))] += 1

    def downstream_rejected(self, cause: str) -> None:
        """Count one connection or request that the proxy itself turned away; the cause is one word of ours."""
        self._cells[self._claim(("rejected", cause))] += 1

    def log_dropped(self) -> None:
        """Count one log line that could not be written in time."""
        self._header[layout.LOG_DROPPED] += 1

    def request_seconds(self, arm: str, seconds: float) -> None:
        """Count the time from a request's first byte in to its answer's last byte out."""
        start = self._starts.get((arm,))
        if start is None:
            start = self._start((arm,))
        self._times[start + bisect_right(EDGES_S, seconds)] += 1

    def upstream_seconds(self, arm: str, source: str, seconds: float) -> None:
        """Count the time to a response head: the latency that is judged."""
        start = self._starts.get((arm, source))
        if start is None:
            start = self._start((arm, source))
        self._times[start + bisect_right(EDGES_S, seconds)] += 1

    def _start(self, labels: Labels) -> int:
        """The first cell of a histogram, a new one if need be; 0 if there is no room."""
        start = self._starts.get(labels)
        if start is None:
            index = self._region.histograms.add(labels)
            if index < 0:
                return 0
            start = self._starts[labels] = index * CELLS
        return start

    def user(self, arm: str, key: bytes, epoch: int) -> None:
        """Count one user of the revision on trial.

        Args:
            arm: Name of the arm that the user has.
            key: The 16 bytes of the user key.
            epoch: Wall clock seconds // `region.EPOCH_S`.
        """
        users = self._users.get(arm) or self._new_users(arm)
        if users is None:
            return
        if users.epoch != epoch:
            users.turn(epoch)
        number, rank = place(key)
        index = number & (REGISTERS - 1)
        if users.total[index] < rank:
            users.total[index] = rank
        index &= EPOCH_REGISTERS - 1
        if users.window[index] < rank:
            users.window[index] = rank

    def user_failed(self, arm: str, key: bytes | None) -> None:
        """Count one failed answer by its user, so that one user alone cannot make a version look bad.

        Args:
            key: Of the user; None for a request without, which counts as a user of its own.
        """
        users = self._users.get(arm) or self._new_users(arm)
        if users is None:
            return
        if key is None:
            self._nobody += 1
        users.failures[(self._nobody if key is None else key[0]) % FAILURE_CELLS] += 1

    def _new_users(self, arm: str) -> UserSet | None:
        index = self._region.arms.add((arm,))
        if index < 0:
            return None  # a fifth name within one revision: its users are not counted
        users = self._users[arm] = self._region.users(index)
        users.clear()
        return users

    def new_revision(self, uid: str, revision: str | None) -> None:
        """Count for this plan from now on; to be called when a plan comes into force, not when it is staged.

        Another revision of the same rollout forgets the users; another uid forgets every number of the rollout. The
        same pair as before changes nothing, so a restarted worker just calls it.
        """
        rollout, trial = identity(uid), identity(uid, revision)
        if self._header[layout.TRIAL] == trial:
            return
        self._header[layout.TRIAL] = 0  # a reader leaves these users out until they are the new ones
        self._region.arms.clear()
        self._users.clear()
        if self._header[layout.ROLLOUT] != rollout:
            self._header[layout.ROLLOUT] = 0
            self._forget()
            self._header[layout.ROLLOUT] = rollout
        self._header[layout.TRIAL] = trial

    def _forget(self) -> None:
        kept = {labels: self._cells[index] for labels, index in self._series.items() if labels[0] in _OF_PROXY}
        self._region.series.clear()
        self._region.histograms.clear()
        for numbers in (self._cells, self._times):
            numbers[:] = memoryview(bytes(numbers.nbytes)).cast("q")
        for known in (self._requests, self._series, self._starts):
            known.clear()
        self._claim((OTHER,))
        self._start((OTHER,))
        for labels, value in kept.items():
            self._cells[self._claim(labels)] = value

    def connections(self, delta: int) -> None:
        """Client connections that were opened (positive) or closed (negative)."""
        self._header[layout.CONNECTIONS] += delta

    def pending(self, arm: str, count: int) -> None:
        """Requests that an arm has now, those that wait for room included."""
        self._cells[self._claim(("pending", arm))] = count

    def ejected(self, arm: str, count: int) -> None:
        """Endpoints of an arm that this worker leaves out now."""
        self._cells[self._claim(("ejected", arm))] = count


def clear_gauges(memory: memoryview) -> None:
    """Set the gauges of a region to zero: its writer is gone, and its connections with it."""
    region = Region(memory)
    region.header[layout.CONNECTIONS] = 0
    for index, labels in region.series:
        if labels[0] in _GAUGES:
            region.cells[index] = 0


@dataclass(slots=True)
class Stats:
    """The numbers of all regions together.

    Attributes:
        series: By labels, the kind first: ``("requests", arm, reason, source, code, "ok" | "failed")``,
            ``("upstream_failures", arm, kind)``, ``("retries", arm)``, ``("mirrored", arm, result)``,
            ``("rekeyed",)``, ``("rejected", cause)``,
            ``("pending", arm)``, ``("ejected", arm)``, and ``("other",)`` for what found no room.
        times: Counts by cell of `sketch`, for ``(arm,)`` whole requests, for ``(arm, source)`` response heads.
        users: Registers by arm.
        epochs: Registers by arm and epoch.
    """

    series: dict[Labels, int] = field(default_factory=dict)
    times: dict[Labels, dict[int, int]] = field(default_factory=dict)
    users: dict[str, bytes] = field(default_factory=dict)
    epochs: dict[str, dict[int, bytes]] = field(default_factory=dict)
    connections: int = 0
    log_dropped: int = 0


def read(regions: Iterable[memoryview], uid: str, revision: str | None) -> Stats:
    """Add up the regions of all slots, while their writers write; users are merged by maximum.

    Args:
        regions: One a slot.
        uid: Whose numbers: a worker that still counts for another rollout is left out.
        revision: Whose users, likewise.
    """
    stats = Stats()
    rollout, trial = identity(uid), identity(uid, revision)
    for memory in regions:
        region = Region(memory)
        stats.connections += region.header[layout.CONNECTIONS]
        stats.log_dropped += region.header[layout.LOG_DROPPED]
        _read_numbers(stats, region, rollout)
        _read_users(stats, region, trial)
    return stats


@dataclass(frozen=True, slots=True)
class Tally:
    """Answers of one version that tell something of it: users' own and forced ones, from which no client had run away.

    Attributes:
        by_user: Failed ones by a few bits of the user key, since the revision came on trial.
    """

    answers: int = 0
    failed: int = 0
    by_user: tuple[int, ...] = (0,) * FAILURE_CELLS

    def since(self, before: Tally | None) -> Tally:
        """The difference to an earlier one."""
        if before is None:
            return self
        by_user = tuple(now - then for now, then in zip(self.by_user, before.by_user, strict=True))
        return Tally(self.answers - before.answers, self.failed - before.failed, by_user)

    @property
    def users(self) -> int:
        """So many users, at least, met failures."""
        return sum(count > 0 for count in self.by_user)


def tallies(regions: Iterable[memoryview], uid: str, revision: str | None, arms: Iterable[str]) -> dict[str, Tally]:
    """Add up what the breaker judges from, for these arms; other arguments as of `read`.

    Cost: 50 us a region with thirty series.
    """
    found = {arm: [0, 0] for arm in arms}
    users = {arm: [0] * FAILURE_CELLS for arm in found}
    rollout, trial = identity(uid), identity(uid, revision)
    for memory in regions:
        region = Region(memory)
        if region.header[layout.ROLLOUT] == rollout:
            _add_answers(found, region)
        if region.header[layout.TRIAL] == trial:  # forgotten with the revision, unlike the answers
            for index, (arm,) in region.arms:
                if arm in users:
                    users[arm] = list(map(add, users[arm], region.users(index).failures))
    return {arm: Tally(answers, failed, tuple(users[arm])) for arm, (answers, failed) in found.items()}


def _add_answers(found: dict[str, list[int]], region: Region) -> None:
    for index, labels in region.series:
        if labels[0] == "requests" and labels[1] in found and labels[3] in EVIDENCE and labels[4] != CLIENT_GONE:
            found[labels[1]][0] += region.cells[index]
            found[labels[1]][1] += region.cells[index] if labels[5] == "failed" else 0


def _read_numbers(stats: Stats, region: Region, rollout: int) -> None:
    before = region.header[layout.ROLLOUT]
    cells, times = region.cells.tolist(), region.times.tolist()
    series = list(region.series)
    histograms = list(region.histograms)
    current = before == region.header[layout.ROLLOUT] == rollout
    for index, labels in series:
        if cells[index] and (current or labels[0] in _OF_PROXY):
            stats.series[labels] = stats.series.get(labels, 0) + cells[index]
    for index, labels in histograms:
        counts = stats.times.setdefault(labels, {}) if current else {}
        for number, count in enumerate(times[index * CELLS : (index + 1) * CELLS]):
            if count:
                counts[number] = counts.get(number, 0) + count


def _read_users(stats: Stats, region: Region, trial: int) -> None:
    before = region.header[layout.TRIAL]
    arms = [(labels[0], region.users(index)) for index, labels in region.arms]
    sets = [(arm, bytes(users.total), _read_epochs(users)) for arm, users in arms]
    if not before == region.header[layout.TRIAL] == trial:
        return
    for arm, total, epochs in sets:
        known = stats.users.get(arm)
        stats.users[arm] = merge([known, total]) if known else total
        merged = stats.epochs.setdefault(arm, {})
        for epoch, registers in epochs.items():
            merged[epoch] = merge([merged[epoch], registers]) if epoch in merged else registers


def _read_epochs(users: UserSet) -> dict[int, bytes]:
    found = [(epoch, bytes(users.registers(position))) for position, epoch in enumerate(users.epochs.tolist())]
    now = users.epochs.tolist()
    return {epoch: registers for position, (epoch, registers) in enumerate(found) if epoch and epoch == now[position]}
