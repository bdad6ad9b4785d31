"""The demo's server: what its page may do, and who else may not."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from demo.console import App, Console, Refused

Client = TestClient[Any, Any]
REPORT = {
    "users": [{"seat": 0, "user": "1", "revision": "v1", "flip": None}],
    "totals": {"requests": 1, "lost": 0, "flips": 0, "versions": {"v1": {"requests": 1, "errors": 0}}},
}


@dataclass
class FakeRollout:
    """The controller: a document, and what it was asked for."""

    document: dict[str, Any] = field(default_factory=dict)
    acts: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    refuses: str = ""

    def at(self, phase: str, stable: str, canary: str | None) -> None:
        self.document = {"status": {"phase": phase, "revision": {"stable": stable, "canary": canary}}}

    async def act(self, verb: str, **values: Any) -> str:
        if self.refuses:
            raise Refused(self.refuses)
        self.acts.append((verb, values))
        return f"{verb} it is"


@dataclass
class Demo:
    client: Client
    rollout: FakeRollout
    changes: list[tuple[int, dict[str, Any]]]

    async def press(self, path: str, body: object, **headers: str) -> tuple[int, Any]:
        origin = str(self.client.make_url("")).rstrip("/")
        fields = {"Origin": origin, "Content-Type": "application/json"} | {
            k.replace("_", "-"): v for k, v in headers.items()
        }
        async with self.client.post(path, data=json.dumps(body), headers=fields) as response:
            text = await response.text()
            return response.status, json.loads(text) if response.content_type == "application/json" else text


@pytest.fixture
async def demo() -> AsyncIterator[Demo]:
    rollout = FakeRollout()
    rollout.at("Progressing", "v1", "v2")
    changes: list[tuple[int, dict[str, Any]]] = []

    def app(port: int, version: str) -> App:
        behaviour = {"version": version, "colour": "#3b82f6", "errorPercent": 0.1, "latencyMs": 5}

        async def tell(values: dict[str, Any]) -> dict[str, Any]:
            if values.get("errorPercent", 0) > 100:
                raise Refused("errorPercent: expected a number from 0 to 100")
            changes.append((port, values))
            return {**behaviour, **values}

        return App(port, behaviour, tell)

    console = Console([app(1, "v1"), app(2, "v2")], rollout, "secret", {"page": "http://127.0.0.1:8080/demo/"})
    async with TestClient(TestServer(console.application())) as client:
        yield Demo(client, rollout, changes)


async def test_the_page_needs_nothing_from_elsewhere(demo: Demo) -> None:
    """It works without the internet, and its policy forbids anything else."""
    for path in ("/demo/", "/demo/page.js", "/demo/page.css"):
        async with demo.client.get(path) as response:
            assert response.status == 200
            assert "default-src 'self'" in response.headers["Content-Security-Policy"]
            text = await response.text()
        assert "http://" not in text
        assert "https://" not in text
    async with demo.client.get("/demo/../console.py") as response:
        assert response.status == 404


async def test_state(demo: Demo) -> None:
    """Users, rollout and versions in one answer."""
    async with demo.client.post("/report/secret", json=REPORT) as response:
        assert response.status == 204
    async with demo.client.get("/demo/state") as response:
        state = await response.json()
    assert state["board"]["grid"] == [0]
    assert state["rollout"] == demo.rollout.document
    assert state["canary"] == "v2"
    assert [app["version"] for app in state["apps"]] == ["v1", "v2"]


@pytest.mark.parametrize("verb", ["Promote", "PromoteFull", "Pause", "Resume", "Abort", "Retry"])
async def test_buttons_ask_the_controller(demo: Demo, verb: str) -> None:
    """The demo's server asks on the page's behalf."""
    assert await demo.press("/demo/action", {"verb": verb}) == (200, {"message": f"{verb} it is"})
    assert demo.rollout.acts == [(verb, {})]


async def test_a_refusal_reaches_the_person(demo: Demo) -> None:
    """What the controller says is shown."""
    demo.rollout.refuses = "nothing is on trial"
    assert await demo.press("/demo/action", {"verb": "Abort"}) == (409, {"error": "nothing is on trial"})


async def test_the_canary_is_made_bad_and_good_again(demo: Demo) -> None:
    """Errors, latency and colour of the one that is not stable; after a promotion that is the other one."""
    status, answer = await demo.press("/demo/canary", {"errorPercent": 3, "latencyMs": 200})
    assert (status, answer["message"]) == (200, "v2 answers 3 % with an error, after 200 ms")
    demo.rollout.at("Healthy", "v2", None)
    assert (await demo.press("/demo/canary", {"errorPercent": 0.1, "colour": "#000000"}))[0] == 200
    assert demo.changes == [(2, {"errorPercent": 3, "latencyMs": 200}), (1, {"errorPercent": 0.1, "colour": "#000000"})]
    assert (await demo.press("/demo/canary", {"errorPercent": 101}))[0] == 409


async def test_the_next_version_goes_where_nobody_is(demo: Demo) -> None:
    """The app that is not stable becomes the next version, with a name and a colour of its own."""
    assert (await demo.press("/demo/action", {"verb": "Next"}))[0] == 409
    assert demo.changes == []
    demo.rollout.at("Healthy", "v2", None)
    assert (await demo.press("/demo/action", {"verb": "Next"}))[0] == 200
    assert demo.changes == [(1, {"version": "v3", "colour": "#10b981"})]
    assert demo.rollout.acts == [("Start", {"revision": "v3", "addresses": ["127.0.0.1:1"]})]


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        pytest.param("/demo/action", {"verb": "Abort"}, {"Origin": "http://evil.example"}, 403, id="another site"),
        pytest.param("/demo/action", {"verb": "Abort"}, {"Origin": "null"}, 403, id="a sandbox"),
        pytest.param("/demo/canary", {"errorPercent": 3}, {"Origin": "http://127.0.0.1:1"}, 403, id="another port"),
        pytest.param("/demo/action", {"verb": "Abort"}, {"Content_Type": "text/plain"}, 415, id="a form"),
        pytest.param("/demo/action", ["Abort"], {}, 422, id="no object"),
        pytest.param("/demo/action", {"verb": "Undo"}, {}, 409, id="no such verb"),
        pytest.param("/demo/action", {"verb": ["Abort"]}, {}, 409, id="verb of another type"),
        pytest.param("/demo/canary", {"version": "v9"}, {}, 409, id="not for the page to turn"),
        pytest.param("/demo/canary", {}, {}, 409, id="nothing to turn"),
        pytest.param("/report/wrong", REPORT, {}, 404, id="not the load generator"),
        pytest.param("/report/secret", {"users": 1}, {}, 422, id="no report"),
    ],
)
async def test_others_press_no_button(
    demo: Demo, path: str, body: object, headers: dict[str, str], status: int
) -> None:
    """Another origin, or content that a form can send, steers nothing."""
    assert (await demo.press(path, body, **headers))[0] == status
    assert demo.rollout.acts == []
    assert demo.changes == []


async def test_without_an_origin_nothing_is_pressed(demo: Demo) -> None:
    """Every browser sends Origin with a POST."""
    async with demo.client.post("/demo/action", json={"verb": "Abort"}) as response:
        assert response.status == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8088", "127.0.0.1.evil.example"])
async def test_a_foreign_name_for_this_machine_is_refused(demo: Demo, host: str) -> None:
    """DNS rebinding: a name that somebody else's DNS points here."""
    async with demo.client.get("/demo/state", headers={"Host": host}) as response:
        assert response.status == 421


@pytest.mark.parametrize("host", ["localhost:8080", "LOCALHOST", "127.0.0.1", "[::1]:8080"])
async def test_own_names_are_served(demo: Demo, host: str) -> None:
    """Whichever name of loopback people type."""
    async with demo.client.get("/demo/state", headers={"Host": host}) as response:
        assert response.status == 200


async def test_the_server_itself_sends_people_through_the_proxy(demo: Demo) -> None:
    """The page must come through the proxy to show the visitor's own version."""
    async with demo.client.get("/", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (302, "http://127.0.0.1:8080/demo/")
