"""One request to a cluster's API server, with a deadline for the whole answer, and what refusals mean.

Written on the standard library, as `controller.cli.client` is: the client library of Kubernetes takes longer to import
than all requests of a command together.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, urlencode, urlsplit

from controller.cli.client import MAX_ANSWER_BYTES, REQUEST_S, TimedSocket
from controller.cli.exits import NotReachable, Refused, TimedOut, WrongUse
from controller.cli.kube import credentials
from controller.cli.kube.config import Access

Json = dict[str, Any]

MAX_LINE_BYTES = 4 * 1_048_576  # of a watch: one object, and etcd takes none beyond 1.5 MiB
INSTALL = (
    "install cohort with its Helm chart, or its definitions alone: "
    "cohort schema --crd | kubectl apply --server-side -f -"
)


class Missing(WrongUse):
    """The server knows the resource, and has no object of that name."""


class Server:
    """An API server as the commands use it.

    Args:
        access: Where it is, and who asks.
        timeout_s: Seconds that the whole command may take; None: `REQUEST_S` for each request.

    Every method raises `Refused`, `WrongUse`, `NotReachable` or `TimedOut`.
    """

    def __init__(self, access: Access, timeout_s: float | None = None) -> None:
        self._given = access
        self._access = credentials.made(access)
        self._url = _url(access.server)
        self._tls: ssl.SSLContext | None = None
        self.timeout_s = timeout_s
        self.deadline = None if timeout_s is None else time.monotonic() + timeout_s

    @property
    def label(self) -> str:
        """The server in messages."""
        context = self._access.context
        return f"{self._access.server} (context {context})" if context else self._access.server

    def ask(self, method: str, path: str, query: Mapping[str, str] | None = None, body: Json | None = None) -> Json:
        """The document of one answer."""
        with self._errors(method, self._left(REQUEST_S)) as limit_s:
            status, payload = self._exchange(method, _target(path, query), body, limit_s)
            if status == 401 and self._given.command:  # a token has a life of its own
                self._access = credentials.made(self._given)
                status, payload = self._exchange(method, _target(path, query), body, limit_s)
        value = _json(payload)
        if 200 <= status < 300 and value is not None:
            return value
        raise self._refusal(status, value, payload)

    def watch(self, path: str, query: Mapping[str, str], wait_s: float) -> Json | None:
        """The first event of a watch; None: nothing has happened within ``wait_s`` seconds."""
        left = min(wait_s, self._left(wait_s))
        query = {**query, "watch": "true", "timeoutSeconds": str(max(1, int(left)))}
        with (
            self._errors("GET", left + REQUEST_S) as limit_s,
            self._open("GET", _target(path, query), None, limit_s) as answer,
        ):
            if answer.status != 200:
                payload = answer.read(MAX_ANSWER_BYTES)
                raise self._refusal(answer.status, _json(payload), payload)
            return _json(answer.readline(MAX_LINE_BYTES))

    def _left(self, most_s: float) -> float:
        return most_s if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    @contextlib.contextmanager
    def _errors(self, method: str, limit_s: float) -> Iterator[float]:
        """What an exchange may raise, in words."""
        if limit_s <= 0:
            raise TimedOut(self._late(method, limit_s))
        try:
            yield limit_s
        except TimeoutError:
            raise TimedOut(self._late(method, limit_s)) from None
        except ssl.SSLCertVerificationError as error:
            raise NotReachable(f"the certificate of {self.label} is not believed: {error.verify_message}.") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise NotReachable(
                f"the cluster's API server {self.label} does not answer: {reason}. Choose another by --context."
            ) from None

    def _late(self, method: str, limit_s: float) -> str:
        after = "" if method == "GET" else " It may still be carried out: look with status."
        return f"{self.label} has not answered within {limit_s:.3g} s.{after} --timeout waits longer."

    def _exchange(self, method: str, target: str, body: Json | None, limit_s: float) -> tuple[int, bytes]:
        with self._open(method, target, body, limit_s) as answer:
            payload = answer.read(MAX_ANSWER_BYTES + 1)
            if len(payload) > MAX_ANSWER_BYTES:
                raise ConnectionError(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
            return answer.status, payload

    @contextlib.contextmanager
    def _open(self, method: str, target: str, body: Json | None, limit_s: float) -> Iterator[http.client.HTTPResponse]:
        """Send a request, and hand over its answer from the head on."""
        deadline = time.monotonic() + limit_s
        connection = self._connect(limit_s)
        try:
            connection.putrequest(method, self._url.path.rstrip("/") + target)
            payload = None if body is None else json.dumps(body).encode()
            for name, value in self._fields(payload):
                connection.putheader(name, value)
            connection.endheaders(payload)
            answer = http.client.HTTPResponse(TimedSocket(connection.sock, deadline), method=method)  # type: ignore[arg-type]  # of a socket it uses makefile only
            answer.begin()
            yield answer
        finally:
            connection.close()

    def _connect(self, limit_s: float) -> http.client.HTTPConnection:
        """A connection, through a proxy where one is set, and verified."""
        host, port = str(self._url.hostname), self._url.port or (443 if self._url.scheme == "https" else 80)
        proxy = urlsplit(self._access.proxy or _proxy(self._url))
        if proxy.hostname:
            connection = http.client.HTTPConnection(proxy.hostname, proxy.port or 80, timeout=limit_s)
            connection.set_tunnel(host, port)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=limit_s)
        try:
            connection.connect()
        except TimeoutError:
            raise ConnectionError(f"no connection within {limit_s:g} s") from None
        if self._url.scheme == "https":
            name = self._access.server_name or host
            connection.sock = self._context().wrap_socket(connection.sock, server_hostname=name)
        return connection

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = _tls(self._access)
        return self._tls

    def _fields(self, payload: bytes | None) -> Iterator[tuple[str, str]]:
        yield "Accept", "application/json"
        yield "Connection", "close"
        yield "User-Agent", "kubectl-cohort"
        if payload is not None:
            yield "Content-Type", "application/json"
            yield "Content-Length", str(len(payload))
        if token := self._access.token or _token(self._access.token_file):
            yield "Authorization", f"Bearer {token}"
        yield from self._access.headers

    def _refusal(self, status: int, value: Json | None, payload: bytes) -> Exception:
        """What an answer that is none means: whose fault, and what to do."""
        told = str((value or {}).get("message") or "").rstrip(". ")
        details = (value or {}).get("details") or {}
        if status == 401:
            return Refused(f"{self.label} does not know who asks: the credentials are wrong or have expired. Log in.")
        if status == 403:
            return Refused(f"not allowed: {told or 'forbidden'}. Whoever runs the cluster grants it.")
        if status == 404 and not details.get("name"):
            return WrongUse(f"{self.label} does not know the resources of cohort.dev: {INSTALL}.")
        if status == 404:
            return Missing(f"{told}. 'get -A' lists what there is.")
        if status in (400, 409, 410, 422):
            return Refused(told or f"refused with status {status}")
        text = told or payload[:200].decode("utf-8", "replace").strip()
        return NotReachable(f"expected an answer of an API server from {self.label}, got status {status}: {text}.")


def _url(server: str) -> SplitResult:
    try:
        url = urlsplit(server)
        if url.scheme in ("http", "https") and url.hostname and (url.port is None or url.port > 0):
            return url
    except ValueError:
        pass
    raise WrongUse(f"expected the server of a cluster as https://HOST:PORT, got {server!r}: correct the kubeconfig.")


def _target(path: str, query: Mapping[str, str] | None) -> str:
    return f"{path}?{urlencode(query)}" if query else path


def _json(payload: bytes) -> Json | None:
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _proxy(url: SplitResult) -> str:
    """The proxy that the environment names, as other programs take it."""
    import urllib.request

    if urllib.request.proxy_bypass(str(url.hostname)):
        return ""
    return urllib.request.getproxies().get(url.scheme, "")


def _token(path: str) -> str:
    """What a token file has now: a pod's is renewed while the program runs."""
    if not path:
        return ""
    try:
        with open(path, encoding="ascii") as file:
            return file.read(65_536).strip()
    except (OSError, ValueError) as error:
        raise WrongUse(f"cannot read the token file {path}: {error}.") from None


def _tls(access: Access) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=access.authority.decode("ascii") if access.authority else None)
        if not access.is_verified:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if access.certificate:
            _identify(context, access.certificate, access.key)
    except (ssl.SSLError, ValueError) as error:
        raise WrongUse(f"the kubeconfig's certificates cannot be used: {error}.") from None
    return context


def _identify(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Take a certificate of one's own. OpenSSL reads files only: there is one for a moment, which nobody else reads."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        context.load_cert_chain(file.name)
