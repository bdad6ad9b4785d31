"""The abort latch as a document."""

from __future__ import annotations

import pytest

from proxy.document import DocumentError, parse
from proxy.latch import Abort, Latch, is_lifted, latch, restore_latch, serialise_latch, timestamp
from tests.support.plans import plan

AT = 1_788_264_000.9


def test_a_latch_says_who_when_and_what_was_on_trial() -> None:
    """surface.md, Plan: {id, revision, by, at}."""
    made = latch(Abort(by="anna", reason="errors"), "0123456789abcdef", "v2", AT)
    assert made == Latch(id="0123456789abcdef", revision="v2", by="anna", at="2026-09-01T12:00:00Z", reason="errors")
    assert timestamp(AT) == "2026-09-01T12:00:00Z"


def test_a_caller_may_choose_the_id() -> None:
    """So that it can ask again without aborting twice."""
    assert latch(Abort(by="controller", id="feedface"), "0123456789abcdef", None, AT).id == "feedface"


@pytest.mark.parametrize("revision", ["v2", None])
def test_what_is_stored_is_restored(revision: str | None) -> None:
    """Survives restarts, whatever characters people use."""
    made = latch(Abort(by='anna "ö"\n', reason="{}: -\u2028"), "0123456789abcdef", revision, AT)
    assert restore_latch(serialise_latch(made), 0) == made


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\0" * 100, b'{"id": "0123456789abcdef"}', b"[]", b"x" * 2_000_000], ids=range(6)
)
def test_a_latch_that_cannot_be_read_stands_and_can_be_lifted(content: bytes) -> None:
    """In doubt everybody stays on stable; its id is the same at each start."""
    restored = restore_latch(content, AT)
    assert restored.id == restore_latch(content, AT + 60).id
    assert restored.revision is None
    assert "cannot be read" in restored.reason
    assert is_lifted(restored, plan(lifts=[restored.id]))


def test_only_a_plan_that_names_it_lifts_a_latch() -> None:
    """design.md, the pieces, 5."""
    made = latch(Abort(by="anna"), "0123456789abcdef", "v2", AT)
    assert not is_lifted(made, plan())
    assert not is_lifted(made, plan(lifts=["0123456789abcde0"]))
    assert is_lifted(made, plan(lifts=["deadbeef", "0123456789abcdef"]))


@pytest.mark.parametrize(
    ("text", "path"),
    [("{}", "by"), ('{"by": ""}', "by"), ('{"by": "a", "id": "UP"}', "id"), ('{"by": "a", "why": 1}', "why")],
)
def test_a_request_to_abort_is_checked_whole(text: str, path: str) -> None:
    """Who is required; unknown fields are refused."""
    with pytest.raises(DocumentError) as refused:
        parse(Abort, text)
    assert [fault.path for fault in refused.value.faults] == [path]
