"""The loop around the state machine, with fake proxies on real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from controller import planner, rollout, state
from controller.ask import Refused
from controller.errors import Temporary
from controller.events import Asked, Documented, Tick, Verb
from controller.net.engine import Clocks, Engine
from controller.net.proxies import ProxyClient
from controller.net.store import FileLedger, Store
from controller.spec import CanaryRollout, ProxyAddress, template_metrics
from controller.state import Phase, Stage
from tests.controller.world import document, template, version
from tests.support.fake_admin import FakeAdmin, serving
from tests.support.fake_proxy import FakeProxy

SPLIT = b"s" * 32
SECRETS = {planner.key_id(SPLIT): SPLIT}
QUICK = ({"setWeight": 5}, {"pause": {}}, {"setWeight": 50}, {"pause": {"duration": "300ms"}})
WAIT_S = 10.0


class Stand:
    """Proxies, a store, and engines that may be ended and begun."""

    def __init__(self, root: Path, admins: list[FakeAdmin], clients: list[ProxyClient], doc: CanaryRollout) -> None:
        self.root = root
        self.admins = admins
        self.clients = clients
        self.doc = doc
        self.templates = template_metrics(doc, [template(interval="1s")])

    @property
    def proxies(self) -> list[FakeProxy]:
        return [admin.proxy for admin in self.admins]

    @asynccontextmanager
    async def engine(self) -> AsyncIterator[Engine]:
        """An engine at work, from what is stored; it ends without a goodbye, as a killed one does."""
        store = Store(str(self.root / "controller.db"))
        rows = store.load()
        begun = state.parse(rows[0].state) if rows else state.new(self.doc, self.templates)
        made = Engine(
            begun,
            rows[0] if rows else None,
            ledger=FileLedger(store),
            clients=self.clients,
            secrets=SECRETS,
            clocks=Clocks(time.monotonic, time.time),
            poll_s=0.1,
        )
        try:
            await made.apply(Documented(self.doc, self.templates))
            async with asyncio.TaskGroup() as tasks:
                work = tasks.create_task(made.run())
                yield made
                work.cancel()
        finally:
            store.close()


@asynccontextmanager
async def standing(root: Path, doc: CanaryRollout, proxies: int = 2) -> AsyncIterator[Stand]:
    async with AsyncExitStack() as stack:
        admins = [FakeAdmin(FakeProxy()) for _ in range(proxies)]
        clients = []
        for number, admin in enumerate(admins):
            address = await stack.enter_async_context(serving(admin, str(root / f"{number}.sock")))
            clients.append(await stack.enter_async_context(ProxyClient(ProxyAddress(address=address))))
        yield Stand(root, admins, clients, doc)


async def until(true: Callable[[], bool], what: str = "") -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


def phase_is(engine: Engine, *phases: Phase) -> Callable[[], bool]:
    return lambda: engine.status().phase in phases


async def test_a_rollout_goes_through(tmp_path: Path) -> None:
    """Adopted, paused for a person, promoted; every proxy has the same plans."""
    async with standing(tmp_path, document(*QUICK)) as stand, stand.engine() as engine:
        await until(phase_is(engine, Phase.PAUSED))
        assert await engine.act(Asked(Verb.PROMOTE, "u1", "anna")) == "goes on with setWeight 50"
        await until(phase_is(engine, Phase.HEALTHY))
        for proxy in stand.proxies:
            assert [plan.arms[0].weight_bp for plan in proxy.history] == [10_000, 9500, 5000, 0, 10_000]
            assert proxy.plan == engine.plan()


async def test_an_action_is_answered_when_it_is_stored(tmp_path: Path) -> None:
    """C2, C4: what was answered survives the very next moment."""
    async with standing(tmp_path, document(*QUICK)) as stand:
        async with stand.engine() as engine:
            await until(phase_is(engine, Phase.PAUSED))
            await engine.act(Asked(Verb.ABORT, "u1", "anna"))
        async with stand.engine() as engine:
            assert engine.state.stage is Stage.ABORTED
            assert engine.state.actions[-1].uid == "u1"


async def test_a_killed_controller_resumes_the_step(tmp_path: Path) -> None:
    """F15: the proxies get no plan that they had not before."""
    async with standing(tmp_path, document({"setWeight": 5}, {"pause": {"duration": "60s"}})) as stand:
        for _ in range(3):
            async with stand.engine() as engine:
                await until(lambda e=engine: e.state.is_current and e.state.stage is Stage.STEPS)  # type: ignore[misc]
                assert engine.state.trial is not None
                assert engine.state.trial.index == 1
        assert [plan.arms[0].weight_bp for plan in stand.proxies[0].history] == [10_000, 9500]


async def test_an_abort_latches_before_it_is_stored_and_answers_when_all_have_it(tmp_path: Path) -> None:
    """The latch at every proxy, in parallel, then the state, then weight 0."""
    async with standing(tmp_path, document(*QUICK), proxies=3) as stand, stand.engine() as engine:
        await until(phase_is(engine, Phase.PAUSED))
        answer = await engine.act(Asked(Verb.ABORT, "u1", "anna"))
        assert answer == "everyone goes back to stable: 3 of 3 proxies are latched"
        assert all(proxy.latch for proxy in stand.proxies)
        await until(lambda: engine.state.is_current)
        for admin in stand.admins:
            writes = [r for r in admin.requests if not r.startswith("GET")]
            assert writes[-2:] == ["POST /abort", "PUT /plan"]
            assert admin.proxy.plan is not None
            assert admin.proxy.plan.arms[0].weight_bp == 10_000


async def test_an_abort_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that hangs keeps the answer back, never the latch."""
    async with standing(tmp_path, document(*QUICK)) as stand, stand.engine() as engine:
        await until(phase_is(engine, Phase.PAUSED))
        save, go = Store.save, asyncio.Event()
        loop = asyncio.get_running_loop()

        def slow(self: Store, *args: object) -> None:
            asyncio.run_coroutine_threadsafe(go.wait(), loop).result()
            save(self, *args)  # type: ignore[arg-type]

        monkeypatch.setattr(Store, "save", slow)
        async with asyncio.TaskGroup() as tasks:
            pausing = tasks.create_task(engine.act(Asked(Verb.PAUSE, "u0", "bob")))
            await asyncio.sleep(0.05)
            aborting = tasks.create_task(engine.act(Asked(Verb.ABORT, "u1", "anna")))
            await until(lambda: all(proxy.latch for proxy in stand.proxies))
            assert not pausing.done()
            assert not aborting.done()
            go.set()
        assert engine.state.stage is Stage.ABORTED


async def test_what_cannot_be_stored_has_not_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk: the verb fails and nothing moves; an abort has latched all the same, and is known again later."""
    async with standing(tmp_path, document(*QUICK)) as stand, stand.engine() as engine:
        await until(phase_is(engine, Phase.PAUSED))
        generation, save = engine.state.generation, Store.save

        def full(self: Store, *args: object) -> None:
            raise Temporary("the state cannot be stored: disk full")

        monkeypatch.setattr(Store, "save", full)
        with pytest.raises(Temporary, match="disk full"):
            await engine.act(Asked(Verb.PROMOTE, "u1", "anna"))
        assert engine.state.generation == generation
        with pytest.raises(Temporary, match="disk full"):
            await engine.act(Asked(Verb.ABORT, "u2", "anna", reason="smoke"))
        assert all(proxy.latch for proxy in stand.proxies)
        monkeypatch.setattr(Store, "save", save)
        await until(lambda: engine.state.stage is Stage.ABORTED)
        assert engine.state.abort is not None
        assert engine.state.abort.by == "anna"


async def test_a_proxy_that_is_away_delays_nobody_else(tmp_path: Path) -> None:
    """Each proxy has a task of its own; an abort reaches the others at once and says who is missing."""
    async with standing(tmp_path, document(*QUICK)) as stand, stand.engine() as engine:
        await until(phase_is(engine, Phase.PAUSED))
        stand.proxies[1].is_up = False
        before = time.monotonic()
        answer = await engine.act(Asked(Verb.ABORT, "u1", "anna"))
        assert time.monotonic() - before < 5
        assert stand.proxies[0].latch is not None
        assert "1 of 2 proxies are latched; not latched yet, tried again: " in answer
        assert engine.status().phase is Phase.DEGRADED
        stand.proxies[1].is_up = True
        await until(phase_is(engine, Phase.ABORTED))
        assert stand.proxies[1].latch is not None


async def test_a_latch_at_a_proxy_is_taken_over(tmp_path: Path) -> None:
    """B8: aborted at one proxy while the controller was away; it aborts everywhere when it is back."""
    async with standing(tmp_path, document(*QUICK)) as stand:
        async with stand.engine() as engine:
            await until(phase_is(engine, Phase.PAUSED))
        stand.proxies[1].abort("bob", "feedbeef")
        async with stand.engine() as engine:
            await until(lambda: engine.state.stage is Stage.ABORTED and engine.state.is_current)
            assert engine.state.abort is not None
            assert (engine.state.abort.id, engine.state.abort.by) == ("feedbeef", "bob")
            assert stand.proxies[0].latch is not None


async def test_a_latch_that_cannot_be_stored_yet_is_set_at_the_others_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The API server, or the disk, is away for an hour: everyone is on stable, and the log is no waterfall."""
    async with standing(tmp_path, document(*QUICK)) as stand, stand.engine() as engine:
        await until(phase_is(engine, Phase.PAUSED))
        save = Store.save

        def full(self: Store, *args: object) -> None:
            raise Temporary("the state cannot be stored: disk full")

        monkeypatch.setattr(Store, "save", full)
        stand.proxies[1].abort("bob", "feedbeef")
        await until(lambda: stand.proxies[0].latch)
        looks = stand.admins[1].requests.count("GET /state")
        await until(lambda: stand.admins[1].requests.count("GET /state") > looks + 10)
        assert sum("disk full" in record.getMessage() for record in caplog.records) <= 3  # by each that looks
        assert engine.state.stage is not Stage.ABORTED
        monkeypatch.setattr(Store, "save", save)
        await until(lambda: engine.state.stage is Stage.ABORTED)
        assert engine.state.abort
        assert engine.state.abort.id == "feedbeef"


async def test_counters_of_all_proxies_are_judged(tmp_path: Path) -> None:
    """The provider cohort: a bad canary is rolled back within seconds, with the measurement in the message."""
    doc = document({"setWeight": 50}, {"analysis": {"templates": [{"templateName": "rate"}]}}, {"pause": {}})
    async with standing(tmp_path, doc) as stand, stand.engine() as engine:
        await until(lambda: engine.state.stage is Stage.STEPS and engine.state.is_current)
        await until(phase_is(engine, Phase.HOLDING))
        keys = [bytes([n]) * 16 for n in range(1, 20)]
        for _ in range(100):
            for proxy in stand.proxies:
                proxy.serve("canary", 20, 1)
                proxy.meet("canary", keys, time.time())
            await asyncio.sleep(0.05)
            if engine.state.stage is Stage.ABORTED:
                break
        abort = engine.state.abort
        assert abort is not None
        assert (abort.reason, abort.by) == ("AnalysisFailed", "analysis")
        assert "0.95 does not fulfil successCondition result[0] >= 0.99" in abort.message
        assert all(proxy.latch for proxy in stand.proxies)


async def test_a_lost_state_learns_what_was_promoted(tmp_path: Path) -> None:
    """An empty store and proxies that serve v2 as stable: the document's canary was promoted."""
    async with standing(tmp_path, document({"setWeight": 50})) as stand:
        async with stand.engine() as engine:
            await until(phase_is(engine, Phase.HEALTHY))
            assert engine.state.stable == version("v2", 9002)
            generation = engine.state.generation
        (tmp_path / "controller.db").unlink()
        async with stand.engine() as engine:
            await until(phase_is(engine, Phase.HEALTHY))
            assert engine.state.stable == version("v2", 9002)
            assert engine.state.generation > generation
            assert engine.state.attempts == 0


async def test_a_long_poll_ends_with_a_change(tmp_path: Path) -> None:
    """And after its time without one; the elapsed time alone is none."""
    async with standing(tmp_path, document(*QUICK)) as stand, stand.engine() as engine:
        await until(lambda: engine.status().phase is Phase.PAUSED and engine.state.is_current)
        await asyncio.sleep(0.3)
        since = engine.version
        await engine.changed(since, 0.5)
        assert engine.version == since
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(engine.changed(since, 10))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await engine.act(Asked(Verb.ABORT, "u1", "anna"))
        assert engine.version > since


async def test_a_refusal_is_on_record(tmp_path: Path) -> None:
    """Who asked for what, and why not."""
    async with standing(tmp_path, document(*QUICK)) as stand, stand.engine() as engine:
        await until(phase_is(engine, Phase.PAUSED))
        with pytest.raises(Refused, match="not aborted"):
            await engine.act(Asked(Verb.RETRY, "u1", "anna"))
        shown = engine.status().actions[-1]
        assert (shown.uid, shown.verb, shown.result, shown.by) == ("u1", "Retry", "Refused", "anna")


async def test_a_fault_of_ours_does_not_take_the_kill_switch_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A task's root: whatever breaks in a look or a tick, an abort still goes."""
    async with standing(tmp_path, document(*QUICK)) as stand, stand.engine() as engine:
        await until(phase_is(engine, Phase.PAUSED))

        def broken(*_: object) -> None:
            raise ZeroDivisionError("a fault of ours")

        monkeypatch.setattr("controller.net.engine.parse_look", broken)
        monkeypatch.setitem(rollout._HANDLERS, Tick, broken)  # type: ignore[misc]  # a literal table elsewhere
        await until(lambda: "a tick failed" in caplog.text and "a look at" in caplog.text)
        await engine.act(Asked(Verb.ABORT, "u1", "anna"))
        assert all(proxy.latch for proxy in stand.proxies)


async def test_a_plan_is_confirmed_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """F13: a proxy sees from the age of its plan that nobody feeds it any more."""
    monkeypatch.setattr("controller.net.engine.CONFIRM_S", 0.2)
    async with standing(tmp_path, document(*QUICK)) as stand, stand.engine() as engine:
        await until(phase_is(engine, Phase.PAUSED))
        before = stand.admins[0].requests.count("PUT /plan")
        await until(lambda: stand.admins[0].requests.count("PUT /plan") > before + 2)
        assert len(stand.proxies[0].history) == 2


async def test_a_proxy_that_talks_nonsense_is_one_that_does_not_answer(tmp_path: Path) -> None:
    """Another program behind the socket, or another version of ours."""
    async with standing(tmp_path, document(*QUICK)) as stand, stand.engine() as engine:
        await until(phase_is(engine, Phase.PAUSED))
        good = stand.proxies[1].state()
        for nonsense in (
            {"hello": "world"},
            {**good, "plan": "x"},
            {**good, "plan": {"uid": "u"}},
            {**good, "latch": "x"},
        ):
            stand.proxies[1].state = lambda shown=nonsense: shown  # type: ignore[method-assign,misc]
            await until(lambda: "expected the document of a proxy" in engine.state.views[1].error, str(nonsense))
            stand.proxies[1].state = lambda: good  # type: ignore[method-assign]
            await until(lambda: engine.state.views[1].error == "")
