"""An abort at one proxy is an abort of the rollout, whoever was dead at that moment."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from tests.kube.aborts.replicas import Replicas

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # with the installation, beside other work


def aborted(status: Any) -> Any:
    return status.get("phase") == "Aborted"


async def everyone_is_on_stable(replicas: Replicas) -> None:
    """By latch at every proxy, and by the plan as soon as it is there."""
    generation = replicas.shop.status["plan"]["generation"]
    for replica in replicas.all:
        await replica.until(lambda state: state["plan"]["generation"] >= generation and state["latch"])
        plan = await replica.plan()
        assert [arm["weightBp"] for arm in plan["arms"]][1:] == [0]


async def test_an_abort_at_the_admin_api_of_one_proxy_is_the_rollout_s(replicas: Replicas) -> None:
    """Found at the control port of a replica that does not decide: its id, who, why; a retry lifts it everywhere."""
    await replicas.on_trial()
    one = replicas.others()[0]
    await one.abort(by="anna", reason="smoke", id="feedbeef00000001")
    status = await replicas.shop.until(aborted)
    assert status["abort"] == {"id": "feedbeef00000001", "revision": "v2", "by": "anna", "reason": "Latched"}
    (degraded,) = (each for each in status["conditions"] if each["type"] == "Degraded")
    assert (degraded["reason"], degraded["message"]) == ("Latched", f"found at {one.pod}: smoke")
    assert status["weight"]["programmed"] == "0.00"
    await everyone_is_on_stable(replicas)
    assert {(await replica.state())["latch"]["id"] for replica in replicas.all} == {"feedbeef00000001"}
    await replicas.on_trial()


async def test_with_the_api_server_dead_direct_aborts_and_is_adopted_afterwards(replicas: Replicas) -> None:
    """Two people, two ids, no API server: all is on stable at once, and stays so when it is back; both are lifted."""
    await replicas.on_trial()
    cluster = replicas.shop.cluster
    cluster.stop_api()
    with replicas.frozen():  # else the holder may have told the others of the first by now
        first = await replicas.all[0].abort(by="bob")
        code, told, _ = replicas.direct(options=("--by", "anna", "--reason", "errors"))
    assert (code, told["latched"]) == (0, 3)
    ids = {first["id"], told["id"]}
    assert {proxy["latch"]["id"] for proxy in told["proxies"]} == ids
    cluster.start_api()
    status = await replicas.shop.until(aborted)
    assert status["abort"]["id"] in ids
    assert status["abort"]["by"] in ("anna", "bob")
    assert status["abort"]["revision"] == "v2"
    await everyone_is_on_stable(replicas)
    assert {(await replica.state())["latch"]["id"] for replica in replicas.all} == ids
    await replicas.on_trial()


async def test_from_within_a_pod_one_name_reaches_every_replica(replicas: Replicas) -> None:
    """Every pod has the token and the certificate, and the control Service names all replicas."""
    await replicas.on_trial()
    code, told = await asyncio.to_thread(replicas.direct_within, replicas.all[0])
    assert (code, told["latched"]) == (0, 3), told
    assert {proxy["address"].partition("(")[2][:-1] for proxy in told["proxies"]} == {r.address for r in replicas.all}
    status = await replicas.shop.until(aborted)
    assert (status["abort"]["id"], status["abort"]["by"]) == (told["id"], "bob")
    await replicas.on_trial()


async def test_controllers_that_start_without_an_api_server_wait_and_adopt_an_abort(replicas: Replicas) -> None:
    """All were killed meanwhile: each waits for the API server, the next holder finds the latch, none ends itself."""
    await replicas.on_trial()
    cluster, shop = replicas.shop.cluster, replicas.shop
    cluster.stop_api()
    for replica in replicas.all:
        os.kill(replica.controller, signal.SIGKILL)
    code, told, _ = replicas.direct(replicas.all[1].address, options=("--by", "anna"))
    assert (code, told["latched"]) == (0, 1)
    cluster.start_api()
    status = await shop.until(aborted)
    assert (status["abort"]["id"], status["abort"]["by"]) == (told["id"], "anna")
    await everyone_is_on_stable(replicas)
    pods = [replica.pod for replica in replicas.all]
    cluster.until(lambda: all(restarts(replicas, pod) for pod in pods))
    assert [restarts(replicas, pod) for pod in pods] == [1, 1, 1], shop.told()
    await replicas.on_trial()


def restarts(replicas: Replicas, pod: str) -> int:
    found = replicas.shop.space.pod(pod)["status"]["initContainerStatuses"]
    return sum(int(one["restartCount"]) for one in found if one["name"] == "controller")


async def test_an_abort_of_the_revision_before_does_not_end_the_new_one(replicas: Replicas) -> None:
    """Nobody decided while v2 was aborted at a proxy and v3 was deployed: v3 goes on trial, and the latch is lifted."""
    await replicas.on_trial()
    with replicas.frozen():
        code, told, _ = replicas.direct(replicas.others()[0].address)
        assert code == 0
        await replicas.shop.release("v3")
        await replicas.shop.rolled("shop-canary")
    status = await replicas.shop.until(lambda s: s["phase"] == "Paused" and s["revision"]["canary"] == "v3")
    assert "abort" not in status
    await replicas.on_trial("v3")
    assert told["id"] not in str([(await replica.state())["latch"] for replica in replicas.all])


async def test_a_replica_that_is_not_reached_is_named_and_latched_by_the_holder(replicas: Replicas) -> None:
    """Exit 3 names it; the controllers, which reach it, do the rest."""
    status = await replicas.on_trial("v3")
    two = [replica.address for replica in replicas.all[:2]]
    code, told, _ = replicas.direct(*two, "10.99.0.254", options=("--timeout", "2s"))
    assert code == 3
    results = {proxy["address"]: proxy["result"] for proxy in told["proxies"]}
    assert results == {f"{two[0]}:8083": "Latched", f"{two[1]}:8083": "Latched", "10.99.0.254:8083": "NotReached"}
    status = await replicas.shop.until(aborted)
    assert status["abort"]["id"] == told["id"]
    await everyone_is_on_stable(replicas)
