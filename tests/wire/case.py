"""A file of wire cases: read whole, held against its format, every fault reported with its place."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
PROFILES = (
    "base", "trusted", "split", "sticky", "opt_in", "limits", "retry", "hosts", "noroute", "rules", "mirror", "h2",
)  # fmt: skip
LIMITS = {
    "header_block_bytes", "header_count", "target_bytes", "body_bytes", "header_timeout_ms", "body_idle_timeout_ms",
    "keepalive_idle_ms", "upstream_connect_ms", "upstream_response_ms", "client_connections",
    "pipelined_per_connection", "drain_ms",
}  # fmt: skip
SEVERITIES = ("must", "should", "policy")
PHASES = ("1", "h2", "gateway")
VERBS = ("shut_wr", "close", "rst", "stop_read", "resume_read")
ENDPOINTS = ("a", "b", "canary", "mirror")
STATES = ("refuse", "blackhole", "none")
_CASE = {
    "id", "class", "sev", "by", "why", "source", "profile", "port", "phase", "send", "send_h2", "up", "up_when",
    "expect", "repeat", "dist", "vars", "raw_tcp", "tls", "conns", *(f"up_{name}" for name in ENDPOINTS),
}  # fmt: skip
_OUTCOME = {
    "status", "then", "responses", "connection", "upstream_sees", "up_has", "up_lacks", "cl_has", "cl_lacks",
    "within_ms", "note",
}  # fmt: skip
_PLACEHOLDER = re.compile(r"<<([^<>]*)>>")


class CaseFileError(Exception):
    """A file that is not of the format; one fault a line."""


@dataclass(frozen=True)
class Write:
    """Write bytes. ``split``: so many at a time with 1 ms between; 0: all at once."""

    text: str
    times: int = 1
    split: int = 0

    @property
    def data(self) -> bytes:
        """All the bytes."""
        return self.text.encode("latin-1") * self.times


@dataclass(frozen=True)
class Pause:
    """Wait."""

    ms: int


@dataclass(frozen=True)
class Await:
    """Until one more complete response (`status` 0), or that interim status, or the end."""

    status: int


@dataclass(frozen=True)
class Drip:
    """Write again and again; ``times`` 0: until the peer closes or 15 s have passed."""

    text: str
    every_ms: int
    times: int


@dataclass(frozen=True)
class Do:
    """One of `VERBS`."""

    verb: str


@dataclass(frozen=True)
class Echo:
    """Send back what comes, from here on."""


Step = Write | Pause | Await | Drip | Do | Echo


@dataclass(frozen=True)
class Range:
    """Numbers that are allowed."""

    low: float
    high: float
    only: tuple[int, ...] = ()

    def __contains__(self, value: float) -> bool:
        return value in self.only if self.only else self.low <= value <= self.high

    def __str__(self) -> str:
        if self.only:
            return " or ".join(map(str, self.only))
        return f"{self.low:g}..{self.high:g}" if self.high < float("inf") else f"at least {self.low:g}"


@dataclass(frozen=True)
class Outcome:
    """One acceptable outcome. ``status`` 0 stands for closed without a response."""

    status: tuple[int, ...]
    then: tuple[tuple[int, ...], ...] = ()
    responses: Range | None = None
    connection: str = "any"
    upstream_sees: Range | None = None
    up_has: tuple[str, ...] = ()
    up_lacks: tuple[str, ...] = ()
    cl_has: tuple[str, ...] = ()
    cl_lacks: tuple[str, ...] = ()
    within_ms: int = 0
    note: str = ""

    @property
    def wants_incomplete(self) -> bool:
        """The first response must be one that the client can tell is cut."""
        return "incomplete" in self.note


@dataclass(frozen=True)
class Case:
    """One case, for one value of each of its variables.

    Attributes:
        up: What the service does once ``up_when`` is reached; None: the reference echo.
        endpoints: State or script of one endpoint, by `ENDPOINTS`.
        values: What ``<<name>>`` stands for, from ``vars``.
    """

    id: str
    class_: str
    sev: str
    why: str
    send: tuple[Step, ...]
    expect: tuple[Outcome, ...]
    profile: str = "base"
    port: str = "data"
    phase: str = "1"
    up: tuple[Step, ...] | None = None
    up_when: str = "request"
    endpoints: Mapping[str, str | tuple[Step, ...]] = field(default_factory=dict)
    repeat: int = 1
    dist: Mapping[str, Range] = field(default_factory=dict)
    conns: int = 1
    raw_tcp: bool = False
    tls: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    label: str = ""

    @property
    def is_mandatory(self) -> bool:
        """Without it nothing may be released."""
        return self.sev == "must" and self.phase == "1"

    @property
    def silence_ms(self) -> int:
        """How long the service is silent before the first byte of its answer."""
        silent = 0
        for step in self.up or ():
            if isinstance(step, Pause):
                silent += step.ms
            elif isinstance(step, (Write, Do)):
                break
        return silent


@dataclass(frozen=True)
class CaseFile:
    """Limits that the proxy is set to, and the cases in order."""

    limits: Mapping[str, int]
    cases: tuple[Case, ...]


def load(path: Path) -> CaseFile:
    """Read a file of cases.

    Raises:
        CaseFileError: Not of the format; every fault is told.
    """
    try:
        document = yaml.load(path.read_bytes(), Loader=LOADER)  # a safe one
    except yaml.YAMLError as error:
        raise CaseFileError(f"{path}: no YAML: {error}") from None
    return _Parser().file(document)


class _Parser:
    """Collects faults while it reads."""

    def __init__(self) -> None:
        self._faults: list[str] = []

    def _fault(self, where: str, message: str) -> None:
        self._faults.append(f"{where}: {message}")

    def file(self, document: Any) -> CaseFile:
        if not isinstance(document, dict) or document.get("schema") != 1 or not isinstance(document.get("cases"), list):
            raise CaseFileError("expected a mapping with schema: 1 and a list of cases")
        limits = document.get("limits") or {}
        for name in limits.keys() - LIMITS:
            self._fault("limits", f"unknown {name!r}")
        for name in (document.get("profiles") or {}).keys() - set(PROFILES):
            self._fault("profiles", f"unknown {name!r}")
        cases = [case for given in document["cases"] for case in self._case(given)]
        seen: set[str] = set()
        for given in document["cases"]:
            name = given.get("id") if isinstance(given, dict) else None
            if name in seen:
                self._fault(str(name), "this id is used twice")
            seen.add(str(name))
        if self._faults:
            raise CaseFileError("\n".join(self._faults))
        return CaseFile({name: int(value) for name, value in limits.items()}, tuple(cases))

    def _case(self, given: Any) -> Iterator[Case]:
        if not isinstance(given, dict) or not isinstance(given.get("id"), str):
            self._fault("cases", f"expected a mapping with an id, got {str(given)[:60]!r}")
            return
        where = given["id"]
        for name in given.keys() - _CASE:
            self._fault(where, f"unknown key {name!r}")
        for name, allowed in (
            ("sev", SEVERITIES), ("profile", PROFILES), ("port", ("data", "admin", "tls")),
            ("up_when", ("connect", "headers", "request")),
        ):  # fmt: skip
            if name in given and given[name] not in allowed:
                self._fault(where, f"{name}: expected one of {', '.join(allowed)}, got {given[name]!r}")
        for name in ("class", "sev", "expect"):
            if name not in given:
                self._fault(where, f"{name} is missing")
        phase = str(given.get("phase", 1))
        if phase not in PHASES:
            self._fault(where, f"phase: expected one of {', '.join(PHASES)}, got {phase!r}")
        if ("send" in given) == ("send_h2" in given):
            self._fault(where, "expected exactly one of send and send_h2")
        if "send_h2" in given and phase != "h2":
            self._fault(where, "send_h2 belongs to phase h2")
        yield from self._variants(where, given, phase)

    def _variants(self, where: str, given: dict[str, Any], phase: str) -> Iterator[Case]:
        case = Case(
            id=where,
            class_=str(given.get("class", "")),
            sev=str(given.get("sev", "must")),
            why=str(given.get("why", "")),
            send=self._steps(f"{where}.send", given.get("send", [])),
            expect=self._outcomes(where, given.get("expect", [])),
            profile=given.get("profile", "base"),
            port=given.get("port", "data"),
            phase=phase,
            up=self._steps(f"{where}.up", given["up"]) if "up" in given else None,
            up_when=given.get("up_when", "request"),
            endpoints={
                name: self._endpoint(f"{where}.up_{name}", given[f"up_{name}"])
                for name in ENDPOINTS
                if f"up_{name}" in given
            },
            repeat=self._count(where, given, "repeat"),
            dist={str(name): self._pair(f"{where}.dist", pair) for name, pair in (given.get("dist") or {}).items()},
            conns=self._count(where, given, "conns"),
            raw_tcp=bool(given.get("raw_tcp", False)),
            tls=given.get("tls") or {},
            label=where,
        )
        names = given.get("vars") or {}
        if not isinstance(names, dict) or not all(isinstance(values, list) for values in names.values()):
            self._fault(where, f"vars: expected lists by name, got {names!r}")
            return
        for number, values in enumerate(itertools.product(*names.values())):
            chosen = {name: str(value) for name, value in zip(names, values, strict=True)}
            yield replace(case, values=chosen, label=f"{where}[{number}]") if names else case

    def _count(self, where: str, given: dict[str, Any], name: str) -> int:
        value = given.get(name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            self._fault(where, f"{name}: expected a number above 0, got {value!r}")
            return 1
        return value

    def _endpoint(self, where: str, given: Any) -> str | tuple[Step, ...]:
        if isinstance(given, str):
            if given not in STATES:
                self._fault(where, f"expected one of {', '.join(STATES)} or a script, got {given!r}")
            return given
        return self._steps(where, given)

    def _steps(self, where: str, given: Any) -> tuple[Step, ...]:
        if not isinstance(given, list):
            self._fault(where, f"expected a list of steps, got {given!r}")
            return ()
        steps: list[Step] = []
        split = 0
        for index, one in enumerate(given):
            place = f"{where}[{index}]"
            if isinstance(one, dict) and set(one) == {"split"}:
                split = self._number(place, one["split"])
                continue
            step = self._step(place, one)
            if isinstance(step, Write) and split:
                step, split = replace(step, split=split), 0
            if step is not None:
                steps.append(step)
        if split:
            self._fault(where, "split without a string behind it")
        return tuple(steps)

    def _step(self, place: str, one: Any) -> Step | None:
        if isinstance(one, str):
            return Write(self._text(place, one))
        keys = set(one) if isinstance(one, dict) else None
        if keys == {"pause_ms"}:
            return Pause(self._number(place, one["pause_ms"]))
        if keys == {"rep", "n"}:
            return Write(self._text(place, one["rep"]), self._number(place, one["n"]))
        if keys in ({"drip", "every_ms"}, {"drip", "every_ms", "n"}):
            times = self._number(place, one["n"]) if "n" in one else 0
            return Drip(self._text(place, one["drip"]), self._number(place, one["every_ms"]), times)
        if keys == {"wait"} and (one["wait"] == "response" or one["wait"] in range(100, 200)):
            return Await(0 if one["wait"] == "response" else one["wait"])
        if keys == {"do"} and one["do"] in VERBS:
            return Do(one["do"])
        if keys == {"echo"} and one["echo"] == "raw":
            return Echo()
        self._fault(place, f"no step: {one!r}")
        return None

    def _number(self, place: str, value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            self._fault(place, f"expected a number, got {value!r}")
            return 0
        return value

    def _text(self, place: str, value: Any) -> str:
        if not isinstance(value, str) or any(ord(char) > 0xFF for char in value):
            self._fault(place, f"expected a string of latin-1 characters, got {value!r}")
            return ""
        return value

    # --- outcomes

    def _outcomes(self, where: str, given: Any) -> tuple[Outcome, ...]:
        if not isinstance(given, list) or not given:
            self._fault(where, f"expect: expected a list of outcomes, got {given!r}")
            return ()
        return tuple(self._outcome(f"{where}.expect[{i}]", one) for i, one in enumerate(given))

    def _outcome(self, where: str, given: Any) -> Outcome:
        if not isinstance(given, dict) or "status" not in given:
            self._fault(where, f"expected a mapping with status, got {given!r}")
            return Outcome((0,))
        for name in given.keys() - _OUTCOME:
            self._fault(where, f"unknown key {name!r}")
        connection = given.get("connection", "any")
        if connection not in ("close", "keepalive", "any"):
            self._fault(where, f"connection: expected close, keepalive or any, got {connection!r}")
        return Outcome(
            status=self._codes(where, given["status"]),
            then=tuple(self._codes(where, codes) for codes in given.get("then", [])),
            responses=self._range(where, given["responses"]) if "responses" in given else None,
            connection=connection,
            upstream_sees=self._range(where, given["upstream_sees"]) if "upstream_sees" in given else None,
            **{
                name: tuple(self._text(where, text) for text in given.get(name, []))
                for name in ("up_has", "up_lacks", "cl_has", "cl_lacks")
            },
            within_ms=self._number(where, given.get("within_ms", 0)),
            note=str(given.get("note", "")),
        )

    def _codes(self, where: str, given: Any) -> tuple[int, ...]:
        if not isinstance(given, list) or not all(isinstance(code, int) for code in given):
            self._fault(where, f"expected a list of codes, got {given!r}")
            return ()
        return tuple(given)

    def _range(self, where: str, given: Any) -> Range:
        if isinstance(given, int):
            return Range(given, given)
        if isinstance(given, list) and given and all(isinstance(value, int) for value in given):
            return Range(min(given), max(given), tuple(given))
        if isinstance(given, dict) and given and given.keys() <= {"min", "max"}:
            return Range(given.get("min", 0), given.get("max", float("inf")))
        self._fault(where, f"expected a number, a list of numbers or min and max, got {given!r}")
        return Range(0, 0)

    def _pair(self, where: str, given: Any) -> Range:
        if isinstance(given, list) and len(given) == 2:
            return Range(float(given[0]), float(given[1]))
        self._fault(where, f"expected a pair of shares, got {given!r}")
        return Range(0, 1)


def placeholders(text: str) -> list[str]:
    """Names that stand in ``<<...>>``."""
    return _PLACEHOLDER.findall(text)


def substitute(text: str, values: Mapping[str, str]) -> str:
    """Put values in place of the names that have one."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)
