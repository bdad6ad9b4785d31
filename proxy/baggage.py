"""The baggage header: the one member that tells the arm, found and replaced; all others are the application's.

W3C Baggage: ``key=value;property;...``, members apart by commas, values percent-encoded UTF-8.
"""

from __future__ import annotations

import re

from proxy.facts import BYTES, unescape

KEY = b"cohort.arm"
COPY = b"mirror"  # property of the member in a copy, so that nobody behind takes a copy for a user's request
# W3C Baggage section 3.3.2, with our own member: what is beyond may be dropped. 64 members must be carried; 180 were
# in the drafts, and senders still use them.
MAX_BYTES = 8192
MAX_MEMBERS = 180

_OWN = re.compile(rb"[ \t]*cohort\.arm[ \t]*(?:[=;]|\Z)")


def read(baggage: bytes) -> tuple[str, bool] | None:
    """What a list says of the arm.

    Args:
        baggage: The value of the field, several lines joined by commas.

    Returns:
        The arm's name, decoded, and whether the request is a copy; None without our member, and where there are
        several of it: one of them may be an attacker's.
    """
    own = [member for member in baggage.split(b",") if _OWN.match(member)]
    if len(own) != 1:
        return None
    pair, *properties = own[0].split(b";")
    value = unescape(pair.partition(b"=")[2].strip(b" \t"), BYTES)
    return value.decode("utf-8", "replace"), COPY in [text.strip(b" \t") for text in properties]


def replace(baggage: bytes, own: bytes) -> bytes:
    """The list with our member at its end, instead of what a client says there.

    Members of others that find no room are left out, whole.

    Args:
        baggage: As of `read`.
        own: Our member.
    """
    kept: list[bytes] = []
    room = MAX_BYTES - len(own)
    for member in baggage.split(b","):
        if not member.strip(b" \t") or _OWN.match(member):
            continue
        if len(member) < room and len(kept) < MAX_MEMBERS - 1:
            kept.append(member)
            room -= len(member) + 1
    return b",".join([*kept, own])
