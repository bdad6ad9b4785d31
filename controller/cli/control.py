"""Control ports of proxies as ``abort --direct`` asks them: all at once, each by a thread, under one deadline.

Written on the standard library, as `controller.cli.client` is. A thread that hangs (in a resolver, say) holds neither
the others nor the end of the program.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import queue
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.cli.client import TimedSocket, user
from controller.cli.exits import WrongUse
from controller.cli.output import plain

Json = dict[str, Any]

LIMIT_S = 5.0  # a latch is on disk within 2 s or the disk hangs; the rest is for a slow network
MAX_ANSWER_BYTES = 65_536
MAX_BY, MAX_REASON = 256, 1024  # what the port takes: an abort is not refused for a long story
LATCHED, REFUSED, NOT_REACHED = "Latched", "Refused", "NotReached"


@dataclass(frozen=True, slots=True)
class Place:
    """A control port, as it was named."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_literal(self) -> bool:
        """Whether the host is an IP address."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one proxy.

    Attributes:
        address: As it was asked, with the name that it was found by.
        result: Latched, Refused or NotReached.
        message: Why not; empty: it is latched.
        latch: The abort that stands there, which may be an earlier one.
        elapsed_s: Seconds from the request's start.
    """

    address: str
    result: str
    message: str = ""
    latch: Json | None = None
    elapsed_s: float = 0.0

    @property
    def is_latched(self) -> bool:
        """Whether everyone there is on stable now, and after a restart."""
        return self.result == LATCHED

    def line(self, own_id: str) -> str:
        """For people."""
        if self.latch is None:
            return f"{self.address}: {'refused' if self.result == REFUSED else 'not reached'}: {plain(self.message)}"
        of = f"abort {plain(self.latch.get('id'))} of {plain(self.latch.get('revision') or 'no revision')}"
        if self.latch.get("id") == own_id:
            return f"{self.address}: latched, {of}"
        since = f"by {plain(self.latch.get('by'))} since {plain(self.latch.get('at'))}"
        return f"{self.address}: latched already {since}, {of}"

    def document(self) -> Json:
        """For programs."""
        value: Json = {"address": self.address, "result": self.result, "seconds": round(self.elapsed_s, 4)}
        return (
            value | ({"message": self.message} if self.message else {}) | ({"latch": self.latch} if self.latch else {})
        )


def parse_place(text: str, port: int) -> Place:
    """A place from ``HOST``, ``HOST:PORT``, ``[IPV6]`` or ``[IPV6]:PORT``.

    Raises:
        ValueError: It is none of these; the message says what was expected.
    """
    wrong = ValueError(f"expected HOST:PORT such as 10.0.0.5:{port} or [fd00::5]:{port}, got {text!r}")
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        is_known = bool(closed) and ":" in host and Place(host, port).is_literal
    else:
        host, colon, rest = text.partition(":")
        rest = colon + rest
        is_known = bool(host) and host.isascii() and all(sign.isalnum() or sign in "-._" for sign in host)
    if not is_known or (rest and not (rest[0] == ":" and rest[1:].isascii() and rest[1:].isdecimal())):
        raise wrong
    number = int(rest[1:][:6]) if rest else port
    if not 1 <= number <= 65535:
        raise wrong
    return Place(host, number)


def trust(ca_file: str | None, token_file: str) -> ssl.SSLContext:
    """How control ports are met: with the certificate in the file, whatever their names.

    Args:
        ca_file: The certificate; None: ``tls.crt`` beside the token file, as in the installation's Secret.

    Raises:
        WrongUse: There is none.
    """
    path = ca_file or str(Path(token_file).parent / "tls.crt")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # the certificate itself is pinned
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError:
        raise WrongUse(
            f"expected a certificate in PEM in {path}, got something else: decode what the Secret has (base64 -d)."
        ) from None
    except OSError as error:
        raise WrongUse(
            f"cannot read the certificate {path}: {error.strerror}. Give the Secret's tls.crt by --ca-file."
        ) from None
    return context


@dataclass(frozen=True, slots=True)
class Abort:
    """One abort for many proxies.

    Attributes:
        id: The same at each, so that a controller takes them for one.
        limit_s: Seconds for all of it.
    """

    id: str
    by: str
    reason: str
    token: str
    tls: ssl.SSLContext
    limit_s: float

    def send(self, places: Iterable[Place]) -> Iterator[Outcome]:
        """Send it everywhere at once; outcomes as they come, and nothing is waited for beyond the limit.

        A name stands for every IPv4 address that it has, or else for every IPv6 one.
        """
        begun = time.monotonic()
        heard: queue.SimpleQueue[tuple[Place, Outcome | list[Place]]] = queue.SimpleQueue()
        seen: set[Place] = set()
        waiting: dict[Place, str] = {}

        def begin(place: Place, label: str) -> None:
            if place not in seen:
                seen.add(place)
                waiting[place] = label
                threading.Thread(target=self._work, args=(place, label, begun, heard), daemon=True).start()

        for place in places:
            begin(place, str(place))
        while waiting:
            try:
                place, found = heard.get(timeout=max(0.0, begun + self.limit_s - time.monotonic()))
            except queue.Empty:
                break
            label = waiting.pop(place)
            if isinstance(found, Outcome):
                yield found
                continue
            for each in found:
                begin(each, f"{label} ({each.host})")
        for label in waiting.values():
            yield Outcome(label, NOT_REACHED, f"no answer within {self.limit_s:g} s", elapsed_s=self.limit_s)

    def _work(self, place: Place, label: str, begun: float, heard: queue.SimpleQueue[Any]) -> None:
        try:
            found = self._latch(place, label, begun) if place.is_literal else _addresses(place)
        except Exception as error:  # a thread's root: whoever waits must hear of it
            found = Outcome(label, NOT_REACHED, _cause(error), elapsed_s=time.monotonic() - begun)
        heard.put((place, found))

    def _latch(self, place: Place, label: str, begun: float) -> Outcome:
        """Latch one proxy."""
        deadline = begun + self.limit_s
        with socket.create_connection((place.host, place.port), max(0.01, deadline - time.monotonic())) as plain_socket:
            plain_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.tls.wrap_socket(plain_socket) as sock:
                sock.sendall(self._request(place))
                answer = http.client.HTTPResponse(TimedSocket(sock, deadline), method="POST")  # type: ignore[arg-type]  # of a socket it uses makefile only
                answer.begin()
                payload = answer.read(MAX_ANSWER_BYTES)
        result, message, latch = _meaning(answer.status, payload)
        return Outcome(label, result, message, latch, time.monotonic() - begun)

    def _request(self, place: Place) -> bytes:
        body = json.dumps({"by": self.by, "reason": self.reason, "id": self.id}).encode()
        head = (
            f"POST /abort HTTP/1.1\r\nHost: {place}\r\nAuthorization: Bearer {self.token}\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode("ascii") + body


def make(token: str, tls: ssl.SSLContext, by: str | None, reason: str | None, limit_s: float | None) -> Abort:
    """An abort with an id of its own; ``by`` is the login name, unless somebody else is named."""
    return Abort(
        secrets.token_hex(8), (by or user())[:MAX_BY], (reason or "")[:MAX_REASON], token, tls, limit_s or LIMIT_S
    )


def _addresses(place: Place) -> list[Place]:
    """What a name stands for."""
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError("is no name that a resolver takes") from None
    for family in (socket.AF_INET, socket.AF_INET6):
        if hosts := [str(info[4][0]) for info in found if info[0] == family]:
            return [Place(host, place.port) for host in dict.fromkeys(hosts)]
    raise OSError("the name has no address")


def _meaning(status: int, payload: bytes) -> tuple[str, str, Json | None]:
    """Result, message and latch of an answer."""
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        return NOT_REACHED, f"what answers there is no control port of cohort: status {status}", None
    if status == 200 and isinstance(value.get("id"), str):
        return LATCHED, "", value
    said = str(value.get("error") or f"status {status}")[:500]
    if status == 401:
        return REFUSED, "the token is another one than in its Secret: give control of the Secret by --token-file", None
    return (REFUSED if status in (403, 409, 422, 429, 507) else NOT_REACHED), said, None


def _cause(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"it shows another certificate than the one given: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS is spoken there: {error.reason or error}"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
