"""The root of ``kubectl cohort``: the commands that a cluster has, with the options that find it."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping

import click
from click.shell_completion import ShellComplete

from controller.cli import root
from controller.cli.root import COMMANDS, EXIT_CODES, Entry, LazyGroup

NAMES = ("get", "status", "events", "promote", "pause", "resume", "abort", "retry", "set")
PROGRAM = "kubectl cohort"
_OWN = re.compile(rf"\bcohort(?= ({'|'.join(NAMES)})\b)")
ELSEWHERE = ("server", "token_file", "by")  # of a controller's own API; the API server knows who asks
DIRECT = ("token_file", "by")  # but proxies that are told themselves want the one and know nothing of the other
NO_FILES = ":4"  # cobra's ShellCompDirectiveNoFileComp, which kubectl reads


class KubeGroup(LazyGroup):
    """The commands of the plugin: the same ones without the options that find a controller."""

    entries: Mapping[str, Entry] = {name: COMMANDS[name] for name in NAMES}  # a constant
    program = PROGRAM

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; none if the name is unknown."""
        command = super().get_command(ctx, cmd_name)
        return _without(command) if command else None


def _without(command: click.Command) -> click.Command:
    """A command, and those below it, without options that have no meaning here."""
    made = copy.copy(command)
    names = {param.name for param in command.params}
    without = set(ELSEWHERE).difference(DIRECT if "direct" in names else ())
    made.params = [param for param in command.params if param.name not in without]
    made.help = _OWN.sub(PROGRAM, command.help or "")
    if isinstance(made, click.Group):
        made.commands = {name: _without(child) for name, child in made.commands.items()}
    return made


@click.group(
    cls=KubeGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
    no_args_is_help=True,
)
def group() -> None:
    """Move the users of a service to a new version by evidence: one user, one version.

    The cluster and who asks are those of kubectl: KUBECONFIG or ~/.kube/config with its current context, or the
    pod's own account. What somebody asks for is a RolloutAction; whether he may, the
    cluster's rights say, verb by verb.
    Where a namespace has exactly one rollout its NAME may be left out.
    """


def run(args: list[str]) -> int:
    """Run one command line; see `controller.cli.main` for exit codes."""
    return root.invoke(group, PROGRAM, args)


def complete(args: list[str]) -> int:
    """Print what may follow, as kubectl reads it: a value and its help a line, and what the shell should do besides."""
    words, incomplete = args[:-1], args[-1] if args else ""
    for item in ShellComplete(group, {}, PROGRAM, "").get_completions(words, incomplete):
        click.echo(f"{item.value}\t{item.help}" if item.help else item.value)
    click.echo(NO_FILES)
    return 0
