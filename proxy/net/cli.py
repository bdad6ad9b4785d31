"""``cohort proxy``: run the data plane, or check its documents."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import click


@click.command("proxy", short_help="Run the data plane of one service.")
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings: kind ProxySettings.")
@click.option(
    "--check",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Say what is wrong with settings or a plan, and start nothing.",
)
def command(config: Path | None, check: Path | None) -> None:
    """Run the proxy: a supervisor and its workers, split users by the plan, until SIGTERM.

    The plan comes from planFile in the settings, which is watched, or by PUT /plan on the admin API. Without one the
    proxy runs, is not ready, and answers 503. A plan that is refused changes nothing: the last good one stays.
    SIGTERM drains: what is under way finishes, then the proxy exits with 0. SIGHUP reloads the settings and the program
    without a lost connection, so it is also the way to upgrade; settings that are refused change nothing.

    \b
    Examples:
      cohort proxy --check plan.yaml
      cohort proxy --config proxy.yaml
      curl --unix-socket admin.sock http://localhost/state
      curl --unix-socket admin.sock -H 'Content-Type: application/json' -d '{"by": "anna"}' http://localhost/abort

    Exit status: 0 left in order, or the document is valid; 1 refused; 2 wrong use.
    """
    if (config is None) == (check is None):
        raise click.UsageError("exactly one of --config and --check is needed")
    if check is not None:
        sys.exit(_check(check))
    assert config is not None
    sys.exit(_run(config))


def _check(path: Path) -> int:
    from proxy.config import ProxySettings
    from proxy.document import DocumentError, validate
    from proxy.net.credentials import read
    from proxy.net.start import read_document
    from proxy.plan import Plan

    models: dict[str, type[Any]] = {"Plan": Plan, "ProxySettings": ProxySettings}
    try:
        value = read_document(path)
        kind = value.get("kind", _likely_kind(value)) if isinstance(value, dict) else "Plan"
        if not isinstance(kind, str) or kind not in models:
            return _refuse(path, [f"kind: expected Plan or ProxySettings, got {kind!r}"])
        document = validate(models[kind], value)
        if isinstance(document, ProxySettings):
            read(document, path.absolute().parent)
    except DocumentError as error:
        return _refuse(path, [str(fault) for fault in error.faults])
    click.echo(f"{path}: a valid {kind}")
    return 0


def _likely_kind(value: dict[str, Any]) -> str:
    return "Plan" if value.keys() & {"rollout", "generation", "arms"} else "ProxySettings"


def _run(path: Path) -> int:
    """Run the proxy. A SIGHUP that comes while modules are loaded waits for the supervisor instead of ending us."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    status = _serve(path)
    if status:
        signal.sigtimedwait({signal.SIGHUP}, 0)  # nobody is there any more whom it could ask for anything
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return status


def _serve(path: Path) -> int:
    from proxy.document import DocumentError
    from proxy.net import handover, rehearsal
    from proxy.net.sockets import ListenError
    from proxy.net.start import read_start
    from proxy.net.statedir import StateDirError
    from proxy.net.supervisor import Supervisor

    if rehearsal.is_asked():
        return rehearsal.perform(path, read_start)
    inherited = handover.take()
    base = path.absolute().parent
    try:
        start = read_start(path) if inherited is None else inherited.start()
    except DocumentError as error:
        return _refuse(path, [str(fault) for fault in error.faults])

    async def main() -> None:
        await Supervisor(start, base, inherited).run()

    try:
        asyncio.run(main())
    except (ListenError, StateDirError) as error:
        return _refuse(path, [str(error)])
    except DocumentError as error:
        named = start.settings.plan_file or start.settings.initial_plan
        return _refuse(base / str(named), [str(fault) for fault in error.faults])
    return 0


def _refuse(path: Path, faults: list[str]) -> int:
    for fault in faults:
        click.echo(f"{path}: {fault}", err=True)
    return 1
