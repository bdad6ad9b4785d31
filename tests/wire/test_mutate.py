"""The search changes bytes reproducibly, keeps what must stay the same, and makes findings short."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from tests.wire import mutate
from tests.wire.attack import Attack
from tests.wire.case import load
from tests.wire.permute import CODINGS, LENGTHS, permutations
from tests.wire.reply import Reply, differences
from tests.wire.strict import ClientRequestReader, Message, ResponseReader

CASES = load(Path(__file__).with_name("cases.yaml")).cases
POST = b"POST /a HTTP/1.1\r\nHost: t\r\nContent-Length: 11\r\n\r\nhello worldGET /b HTTP/1.1\r\nHost: t\r\n\r\n"


def first(seed: int, count: int) -> list[Attack]:
    return list(itertools.islice(mutate.attacks(random.Random(seed), mutate.seeds(CASES)), count))


def test_seed_makes_the_same_attacks() -> None:
    """A finding can be found again."""
    assert first(1, 200) == first(1, 200)
    assert first(1, 200) != first(2, 200)


def test_most_attacks_differ_from_their_start() -> None:
    """Otherwise the search would only repeat the cases."""
    starts = set(mutate.seeds(CASES))
    assert sum(given.data in starts for given in first(3, 500)) < 50


@pytest.mark.parametrize("change", mutate.CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("data", [b"", b"\r\n", b"GET", POST], ids=["empty", "line", "word", "post"])
def test_change_takes_any_bytes(change: object, data: bytes) -> None:
    """A change of a change of a change must not fail."""
    for seed in range(50):
        assert isinstance(change(random.Random(seed), data, [POST]), bytes)  # type: ignore[operator]  # parametrized


@pytest.mark.parametrize("seed", range(30))
def test_rechunked_body_means_the_same(seed: int) -> None:
    """Another framing of the same payload."""
    reader = ClientRequestReader()
    reader.feed(mutate.rechunk(random.Random(seed), POST, []))
    assert reader.fault is None
    assert [(message.target, bytes(message.body)) for message in reader.messages] == [
        (b"/a", b"hello world"),
        (b"/b", b""),
    ]


@pytest.mark.parametrize("seed", range(30))
def test_segments_are_all_of_the_bytes(seed: int) -> None:
    """Only where they are cut differs."""
    segments = mutate.segmented(random.Random(seed), POST)
    assert b"".join(segments) == POST
    assert all(segments)


async def test_finding_is_made_short() -> None:
    """What does not matter is left out."""

    async def is_wrong(given: mutate.Given) -> bool:
        return b"XY" in given.data

    short = await mutate.reduced(Attack((b"abcdefghXYijklmnop",)), is_wrong)
    assert short.data == b"XY"


def test_permutations_are_all_different() -> None:
    """Both orders of each pair, for two bodies."""
    found = [given.data for given in permutations()]
    assert len(found) == len(set(found))
    assert len(found) > len(LENGTHS) * len(CODINGS) * 3


def got(data: bytes, method: bytes = b"GET") -> list[Message]:
    reader = ResponseReader()
    reader.expect(method)
    reader.feed(data)
    return reader.finals


REPLY = Reply(
    b"GET /a HTTP/1.1\r\nHost: t\r\n\r\n", (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: 1\r\n\r\nhello",), "close"
)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 5\r\n\r\nhello", ""),
        (b"HTTP/1.1 502 Bad\r\nX-Request-Id: 1\r\nContent-Length: 0\r\n\r\n", ""),
        (b"HTTP/1.1 404 No\r\nX: 1\r\nContent-Length: 5\r\n\r\nhello", "status"),
        (b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 5\r\n\r\nHELLO", "body"),
        (b"HTTP/1.1 200 OK\r\nX: 1\r\nContent-Length: 4\r\n\r\nhell", "cut"),
        (b"HTTP/1.1 200 OK\r\nX: 2\r\nContent-Length: 5\r\n\r\nhello", "field"),
    ],
)
def test_answer_of_another_kind_is_told(answer: bytes, kind: str) -> None:
    """What the client gets is the service's answer, or the proxy's own error."""
    assert [fault.partition(":")[0] for fault in differences(REPLY, got(answer))] == ([kind] if kind else [])


def test_cut_answer_may_be_relayed_visibly_cut() -> None:
    """Contract item 14: a part of the body, and no end."""
    cut = REPLY.with_data(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
    assert differences(cut, got(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhel")) == []
    assert differences(cut, got(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")) != []
