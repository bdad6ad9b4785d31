"""Keys of a test cluster: an authority, certificates of server and clients, the service accounts' signing key."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

SERVER_NAMES = (
    "localhost",
    "127.0.0.1",
    "10.99.0.1",  # the pods' bridge
    "10.96.0.1",  # the Service `kubernetes`
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)


@dataclass(frozen=True, slots=True)
class Keys:
    """The files of one cluster, in one folder."""

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def accounts(self) -> Path:
        """The private key that signs service accounts' tokens; it serves as the public one too."""
        return self.folder / "accounts.key"

    def certificate(self, name: str) -> Path:
        return self.folder / f"{name}.crt"

    def key(self, name: str) -> Path:
        return self.folder / f"{name}.key"


def make(folder: Path) -> Keys:
    """Write all: for the clients `admin` (superuser) and `kube-controller-manager`, and for the server."""
    keys, authority = Keys(folder), trustme.CA()
    authority.cert_pem.write_to_path(keys.authority)
    # Names that no client has: without any the extension for them is critical and empty, which Go refuses.
    admin = authority.issue_cert("admin.invalid", common_name="admin", organization_name="system:masters")
    manager = authority.issue_cert("manager.invalid", common_name="system:kube-controller-manager")
    server = authority.issue_cert(*SERVER_NAMES)
    for name, pair in (("admin", admin), ("kube-controller-manager", manager), ("apiserver", server)):
        pair.private_key_pem.write_to_path(keys.key(name))
        for blob in pair.cert_chain_pems:
            blob.write_to_path(keys.certificate(name), append=True)
    keys.accounts.write_bytes(
        rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    return keys


def kubeconfig(keys: Keys, api: str, user: dict[str, str], namespace: str = "default") -> str:
    """A kubeconfig for one user, as JSON, which is YAML.

    Args:
        keys: The cluster's.
        api: The API server's address.
        user: What kubeconfig calls a user: ``client-certificate`` and ``client-key``, or ``token``.
        namespace: The one that is meant when none is named.
    """
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": api, "certificate-authority": str(keys.authority)}}],
        "users": [{"name": "user", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user", "namespace": namespace}}],
        "current-context": "test",
    }
    return json.dumps(document)
