"""``cohort whoami``: the version of one user, computed by the controller exactly as every proxy computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from controller.cli import output as out
from controller.cli.options import Target, asks, name_argument, output_option, targeted

if TYPE_CHECKING:
    from controller.cli.client import Client


@click.command()
@name_argument
@click.option("--key", required=True, metavar="SOURCE=VALUE", help="The user's key and where proxies find it.")
@output_option
@targeted
@asks
def command(target: Target, key: str, output: str, client: Client) -> None:
    """Tell which version the user has who sends this key to the rollout NAME, and why.

    SOURCE is one of the rollout's users, spelt header:NAME, cookie:NAME, jwt:CLAIM, clientAddress or mint (whose VALUE
    is the key itself, 32 hexadecimal digits). What a route would decide depends on the request, so only the abort and
    the split are told.

    \b
    Examples:
      cohort whoami checkout --key header:x-user-id=anna
      cohort whoami --key cookie:uid=4711 -o json
    """
    source, equals, value = key.partition("=")
    if not (source and equals and value):
        raise click.BadParameter(
            f"expected SOURCE=VALUE such as header:x-user-id=anna, got {key!r}", param_hint="--key"
        )
    answer = client.whoami(*target.find(client), key)
    if output in ("json", "yaml"):
        out.emit(answer, output)
        return
    for label, text in (
        ("Version", f"{out.plain(answer.get('arm'))}, revision {out.plain(answer.get('revision'))}"),
        ("Reason", out.plain(answer.get("reason"))),
        ("Bucket", f"{out.plain(answer.get('bucket'))} of 10000; the canary has {out.percent(answer.get('weight'))}"),
        ("Key", out.plain(answer.get("key"))),
        ("Plan", f"generation {out.plain(answer.get('generation'))}"),
    ):
        click.echo(f"{label + ':':<9}{text}")
