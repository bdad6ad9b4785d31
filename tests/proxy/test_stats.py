"""The document of GET /stats."""

from __future__ import annotations

import base64
import json
import random

from proxy import sketch
from proxy.counters import Stats
from proxy.region import EPOCH_REGISTERS, REGISTERS
from proxy.stats import stats_document
from tests.support.plans import plan


def registers(size: int, users: int) -> bytes:
    found = bytearray(size)
    rng = random.Random(users)
    for _ in range(users):
        sketch.add(found, rng.randbytes(16))
    return bytes(found)


def test_numbers_are_by_arm_and_source() -> None:
    """What the controller judges: requests, failures, codes, latency by cell, distinct users."""
    total, window = registers(REGISTERS, 9), registers(EPOCH_REGISTERS, 4)
    stats = Stats(
        series={
            ("requests", "canary", "split", "user", "200", "ok"): 8,
            ("requests", "canary", "split", "user", "200", "failed"): 1,
            ("requests", "canary", "split/france", "user", "500", "failed"): 2,
            ("requests", "canary", "route/staff", "forced", "200", "ok"): 3,
            ("rejected", "limit"): 4,
        },
        times={("canary", "user"): {300: 1, 160: 7}, ("canary",): {301: 8}},
        users={"canary": total},
        epochs={"canary": {17: window}},
    )
    document = json.loads(json.dumps(stats_document(stats, plan(), "b00t", 1234.56789)))
    arms = document.pop("arms")
    assert document == {
        "boot": "b00t",
        "now": 1234.568,
        "rollout": "shop/checkout",
        "uid": "7c9f",
        "revision": "v2",
        "generation": 1,
        "endpointsVersion": 0,
    }
    assert arms["canary"]["sources"] == {
        "user": {
            "requests": 11,
            "failures": 3,
            "codes": {"200": 9, "500": 2},
            "latency": [[160, 7], [300, 1]],
        },
        "forced": {"requests": 3, "failures": 0, "codes": {"200": 3}, "latency": []},
    }
    assert base64.b64decode(arms["canary"]["users"]["total"]) == total
    assert arms["canary"]["users"]["estimate"] == 9
    assert base64.b64decode(arms["canary"]["users"]["epochs"]["17"]) == window


def test_an_arm_without_traffic_is_there_with_zeros() -> None:
    """A reader can tell no requests from no arm; registers always have their full size."""
    document = stats_document(Stats(), plan(), "b00t", 0.0)
    none = {"requests": 0, "failures": 0, "codes": {}, "latency": []}
    assert list(document["arms"]) == ["stable", "canary"]
    assert document["arms"]["stable"]["sources"] == {"user": none, "forced": none}
    assert base64.b64decode(document["arms"]["stable"]["users"]["total"]) == bytes(REGISTERS)
    assert document["arms"]["stable"]["users"]["estimate"] == 0


def test_without_a_plan_there_are_no_arms() -> None:
    """Nothing to count for."""
    document = stats_document(Stats(), None, "b00t", 0.0)
    assert (document["uid"], document["generation"], document["arms"]) == (None, 0, {})
