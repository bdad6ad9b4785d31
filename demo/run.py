"""The two ways to run the demo: with its page until Ctrl-C, or one rollout to its end."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

import click

from demo import timeline
from demo.console import Refused
from demo.processes import ChildError
from demo.stack import Stack, Wish, running

SETTLE_S = 6.0  # users still ask for so long after the end: what they see then is judged too
CROWD_S = 60.0  # for all users to be there
REDRAW_S = 2.0  # between two lines of a timeline whose figures alone have changed


async def show(wish: Wish) -> int:
    """Run until it is cancelled, then tell what the users saw; the first rollout begins once they are there."""
    async with running(wish) as stack:
        _tell_addresses(stack)
        click.echo(f"\n  cohort status -w --server {stack.addresses['controller']}\n\nCtrl-C stops all of it.\n")
        try:
            await stack.attend(_show(stack, wish.users))
        except asyncio.CancelledError:
            _tell_users(await stack.stop_load())
            raise
    return 0


async def _show(stack: Stack, users: int) -> None:
    await _crowd_is_there(stack, users)
    click.echo(f"{users} users are there: {await stack.console.start()}")
    await asyncio.Event().wait()


async def play(wish: Wish, expected: str, limit_s: float) -> int:
    """Run one rollout to its end and tell its timeline.

    Returns:
        0: it ended as expected, with no flip and no request lost; 1: anything else.
    """
    async with running(wish) as stack:
        _tell_addresses(stack)
        ended = await stack.attend(_play(stack, wish.users, limit_s))
        summary = await stack.stop_load()
    click.echo(f"\nThe version was {ended}.")
    _tell_users(summary)
    found = timeline.faults(ended, expected, summary)
    click.echo("FAILED: " + "; ".join(found) if found else f"ok: {expected}, no flip, no request lost")
    return 1 if found else 0


async def _play(stack: Stack, users: int, limit_s: float) -> str:
    await _crowd_is_there(stack, users)
    trial = stack.console.canary().version
    click.echo(f"\n{users} users are there: {await stack.console.start()}\n\n{timeline.HEADER}")
    return await _follow(stack, trial, limit_s)


def _tell_addresses(stack: Stack) -> None:
    click.echo("The demo is running:\n")
    for name, address in stack.addresses.items():
        click.echo(f"  {name:<12} {address}")


def _tell_users(summary: dict[str, Any]) -> None:
    for version in summary["versions"]:
        click.echo("{revision}: {requests} requests, {errors} errors ({errorPercent} %)".format_map(version))
    for row in summary["generations"]:
        click.echo(timeline.share(row))
    click.echo(f"{summary['users']} users came, {summary['flips']} flips, {summary['lost']} requests lost")
    for detail in (*summary["flipDetails"], *summary["lostDetails"]):
        click.echo(f"  {detail}")


async def guarded(work: Coroutine[Any, Any, int], interrupted: int) -> int:
    """Run the demo so that signals stop it once and whole, however often they come.

    Returns:
        Its exit code; ``interrupted`` after a signal; 1 where something did not start or ended by itself.
    """
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, _cancel_once(task))
    try:
        return await task
    except asyncio.CancelledError:
        return interrupted
    except (ChildError, Refused) as error:
        click.echo(f"cohort demo: {error}", err=True)
        return 1


def _cancel_once(task: asyncio.Future[int]) -> Callable[[], None]:
    asked: list[bool] = []

    def cancel() -> None:
        if not asked:
            asked.append(True)
            click.echo("\nstopping ...", err=True)
            task.cancel()

    return cancel


async def _follow(stack: Stack, trial: str, limit_s: float) -> str:
    """Tell what happens until the rollout has ended, and how it did."""
    began = told = time.monotonic()
    last: tuple[str, ...] = ()
    while True:
        now = _now(stack)
        ended = timeline.ending(now, trial)
        key = (now.phase, now.step, now.programmed, now.abort)
        if key != last or time.monotonic() - told >= REDRAW_S or ended:
            last, told = key, time.monotonic()
            click.echo(timeline.line(time.monotonic() - began, now, stack.console.board.versions()))
        if ended:
            await asyncio.sleep(SETTLE_S)
            click.echo(timeline.line(time.monotonic() - began, _now(stack), stack.console.board.versions()))
            return ended
        if time.monotonic() - began > limit_s:
            return f"still {now.phase} after {limit_s:g} s"
        await stack.steering.change(0.5)


def _now(stack: Stack) -> timeline.Moment:
    return timeline.moment(stack.steering.document)


async def _crowd_is_there(stack: Stack, users: int) -> None:
    """Wait until every user has been answered once.

    Raises:
        ChildError: They do not come.
    """
    assert stack.load is not None  # the demo always has users
    deadline = time.monotonic() + CROWD_S
    while sum(stack.console.board.users().values()) < users:
        if stack.load.process.returncode is not None or time.monotonic() > deadline:
            raise stack.load.failure("did not bring its users")
        await asyncio.sleep(0.1)
