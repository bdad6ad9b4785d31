"""Where the cluster is and who one is: what kubectl's files say."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.cli.exits import WrongUse
from controller.cli.kube import config
from controller.cli.kube.config import Access, access

Json = dict[str, Any]


def write(path: Path, current: str = "", **users: Json) -> Path:
    """A file with a cluster, and a context a user."""
    value = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": current,
        "clusters": [{"name": "c", "cluster": {"server": f"https://{path.stem}:6443"}}],
        "users": [{"name": name, "user": user} for name, user in users.items()],
        "contexts": [
            {"name": name, "context": {"cluster": "c", "user": name, "namespace": f"ns-{name}"}} for name in users
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(value))
    return path


def test_the_current_context_says_where_and_who(tmp_path: Path) -> None:
    """A kubeconfig as kubectl writes it."""
    path = write(tmp_path / "a", "anna", anna={"token": "t"}, bert={"token": "u"})
    found = access(str(path), None, {})
    assert found == Access("https://a:6443", namespace="ns-anna", context="anna", token="t")
    assert access(str(path), "bert", {}).token == "u"


def test_of_several_files_the_first_one_wins(tmp_path: Path) -> None:
    """KUBECONFIG is a list, as PATH; a file that is not there is passed over."""
    first = write(tmp_path / "a", "", anna={"token": "first"})
    second = write(tmp_path / "b", "bert", anna={"token": "second"}, bert={"token": "b"})
    env = {"KUBECONFIG": os.pathsep.join([str(tmp_path / "none"), str(first), str(second)])}
    assert access(None, None, env).context == "bert"
    assert access(None, "anna", env).token == "first"
    assert access(None, "bert", env).server == "https://a:6443"


def test_without_a_list_the_file_in_the_home_folder_counts(tmp_path: Path) -> None:
    """As kubectl has it."""
    write(tmp_path / ".kube/config", "anna", anna={"token": "t"})
    assert access(None, None, {"HOME": str(tmp_path)}).token == "t"


def test_paths_count_from_their_file(tmp_path: Path) -> None:
    """Certificates, token files, and commands with a slash in them."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/c.pem").write_bytes(b"C")
    user: Json = {"client-certificate": "keys/c.pem", "tokenFile": "keys/t", "exec": {"command": "./login", "args": []}}
    found = access(str(write(tmp_path / "a", "anna", anna=user)), None, {})
    assert found.certificate == b"C"
    assert found.token_file == str(tmp_path / "keys/t")
    assert found.command == {"command": str(tmp_path / "login"), "args": []}
    user["exec"] = {"command": "login"}
    found = access(str(write(tmp_path / "a", "anna", anna=user)), None, {})
    assert found.command == {"command": "login"}


def test_data_comes_before_a_file(tmp_path: Path) -> None:
    """``-data`` fields are base64; kubectl prefers them."""
    user = {"client-certificate": "/nope", "client-certificate-data": base64.b64encode(b"C").decode()}
    assert access(str(write(tmp_path / "a", "anna", anna=user)), None, {}).certificate == b"C"


def test_one_may_act_as_somebody_else(tmp_path: Path) -> None:
    """``as`` and ``as-groups``."""
    user = {"as": "bert", "as-groups": ["one", "two"]}
    found = access(str(write(tmp_path / "a", "anna", anna=user)), None, {})
    assert found.headers == (("Impersonate-User", "bert"), ("Impersonate-Group", "one"), ("Impersonate-Group", "two"))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "is not YAML"),
        ("[1]", "is no mapping"),
        ("{}", "no context is chosen"),
        ("current-context: x", "there is no context 'x': there is none"),
        ("{current-context: x, contexts: [{name: x, context: {cluster: y}}]}", "names the cluster 'y'"),
        (
            "{current-context: x, contexts: [{name: x, context: {cluster: y, user: z}}],"
            " clusters: [{name: y, cluster: {server: 'https://y'}}]}",
            "names the user 'z'",
        ),
        (
            "{current-context: x, contexts: [{name: x, context: {cluster: y}}],"
            " clusters: [{name: y, cluster: {server: 'https://y', certificate-authority-data: '!'}}]}",
            "certificate-authority-data of the kubeconfig is not base64",
        ),
        (
            "{current-context: x, contexts: [{name: x, context: {cluster: y}}],"
            " clusters: [{name: y, cluster: {server: 'https://y', certificate-authority: nope.pem}}]}",
            "nope.pem, which the kubeconfig names as certificate-authority",
        ),
        (
            "{current-context: x, contexts: [{name: x, context: {cluster: y, user: z}}], users: [{name: z, user:"
            " {auth-provider: {name: gcp}}}], clusters: [{name: y, cluster: {server: 'https://y'}}]}",
            "use an exec entry",
        ),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, text: str, part: str) -> None:
    """surface.md, Commands: what was expected, what came, what to do."""
    (tmp_path / "a").write_text(text)
    with pytest.raises(WrongUse) as raised:
        access(str(tmp_path / "a"), None, {})
    assert part in raised.value.message


def test_no_file_at_all(tmp_path: Path) -> None:
    """On a machine that knows no cluster."""
    with pytest.raises(WrongUse, match="no cluster is configured"):
        access(None, None, {"HOME": str(tmp_path)})
    with pytest.raises(WrongUse, match="there is no file"):
        access(str(tmp_path / "none"), None, {})


def test_in_a_pod_its_own_account_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no file says anything else: the token that is mounted, read again when it is renewed."""
    monkeypatch.setattr(config, "POD", tmp_path)
    for name, text in (("token", "t"), ("ca.crt", "CA"), ("namespace", "shop")):
        (tmp_path / name).write_text(text)
    found = access(
        None, None, {"HOME": "/nowhere", "KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}
    )
    assert (found.server, found.namespace, found.authority) == ("https://[fd00::1]:443", "shop", b"CA")
    assert found.token_file == str(tmp_path / "token")
