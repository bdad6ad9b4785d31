"""From state to plan."""

from __future__ import annotations

from controller import planner
from controller.events import Verb
from controller.spec import CanaryRollout
from controller.state import Phase, Stage
from proxy.assign import salt
from proxy.document import validate
from proxy.plan import ArmTls, Breaker, Dns, HealthCheck, Mirror
from tests.controller.world import SECRETS, World, document

OLD, NEW = b"o" * 32, b"n" * 32


def test_a_plan_is_the_same_wherever_it_is_made() -> None:
    """Replicas and restarts must not differ in a byte, or proxies refuse equal generations."""
    world = World(document({"setWeight": 5}, {"pause": {}})).until(Phase.PAUSED)
    first = planner.plan(world.state, SECRETS)
    world.kill()
    second = planner.plan(world.state, SECRETS)
    assert first is not None
    assert second is not None
    assert first.digest == second.digest
    assert first.etag == second.etag


def test_the_salt_is_of_uid_revision_and_the_secret_in_use() -> None:
    """surface.md: salt = blake2b(uid NUL revision) keyed by the split secret; never another secret in mid-rollout."""
    secrets = {planner.key_id(NEW): NEW, planner.key_id(OLD): OLD}
    world = World(document({"setWeight": 5}, {"pause": {}})).until(Phase.PAUSED)
    made = planner.plan(world.state, {**SECRETS, **secrets})
    assert made is not None
    assert made.salt == salt(world.state.uid, "v2", b"s" * 32).hex()


def test_there_is_no_plan_before_stable_is_known() -> None:
    """A proxy keeps what it has."""
    assert planner.plan(World().state, SECRETS) is None


def test_without_a_revision_on_trial_there_is_one_arm() -> None:
    """`arm: canary` then means stable."""
    world = World(document({"setWeight": 50})).until(Phase.HEALTHY)
    made = planner.plan(world.state, SECRETS)
    assert made is not None
    assert (made.revision, [arm.name for arm in made.arms]) == (None, ["stable"])


def test_an_aborted_plan_keeps_its_revision_at_weight_zero() -> None:
    """The latch's revision is told from it, and the users counted so far can still be looked at."""
    world = World(document({"setWeight": 5}, {"pause": {}})).until(Phase.PAUSED)
    world.ask(Verb.ABORT)
    made = planner.plan(world.state, SECRETS)
    assert made is not None
    assert (made.revision, made.arms[1].weight_bp, made.lifts) == ("v2", 0, ())


def test_a_key_id_tells_nothing_of_the_secret() -> None:
    """It is stored with the state and may be shown."""
    assert planner.key_id(OLD) != planner.key_id(NEW)
    assert OLD.hex() not in planner.key_id(OLD)
    assert len(planner.key_id(OLD)) == 16


def test_how_a_version_is_found_and_checked_goes_into_its_arm() -> None:
    """And a promoted canary takes it along."""
    check = {"path": "/ready", "interval": "2s"}
    canary = {"dns": {"host": "v2.example", "port": 80}, "revision": "v2", "healthCheck": check, "tls": {}}
    world = World(
        validate(
            CanaryRollout,
            {
                "metadata": {"name": "checkout", "namespace": "shop"},
                "spec": {
                    "stable": {"addresses": ["127.0.0.1:9001"], "revision": "v1"},
                    "canary": canary,
                    "strategy": {"canary": {"steps": [{"setWeight": 5}, {"pause": {}}]}},
                    "onArmDown": "Error",
                    "mirror": {"arm": "canary", "percent": 1},
                    "breaker": {"errorPercent": 25, "window": "5s"},
                },
            },
        )
    ).until(Phase.PAUSED)
    made = planner.plan(world.state, SECRETS)
    assert made is not None
    stable, tried = made.arms
    assert (stable.dns, stable.health_check, len(stable.endpoints)) == (None, None, 1)
    assert tried.dns == Dns(host="v2.example", port=80)
    assert tried.health_check == HealthCheck(path="/ready", interval=2.0)
    assert (stable.tls, tried.tls) == (None, ArmTls())
    assert (tried.endpoints, made.on_arm_down) == ((), "Error")
    assert made.breaker == Breaker(error_percent=25, window=5.0)
    assert made.mirror == Mirror(arm="canary", percent=1)
    world.ask(Verb.PROMOTE_FULL)
    world.until(Phase.HEALTHY)
    made = planner.plan(world.state, SECRETS)
    assert made is not None
    assert [arm.dns for arm in made.arms] == [tried.dns]


def test_a_changed_check_is_a_new_plan() -> None:
    world = World(document({"setWeight": 5}, {"pause": {}})).until(Phase.PAUSED)
    generation = world.state.generation
    world.declare(document({"setWeight": 5}, {"pause": {}}, onArmDown="Error"))
    world.run(2)
    assert world.state.generation == generation + 1
    assert world.state.stage is Stage.STEPS
