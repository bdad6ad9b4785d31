"""Patience of the commands that follow a rollout: a controller that is away for a moment is asked again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import click

from controller.cli.exits import NotReachable, TimedOut

if TYPE_CHECKING:
    from controller.cli.client import Client

GRACE_S = 60.0  # a controller that is restarted or upgraded is back within this
RETRY_S = 1.0

Answer = TypeVar("Answer")


def patiently(client: Client, ask: Callable[[], Answer], late: Callable[[], str]) -> Answer:
    """An answer of the controller, asked for until it comes.

    Args:
        ask: One request.
        late: What to say when the command's own time is over.

    Raises:
        NotReachable: Nobody has answered for `GRACE_S`.
        TimedOut: The command's own time is over.
    """
    away_since: float | None = None
    while True:
        try:
            return ask()
        except (NotReachable, TimedOut) as failure:
            now = time.monotonic()
            if is_over(client, now + RETRY_S):
                raise TimedOut(late()) from None
            if away_since is None:
                away_since = now
                click.echo(f"{failure.message} Trying again for {GRACE_S:g} s.", err=True)
            if now - away_since > GRACE_S:
                raise
            time.sleep(RETRY_S)


def is_over(client: Client, now: float) -> bool:
    """Whether the command's own time, if it has one, is over at ``now``."""
    return client.deadline is not None and now >= client.deadline
