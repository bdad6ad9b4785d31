"""``cohort keys``: the Secret that an installation in a cluster needs, made once."""

from __future__ import annotations

import datetime
import re

import click

from controller.cli.exits import NotReachable, Refused

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


def _name(_context: click.Context, parameter: click.Parameter, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise click.BadParameter(f"expected the name of an object, such as cohort-keys, got {value!r}", param=parameter)
    return value


@click.command()
@click.argument("name", default="cohort-keys", callback=_name)
@click.option("-n", "--namespace", default="default", show_default=True, callback=_name, help="Its namespace.")
@click.option("--create", is_flag=True, help="Create it, as the service account of the pod that this runs in.")
def command(name: str, namespace: str, create: bool) -> None:
    """Make the keys of an installation in a cluster: print the Secret NAME, by default cohort-keys.

    It has every key of a keys directory and the certificate of the control ports. Make it once and keep it: other keys
    deal all users anew. With --create a Secret that exists is left as it is; the Helm chart's Job does just that.

    \b
    Examples:
      cohort keys checkout-keys -n shop > keys.yaml
      cohort keys checkout-keys -n shop | kubectl create -f -
    """
    from controller.errors import Permanent, Temporary
    from controller.net import secret

    made = secret.manifest(name, namespace, secret.contents(datetime.datetime.now(datetime.UTC)))
    if not create:
        from controller.cli.output import emit

        emit(made, "yaml")
        return
    try:
        is_new = secret.create(made)
    except Permanent as error:
        raise Refused(str(error)) from None
    except Temporary as error:
        raise NotReachable(str(error)) from None
    click.echo(f"secret {namespace}/{name} {'created' if is_new else 'exists: left as it is'}")
