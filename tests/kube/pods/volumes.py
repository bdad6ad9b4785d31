"""The volumes of one Pod: folders of this machine, their files changed all at once as a kubelet does it.

A projected folder has a hidden folder of a version, a link ``..data`` to it, and a link through ``..data`` for each
file; a change makes a new version and moves ``..data`` there by one rename.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.kube.pods.api import Api, Refused
from tests.kube.pods.fields import Document, Missing, data_of, downward, entries

Files = dict[str, tuple[bytes, int | None]]
DEFAULT_MODE = 0o644
RENEW_AT = 0.8  # of a token's life, as a kubelet does


class Volumes:
    """The volumes of one Pod.

    Attributes:
        folder: Each has a folder of its name here.
        refers: (configmaps or secrets, name) of all that it shows or has looked up.
    """

    def __init__(self, folder: Path, pod: Document, api: Api) -> None:
        self.folder = folder
        self._pod = pod
        self._api = api
        self._written: dict[str, Files] = {}
        self._tokens: dict[str, tuple[str, float]] = {}
        self.refers: set[tuple[str, str]] = set()

    def renew_tokens(self) -> None:
        """Write new tokens at the next time, as if those that there are were about to expire."""
        self._tokens.clear()

    async def render(self, pod: Document) -> None:
        """Write what is new since the last time.

        Raises:
            Missing: What a volume shows is not there.
        """
        self._pod = pod
        for volume in pod["spec"].get("volumes") or ():
            await self._render_one(volume)

    async def _render_one(self, volume: Document) -> None:
        folder = self.folder / volume["name"]
        if "emptyDir" in volume:
            self._make_empty(folder)
            return
        files, mode = await self._files(volume)
        if self._written.get(volume["name"]) != files:
            self._write(folder, files, mode)
            self._written[volume["name"]] = files

    def path(self, mount: Document) -> Path:
        """The folder or file that a volumeMount shows."""
        folder = self.folder / str(mount["name"])
        return (folder / mount["subPath"]).resolve() if mount.get("subPath") else folder

    async def look(self, group: str, name: str) -> dict[str, bytes] | None:
        """The entries of a ConfigMap or Secret of the Pod's namespace as they are now, or None."""
        self.refers.add((group, name))
        try:
            item = await self._api.insist("GET", f"/api/v1/namespaces/{self._namespace}/{group}/{name}")
        except Refused as refused:
            if refused.status == 404:
                return None
            raise
        return data_of(item)

    @property
    def _namespace(self) -> str:
        return str(self._pod["metadata"]["namespace"])

    def _make_empty(self, folder: Path) -> None:
        if not folder.exists():
            folder.mkdir(parents=True)
            if self._group is not None:
                os.chown(folder, 0, self._group)
            folder.chmod(0o777 if self._group is None else 0o2777)

    async def _files(self, volume: Document) -> tuple[Files, int]:
        """What a volume shows, and the mode of files that name none."""
        for kind, source in volume.items():
            if kind == "configMap":
                return await entries(source, "configmaps", source["name"], self.look), _mode(source)
            if kind == "secret":
                return await entries(source, "secrets", source["secretName"], self.look), _mode(source)
            if kind == "downwardAPI":
                return downward(self._pod, source["items"]), _mode(source)
            if kind == "projected":
                return await self._projected(source), _mode(source)
        raise Missing(f"volume {volume['name']}: this node has no volumes of the kind {[*volume]}")

    async def _projected(self, source: Document) -> Files:
        files: Files = {}
        for one in source["sources"]:
            if "serviceAccountToken" in one:
                mode = None if self._group is None and self._owner() is None else 0o600
                files[one["serviceAccountToken"]["path"]] = await self._token(one["serviceAccountToken"]), mode
            elif "downwardAPI" in one:
                files |= downward(self._pod, one["downwardAPI"]["items"])
            elif "configMap" in one:
                files |= await entries(one["configMap"], "configmaps", one["configMap"]["name"], self.look)
            elif "secret" in one:
                files |= await entries(one["secret"], "secrets", one["secret"]["name"], self.look)
            else:
                raise Missing(f"this node projects no {[*one]}")
        return files

    async def _token(self, source: Document) -> bytes:
        """A token bound to this Pod, a new one when four fifths of its time are over."""
        token, renew = self._tokens.get(source["path"], ("", 0.0))
        if time.monotonic() >= renew:
            seconds = source.get("expirationSeconds", 3600)
            metadata = self._pod["metadata"]
            account = self._pod["spec"].get("serviceAccountName", "default")
            bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
            spec: dict[str, Any] = {"expirationSeconds": seconds, "boundObjectRef": bound}
            if source.get("audience"):
                spec["audiences"] = [source["audience"]]
            path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{account}/token"
            token = (await self._api.insist("POST", path, {"spec": spec}))["status"]["token"]
            self._tokens[source["path"]] = token, time.monotonic() + RENEW_AT * seconds
        return token.encode()

    @property
    def _group(self) -> int | None:
        group = (self._pod["spec"].get("securityContext") or {}).get("fsGroup")
        return None if group is None else int(group)

    def _owner(self) -> int | None:
        """The one user that all containers name, who gets files that only their owner may read."""
        spec = self._pod["spec"]
        users = {(one.get("securityContext") or {}).get("runAsUser") for one in spec["containers"]} - {None}
        users = users or {(spec.get("securityContext") or {}).get("runAsUser")}
        (user,) = users if len(users) == 1 else (None,)
        return None if user is None else int(user)

    def _write(self, folder: Path, files: Mapping[str, tuple[bytes, int | None]], mode: int) -> None:
        """Make a new version, show it, remove the one before."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        version = Path(tempfile.mkdtemp(prefix="..", dir=folder))
        version.chmod(0o755)
        for name, (content, own) in files.items():
            self._write_one(version / name, content, mode if own is None else own)
        before = folder / "..data"
        old = before.resolve() if before.is_symlink() else None
        (folder / "..next").symlink_to(version.name)
        (folder / "..next").rename(before)
        self._link(folder, {name.partition("/")[0] for name in files})
        if old:
            shutil.rmtree(old)

    def _write_one(self, path: Path, content: bytes, mode: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if self._group is not None:
            os.chown(path, 0, self._group)
            mode |= (mode & 0o400) >> 3
        elif mode & 0o077 == 0:
            os.chown(path, self._owner() or 0, -1)
        path.chmod(mode)

    @staticmethod
    def _link(folder: Path, names: set[str]) -> None:
        for entry in folder.iterdir():
            if not entry.name.startswith("..") and entry.name not in names:
                entry.unlink()
        for name in names:
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(f"..data/{name}")


def _mode(source: Document) -> int:
    return int(source.get("defaultMode", DEFAULT_MODE))
