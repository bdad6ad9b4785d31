"""Faults of what steers the proxy: plans, their files, keys, the controller, an abort. F11 to F18, F34, F39, F40."""

from __future__ import annotations

import asyncio
import io
import json
import os
import random
import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from proxy.assign import arm_index, bucket, user_key
from proxy.cookie import UserCookie
from proxy.keys import Secret
from tests.faults.ledger import Row, between, only
from tests.faults.load import is_staff
from tests.faults.run import FLAT_MIB, Fault, Run
from tests.faults.stand import Stand, rss_mib
from tests.integration.programs import COHORT, until

SALT = bytes.fromhex("5a" * 32)
STAFF = {"name": "staff", "matches": [{"headers": [{"name": "X-Staff", "value": "yes"}]}], "trust": "Anyone"}


def expected_arm(row: Row, canary_bp: int, staff_on_canary: bool, identity: bytes) -> str:
    """The version that a plan gives a user, computed from outside."""
    if staff_on_canary and is_staff(row.user):
        return "canary"
    key = user_key("cookie:uid", row.user.encode(), identity)
    return ("stable", "canary")[arm_index(bucket(key, SALT), canary_bp)]


async def promotion_flips(run: Run) -> None:
    """F11: weights, a header rule and both versions' endpoints change in one plan, back and forth."""
    check = run.check
    async with run.stand(stable=2, canary=2) as stand:
        identity = bytes.fromhex((stand.keys / "identity").read_text().strip())
        published = {1: (2500, False, None)}
        acknowledged: list[tuple[float, int]] = []
        async with stand.load(sockets=0) as load:
            end = time.monotonic() + run.scale.loss_s
            while time.monotonic() < end:
                odd = stand.generation % 2
                plan = stand.plan(7000 if odd else 1000, routes=[STAFF | {"arm": "canary"}] if odd else [])
                names = [f"{arm['name']}-{odd}" for arm in plan["arms"]]
                for arm in plan["arms"]:
                    arm["endpoints"] = [arm["endpoints"][odd]]
                published[stand.generation] = (7000 if odd else 1000, bool(odd), names)
                await stand.adopt(plan)
                acknowledged.append((time.monotonic(), stand.generation))
                await asyncio.sleep(0.1)
        run.no_loss(load.rows)
        mixed = [row for row in load.rows if not _belongs(row, published, identity)]
        check.says("flips", len(acknowledged))
        check.exactly("answers that mix generations", len(mixed))
        late = [row for row in load.rows if row.generation < _newest(acknowledged, row.sent)]
        check.exactly("sent after an acknowledgement, served by an older plan", len(late))
        for row in (mixed + late)[:2]:
            check.note(str(row))


def _belongs(row: Row, published: dict[int, Any], identity: bytes) -> bool:
    canary_bp, staff, names = published[row.generation]
    arm = expected_arm(row, canary_bp, staff, identity)
    name = row.endpoint if names is None else names[("stable", "canary").index(arm)]
    return row.arm == arm and row.endpoint == name and row.endpoint.startswith(arm)


def _newest(acknowledged: Sequence[tuple[float, int]], at: float) -> int:
    return max((generation for when, generation in acknowledged if when < at), default=1)


# --- bad plans


def garbage(good: dict[str, Any], is_short: bool) -> dict[str, bytes]:
    """What may stand where a plan should."""
    text = json.dumps(good).encode()
    arms = [arm | {"weightBp": 0} for arm in good["arms"]]
    return {
        "truncated": text[: len(text) // 2],
        "wrong types": json.dumps(good | {"generation": "seven", "arms": 7}).encode(),
        "unknown field": json.dumps(good | {"arm": []}).encode(),
        "NaN": json.dumps(good | {"generation": float("nan")}).encode(),
        "weights that sum to 0": json.dumps(good | {"arms": arms}).encode(),
        "binary": bytes(range(256)) * 40,
        "empty": b"",
        "100 MB": text[:-1] + b" " * (10_000_000 if is_short else 100_000_000) + b"}",
    }


async def config_garbage(run: Run) -> None:
    """F17: each in the watched file, by PUT, by --check, and at a start."""
    check = run.check
    async with run.stand(planFile="plan.json") as stand:
        folder = stand.proxy.folder
        bad = garbage(stand.plan(), run.scale.is_short)
        async with stand.load() as load:
            began = time.monotonic()
            verdicts: dict[str, dict[str, bool]] = {}
            for name, content in bad.items():
                verdicts[name] = {
                    "file": await _file_refused(stand, folder / "plan.json", content),
                    "PUT": await _put_refused(stand, content),
                }
            checks = await asyncio.gather(*(_refused_by_check(folder, name, bad[name]) for name in bad))
            for name, refused in zip(bad, checks, strict=True):
                verdicts[name]["--check"] = refused
            starts = await asyncio.gather(
                *(_refused_at_start(run, name, bad[name]) for name in (list(bad)[:2] if run.scale.is_short else bad))
            )
            await _links(run, stand, folder / "plan.json", bad["unknown field"])
            await asyncio.sleep(max(0.0, began + run.scale.loss_s - time.monotonic()))
        run.no_loss(load.rows)
        accepted = [
            f"{name} by {way}" for name, ways in verdicts.items() for way, refused in ways.items() if not refused
        ]
        check.exactly("documents", len(verdicts), len(bad))
        check.exactly("accepted in some way", ", ".join(accepted) or "none", "none")
        check.exactly("of them served at a start", sum(not refused for refused in starts))
        check.at_least("cohort_plan_rejected_total", await stand.metric("cohort_plan_rejected_total"), 2 * len(bad))


async def _file_refused(stand: Stand, path: Path, content: bytes) -> bool:
    before = await stand.metric("cohort_plan_rejected_total")
    path.with_suffix(".draft").write_bytes(content)
    os.rename(path.with_suffix(".draft"), path)

    async def refused() -> bool:
        return await stand.metric("cohort_plan_rejected_total") > before

    await until(refused, 10)
    return bool((await stand.proxy.state())["plan"]["generation"] < stand.generation)


async def _put_refused(stand: Stand, content: bytes) -> bool:
    session = stand.proxy._session
    assert session is not None
    headers = {"If-Match": "*", "Content-Type": "application/json"}
    try:
        async with session.put("/plan", data=io.BytesIO(content), headers=headers) as response:
            body = await response.json()
            return response.status in (413, 422) and bool(body["error"])
    except (OSError, aiohttp.ClientError):
        return True  # closed while 100 MB were under way


async def _refused_by_check(folder: Path, name: str, content: bytes) -> bool:
    path = folder / f"check-{name.replace(' ', '-')}"
    path.write_bytes(content)
    return await _status("proxy", "--check", str(path), folder=folder) == 1


async def _refused_at_start(run: Run, name: str, content: bytes) -> bool:
    """By a proxy that has no last good plan."""
    folder = run.folder / f"start-{name.replace(' ', '-')}"
    folder.mkdir()
    settings = {"listeners": [{"address": "127.0.0.1:0"}], "metrics": {"listen": "127.0.0.1:0"}, "planFile": "plan"}
    (folder / "proxy.json").write_text(json.dumps(settings))
    (folder / "plan").write_bytes(content)
    os.utime(folder / "plan", (1, 1))  # not just being written
    return await _status("proxy", "--config", "proxy.json", folder=folder) == 1


async def _status(*arguments: str, folder: Path) -> int:
    process = await asyncio.create_subprocess_exec(
        COHORT, *arguments, cwd=folder, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            _, said = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        return -1
    return process.returncode or 0 if b"Traceback" not in said else -1


async def _links(run: Run, stand: Stand, path: Path, bad: bytes) -> None:
    """A link that leads nowhere, one swapped to a bad plan, one swapped to a good one."""
    refused = await stand.metric("cohort_plan_rejected_total")
    good = path.with_name("good")
    good.write_text(json.dumps(stand.plan()))
    path.with_name("bad").write_bytes(bad)
    for number, name in enumerate(("nowhere", "bad"), 1):
        _swap(path, name)

        async def is_told(bound: float = refused + number) -> bool:
            return await stand.metric("cohort_plan_rejected_total") >= bound

        await until(is_told, 10)
    _swap(path, "good")

    async def is_served() -> bool:
        return bool((await stand.proxy.state())["plan"]["generation"] == stand.generation)

    await until(is_served, 10)
    run.check.true("links: dangling and bad refused, good served", holds=True)


def _swap(path: Path, target: str) -> None:
    draft = path.with_suffix(".link")
    draft.symlink_to(target)
    os.rename(draft, path)


async def plan_storm(run: Run) -> None:
    """F18: fifty plans a second, half of the time by PUT and half by the watched file."""
    check = run.check
    seconds = run.scale.pick(60, 3)
    async with run.stand(planFile="plan.json") as stand:
        async with stand.load() as load:
            pids = [*await stand.workers(), stand.proxy.program.process.pid]  # type: ignore[union-attr]
            sent, memory = 0, [0.0]
            begin = due = time.monotonic()
            while (now := time.monotonic()) < begin + seconds:
                if now < begin + seconds / 2:
                    await stand.adopt(stand.plan(sent % 10_000))
                else:
                    _write(stand.proxy.folder / "plan.json", stand.plan(sent % 10_000))
                sent += 1
                due = max(due + 0.02, time.monotonic())
                await asyncio.sleep(due - time.monotonic())
                if now < begin + seconds / 4:
                    memory = [rss_mib(*pids)]  # after a warm-up: what begins to be remembered is not a leak
            changed = time.monotonic()

            async def has_last() -> bool:
                state = await stand.proxy.state()
                return all(worker["plan"] == stand.generation for worker in state["workers"])

            await until(has_last, 10, every=0.01)
            acknowledged = time.monotonic()
            grown = rss_mib(*pids) - memory[0]
            await asyncio.sleep(max(0.0, begin + run.scale.loss_s - time.monotonic()))
        run.no_loss(load.rows)
        check.at_least("plans a second", sent / seconds, run.scale.pick(45, 10))
        check.at_most("acknowledgement of the last", acknowledged - changed, 1, "s")
        check.at_most("RSS grown by", grown, FLAT_MIB, "MiB")
        check.exactly("served at the end", (await stand.proxy.state())["plan"]["generation"], stand.generation)


def _write(path: Path, plan: dict[str, Any]) -> None:
    path.with_suffix(".draft").write_text(json.dumps(plan))
    os.rename(path.with_suffix(".draft"), path)


# --- abort


async def abort_alone(run: Run) -> None:
    """F34: nobody but one proxy lives; everybody is on the canary, by weight, by header or by a route."""
    check = run.check
    drain_s = run.scale.pick(10, 1)
    async with run.stand(timeouts={"abortDrain": f"{drain_s:g}s", "lameDuck": "0s", "drain": "2s"}) as stand:
        routes = [STAFF | {"arm": "canary", "always": True}]
        await stand.adopt(stand.plan(10_000, routes=routes))
        async with stand.load(stream_s=run.scale.pick(20, 3)) as load:
            await asyncio.sleep(run.scale.pick(20, 1))
            await stand.proxy.abort()
            returned = time.monotonic()
            await asyncio.sleep(run.scale.pick(80, 2))
        canary = stand.canary[0].times
        long = ("upload", "stream", "socket")
        cut = [
            row for row in load.rows if row.kind in long and row.arm == "canary" and row.what in ("truncated", "503")
        ]
        run.losses([row for row in load.rows if row not in cut], returned, returned, only())
        check.at_least("starts on the canary before", sum(at <= returned for at in canary), 50)
        check.at_most("last start on the canary after the call returned", (max(canary) - returned) * 1000, 200, "ms")
        check.exactly("later than 200 ms", sum(at > returned + 0.2 for at in canary))
        ends = [row.done for row in load.rows if row.arm == "canary" and row.sent < returned]
        check.says("long requests of the canary cut", len(cut))
        check.at_most("last of them ended after", max(ends) - returned, drain_s + 1.5, "s")


# --- starts and keys


async def started_first(run: Run) -> None:
    """F39: the proxy is there before its plan and before its services."""
    check = run.check
    async with run.stand(planFile="plan.json") as stand:
        for service in stand.services:
            await service.end()
        await stand.proxy.stop()
        shutil.rmtree(stand.proxy.folder / "state")
        await stand.proxy.start()
        before = await stand.proxy.state()
        check.exactly("ready without a plan", before["ready"], wanted=False)
        async with stand.load(upload_s=0, stream_s=0, sockets=0) as load:
            await asyncio.sleep(run.scale.pick(10, 1))
            _write(stand.proxy.folder / "plan.json", stand.plan())
            await until(stand.proxy.all_workers, 10)
            planned = time.monotonic()
            await asyncio.sleep(run.scale.pick(10, 1))
            async with asyncio.TaskGroup() as tasks:
                for service in stand.services:
                    tasks.create_task(service.start())
            served = time.monotonic()
            await asyncio.sleep(run.scale.pick(20, 3))
        without = [row for row in load.rows if row.intended < planned]
        run.losses(without, 0, planned + 1, only("503"), "without a plan: other than 503")
        run.losses(
            between(load.rows, planned), 0, served + 1.5, only("502", "503"), "without services: other than 502, 503"
        )
        after = await stand.proxy.state()
        check.true("ready by itself", after["ready"])
        check.exactly("restarts of workers", sum(worker["restarts"] for worker in after["workers"]))
        check.true("same supervisor", after["boot"] == before["boot"])


async def rotate_cookie_key(run: Run) -> None:
    """F40: two proxies, one after another told the new secret, then to sign with it, then to forget the old one."""
    check = run.check
    count = round(run.scale.pick(10_000, 60))
    async with run.stand(proxies=2, workers=1) as stand:
        await stand.adopt(stand.plan(3000, users=[{"mint": {"maxAge": "2160h"}}]))
        cookies = known_users(stand.keys, count)
        async with stand.load(cookies=cookies, upload_s=0, stream_s=0, sockets=0, seed=40) as load:
            await asyncio.sleep(count / run.scale.rate + 0.5)
            for change in (_announce, _swap_keys, _forget):
                change(stand.keys)
                for proxy in stand.proxies:
                    load.change(ports=[other.port for other in stand.proxies if other is not proxy])
                    await asyncio.sleep(0.2)
                    await proxy.stop()
                    await proxy.start()
                load.change(ports=[proxy.port for proxy in stand.proxies])
                await asyncio.sleep(count / run.scale.rate + 0.5)  # everybody comes, and is given a new cookie
        run.no_loss(load.rows)
        seen: dict[str, set[str]] = {}
        for row in load.rows:
            if row.reason == "split":  # `fallback` is a move that is allowed, and so is no answer
                seen.setdefault(row.user, set()).add(row.arm)
        check.exactly("known users seen", len(seen), count)
        check.exactly("version flips", sum(len(arms) > 1 for arms in seen.values()))
        check.at_least("on the canary", sum("canary" in arms for arms in seen.values()) / count, 0.2)


def known_users(keys: Path, count: int) -> list[str]:
    """Genuine cookies as the proxy's first answers would have set them, one a user."""
    secret = Secret(bytes.fromhex((keys / "cookie").read_text().strip()))
    signer = UserCookie("cohort_checkout", secret, 2160 * 3600)
    rng = random.Random(40)
    lines = (signer.line(rng.randbytes(16), 0, time.time(), False) for _ in range(count))
    return [line.decode().removeprefix("Set-Cookie: ").split(";")[0] for line in lines]


def _announce(keys: Path) -> None:
    """Everybody knows the secret to come before anybody signs with it."""
    (keys / "cookie.previous").write_text(secrets.token_hex(32) + "\n")
    (keys / "cookie.previous").chmod(0o600)


def _swap_keys(keys: Path) -> None:
    os.rename(keys / "cookie", keys / "cookie.old")
    os.rename(keys / "cookie.previous", keys / "cookie")
    os.rename(keys / "cookie.old", keys / "cookie.previous")


def _forget(keys: Path) -> None:
    (keys / "cookie.previous").unlink()


FAULTS = {
    "F11": Fault(
        "promotion flip: weights, header rules and endpoints in one plan",
        "0 lost; 0 answers that mix generations; acknowledged only when all workers serve it",
        promotion_flips,
    ),
    "F17": Fault(
        "garbage for a plan",
        "refused as a whole in every way, counted, the last good plan stays; 0 lost",
        config_garbage,
    ),
    "F18": Fault("50 plans a second", "the last one wins within 1 s; no leak; 0 lost", plan_storm),
    "F34": Fault(
        "abort with everything else dead",
        "the last start on the canary at most 200 ms after the call returns, none later; long requests end in time",
        abort_alone,
    ),
    "F39": Fault(
        "proxy started before its plan and its services",
        "starts, not ready, 503; ready by itself; no crash loop",
        started_first,
    ),
    "F40": Fault("cookie secret rotated under load", "nobody changes version; 0 lost", rotate_cookie_key),
}
