"""``cohort events``: what happened to one rollout, oldest first."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from controller.cli import output as out
from controller.cli.exits import NotReachable, TimedOut
from controller.cli.options import Target, asks, name_argument, output_option, targeted
from controller.cli.watch import is_over, patiently

if TYPE_CHECKING:
    from controller.cli.client import Client

COLUMNS = ("TIME", "TYPE", "REASON", "MESSAGE")
POLL_S = 1.0  # what a person who watches still takes for at once


@click.command()
@name_argument
@click.option("-w", "--watch", is_flag=True, help="Go on showing events as they happen, until Ctrl-C or --timeout.")
@output_option
@targeted
@asks
def command(target: Target, watch: bool, output: str, client: Client) -> None:
    """Show what happened to the rollout NAME, oldest first. With -w every event is a line of its own, in JSON too.

    \b
    Examples:
      cohort events checkout
      cohort events -w -o json
    """
    namespace, name = target.find(client)
    if watch:
        _follow(client, namespace, name, output)
        return
    items = _all(client, namespace, name)
    if output in ("json", "yaml"):
        out.emit({"items": items}, output)
    elif items:
        for line in out.columns(COLUMNS, map(_row, items)):
            click.echo(line)
    else:
        click.echo("Nothing has happened yet.", err=True)


def _all(client: Client, namespace: str, name: str) -> list[out.Json]:
    items = part = client.events(namespace, name, 0)
    while part:
        part = client.events(namespace, name, _number(part[-1]))
        items = items + part
    return items


def _number(item: out.Json) -> int:
    seq = item.get("seq")
    if isinstance(seq, int):
        return seq
    raise NotReachable(f"expected events with a number in seq, got {seq!r}. Check --server.")


def _follow(client: Client, namespace: str, name: str, output: str) -> None:
    seen = 0

    def new() -> list[out.Json]:
        return client.events(namespace, name, seen)

    while True:
        for item in patiently(client, new, lambda: _late(client)):
            seen = _number(item)
            if output in ("json", "yaml"):
                out.emit(item, output, compact=True)
            else:
                click.echo("  ".join(_row(item)))
        if is_over(client, time.monotonic() + POLL_S):
            raise TimedOut(_late(client))
        time.sleep(POLL_S)


def _late(client: Client) -> str:
    return f"stopped after {client.timeout_s:g} s, as --timeout says."


def _row(item: out.Json) -> tuple[str, ...]:
    kind = out.plain(item.get("type"))
    return (
        out.plain(item.get("at")),
        click.style(f"{kind:<7}", fg="yellow" if kind == "Warning" else None),
        out.plain(item.get("reason")),
        out.plain(item.get("message")),
    )
