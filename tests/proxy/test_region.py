"""The layout of one counter region."""

from __future__ import annotations

from proxy import region
from proxy.region import REGION_BYTES, Region, identity
from proxy.sketch import CELLS


def test_no_two_parts_overlap() -> None:
    """Writing one part to its end leaves all others as they were."""
    memory = memoryview(bytearray(REGION_BYTES))
    parts = Region(memory)
    parts.cells[:] = memoryview(b"\1" * parts.cells.nbytes).cast("q")
    parts.times[:] = memoryview(b"\2" * parts.times.nbytes).cast("q")
    for index in range(region.ARMS):
        users = parts.users(index)
        assert not any((*users.total, *users.ring, *users.epochs))
        users.total[:] = b"\3" * len(users.total)
        users.ring[:] = b"\4" * len(users.ring)
        users.epochs[:] = memoryview(b"\5" * users.epochs.nbytes).cast("q")
    for directory, room in (
        (parts.series, region.SERIES),
        (parts.histograms, region.HISTOGRAMS),
        (parts.arms, region.ARMS),
    ):
        assert list(directory) == []
        while directory.add(("x" * (region.LABEL_BYTES - 1),)) >= 0:
            pass
        assert len(list(directory)) == room
    assert set(bytes(parts.cells)) == {1}
    assert set(bytes(parts.times)) == {2}
    assert len(parts.times) == region.HISTOGRAMS * CELLS
    assert {(*set(parts.users(n).total), *set(parts.users(n).ring)) for n in range(region.ARMS)} == {(3, 4)}
    assert REGION_BYTES % 4096 == 0


def test_labels_come_back_as_they_were_added() -> None:
    """In order; what is too long, or finds no room beside the spare places, is refused."""
    memory = memoryview(bytearray(REGION_BYTES))
    directory = Region(memory).series
    assert directory.add(("requests", "canary", "", "ö")) == 0
    assert directory.add(("a",)) == 1
    assert directory.add(("x" * region.LABEL_BYTES,)) == -1
    assert directory.add(("b",), spare=region.SERIES - 2) == -1
    assert list(Region(memory).series) == [(0, ("requests", "canary", "", "ö")), (1, ("a",))]


def test_an_entry_cut_off_by_a_crash_is_not_there() -> None:
    """The number of entries is written last."""
    memory = memoryview(bytearray(REGION_BYTES))
    parts = Region(memory)
    parts.series.add(("whole",))
    parts.series.add(("half",))
    parts.header[region.SERIES_COUNT] = 1
    assert list(parts.series) == [(0, ("whole",))]
    assert parts.series.add(("next",)) == 1


def test_identities_differ_and_fit_a_word() -> None:
    """None is no text, and no two lists of parts run together."""
    found = {
        identity("a"),
        identity("a", None),
        identity("a", ""),
        identity("a", "-"),
        identity("ab"),
        identity("a", "b"),
    }
    assert len(found) == 6
    assert all(0 < number < 2**63 for number in found)
