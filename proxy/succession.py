"""Which plan follows which: newer is the greater (generation, endpointsVersion) of the same rollout uid."""

from __future__ import annotations

from enum import Enum

from proxy.plan import Plan


class Order(Enum):
    """How a plan stands to the one in force."""

    NEWER = "newer"  # of the same rollout, of another one, or the first
    SAME = "same"
    OLDER = "older"
    CONFLICT = "conflict"  # the same version with other content


def order(current: Plan | None, offered: Plan) -> Order:
    """How an offered plan stands to the one in force; another uid starts afresh, whatever its generation."""
    if current is None or current.rollout.uid != offered.rollout.uid:
        return Order.NEWER
    if offered.version != current.version:
        return Order.NEWER if offered.version > current.version else Order.OLDER
    return Order.SAME if offered.digest == current.digest else Order.CONFLICT


def at_start(last_good: tuple[Plan, float] | None, file: tuple[Plan, float] | None) -> list[Plan]:
    """The plans to try at a start, best first.

    Args:
        last_good: The last good plan and when it was written, Unix seconds.
        file: The plan file's, likewise.

    Returns:
        The newer one first. Plans of two rollouts have no order, so there the one written later goes first.
    """
    found = [item for item in (last_good, file) if item is not None]
    if last_good and file:
        (kept, kept_at), (offered, offered_at) = last_good, file
        if kept.rollout.uid == offered.rollout.uid:
            file_first = order(kept, offered) is Order.NEWER
        else:
            file_first = offered_at > kept_at
        found = [file, last_good] if file_first else [last_good, file]
    return [plan for plan, _ in found]
