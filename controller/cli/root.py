"""The root of the command line: every command by name, and the module that has it loaded only when it is used."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import click
from click.shell_completion import CompletionItem, shell_complete

COMPLETE_VARIABLE = "_COHORT_COMPLETE"  # click's own convention; `cohort completion` writes the script that sets it


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: where it is, as ``module:attribute``, its line in the overview, and the overview's section."""

    target: str
    summary: str
    section: str


RUN, STEER, FILES, OTHER = "Run", "Watch and steer", "Documents", "Other"

COMMANDS = {
    "proxy": Entry("proxy.net.cli:command", "Run the proxy, or check its settings or a plan.", RUN),
    "controller": Entry("controller.cli.controller:command", "Run the controller, or check its settings.", RUN),
    "loadtest": Entry("loadtest.cli:command", "Run synthetic users against a proxy.", RUN),
    "demo": Entry("demo.cli:command", "Run the demo: app, proxy, controller and users on this machine.", RUN),
    "get": Entry("controller.cli.get:command", "List rollouts, or show one.", STEER),
    "status": Entry("controller.cli.status:command", "Show how one rollout stands, or follow it to its end.", STEER),
    "events": Entry("controller.cli.events:command", "Show what happened to one rollout.", STEER),
    "whoami": Entry("controller.cli.whoami:command", "Tell which version a user has, and why.", STEER),
    "start": Entry("controller.cli.actions:start", "Start a rollout of a new revision.", STEER),
    "promote": Entry("controller.cli.actions:promote", "Go on to the next step, or to the end.", STEER),
    "pause": Entry("controller.cli.actions:pause", "Hold the rollout where it is.", STEER),
    "resume": Entry("controller.cli.actions:resume", "Let a paused rollout go on.", STEER),
    "abort": Entry("controller.cli.actions:abort", "Send everyone back to stable, at once.", STEER),
    "retry": Entry("controller.cli.actions:retry", "Try the aborted revision again from the first step.", STEER),
    "set": Entry("controller.cli.actions:set_group", "Set the canary's weight by hand.", STEER),
    "preview": Entry("controller.cli.preview:command", "Print a link that pins a browser to a version.", STEER),
    "lint": Entry("controller.cli.lint:command", "Check documents before they are used.", FILES),
    "schema": Entry("controller.cli.schema:command", "Print the JSON schema of a document.", FILES),
    "keys": Entry("controller.cli.keys:command", "Make the keys of an installation in a cluster.", FILES),
    "completion": Entry("controller.cli.completion:command", "Print the completion script of a shell.", OTHER),
    "version": Entry("controller.cli.version:command", "Print the version.", OTHER),
}

ELSEWHERE = {  # what people know from other tools, and where it is here
    "undo": "'abort' leaves a version that is on trial; one that was promoted runs in your own Deployments: deploy the "
    "version of before behind the canary, and it goes on trial, or to everyone at once with 'promote --full'",
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is run or asked for its help."""

    entries: Mapping[str, Entry] = COMMANDS
    program = "cohort"

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which the overview has them."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; none if the name is unknown."""
        entry = self.entries.get(cmd_name)
        return load(cmd_name, entry) if entry else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse an unknown name with the nearest one that exists."""
        if args and args[0] not in self.entries and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.entries, n=1)
            known = f"did you mean {near[0]!r}?" if near else f"'{self.program} --help' lists them."
            ctx.fail(f"there is no command {args[0]!r}: {ELSEWHERE.get(args[0], known)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the overview from the table alone: no command is imported for it."""
        for section in dict.fromkeys(entry.section for entry in self.entries.values()):
            rows = [(f"{name:<10}", entry.summary) for name, entry in self.entries.items() if entry.section == section]
            with formatter.section(section):
                formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete a command's name from the table alone."""
        names = [name for name in self.entries if name.startswith(incomplete)]
        items = [CompletionItem(name, help=self.entries[name].summary) for name in names]
        return items or click.Command.shell_complete(self, ctx, incomplete)


def load(name: str, entry: Entry) -> click.Command:
    """Import the command of one entry.

    Raises:
        click.ClickException: If its module, or one that it needs, is not installed.
    """
    module, _, attribute = entry.target.partition(":")
    try:
        command = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"'cohort {name}' needs the Python module {error.name!r}, which is not installed here. "
            "Install the distribution cohort-proxy with all its dependencies."
        ) from None
    assert isinstance(command, click.Command)
    return command


EXIT_CODES = """
\b
Exit codes:
  0  done, or healthy
  1  degraded, aborted or refused
  2  wrong use
  3  not reachable
  4  timed out
"""


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EXIT_CODES,
    no_args_is_help=True,
)
def cohort() -> None:
    """Move the users of a service to a new version by evidence: one user, one version.

    Commands that watch and steer ask the controller, found by --server, COHORT_SERVER or http://127.0.0.1:8090; with
    --context or --kubeconfig they ask a cluster, as 'kubectl cohort' does.
    Where exactly one rollout exists its NAME may be left out. 'cohort COMMAND --help' explains each command.
    """


def run(args: list[str]) -> int:
    """Run one command line.

    Args:
        args: What follows the program's name.

    Returns:
        The exit code, see `controller.cli.main`.
    """
    instruction = os.environ.get(COMPLETE_VARIABLE)
    if instruction:
        _tolerate_narrow_encodings()
        return shell_complete(cohort, {}, "cohort", COMPLETE_VARIABLE, instruction)
    return invoke(cohort, "cohort", args)


def invoke(group: click.Group, program: str, args: list[str]) -> int:
    """Run a command of a group; the exit code."""
    _tolerate_narrow_encodings()
    try:
        with group.make_context(program, list(args), color=_colour()) as context:
            group.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.Abort:
        return 130
    except click.ClickException as failure:
        failure.show()
        return failure.exit_code
    return 0


def _colour() -> bool | None:
    """Never where the environment forbids it (no-color.org); else None: click decides by whether it is a terminal."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def _tolerate_narrow_encodings() -> None:
    """Escape what a terminal's encoding lacks (a name in Latin-1, say) instead of failing with it."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")
