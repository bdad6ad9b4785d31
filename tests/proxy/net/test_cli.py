"""The command ``cohort proxy``: what it refuses, and how it says so."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.net import cli
from proxy.net.cli import command
from tests.support.plans import plan
from tests.support.supervised import settings

EXAMPLES = Path(__file__).parents[3] / "examples"
BAD_PLAN = {"kind": "Plan", "generation": 0, "colour": "red"}
BAD_SETTINGS = {"kind": "ProxySettings", "workers": 0, "limits": {"headerCount": "many"}}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.mark.parametrize("arguments", [(), ("--check", "a", "--config", "b"), ("--what",), ("x",)], ids=str)
def test_wrong_use_is_told_with_status_2(arguments: tuple[str, ...]) -> None:
    """surface.md, Commands."""
    result = run(*arguments)
    assert (result.exit_code, "Usage:" in result.output) == (2, True)


def test_help_teaches() -> None:
    """What it does, where plans come from, examples, exit status."""
    text = " ".join(run("--help").output.split())
    for part in ("--config FILE", "--check FILE", "Examples:", "PUT /plan", "SIGTERM", "Exit status:"):
        assert part in text


@pytest.mark.parametrize("name", ["plan.yaml", "proxy.yaml"])
def test_the_examples_are_valid(name: str) -> None:
    """They are what a person starts from."""
    result = run("--check", EXAMPLES / name)
    assert (result.exit_code, "valid" in result.output) == (0, True)


@pytest.mark.parametrize(
    ("document", "paths"),
    [
        (BAD_PLAN, ["rollout", "generation", "salt", "arms", "users", "colour"]),
        (BAD_SETTINGS, ["workers", "limits.headerCount"]),
        ({"generation": 1, "rollout": 1}, ["rollout", "salt", "arms", "users"]),
        ({"kind": "CanaryRollout"}, ["kind"]),
        ({"kind": ["Plan"]}, ["kind"]),
        ([1], ["expected a mapping, got list"]),
    ],
    ids=["plan", "settings", "no kind", "another kind", "no word", "list"],
)
def test_every_fault_is_told_with_its_field_path(tmp_path: Path, document: object, paths: list[str]) -> None:
    """F17: --check gives the verdict that a start and a watch give."""
    path = tmp_path / "document.yaml"
    path.write_text(json.dumps(document))
    result = run("--check", path)
    assert result.exit_code == 1
    assert [line.removeprefix(f"{path}: ").partition(": ")[0] for line in result.stderr.splitlines()] == paths


@pytest.mark.parametrize("what", ["missing", "dangling", "folder", "binary", "fifo"])
@pytest.mark.parametrize("option", ["--check", "--config"])
def test_what_cannot_be_read_is_refused(tmp_path: Path, option: str, what: str) -> None:
    """F17."""
    path = tmp_path / "x"
    if what == "dangling":
        path.symlink_to("nowhere")
    elif what == "folder":
        path.mkdir()
    elif what == "binary":
        path.write_bytes(b"\0\xff")
    elif what == "fifo":
        os.mkfifo(path)
    result = run(option, path)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{path}: ")


def test_a_start_with_a_bad_plan_file_gives_the_verdict_of_check(tmp_path: Path) -> None:
    """F17: exit status and field paths are the same."""
    (tmp_path / "plan.yaml").write_text(json.dumps(BAD_PLAN))
    settings(tmp_path)
    started, checked = run("--config", tmp_path / "proxy.yaml"), run("--check", tmp_path / "plan.yaml")
    assert (started.exit_code, checked.exit_code) == (1, 1)
    assert started.stderr == checked.stderr


def test_settings_for_a_port_that_is_taken_are_refused(tmp_path: Path) -> None:
    """And nothing is left behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        settings(tmp_path, metrics={"listen": address})
        result = run("--config", tmp_path / "proxy.yaml")
    assert result.exit_code == 1
    assert f"metrics.listen: cannot listen on {address}: something else listens there" in result.stderr
    assert not (tmp_path / "admin.sock").exists()


@pytest.mark.parametrize(
    ("token", "message"), [(None, "cannot be read"), ("short", "at least 16"), ("x" * 20 + "\nmore lines", "printable")]
)
def test_a_token_that_guards_nothing_is_refused(tmp_path: Path, token: str | None, message: str) -> None:
    """C3: one that could be guessed, or that no header can carry."""
    if token is not None:
        (tmp_path / "token").write_text(token)
    settings(tmp_path, admin={"listen": "127.0.0.1:0", "tokenFile": "token"})
    result = run("--config", tmp_path / "proxy.yaml")
    assert result.exit_code == 1
    assert "admin.tokenFile" in result.stderr
    assert message in result.stderr


@pytest.mark.parametrize("listen", [":8081", "0.0.0.0:8081", "192.0.2.1:8081", "127.0.0.1:8081"])
def test_an_admin_port_needs_a_loopback_address_and_a_token(tmp_path: Path, listen: str) -> None:
    """C1."""
    settings(tmp_path, admin={"listen": listen})
    result = run("--check", tmp_path / "proxy.yaml")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{tmp_path / 'proxy.yaml'}: admin")


def test_a_damaged_key_is_told(tmp_path: Path) -> None:
    """It is never overwritten: users would be dealt anew."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "cookie").write_text("nonsense")
    settings(tmp_path)
    result = run("--config", tmp_path / "proxy.yaml")
    assert result.exit_code == 1
    assert "cookie" in result.stderr


def test_a_plan_on_its_own_needs_no_kind(tmp_path: Path) -> None:
    """A rollout is what only plans have."""
    path = tmp_path / "plan.yaml"
    document = plan().model_dump(mode="json", by_alias=True)
    del document["kind"]
    path.write_text(json.dumps(document))
    assert run("--check", path).exit_code == 0


@pytest.mark.parametrize("status", [0, 1])
def test_a_sighup_that_comes_too_early_waits_for_the_supervisor(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end the process; and where no supervisor comes it is forgotten."""

    def serve(_: Path) -> int:
        signal.pthread_kill(threading.get_ident(), signal.SIGHUP)  # other tests may have left threads
        return status

    monkeypatch.setattr(cli, "_serve", serve)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        assert cli._run(Path("proxy.yaml")) == status
        assert (signal.SIGHUP in signal.sigpending()) == (status == 0)
        assert (signal.SIGHUP in signal.pthread_sigmask(signal.SIG_BLOCK, ())) == (status == 0)
    finally:
        signal.sigtimedwait({signal.SIGHUP}, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
