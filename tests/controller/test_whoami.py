"""Which version a user has, and how a key is spelt."""

from __future__ import annotations

import pytest

from controller.events import Verb
from controller.state import Phase
from controller.whoami import parse_key, whoami
from proxy.assign import arm_index, bucket, user_key
from proxy.plan import Plan
from tests.controller.world import World, document

SECRET = b"i" * 32
USERS = [{"header": {"name": "X-User-Id"}}, {"jwt": {"claim": "sub"}}, {"cookie": {"name": "uid"}}, {"mint": {}}]


def plan_of(world: World) -> Plan:
    assert world.proxy.plan is not None
    return world.proxy.plan


@pytest.fixture
def world() -> World:
    return World(document({"setWeight": 30}, {"pause": {}}, users=USERS)).until(Phase.PAUSED)


@pytest.mark.parametrize(
    ("text", "source", "value"),
    [
        ("header:x-user-id=anna", "header:x-user-id", b"anna"),
        ("header:X-User-Id=anna", "header:x-user-id", b"anna"),
        ("HEADER:X-User-Id=anna", "header:x-user-id", b"anna"),
        ("cookie:uid=a=b=", "cookie:uid", b"a=b="),
        ("jwt:sub=\u00e4", "jwt:sub", "\u00e4".encode()),
    ],
)
def test_a_source_and_a_value_are_a_key(world: World, text: str, source: str, value: bytes) -> None:
    """The same bytes as every proxy hashes."""
    assert parse_key(text, plan_of(world).users, SECRET) == user_key(source, value, SECRET)


def test_a_minted_key_is_given_by_its_digits(world: World) -> None:
    """It is random, and not made from anything."""
    assert parse_key("mint=" + "ab" * 16, plan_of(world).users, SECRET) == b"\xab" * 16


@pytest.mark.parametrize(
    "text",
    [
        "",
        "anna",
        "=anna",
        "cookie:other=1",
        "cookie:UID=1",
        "mint=xyz",
        "mint=ab",
        "cookie:uid=",
        "cookie:uid=" + "x" * 257,
    ],
)
def test_what_is_no_key_is_refused_with_the_sources(world: World, text: str) -> None:
    """A source that the rollout does not have would name somebody else."""
    with pytest.raises(ValueError, match="expected"):
        parse_key(text, plan_of(world).users, SECRET)


def test_the_answer_is_what_proxies_compute(world: World) -> None:
    """Bucket, arm and revision by the plan in force."""
    plan = plan_of(world)
    seen = set()
    for number in range(100):
        key = user_key("cookie:uid", str(number).encode(), SECRET)
        found = whoami(key, plan, is_aborted=False)
        place = bucket(key, bytes.fromhex(plan.salt))
        assert (found.bucket, found.arm) == (place, plan.arms[arm_index(place, 3000)].name)
        assert found.revision == {"stable": "v1", "canary": "v2"}[found.arm]
        assert (found.reason, found.weight, found.generation) == ("split", "30.00", plan.generation)
        seen.add(found.arm)
    assert seen == {"stable", "canary"}


def test_after_an_abort_everyone_has_stable(world: World) -> None:
    """The latch comes before the split."""
    world.ask(Verb.ABORT)
    for number in range(20):
        found = whoami(user_key("cookie:uid", str(number).encode(), SECRET), plan_of(world), is_aborted=True)
        assert (found.arm, found.reason) == ("stable", "abort")
