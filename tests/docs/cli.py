"""The generated part of docs/cli.md: the help of every command, as `cohort COMMAND --help` prints it.

It follows a line ``<!-- commands -->`` to the end of the page.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from controller.cli.root import COMMANDS, cohort, load

PAGE = Path(__file__).parents[2] / "docs/cli.md"
COMMANDS_MARK = re.compile(r"<!-- commands -->\n.*", re.DOTALL)
WIDTH = 100


def render(page: str) -> str:
    """The page with every command's help as the command has it."""
    return COMMANDS_MARK.sub(lambda _: "<!-- commands -->\n" + "".join(sections()), page)


def sections() -> Iterator[str]:
    """A heading and the help of each command, in the order of the overview, groups before what is in them."""
    context = click.Context(cohort, info_name="cohort", terminal_width=WIDTH, **cohort.context_settings)
    for name, entry in COMMANDS.items():
        for path, text in helps(context, name, load(name, entry)):
            yield f"\n### {path}\n\n```text\n{text}\n```\n"


def helps(parent: click.Context, name: str, command: click.Command) -> Iterator[tuple[str, str]]:
    """The path and the help of one command and of those below it."""
    command._help_option = None  # click keeps the one of its first call, whose parent may have had other names for it
    with click.Context(command, parent=parent, info_name=name) as context:
        yield context.command_path, command.get_help(context)
        for child, below in command.commands.items() if isinstance(command, click.Group) else ():
            yield from helps(context, child, below)
