"""``cohort version``."""

from __future__ import annotations

import click


@click.command()
def command() -> None:
    """Print the version of cohort, of the Python that runs it, and whether the proxy is compiled here."""
    import platform
    from importlib.metadata import version

    from proxy.net import compiled

    built = "compiled" if compiled.IS_IN_USE else "not compiled"
    click.echo(f"cohort {version('cohort-proxy')} (Python {platform.python_version()}, {built})")
