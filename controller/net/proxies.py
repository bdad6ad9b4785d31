"""A proxy's admin API, as the controller uses it: a Unix socket, or a loopback port with a token."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

from controller.errors import Outranked, PlanRefused, Temporary
from controller.spec import ProxyAddress
from proxy.plan import Plan

LOOK_S = 1.0  # /state and /stats: from memory
ABORT_S = 2.0  # a latch is on disk before the answer
PUT_S = 5.0  # every worker stages the plan and acknowledges it
MAX_ANSWER_BYTES = 16 * 1_048_576  # a plan with 5,000 endpoints is 0.4 MB, its counters less
_NO_PLAN = '"none"'


@dataclass(frozen=True, slots=True)
class Control:
    """A replica's control port.

    Attributes:
        url: ``https://ADDRESS:8083``.
        tls: Gives what trusts the installation's own certificate alone; raises `Temporary`.
    """

    url: str
    token_file: str
    tls: Callable[[], ssl.SSLContext]


class ProxyClient:
    """One proxy. Every method has a deadline and raises `Temporary` where the proxy cannot be reached or asked.

    Attributes:
        address: As the settings have it, or a replica's name.
        is_fed: Whether it gets its plans from somebody else; here they are only compared.

    Args:
        proxy: Where its admin API is.
        is_fed: See above.
        at: Its control port; None: the admin API is asked.
        name: Of a replica.
    """

    def __init__(self, proxy: ProxyAddress, *, is_fed: bool = False, at: Control | None = None, name: str = "") -> None:
        self.address = name or proxy.address
        self.is_fed = is_fed
        self._token_file = at.token_file if at else proxy.token_file
        self._putting = asyncio.Lock()
        socket = proxy.address.removeprefix("unix:")
        is_unix = socket != proxy.address and at is None
        self._base = at.url if at else "http://localhost" if is_unix else proxy.address
        self._tls = at.tls if at else lambda: True
        connector = aiohttp.UnixConnector(socket, limit=4) if is_unix else aiohttp.TCPConnector(limit=4)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False, trust_env=False)

    async def __aenter__(self) -> ProxyClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._session.close()

    async def state(self) -> dict[str, Any]:
        """GET /state."""
        return await self._get("/state")

    async def stats(self) -> dict[str, Any]:
        """GET /stats."""
        return await self._get("/stats")

    async def plan(self) -> dict[str, Any]:
        """GET /plan; empty where nobody may ask."""
        if self.is_fed:
            return {}
        return await self._get("/plan")

    def has(self, plan: Plan, summary: Mapping[str, Any] | None) -> bool:
        """Whether a proxy that tells this of its plan has the very plan, or the very core of one that it is fed."""
        if summary is None:
            return False
        if not self.is_fed:
            return bool(summary["etag"] == plan.etag)
        found = summary["uid"], summary["generation"], summary.get("core")
        return found == (plan.rollout.uid, plan.generation, plan.core_digest)

    async def put(self, plan: Plan, etag: str | None) -> None:
        """PUT /plan: returns when every worker serves it.

        Args:
            plan: The plan.
            etag: Of the plan that the proxy has; None: it has none.

        Raises:
            PlanRefused: The proxy finds fault with the plan itself.
            Outranked: It has another plan than ``etag`` by now, or a later one.
        """
        if self.is_fed:
            return
        body = plan.model_dump_json(by_alias=True).encode()
        async with self._putting:
            status, answer = await self._ask("PUT", "/plan", PUT_S, body, {"If-Match": etag or _NO_PLAN})
        if status in (409, 412):
            raise Outranked(f"{self.address} has another plan: {_reason(answer)}")
        if status == 422:
            raise PlanRefused(f"refuses plan {plan.generation}: {_reason(answer)}")
        if status != 200:
            raise Temporary(f"PUT /plan: status {status}: {_reason(answer)}")

    async def abort(self, latch_id: str, by: str, reason: str) -> dict[str, Any]:
        """POST /abort: the latch that stands now, which may be an earlier one.

        A plan that was on its way to the proxy may lift what stood there, so the proxy is asked again after that.
        """
        body = json.dumps({"by": by[:256], "reason": reason[:1024], "id": latch_id}).encode()
        was_putting = self._putting.locked()
        latch = await self._latch(body)
        if was_putting:
            try:
                async with asyncio.timeout(PUT_S), self._putting:
                    latch = await self._latch(body)
            except TimeoutError:
                raise Temporary(f"a plan that was under way has not ended within {PUT_S:g} s") from None
        return latch

    async def _latch(self, body: bytes) -> dict[str, Any]:
        status, answer = await self._ask("POST", "/abort", ABORT_S, body)
        if status != 200 or not isinstance(answer.get("id"), str):
            raise Temporary(f"POST /abort: status {status}: {_reason(answer)}")
        return answer

    async def _get(self, path: str) -> dict[str, Any]:
        status, answer = await self._ask("GET", path, LOOK_S)
        if status != 200:
            raise Temporary(f"GET {path}: status {status}: {_reason(answer)}")
        return answer

    async def _ask(
        self, method: str, path: str, limit_s: float, body: bytes | None = None, extra: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        headers = {**(extra or {}), **self._authorization()}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            async with (
                asyncio.timeout(limit_s),
                self._session.request(
                    method, self._base + path, data=body, headers=headers, allow_redirects=False, ssl=self._tls()
                ) as response,
            ):
                return response.status, await _read(response)
        except TimeoutError:
            raise Temporary(f"no answer to {method} {path} within {limit_s:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Temporary(f"{method} {path}: {_cause(error)}") from None

    def _authorization(self) -> dict[str, str]:
        """Read at each request: a token that was changed on disk counts at once."""
        if self._token_file is None:
            return {}
        try:
            token = Path(self._token_file).read_text().strip()
        except OSError as error:
            raise Temporary(f"tokenFile {self._token_file} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            token = ""
        if not token.isascii() or not token.isprintable() or not token:
            raise Temporary(f"tokenFile {self._token_file} has no token of printable characters")
        return {"Authorization": f"Bearer {token}"}


async def _read(response: aiohttp.ClientResponse) -> dict[str, Any]:
    content = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise Temporary(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    try:
        value = json.loads(content) if content else {}
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Temporary(f"status {response.status} without a JSON object")
    return value


def _reason(answer: dict[str, Any]) -> str:
    faults = answer.get("faults")
    if isinstance(faults, list):
        return "; ".join(f"{f.get('path')}: {f.get('message')}" for f in faults if isinstance(f, dict))
    return str(answer.get("error") or answer)[:300]


def _cause(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
