"""Where the cluster is and who one is: kubeconfig files, merged as kubectl does, or the pod that the program runs in.

Source: k8s.io/client-go/tools/clientcmd, whose documented rules these are: of several files the first one that sets a
value wins, and relative paths count from the file that has them.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.cli.exits import WrongUse

Json = dict[str, Any]

MAX_BYTES = 1_048_576  # of one file; the longest of hundreds of clusters have a tenth
POD = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PATHS = {
    "clusters": ("certificate-authority",),
    "users": ("client-certificate", "client-key", "tokenFile"),
    "contexts": (),
}


@dataclass(frozen=True, slots=True)
class Access:
    """How an API server is reached, and as whom.

    Attributes:
        server: Its URL.
        authority: PEM of whom to trust; empty: the system's.
        namespace: Where one works unless told otherwise.
        context: Name of the context, for messages; empty: the pod's own account.
        server_name: That its certificate must be for; empty: the URL's host.
        certificate: PEM of one's own, and ``key`` of it.
        token: For ``Authorization``; ``token_file`` has it instead.
        command: An ``exec`` entry that makes credentials.
        headers: To act as somebody else.
    """

    server: str
    authority: bytes = b""
    namespace: str = "default"
    context: str = ""
    is_verified: bool = True
    server_name: str = ""
    proxy: str = ""
    certificate: bytes = b""
    key: bytes = b""
    token: str = ""
    token_file: str = ""
    command: Json | None = None
    headers: tuple[tuple[str, str], ...] = ()


def access(kubeconfig: str | None, context: str | None, env: Mapping[str, str]) -> Access:
    """What the files say of a context.

    Args:
        kubeconfig: The one file to read; None: those of ``KUBECONFIG``, or else ``~/.kube/config``.
        context: None: the current one.
        env: The environment.

    Raises:
        WrongUse: A file cannot be read, or lacks what it refers to.
    """
    named = [part for part in env.get("KUBECONFIG", "").split(os.pathsep) if part]
    paths = [Path(kubeconfig)] if kubeconfig else [Path(part) for part in named]
    found = [_read(path) for path in paths or [Path(env.get("HOME", "~")) / ".kube/config"] if path.exists()]
    if kubeconfig and not found:
        raise WrongUse(f"there is no file {kubeconfig}: correct --kubeconfig.")
    if not found and context is None and (pod := _pod(env)):
        return pod
    if not found:
        where = os.pathsep.join(named) or "~/.kube/config"
        raise WrongUse(f"no cluster is configured: there is no file {where}. Set KUBECONFIG, or give --kubeconfig.")
    return _of_context(merge(found), context)


def merge(files: Iterable[Json]) -> Json:
    """Several configurations as one: the first that names a context, a cluster or a user has it."""
    made: Json = {"clusters": {}, "users": {}, "contexts": {}, "current-context": ""}
    for config in files:
        made["current-context"] = made["current-context"] or config["current-context"]
        for kind in _PATHS:
            made[kind] = config[kind] | made[kind]
    return made


def _read(path: Path) -> Json:
    """One file: entries by name, paths in them made absolute."""
    import yaml

    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise WrongUse(f"cannot read the kubeconfig {path}: {error.strerror}.") from None
    if len(content) > MAX_BYTES:
        raise WrongUse(f"the kubeconfig {path} has more than {MAX_BYTES} bytes.")
    try:
        value = yaml.load(content, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}  # noqa: S506  # safe ones
    except (yaml.YAMLError, ValueError, RecursionError):
        raise WrongUse(f"the kubeconfig {path} is not YAML: 'kubectl config view' shows what is wrong.") from None
    if not isinstance(value, dict):
        raise WrongUse(f"the kubeconfig {path} is no mapping: 'kubectl config view' shows what is wrong.")
    made: Json = {"current-context": str(value.get("current-context") or "")}
    for kind, keys in _PATHS.items():
        made[kind] = _entries(value.get(kind), kind, keys, path.parent)
    return made


def _entries(items: Any, kind: str, paths: tuple[str, ...], folder: Path) -> Json:
    made: Json = {}
    for item in items if isinstance(items, list) else []:
        entry = item.get(kind[:-1]) if isinstance(item, dict) else None
        if isinstance(entry, dict):
            absolute = {key: str(folder / str(entry[key])) for key in paths if entry.get(key)}
            made.setdefault(str(item.get("name")), entry | absolute | _command(entry, folder))
    return made


def _command(entry: Json, folder: Path) -> Json:
    """A command with a slash in it counts from its file, as kubectl has it."""
    command = entry.get("exec")
    if not isinstance(command, dict):
        return {}
    name = str(command.get("command") or "")
    return {"exec": command | {"command": str(folder / name) if "/" in name else name}}


def _of_context(config: Json, wanted: str | None) -> Access:
    name = wanted or config["current-context"]
    if not name:
        raise WrongUse("no context is chosen: 'kubectl config use-context NAME' chooses one, or give --context.")
    context = config["contexts"].get(name)
    if context is None:
        known = ", ".join(sorted(config["contexts"])) or "none"
        raise WrongUse(f"there is no context {name!r}: there is {known}.")
    cluster = config["clusters"].get(str(context.get("cluster")))
    if cluster is None or not cluster.get("server"):
        raise WrongUse(f"context {name!r} names the cluster {context.get('cluster')!r}, which has no server.")
    user = config["users"].get(str(context.get("user") or ""), {})
    if context.get("user") and context["user"] not in config["users"]:
        raise WrongUse(f"context {name!r} names the user {context['user']!r}, who is not in the kubeconfig.")
    return _access(name, context, cluster, user)


def _access(name: str, context: Json, cluster: Json, user: Json) -> Access:
    if user.get("auth-provider"):
        raise WrongUse(f"context {name!r} has an auth-provider, which kubectl has dropped too: use an exec entry.")
    return Access(
        server=str(cluster["server"]),
        authority=_pem(cluster, "certificate-authority"),
        namespace=str(context.get("namespace") or "default"),
        context=name,
        is_verified=not cluster.get("insecure-skip-tls-verify"),
        server_name=str(cluster.get("tls-server-name") or ""),
        proxy=str(cluster.get("proxy-url") or ""),
        certificate=_pem(user, "client-certificate"),
        key=_pem(user, "client-key"),
        token=str(user.get("token") or ""),
        token_file=str(user.get("tokenFile") or ""),
        command=user.get("exec"),
        headers=_impersonation(user),
    )


def _impersonation(user: Json) -> tuple[tuple[str, str], ...]:
    """Header fields that say as whom to act."""
    if user.get("as-user-extra"):
        raise WrongUse("as-user-extra is not supported: use a context of that user's own.")
    own = (("Impersonate-User", str(user["as"])),) if user.get("as") else ()
    return (*own, *(("Impersonate-Group", str(group)) for group in user.get("as-groups") or []))


def _pem(entry: Json, key: str) -> bytes:
    """What ``KEY-data`` has in base64, or else the file ``KEY``."""
    try:
        if data := entry.get(f"{key}-data"):
            return base64.b64decode(str(data), validate=True)
        return Path(str(entry[key])).read_bytes() if entry.get(key) else b""
    except binascii.Error:
        raise WrongUse(f"{key}-data of the kubeconfig is not base64.") from None
    except OSError as error:
        raise WrongUse(f"cannot read {entry[key]}, which the kubeconfig names as {key}: {error.strerror}.") from None


def _pod(env: Mapping[str, str]) -> Access | None:
    """The account of the pod that this runs in, if it runs in one."""
    host, port = env.get("KUBERNETES_SERVICE_HOST"), env.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (POD / "token").exists():
        return None
    namespace = (POD / "namespace").read_text().strip() if (POD / "namespace").exists() else "default"
    return Access(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        authority=(POD / "ca.crt").read_bytes(),
        namespace=namespace,
        token_file=str(POD / "token"),
    )
