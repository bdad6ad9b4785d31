"""Which version one user has, computed as every proxy computes it. Pure."""

from __future__ import annotations

from controller.messages import WhoamiAnswer
from proxy.assign import BUCKETS, KEY_BYTES, arm_index, bucket, user_key
from proxy.document import percent_text
from proxy.plan import Plan, UserSource

MAX_VALUE_BYTES = 256  # surface.md: a longer value counts as absent


def parse_key(text: str, users: tuple[UserSource, ...], identity_secret: bytes) -> bytes:
    """The user key of ``SOURCE=VALUE``, such as ``header:x-user-id=anna``; a minted one is ``mint=`` and its digits.

    Args:
        text: As `plan.UserSource.label` spells the source; the name of a header in whatever case.
        users: The sources that the rollout has.
        identity_secret: The installation's.

    Raises:
        ValueError: Another form, or a source that the rollout does not have.
    """
    source, sign, value = text.partition("=")
    source = source.lower() if source.lower().startswith("header:") else source
    labels = [user.label for user in users]
    if not sign or source not in labels:
        raise ValueError(f"expected SOURCE=VALUE with one of the rollout's sources, {', '.join(labels)}; got {text!r}")
    if source == "mint":
        return _minted(value)
    content = value.encode("utf-8", "surrogateescape")
    if not 1 <= len(content) <= MAX_VALUE_BYTES:
        raise ValueError(f"expected a value of 1 to {MAX_VALUE_BYTES} bytes, got {len(content)}: it counts as absent")
    return user_key(source, content, identity_secret)


def _minted(value: str) -> bytes:
    try:
        key = bytes.fromhex(value)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"expected mint= and {2 * KEY_BYTES} hexadecimal digits, got {value!r}")
    return key


def whoami(key: bytes, plan: Plan, is_aborted: bool) -> WhoamiAnswer:
    """What a plan gives a user of whom nothing but the key is known.

    Args:
        key: 16 bytes.
        plan: The one in force.
        is_aborted: Whether the abort latch stands.
    """
    place = bucket(key, bytes.fromhex(plan.salt))
    weight_bp = plan.arms[1].weight_bp if len(plan.arms) > 1 else 0
    third_bp = plan.arms[2].weight_bp if len(plan.arms) > 2 else 0
    arm = plan.arms[0 if is_aborted else arm_index(place, weight_bp, third_bp)]
    assert place < BUCKETS  # by construction
    return WhoamiAnswer(
        key=key.hex(),
        bucket=place,
        arm=arm.name,
        reason="abort" if is_aborted else "split",
        revision=arm.revision,
        generation=plan.generation,
        weight=percent_text(weight_bp),
    )
