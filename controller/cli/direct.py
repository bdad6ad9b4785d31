"""``cohort abort --direct``: the kill switch for when neither the API server nor a controller answers.

Importing it must stay cheap: the help text does. What speaks to proxies is `controller.cli.control`.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from controller.cli.exits import NotReachable, Refused
from controller.cli.options import Function, token

if TYPE_CHECKING:
    from controller.cli.control import Abort, Outcome, Place

CONTROL_PORT = 8083  # surface.md: control, in a cluster
ELSEWHERE = ("name", "namespace", "server", "context", "kubeconfig")  # of who is not asked
MAX_ADDRESSES = 256


class PlaceType(click.ParamType["Place"]):
    """The address of a control port."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        """Read one value: ``HOST``, ``HOST:PORT``, ``[IPV6]`` or ``[IPV6]:PORT``."""
        from controller.cli.control import Place, parse_place

        if isinstance(value, Place):
            return value
        try:
            return parse_place(str(value), CONTROL_PORT)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def directly(function: Function) -> Function:
    """Add ``--direct`` with what it needs; with it the command's own way is not gone."""

    @functools.wraps(function)
    def wrapped(*args: Any, direct: bool, address: tuple[Place, ...], ca_file: str | None, **kwargs: Any) -> Any:
        context = click.get_current_context()
        if direct:
            _refuse_elsewhere(context)
            return _abort(address, ca_file, **kwargs)
        if address or ca_file or ("server" not in context.params and _is_said(context, "token_file")):
            raise click.UsageError("--address, --ca-file and a proxy's --token-file go with --direct", context)
        return function(*args, **kwargs)

    for option in (
        click.option(
            "--ca-file",
            metavar="FILE",
            help="With --direct: the certificate of the control ports.  [default: tls.crt beside the token file]",
        ),
        click.option(
            "--address",
            type=PlaceType(),
            multiple=True,
            metavar="HOST:PORT",
            help="With --direct: a proxy's control port; of a name, each IPv4 address that it has, or else each IPv6"
            f" one. Give it once for each proxy.  [default port: {CONTROL_PORT}]",
        ),
        click.option(
            "--direct",
            is_flag=True,
            help="Tell the proxies themselves: --token-file has the control ports' token.  [5s in all, or --timeout]",
        ),
    ):
        wrapped = option(wrapped)
    return wrapped


def _is_said(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is ParameterSource.COMMANDLINE


def _refuse_elsewhere(context: click.Context) -> None:
    """What tells a controller which rollout is meant tells a proxy nothing: it serves one."""
    said = [name for name in ELSEWHERE if name in context.params and _is_said(context, name)]
    if said:
        names = ", ".join("NAME" if name == "name" else f"--{name}" for name in said)
        raise click.UsageError(f"with --direct the addresses say which proxies are meant: leave out {names}", context)


def _abort(
    places: tuple[Place, ...],
    ca_file: str | None,
    *,
    output: str,
    token_file: str | None = None,
    by: str | None = None,
    reason: str | None = None,
    timeout: float | None = None,
    **_: Any,
) -> None:
    """Latch every proxy, and tell what became of each."""
    from controller.cli import control

    if not places or len(places) > MAX_ADDRESSES:
        raise _needs(f"--address HOST:PORT for each proxy, {MAX_ADDRESSES} at most")
    secret = token(token_file)
    if secret is None or token_file is None:
        raise _needs("--token-file with the token of the control ports")
    asked = control.make(secret, control.trust(ca_file, token_file), by, reason, timeout)
    found: list[Outcome] = []
    for outcome in asked.send(places):
        found.append(outcome)
        if output in ("table", "wide"):
            click.echo(outcome.line(asked.id))
    _conclude(asked, found, output)


def _needs(what: str) -> click.UsageError:
    return click.UsageError(f"--direct needs {what}: 'abort --help' tells more", click.get_current_context())


def _conclude(asked: Abort, found: list[Outcome], output: str) -> None:
    """Say how it went as a whole; raises where it did not go everywhere."""
    from controller.cli import output as out

    failed = [outcome for outcome in found if not outcome.is_latched]
    if output in ("json", "yaml"):
        summary = {"id": asked.id, "by": asked.by, "reason": asked.reason, "latched": len(found) - len(failed)}
        out.emit(summary | {"proxies": [outcome.document() for outcome in found]}, output)
    elif not failed:
        click.echo(f"all {len(found)} are latched, until a retry or a new revision" if len(found) > 1 else _ONE)
    if not failed:
        return
    names = ", ".join(outcome.address for outcome in failed)
    text = (
        f"{len(found) - len(failed)} of {len(found)} proxies are latched, not {names}: users there may be on the"
        " canary. Repeat the command; it does no harm where it has gone through."
    )
    raise NotReachable(text) if any(outcome.result == "NotReached" for outcome in failed) else Refused(text)


_ONE = "it is latched, until a retry or a new revision"
