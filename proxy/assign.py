"""Which version one user has: computed from the user's key, the revision on trial and the weights, never stored.

The functions here are public and the same everywhere (``docs/behaviour.md`` has test vectors). BLAKE2b is keyed and
non-linear, unlike CRC32, under which the same users stay together for every salt.
"""

from __future__ import annotations

import ipaddress
from hashlib import blake2b
from typing import Final

BUCKETS: Final = 10_000  # one bucket is 0.01 % of users, the smallest step of a weight
KEY_BYTES: Final = 16
SALT_BYTES: Final = 32


class UserKeyError(ValueError):
    """A user key that is not `KEY_BYTES` long."""


def user_key(source: str, value: bytes, identity_secret: bytes) -> bytes:
    """The key of one user, which tells nothing about the value it was made from.

    Args:
        source: Where the value was found, as `plan.UserSource.label` spells it: ``header:x-user-id``, ``cookie:uid``,
            ``jwt:sub``, ``clientAddress``. Part of the hash, so that equal values of two sources are two users.
        value: 1-256 bytes.
        identity_secret: The installation's identity secret, at most 64 bytes.

    Returns:
        16 bytes. Cost: one hash.
    """
    return blake2b(b"%b\0%b" % (source.encode(), value), digest_size=KEY_BYTES, key=identity_secret).digest()


def client_value(address: str, ipv6_prefix: int) -> bytes | None:
    """The value of a client's address, as `user_key` takes it for the source ``clientAddress``.

    Args:
        address: IPv4 or IPv6; a zone (``%eth0``) is dropped, IPv4-mapped IPv6 counts as IPv4.
        ipv6_prefix: How many bits of an IPv6 address count.

    Returns:
        ``192.0.2.1`` or ``2001:db8::/64``; None if ``address`` is none.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip).encode()
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped).encode()
    return str(ipaddress.IPv6Network((int(ip), ipv6_prefix), strict=False)).encode()


def salt(uid: str, revision: str, split_secret: bytes) -> bytes:
    """The salt of one revision on trial: another revision deals all users anew, so nobody is always first.

    Args:
        uid: The rollout's own id.
        revision: The revision on trial.
        split_secret: The installation's split secret, at most 64 bytes.
    """
    return blake2b(f"{uid}\0{revision}".encode(), digest_size=SALT_BYTES, key=split_secret).digest()


def bucket(key: bytes, salt: bytes) -> int:
    """The user's place among 10,000, uniform and independent between salts.

    Args:
        key: 16 bytes, as `user_key` returns them or as they were minted.
        salt: 32 bytes, as `salt` returns them.

    Returns:
        0-9,999. Cost: one hash of 16 bytes, 0.9 us.

    Raises:
        UserKeyError: If ``key`` has another length.
    """
    if len(key) != KEY_BYTES:
        raise UserKeyError(f"a user key has {KEY_BYTES} bytes, got {len(key)}")
    return (int.from_bytes(blake2b(key, digest_size=8, key=salt).digest(), "big") * BUCKETS) >> 64


def mirror_salt(salt: bytes) -> bytes:
    """The salt by which users are drawn whose requests are mirrored: the split's own would draw those on the canary.

    Args:
        salt: 32 bytes, as `salt` returns them.
    """
    return blake2b(b"mirror", digest_size=SALT_BYTES, key=salt).digest()


def arm_index(bucket: int, canary_bp: int, third_bp: int = 0) -> int:
    """The arm that owns a bucket: the second arm from 0 upwards, a third from 9,999 downwards, stable in between.

    Raising a weight only adds users to its arm, lowering it removes the last added, and no change of weights moves a
    user between two arms that are not stable.

    Args:
        bucket: 0-9,999.
        canary_bp: Weight of the second arm in basis points; ``third_bp`` likewise. Their sum is at most 10,000.

    Returns:
        0 for stable, 1 for the second arm, 2 for the third.
    """
    if bucket < canary_bp:
        return 1
    if bucket >= BUCKETS - third_bp:
        return 2
    return 0
