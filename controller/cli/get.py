"""``cohort get``: the rollouts in one line each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from controller.cli import output as out
from controller.cli.exits import TimedOut
from controller.cli.options import Target, asks, name_argument, named_output_option, namespace_option
from controller.cli.watch import is_over, patiently

if TYPE_CHECKING:
    from controller.cli.client import Client

POLL_S = 1.0  # what a person who watches still takes for at once
COLUMNS = ("NAMESPACE", "NAME", "PHASE", "STEP", "WEIGHT", "STABLE", "CANARY", "VERDICT")
WIDE_COLUMNS = (*COLUMNS, "MEASURED", "GENERATION", "PROXIES", "ABORT")


@click.command()
@name_argument
@click.option(
    "-A", "--all-namespaces", is_flag=True, help="Rollouts of all namespaces, whatever COHORT_NAMESPACE says."
)
@click.option("-w", "--watch", is_flag=True, help="Go on showing rollouts as they change, until Ctrl-C or --timeout.")
@namespace_option
@named_output_option
@asks
def command(
    name: str | None, all_namespaces: bool, watch: bool, namespace: str | None, output: str, client: Client
) -> None:
    """List all rollouts, or show the one named NAME.

    \b
    Examples:
      cohort get
      cohort get checkout -o yaml
      cohort get -o json | jq '.items[].status.phase'
    """
    namespace = "" if all_namespaces else namespace
    if watch:
        _follow(client, Target(name, namespace), output)
    elif name is not None:
        rollout = client.rollout(*Target(name, namespace).find(client))
        out.emit(rollout, output) if output in ("json", "yaml") else show([rollout], output)
    else:
        _list(client, namespace, output)


def _list(client: Client, namespace: str | None, output: str) -> None:
    rollouts = client.rollouts(namespace)
    if output in ("json", "yaml"):
        out.emit({"items": rollouts}, output)
    elif rollouts:
        show(rollouts, output)
    else:
        where = client.namespace if namespace is None else namespace
        click.echo(f"There is no rollout{f' in namespace {where}' if where else ''}.", err=True)


def _follow(client: Client, target: Target, output: str) -> None:
    """Show rollouts, and each again when its line has changed."""
    seen: dict[str, str] = {}
    while True:
        found = patiently(client, lambda: client.rollouts(target.namespace), lambda: _late(client))
        known = [item for item in found if target.name in (None, out.at(item, "metadata", "name"))]
        changed = [item for item in known if seen.get(out.identity(item)) != str(row(item) + wide_row(item))]
        seen |= {out.identity(item): str(row(item) + wide_row(item)) for item in changed}
        for item in changed if output in ("json", "yaml") else ():
            out.emit(item, output, compact=True)
        if changed and output not in ("json", "yaml"):
            show(changed, output)
        if is_over(client, time.monotonic() + POLL_S):
            raise TimedOut(_late(client))
        time.sleep(POLL_S)


def _late(client: Client) -> str:
    return f"stopped after {client.timeout_s:g} s, as --timeout says."


def show(rollouts: list[out.Json], output: str) -> None:
    """Print rollouts as columns, or their names."""
    if output == "name":
        for item in rollouts:
            click.echo(f"canaryrollout.cohort.dev/{out.plain(out.at(item, 'metadata', 'name'))}")
        return
    wide = output == "wide"
    rows = [row(item) + (wide_row(item) if wide else ()) for item in rollouts]
    for line in out.columns(WIDE_COLUMNS if wide else COLUMNS, rows):
        click.echo(line)


def row(rollout: out.Json) -> tuple[str, ...]:
    """The cells of one rollout, in the order of `COLUMNS`."""
    status = rollout.get("status")
    namespace, name = out.identity(rollout).split("/", 1)
    return (
        namespace,
        name,
        out.phase(out.at(status, "phase")),
        step(status),
        out.percent(out.at(status, "weight", "programmed")),
        out.plain(out.at(status, "revision", "stable")),
        out.plain(out.at(status, "revision", "canary")),
        verdict(status),
    )


def wide_row(rollout: out.Json) -> tuple[str, ...]:
    """The cells that ``-o wide`` adds."""
    status = rollout.get("status")
    return (
        out.percent(out.at(status, "weight", "measured")),
        out.plain(out.at(status, "plan", "generation")),
        proxies(status),
        out.plain(out.at(status, "abort", "reason")),
    )


def step(status: object) -> str:
    """``3/5``: the step it is at, of how many."""
    total = out.at(status, "step", "total")
    return f"{out.plain(out.at(status, 'step', 'index'))}/{out.plain(total)}" if total else out.NOTHING


def proxies(status: object) -> str:
    """``2/3``: the proxies that have the plan, of how many."""
    replicas = out.at(status, "plan", "replicas")
    return out.NOTHING if replicas is None else f"{out.plain(out.at(status, 'plan', 'current'))}/{out.plain(replicas)}"


def verdict(status: object) -> str:
    """The decision, with the reason where there is one."""
    decision, reason = out.at(status, "verdict", "decision"), out.at(status, "verdict", "reason")
    return f"{out.plain(decision)} ({out.plain(reason)})" if decision and reason else out.plain(decision)
