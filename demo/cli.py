"""``cohort demo``: the whole of cohort on this machine, to look at or as one rollout that ends by itself."""

from __future__ import annotations

from pathlib import Path

import click

SCENARIOS = {"good": "promoted", "bad": "rolled-back"}


@click.command(name="demo", short_help="Run the demo: app, proxy, controller and users on this machine.")
@click.option("--users", type=click.IntRange(20, 10_000), default=200, show_default=True, help="Simulated users.")
@click.option("--headless", is_flag=True, help="Run one rollout to its end and print its timeline.")
@click.option("--scenario", type=click.Choice(list(SCENARIOS)), default="good", show_default=True,
              help="The new version: good (0.1 % errors) or bad (3 %).")  # fmt: skip
@click.option(
    "--expect", type=click.Choice(list(SCENARIOS.values())), help="How it must end.  [default: as the scenario must]"
)
@click.option("--limit", type=click.IntRange(1, 3600), default=300, show_default=True, help="Seconds for the rollout.")
@click.option("--ports", type=click.Choice(["default", "auto"]), default="default", show_default=True,
              help="default: 8080, 8082, 8088, 8090, and a free one in the place of each that is taken.")  # fmt: skip
@click.option(
    "--log-dir", type=click.Path(file_okay=False, path_type=Path), help="Where the processes' output is kept."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Makes users and errors repeatable.")
def command(
    users: int,
    headless: bool,
    scenario: str,
    expect: str | None,
    limit: int,
    ports: str,
    log_dir: Path | None,
    seed: int,
) -> None:
    """Run two versions of a small shop, the proxy, the controller and simulated users.

    Without --headless the page shows each user as a square until Ctrl-C. With it, one rollout goes 5, 25, 50, 100 %
    by evidence, in one to three minutes.

    \b
    Exit with --headless:
      0  a good version was promoted, or a bad one rolled back; no flip, no request lost
      1  anything else
    """
    import asyncio

    from demo.run import guarded, play, show
    from demo.stack import DEFAULT_PORTS, Wish

    wish = Wish(users, scenario, DEFAULT_PORTS if ports == "default" else None, log_dir, seed)
    work = play(wish, expect or SCENARIOS[scenario], limit) if headless else show(wish)
    click.get_current_context().exit(asyncio.run(guarded(work, interrupted=1 if headless else 0)))
