"""Key services, against local servers that speak their wire formats."""

from __future__ import annotations

import base64
import json
import secrets
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from anonymix_keystore import (
    AwsKms,
    DamagedError,
    InvalidRequestError,
    Keystore,
    KmsUnlock,
    UnlockUnavailableError,
    VaultTransit,
    WrongKeyError,
)

TOKEN = "s.very-secret-token"


class Service:
    """What both servers share: versioned AES-GCM keys, a log, and a way to misbehave."""

    def __init__(self) -> None:
        self.keys: dict[str, list[bytes]] = {}
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.override: tuple[int, bytes] | None = None
        self.url = ""

    def add(self, name: str) -> None:
        self.keys.setdefault(name, []).append(secrets.token_bytes(32))

    def seal(self, name: str, plaintext: bytes, bound: bytes) -> tuple[int, bytes]:
        version = len(self.keys[name])
        nonce = secrets.token_bytes(12)
        return version, nonce + AESGCM(self.keys[name][-1]).encrypt(nonce, plaintext, bound)

    def unseal(self, name: str, version: int, sealed: bytes, bound: bytes) -> bytes | None:
        try:
            return AESGCM(self.keys[name][version - 1]).decrypt(sealed[:12], sealed[12:], bound)
        except (InvalidTag, IndexError):
            return None


def serve(service: Service, answer: Any) -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            service.requests.append((self.path, headers, body))
            status, content = service.override or answer(service, self.path, headers, body)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if status in {301, 302, 307}:
                self.send_header("Location", service.url + "/elsewhere")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield service
    server.shutdown()
    thread.join()
    server.server_close()


def aws_answer(service: Service, _: str, headers: dict[str, str], body: dict[str, Any]) -> tuple[int, bytes]:
    """AWS KMS: JSON 1.1, the operation in X-Amz-Target; a ciphertext names its key."""
    assert headers["content-type"] == "application/x-amz-json-1.1"
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 ")
    bound = json.dumps(body["EncryptionContext"], sort_keys=True).encode()
    name = body["KeyId"]
    if name not in service.keys:
        return 400, b'{"__type":"NotFoundException","message":"no key"}'
    if headers["x-amz-target"] == "TrentService.Encrypt":
        _, sealed = service.seal(name, base64.b64decode(body["Plaintext"]), bound)
        blob = base64.b64encode(name.encode() + b"|" + sealed).decode()
        return 200, json.dumps({"CiphertextBlob": blob, "KeyId": name}).encode()
    assert headers["x-amz-target"] == "TrentService.Decrypt"
    owner, _, sealed = base64.b64decode(body["CiphertextBlob"]).partition(b"|")
    if owner.decode("latin1") != name:
        return 400, b'{"__type":"IncorrectKeyException","message":"another key"}'
    plaintext = service.unseal(name, 1, sealed, bound)
    if plaintext is None:
        return 400, b'{"__type":"InvalidCiphertextException"}'
    return 200, json.dumps({"Plaintext": base64.b64encode(plaintext).decode(), "KeyId": name}).encode()


def vault_answer(service: Service, path: str, headers: dict[str, str], body: dict[str, Any]) -> tuple[int, bytes]:
    """Vault's transit engine: /v1/<mount>/<operation>/<key>, ciphertexts "vault:v<n>:<base64>"."""
    if headers["x-vault-token"] != TOKEN:
        return 403, b'{"errors":["permission denied"]}'
    _, version, mount, operation, name = path.split("/")
    if (version, mount) != ("v1", "transit") or name not in service.keys:
        return 404, b'{"errors":[]}'
    bound = base64.b64decode(body["associated_data"])
    if operation == "encrypt":
        number, sealed = service.seal(name, base64.b64decode(body["plaintext"]), bound)
        text = f"vault:v{number}:{base64.b64encode(sealed).decode()}"
        return 200, json.dumps({"data": {"ciphertext": text, "key_version": number}}).encode()
    _, number_text, text = body["ciphertext"].split(":")
    plaintext = service.unseal(name, int(number_text[1:]), base64.b64decode(text), bound)
    if plaintext is None:
        return 400, b'{"errors":["cipher: message authentication failed"]}'
    return 200, json.dumps({"data": {"plaintext": base64.b64encode(plaintext).decode()}}).encode()


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    service = Service()
    service.add("alias/anonymix")
    service.add("alias/other")
    yield from serve(service, aws_answer)


@pytest.fixture
def vault(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    service = Service()
    service.add("anonymix")
    service.add("other")
    for started in serve(service, vault_answer):
        monkeypatch.setenv("VAULT_ADDR", started.url)
        monkeypatch.setenv("VAULT_TOKEN", TOKEN)
        yield started


def aws_unlock(aws: Service, key: str = "alias/anonymix") -> KmsUnlock:
    return KmsUnlock(AwsKms(key, endpoint_url=aws.url))


# --- AWS --------------------------------------------------------------------------------------------


def test_aws_kms_opens_what_it_locked(aws: Service, path: Path) -> None:
    with Keystore.create(path, aws_unlock(aws)) as store:
        key = store.issue("alice")
    with Keystore.open(path, aws_unlock(aws)) as store:
        assert store.current("alice") == key
    kind, params = Keystore.locked_by(path)
    assert (kind, params["key_id"]) == ("aws-kms", "alias/anonymix")
    _, _, body = aws.requests[-1]
    assert set(body["EncryptionContext"]) == {"anonymix-store", "anonymix-purpose"}
    assert repr(aws_unlock(aws)) == "KmsUnlock(AwsKms('alias/anonymix'))"


def test_another_aws_key_does_not_open(aws: Service, path: Path) -> None:
    Keystore.create(path, aws_unlock(aws)).close()
    with pytest.raises(WrongKeyError):
        Keystore.open(path, aws_unlock(aws, "alias/other"))
    aws.keys["alias/anonymix"] = [secrets.token_bytes(32)]
    with pytest.raises(WrongKeyError):
        Keystore.open(path, aws_unlock(aws))


def test_aws_faults_are_told_without_details(aws: Service, path: Path, monkeypatch) -> None:
    Keystore.create(path, aws_unlock(aws)).close()
    aws.override = (400, b'{"__type":"AccessDeniedException","message":"arn:secret is not allowed"}')
    with pytest.raises(UnlockUnavailableError, match="AccessDeniedException") as caught:
        Keystore.open(path, aws_unlock(aws))
    assert "arn:secret" not in str(caught.value)
    with pytest.raises(UnlockUnavailableError, match="EndpointConnectionError"):
        Keystore.open(path, KmsUnlock(AwsKms("k", endpoint_url="http://127.0.0.1:9")))
    with pytest.raises(UnlockUnavailableError):
        Keystore.create(path.with_name("new"), aws_unlock(aws, "alias/none"))
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(UnlockUnavailableError, match="NoRegionError"):
        AwsKms("k")
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(UnlockUnavailableError, match="pip install"):
        AwsKms("k")


# --- Vault ------------------------------------------------------------------------------------------


def test_which_secret_a_key_service_refuses_is_told(aws: Service, vault: Service, path: Path) -> None:
    """A store and its second secret may lie with two services, and either may say no."""
    vault.add("other")
    second = KmsUnlock(VaultTransit("anonymix"))
    with Keystore.create(path, aws_unlock(aws)) as store:
        store.originals.enable(second)
        with pytest.raises(WrongKeyError, match="this transit key does not open the store's second secret"):
            store.originals.unlock(KmsUnlock(VaultTransit("other")))
        vault.override = (403, b"{}")
        with pytest.raises(UnlockUnavailableError, match="the store's second secret: Vault: permission denied"):
            store.originals.unlock(second)


def test_vault_opens_what_it_locked(vault: Service, path: Path) -> None:
    with Keystore.create(path, KmsUnlock(VaultTransit("anonymix"))) as store:
        key = store.issue("alice")
    with Keystore.open(path, KmsUnlock(VaultTransit("anonymix"))) as store:
        assert store.current("alice") == key
    kind, params = Keystore.locked_by(path)
    assert (kind, params["key"], params["mount"]) == ("vault-transit", "anonymix", "transit")
    assert params["wrapped"].startswith("vault:v1:")
    assert TOKEN not in repr(VaultTransit("anonymix"))


def test_vault_key_rotation_goes_on_and_relocking_moves_to_the_newest(vault: Service, path: Path) -> None:
    unlock = KmsUnlock(VaultTransit("anonymix", namespace="team"))
    Keystore.create(path, unlock).close()
    vault.add("anonymix")
    with Keystore.open(path, unlock) as store:
        store.change_unlock(unlock)
    assert Keystore.locked_by(path)[1]["wrapped"].startswith("vault:v2:")
    Keystore.open(path, unlock).close()
    assert vault.requests[-1][1]["x-vault-namespace"] == "team"


def test_another_transit_key_does_not_open(vault: Service, path: Path) -> None:
    Keystore.create(path, KmsUnlock(VaultTransit("anonymix"))).close()
    with pytest.raises(WrongKeyError):
        Keystore.open(path, KmsUnlock(VaultTransit("other")))


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (403, b"{}", "permission denied"),
        (404, b"{}", "no such key"),
        (503, b"{}", "sealed"),
        (418, b"{}", "refused"),
        (500, b"{}", "failed"),
        (302, b"{}", "failed"),
        (200, b"no json", "no sense"),
        (200, b"{}", "no sense"),
        (200, b"[1]", "no sense"),
        (200, b'{"data":{"plaintext":7}}', "no sense"),
    ],
)
def test_vault_faults_are_told(vault: Service, path: Path, status: int, content: bytes, words: str) -> None:
    Keystore.create(path, KmsUnlock(VaultTransit("anonymix"))).close()
    asked = len(vault.requests)
    vault.override = (status, content)
    with pytest.raises(UnlockUnavailableError, match=words) as caught:
        Keystore.open(path, KmsUnlock(VaultTransit("anonymix")))
    assert TOKEN not in str(caught.value)
    assert len(vault.requests) == asked + 1  # a redirect is not followed: it would carry the token along


def test_a_wrong_token_is_told(vault: Service, path: Path) -> None:
    with pytest.raises(UnlockUnavailableError, match="permission denied"):
        Keystore.create(path, KmsUnlock(VaultTransit("anonymix", token="wrong")))
    assert not path.exists()


def test_an_answer_that_is_no_ciphertext_locks_nothing(vault: Service, path: Path) -> None:
    vault.override = (200, b'{"data":{"ciphertext":"hello"}}')
    with pytest.raises(UnlockUnavailableError):
        Keystore.create(path, KmsUnlock(VaultTransit("anonymix")))
    assert not path.exists()


def test_vault_needs_an_address_that_keeps_the_token_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    with pytest.raises(UnlockUnavailableError):
        VaultTransit("k", token=TOKEN)
    for address in ("http://vault.example:8200", "http://10.0.0.1", "ftp://127.0.0.1", "http://"):
        with pytest.raises(InvalidRequestError):
            VaultTransit("k", address=address, token=TOKEN)
    for address in ("https://vault.example", "http://localhost:8200", "http://[::1]:8200"):
        VaultTransit("k", address=address, token=TOKEN)


def test_an_unreachable_vault_is_told(path: Path) -> None:
    unlock = KmsUnlock(VaultTransit("k", address="http://127.0.0.1:9", token=TOKEN))
    with pytest.raises(UnlockUnavailableError, match="can't be reached"):
        Keystore.create(path, unlock)


def test_parameters_and_answers_that_are_no_key_are_refused(vault: Service) -> None:
    unlock = KmsUnlock(VaultTransit("anonymix"))
    with pytest.raises(DamagedError):
        unlock.key({}, {})
    vault.override = (200, b'{"data":{"plaintext":"c2hvcnQ="}}')
    with pytest.raises(DamagedError):
        unlock.key({"wrapped": "vault:v1:xx"}, {})
    vault.override = (200, b'{"data":{"plaintext":"no base64!"}}')
    with pytest.raises(DamagedError):
        unlock.key({"wrapped": "vault:v1:xx"}, {})
