"""What counts as lost."""

from __future__ import annotations

import pytest

from tests.faults.client import Answer
from tests.faults.ledger import Row, between, ledger, only, p99, percentile, repeated, summary
from tests.faults.load import judge


def row(sent: float = 10.0, done: float = 10.1, outcome: str = "ok", status: int = 200, intended: float = 10.0) -> Row:
    return Row("get", "n1", "u1", intended, sent, done, outcome, status, "stable", "split", 1, "stable-0", "")


@pytest.mark.parametrize(
    ("sent", "done", "is_lost"),
    [(9.0, 9.5, True), (9.0, 10.5, False), (10.5, 10.6, False), (10.5, 99.0, False), (20.5, 20.6, True)],
    ids=["before", "over its beginning", "within", "over its end", "after"],
)
def test_only_what_was_under_way_during_the_fault_may_fail(sent: float, done: float, is_lost: bool) -> None:
    """reliability.md section 5: the ledger is all outside the allowed set, and nothing is allowed at other times."""
    reset = row(sent, done, "reset")
    assert ledger([reset], 10.0, 20.0, only("reset")) == ([reset] if is_lost else [])
    assert ledger([reset], 10.0, 20.0, only("503")) == [reset]


def test_what_is_ok_is_never_in_the_ledger() -> None:
    """Whenever it was."""
    assert ledger([row(), row(sent=99.0)], 10.0, 20.0, only()) == []


def test_latency_counts_from_when_it_should_have_been_sent() -> None:
    """A generator that stalls with what it measures must not hide the stall."""
    late = row(intended=5.0, sent=9.9, done=10.0)
    assert late.latency == 5.0
    assert p99([late]) == 5.0
    assert between([late], 4.0, 6.0) == [late]


def test_numbers() -> None:
    """Percentiles take a value that occurred; a summary names codes and outcomes."""
    assert percentile(range(1, 101), 0.99) == 100
    assert percentile([], 0.99) == 0.0
    assert summary([row(), row(outcome="status", status=503), row(outcome="status", status=503)]) == "503 2, ok 1"
    assert repeated(["a", "b", "a"]) == ["a"]


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (Answer(200, {"x-nonce": "n1", "x-body": "2"}, bytearray(b"ok")), "ok"),
        (Answer(101, {"x-nonce": "n1"}), "ok"),
        (Answer(503, {"retry-after": "1"}), "status"),
        (Answer(200, {"x-nonce": "n2"}), "wrong nonce"),
        (Answer(200, {}), "wrong nonce"),
        (Answer(200, {"x-nonce": "n1", "x-body": "9"}, bytearray(b"ok")), "wrong nonce"),
    ],
    ids=["whole", "switched", "an error", "another's", "nobody's", "short without the framing saying so"],
)
def test_an_answer_is_believed_only_with_the_nonce_and_the_whole_body(answer: Answer, outcome: str) -> None:
    """A short body that looks whole is the worst that can happen: no client can tell."""
    assert judge(answer, "n1")[0] == outcome
