"""The Secret of an installation in a cluster: its keys and the certificate of its control ports, made once.

Whoever makes them anew deals all users anew, so a Secret that is there is never written to.
"""

from __future__ import annotations

import asyncio
import base64
import datetime
import os
import secrets
import ssl
from pathlib import Path
from typing import Any

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controller.errors import Permanent, Temporary
from proxy import keys

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CERTIFICATE, PRIVATE_KEY = "tls.crt", "tls.key"  # as Secrets of type kubernetes.io/tls have them
CONTROL_NAME = "cohort-control"  # in the certificate; who connects asks for this name, whatever the address
LIFE = datetime.timedelta(days=3650)  # it is pinned, so nothing but a new Secret renews it
REQUEST_S = 30.0


def contents(now: datetime.datetime) -> dict[str, bytes]:
    """New keys, by file name as in a keys directory, and the certificate of the control ports.

    Args:
        now: Where the certificate's life begins, with its time zone.
    """
    made = {name: keys.serialise(secrets.token_bytes(keys.SECRET_BYTES)) for name in keys.NAMES}
    return made | _certificate(now)


def manifest(name: str, namespace: str, data: dict[str, bytes]) -> dict[str, Any]:
    """The Secret as an object of the API."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app.kubernetes.io/part-of": "cohort"}},
        "type": "Opaque",
        "data": {file: base64.b64encode(content).decode() for file, content in data.items()},
    }


def create(secret: dict[str, Any], account: Path = ACCOUNT) -> bool:
    """Create the Secret as the service account of this pod.

    Args:
        account: The folder with the account's token and the API server's authority.

    Returns:
        Whether it is new; False: there was one, which is left as it is.

    Raises:
        Permanent: This is no pod with a service account, or it may not create Secrets.
        Temporary: The API server is not reached, or does not work now.
    """
    return asyncio.run(_create(secret, account))


async def _create(secret: dict[str, Any], account: Path) -> bool:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise Permanent("KUBERNETES_SERVICE_HOST is not set: --create is for a pod in a cluster")
    try:
        token = (account / "token").read_text().strip()
        trust = ssl.create_default_context(cafile=str(account / "ca.crt"))
    except OSError as error:
        raise Permanent(f"{account}: expected the files of a service account: {error.strerror or error}") from None
    address = f"[{host}]" if ":" in host else host
    url = f"https://{address}:{port}/api/v1/namespaces/{secret['metadata']['namespace']}/secrets"
    headers = {"Authorization": f"Bearer {token}"}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_S)) as session,
            session.post(url, json=secret, headers=headers, ssl=trust) as answer,
        ):
            return _outcome(answer.status, await answer.text())
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Temporary(f"the API server at {address}:{port} is not reached: {error!r}") from None


def _outcome(status: int, text: str) -> bool:
    if status in (201, 409):
        return status == 201
    message = f"the API server answered {status}: {text[:500]}"
    raise Temporary(message) if status >= 500 or status == 429 else Permanent(message)


def _certificate(now: datetime.datetime) -> dict[str, bytes]:
    """A certificate that is its own authority, and its private key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, CONTROL_NAME)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # a node's clock may be behind
        .not_valid_after(now + LIFE)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(CONTROL_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {CERTIFICATE: made.public_bytes(pem), PRIVATE_KEY: private}
