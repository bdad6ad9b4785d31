"""The file that survives: transactions, one holder, and what is wrong with it said plainly."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.analysis import Outcome
from controller.errors import Permanent, Temporary
from controller.events import Record, Tell
from controller.net import store as stores
from controller.net.store import Store, Stored

ROW = Stored("shop/checkout", "{}", "[]", 3)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "controller.db")


@pytest.fixture
def store(path: str) -> Iterator[Store]:
    opened = Store(path)
    yield opened
    opened.close()


def test_what_was_saved_is_there_after_a_restart(path: str) -> None:
    """State, conditions and version of each rollout; the last changed first."""
    first = Store(path)
    first.save(ROW, 1.0)
    first.save(Stored("shop/cart", "{}", "[]", 1), 2.0)
    first.save(Stored("shop/checkout", '{"a": 1}', "[]", 4), 3.0)
    first.close()
    second = Store(path)
    assert second.load() == [Stored("shop/checkout", '{"a": 1}', "[]", 4), Stored("shop/cart", "{}", "[]", 1)]
    second.close()


def test_evidence_is_kept_with_the_state_and_a_file_without_any_is_as_good(path: str) -> None:
    """A version before it wrote no such table."""
    first = Store(path)
    first.save(Stored("shop/checkout", "{}", "[]", 4, "counted"), 1.0)
    first.close()
    second = Store(path)
    assert second.load() == [Stored("shop/checkout", "{}", "[]", 4, "counted")]
    second.save(Stored("shop/checkout", "{}", "[]", 5), 2.0)
    assert second.load() == [Stored("shop/checkout", "{}", "[]", 5)]
    second.close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE evidence")
    third = Store(path)
    assert third.load() == [Stored("shop/checkout", "{}", "[]", 5)]
    third.close()


def test_events_are_numbered_and_told_from_a_number_on(store: Store) -> None:
    """Of one rollout, oldest first, no more than asked for."""
    store.save(ROW, 10.0, [Tell("Adopted", "v1"), Tell("Aborted", "v2", is_warning=True)])
    store.tell("shop/cart", 11.0, [Tell("Adopted", "w1")])
    store.tell("shop/checkout", 12.0, [Tell("Promoted", "v2")])
    found = store.events("shop/checkout", 0, 100)
    assert [(e.type, e.reason, e.message, e.at) for e in found] == [
        ("Normal", "Adopted", "v1", 10.0),
        ("Warning", "Aborted", "v2", 10.0),
        ("Normal", "Promoted", "v2", 12.0),
    ]
    assert [e.reason for e in store.events("shop/checkout", found[0].seq, 1)] == ["Aborted"]


def test_old_events_go_and_numbers_are_never_used_again(
    path: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bounded: a controller that runs for years keeps a fixed number of rows."""
    monkeypatch.setattr(stores, "KEEP_EVENTS", 5)
    for number in range(12):
        store.save(ROW, float(number), [Tell("Holding", str(number))])
    found = store.events("shop/checkout", 0, 100)
    assert [e.message for e in found] == ["7", "8", "9", "10", "11"]
    assert found[0].seq == 8


def test_measurements_are_kept(path: str, store: Store) -> None:
    """state, events and measurements in one file, for people with sqlite3."""
    record = Record("v2", 3, "success-rate", 0.97, Outcome.FAILED, "0.97 does not fulfil")
    store.save(ROW, 1.0, [], [record])
    with sqlite3.connect(path) as reader:
        rows = reader.execute("SELECT key, revision, step, metric, value, outcome FROM measurement").fetchall()
    reader.close()
    assert rows == [("shop/checkout", "v2", 3, "success-rate", 0.97, "Failed")]


def test_a_transition_is_stored_whole_or_not_at_all(path: str, store: Store) -> None:
    """An event that cannot be written takes the state with it: what is told is what is stored."""
    store.save(ROW, 1.0)
    with sqlite3.connect(path) as breaker:
        breaker.execute("DROP TABLE event")
    breaker.close()
    with pytest.raises(Temporary, match="the state cannot be stored"):
        store.save(Stored("shop/checkout", '{"b": 2}', "[]", 9), 2.0, [Tell("Adopted", "x")])
    assert store.load() == [ROW]


def test_two_controllers_never_both_act(path: str, store: Store) -> None:
    """C4: the second is refused while the first lives, with its process."""
    with pytest.raises(Permanent, match=f"another controller, process {os.getpid()}, has it"):
        Store(path)


def _take_and_die(path: str) -> None:
    taken = Store(path)
    taken.save(ROW, 1.0)
    os._exit(9)


def test_a_killed_controller_leaves_the_file_free(path: str) -> None:
    """The lock ends with the process, and what was committed is there."""
    child = multiprocessing.get_context("fork").Process(target=_take_and_die, args=(path,))
    child.start()
    child.join(20)
    assert child.exitcode == 9
    child.close()
    again = Store(path)
    assert again.load() == [ROW]
    again.close()


def test_the_file_is_its_owners_alone(path: str, store: Store) -> None:
    """Documents and ids of secrets are nobody else's business."""
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@pytest.mark.parametrize(
    ("content", "part"),
    [(b"this is not a database, it is a letter to somebody" * 20, "file is not a database"), (b"", "")],
)
def test_a_file_that_is_no_state_is_refused(path: str, content: bytes, part: str) -> None:
    """An empty one is a new one."""
    Path(path).parent.mkdir()
    Path(path).write_bytes(content)
    if part:
        with pytest.raises(Permanent, match=part):
            Store(path)
    else:
        Store(path).close()


def test_a_state_of_another_version_is_refused(path: str) -> None:
    """It says which was expected and which came."""
    Store(path).close()
    with sqlite3.connect(path) as other:
        other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(Permanent, match="expected schema 1, found 99"):
        Store(path)


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A file where a folder should be."""
    (tmp_path / "state").write_text("")
    with pytest.raises(Permanent, match="state "):
        Store(str(tmp_path / "state" / "controller.db"))


def test_commits_are_on_disk_before_they_count(store: Store) -> None:
    """WAL and synchronous=FULL: a power cut after an answer loses nothing of it."""
    with store._lock:
        assert store._database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert store._database.execute("PRAGMA synchronous").fetchone() == (2,)
