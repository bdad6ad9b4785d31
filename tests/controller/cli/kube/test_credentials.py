"""Credentials that a command makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import pytest

from controller.cli.exits import NotReachable, WrongUse
from controller.cli.kube.config import Access
from controller.cli.kube.credentials import made

VERSION = "client.authentication.k8s.io/v1"


def entry(tmp_path: Path, script: str, **more: Any) -> dict[str, Any]:
    path = tmp_path / "login"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"apiVersion": VERSION, "command": str(path), **more}


def answer(**status: str) -> str:
    return f"echo '{json.dumps({'kind': 'ExecCredential', 'apiVersion': VERSION, 'status': status})}'"


def test_a_command_gives_a_token(tmp_path: Path) -> None:
    """With the arguments and the environment that the entry has, and what it is to be told."""
    script = 'test "$1" = login && test "$WHERE" = here && echo "$KUBERNETES_EXEC_INFO" >"$0.info" && ' + answer(
        token="t"
    )
    command = entry(tmp_path, script, args=["login"], env=[{"name": "WHERE", "value": "here"}], provideClusterInfo=True)
    found = made(Access("https://x", command=command))
    assert (found.token, found.command) == ("t", None)
    info = json.loads((tmp_path / "login.info").read_text())
    assert (info["kind"], info["apiVersion"]) == ("ExecCredential", VERSION)
    assert info["spec"]["cluster"]["server"] == "https://x"


def test_a_command_gives_a_certificate(tmp_path: Path) -> None:
    """The other kind of credential."""
    command = entry(tmp_path, answer(clientCertificateData="C", clientKeyData="K"))
    found = made(Access("https://x", command=command))
    assert (found.certificate, found.key) == (b"C", b"K")


def test_without_a_command_nothing_is_made() -> None:
    """Most kubeconfigs have none."""
    assert made(Access("https://x", token="t")) == Access("https://x", token="t")


@pytest.mark.parametrize(
    ("script", "kind", "part"),
    [
        ("exit 3", NotReachable, "it ended with 3. Log in anew"),
        ("echo nonsense", NotReachable, "expected JSON"),
        ("echo '{}'", NotReachable, "gave no status"),
    ],
)
def test_a_command_that_fails_is_named(
    tmp_path: Path, script: str, kind: type[click.ClickException], part: str
) -> None:
    """Whoever reads it knows which program to look after."""
    with pytest.raises(kind) as raised:
        made(Access("https://x", command=entry(tmp_path, script)))
    assert str(tmp_path / "login") in raised.value.message
    assert part in raised.value.message


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    """The entry's own hint says how it is installed."""
    command = {"apiVersion": VERSION, "command": str(tmp_path / "none"), "installHint": "Get it at example.com."}
    with pytest.raises(WrongUse, match=r"there is no program .* Get it at example\.com"):
        made(Access("https://x", command=command))
    with pytest.raises(WrongUse, match="expected apiVersion"):
        made(Access("https://x", command={"command": "true", "apiVersion": "v0"}))
