"""Files of certificates that change while the proxy runs."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from proxy.config import ProxySettings, UpstreamTls
from proxy.document import DocumentError, validate
from proxy.net.credentials import Pair
from proxy.net.credfiles import RENEW_S, CredentialFiles
from tests.support.certificates import LONG_AGO, Authority, write_pair

AUTHORITY = Authority()
FIRST, SECOND = AUTHORITY.issue("a.test"), AUTHORITY.issue("a.test")
NOW_S = LONG_AGO.timestamp() + 1e8
SETTINGS = validate(
    ProxySettings, {"listeners": [{"tls": {"certificates": [{"certFile": "a.crt", "keyFile": "a.key"}]}}]}
)


@pytest.fixture
def files(tmp_path: Path) -> CredentialFiles:
    write_pair(tmp_path, "a", FIRST)
    return CredentialFiles(SETTINGS, tmp_path)


def looks(files: CredentialFiles, count: int = 3) -> list[bool]:
    return [files.look(NOW_S) for _ in range(count)]


def shown(files: CredentialFiles) -> Pair:
    return files.current.listeners[0][0]


def test_a_changed_pair_is_read_once_it_has_settled(files: CredentialFiles, tmp_path: Path) -> None:
    """F32: at the second look that finds it the same."""
    assert looks(files) == [False] * 3
    write_pair(tmp_path, "a", SECOND)
    assert looks(files) == [False, True, False]
    assert shown(files) == SECOND


def test_a_pair_that_is_half_written_is_waited_for(files: CredentialFiles, tmp_path: Path) -> None:
    """The certificate first, its key two looks later: refused meanwhile, then taken."""
    (tmp_path / "a.crt").write_bytes(SECOND.certificate)
    assert looks(files) == [False] * 3
    assert shown(files) == FIRST
    (tmp_path / "a.key").write_bytes(SECOND.key)
    assert looks(files) == [False, True, False]
    assert (shown(files), files.refused) == (SECOND, 1)


@pytest.mark.parametrize("name", ["a.crt", "a.key"])
def test_a_broken_pair_is_refused_once_and_the_old_one_kept(
    files: CredentialFiles, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """F32: said with the field path, counted, and not at every look again."""
    (tmp_path / name).write_bytes(b"garbage")
    assert looks(files, 10) == [False] * 10
    assert (shown(files), files.refused) == (FIRST, 1)
    assert len(caplog.records) == 1
    assert "listeners[0].tls.certificates[0]." in caplog.records[0].message
    assert FIRST.key.split(b"\n")[1].decode() not in caplog.text


def test_a_missing_file_is_refused_and_its_return_noticed(files: CredentialFiles, tmp_path: Path) -> None:
    os.rename(tmp_path / "a.key", tmp_path / "away")
    assert looks(files) == [False] * 3
    os.rename(tmp_path / "away", tmp_path / "a.key")
    looks(files)
    assert (shown(files), files.refused) == (FIRST, 1)


def test_a_swapped_link_is_noticed(tmp_path: Path) -> None:
    """As Kubernetes mounts a Secret: a.crt -> ..data/a.crt, ..data -> ..2026_1, and ..data is renamed over."""
    for version, pair in (("..1", FIRST), ("..2", SECOND)):
        (tmp_path / version).mkdir()
        write_pair(tmp_path / version, "a", pair)
    (tmp_path / "..data").symlink_to("..1")
    for name in ("a.crt", "a.key"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    files = CredentialFiles(SETTINGS, tmp_path)
    (tmp_path / "..tmp").symlink_to("..2")
    os.rename(tmp_path / "..tmp", tmp_path / "..data")
    assert looks(files) == [False, True, False]
    assert shown(files) == SECOND


def test_a_rewrite_of_the_same_is_no_change(files: CredentialFiles, tmp_path: Path) -> None:
    write_pair(tmp_path, "a", FIRST)
    assert looks(files) == [False] * 3


def test_contexts_are_made_anew_twice_a_day(files: CredentialFiles) -> None:
    """And with them the keys of session tickets."""
    times = [NOW_S, NOW_S + RENEW_S - 1, NOW_S + RENEW_S, NOW_S + RENEW_S + 1, NOW_S + 2 * RENEW_S]
    assert [files.look(now) for now in times] == [False, False, True, False, True]


def test_an_expired_certificate_is_used_with_a_warning(
    files: CredentialFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the newest that the operator gave; refusing it would only hide that from clients."""
    caplog.set_level(logging.INFO)
    expired = AUTHORITY.expired("a.test")
    write_pair(tmp_path, "a", expired)
    assert True in looks(files)
    assert shown(files) == expired
    assert "listeners[0]: the certificate for a.test has expired" in caplog.text


def test_when_certificates_end_is_known(tmp_path: Path) -> None:
    """Of those in use, whatever is in the files by now."""
    expired = AUTHORITY.expired("a.test")
    write_pair(tmp_path, "a", expired)
    files = CredentialFiles(
        SETTINGS.model_copy(update={"upstream_tls": UpstreamTls(cert_file="a.crt", key_file="a.key")}), tmp_path
    )
    (tmp_path / "a.crt").write_bytes(b"garbage")
    looks(files)
    assert files.expiries() == {"a.crt": LONG_AGO.timestamp()}


def test_a_start_with_a_broken_pair_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path, "a", Pair(FIRST.certificate, SECOND.key))
    with pytest.raises(DocumentError, match=r"listeners\[0\].tls.certificates\[0\].keyFile"):
        CredentialFiles(SETTINGS, tmp_path)
