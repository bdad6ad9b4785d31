"""From the state of a rollout to the plan that its proxies serve."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from controller.state import Stage, State
from controller.version import Version
from proxy.assign import BUCKETS, salt
from proxy.plan import (
    Arm,
    Breaker,
    Explain,
    HeaderRoute,
    Mirror,
    OnArmDown,
    Plan,
    Preview,
    RolloutRef,
    Route,
    UserSource,
)

_ON_TRIAL = (Stage.CLEARING, Stage.STEPS, Stage.FILLING, Stage.ABORTED)


@dataclass(frozen=True, slots=True)
class Content:
    """All of a plan but its number: a new one is due exactly when this differs.

    Attributes:
        canary: None: nothing is on trial, everyone is on stable.
        salted_by: The revision that goes into the salt.
    """

    stable: Version
    canary: Version | None
    weight_bp: int
    header_routes: tuple[HeaderRoute, ...]
    users: tuple[UserSource, ...]
    routes: tuple[Route, ...]
    preview: Preview
    mirror: Mirror | None
    explain: Explain
    on_arm_down: OnArmDown
    breaker: Breaker | None
    lifts: tuple[str, ...]
    split_key: str

    @property
    def salted_by(self) -> str:
        """The revision whose salt the plan has."""
        return (self.canary or self.stable).revision


def content(state: State) -> Content | None:
    """What a state's plan contains; None while nothing is known of stable."""
    if state.stable is None:
        return None
    trial = state.trial if state.stage in _ON_TRIAL else None
    spec = state.document.spec
    return Content(
        stable=state.stable,
        canary=trial.version if trial else None,
        weight_bp=trial.weight_bp if trial else 0,
        header_routes=trial.header_routes if trial else (),
        users=state.users,
        routes=spec.routes,
        preview=spec.preview,
        mirror=spec.mirror,
        explain=spec.explain,
        on_arm_down=spec.on_arm_down,
        breaker=spec.breaker,
        lifts=state.lifts,
        split_key=state.split_key,
    )


def key_id(secret: bytes) -> str:
    """A name for a secret that tells nothing of it."""
    return blake2b(secret, digest_size=8, person=b"cohort key id").hexdigest()


def plan(state: State, secrets: Mapping[str, bytes]) -> Plan | None:
    """The plan of a state.

    Args:
        state: The rollout.
        secrets: Split secrets by `key_id`, the current one first; one that is missing is replaced by that, which the
            rollout allows only at weight 0.

    Returns:
        None while nothing is known of stable.
    """
    parts = content(state)
    if parts is None:
        return None
    metadata = state.document.metadata
    secret = secrets.get(parts.split_key) or next(iter(secrets.values()))
    return Plan(
        rollout=RolloutRef(namespace=metadata.namespace, name=metadata.name, uid=state.uid),
        generation=state.generation,
        revision=parts.canary.revision if parts.canary else None,
        salt=salt(state.uid, parts.salted_by, secret).hex(),
        arms=_arms(parts),
        users=parts.users,
        routes=parts.routes,
        header_routes=parts.header_routes,
        preview=parts.preview,
        mirror=parts.mirror,
        explain=parts.explain,
        on_arm_down=parts.on_arm_down,
        breaker=parts.breaker,
        lifts=parts.lifts,
    )


def _arms(parts: Content) -> tuple[Arm, ...]:
    stable = _arm("stable", parts.stable, BUCKETS - parts.weight_bp)
    return (stable,) if parts.canary is None else (stable, _arm("canary", parts.canary, parts.weight_bp))


def _arm(name: str, version: Version, weight_bp: int) -> Arm:
    return Arm(
        name=name,
        revision=version.revision,
        weight_bp=weight_bp,
        endpoints=version.endpoints,
        dns=version.dns,
        health_check=version.health_check,
        tls=version.tls,
    )
