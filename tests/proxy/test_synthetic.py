"""The load generator's tag: who can make one, and for how long it is good."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.keys import Secret
from proxy.preview import check_token, make_token
from proxy.synthetic import LIFE_S, Tag

NOW = 1_700_000_000.0
OLD, NEW = b"o" * 32, b"n" * 32
TAG = Tag(Secret(NEW, OLD), "shop/checkout")
VALUE = TAG.sign(NOW + 60).encode()


def test_a_tag_is_good_until_it_expires() -> None:
    """surface.md: signed, expiring."""
    assert len(VALUE) == 36
    assert VALUE.decode().isprintable()
    assert TAG.is_genuine(VALUE, NOW)
    assert TAG.is_genuine(VALUE, NOW + 59)
    assert not TAG.is_genuine(VALUE, NOW + 60)
    assert not TAG.is_genuine(VALUE, NOW + LIFE_S)


def test_a_tag_of_another_rollout_or_installation_is_worth_nothing() -> None:
    """What one proxy takes can be replayed to its replicas only."""
    for other in (
        Tag(Secret(NEW, OLD), "shop/cart"),
        Tag(Secret(NEW, OLD), "test/checkout"),
        Tag(Secret(b"x" * 32), "shop/checkout"),
    ):
        assert not other.is_genuine(VALUE, NOW)
        assert not TAG.is_genuine(other.sign(NOW + 60).encode(), NOW)


def test_both_secrets_of_a_rotation_verify() -> None:
    """surface.md: each key with its previous one."""
    before, after = Tag(Secret(OLD), "shop/checkout"), Tag(Secret(NEW), "shop/checkout")
    assert TAG.is_genuine(before.sign(NOW + 60).encode(), NOW)
    assert TAG.is_genuine(after.sign(NOW + 60).encode(), NOW)
    assert not after.is_genuine(before.sign(NOW + 60).encode(), NOW)


def test_a_preview_link_is_no_tag_and_a_tag_no_link() -> None:
    """The purpose is in the MAC, should somebody use one secret for both."""
    secret = Secret(NEW)
    for arm in ("", "canary"):
        assert not TAG.is_genuine(make_token(secret, "shop/checkout", arm, int(NOW) + 60).encode(), NOW)
        assert check_token(secret, "shop/checkout", arm, VALUE.decode(), NOW) is None


@pytest.mark.parametrize("position", range(len(VALUE)))
def test_no_byte_of_a_tag_can_be_changed(position: int) -> None:
    for byte in (VALUE[position] ^ 1, VALUE[position] ^ 2, 0x3D, 0x20):
        changed = VALUE[:position] + bytes((byte,)) + VALUE[position + 1 :]
        assert changed == VALUE or not TAG.is_genuine(changed, NOW)


@given(st.binary(max_size=80))
def test_nothing_else_is_a_tag(value: bytes) -> None:
    assert not TAG.is_genuine(value, NOW)
