"""The verbs that steer a rollout. Each is one action that the controller carries out, or refuses with its reason."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from controller.cli import output as out
from controller.cli.direct import directly
from controller.cli.exits import NotReachable, TimedOut
from controller.cli.options import PERCENT, Function, Target, asks, name_argument, output_option, targeted

if TYPE_CHECKING:
    from controller.cli.client import Client

MAX_REASON = 1024  # what the API takes: an abort is not refused for a long story
KILL_SWITCH = (
    "The proxies take an abort without the controller too: 'abort --direct' tells their control ports, in a cluster;"
    " elsewhere POST /abort to the admin API of each (admin.listen of its settings)."
)


def steers(function: Function) -> Function:
    """Add what every verb takes: which rollout, who asks, how the result looks, and where the controller is."""
    option = click.option("--by", metavar="WHO", help="Who asks, for the record.  [default: your login name]")
    return option(output_option(targeted(asks(function))))


@click.command()
@name_argument
@click.option("--revision", required=True, help="The revision to try, as it is to appear in headers and metrics.")
@click.option(
    "--addresses",
    metavar="IP:PORT,...",
    help="Where it listens.  [default: as the document says, if it has this revision]",
)
@click.option("--dns", metavar="HOST:PORT", help="Where it listens, by name.")
@steers
def start(revision: str, addresses: str | None, dns: str | None, **common: Any) -> None:
    """Start the rollout NAME of a new revision. One that is under way ends: everyone goes back to stable first.

    \b
    Example:
      cohort start checkout --revision v2 --addresses 127.0.0.1:9002,127.0.0.1:9003
      cohort start checkout --revision v2 --dns checkout-v2.internal:8080
    """
    if addresses is not None and dns is not None:
        raise click.UsageError("--addresses and --dns exclude each other", click.get_current_context())
    place: dict[str, Any] = {} if addresses is None else {"addresses": _addresses(addresses)}
    if dns is not None:
        place = {"dns": _dns(dns)}
    _send("Start", **common | place, revision=revision)


@click.command()
@name_argument
@click.option("--full", is_flag=True, help="Skip all steps and analyses that are left.")
@steers
def promote(full: bool, **common: Any) -> None:
    """End the current step of the rollout NAME and go on to the next; with --full make the canary stable at once."""
    _send("PromoteFull" if full else "Promote", **common)


@click.command()
@name_argument
@steers
def pause(**common: Any) -> None:
    """Hold the rollout NAME where it is. Analyses go on: a bad canary is still rolled back."""
    _send("Pause", **common)


@click.command()
@name_argument
@steers
def resume(**common: Any) -> None:
    """Let the rollout NAME go on after 'cohort pause'."""
    _send("Resume", **common)


@click.command()
@name_argument
@click.option("--reason", metavar="TEXT", help="Why, for the record.")
@directly
@steers
def abort(reason: str | None, **common: Any) -> None:
    """Send every user of the rollout NAME back to stable, at once, whatever step it is at.

    The abort stands, through restarts too, until 'cohort retry' or a new revision.

    With --direct nobody is asked but the proxies, all at once, by their control ports: for the hour when the API
    server or every controller is down. It says of each proxy whether it has it; the controllers adopt it when they are
    back. Exits with 3 if a proxy was not reached, with 1 if one refused. What it takes is in the installation's Secret:
    keep it where you reach it in that hour.

    \b
    Beforehand, for an installation cohort in the namespace shop:
      kubectl -n shop get secret cohort-keys -o go-template='{{.data.control|base64decode}}' > control
      kubectl -n shop get secret cohort-keys -o go-template='{{index .data "tls.crt"|base64decode}}' > tls.crt
      kubectl -n shop get pods -l app.kubernetes.io/instance=cohort,app.kubernetes.io/component=proxy -o wide
    Then, from a node or a pod, which reach the pods' addresses; or by the name of the control Service:
      cohort abort --direct --token-file control --address 10.0.0.5 --address 10.0.0.6 --reason "errors"
      cohort abort --direct --token-file control --address cohort-control.shop.svc
    Within one of its pods, by kubectl exec or crictl exec, nothing has to be kept:
      cohort abort --direct --token-file /etc/cohort/keys/control --address cohort-control
    From elsewhere, while the API server lives, for each pod (with a local port of its own):
      kubectl -n shop port-forward pod/cohort-7d4f 18083:8083
      cohort abort --direct --token-file control --address 127.0.0.1:18083
    """
    why = {"reason": reason[:MAX_REASON]} if reason else {}
    try:
        _send("Abort", **common | why)
    except (NotReachable, TimedOut) as failure:
        raise type(failure)(f"{failure.message} {KILL_SWITCH}") from None


@click.command()
@name_argument
@steers
def retry(**common: Any) -> None:
    """Lift the abort of the rollout NAME and try the same revision again, from the first step."""
    _send("Retry", **common)


@click.group("set", no_args_is_help=True)
def set_group() -> None:
    """Set the canary's weight by hand."""


@set_group.command("weight")
@click.argument("words", nargs=-1, required=True, metavar="[NAME] PERCENT")
@steers
def set_weight(words: tuple[str, ...], target: Target, **common: Any) -> None:
    """Give the canary of the rollout NAME this share of users: 0 to 100, with at most two decimals.

    \b
    Examples:
      cohort set weight checkout 25
      cohort set weight 0.25
    """
    context = click.get_current_context()
    if len(words) > 2:
        context.fail(f"expected [NAME] PERCENT, got {len(words)} words: {' '.join(words)}")
    percent = PERCENT.convert(words[-1], None, context)
    _send("SetWeight", replace(target, name=words[0] if len(words) == 2 else None), **common, weight=percent)


def _send(verb: str, target: Target, output: str, client: Client, by: str | None = None, **fields: Any) -> None:
    """Have one action carried out and print its result."""
    namespace, name = target.find(client)
    result = client.act(namespace, name, {"verb": verb, **fields} | ({"by": by} if by else {}))
    if output in ("json", "yaml"):
        out.emit(result, output)
    else:
        click.echo(f"{namespace}/{name}: {out.plain(result.get('message') or result.get('result'))}")


def _addresses(text: str) -> list[str]:
    addresses = [part.strip() for part in text.split(",")]
    if not all(addresses):
        raise click.UsageError(f"expected --addresses as IP:PORT,IP:PORT, got {text!r}", click.get_current_context())
    return addresses


def _dns(text: str) -> dict[str, Any]:
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdecimal()):
        raise click.UsageError(f"expected --dns as HOST:PORT, got {text!r}", click.get_current_context())
    return {"host": host, "port": int(port)}
