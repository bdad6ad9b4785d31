from __future__ import annotations

from controller.cli.root import COMMANDS
from tests.docs.cli import PAGE, render

TEXT = PAGE.read_text()


def test_the_page_is_what_the_commands_say() -> None:
    """A page that says otherwise than `--help` would be believed."""
    assert render(TEXT) == TEXT, "run make docs"


def test_every_command_is_on_the_page() -> None:
    """The generated part follows the table of commands."""
    assert all(f"\n### cohort {name}\n" in TEXT for name in COMMANDS)
