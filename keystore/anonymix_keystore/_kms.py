"""Ways to unlock a store that ask a key management service, which logs and can refuse each opening."""

from __future__ import annotations

import base64
import http.client
import ipaddress
import json
import os
import secrets
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from typing import Any, NoReturn, Protocol

from anonymix_keystore._crypto import KEY_BYTES, encode
from anonymix_keystore._errors import (
    DamagedError,
    InvalidRequestError,
    UnlockUnavailableError,
    WrongKeyError,
)
from anonymix_keystore._unlock import Params, blob

_MOST_BYTES = 1 << 20
_CLIENT_FAULTS = range(400, 500)


class KeyService(Protocol):
    """A service that encrypts small values under a key that never leaves it."""

    kind: str

    def encrypt(self, plaintext: bytes, context: Mapping[str, str]) -> str:
        """Encrypt up to 4 KiB, bound to a context."""
        ...

    def decrypt(self, ciphertext: str, context: Mapping[str, str]) -> bytes:
        """Decrypt; the context has to be the same.

        Raises:
            WrongKeyError: The service holds no key that opens this.
            UnlockUnavailableError: It can't be reached, or refuses.
        """
        ...

    def describe(self) -> Params:
        """What may stand in the clear beside the ciphertext, to find the key again."""
        ...


class KmsUnlock:
    """Unlock by a key service: it wraps a random key-encryption key of the store's own.

    Args:
        service: ``AwsKms``, ``VaultTransit``, or anything that meets ``KeyService``.
    """

    def __init__(self, service: KeyService) -> None:
        self._service = service
        self.kind = service.kind

    def __repr__(self) -> str:
        return f"KmsUnlock({self._service!r})"

    def new_key(self, context: Mapping[str, str]) -> tuple[bytes, Params]:
        """Make a key-encryption key and have it wrapped."""
        key = secrets.token_bytes(KEY_BYTES)
        return key, {**self._service.describe(), "wrapped": self._service.encrypt(key, context)}

    def key(self, params: Mapping[str, Any], context: Mapping[str, str]) -> bytes:
        """Have the key-encryption key unwrapped.

        Raises:
            DamagedError: The parameters hold no wrapped key, or what comes back is no key.
        """
        wrapped = params.get("wrapped")
        if not isinstance(wrapped, str):
            raise DamagedError("the unlocking parameters are damaged")
        key = self._service.decrypt(wrapped, context)
        if len(key) != KEY_BYTES:
            raise DamagedError("the key service returned something that is no key")
        return key


class AwsKms:
    """AWS Key Management Service through boto3 (extra ``aws-kms``).

    Args:
        key_id: Id, ARN or alias of a symmetric key. The store's id goes along as encryption
            context, so that key policies and CloudTrail see which store is opened.
        region: AWS region; by default what boto3 finds.
        endpoint_url: Another endpoint (a VPC endpoint, a test server).
        client: A ready boto3 ``kms`` client in place of all that.

    Raises:
        InvalidRequestError: An endpoint that would carry keys in the clear (plain http to other machines).
        UnlockUnavailableError: boto3 is not installed, or knows no region.
    """

    kind = "aws-kms"

    def __init__(
        self, key_id: str, *, region: str | None = None, endpoint_url: str | None = None, client: Any = None
    ) -> None:
        try:
            import boto3
            import botocore.exceptions as faults
        except ImportError:
            raise UnlockUnavailableError(
                "boto3 is not installed", fix="pip install 'anonymix-plugin[aws-kms]'"
            ) from None
        self._key_id, self._faults = key_id, faults
        try:
            if client is None:
                client = boto3.client("kms", region_name=region, endpoint_url=endpoint_url)
        except (faults.BotoCoreError, ValueError) as error:
            raise UnlockUnavailableError(
                f"AWS KMS: {type(error).__name__}", where=key_id, fix="see to region and endpoint"
            ) from None
        # The variable AWS_ENDPOINT_URL and boto3's own configuration can name an endpoint, too.
        endpoint = getattr(getattr(client, "meta", None), "endpoint_url", None) or endpoint_url
        if isinstance(endpoint, str):
            _check_address(endpoint, "the endpoint of AWS KMS")
        self._client = client

    def __repr__(self) -> str:
        return f"AwsKms({self._key_id!r})"

    def describe(self) -> Params:
        """The key's id."""
        return {"key_id": self._key_id}

    def encrypt(self, plaintext: bytes, context: Mapping[str, str]) -> str:
        """Encrypt through the service."""
        found = self._call("encrypt", "CiphertextBlob", Plaintext=plaintext, EncryptionContext=dict(context))
        return base64.b64encode(found).decode()

    def decrypt(self, ciphertext: str, context: Mapping[str, str]) -> bytes:
        """Decrypt through the service; it also checks that this very key was used."""
        sealed = blob({"wrapped": ciphertext}, "wrapped")
        return self._call("decrypt", "Plaintext", CiphertextBlob=sealed, EncryptionContext=dict(context))

    def _call(self, operation: str, wanted: str, **arguments: Any) -> bytes:
        try:
            found = getattr(self._client, operation)(KeyId=self._key_id, **arguments)[wanted]
        except self._faults.ClientError as error:
            # The service's message may quote the request; its code is enough.
            code = error.response.get("Error", {}).get("Code", "unknown")
            if code in {"InvalidCiphertextException", "IncorrectKeyException"}:
                raise WrongKeyError("this AWS KMS key opens something else", where=self._key_id) from None
            raise UnlockUnavailableError(f"AWS KMS refuses: {code}", where=self._key_id) from None
        except Exception as error:  # noqa: BLE001 - what lies below boto3, and clients of anybody's
            raise UnlockUnavailableError(f"AWS KMS can't be used: {type(error).__name__}", where=self._key_id) from None
        if not isinstance(found, bytes):
            raise UnlockUnavailableError("the answer of AWS KMS makes no sense", where=self._key_id)
        return found


class VaultTransit:
    """HashiCorp Vault's transit engine, over its REST interface.

    The transit key must be of an AEAD type (``aes256-gcm96``, the default): the store's id goes
    along as associated data. ``min_decryption_version`` and rotation of the transit key work as
    usual; ``Keystore.change_unlock`` with the same method moves the store to the newest version.

    Args:
        key: Name of the transit key.
        address: ``https://...``; ``VAULT_ADDR`` by default. Plain http to this machine alone.
        token: ``VAULT_TOKEN`` by default; never shown.
        mount: Where the engine is mounted.
        namespace: ``VAULT_NAMESPACE`` by default, or none.
        ca_file: Certificate authority to trust; ``VAULT_CACERT`` by default, or the system's.
        timeout: Seconds.

    Raises:
        InvalidRequestError: An address that would send the token in the clear.
        UnlockUnavailableError: No address or no token.
    """

    kind = "vault-transit"

    def __init__(
        self,
        key: str,
        *,
        address: str | None = None,
        token: str | None = None,
        mount: str = "transit",
        namespace: str | None = None,
        ca_file: str | None = None,
        timeout: float = 10.0,
    ) -> None:
        address, token = address or _variable("VAULT_ADDR"), token or _variable("VAULT_TOKEN")
        if not address or not token:
            raise UnlockUnavailableError("Vault needs an address and a token", fix="set VAULT_ADDR and VAULT_TOKEN")
        namespace = namespace or _variable("VAULT_NAMESPACE")
        for name, value in (("token", token), ("namespace", namespace)):
            # A header with more in it would be another request, and its error would show the token.
            if not (value.isascii() and value.isprintable()):
                raise InvalidRequestError(
                    f"Vault's {name} holds a line end, or another character that no header can hold",
                    where=name,
                    fix=f"hand it over without (VAULT_{name.upper()})",
                )
        _check_address(address, "Vault's address")
        self._key, self._mount, self._address = key, mount, address.rstrip("/")
        self._headers = {
            "X-Vault-Token": token,
            "X-Vault-Request": "true",
            "Content-Type": "application/json",
        }
        if namespace:
            self._headers["X-Vault-Namespace"] = namespace
        self._timeout = timeout
        authority = ca_file or _variable("VAULT_CACERT") or None
        try:
            trust = ssl.create_default_context(cafile=authority)
        except OSError as error:
            raise UnlockUnavailableError(
                f"can't read the certificate authority: {type(error).__name__}",
                where=str(authority),
                fix="see to VAULT_CACERT",
            ) from None
        # Proxies and redirects could carry the token elsewhere.
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=trust), urllib.request.ProxyHandler({}), _NoRedirect()
        )

    def __repr__(self) -> str:
        return f"VaultTransit({self._key!r}, address={self._address!r})"

    def describe(self) -> Params:
        """The key's name and where the engine is mounted."""
        return {"key": self._key, "mount": self._mount}

    def encrypt(self, plaintext: bytes, context: Mapping[str, str]) -> str:
        """Encrypt through the engine."""
        text = base64.b64encode(plaintext).decode()
        ciphertext = self._call("encrypt", {"plaintext": text, **_associated(context)}, "ciphertext")
        if not ciphertext.startswith("vault:"):
            raise self._senseless()
        return ciphertext

    def decrypt(self, ciphertext: str, context: Mapping[str, str]) -> bytes:
        """Decrypt through the engine."""
        text = self._call("decrypt", {"ciphertext": ciphertext, **_associated(context)}, "plaintext")
        return blob({"plaintext": text}, "plaintext")

    def _call(self, operation: str, body: dict[str, str], wanted: str) -> str:
        mount, key = urllib.parse.quote(self._mount), urllib.parse.quote(self._key, safe="")
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            f"{self._address}/v1/{mount}/{operation}/{key}",
            json.dumps(body).encode(),
            self._headers,
            method="POST",
        )
        try:
            with self._opener.open(request, timeout=self._timeout) as answer:
                content = json.loads(answer.read(_MOST_BYTES))
            value = content["data"][wanted]
        except urllib.error.HTTPError as error:
            error.close()
            self._refused(operation, error.code)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise UnlockUnavailableError(
                f"Vault can't be reached: {type(reason).__name__}", where=self._address
            ) from None
        except (ValueError, KeyError, TypeError, RecursionError):
            value = None
        if not isinstance(value, str):
            raise self._senseless()
        return value

    def _senseless(self) -> UnlockUnavailableError:
        return UnlockUnavailableError("Vault's answer makes no sense", where=self._address)

    def _refused(self, operation: str, status: int) -> NoReturn:
        if operation == "decrypt" and status == 400:
            raise WrongKeyError("this transit key opens something else", where=self._key)
        meaning = {403: "permission denied", 404: "no such key or engine", 503: "sealed or in maintenance"}
        words = meaning.get(status, "the request was refused" if status in _CLIENT_FAULTS else "it failed")
        raise UnlockUnavailableError(f"Vault: {words} (status {status})", where=self._address) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _associated(context: Mapping[str, str]) -> dict[str, str]:
    raw = encode(item for pair in sorted(context.items()) for item in pair)
    return {"associated_data": base64.b64encode(raw).decode()}


def _variable(name: str) -> str:
    """An environment variable, without the line end that a secret from a file brings along."""
    return os.environ.get(name, "").rstrip("\r\n")


def _check_address(address: str, what: str) -> None:
    """See that what goes to an address goes there encrypted, or stays on this machine.

    Raises:
        InvalidRequestError: It does not, or it is no address.
    """
    try:
        parts = urllib.parse.urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise InvalidRequestError(f"{what} makes no sense", fix="write https://HOST:PORT") from None
    if "@" in parts.netloc or not address.isprintable() or " " in address:
        raise InvalidRequestError(f"{what} holds more than an address", fix="leave names and secrets out")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_local(host)):
        raise InvalidRequestError(
            f"{what} must begin with https://", where=address, fix="http:// is for this machine alone"
        )
    if not host:
        raise InvalidRequestError(f"{what} names no machine", where=address, fix="write https://HOST:PORT")


def _is_local(host: str | None) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
