from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.kube.pods.api import Refused
from tests.kube.pods.fields import Missing
from tests.kube.pods.volumes import Volumes


class FakeApi:
    """An API server that has some objects, and gives a new token at each request.

    Attributes:
        objects: By path.
        asked: Bodies of requests for tokens.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.asked: list[Any] = []

    async def insist(self, method: str, path: str, body: Any = None, kind: str = "") -> Any:
        if path.endswith("/token"):
            self.asked.append(body["spec"])
            return {"status": {"token": f"token-{len(self.asked)}"}}
        if path not in self.objects:
            raise Refused(404, path)
        return self.objects[path]

    def put(self, group: str, name: str, **data: str) -> None:
        self.objects[f"/api/v1/namespaces/team/{group}/{name}"] = {"data": data}


def pod(volume: dict[str, Any], **security: Any) -> dict[str, Any]:
    metadata = {"namespace": "team", "name": "one", "uid": "u"}
    spec = {"containers": [{"name": "main"}], "volumes": [{"name": "files"} | volume], "securityContext": security}
    return {"metadata": metadata, "spec": spec}


def volumes(folder: Path, document: dict[str, Any], api: FakeApi) -> Volumes:
    return Volumes(folder, document, api)  # type: ignore[arg-type]  # the one method that is used


async def test_a_change_shows_all_files_at_once(tmp_path: Path) -> None:
    """Through one link; what is gone is gone, and no older version stays."""
    api, document = FakeApi(), pod({"configMap": {"name": "config"}})
    made = volumes(tmp_path, document, api)
    api.put("configmaps", "config", a="1", b="2")
    await made.render(document)
    before = os.readlink(tmp_path / "files" / "..data")
    assert ((tmp_path / "files/a").read_text(), (tmp_path / "files/b").read_text()) == ("1", "2")
    await made.render(document)
    assert os.readlink(tmp_path / "files" / "..data") == before
    api.put("configmaps", "config", a="3", c="4")
    await made.render(document)
    assert {path.name: path.read_text() for path in (tmp_path / "files").glob("[a-z]*")} == {"a": "3", "c": "4"}
    assert not (tmp_path / "files" / before).exists()
    assert made.refers == {("configmaps", "config")}


async def test_a_missing_source_is_named_unless_it_is_optional(tmp_path: Path) -> None:
    document = pod({"configMap": {"name": "config"}})
    with pytest.raises(Missing, match="configmaps config not found"):
        await volumes(tmp_path, document, FakeApi()).render(document)
    document = pod({"configMap": {"name": "config", "optional": True}})
    await volumes(tmp_path, document, FakeApi()).render(document)
    assert list((tmp_path / "files").glob("[a-z]*")) == []


@pytest.mark.parametrize(
    ("security", "mode"),
    [({}, 0o644), ({"runAsUser": os.getuid()}, 0o600), ({"fsGroup": os.getgid()}, 0o640)],
    ids=["nobody-named", "one-user", "a-group"],
)
async def test_a_token_is_bound_to_its_pod_and_read_by_its_user(tmp_path: Path, security: Any, mode: int) -> None:
    """As a kubelet sets its mode; it is asked for once, and again when it is to be renewed."""
    source = {"serviceAccountToken": {"path": "token", "expirationSeconds": 600, "audience": "shop"}}
    api, document = FakeApi(), pod({"projected": {"sources": [source]}}, **security)
    made = volumes(tmp_path, document, api)
    await made.render(document)
    await made.render(document)
    (asked,) = api.asked
    assert (asked["boundObjectRef"]["uid"], asked["expirationSeconds"], asked["audiences"]) == ("u", 600, ["shop"])
    assert (tmp_path / "files/token").stat().st_mode & 0o777 == mode
    made.renew_tokens()
    await made.render(document)
    assert (tmp_path / "files/token").read_text() == "token-2"


async def test_an_empty_folder_is_everybody_s_and_stays(tmp_path: Path) -> None:
    document = pod({"emptyDir": {}})
    made = volumes(tmp_path, document, FakeApi())
    await made.render(document)
    assert (tmp_path / "files").stat().st_mode & 0o777 == 0o777
    (tmp_path / "files/own").touch()
    await made.render(document)
    assert (tmp_path / "files/own").exists()


async def test_a_kind_of_volume_that_is_not_there_is_refused(tmp_path: Path) -> None:
    document = pod({"hostPath": {"path": "/"}})
    with pytest.raises(Missing, match="hostPath"):
        await volumes(tmp_path, document, FakeApi()).render(document)
