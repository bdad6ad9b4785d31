"""A cluster without nodes: etcd, kube-apiserver and kube-controller-manager on this machine's loopback.

The flags are those of a small real cluster. What differs: etcd does not sync to disk, nothing reconciles the
`kubernetes` endpoints, and no node lifecycle controller runs, for no kubelet renews a node's lease here.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import random
import secrets
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.kube import keys
from tests.kube.keeper import Keeper
from tests.kube.tools import find

MANAGER = "kube-controller-manager"
COMMAND_S = 600.0  # one that waits for pods has a shorter limit of its own
PATIENCE_S = 120.0  # for what takes three seconds on an idle machine
PROGRAMS = ("etcd", "kube-apiserver", MANAGER, "kubectl", "helm")
BRIDGE = "10.99.0.1"  # where pods find the API server
SERVICES = "10.96.0.0/16"
ISSUER = "https://kubernetes.default.svc.cluster.local"
WITHOUT = ("node-lifecycle-controller", "node-ipam-controller", "node-route-controller", "service-lb-controller")
PORTS = range(20_000, 32_000)  # below those that the kernel gives to clients
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "RequestResponse", "resources": [{"group": "cohort.dev", "resources": ["canaryrollouts/status"]}]},
        {"level": "Request", "resources": [{"group": "cohort.dev"}]},
        {"level": "Metadata"},
    ],
}


class KubeError(Exception):
    """The API server refused: its status code and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Cluster:
    """One cluster.

    Attributes:
        api: The API server's address on loopback, ``https://127.0.0.1:<port>``.
        folder: All files of it.
        keeper: Runs its programs; their output is ``keeper.log("kube-apiserver")`` and so on.
        kubeconfig: The admin's.
        keys: Its certificates.
        port: Of its address.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs = {name: find(name) for name in PROGRAMS}
        self.keys = keys.make(folder)
        self.keeper = Keeper(folder)
        self.port = _free_port()
        self.api = f"https://127.0.0.1:{self.port}"
        admin = {"client-certificate": str(self.keys.certificate("admin")), "client-key": str(self.keys.key("admin"))}
        self.kubeconfig = self._kubeconfig("admin", admin)
        self._tls = ssl.create_default_context(cafile=str(self.keys.authority))
        self._tls.load_cert_chain(self.keys.certificate("admin"), self.keys.key("admin"))

    # -- its programs

    def start(self) -> None:
        """Start all of it and wait until the controllers work."""
        self.start_etcd()
        self.start_api()
        self.start_controllers()

    def close(self) -> None:
        """End all of it at once."""
        self.keeper.close()

    @property
    def etcd(self) -> str:
        """etcd's address: a socket file, so that no port is taken and nothing else reaches it."""
        return f"unix://{self.folder}/etcd.sock"

    def start_etcd(self) -> None:
        """Start etcd on the data that is there."""
        nowhere = "http://127.0.0.1:0"  # a single member has no peers, and its one client needs no advertisement
        self.keeper.start(
            "etcd",
            str(self.programs["etcd"]),
            f"--data-dir={self.folder}/etcd",
            f"--listen-client-urls={self.etcd}",
            f"--advertise-client-urls={nowhere}",
            f"--listen-peer-urls={nowhere}",
            f"--initial-advertise-peer-urls={nowhere}",
            f"--initial-cluster=default={nowhere}",
            "--unsafe-no-fsync=true",
            "--log-level=warn",
        )

    def stop_etcd(self) -> None:
        """End etcd; its data stay."""
        self.keeper.stop("etcd")

    def start_api(self) -> None:
        """Start the API server, on the port it had before, and wait until it is ready."""
        self.keeper.start("kube-apiserver", str(self.programs["kube-apiserver"]), *self._api_flags())
        self._wait("kube-apiserver", self._is_ready)

    def stop_api(self, number: int = signal.SIGKILL) -> None:
        """End the API server; who asks is refused the connection. SIGTERM takes long: open watches are waited for."""
        self.keeper.stop("kube-apiserver", number)

    def freeze_api(self) -> None:
        """Stop it from answering while its connections stay open."""
        self.keeper.send("kube-apiserver", signal.SIGSTOP)

    def thaw_api(self) -> None:
        """Let it go on."""
        self.keeper.send("kube-apiserver", signal.SIGCONT)

    def start_controllers(self) -> None:
        """Start the controller manager and wait until it has made the default namespace's service account."""
        self.keeper.start(
            "kube-controller-manager", str(self.programs["kube-controller-manager"]), *self._manager_flags()
        )
        self._wait("kube-controller-manager", lambda: self.exists("/api/v1/namespaces/default/serviceaccounts/default"))

    def stop_controllers(self) -> None:
        """End the controller manager."""
        self.keeper.stop("kube-controller-manager", signal.SIGKILL)

    def mend(self) -> None:
        """Start what a test has stopped and not started again, so that only its own assertion fails."""
        starts = {"etcd": self.start_etcd, "kube-apiserver": self.start_api, MANAGER: self.start_controllers}
        for name, start in starts.items():
            if self.keeper.status(name) is None:
                self.keeper.send(name, signal.SIGCONT)
            else:
                start()

    def _api_flags(self) -> Iterator[str]:
        policy = self.folder / "audit-policy.json"
        policy.write_text(json.dumps(AUDIT))
        return _flags(
            etcd_servers=self.etcd,
            bind_address="127.0.0.1",
            secure_port=self.port,
            advertise_address=BRIDGE,
            endpoint_reconciler_type="none",
            service_cluster_ip_range=SERVICES,
            authorization_mode="RBAC",
            allow_privileged="true",
            cert_dir=self.folder / "unused",
            tls_cert_file=self.keys.certificate("apiserver"),
            tls_private_key_file=self.keys.key("apiserver"),
            client_ca_file=self.keys.authority,
            service_account_issuer=ISSUER,
            service_account_key_file=self.keys.accounts,
            service_account_signing_key_file=self.keys.accounts,
            audit_log_path=self.folder / "audit.log",
            audit_policy_file=policy,
            shutdown_delay_duration="0s",
        )

    def _manager_flags(self) -> Iterator[str]:
        user = {"client-certificate": str(self.keys.certificate(MANAGER)), "client-key": str(self.keys.key(MANAGER))}
        return _flags(
            kubeconfig=self._kubeconfig(MANAGER, user),
            service_account_private_key_file=self.keys.accounts,
            root_ca_file=self.keys.authority,
            use_service_account_credentials="true",
            leader_elect="false",
            secure_port=0,
            controllers=",".join(["*", *(f"-{controller}" for controller in WITHOUT)]),
        )

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError, KubeError, http.client.HTTPException):
            self.call("GET", "/readyz", timeout_s=5.0)
            return True
        return False

    def _wait(self, name: str, look: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not look():
            ended = self.keeper.status(name)
            if ended is not None or time.monotonic() > deadline:
                raise AssertionError(f"{name} did not start ({ended}):\n{self.keeper.log(name)[-4000:]}")
            time.sleep(0.1)

    # -- using it

    def kubectl(self, *args: str, input: str | bytes | None = None, kubeconfig: Path | None = None) -> str:
        """What kubectl prints.

        Args:
            args: Its arguments.
            input: For ``-f -``.
            kubeconfig: Of somebody else than the admin.

        Raises:
            AssertionError: It failed; the message has its command line and what it said.
        """
        return self._run("kubectl", args, input, kubeconfig)

    def helm(self, *args: str, input: str | bytes | None = None, kubeconfig: Path | None = None) -> str:
        """The same for Helm; its cache and settings are this cluster's own."""
        return self._run("helm", args, input, kubeconfig)

    def _run(self, program: str, args: tuple[str, ...], given: str | bytes | None, kubeconfig: Path | None) -> str:
        done = self.run(program, *args, input=given, kubeconfig=kubeconfig)
        assert done.returncode == 0, f"{program} {' '.join(args)}: {done.stderr}{done.stdout}"
        return done.stdout

    def run(
        self, program: str, *args: str, input: str | bytes | None = None, kubeconfig: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl or helm, however it ends."""
        own = {
            name: str(self.folder / name.lower()) for name in ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")
        }
        return subprocess.run(
            [str(self.programs[program]), *args],
            input=input.decode() if isinstance(input, bytes) else input or "",
            env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder), "KUBECONFIG": str(kubeconfig or self.kubeconfig)}
            | own,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
        )

    def apply(self, *documents: dict[str, Any], namespace: str = "default") -> None:
        """Apply objects as the server validates them, unknown fields refused."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
        self.kubectl("apply", "--server-side", "--validate=strict", "-n", namespace, "-f", "-", input=text)

    def call(
        self, method: str, path: str, body: Any = None, kind: str = "application/json", timeout_s: float = 30.0
    ) -> Any:
        """One request as the admin: the answer's document, or its text if it is none.

        Args:
            method: GET, POST, PUT, PATCH or DELETE.
            path: ``/api/v1/namespaces/...``, with its query.
            body: A document to send.
            kind: Its media type; a PATCH wants one of its own.
            timeout_s: For connecting and for each read.

        Raises:
            KubeError: Refused.
            OSError: Not reached.
        """
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self._tls, timeout=timeout_s)
        with contextlib.closing(connection):
            connection.request(method, path, body and json.dumps(body), {"Content-Type": kind} if body else {})
            answer = connection.getresponse()
            content = answer.read()
        if answer.status >= 300:
            raise KubeError(answer.status, content.decode(errors="replace"))
        return json.loads(content) if content.startswith(b"{") else content.decode()

    def exists(self, path: str) -> bool:
        """Whether an object is there."""
        try:
            self.call("GET", path)
        except KubeError as error:
            if error.status == 404:
                return False
            raise
        return True

    def until(self, look: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
        """Wait until a function returns something true, and return that; being refused counts as not yet."""
        deadline, last = time.monotonic() + patience_s, None
        while time.monotonic() < deadline:
            try:
                if last := look():
                    return last
            except (OSError, KubeError, http.client.HTTPException) as error:
                last = error
            time.sleep(0.1)
        raise AssertionError(f"not within {patience_s:.0f} s: {last!r}")

    def audit(self) -> list[dict[str, Any]]:
        """Every request that the API server has answered or begun to answer, in order; bodies for cohort.dev alone.

        Of writes of a rollout's status also what they made of it.
        """
        lines = (self.folder / "audit.log").read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def token(self, namespace: str, account: str, seconds: int = 3600) -> str:
        """A token of a service account; the API server gives none for less than 600 seconds."""
        body = {"spec": {"expirationSeconds": seconds}}
        answer = self.call("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", body)
        return str(answer["status"]["token"])

    def kubeconfig_of(self, namespace: str, account: str) -> Path:
        """A kubeconfig with which one is a service account, and has its rights only."""
        return self._kubeconfig(f"{namespace}-{account}", {"token": self.token(namespace, account)}, namespace)

    def _kubeconfig(self, name: str, user: dict[str, str], namespace: str = "default") -> Path:
        path = self.folder / f"{name}.kubeconfig"
        path.write_text(keys.kubeconfig(self.keys, self.api, user, namespace))
        return path

    # -- faults

    def forget(self) -> int:
        """Compact etcd and restart the API server: a watch from an earlier revision is answered 410 then.

        Returns that revision. Without the restart the API server's own memory of the last changes would serve it.
        """
        revision = self.compact()
        self.stop_api()
        self.start_api()
        return revision

    def compact(self) -> int:
        """Make etcd forget every revision but the last one, which is returned."""
        revision = int(self._etcd("/v3/kv/range", {"key": _base64(b"\0")})["header"]["revision"])
        self._etcd("/v3/kv/compaction", {"revision": str(revision), "physical": True})
        return revision

    def _etcd(self, path: str, body: dict[str, Any]) -> Any:
        """One request to etcd's JSON gateway, which listens where gRPC does."""
        connection = _UnixConnection(f"{self.folder}/etcd.sock")
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        assert answer.status == 200, content
        return json.loads(content)

    def make_namespace(self, name: str = "", **labels: str) -> str:
        """A new namespace, once its default service account is there; its name."""
        name = name or f"t-{secrets.token_hex(4)}"
        self.call("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        self.until(lambda: self.exists(f"/api/v1/namespaces/{name}/serviceaccounts/default"))
        return name


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket file."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30.0)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _flags(**values: object) -> Iterator[str]:
    return (f"--{name.replace('_', '-')}={value}" for name, value in values.items())


def _free_port() -> int:
    """A port that kube-apiserver, which takes no 0, can have and keep over a restart."""
    while True:
        port = random.choice(PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
