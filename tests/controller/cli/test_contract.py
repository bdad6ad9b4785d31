"""What the command line relies on holds of the real controller and of the fake alike."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from controller.cli import root
from controller.cli.client import Client
from controller.cli.exits import WrongUse
from controller.cli.view import status_lines
from controller.net.service import serve as serve_controller
from controller.spec import CanaryRollout, ControllerSettings
from controller.status import Status
from proxy.document import validate
from tests.support.fake_admin import FakeAdmin, serving
from tests.support.fake_controller import FakeController, rollout, serve
from tests.support.fake_proxy import FakeProxy

DOCUMENT = """apiVersion: cohort.dev/v1alpha1
kind: CanaryRollout
metadata: {name: checkout, namespace: shop}
spec:
  stable: {addresses: ["127.0.0.1:9001"], revision: v1}
  canary: {addresses: ["127.0.0.1:9002"], revision: v2}
  users: [{header: {name: X-User-Id}}, {mint: {}}]
  preview: {access: Token}
  strategy: {canary: {steps: [{setWeight: 5}, {pause: {}}]}}
"""


@contextmanager
def real_controller(folder: Path) -> Iterator[str]:
    """The real controller with one proxy, in a thread of its own; gives its address."""
    (folder / "rollouts").mkdir()
    (folder / "rollouts" / "checkout.yaml").write_text(DOCUMENT)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    address: queue.Queue[str] = queue.Queue()

    async def run() -> None:
        async with serving(FakeAdmin(FakeProxy()), str(folder / "admin.sock")) as proxy:
            settings = {
                "rollouts": str(folder / "rollouts"),
                "state": str(folder / "state.db"),
                "keysDir": str(folder / "keys"),
                "proxies": [{"address": proxy}],
                "api": {"listen": "127.0.0.1:0"},
                "pollInterval": "50ms",
            }
            document = validate(ControllerSettings, settings)
            await serve_controller(document, stop, lambda host, port: address.put(f"http://{host}:{port}"))

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()))
    thread.start()
    try:
        url = address.get(timeout=10)
        wait_for(Client(url), "Paused")
        yield url
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def wait_for(client: Client, phase: str) -> None:
    deadline = time.monotonic() + 10
    while [item["status"].get("phase") for item in client.rollouts(None)] != [phase]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(params=["fake", "real"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    """A client of either, which has the one rollout shop/checkout in the middle of its steps."""
    if request.param == "fake":
        with serve(FakeController(rollout())) as fake:
            yield Client(fake.url)
    else:
        with real_controller(tmp_path) as url:
            yield Client(url)


def test_a_rollout_is_document_and_status(client: Client) -> None:
    """Alone and in the list; every part as the models have it."""
    (item,) = client.rollouts("shop")
    assert client.rollouts("pay") == []
    one = client.rollout("shop", "checkout")
    assert one["metadata"] == item["metadata"]
    assert one["metadata"]["name"] == "checkout"
    status = validate(Status, one["status"])
    assert status.step is not None
    assert status.resource_version == one["status"]["resourceVersion"]
    document = {key: one[key] for key in ("apiVersion", "kind", "spec")}
    validate(CanaryRollout, {**document, "metadata": {"name": "checkout", "namespace": "shop"}})
    assert any(click.unstyle(line).startswith("  now ") for line in status_lines(one))


def test_what_is_not_there_is_wrong_use(client: Client) -> None:
    """404 with a reason."""
    for ask in (
        lambda: client.rollout("shop", "cart"),
        lambda: client.events("shop", "cart", 0),
        lambda: client.whoami("shop", "cart", "mint=00"),
    ):
        with pytest.raises(WrongUse, match="there is no rollout shop/cart"):
            ask()


def test_an_action_is_done_told_and_seen_by_who_waits(client: Client) -> None:
    """The long poll answers at the change, long before its time is over, or when its time is over."""
    since = client.rollout("shop", "checkout")["status"]["resourceVersion"]
    started = time.monotonic()
    assert client.wait("shop", "checkout", since, 0.1)["status"]["resourceVersion"] == since
    assert time.monotonic() - started >= 0.1
    seen: list[int] = []
    waiter = threading.Thread(
        target=lambda: seen.append(client.wait("shop", "checkout", since, 20)["status"]["resourceVersion"])
    )
    waiter.start()
    answer = client.act("shop", "checkout", {"verb": "SetWeight", "weight": "12.5", "by": "anna"})
    waiter.join()
    assert (answer["result"], bool(answer["message"])) == ("Done", True)
    assert seen[0] > since
    assert time.monotonic() - started < 10
    events = client.events("shop", "checkout", 0)
    assert [sorted(event) for event in events] == [["at", "message", "reason", "seq", "type"]] * len(events)
    assert events[-1]["reason"] == "SetWeight"
    assert client.events("shop", "checkout", events[-1]["seq"]) == []


@pytest.mark.parametrize(
    "action",
    [
        {"verb": "Nonsense", "by": "anna"},
        {"verb": "SetWeight", "by": "anna"},
        {"verb": "SetWeight", "by": "anna", "weight": "101"},
        {"verb": "Start", "by": "anna", "revision": "v3", "addresses": ["nowhere"]},
        {"verb": "Pause", "by": ""},
    ],
    ids=str,
)
def test_an_action_that_is_none_is_wrong_use(client: Client, action: dict[str, object]) -> None:
    """422 with the faults."""
    with pytest.raises(WrongUse):
        client.act("shop", "checkout", action)


def test_whoami_and_preview_answer_as_they_are_shown(client: Client) -> None:
    """Every part that the commands print."""
    answer = client.whoami("shop", "checkout", "header:x-user-id=anna")
    assert sorted(answer) == ["arm", "bucket", "generation", "key", "reason", "revision", "weight"]
    answer = client.preview("shop", "checkout", "canary", "3600s")
    assert answer["path"] == f"/.cohort/preview?token={answer['token']}"


def test_a_rollout_is_steered_to_its_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way on the real controller: every verb, and the exit codes on the way."""
    with real_controller(tmp_path) as url:

        def cohort(*args: str) -> int:
            return root.run([*args, "--server", url])

        assert cohort("abort", "--reason", "slow", "--by", "anna") == 0
        assert cohort("status", "-w", "--timeout", "20s") == 1
        assert "abort Requested by anna of revision v2" in capsys.readouterr().out
        assert cohort("promote") == 1
        assert "Error: " in capsys.readouterr().err
        assert cohort("retry") == 0
        assert cohort("set", "weight", "12.5") == 0
        assert cohort("whoami", "--key", "header:x-user-id=anna", "-o", "json") == 0
        assert '"weight": "12.50"' in capsys.readouterr().out
        assert cohort("pause") == 0
        assert cohort("status") == 0
        assert "Phase:     Paused" in capsys.readouterr().out
        assert cohort("start", "--revision", "v3", "--addresses", "127.0.0.1:9003") == 0
        wait_for(Client(url), "Paused")
        assert cohort("promote", "--full") == 0
        assert cohort("status", "-w", "--timeout", "20s") == 0
        assert cohort("resume") == 1
        capsys.readouterr()
        assert cohort("get") == 0
        assert capsys.readouterr().out.splitlines()[1].split()[1:4] == ["checkout", "Healthy", "-"]
        assert cohort("events") == 0
        assert "Promoted" in capsys.readouterr().out
