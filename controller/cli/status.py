"""``cohort status``: how one rollout stands, or each change until it has ended."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

import click

from controller.cli import output as out
from controller.cli.exits import REFUSED, TimedOut
from controller.cli.options import Target, asks, name_argument, output_option, targeted
from controller.cli.view import status_lines, summary
from controller.cli.watch import RETRY_S, is_over, patiently

if TYPE_CHECKING:
    from controller.cli.client import Client

ENDED_WELL = ("Healthy",)
ENDED_BADLY = ("Aborted", "Degraded")
POLL_S = 30.0  # shorter than the 60 s after which common proxies in between drop a silent connection
LIVE_POLL_S = 2.0  # on a terminal the elapsed time should be seen to move

Show = Callable[[out.Json], None]


@click.command()
@name_argument
@click.option("-w", "--watch", is_flag=True, help="Follow the rollout until it is healthy, aborted or degraded.")
@output_option
@targeted
@asks
def command(target: Target, watch: bool, output: str, client: Client) -> None:
    """Show how the rollout NAME stands: its steps as done, now or next, the weight as programmed and as measured (with
    the range that chance allows), the verdict and what it still needs, an abort, and the conditions.

    Exits with 1 if the rollout is aborted or degraded, else with 0. With -w it follows the rollout and exits when it
    has ended: 0 healthy, 1 aborted or degraded, 4 if --timeout came first. A controller that is away for less than a
    minute is waited for.

    \b
    Examples:
      cohort status checkout
      cohort status -w --timeout 30m
    """
    namespace, name = target.find(client)
    if watch:
        phase = follow(client, namespace, name, output)
    else:
        rollout = client.rollout(namespace, name)
        show(rollout, output)
        phase = out.at(rollout, "status", "phase")
    if phase in ENDED_BADLY:
        click.get_current_context().exit(REFUSED)


def show(rollout: out.Json, output: str, compact: bool = False) -> None:
    """Print one rollout."""
    if output in ("json", "yaml"):
        out.emit(rollout, output, compact)
        return
    for line in status_lines(rollout, wide=output == "wide"):
        click.echo(line)


def follow(client: Client, namespace: str, name: str, output: str) -> str:
    """Show each change of a rollout until it has ended.

    Returns:
        The phase that it ended in.
    """
    with _display(output) as (display, poll_s):
        rollout = client.rollout(namespace, name)
        while True:
            display(rollout)
            phase = out.at(rollout, "status", "phase")
            if phase in ENDED_WELL or phase in ENDED_BADLY:
                return str(phase)
            rollout = _next(client, namespace, name, rollout, poll_s)


def _next(client: Client, namespace: str, name: str, rollout: out.Json, poll_s: float) -> out.Json:
    """The rollout at its next change, or after ``poll_s`` seconds without one."""
    asked = time.monotonic()
    if is_over(client, asked):
        raise TimedOut(_late(client, rollout))
    since = _version(rollout)
    answer = patiently(client, lambda: client.wait(namespace, name, since, poll_s), lambda: _late(client, rollout))
    if _version(answer) == since and time.monotonic() - asked < RETRY_S:
        time.sleep(RETRY_S)  # whoever answers at once although nothing has changed is not to be asked in a tight loop
    return answer


def _version(rollout: out.Json) -> object:
    return out.at(rollout, "status", "resourceVersion") or out.at(rollout, "metadata", "resourceVersion")


def _late(client: Client, rollout: out.Json) -> str:
    return (
        f"{out.identity(rollout)} has not ended within {client.timeout_s:g} s: {click.unstyle(summary(rollout))}. "
        f"--timeout waits longer; '{click.get_current_context().find_root().info_name} events' tells what happened."
    )


@contextmanager
def _display(output: str) -> Iterator[tuple[Show, float]]:
    """How a followed rollout is shown, and how long one poll may wait: redrawn on a terminal, else a line a change."""
    if output in ("json", "yaml"):
        yield _on_change(partial(show, output=output, compact=True), str), POLL_S
    elif not sys.stdout.isatty():
        yield _on_change(_log, summary), POLL_S
    else:
        from rich.live import Live
        from rich.text import Text

        with Live(auto_refresh=False, vertical_overflow="visible") as live:

            def draw(rollout: out.Json) -> None:
                text = "\n".join(status_lines(rollout, wide=output == "wide"))
                live.update(Text(click.unstyle(text)) if _is_colourless() else Text.from_ansi(text), refresh=True)

            yield draw, LIVE_POLL_S


def _log(rollout: out.Json) -> None:
    click.echo(f"{datetime.now():%H:%M:%S}  {summary(rollout)}")


def _is_colourless() -> bool:
    return click.get_current_context().color is False


def _on_change(display: Show, digest: Callable[[out.Json], str]) -> Show:
    """A display that leaves out what it has just shown."""
    last: list[str] = []

    def shown(rollout: out.Json) -> None:
        if last != [digest(rollout)]:
            last[:] = [digest(rollout)]
            display(rollout)

    return shown
