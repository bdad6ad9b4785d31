"""``cohort version``."""

from __future__ import annotations

import click


@click.command()
def command() -> None:
    """Print the version of cohort and of the Python that runs it."""
    import platform
    from importlib.metadata import version

    click.echo(f"cohort {version('cohort-proxy')} (Python {platform.python_version()})")
