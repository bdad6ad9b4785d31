"""What marks a run's requests: as the proxy takes it, signed anew in time, from a file that is a key file."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadtest.tag import RENEW_S, Tagger, read_tagger
from proxy.keys import Secret, serialise
from proxy.synthetic import LIFE_S, Tag

NOW = 1_700_000_000.0
SECRET = b"s" * 32


def test_proxies_with_the_same_key_take_it() -> None:
    [(name, value)] = Tagger(SECRET, "shop/checkout").fields(NOW).items()
    assert name == "X-Cohort-Synthetic"
    assert Tag(Secret(SECRET), "shop/checkout").is_genuine(value.encode(), NOW)
    assert not Tag(Secret(SECRET), "shop/cart").is_genuine(value.encode(), NOW)


@pytest.mark.parametrize("drift_s", [-3600.0, 0.0, 3600.0])
def test_at_any_time_of_a_long_run_it_is_good_although_clocks_differ(drift_s: float) -> None:
    """By an hour, as after a wrong time zone."""
    tagger, tag = Tagger(SECRET, "shop/checkout"), Tag(Secret(SECRET), "shop/checkout")
    for minutes in range(0, 600, 7):
        now = NOW + 60 * minutes
        assert tag.is_genuine(tagger.fields(now)["X-Cohort-Synthetic"].encode(), now + drift_s)


def test_it_is_signed_now_and_then_and_not_for_each_request() -> None:
    """A clock that was set back counts as the time for it, too."""
    tagger = Tagger(SECRET, "shop/checkout")
    first = tagger.fields(NOW)
    assert tagger.fields(NOW + RENEW_S - 1) is first
    assert tagger.fields(NOW + RENEW_S) != first
    later = tagger.fields(NOW + RENEW_S)
    assert tagger.fields(NOW - LIFE_S) != later


def test_the_key_is_that_of_the_proxys_own_file(tmp_path: Path) -> None:
    """Without a file nothing is marked."""
    path = tmp_path / "synthetic"
    path.write_bytes(serialise(SECRET))
    tagger = read_tagger(str(path), "shop/checkout")
    assert tagger is not None
    assert tagger.fields(NOW) == Tagger(SECRET, "shop/checkout").fields(NOW)
    assert read_tagger("", "") is None


def test_a_file_that_is_no_key_is_refused_without_its_content(tmp_path: Path) -> None:
    path = tmp_path / "synthetic"
    path.write_text("hunter2")
    with pytest.raises(ValueError, match=f"^{path}: expected 64 hexadecimal digits") as caught:
        read_tagger(str(path), "shop/checkout")
    assert "hunter2" not in str(caught.value)
