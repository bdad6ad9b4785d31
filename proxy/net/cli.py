"""``cohort proxy``: run the data plane, or check its documents."""

from __future__ import annotations

import asyncio
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
    SIGTERM drains: what is under way finishes, then the proxy exits with 0.

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
    from proxy.plan import Plan

    models: dict[str, type[Any]] = {"Plan": Plan, "ProxySettings": ProxySettings}
    try:
        value = _load(path)
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


def _load(path: Path) -> Any:
    from proxy.document import MAX_DOCUMENT_BYTES, DocumentError, Fault, load
    from proxy.net.files import read_bounded

    try:
        return load(read_bounded(path, MAX_DOCUMENT_BYTES))
    except OSError as error:
        raise DocumentError([Fault("", f"cannot be read: {error.strerror or error}")]) from None


def _run(path: Path) -> int:
    from proxy.config import ProxySettings
    from proxy.document import DocumentError, validate
    from proxy.keys import KeyFileError
    from proxy.net.credentials import read
    from proxy.net.keyfiles import load_keys
    from proxy.net.sockets import ListenError
    from proxy.net.statedir import StateDirError
    from proxy.net.supervisor import Supervisor

    base = path.absolute().parent
    try:
        settings = validate(ProxySettings, _load(path))
        read(settings, base)
        load_keys(base / settings.keys_dir)  # made here if they are missing, before workers race for them
        token = _token(base, settings)
    except DocumentError as error:
        return _refuse(path, [str(fault) for fault in error.faults])
    except (KeyFileError, OSError) as error:
        return _refuse(path, [f"keysDir: {error}"])

    async def main() -> None:
        await Supervisor(settings, base, token).run()

    try:
        asyncio.run(main())
    except (ListenError, StateDirError) as error:
        return _refuse(path, [str(error)])
    except DocumentError as error:
        return _refuse(base / str(settings.plan_file), [str(fault) for fault in error.faults])
    return 0


def _token(base: Path, settings: Any) -> str | None:
    from proxy.document import DocumentError, Fault

    name = settings.admin.token_file
    if name is None:
        return None
    try:
        token: str = (base / name).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DocumentError([Fault("admin.tokenFile", f"{base / name} cannot be read: {error}")]) from None
    if len(token) < 16 or not token.isascii() or not token.isprintable():
        raise DocumentError(
            [Fault("admin.tokenFile", f"{base / name}: expected at least 16 printable ASCII characters")]
        )
    return token


def _refuse(path: Path, faults: list[str]) -> int:
    for fault in faults:
        click.echo(f"{path}: {fault}", err=True)
    return 1
