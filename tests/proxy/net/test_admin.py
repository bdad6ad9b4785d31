"""The admin API: who may ask, and what is answered; reliability.md 4.4, C1-C5."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from proxy import shared
from proxy.config import ProxySettings
from proxy.latch import Latch
from proxy.net.admin import FAILURES, AccessRules, admin_app
from proxy.net.keeper import Keeper
from proxy.net.web import Site
from proxy.plan import Plan
from tests.support.openapi import OpenApi
from tests.support.plans import plan
from tests.support.supervised import Answer, exchange, proxy_process, request

TOKEN = "0123456789abcdef-token"
OPENAPI = OpenApi(Path(__file__).parents[3] / "docs" / "openapi-admin.yaml")
HOST = {"Host": "localhost"}


class FakeReload:
    """Reloads of nothing."""

    def __init__(self, told: list[str]) -> None:
        self._told = told
        self.counts = {"done": 0, "refused": 0, "stuck": 0}

    def ask(self) -> None:
        self._told.append("reload")


class FakeSupervisor:
    """What the admin API asks of a supervisor, and a keeper that keeps nothing on disk."""

    def __init__(self) -> None:
        words = shared.Words(memoryview(bytearray(shared.size(1))))
        self.keeper = Keeper(words, self, self.stage, lambda: 0.0, lambda: 1_788_264_000.0)
        self.settings = ProxySettings()
        self.unready: str | None = None
        self.is_full = False
        self.told: list[str] = []

    async def stage(self, sequence: int, document: str) -> None: ...

    def write_plan(self, plan: Plan) -> None: ...

    def write_latch(self, latch: Latch) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device")

    def remove_latch(self) -> None: ...

    def state(self) -> dict[str, Any]:
        return {}

    def stats(self) -> dict[str, Any]:
        return {}

    def endpoints(self) -> dict[str, Any]:
        return {"arms": {}}

    def leave(self) -> None:
        self.told.append("leave")

    def set_log_level(self, level: str) -> None:
        self.told.append(level)

    @property
    def reload(self) -> FakeReload:
        return FakeReload(self.told)


class Api:
    """The admin API on a TCP port, with a token."""

    def __init__(self) -> None:
        self.supervisor = FakeSupervisor()
        self.now = 100.0
        self._socket = socket.create_server(("127.0.0.1", 0))
        rules = AccessRules(TOKEN, lambda: self.now)
        self.app = admin_app(self.supervisor, rules, lambda request: self.site.admit(request))  # type: ignore[arg-type]
        self.site = Site(self.app, [self._socket])
        self.port = self._socket.getsockname()[1]

    async def raw(self, data: bytes) -> Answer:
        return Answer(await exchange(await asyncio.open_connection("127.0.0.1", self.port), data))

    async def ask(self, method: str, path: str, body: Any = None, **fields: str) -> Answer:
        """One request with the right token, unless other fields are given (``_`` for ``-``)."""
        given = {name.replace("_", "-"): value for name, value in fields.items()}
        answer = await self.raw(request(method, path, body, {"Authorization": f"Bearer {TOKEN}"} | given))
        if (method, path) in OPENAPI.operations:
            OPENAPI.check(method, path, answer.status, answer.json)
        return answer


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    found = Api()
    await found.site.open()
    yield found
    await found.site.close()


def document(**fields: Any) -> dict[str, Any]:
    dumped: dict[str, Any] = plan(**fields).model_dump(mode="json", by_alias=True)
    return dumped


# --- who may ask


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8081", "", "localhost:x", "127.1"]
)
async def test_another_host_is_refused(api: Api, host: str) -> None:
    """C2: DNS rebinding makes any name mean this machine."""
    assert (await api.ask("GET", "/plan", Host=host)).status == 403


@pytest.mark.parametrize("host", ["localhost", "LocalHost:1", "127.0.0.1:8081", "[::1]:8081", "[::1]"])
async def test_this_machine_by_any_of_its_names_is_fine(api: Api, host: str) -> None:
    """With or without a port."""
    assert (await api.ask("GET", "/healthz", Host=host)).status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://localhost", "http://localhost:1"])
async def test_pages_of_other_sites_may_not_ask(api: Api, origin: str) -> None:
    """C2: CSRF from the operator's browser."""
    assert (await api.ask("POST", "/abort", {"by": "anna"}, Origin=origin)).status == 403
    assert api.supervisor.keeper.latch is None


async def test_an_origin_of_our_own_is_fine(api: Api) -> None:
    """Same host, same port."""
    assert (await api.ask("POST", "/abort", {"by": "anna"}, Origin="http://localhost")).status == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
@pytest.mark.parametrize(("method", "path"), [("POST", "/abort"), ("PUT", "/plan"), ("POST", "/drain")])
async def test_a_form_cannot_write(api: Api, method: str, path: str, kind: str) -> None:
    """C2: what a browser sends without asking first is no JSON."""
    answer = await api.ask(method, path, {"by": "anna"}, Content_Type=kind, If_Match="*")
    assert answer.status == 415
    assert api.supervisor.told == []


async def test_a_compressed_body_is_refused(api: Api) -> None:
    """A small one may unfold to a huge one."""
    answer = await api.ask("POST", "/abort", b"\x1f\x8b", Content_Encoding="gzip")
    assert answer.status == 415


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", "Bearer \udcff"]
)
async def test_a_wrong_token_is_refused(api: Api, given: str) -> None:
    """C3."""
    answer = await api.ask("GET", "/plan", Authorization=given)
    assert (answer.status, answer.fields["www-authenticate"]) == (401, "Bearer")


async def test_guessing_is_slow_but_the_right_token_is_always_heard(api: Api) -> None:
    """C3: a bounded rate of failures; C10: nobody keeps an abort out by sending wrong tokens."""

    async def guess() -> int:
        return (await api.ask("GET", "/state", Authorization="Bearer guess")).status

    assert [await guess() for _ in range(FAILURES + 3)] == [401] * FAILURES + [429] * 3
    assert (await api.ask("POST", "/abort", {"by": "anna"}, authorization=f"bearer {TOKEN}")).status == 200
    api.now += 2.5
    assert [await guess() for _ in range(4)] == [401, 401, 429, 429]


async def test_a_token_never_reaches_the_log(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    """C3: redaction."""
    await api.ask("GET", "/state", Authorization="Bearer almost-right")
    assert "almost-right" not in caplog.text
    assert "wrong token" in caplog.text


# --- what is answered


async def test_a_plan_is_put_with_the_tag_in_force(api: Api) -> None:
    """C5."""
    assert (await api.ask("GET", "/plan")).status == 404
    first = await api.ask("PUT", "/plan", document(), If_Match='"none"')
    assert (first.status, first.json["etag"]) == (200, first.fields["etag"])
    found = await api.ask("GET", "/plan")
    assert (found.json, found.fields["etag"]) == (document(), first.fields["etag"])
    second = await api.ask("PUT", "/plan", document(generation=2), If_Match=first.fields["etag"])
    assert second.status == 200
    assert (await api.ask("PUT", "/plan", document(generation=3), If_Match=first.fields["etag"])).status == 412
    assert (await api.ask("PUT", "/plan", document(generation=1), If_Match="*")).status == 409
    assert (await api.ask("PUT", "/plan", document(generation=3))).status == 428
    # What is wrong with the document comes first: a tag does not help a plan that is none.
    assert (await api.ask("PUT", "/plan", {"canary": -1})).status == 422
    assert (await api.ask("PUT", "/plan", document(generation=2), If_Match='"none"')).status == 200


async def test_a_plan_may_be_yaml(api: Api) -> None:
    """As in a file; no page of another site can send that type without being asked either."""
    text = json.dumps(document(), indent=1).encode() + b"\n# a comment\n"
    assert (await api.ask("PUT", "/plan", text, If_Match="*", Content_Type="application/yaml")).status == 200


async def test_every_fault_of_a_plan_is_told_with_its_path(api: Api) -> None:
    """C4: refused whole, counted."""
    answer = await api.ask("PUT", "/plan", document() | {"generation": "x", "colour": "red"}, If_Match="*")
    assert answer.status == 422
    assert [fault["path"] for fault in answer.json["faults"]] == ["generation", "colour"]
    assert api.supervisor.keeper.rejected["invalid"] == 1
    assert api.supervisor.keeper.in_force is None


@pytest.mark.parametrize("path", ["/plan", "/abort"])
async def test_a_body_is_bounded(api: Api, path: str) -> None:
    """1 MiB."""
    method = "PUT" if path == "/plan" else "POST"
    answer = await api.ask(method, path, b" " * (1_048_576 + 1), If_Match="*")
    assert (answer.status, "1048576 bytes" in answer.json["error"]) == (413, True)


async def test_an_abort_is_answered_with_the_one_that_stands(api: Api) -> None:
    """Idempotent."""
    first = await api.ask("POST", "/abort", {"by": "anna", "reason": "errors", "id": "feedface"})
    assert (first.status, first.json["id"]) == (200, "feedface")
    assert (await api.ask("POST", "/abort", {"by": "ben"})).json == first.json


async def test_an_abort_that_is_not_stored_is_told_by_507(api: Api) -> None:
    """In force all the same."""
    api.supervisor.is_full = True
    answer = await api.ask("POST", "/abort", {"by": "anna"})
    assert (answer.status, "is in force" in answer.json["error"]) == (507, True)
    assert api.supervisor.keeper.latch is not None


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"by": 1}', b'{"by": "a", "x": 1}'])
async def test_a_bad_request_to_abort_is_told(api: Api, body: bytes) -> None:
    """And nothing is aborted by it."""
    assert (await api.ask("POST", "/abort", body)).status == 422
    assert api.supervisor.keeper.latch is None


async def test_what_else_can_be_asked_for(api: Api) -> None:
    """Probes, endpoints, settings, leaving, the log's level."""
    assert (await api.ask("GET", "/ready")).status == 200
    api.supervisor.unready = "there is no plan yet"
    assert (await api.ask("GET", "/ready")).json == {"ready": False, "reason": "there is no plan yet"}
    assert (await api.ask("GET", "/endpoints")).json == {"arms": {}}
    assert (await api.ask("GET", "/config")).json["workers"] == 1
    assert (await api.ask("POST", "/drain")).status == 202
    assert (await api.ask("POST", "/reload", {"by": "anna"})).json["reloads"]["done"] == 0
    assert (await api.ask("POST", "/log-level", {"level": "debug"})).status == 200
    assert api.supervisor.told == ["leave", "reload", "debug"]


async def test_nothing_changes_by_get_and_nothing_else_is_there(api: Api) -> None:
    """C2."""
    for path in ("/abort", "/drain", "/reload", "/log-level"):
        answer = await api.ask("GET", path)
        assert (answer.status, answer.fields["allow"]) == (405, "POST")
    assert (await api.ask("GET", "/metrics")).status == 404
    assert (await api.ask("DELETE", "/plan")).status == 405
    assert api.supervisor.told == []


async def test_bytes_that_are_no_request_are_refused(api: Api) -> None:
    """400, and our version numbers are nobody's business."""
    answer = await api.raw(b"\x16\x03\x01\0\0\r\n\r\n")
    assert answer.status == 400
    assert (await api.ask("GET", "/healthz")).fields["server"] == "cohort"


def test_the_openapi_file_has_every_operation_and_no_other() -> None:
    """The file is held against the server's own routes."""
    api = Api()
    routes = {
        (route.method, route.resource.canonical)
        for route in api.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert routes == OPENAPI.operations
    api._socket.close()


@pytest.mark.integration
async def test_a_real_proxy_answers_as_the_openapi_file_says(tmp_path: Path) -> None:
    """State and stats are the real ones here, before and after a plan and an abort."""
    async with proxy_process(tmp_path) as proxy:

        async def check(method: str, path: str, body: Any = None, **fields: str) -> None:
            answer = await proxy.ask(method, path, body, {name.replace("_", "-"): v for name, v in fields.items()})
            OPENAPI.check(method, path, answer.status, answer.json)

        reads = sorted(path for method, path in OPENAPI.operations if method == "GET")
        for path in reads:
            await check("GET", path)
        await check("PUT", "/plan", document(), If_Match="*")
        await check("POST", "/abort", {"by": "anna"})
        await proxy.until_ready()
        await proxy.get()
        for path in reads:
            await check("GET", path)
        await check("POST", "/log-level", {"level": "warning"})
        await check("POST", "/reload", {})
        await check("POST", "/drain", {})
