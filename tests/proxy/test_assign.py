"""Which version one user has: the laws of the assignment and its published vectors."""

from __future__ import annotations

import hashlib
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.assign import BUCKETS, UserKeyError, arm_index, bucket, client_value, mirror_salt, salt, user_key

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "docs/assignment-vectors.json").read_text())
SALTS = [salt("7c9f", f"v{n}", b"s" * 32) for n in range(2)]
USERS = 50_000
# Quantiles of chi-square at 1e-6: a correct hash fails once in a million secrets, and the keys here are fixed.
CHI_SQUARE_99 = 189.0
CHI_SQUARE_81 = 162.0

keys = st.binary(min_size=16, max_size=16)
salts = st.binary(min_size=32, max_size=32)
weights = st.integers(0, BUCKETS)


def sample(count: int = USERS) -> list[bytes]:
    """User keys as they are made of consecutive ids, which a weak hash would keep in groups."""
    return [user_key("header:x-user-id", b"%d" % number, b"i" * 32) for number in range(count)]


# The published vectors, by a second implementation


@pytest.mark.parametrize("vector", VECTORS["user_keys"], ids=lambda vector: vector["source"])
def test_user_keys_are_as_published(vector: dict[str, str]) -> None:
    """surface.md: blake2b(source NUL value, digest_size=16, key=identity secret)."""
    secret = bytes.fromhex(VECTORS["identity_secret"])
    assert user_key(vector["source"], vector["value"].encode(), secret).hex() == vector["user_key"]
    text = vector["source"].encode() + b"\0" + vector["value"].encode()
    assert hashlib.blake2b(text, digest_size=16, key=secret).hexdigest() == vector["user_key"]


@pytest.mark.parametrize("vector", VECTORS["salts"], ids=lambda vector: vector["revision"])
def test_salts_are_as_published(vector: dict[str, str]) -> None:
    """surface.md: blake2b(uid + NUL + revision, digest_size=32, key=split secret)."""
    secret = bytes.fromhex(VECTORS["split_secret"])
    assert salt(vector["uid"], vector["revision"], secret).hex() == vector["salt"]
    text = f"{vector['uid']}\0{vector['revision']}".encode()
    assert hashlib.blake2b(text, digest_size=32, key=secret).hexdigest() == vector["salt"]
    assert mirror_salt(bytes.fromhex(vector["salt"])).hex() == vector["mirror_salt"]


@pytest.mark.parametrize("vector", VECTORS["assignments"], ids=lambda vector: f"{vector['bucket']}-{vector['arm']}")
def test_buckets_and_arms_are_as_published(vector: dict[str, Any]) -> None:
    """surface.md: bucket = (H * 10_000) >> 64; the second arm from 0 upwards, a third from 9,999 downwards."""
    key, salted = bytes.fromhex(vector["user_key"]), bytes.fromhex(vector["salt"])
    place = bucket(key, salted)
    assert place == vector["bucket"]
    assert place == math.floor(
        int(hashlib.blake2b(key, digest_size=8, key=salted).hexdigest(), 16) * BUCKETS / 2**64  # fits: far from a bound
    )
    assert ("stable", "canary", "third")[arm_index(place, vector["canary_bp"], vector["third_bp"])] == vector["arm"]


def test_the_vectors_hold_every_kind_of_case() -> None:
    """All sources, all arms, both ends and both sides of a weight."""
    assert {vector["arm"] for vector in VECTORS["assignments"]} == {"stable", "canary", "third"}
    assert {0, 2499, 2500, 8999, 9000, 9999} <= {vector["bucket"] for vector in VECTORS["assignments"]}
    kinds = {vector["source"].partition(":")[0] for vector in VECTORS["user_keys"]}
    assert kinds == {"header", "cookie", "jwt", "clientAddress"}


# Laws


@given(keys, salts)
def test_a_user_has_one_bucket(key: bytes, salted: bytes) -> None:
    """Sticky: a pure function of key and salt."""
    assert bucket(key, salted) == bucket(bytes(key), bytes(salted))
    assert 0 <= bucket(key, salted) < BUCKETS


@given(st.integers(0, BUCKETS - 1), weights, weights)
def test_raising_a_weight_only_adds_users(place: int, one: int, two: int) -> None:
    """product.md A1: monotone; lowering it removes the last added."""
    low, high = sorted((one, two))
    assert arm_index(place, low) <= arm_index(place, high)
    assert (arm_index(place, 0, low) == 2) <= (arm_index(place, 0, high) == 2)


@given(st.integers(0, BUCKETS - 1), weights, weights, weights)
def test_changing_a_weight_moves_nobody_between_two_arms_that_are_not_stable(
    place: int, canary: int, third: int, other: int
) -> None:
    """surface.md, assignment: the users of the arm whose weight stays are the same before and after."""
    third = min(third, BUCKETS - canary)
    before = arm_index(place, canary, third)
    assert (before == 2) == (arm_index(place, min(other, BUCKETS - third), third) == 2)
    assert (before == 1) == (arm_index(place, canary, min(other, BUCKETS - canary)) == 1)


@given(weights, weights)
def test_each_arm_owns_as_many_buckets_as_its_weight(canary: int, third: int) -> None:
    """0.01 % a bucket, exactly."""
    third = min(third, BUCKETS - canary)
    found = [arm_index(place, canary, third) for place in range(BUCKETS)]
    assert [found.count(arm) for arm in range(3)] == [BUCKETS - canary - third, canary, third]


@pytest.mark.parametrize("salted", SALTS, ids=["v2", "v3"])
def test_buckets_are_uniform(salted: bytes) -> None:
    """Chi-square over 100 classes of consecutive ids."""
    counts = [0] * 100
    for key in sample():
        counts[bucket(key, salted) // 100] += 1
    expected = USERS / 100
    assert sum((count - expected) ** 2 / expected for count in counts) < CHI_SQUARE_99


def test_salts_are_independent() -> None:
    """Chi-square of independence over 10 x 10 classes: under CRC32 the same users stay together for every salt."""
    counts = [[0] * 10 for _ in range(10)]
    for key in sample():
        counts[bucket(key, SALTS[0]) // 1_000][bucket(key, SALTS[1]) // 1_000] += 1
    rows, columns = [sum(row) for row in counts], [sum(column) for column in zip(*counts, strict=True)]
    chi = sum(
        (counts[i][j] - rows[i] * columns[j] / USERS) ** 2 / (rows[i] * columns[j] / USERS)
        for i in range(10)
        for j in range(10)
    )
    assert chi < CHI_SQUARE_81


def test_minted_keys_are_uniform_too() -> None:
    """They are random bytes and take the same hash."""
    rng = random.Random(1)
    counts = [0] * 100
    for _ in range(USERS):
        counts[bucket(rng.randbytes(16), SALTS[0]) // 100] += 1
    expected = USERS / 100
    assert sum((count - expected) ** 2 / expected for count in counts) < CHI_SQUARE_99


@pytest.mark.parametrize("length", [0, 15, 17, 256])
def test_a_key_of_another_length_is_refused(length: int) -> None:
    """A value in place of a key would be a silent third kind of user."""
    with pytest.raises(UserKeyError, match=f"16 bytes, got {length}"):
        bucket(bytes(length), bytes(32))


def test_equal_values_of_two_sources_are_two_users() -> None:
    """The source is part of the hash, and NUL keeps it apart from the value."""
    found = {user_key(source, value, b"i" * 32) for source, value in (("a", b"bc"), ("ab", b"c"), ("a", b"b\0c"))}
    assert len(found) == 3


def test_the_value_of_an_address_is_none_for_what_is_no_address() -> None:
    """More in the tests of identity."""
    assert client_value("192.0.2.1", 64) == b"192.0.2.1"
    assert client_value("2001:db8::1", 56) == b"2001:db8::/56"
    assert client_value("shop.example", 64) is None
