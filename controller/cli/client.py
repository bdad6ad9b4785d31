"""A thin client of the controller's REST API: one connection a request, each with a deadline for the whole answer.

Written on the standard library's http.client, because importing a larger one takes longer than the request.
"""

from __future__ import annotations

import http.client
import io
import json
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from controller.cli.exits import NotReachable, Refused, TimedOut, WrongUse

REQUEST_S = 10.0  # an abort waits for every proxy to latch, which is bounded by 5 s
MAX_ANSWER_BYTES = 32 * 1_048_576  # 1,000 rollouts of 32 KiB each; a stream without end is no controller

Json = dict[str, Any]


class _TimedReader(io.RawIOBase):
    """The receiving side of a socket under one deadline: a server that dribbles bytes cannot stretch it."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        super().__init__()
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._sock.recv_into(buffer)


class TimedSocket:
    """What `http.client.HTTPResponse` wants of a socket: a file to read from."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._reader = _TimedReader(sock, deadline)

    def makefile(self, mode: str) -> io.BufferedReader:
        """The receiving side."""
        return io.BufferedReader(self._reader)


class Client:
    """The controller's API as the commands use it.

    Args:
        server: The controller's address as a URL, ``http`` or ``https``; a path is kept as a prefix.
        token: Sent as a bearer token, if given.
        timeout_s: Seconds that the whole command may take; None: `REQUEST_S` for each request.

    Every method raises `Refused`, `WrongUse`, `NotReachable` or `TimedOut`.

    Attributes:
        namespace: Where names are looked for that come without one; None: in all.
        advice: What to do where there is no rollout.
    """

    advice = "add a CanaryRollout to the controller's folder"

    def __init__(self, server: str, token: str | None = None, timeout_s: float | None = None) -> None:
        self.server = server.rstrip("/")
        self._address = _address(self.server)
        self._token = token
        self.namespace: str | None = None
        self.timeout_s = timeout_s
        self.deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def rollouts(self, namespace: str | None) -> list[Json]:
        """Every rollout, or those of one namespace."""
        return self._items(self._ask("GET", "/rollouts", {"namespace": namespace or None}))

    def rollout(self, namespace: str, name: str) -> Json:
        """One rollout: document and status."""
        return self._ask("GET", _path(namespace, name))

    def wait(self, namespace: str, name: str, since: object, wait_s: float) -> Json:
        """The same as soon as its status is another than ``since``, or after ``wait_s`` seconds."""
        query = {"wait": f"{wait_s:g}", "since": None if since is None else str(since)}
        return self._ask("GET", _path(namespace, name), query, wait_s=wait_s)

    def events(self, namespace: str, name: str, after: int) -> list[Json]:
        """Its events with a number above ``after``, oldest first; of very many only a part."""
        return self._items(self._ask("GET", _path(namespace, name, "events"), {"after": str(after)}))

    def act(self, namespace: str, name: str, action: Json) -> Json:
        """Carry out one action: ``verb``, what it needs, and ``by``: whoever is logged in, unless it says otherwise."""
        return self._ask("POST", _path(namespace, name, "actions"), body={"by": user()} | action)

    def whoami(self, namespace: str, name: str, key: str) -> Json:
        """The version of one user, given as ``SOURCE=VALUE``."""
        return self._ask("GET", _path(namespace, name, "whoami"), {"key": key})

    def preview(self, namespace: str, name: str, arm: str, ttl: str) -> Json:
        """A preview token for an arm; ``ttl`` as a duration."""
        return self._ask("POST", _path(namespace, name, "preview"), body={"arm": arm, "ttl": ttl})

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | None] | None = None,
        body: Json | None = None,
        wait_s: float = 0,
    ) -> Json:
        parts = urlencode({name: value for name, value in (query or {}).items() if value is not None})
        target = f"{self._address.prefix}/api/v1{path}" + (f"?{parts}" if parts else "")
        limit_s = self._limit_s(wait_s)
        try:
            status, kind, payload = self._exchange(method, target, body, limit_s)
        except TimeoutError:
            raise TimedOut(self._late(method, limit_s)) from None
        except (OSError, http.client.HTTPException) as error:
            raise NotReachable(self._unreachable(error)) from None
        return self._answer(status, kind, payload)

    def _limit_s(self, wait_s: float) -> float:
        own = REQUEST_S + wait_s
        if self.deadline is None:
            return own
        left = self.deadline - time.monotonic()
        return max(0.0, min(left, own) if wait_s else left)

    def _exchange(self, method: str, target: str, body: Json | None, limit_s: float) -> tuple[int, str, bytes]:
        deadline = time.monotonic() + limit_s
        if limit_s <= 0:
            raise TimeoutError
        kind = http.client.HTTPSConnection if self._address.tls else http.client.HTTPConnection
        connection = kind(self._address.host, self._address.port, timeout=limit_s)
        try:
            try:
                connection.connect()
            except TimeoutError:
                raise ConnectionError(f"no connection within {limit_s:g} s") from None
            connection.request(method, target, *self._message(body))
            response = http.client.HTTPResponse(TimedSocket(connection.sock, deadline), method=method)  # type: ignore[arg-type]  # of a socket it uses makefile only
            response.begin()
            payload = response.read(MAX_ANSWER_BYTES + 1)
            if len(payload) > MAX_ANSWER_BYTES:
                raise ConnectionError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
            return response.status, response.headers.get_content_type(), payload
        finally:
            connection.close()

    def _message(self, body: Json | None) -> tuple[bytes | None, dict[str, str]]:
        headers = {"Accept": "application/json", "Connection": "close"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if body is None:
            return None, headers
        return json.dumps(body).encode(), headers | {"Content-Type": "application/json"}

    def _answer(self, status: int, kind: str, payload: bytes) -> Json:
        try:
            value = json.loads(payload) if kind == "application/json" else None
        except (ValueError, RecursionError):
            value = None
        if status == 200 and isinstance(value, dict):
            return value
        _refuse(status, value)
        came = f"status {status}" if status != 200 else f"{kind or 'an answer'} that is no JSON object"
        reason = _reason(value)
        raise NotReachable(
            f"expected an answer of a cohort controller from {self.server}, got {came}"
            + (f": {reason}. Its log says more." if reason else ". Check --server and COHORT_SERVER.")
        )

    def _items(self, answer: Json) -> list[Json]:
        items = answer.get("items")
        if isinstance(items, list) and all(isinstance(item, dict) for item in items):
            return items
        raise NotReachable(f"expected a list of items from {self.server}, got something else. Check --server.")

    def _late(self, method: str, limit_s: float) -> str:
        after = "" if method == "GET" else " It may still be carried out: look with 'cohort status'."
        return (
            f"the controller at {self.server} has not answered within {limit_s:.3g} s.{after} --timeout waits longer."
        )

    def _unreachable(self, error: Exception) -> str:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return (
            f"no controller answers at {self.server}: {reason}. Start one with 'cohort controller --config FILE', "
            "or name another by --server or COHORT_SERVER."
        )


def user() -> str:
    """Who is logged in, as far as this machine knows."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # neither a login name nor an entry for the user: a container's arbitrary one
        return "unknown"


@dataclass(frozen=True, slots=True)
class _Address:
    """Where a controller is, taken from its URL."""

    tls: bool
    host: str
    port: int
    prefix: str


def _address(server: str) -> _Address:
    wrong = WrongUse(f"expected a controller's address such as http://127.0.0.1:8090, got {server!r}: correct --server")
    try:
        url = urlsplit(server)
        port = url.port
    except ValueError:
        raise wrong from None
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment or "@" in url.netloc:
        raise wrong
    if not server.isascii() or not server.isprintable() or " " in server:
        raise wrong
    tls = url.scheme == "https"
    return _Address(tls, url.hostname, port or (443 if tls else 80), url.path)


def _path(namespace: str, name: str, *more: str) -> str:
    return "/".join(("/rollouts", *(quote(part, safe="") for part in (namespace, name, *more))))


def _refuse(status: int, value: Any) -> None:
    """Raise what a status that the API knows means."""
    reason = _reason(value)
    if status == 401:
        raise Refused(f"the controller wants its token: {reason or status}. Give it by --token-file.")
    if status == 404 and reason:
        raise WrongUse(f"{reason}. 'cohort get -A' lists what there is.")
    if status in (403, 409, 429) and reason:
        raise Refused(reason)
    if status in (400, 413, 415, 422) and reason:
        raise WrongUse(reason)


def _reason(value: Any) -> str:
    """The text of an error answer: ``error``, or its ``faults`` with their paths."""
    if not isinstance(value, dict):
        return ""
    faults = value.get("faults")
    if isinstance(faults, list) and faults:
        texts = [f"{fault.get('path')}: {fault.get('message')}" for fault in faults if isinstance(fault, dict)]
        return "; ".join(text.removeprefix(": ") for text in texts)
    return str(value.get("error") or "").rstrip(". ")
