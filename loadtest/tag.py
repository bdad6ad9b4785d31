"""What marks a run's requests as synthetic, so that the proxy counts none of them as a user's."""

from __future__ import annotations

from pathlib import Path

from proxy.keys import Secret, parse_secret
from proxy.synthetic import HEADER, LIFE_S, Tag

RENEW_S = LIFE_S / 4  # much earlier than needed: clocks differ, and a tag is valid at once


class Tagger:
    """The tag of a run, signed anew from time to time.

    Args:
        secret: 32 bytes, the installation's synthetic secret.
        rollout: ``namespace/name``.
    """

    def __init__(self, secret: bytes, rollout: str) -> None:
        self._tag = Tag(Secret(secret), rollout)
        self._fields: dict[str, str] = {}
        self._signed_at = float("-inf")

    def fields(self, now: float) -> dict[str, str]:
        """The header of a request that is sent now, in Unix seconds."""
        if not 0 <= now - self._signed_at < RENEW_S:
            self._fields = {HEADER: self._tag.sign(now + LIFE_S)}
            self._signed_at = now
        return self._fields


def read_tagger(path: str, rollout: str) -> Tagger | None:
    """The tagger of a run; None without a key file.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no key file.
    """
    return Tagger(parse_secret(path, Path(path).read_bytes()), rollout) if path else None
