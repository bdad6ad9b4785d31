"""The API server, as a ServiceAccount asks it: plain JSON in and out, each request with a deadline.

The only module that imports the client library. Of that only the transport is used: its watch and its leader election
stop working when the API server does, and without a deadline a half-open connection holds a call for ever.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.client.exceptions import ApiException

from controller.errors import Temporary

ASK_S = 5.0  # one object; the API server answers within milliseconds or is in trouble
LIST_S = 30.0  # thousands of objects, from an API server that has just started
CONNECT_S = 3.0
GRACE_S = 5.0  # how much later than it was asked to a server may end a watch
SAID = 500  # characters of an answer that go into a message
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


class ApiRefused(Temporary):
    """The API server refused.

    Attributes:
        status: Of the answer, or 410 of an event in a watch.
        after_s: When to come again, if the server says so (429, 503); else 0.
    """

    def __init__(self, status: int, message: str, after_s: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.after_s = after_s


@dataclass(frozen=True, slots=True)
class Account:
    """Where the API server is, and who asks.

    Attributes:
        server: ``https://HOST:PORT``.
        token_file: Read at each request: the kubelet renews it.
        ca_file: Read again when it changes.
    """

    server: str
    token_file: str
    ca_file: str


def in_cluster(env: Mapping[str, str], folder: str) -> Account:
    """The account that a pod is given.

    Raises:
        ValueError: The environment does not say where the API server is.
    """
    host, port = env.get("KUBERNETES_SERVICE_HOST"), env.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise ValueError("expected KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT, as in every pod")
    return Account(f"https://{f'[{host}]' if ':' in host else host}:{port}", f"{folder}/token", f"{folder}/ca.crt")


class Client:
    """One API server. Every method raises `Temporary` where it cannot be reached, `ApiRefused` where it refuses."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._authority = b""
        self._api: ApiClient | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._api:
            await self._api.close()
        if self._closing:
            await asyncio.gather(*self._closing)

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: Mapping[str, str] | None = None,
        kind: str = "application/json",
        limit_s: float = ASK_S,
    ) -> dict[str, Any]:
        """One request, and the answer's document.

        Args:
            method: As HTTP has it.
            path: ``/apis/...``.
            body: A document; ``kind`` its media type.
            query: What follows the path.
            limit_s: For the whole of it.
        """
        limits = aiohttp.ClientTimeout(total=limit_s, connect=CONNECT_S)
        try:
            answer = await self._send(method, path, body, query, kind, limits)
            return _document(answer.data)
        except ApiException as error:
            message = f"{method} {path}: {error.status}: {_said(error.body)}"
            raise ApiRefused(int(error.status), message, _after_s(error.headers)) from None
        except TimeoutError:
            raise Temporary(f"{method} {path}: no answer within {limit_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Temporary(f"{method} {path}: {error or type(error).__name__}") from None

    async def watch(self, path: str, version: str, limit_s: int) -> AsyncIterator[dict[str, Any]]:
        """The events of a collection since a version, until the server ends it, which is at ``limit_s``."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(limit_s),
        }
        limits = aiohttp.ClientTimeout(total=limit_s + GRACE_S, connect=CONNECT_S)
        try:
            response = await self._send("GET", path, None, query, "application/json", limits, is_stream=True)
            async with response:
                if response.status != 200:
                    said = (await response.content.read(65_536)).decode(errors="replace")
                    message = f"watch {path}: {response.status}: {_said(said)}"
                    raise ApiRefused(response.status, message, _after_s(response.headers))
                while line := await response.content.readline():
                    yield _document(line)
        except TimeoutError:
            raise Temporary(f"watch {path}: the connection is silent") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Temporary(f"watch {path}: {error or type(error).__name__}") from None
        except ValueError as error:
            raise Temporary(f"watch {path}: {error}") from None  # an event beyond the reader's bound

    async def _send(
        self,
        method: str,
        path: str,
        body: Any,
        query: Mapping[str, str] | None,
        kind: str,
        limits: aiohttp.ClientTimeout,
        is_stream: bool = False,
    ) -> Any:
        headers = {"Authorization": f"Bearer {self._token()}", "Accept": "application/json", "Content-Type": kind}
        return await self._current().rest_client.request(
            method,
            self._account.server + path,
            query_params=dict(query or {}),
            headers=headers,
            body=body,
            _preload_content=not is_stream,
            _request_timeout=limits,
        )

    def _token(self) -> str:
        try:
            token = Path(self._account.token_file).read_bytes().strip()
        except OSError as error:
            raise Temporary(f"{self._account.token_file} cannot be read: {error.strerror}") from None
        if not token or any(not 0x21 <= byte <= 0x7E for byte in token):
            raise Temporary(f"{self._account.token_file} has no token of printable characters")
        return token.decode("ascii")

    def _current(self) -> ApiClient:
        """The library's client, made anew when the authority on disk is another one."""
        try:
            authority = Path(self._account.ca_file).read_bytes()
        except OSError as error:
            raise Temporary(f"{self._account.ca_file} cannot be read: {error.strerror}") from None
        if self._api is None or authority != self._authority:
            before = self._api
            try:
                self._api = ApiClient(Configuration(host=self._account.server, ssl_ca_cert=self._account.ca_file))
            except OSError as error:  # ssl.SSLError is one: half a file, or none of ours
                raise Temporary(f"{self._account.ca_file} is no certificate: {error}") from None
            self._authority = authority
            if before:
                task = asyncio.ensure_future(before.close())
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
        return self._api


def _document(text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Temporary("the API server's answer is no JSON object")
    return value


def _after_s(headers: Any) -> float:
    """Seconds of ``Retry-After`` (RFC 9110, 10.2.3); 0 for a date, which no API server sends."""
    text = str((headers or {}).get("Retry-After") or "")
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0.0


def _said(body: Any) -> str:
    """The message of a Status document, or what came instead."""
    try:
        return str(json.loads(body)["message"])[:SAID]
    except (TypeError, ValueError, KeyError):
        return str(body)[:SAID]
