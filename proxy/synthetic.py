"""The load generator's tag: what tells its requests from those of users, and that nobody can give himself.

A tag says nothing but when it expires. It is signed with the installation's synthetic secret under the rollout's name,
so one of another rollout, or of an installation with other secrets, is worth nothing. Replicas take it alike.
"""

from __future__ import annotations

from proxy.cookie import Seal
from proxy.keys import Secret

HEADER = "X-Cohort-Synthetic"
LIFE_S = 7200  # of a tag; longer than the clocks of two machines differ, by a wrong time zone too
EXPIRY_BYTES = 6

_PURPOSE = b"cohort synthetic"


class Tag:
    """Signs and verifies the tags of one rollout.

    Args:
        secret: The installation's synthetic secret.
        rollout: ``namespace/name``.
    """

    def __init__(self, secret: Secret, rollout: str) -> None:
        self._seal = Seal(_PURPOSE, rollout, secret, EXPIRY_BYTES)

    def sign(self, expires: float) -> str:
        """The value of `HEADER`, good before ``expires``, Unix seconds: 36 characters."""
        return self._seal.sign(int(expires).to_bytes(EXPIRY_BYTES, "big")).decode()

    def is_genuine(self, value: bytes, now: float) -> bool:
        """Whether we signed a value for this rollout, and it has not expired. ``now``: Unix seconds.

        Cost: one hash, and none for values that are not of our form.
        """
        found = self._seal.verify(value)
        return found is not None and int.from_bytes(found[0], "big") > now
