"""``cohort completion``: the script that makes a shell complete commands, options and names of rollouts."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    Put into the shell's start-up file:
      bash (~/.bashrc):                  eval "$(cohort completion bash)"
      zsh (~/.zshrc, after compinit):    eval "$(cohort completion zsh)"
      fish (~/.config/fish/config.fish): cohort completion fish | source
    """
    from controller.cli.root import COMPLETE_VARIABLE, cohort

    script = get_completion_class(shell)
    assert script is not None
    click.echo(script(cohort, {}, "cohort", COMPLETE_VARIABLE).source())
