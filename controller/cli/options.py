"""Options that commands share, and the types of their values. Importing it must stay cheap: every help text does."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from controller.cli.exits import WrongUse
from controller.cli.output import at

if TYPE_CHECKING:
    from controller.cli.client import Client
    from controller.cli.kube.client import KubeClient

DEFAULT_SERVER = "http://127.0.0.1:8090"  # the default port of surface.md
MAX_TOKEN_BYTES = 8192  # longer than any bearer token; a wrong file is seldom that short
COMPLETION_S = 1.0  # a shell that hangs on the tab key is worse than one that offers nothing

WHERE = ("server", "token_file", "context", "kubeconfig")  # options that say whom to ask

Function = Callable[..., Any]


class DurationType(click.ParamType[float]):
    """Seconds from a duration as Go writes it."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read one value; above 0."""
        from proxy.document import duration_s

        try:
            seconds = duration_s(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if seconds <= 0:
            self.fail(f"expected a duration above 0, got {value!r}", param, ctx)
        return seconds


class PercentType(click.ParamType[str]):
    """A percentage of users: 0 to 100 with at most two decimals, kept as it was written."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check one value."""
        from proxy.document import percent_bp

        try:
            percent_bp(value)
        except ValueError:
            self.fail(f"expected a percentage of users, 0 to 100 such as 25 or 0.25, got {value!r}", param, ctx)
        return str(value)


DURATION = DurationType()
PERCENT = PercentType()


@dataclass(frozen=True, slots=True)
class Target:
    """The rollout that a command means, as far as the command line says it."""

    name: str | None
    namespace: str | None

    def find(self, client: Client) -> tuple[str, str]:
        """Namespace and name of the one rollout that is meant; asks the controller only where it must.

        Raises:
            WrongUse: None, or more than one, fits.
        """
        if self.name and (namespace := client.namespace if self.namespace is None else self.namespace):
            return namespace, self.name
        found = [_identity(item) for item in client.rollouts(self.namespace)]
        fits = [pair for pair in found if self.name in (None, pair[1])]
        if len(fits) == 1:
            return fits[0]
        raise WrongUse(self._ambiguous(client, fits, found))

    def _ambiguous(self, client: Client, fits: list[tuple[str, str]], found: list[tuple[str, str]]) -> str:
        namespace = client.namespace if self.namespace is None else self.namespace
        where = f" in namespace {namespace}" if namespace else ""
        if not found:
            return f"expected a rollout, but there is none{where}: {client.advice}."
        known = ", ".join(f"{namespace}/{name}" for namespace, name in sorted(fits or found)[:20])
        if self.name and not fits:
            return f"there is no rollout {self.name!r}: there is {known}."
        if self.name:
            return f"{len(fits)} rollouts are named {self.name!r}: {known}. Choose one by -n NAMESPACE."
        return f"expected the NAME of a rollout, because there are {len(fits)}{where}: {known}."


def _identity(rollout: dict[str, Any]) -> tuple[str, str]:
    return str(at(rollout, "metadata", "namespace") or "default"), str(at(rollout, "metadata", "name"))


def complete_name(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the names of the controller's rollouts; nothing if it does not answer at once."""
    try:
        client = connect(timeout=COMPLETION_S, **{key: ctx.params[key] for key in WHERE if key in ctx.params})
        names = [_identity(item)[1] for item in client.rollouts(ctx.params.get("namespace"))]
    except click.ClickException:
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def name_argument(function: Function) -> Function:
    """NAME, which may be left out where exactly one rollout exists."""
    return click.argument("name", required=False, shell_complete=complete_name)(function)


def targeted(function: Function) -> Function:
    """Add ``-n`` and hand over ``target``, made of it and the command's NAME."""

    @functools.wraps(function)
    def wrapped(*args: Any, name: str | None = None, namespace: str | None, **kwargs: Any) -> Any:
        return function(*args, target=Target(name, namespace), **kwargs)

    return namespace_option(wrapped)


def namespace_option(function: Function) -> Function:
    """Add ``-n``."""
    return click.option(
        "-n",
        "--namespace",
        envvar="COHORT_NAMESPACE",
        metavar="NAMESPACE",
        help="Only rollouts of this namespace; without it those of all, in a cluster of the context's."
        "  [env: COHORT_NAMESPACE]",
    )(function)


def output_option(function: Function) -> Function:
    """Add ``-o``."""
    return _output("table", "wide", "json", "yaml")(function)


def named_output_option(function: Function) -> Function:
    """Add ``-o``, with ``name`` for scripts."""
    return _output("table", "wide", "json", "yaml", "name")(function)


def _output(*forms: str) -> Callable[[Function], Function]:
    choice = click.Choice(forms)
    return click.option("-o", "--output", type=choice, default="table", show_default=True, help="Form of the output.")


def asks(function: Function) -> Function:
    """Add the options that find the controller, and hand over ``client``."""

    @functools.wraps(function)
    def wrapped(*args: Any, timeout: float | None, **kwargs: Any) -> Any:
        where = {key: kwargs.pop(key) for key in WHERE if key in kwargs}
        return function(*args, client=connect(timeout=timeout, **where), **kwargs)

    for option in (
        click.option("--kubeconfig", metavar="FILE", help="Ask a cluster, as this file says.  [env: KUBECONFIG]"),
        click.option("--context", metavar="NAME", help="Ask a cluster: that of this context of the kubeconfig."),
        click.option(
            "--timeout",
            type=DURATION,
            metavar="DURATION",
            help="How long to wait in all, such as 30s or 10m.  [default: 10s for each answer]",
        ),
        click.option(
            "--token-file",
            envvar="COHORT_TOKEN_FILE",
            metavar="FILE",
            help="File with the controller's token.  [env: COHORT_TOKEN_FILE]",
        ),
        click.option(
            "--server",
            envvar="COHORT_SERVER",
            metavar="URL",
            help=f"The controller's address.  [env: COHORT_SERVER; default: {DEFAULT_SERVER}]",
        ),
    ):
        wrapped = option(wrapped)
    return wrapped


def connect(timeout: float | None, **where: str | None) -> Client | KubeClient:
    """A controller, or the cluster that a kubeconfig has.

    Args:
        timeout: Seconds that the whole command may take.
        where: Of `WHERE` what the program knows: without ``server`` it knows clusters only.
    """
    if "server" in where and not where.get("context") and not where.get("kubeconfig"):
        from controller.cli.client import Client

        return Client(where["server"] or DEFAULT_SERVER, token(where.get("token_file")), timeout)
    import os

    from controller.cli.kube.client import KubeClient
    from controller.cli.kube.config import access

    return KubeClient(access(where.get("kubeconfig"), where.get("context"), os.environ), timeout)


def token(path: str | None) -> str | None:
    """The token in a file, without the white space around it.

    Raises:
        WrongUse: The file holds none, or cannot be read.
    """
    if not path:
        return None
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_TOKEN_BYTES + 1).strip()
    except OSError as error:
        raise WrongUse(f"cannot read the token file {path}: {error.strerror}. Correct --token-file.") from None
    if not content or len(content) > MAX_TOKEN_BYTES or any(not 0x21 <= byte <= 0x7E for byte in content):
        raise WrongUse(f"expected one token of printable ASCII in {path}, got something else: correct --token-file.")
    return content.decode("ascii")
