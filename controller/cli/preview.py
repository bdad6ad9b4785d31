"""``cohort preview``: a link that pins the browser that opens it to one version."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from controller.cli import output as out
from controller.cli.options import DURATION, Target, asks, name_argument, output_option, targeted

if TYPE_CHECKING:
    from controller.cli.client import Client

_BASE = re.compile(r"(https?://(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?)/?")


@click.command()
@name_argument
@click.option(
    "--arm", type=click.Choice(["canary", "stable"]), default="canary", show_default=True, help="The version."
)
@click.option(
    "--ttl", type=DURATION, default=168 * 3600.0, metavar="DURATION", help="How long it works.  [default: 168h]"
)
@click.option("--url", metavar="URL", help="The service's own address, such as https://shop.example.")
@output_option
@targeted
@asks
def command(target: Target, arm: str, ttl: float, url: str | None, output: str, client: Client) -> None:
    """Print a link that shows its reader one version of the rollout NAME: the browser that opens it is pinned there.

    The document must have preview.access Token or Public. Without --url only the path is printed.

    \b
    Example:
      cohort preview checkout --ttl 24h --url https://shop.example
    """
    base = _base(url)
    answer = client.preview(*target.find(client), arm, f"{ttl:.0f}s")
    link = base + str(answer.get("path") or "")
    if output in ("json", "yaml"):
        out.emit({**answer, "url": link} if base else answer, output)
        return
    click.echo(link)
    if not base:
        click.echo("Put the service's address before it, or give --url.", err=True)


def _base(url: str | None) -> str:
    """Scheme and host of the service's address; empty without one."""
    if url is None:
        return ""
    match = _BASE.fullmatch(url)
    if not match:
        raise click.BadParameter(f"expected an address such as https://shop.example, got {url!r}", param_hint="--url")
    return match[1]
