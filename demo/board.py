"""What the demo's page shows of the simulated users, out of what the load generator reports."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

WINDOW_S = 20.0  # over which rates are told: short enough to see a version turn bad
MAX_SEATS = 20_000
MAX_FLIPS_TOLD = 20


class Board:
    """The seats of the crowd and the totals of its requests.

    A seat shows the version that its user saw last. A flip is never forgotten.
    """

    def __init__(self) -> None:
        self._seats: list[str | None] = []
        self._users: list[str] = []
        self._flipped: dict[int, str] = {}
        self._totals: dict[str, Any] = {}
        self._history: deque[tuple[float, int, dict[str, Any]]] = deque()  # time, requests, totals by version

    def take(self, message: Mapping[str, Any], now: float) -> None:
        """Take in one report.

        Args:
            message: ``users``, each with ``seat``, ``user``, ``revision`` and ``flip``, and ``totals``, all as
                ``cohort loadtest --report`` sends them.
            now: Monotonic seconds.

        Raises:
            ValueError: Something else.
        """
        try:
            for user in message["users"]:
                self._sit(int(user["seat"]), str(user["user"]), user["revision"], user["flip"])
            totals = message["totals"]
            self._history.append((now, int(totals["requests"]), dict(totals["versions"])))
            self._totals = dict(totals)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a report: {error!r}") from None
        while len(self._history) > 2 and self._history[1][0] <= now - WINDOW_S:
            self._history.popleft()

    def _sit(self, seat: int, user: str, revision: str | None, flip: str | None) -> None:
        if not 0 <= seat < MAX_SEATS:
            raise ValueError(f"seats are 0 to {MAX_SEATS - 1}, got {seat}")
        while len(self._seats) <= seat:
            self._seats.append(None)
            self._users.append("")
        if revision is not None or user != self._users[seat]:
            self._seats[seat] = revision
        self._users[seat] = user
        if flip:
            self._flipped.setdefault(seat, f"user {user}: {flip}")

    @property
    def lost(self) -> int:
        """Requests that nobody answered."""
        return int(self._totals.get("lost", 0))

    @property
    def flips(self) -> int:
        """Answers of a version that the user must not see."""
        return int(self._totals.get("flips", 0))

    def users(self) -> dict[str, int]:
        """Users by the version that they saw last."""
        counts: dict[str, int] = {}
        for revision in self._seats:
            if revision is not None:
                counts[revision] = counts.get(revision, 0) + 1
        return counts

    def versions(self) -> dict[str, dict[str, Any]]:
        """By revision: users, requests and errors so far, and the per cent of errors over the last `WINDOW_S`."""
        users = self.users()
        told: dict[str, Any] = self._totals.get("versions", {})
        before: dict[str, Any] = self._history[0][2] if self._history else {}
        rows = {}
        for revision in sorted(told.keys() | users.keys()):
            now, then = told.get(revision, {}), before.get(revision, {})
            requests = now.get("requests", 0) - then.get("requests", 0)
            errors = now.get("errors", 0) - then.get("errors", 0)
            rows[revision] = {
                "users": users.get(revision, 0),
                "requests": now.get("requests", 0),
                "errors": now.get("errors", 0),
                "errorPercent": round(100 * errors / requests, 2) if requests > 0 else None,
            }
        return rows

    def view(self) -> dict[str, Any]:
        """As the page reads it: ``grid`` has for each seat the index of its version in ``revisions``, or -1."""
        revisions = sorted({revision for revision in self._seats if revision is not None})
        index = {revision: number for number, revision in enumerate(revisions)}
        return {
            "revisions": revisions,
            "grid": [index[revision] if revision is not None else -1 for revision in self._seats],
            "people": self._users,
            "flipped": list(self._flipped),
            "flipDetails": list(self._flipped.values())[:MAX_FLIPS_TOLD],
            "versions": self.versions(),
            "requests": int(self._totals.get("requests", 0)),
            "rate": self._rate(),
            "lost": self.lost,
            "flips": self.flips,
        }

    def _rate(self) -> float:
        if len(self._history) < 2:
            return 0.0
        (began, first, _), (ended, last, _) = self._history[0], self._history[-1]
        return round((last - first) / max(ended - began, 0.001), 1)
