"""The REST API over a socket: what is answered, what is refused, and that its description is true."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import TypeAdapter

from controller.messages import (
    ActionAnswer,
    EventAnswer,
    Failure,
    PreviewAnswer,
    WhoamiAnswer,
)
from controller.net import guard, service
from controller.net.openapi import openapi
from controller.spec import ControllerSettings, RolloutSpec
from controller.status import Status
from proxy.document import validate
from proxy.net.keyfiles import load_keys
from proxy.preview import check_token
from tests.support.fake_admin import FakeAdmin, serving
from tests.support.fake_proxy import FakeProxy

EXAMPLES = Path(__file__).parents[3] / "examples" / "rollout"
ONE = "/api/v1/rollouts/shop/checkout"
TOKEN = "0123456789abcdef0123456789abcdef"


class Desk:
    """A controller at work, and a client of its API."""

    def __init__(self, base: str, session: aiohttp.ClientSession, proxy: FakeProxy, root: Path) -> None:
        self.base = base
        self.proxy = proxy
        self.root = root
        self._session = session

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body)
        typed = {} if body is None else {"Content-Type": "application/json"}
        async with self._session.request(method, self.base + path, data=data, headers={**typed, **headers}) as answer:
            text = await answer.text()
            is_json = answer.content_type == "application/json"
            return answer.status, json.loads(text) if is_json else text

    async def get(self, path: str = ONE, **headers: str) -> Any:
        status, body = await self.ask("GET", path, **headers)
        assert status == 200, body
        return body

    async def act(self, verb: str, **more: Any) -> tuple[int, Any]:
        return await self.ask("POST", f"{ONE}/actions", {"verb": verb, "by": "anna", **more})

    async def until(self, *phases: str, path: str = ONE) -> dict[str, Any]:
        deadline = time.monotonic() + 10
        while True:
            shown: dict[str, Any] = await self.get(path)
            if shown["status"]["phase"] in phases:
                return shown
            assert time.monotonic() < deadline, shown["status"]
            await asyncio.sleep(0.02)


@asynccontextmanager
async def desk(root: Path, monkeypatch: pytest.MonkeyPatch, steps: str = "", **settings: Any) -> AsyncIterator[Desk]:
    monkeypatch.chdir(root)
    folder = root / "rollouts"
    folder.mkdir(exist_ok=True)
    for path in EXAMPLES.glob("*.yaml"):
        (folder / path.name).write_text(path.read_text())
    if steps:
        text = re.sub(r"(?s)steps:.*", steps, (folder / "checkout.yaml").read_text())
        (folder / "checkout.yaml").write_text(text)
    async with AsyncExitStack() as stack:
        proxy = FakeProxy()
        address = await stack.enter_async_context(serving(FakeAdmin(proxy), str(root / "admin.sock")))
        value = {"proxies": [{"address": address}], "pollInterval": "100ms", "api": {"listen": "127.0.0.1:0"}}
        stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
        made = validate(ControllerSettings, {**value, **settings})
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        tasks.create_task(service.serve(made, stop, lambda host, port: ready.set_result((host, port))))
        stack.callback(stop.set)
        _, port = await ready
        session = await stack.enter_async_context(aiohttp.ClientSession())
        yield Desk(f"http://127.0.0.1:{port}", session, proxy, root)


@pytest.fixture
async def at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    async with desk(tmp_path, monkeypatch, "steps: [{setWeight: 30}, {pause: {}}]") as opened:
        await opened.until("Paused")
        yield opened


async def test_a_rollout_is_document_and_status(at: Desk) -> None:
    """The document as it was written, with uid and generation, and the status of surface.md."""
    shown = await at.get()
    assert set(shown) == {"apiVersion", "kind", "metadata", "spec", "status"}
    assert shown["metadata"]["name"] == "checkout"
    assert shown["metadata"]["namespace"] == "shop"
    assert shown["spec"]["stable"] == {"addresses": ["127.0.0.1:9001"], "revision": "v1"}
    assert "routes" in shown["spec"]
    assert "salt" not in json.dumps(shown)
    assert (await at.get("/api/v1/rollouts"))["items"][0]["metadata"] == shown["metadata"]
    assert len((await at.get("/api/v1/rollouts?namespace=shop"))["items"]) == 1
    assert (await at.get("/api/v1/rollouts?namespace=other"))["items"] == []


async def test_verbs_are_done_or_refused_with_the_reason(at: Desk) -> None:
    """200 Done, 409 with why, 422 with every fault."""
    assert await at.act("Pause") == (
        200,
        {"result": "Done", "message": "stays where it is; what fails is rolled back all the same"},
    )
    assert await at.act("SetWeight", weight=12) == (
        200,
        {"result": "Done", "message": "12 % of users go to v2, and it is paused there"},
    )
    assert (await at.act("Resume"))[0] == 200
    assert await at.act("Retry") == (409, {"error": "it is paused and not aborted"})
    assert await at.act("Abort", revision="v9") == (409, {"error": "v9 is meant, but v2 is on trial"})
    assert (await at.act("Abort", reason="smoke"))[1]["message"] == (
        "everyone goes back to stable: 1 of 1 proxies are latched"
    )
    shown = await at.get()
    assert shown["status"]["phase"] == "Aborted"
    assert [(a["verb"], a["result"]) for a in shown["status"]["actions"]] == [
        ("Pause", "Done"),
        ("SetWeight", "Done"),
        ("Resume", "Done"),
        ("Retry", "Refused"),
        ("Abort", "Refused"),
        ("Abort", "Done"),
    ]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "verb"),
        ({"verb": "Promote"}, "by"),
        ({"verb": "promote", "by": "anna"}, "verb"),
        ({"verb": "Promote", "by": ""}, "by"),
        ({"verb": "Promote", "by": "anna", "force": True}, "force"),
        ({"verb": "Promote", "by": "anna", "weight": 5}, "weight"),
        ({"verb": "SetWeight", "by": "anna"}, "weight"),
        ({"verb": "SetWeight", "by": "anna", "weight": 5.5}, "weight"),
        ({"verb": "SetWeight", "by": "anna", "weight": 101}, "weight"),
        ({"verb": "Start", "by": "anna"}, "revision"),
        ({"verb": "Start", "by": "anna", "revision": "v7"}, "addresses"),
        ({"verb": "Start", "by": "anna", "revision": "v7", "addresses": ["example.org:80"]}, "addresses[0]"),
        (
            {"verb": "Start", "by": "anna", "revision": "v7", "addresses": ["127.0.0.1:1", "127.0.0.1:1"]},
            "addresses[1]",
        ),
        (
            {
                "verb": "Start",
                "by": "a",
                "revision": "v7",
                "addresses": ["127.0.0.1:1"],
                "dns": {"host": "a", "port": 1},
            },
            "",
        ),
        ({"verb": "Start", "by": "anna", "revision": "v7", "dns": {"host": "127.0.0.1", "port": 1}}, "dns.host"),
        ({"verb": "Promote", "by": "anna", "dns": {"host": "a", "port": 1}}, "dns"),
        ({"verb": "Promote", "by": "x" * 257}, "by"),
        ([], ""),
        ("Promote", ""),
    ],
)
async def test_a_faulty_action_is_refused_with_its_field(at: Desk, body: Any, path: str) -> None:
    """422, and nothing has happened."""
    status, answer = await at.ask("POST", f"{ONE}/actions", body)
    assert status == 422
    assert path in [fault["path"] for fault in answer["faults"]], answer
    assert (await at.get())["status"]["actions"] == []


async def test_start_takes_addresses_or_the_documents(at: Desk) -> None:
    """`cohort start --revision --addresses`; the document's canary needs none."""
    status, answer = await at.act("Start", revision="v3", addresses=["127.0.0.1:9003"])
    assert (status, answer["message"]) == (200, "v3 begins as soon as everyone is on v1")
    await at.until("Paused")
    assert (await at.get())["status"]["revision"] == {"stable": "v1", "canary": "v3"}
    assert (await at.act("Start", revision="v2"))[0] == 200


async def test_start_takes_a_name_and_speaks_to_it_as_to_the_documents_canary(at: Desk) -> None:
    """`cohort start --revision --dns`: how a version is checked is in the document alone."""
    assert (await at.act("Start", revision="v3", dns={"host": "v3.example", "port": 80}))[0] == 200
    await at.until("Paused")
    assert (await at.get())["status"]["revision"] == {"stable": "v1", "canary": "v3"}


async def test_events_are_told_from_a_number_on(at: Desk) -> None:
    """Oldest first, each with time, type, reason and a sentence."""
    events = (await at.get(f"{ONE}/events"))["items"]
    assert [event["reason"] for event in events[:3]] == ["Adopted", "Programmed", "RolloutStarted"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", events[0]["at"])
    later = (await at.get(f"{ONE}/events?after={events[1]['seq']}"))["items"]
    assert later == events[2:]


async def test_whoami_is_what_the_proxies_compute(at: Desk) -> None:
    """By the plan in force; a source that the rollout does not have is 422 with those that it has."""
    found = await at.get(f"{ONE}/whoami?key=header:X-User-Id=anna")
    assert found["arm"] in ("stable", "canary")
    assert (found["weight"], found["reason"]) == ("30.00", "split")
    status, answer = await at.ask("GET", f"{ONE}/whoami?key=cookie:uid=1")
    assert status == 422
    assert "header:x-user-id, mint" in answer["error"]
    assert (await at.ask("GET", f"{ONE}/whoami"))[0] == 422


async def test_a_preview_token_is_one_that_proxies_take(at: Desk) -> None:
    """Signed with the installation's preview key, for this rollout and arm, until then."""
    status, answer = await at.ask("POST", f"{ONE}/preview", {"arm": "canary", "ttl": "1h"})
    assert status == 200
    assert answer["path"] == f"/.cohort/preview?token={answer['token']}"
    keys = load_keys(at.root / "keys")
    now = time.time()
    expires = check_token(keys.preview, "shop/checkout", "canary", answer["token"], now)
    assert expires is not None
    assert 3590 < expires - now <= 3600
    assert (await at.ask("POST", f"{ONE}/preview", {"arm": "third"}))[0] == 409
    assert (await at.ask("POST", f"{ONE}/preview", {"arm": "canary", "ttl": "1000h", "x": 1}))[0] == 422
    assert (await at.ask("POST", f"{ONE}/preview", {"arm": "canary", "ttl": "9999h"}))[0] == 422


async def test_a_preview_that_is_disabled_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxies would not take it."""
    async with desk(tmp_path, monkeypatch, "steps: [{pause: {}}]") as at:
        path = tmp_path / "rollouts" / "checkout.yaml"
        path.write_text(path.read_text().replace("access: Token", "access: Disabled"))
        await at.until("Paused")
        deadline = time.monotonic() + 5
        while (await at.get())["status"]["observedGeneration"] < 2:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        status, answer = await at.ask("POST", f"{ONE}/preview", {"arm": "canary"})
        assert (status, answer["error"].split(":")[0]) == (409, "preview is disabled")


async def test_a_long_poll_answers_with_the_change(at: Desk) -> None:
    """wait and since; another version than the present one is answered at once."""
    shown = await at.get()
    version = shown["status"]["resourceVersion"]
    before = time.monotonic()
    await at.get(f"{ONE}?wait=5&since={version + 1}")
    assert time.monotonic() - before < 2
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(at.get(f"{ONE}?wait=20&since={version}"))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await at.act("Abort")
    assert waiting.result()["status"]["phase"] == "Aborted"


@pytest.mark.parametrize("query", ["wait=x", "wait=-1", "wait=1&wait=2", "wait=nan", "since=inf", "wait=1e99"])
async def test_a_faulty_query_is_refused(at: Desk, query: str) -> None:
    """422 with the field."""
    assert (await at.ask("GET", f"{ONE}?{query}"))[0] == 422


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/rollouts/shop/nobody", 404),
        ("GET", "/api/v1/rollouts/shop/nobody/events", 404),
        ("POST", "/api/v1/rollouts/shop/nobody/actions", 404),
        ("GET", "/api/v1/rollouts/shop%2Fcheckout/x", 404),
        ("GET", "/api/v2/rollouts", 404),
        ("GET", "/", 404),
        ("DELETE", ONE, 405),
        ("GET", f"{ONE}/actions", 405),
    ],
)
async def test_what_is_not_there_is_said_in_json(at: Desk, method: str, path: str, status: int) -> None:
    """Every failure has a reason that programs can read."""
    body = {} if method != "GET" else None
    found, answer = await at.ask(method, path, body)
    assert found == status
    assert answer["error"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8090"}, 403),
        ({"Host": "localhost.evil.example"}, 403),
        ({"Host": "192.0.2.1"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:8090"}, 200),
        ({"Host": "127.0.0.1"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
    ],
)
async def test_foreign_pages_are_turned_away(at: Desk, headers: dict[str, str], status: int) -> None:
    """C2: DNS rebinding and requests from other sites, whatever they ask for."""
    assert (await at.ask("GET", ONE, **headers))[0] == status
    assert (await at.ask("POST", f"{ONE}/actions", {"verb": "Pause", "by": "x"}, **headers))[0] == status


async def test_the_own_page_is_not_foreign(at: Desk) -> None:
    """Origin and Host agree."""
    assert (await at.ask("GET", ONE, Origin=at.base))[0] == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_form_cannot_steer(at: Desk, kind: str) -> None:
    """C2: a browser sends these to anybody without asking."""
    body = {"verb": "Abort", "by": "evil"}
    assert (await at.ask("POST", f"{ONE}/actions", body, **{"Content-Type": kind}))[0] == 415
    assert (await at.get())["status"]["phase"] == "Paused"


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 422), (b"\xff\xfe", 422), (b"[" * 100_000, 422), (b" " * 300_000, 413), (b"", 422)]
)
async def test_a_body_that_is_no_json_is_refused(at: Desk, body: bytes, status: int) -> None:
    """Too large, too deep, no text."""
    async with at._session.post(
        at.base + f"{ONE}/actions", data=body, headers={"Content-Type": "application/json"}
    ) as answer:
        assert answer.status == status
        assert (await answer.json())["error"]


async def test_a_token_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """C3: for everything but numbers and life; a rotated one counts at once."""
    monkeypatch.setattr(guard, "REFUSAL_S", 0.01)
    (tmp_path / "token").write_text(TOKEN + "\n")
    api = {"listen": "127.0.0.1:0", "tokenFile": "token"}
    async with desk(tmp_path, monkeypatch, "steps: [{pause: {}}]", api=api) as at:
        for headers in ({}, {"Authorization": TOKEN}, {"Authorization": f"Bearer {TOKEN[:-1]}x"}):
            assert (await at.ask("GET", "/api/v1/rollouts", **headers))[0] == 401
            assert (await at.ask("POST", f"{ONE}/actions", {"verb": "Abort", "by": "x"}, **headers))[0] == 401
        assert (await at.ask("GET", "/api/v1/rollouts", Authorization=f"Bearer {TOKEN}"))[0] == 200
        assert (await at.ask("GET", "/metrics"))[0] == 200
        assert (await at.ask("GET", "/healthz"))[0] == 200
        (tmp_path / "token").write_text("f" * 32)
        assert (await at.ask("GET", "/api/v1/rollouts", Authorization=f"Bearer {TOKEN}"))[0] == 401
        assert (await at.ask("GET", "/api/v1/rollouts", Authorization="Bearer " + "f" * 32))[0] == 200
        (tmp_path / "token").unlink()
        assert (await at.ask("GET", "/api/v1/rollouts", Authorization="Bearer "))[0] == 503


async def test_guessing_does_not_keep_the_owner_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong tokens are answered slowly and few at a time; the right one at once, an abort above all."""
    monkeypatch.setattr(guard, "REFUSAL_S", 0.5)
    (tmp_path / "token").write_text(TOKEN)
    api = {"listen": "127.0.0.1:0", "tokenFile": "token"}
    async with desk(tmp_path, monkeypatch, "steps: [{pause: {}}]", api=api) as at, asyncio.TaskGroup() as tasks:
        guesses = [tasks.create_task(at.ask("GET", "/api/v1/rollouts", Authorization=f"Bearer {n}")) for n in range(40)]
        await asyncio.sleep(0.1)
        before = time.monotonic()
        assert (await at.ask("GET", "/api/v1/rollouts", Authorization=f"Bearer {TOKEN}"))[0] == 200
        assert time.monotonic() - before < 0.4
        found = sorted([(await guess)[0] for guess in guesses])
        assert set(found) == {401, 429}


async def test_answers_are_not_kept_by_anybody(at: Desk) -> None:
    """No cache, no guessing of types, no name of our software's parts."""
    async with at._session.get(at.base + ONE) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Server"] == "cohort"


async def test_metrics_are_prometheus(at: Desk) -> None:
    """In the text format."""
    text = await at.get("/metrics")
    assert 'cohort_rollout_phase{phase="Paused",rollout="shop/checkout"} 1.0' in text


# The description


async def test_the_description_has_every_route_and_no_other(at: Desk) -> None:
    """OpenAPI against the server: each path and method is answered, and none that it does not have."""
    described = await at.get("/api/v1/openapi.json")
    assert described == json.loads(json.dumps(openapi()))
    for path, operations in described["paths"].items():
        for method in ("get", "post", "put", "delete"):
            url = path.replace("{namespace}", "shop").replace("{name}", "checkout")
            status, _ = await at.ask(method.upper(), url, None if method == "get" else {})
            assert (status != 405) == (method in operations), (method, path)


def test_the_description_refers_only_to_what_it_has() -> None:
    """Every $ref has a target."""
    text = json.dumps(openapi())
    names = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert names <= set(openapi()["components"]["schemas"])
    assert not re.search(r'"\$ref": "(?!#/components/schemas/)', text)


async def test_every_answer_is_of_its_model(at: Desk) -> None:
    """The models that the description is made from read what the server wrote, unknown fields refused."""

    def fits(model: Any, value: Any) -> None:
        TypeAdapter(model).validate_json(json.dumps(value))

    shown = await at.get()
    fits(Status, shown["status"])
    fits(RolloutSpec, shown["spec"])
    for event in (await at.get(f"{ONE}/events"))["items"]:
        fits(EventAnswer, event)
    fits(WhoamiAnswer, await at.get(f"{ONE}/whoami?key=header:x-user-id=anna"))
    fits(PreviewAnswer, (await at.ask("POST", f"{ONE}/preview", {"arm": "canary"}))[1])
    fits(ActionAnswer, (await at.act("Abort"))[1])
    fits(Status, (await at.get())["status"])
    for failed in (await at.act("Promote"), await at.act("Nonsense"), await at.ask("GET", "/nowhere")):
        fits(Failure, failed[1])
    fits(ActionAnswer, (await at.act("Retry"))[1])
