"""What one controller leaves to the next: nothing changes on the way, and it fits."""

from __future__ import annotations

import base64
import json
import random
import zlib

import pytest

from controller.look import Counts, Look
from controller.past import EPOCHS, MAX_TEXT, Past, Slice, merged, read, write
from proxy.sketch import CELLS, add, estimate, merge


def counts(requests: int, failures: int = 0, cells: int = 2) -> Counts:
    return Counts(requests, failures, {100 + cell: requests for cell in range(cells)})


def look(boot: str = "b", requests: int = 5) -> Look:
    return Look(boot, 1_700_000_000.0, None, None, 3, {"canary": counts(requests, 1)}, {})


def kept(*slices: Slice, looks: int = 1) -> Past:
    found = {f"cohort-{n}": look() for n in range(looks)}
    return Past(1_700_000_001.0, 50.0, list(slices), {"canary": {7: b"\x01" * 1024}}, found)


def test_what_is_left_is_what_is_found() -> None:
    """Times are ages, so that another clock can go on with them."""
    before = kept(Slice(40.0, 41.0, {"canary": counts(10, 2)}), Slice(49.0, 50.0, {"stable": counts(3)}))
    found = read(write(before, 4), 4)
    assert found is not None
    assert found.slices == [Slice(-10.0, -9.0, {"canary": counts(10, 2)}), Slice(-1.0, 0.0, {"stable": counts(3)})]
    assert (found.wall, found.epochs, found.looks) == (before.wall, before.epochs, before.looks)
    assert found.rebased(200.0).slices[0] == Slice(190.0, 191.0, {"canary": counts(10, 2)})


def test_another_attempt_is_another_matter() -> None:
    """A retry begins without evidence."""
    assert read(write(kept(), 4), 5) is None


def test_nothing_is_lost_where_slices_are_put_together() -> None:
    """At most 120 of them, however many proxies there were."""
    slices = [Slice(n / 10, n / 10 + 1, {"canary": counts(1, n % 2)}) for n in range(1000)]
    found = read(write(kept(*slices), 1), 1)
    assert found is not None
    assert len(found.slices) <= 120
    assert sum(part.counts["canary"].requests for part in found.slices) == 1000
    assert sum(part.counts["canary"].failures for part in found.slices) == 500
    assert all(part.end - part.start < 3 for part in found.slices)


@pytest.mark.parametrize("proxies", [3, 50, 300])
def test_it_fits_whatever_was_counted(proxies: int) -> None:
    """Every cell of every histogram, registers like noise, and more proxies than anybody has."""
    rng = random.Random(1)

    def noise() -> dict[str, Counts]:
        return {
            arm: Counts(rng.getrandbits(50), 0, {cell: rng.getrandbits(30) for cell in range(CELLS)})
            for arm in ("stable", "canary")
        }

    shared = noise()
    slices = [Slice(n, n + 1, noise()) for n in range(120)]
    epochs = {arm: {epoch: rng.randbytes(1024) for epoch in range(EPOCHS)} for arm in ("stable", "canary")}
    looks = {
        f"cohort-{n}": Look(str(n), rng.random() * 1e9, None, None, 1, noise() if n < 50 else shared, {})
        for n in range(proxies)
    }
    past = Past(1e9, 120.0, slices, epochs, looks)
    text = write(past, 1)
    found = read(text, 1)
    assert len(text) <= MAX_TEXT
    assert found is not None
    assert sum(p.counts["canary"].requests for p in found.slices) == sum(p.counts["canary"].requests for p in slices)


def test_users_of_a_long_window_are_in_a_dozen_groups_and_all_there() -> None:
    """Each as old as its oldest epoch: a window never holds users that are older than it."""
    rng = random.Random(1)
    proxies: list[dict[str, dict[int, bytes]]] = [{"canary": {}}, {"canary": {}}]
    for epoch in range(100, 160):
        for found in proxies:
            registers = bytearray(1024)
            for _ in range(5):
                add(registers, rng.randbytes(16))
            found["canary"][epoch] = bytes(registers)
    groups = merged(proxies, 110)["canary"]
    assert len(groups) <= EPOCHS
    assert min(groups) == 110
    assert estimate(merge(list(groups.values()))) == pytest.approx(500, rel=0.1)
    assert estimate(merge([r for epoch, r in groups.items() if epoch >= 150])) <= 115


def test_two_minutes_stay_as_sharp_as_proxies_keep_them() -> None:
    """An epoch a group."""
    found = {"canary": {epoch: bytes([epoch]) * 1024 for epoch in range(12)}}
    assert merged([found], 0) == found


@pytest.mark.parametrize(
    "text",
    [
        "x",
        base64.b64encode(b"x").decode(),
        base64.b64encode(zlib.compress(b"[]")).decode(),
        base64.b64encode(zlib.compress(b'{"attempt": 1}')).decode(),
        base64.b64encode(zlib.compress(b"[" * 50_000_000)).decode(),
        base64.b64encode(
            zlib.compress(
                json.dumps({"attempt": 1, "wall": 1, "slices": [], "users": {"a": {"1": "AA=="}}, "looks": {}}).encode()
            )
        ).decode(),
    ],
    ids=["no base64", "not compressed", "a list", "empty", "a bomb", "registers"],
)
def test_nonsense_is_told_from_it(text: str) -> None:
    """Of another version, or written by hand: the evidence begins anew."""
    with pytest.raises(ValueError, match=r"."):
        read(text, 1)
