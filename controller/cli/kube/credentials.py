"""Credentials that a command makes: the ``exec`` entry of a kubeconfig, as cloud providers and single sign-on use it.

Source: client.authentication.k8s.io/v1, ExecCredential.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

from controller.cli.exits import NotReachable, WrongUse
from controller.cli.kube.config import Access

Json = dict[str, Any]
VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
COMMAND_S = 120.0  # a browser may open for somebody to log in


def made(access: Access) -> Access:
    """The access with the credentials that its command makes, if it has one.

    Raises:
        WrongUse: The entry cannot be meant so, or its program is not there.
        NotReachable: The command failed.
    """
    if not access.command:
        return access
    answer = _run(access, access.command)
    status = answer.get("status")
    if not isinstance(status, dict):
        raise NotReachable(f"{_name(access.command)} gave no status: it is no credential plugin of kubectl's.")
    return replace(
        access,
        command=None,
        token=str(status.get("token") or ""),
        certificate=str(status.get("clientCertificateData") or "").encode() or access.certificate,
        key=str(status.get("clientKeyData") or "").encode() or access.key,
    )


def _run(access: Access, entry: Json) -> Json:
    version = str(entry.get("apiVersion"))
    if version not in VERSIONS:
        raise WrongUse(f"expected apiVersion {' or '.join(VERSIONS)} of the exec entry, got {version!r}.")
    words = [_name(entry), *(str(word) for word in entry.get("args") or [])]
    try:
        # What the user's own kubeconfig names is run, as kubectl does.
        done = subprocess.run(  # noqa: S603
            words,
            env=_environment(access, entry, version),
            stdout=subprocess.PIPE,
            timeout=COMMAND_S,
            check=False,
        )
    except FileNotFoundError:
        hint = str(entry.get("installHint") or "").strip()
        raise WrongUse(f"there is no program {words[0]!r}, which makes the credentials. {hint}".strip()) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotReachable(f"{words[0]} made no credentials: {error}.") from None
    if done.returncode != 0:
        raise NotReachable(f"{words[0]} made no credentials: it ended with {done.returncode}. Log in anew.")
    try:
        value = json.loads(done.stdout)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise NotReachable(f"{words[0]} made no credentials: expected JSON, got something else.")
    return value


def _name(entry: Json) -> str:
    return str(entry.get("command") or "")


def _environment(access: Access, entry: Json, version: str) -> dict[str, str]:
    """The program's own environment, what the entry adds, and what it is to be told."""
    own = {str(item.get("name")): str(item.get("value")) for item in entry.get("env") or [] if isinstance(item, dict)}
    spec: Json = {
        "interactive": entry.get("interactiveMode") != "Never" and sys.stdin is not None and sys.stdin.isatty()
    }
    if entry.get("provideClusterInfo"):
        import base64

        authority = base64.b64encode(access.authority).decode()
        spec["cluster"] = {"server": access.server, "certificate-authority-data": authority}
    info = {"kind": "ExecCredential", "apiVersion": version, "spec": spec}
    return dict(os.environ) | own | {"KUBERNETES_EXEC_INFO": json.dumps(info)}
