"""Secrets and stores as containers mount them, and what services without manners answer."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from anonymix_keystore import (
    AwsKms,
    InsecureKeyFileError,
    InvalidRequestError,
    KeyFileUnlock,
    Keystore,
    KmsUnlock,
    ReadOnlyError,
    UnlockUnavailableError,
    VaultTransit,
)
from anonymix_keystore._unlock import _check_rights

ROOT, ME = 0, 4_711
TOKEN = "hvs.only-for-this-test"
MOUNTED = "a read-only mount needs root on Linux"


def status(mode: int, owner: int) -> os.stat_result:
    return os.stat_result((stat.S_IFREG | mode, 1, 1, 1, owner, 0, 65, 0, 0, 0))


@pytest.mark.parametrize(
    ("mode", "owner", "fixed", "fine"),
    [
        (0o600, ME, False, True),
        (0o400, ROOT, False, True),
        (0o440, ROOT, False, True),  # Kubernetes makes this of 0400 where a pod has an fsGroup
        (0o640, ROOT, False, True),
        (0o440, ROOT, True, True),
        (0o444, ROOT, True, True),  # Docker's and Kubernetes' default
        (0o644, ROOT, True, True),
        (0o444, ROOT, False, False),
        (0o660, ROOT, True, False),
        (0o646, ROOT, True, False),
        (0o440, ME, False, False),
        (0o444, ME, True, False),
        (0o600, 12, False, False),
        (0o440, 12, True, False),
    ],
)
def test_a_key_file_may_be_read_by_whom_root_let_and_changed_by_nobody(
    mode: int, owner: int, fixed: bool, fine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: ME)
    if fine:
        _check_rights(status(mode, owner), fixed, "/run/secrets/key")
        return
    with pytest.raises(InsecureKeyFileError) as told:
        _check_rights(status(mode, owner), fixed, "/run/secrets/key")
    # Only who may change the file's mode is told to.
    assert ("chmod" in told.value.fix) == (owner == ME and not fixed)
    assert told.value.fix


def test_root_itself_minds_its_own_key_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: ROOT)
    with pytest.raises(InsecureKeyFileError, match="chmod 600"):
        _check_rights(status(0o640, ROOT), fixed=False, where="k")
    _check_rights(status(0o444, ROOT), fixed=True, where="k")


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    mounted: list[Path] = []

    def mount(folder: Path) -> None:
        tool = shutil.which("mount")
        if tool is None or os.name != "posix" or os.geteuid() != 0:
            pytest.skip(MOUNTED)
        for words in (["--bind", str(folder), str(folder)], ["-o", "remount,bind,ro", str(folder)]):
            if subprocess.run([tool, *words], check=False, capture_output=True).returncode:
                pytest.skip(MOUNTED)
            if folder not in mounted:
                mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)


def test_a_key_file_on_a_read_only_mount_is_taken_as_it_is(
    path: Path, tmp_path: Path, read_only: Callable[[Path], None]
) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    unlock = KeyFileUnlock.generate(folder / "key")
    Keystore.create(path, unlock).close()
    (folder / "key").chmod(0o444)
    with pytest.raises(InsecureKeyFileError):
        Keystore.open(path, unlock)
    read_only(folder)
    Keystore.open(path, unlock).close()


def test_a_store_on_a_read_only_mount_is_told_with_a_cure(
    tmp_path: Path, unlock: KeyFileUnlock, read_only: Callable[[Path], None]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    Keystore.create(folder / "k.db", unlock).close()
    read_only(folder)
    with pytest.raises(ReadOnlyError, match="read-only mount") as told:
        Keystore.open(folder / "k.db", unlock)
    assert "copy" in told.value.fix
    (tmp_path / "copy.db").write_bytes((folder / "k.db").read_bytes())
    Keystore.open(tmp_path / "copy.db", unlock).close()


def test_where_mounts_are_unknown_nothing_is_read_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from anonymix_keystore import _database, _unlock

    monkeypatch.delattr(os, "fstatvfs")
    assert not _unlock._is_read_only(0)
    assert not _database.on_read_only_mount(str(tmp_path / "no folder" / "k.db"))


# --- key services -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        b"this is no HTTP\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 100_000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b'{"data":' * 50_000,
        b"",
    ],
    ids=["no HTTP", "no status", "cut", "no chunk", "long line", "deep list", "deep object", "nothing"],
)
def test_answers_that_are_no_vaults_are_told(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        vault = VaultTransit("k", address=f"http://127.0.0.1:{server.getsockname()[1]}", token=TOKEN, timeout=60)
        with pytest.raises(UnlockUnavailableError, match="Vault") as told:
            KmsUnlock(vault).key({"wrapped": "vault:v1:AA=="}, {})
        thread.join(60)
    assert TOKEN not in str(told.value)


@pytest.mark.parametrize("token", ["a\nb", "a\r\nX: y", "schlüssel", "a\0b"])
def test_a_token_that_no_header_can_hold_is_told_and_not_shown(token: str) -> None:
    for given in ({"token": token}, {"token": TOKEN, "namespace": token}):
        with pytest.raises(InvalidRequestError, match="header") as told:
            VaultTransit("k", address="https://vault.example", **given)
        assert token not in str(told.value)


def test_the_line_end_of_a_secret_from_a_file_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAULT_ADDR", "https://vault.example\n")
    monkeypatch.setenv("VAULT_TOKEN", f"{TOKEN}\r\n")
    assert VaultTransit("k")._headers["X-Vault-Token"] == TOKEN


@pytest.mark.parametrize(
    "address",
    [
        "http://kms.example",
        "http://127.0.0.1@kms.example",
        "https://user:word@kms.example",
        "ftp://kms.example",
        "kms.example",
        "https://",
        "https://[::1",
        "https://kms.example:port",
        "https://kms.example\n.evil.example",
    ],
)
def test_key_services_are_asked_at_safe_addresses_alone(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidRequestError) as told:
        VaultTransit("k", address=address, token=TOKEN)
    assert "word" not in str(told.value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with pytest.raises((InvalidRequestError, UnlockUnavailableError)):
        AwsKms("k", endpoint_url=address)


def test_an_endpoint_in_the_clear_is_refused_wherever_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    boto3 = pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    client = boto3.client("kms", endpoint_url="http://kms.example")
    with pytest.raises(InvalidRequestError, match="https"):
        AwsKms("k", client=client)
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://kms.example")
    with pytest.raises(InvalidRequestError, match="https"):
        AwsKms("k")
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:9")
    AwsKms("k")


@pytest.mark.parametrize("answer", [KeyError("Plaintext"), RecursionError(), {"Plaintext": "text"}, {}])
def test_what_a_client_of_aws_does_is_told_as_ours(answer: object) -> None:
    class Client:
        def decrypt(self, **_: object) -> object:
            if isinstance(answer, Exception):
                raise answer
            return answer

    with pytest.raises(UnlockUnavailableError, match="AWS KMS"):
        AwsKms("k", client=Client()).decrypt("AAAA", {})


def test_a_certificate_authority_that_is_not_there_is_told() -> None:
    with pytest.raises(UnlockUnavailableError, match="certificate authority"):
        VaultTransit("k", address="https://vault.example", token=TOKEN, ca_file="/no/such/file")
