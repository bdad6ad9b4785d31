from __future__ import annotations

import asyncio
from typing import Any

from controller.errors import Temporary
from controller.net.kube.client import ApiRefused
from controller.net.kube.pace import Pace
from controller.net.kube.watch import MAX_PAUSE_S, PAUSE_S, TOMBSTONES, Watch
from tests.controller.net.kube.script import GONE, Script, thing


async def run(script: Script, draw: float = 1.0) -> tuple[Watch, list[list[str]], list[float]]:
    """Follow a script to its end: the watch, what it knew after each change, and its pauses."""
    seen: list[list[str]] = []
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        script.now += seconds

    def changed() -> None:
        seen.append(sorted(watch.objects))

    def now() -> float:
        return script.now

    pace = Pace(now, sleep, every_s=0.0)
    watch = Watch(script, "/things", changed, draw=lambda: draw, pace=pace, monotonic=now, sleep=sleep)
    task = asyncio.create_task(watch.run())
    try:
        await asyncio.wait_for(script.finished.wait(), 60)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return watch, seen, pauses


async def test_lists_then_watches_from_there() -> None:
    events = [("ADDED", thing("b", 6)), ("MODIFIED", thing("a", 7, v=2)), ("DELETED", thing("b", 8)), 30.0]
    script = Script([([thing("a", 1)], "5")], [events])
    watch, seen, pauses = await run(script)
    assert script.asked == ["list", "watch 5", "watch 8"]
    assert seen == [["a"], ["a", "b"], ["a", "b"], ["a"]]
    assert watch.objects["a"]["v"] == 2
    assert pauses == []  # a watch that the server ends goes on at once


async def test_pages_are_one_collection() -> None:
    script = Script([([thing("a", 1)], "5", "next"), ([thing("b", 2)], "5")], [])
    _, seen, _ = await run(script)
    assert script.asked[:2] == ["list", "list next"]
    assert seen == [["a", "b"]]  # at once


async def test_a_bookmark_moves_the_place_to_go_on_from_and_nothing_else() -> None:
    script = Script([([thing("a", 1)], "5")], [[("BOOKMARK", thing("", 90))]])
    _, seen, _ = await run(script)
    assert script.asked[-1] == "watch 90"
    assert seen == [["a"]]


async def test_410_lists_anew_and_replaces_all_at_once() -> None:
    """The API server forgets: as a status, and as an event in the middle."""
    gone: Any = ("ERROR", {"code": 410, "message": "too old resource version"})
    script = Script(
        [([thing("a", 1), thing("b", 1)], "5"), ([thing("b", 9), thing("c", 9)], "9"), ([thing("d", 12)], "12")],
        [[gone], [GONE]],
    )
    _, seen, _ = await run(script)
    assert script.asked == ["list", "watch 5", "list", "watch 9", "list", "watch 12"]
    assert seen == [["a", "b"], ["b", "c"], ["d"]]


async def test_a_list_that_finds_nothing_new_is_no_change() -> None:
    script = Script([([thing("a", 1)], "5"), ([thing("a", 1)], "9")], [[GONE]])
    _, seen, _ = await run(script)
    assert seen == [["a"]]


async def test_a_dropped_connection_goes_on_from_the_last_event() -> None:
    script = Script([([], "5")], [[("ADDED", thing("a", 6)), Temporary("reset")]])
    watch, _, pauses = await run(script)
    assert script.asked[-1] == "watch 6"
    assert watch.is_synced
    assert len(pauses) == 1


async def test_pauses_grow_to_a_bound_and_begin_again_after_success() -> None:
    failures: list[Any] = [Temporary("refused") for _ in range(8)]
    script = Script([*failures, ([], "5")], [[], [30.0], [Temporary("reset")]])
    _, _, pauses = await run(script)
    assert pauses[:3] == [PAUSE_S, PAUSE_S * 2, PAUSE_S * 4]
    assert max(pauses) == MAX_PAUSE_S
    assert pauses[-1] == PAUSE_S  # the watch that ended well came in between


async def test_pauses_differ_between_replicas() -> None:
    script = Script([Temporary("refused"), ([], "5")], [])
    _, _, pauses = await run(script, draw=0.0)
    assert pauses == [PAUSE_S / 2]


async def test_a_continuation_that_expires_begins_the_list_again() -> None:
    script = Script([([thing("a", 1)], "5", "next"), GONE, ([thing("a", 1)], "6")], [])
    _, seen, _ = await run(script)
    assert script.asked == ["list", "list next", "list", "watch 6"]
    assert seen == [["a"]]


async def test_what_was_known_stays_while_the_api_server_is_away() -> None:
    script = Script([([thing("a", 1)], "5")], [[Temporary("refused")], [Temporary("refused")]])
    watch, _, _ = await run(script)
    assert list(watch.objects) == ["a"]


async def test_an_event_that_comes_again_or_late_changes_nothing() -> None:
    """Of one object only what is later counts; of another one, what is late may still be news."""
    events = [
        ("MODIFIED", thing("a", 7, v=7)),
        ("MODIFIED", thing("a", 7, v="again")),
        ("MODIFIED", thing("a", 6, v="late")),
        ("DELETED", thing("c", 9)),
        ("MODIFIED", thing("c", 8, v="late")),
        ("MODIFIED", thing("b", 5, v="news")),
    ]
    script = Script([([thing("a", 1), thing("b", 2), thing("c", 3)], "3")], [events])
    watch, seen, _ = await run(script)
    assert {name: item.get("v") for name, item in watch.objects.items()} == {"a": 7, "b": "news"}
    assert len(seen) == 4
    assert script.asked[-1] == "watch 9"


async def test_what_was_removed_may_be_made_again() -> None:
    events = [("DELETED", thing("a", 6)), ("ADDED", thing("a", 7, v="new")), ("DELETED", thing("a", 6))]
    watch, _, _ = await run(Script([([thing("a", 1)], "5")], [events]))
    assert watch.objects["a"]["v"] == "new"


async def test_names_of_removed_objects_are_bounded() -> None:
    events: list[Any] = [("DELETED", thing(f"o{number}", 6 + number)) for number in range(TOMBSTONES + 10)]
    watch, _, _ = await run(Script([([], "5")], [events]))
    assert len(watch._removed) <= TOMBSTONES


async def test_versions_that_are_no_numbers_are_taken_as_they_come() -> None:
    events = [("MODIFIED", thing("a", 0) | {"metadata": {"name": "a", "resourceVersion": text}}) for text in "yx"]
    watch, _, _ = await run(Script([([thing("a", 1)], "5")], [events]))
    assert watch.objects["a"]["metadata"]["resourceVersion"] == "x"


async def test_a_watch_that_ends_at_once_is_a_failure() -> None:
    """Begun again without a pause, it would ask as often as the server can answer."""
    script = Script([([], "5")], [[], [], []])
    _, _, pauses = await run(script)
    assert pauses == [PAUSE_S, PAUSE_S * 2, PAUSE_S * 4]


async def test_a_watch_that_has_lasted_begins_again_with_the_shortest_pause() -> None:
    failures: list[Any] = [Temporary("refused") for _ in range(5)]
    script = Script([*failures, ([], "5")], [[20.0, Temporary("reset")]])
    _, _, pauses = await run(script)
    assert pauses[-1] == PAUSE_S


async def test_a_server_that_says_when_to_come_again_is_believed_within_a_minute() -> None:
    script = Script([ApiRefused(429, "later", 7.0), ApiRefused(503, "later", 1e6), ([], "5")], [])
    _, _, pauses = await run(script)
    assert pauses == [7.0, 60.0]
