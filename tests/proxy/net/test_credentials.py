"""Certificates and keys as files: what is read, what is refused and how that is told."""

from __future__ import annotations

import json
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from proxy.config import ProxySettings
from proxy.document import DocumentError, validate
from proxy.net.credentials import Credentials, paths, read, upstream_context
from tests.support.certificates import Authority, write_pair

AUTHORITY = Authority()
PAIR = AUTHORITY.issue("a.test")
OTHER = AUTHORITY.issue("b.test")


def settings(**changes: Any) -> ProxySettings:
    tls = {"certificates": [{"certFile": "a.crt", "keyFile": "a.key"}, {"certFile": "b.crt", "keyFile": "b.key"}]}
    upstream = {"caFile": "ca.crt", "certFile": "a.crt", "keyFile": "a.key"}
    return validate(ProxySettings, {"listeners": [{}, {"tls": tls}], "upstreamTls": upstream} | changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pair(tmp_path, "a", PAIR)
    write_pair(tmp_path, "b", OTHER)
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.pem)
    return tmp_path


def encrypted(key: bytes) -> bytes:
    return load_pem_private_key(key, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )


def test_every_file_is_read(folder: Path) -> None:
    """And what a worker is told of them is what was read."""
    found = read(settings(), folder)
    assert found == Credentials(((), (PAIR, OTHER)), AUTHORITY.pem, PAIR)
    assert Credentials.parse(json.loads(json.dumps(found.document()))) == found
    assert {path.name for path in paths(settings(), folder)} == {"a.crt", "a.key", "b.crt", "b.key", "ca.crt"}


def test_without_tls_nothing_is_read(tmp_path: Path) -> None:
    assert read(ProxySettings(), tmp_path) == Credentials(((),))
    assert paths(ProxySettings(), tmp_path) == []


def test_a_key_is_in_no_text_of_ours(folder: Path) -> None:
    """Threat model, A6: neither in a value's text nor in a fault."""
    secret = PAIR.key.split(b"\n")[1].decode()
    assert secret not in repr(read(settings(), folder))
    (folder / "a.crt").write_bytes(PAIR.key)
    with pytest.raises(DocumentError) as caught:
        read(settings(), folder)
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "field", "message"),
    [
        ("b.key", PAIR.key, "listeners[1].tls.certificates[1].keyFile", "does not belong to the certificate"),
        ("b.key", None, "listeners[1].tls.certificates[1].keyFile", "No such file"),
        ("b.key", b"", "listeners[1].tls.certificates[1].keyFile", "not PEM"),
        ("b.key", b"x" * 1_048_577, "listeners[1].tls.certificates[1].keyFile", "larger than"),
        ("b.key", encrypted(OTHER.key), "listeners[1].tls.certificates[1].keyFile", "encrypted"),
        ("b.crt", b"", "listeners[1].tls.certificates[1].certFile", "BEGIN CERTIFICATE"),
        ("b.crt", OTHER.certificate[:200], "listeners[1].tls.certificates[1].certFile", "BEGIN CERTIFICATE"),
        ("b.crt", b"\x00" * 100, "listeners[1].tls.certificates[1].certFile", "BEGIN CERTIFICATE"),
        ("ca.crt", b"nothing", "upstreamTls.caFile", "BEGIN CERTIFICATE"),
    ],
    ids=["mismatch", "missing", "empty key", "huge", "encrypted", "empty", "cut", "binary", "authority"],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_field(
    folder: Path, name: str, content: bytes | None, field: str, message: str
) -> None:
    """F32, F17: the field path, the file, and what is expected."""
    path = folder / name
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DocumentError) as caught:
        read(settings(), folder)
    faults = [fault for fault in caught.value.faults if fault.path == field]
    assert len(faults) == 1
    assert message in faults[0].message
    assert name in faults[0].message


def test_all_faults_are_told_at_once(folder: Path) -> None:
    for name in ("a.crt", "b.key"):
        os.unlink(folder / name)
    with pytest.raises(DocumentError) as caught:
        read(settings(), folder)
    assert {fault.path for fault in caught.value.faults} == {
        "listeners[1].tls.certificates[0].certFile",
        "listeners[1].tls.certificates[1].keyFile",
        "upstreamTls.certFile",
    }


def test_half_a_pair_for_services_is_refused() -> None:
    with pytest.raises(DocumentError, match="belong together"):
        settings(upstreamTls={"certFile": "a.crt"})


def test_services_are_always_verified(folder: Path) -> None:
    """There is no way to switch it off."""
    for found in (read(settings(), folder), Credentials()):
        context = upstream_context(found)
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_keys_of_both_kinds_are_taken(folder: Path) -> None:
    """RSA and elliptic curves."""
    write_pair(folder, "a", AUTHORITY.issue("a.test", key_type=trustme.KeyType.RSA))
    assert len(read(settings(), folder).listeners[1]) == 2
