"""Ways to unlock a store that need nothing but this machine."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from anonymix_keystore import _asked
from anonymix_keystore._asked import exact
from anonymix_keystore._crypto import KEY_BYTES, derive
from anonymix_keystore._database import check_not_beside
from anonymix_keystore._errors import (
    DamagedError,
    InsecureKeyFileError,
    InvalidRequestError,
    StoreExistsError,
    UnlockUnavailableError,
    WrongKeyError,
)
from anonymix_keystore._held import is_live

Params = dict[str, str | int]


@runtime_checkable
class Unlock(Protocol):
    """A way to unlock a store: it yields the key-encryption key under which the root key lies.

    The store calls ``new_key`` once, when it is locked up in this way, and keeps the parameters in
    the clear; ``key`` has to give the same 32 bytes back from them.
    """

    kind: str

    def new_key(self, context: Mapping[str, str]) -> tuple[bytes, Params]:
        """Make a key-encryption key for a store and the parameters to find it again."""
        ...

    def key(self, params: Mapping[str, Any], context: Mapping[str, str]) -> bytes:
        """Find the key-encryption key again."""
        ...


@dataclass(frozen=True, slots=True)
class Argon2Cost:
    """Cost of Argon2id (RFC 9106); the default takes about 0.4 s.

    Attributes:
        memory_kib: Memory in KiB, 8,192 to 4,194,304.
        passes: Passes over the memory, 1 to 64.
        lanes: Parallel lanes, 1 to 64.
    """

    memory_kib: int = 65_536
    passes: int = 3
    lanes: int = 4

    def __post_init__(self) -> None:
        # The bounds hold for parameters read from a file, too: a changed one must neither weaken
        # the passphrase nor eat all memory.
        fine = 8_192 <= self.memory_kib <= 4_194_304 and 1 <= self.passes <= 64 and 1 <= self.lanes <= 64
        if not fine:
            raise InvalidRequestError("the Argon2id cost is out of range")


@dataclass(frozen=True, slots=True)
class ScryptCost:
    """Cost of scrypt (RFC 7914), for builds of ``cryptography`` without Argon2id.

    Attributes:
        log2_n: Base-2 logarithm of the cost, 14 to 22; the default takes 128 MiB.
        r: Block size, 8 to 32.
        p: Parallelism, 1 to 16.
    """

    log2_n: int = 17
    r: int = 8
    p: int = 1

    def __post_init__(self) -> None:
        if not (14 <= self.log2_n <= 22 and 8 <= self.r <= 32 and 1 <= self.p <= 16):
            raise InvalidRequestError("the scrypt cost is out of range")


def _number(params: Mapping[str, Any], name: str) -> int:
    value = params.get(name)
    if not isinstance(value, int):
        raise DamagedError("the unlocking parameters are damaged")
    return value


def blob(params: Mapping[str, Any], name: str) -> bytes:
    """A parameter that holds bytes in base64."""
    try:
        return base64.b64decode(params[name], validate=True)
    except (KeyError, TypeError, ValueError):
        raise DamagedError("the unlocking parameters are damaged") from None


class PassphraseUnlock:
    """Unlock by a passphrase, stretched with Argon2id (RFC 9106).

    Where the installed ``cryptography`` has no Argon2id, scrypt (RFC 7914) is used; the parameters
    say which. A store that was locked with a lower cost is upgraded by ``Keystore.change_unlock``.

    Args:
        passphrase: Not empty. Unicode is taken as it is, in UTF-8.
        cost: Cost for stores locked from now on.

    Raises:
        InvalidRequestError: The passphrase is empty.
    """

    kind = "passphrase"

    def __init__(self, passphrase: str | bytes, *, cost: Argon2Cost | ScryptCost | None = None) -> None:
        if isinstance(passphrase, str):
            # What UTF-8 can't say came from bytes that are none, and is turned back into them.
            try:
                raw = exact(passphrase).encode("utf-8", "surrogateescape")
            except UnicodeEncodeError:  # which holds the passphrase
                raise InvalidRequestError("passphrase holds half a character", where="passphrase") from None
        elif isinstance(passphrase, bytes | bytearray | memoryview):
            raw = bytes(passphrase)
        else:
            raise InvalidRequestError(
                f"passphrase must be a text or bytes, not {type(passphrase).__name__}", where="passphrase"
            )
        if not raw:
            raise InvalidRequestError("the passphrase is empty")
        self._passphrase = raw
        self._cost = Argon2Cost() if cost is None else cost

    def __repr__(self) -> str:
        return "PassphraseUnlock(...)"

    def new_key(self, context: Mapping[str, str]) -> tuple[bytes, Params]:  # noqa: ARG002
        """Stretch the passphrase with a new salt."""
        salt = secrets.token_bytes(16)
        if isinstance(self._cost, Argon2Cost):
            try:
                return self._argon2(salt, self._cost), _argon2_params(salt, self._cost)
            except UnsupportedAlgorithm:
                cost = ScryptCost()
        else:
            cost = self._cost
        return self._scrypt(salt, cost), _scrypt_params(salt, cost)

    def key(self, params: Mapping[str, Any], context: Mapping[str, str]) -> bytes:  # noqa: ARG002
        """Stretch the passphrase as the parameters say.

        Raises:
            DamagedError: The parameters make no sense.
            UnlockUnavailableError: This build of ``cryptography`` lacks the function.
        """
        salt = blob(params, "salt")
        try:
            if params.get("kdf") == "argon2id":
                return self._argon2(
                    salt,
                    Argon2Cost(_number(params, "memory_kib"), _number(params, "passes"), _number(params, "lanes")),
                )
            if params.get("kdf") == "scrypt":
                return self._scrypt(
                    salt, ScryptCost(_number(params, "log2_n"), _number(params, "r"), _number(params, "p"))
                )
        except InvalidRequestError:
            raise DamagedError("the unlocking parameters are out of range") from None
        except UnsupportedAlgorithm:
            raise UnlockUnavailableError(
                "this build of cryptography lacks Argon2id", fix="install a build with OpenSSL 3.2 or later"
            ) from None
        raise DamagedError("the unlocking parameters name an unknown function")

    def outdated(self, params: Mapping[str, Any]) -> bool:
        """Whether a store with these parameters would be locked at another cost today."""
        if isinstance(self._cost, Argon2Cost):
            today = _argon2_params(b"", self._cost)
        else:
            today = _scrypt_params(b"", self._cost)
        return any(params.get(name) != value for name, value in today.items() if name != "salt")

    def _argon2(self, salt: bytes, cost: Argon2Cost) -> bytes:
        function = Argon2id(
            salt=salt, length=KEY_BYTES, iterations=cost.passes, lanes=cost.lanes, memory_cost=cost.memory_kib
        )
        return function.derive(self._passphrase)

    def _scrypt(self, salt: bytes, cost: ScryptCost) -> bytes:
        return Scrypt(salt=salt, length=KEY_BYTES, n=1 << cost.log2_n, r=cost.r, p=cost.p).derive(self._passphrase)


def _argon2_params(salt: bytes, cost: Argon2Cost) -> Params:
    return {
        "kdf": "argon2id",
        "memory_kib": cost.memory_kib,
        "passes": cost.passes,
        "lanes": cost.lanes,
        "salt": base64.b64encode(salt).decode(),
    }


def _scrypt_params(salt: bytes, cost: ScryptCost) -> Params:
    return {
        "kdf": "scrypt",
        "log2_n": cost.log2_n,
        "r": cost.r,
        "p": cost.p,
        "salt": base64.b64encode(salt).decode(),
    }


class SecretUnlock:
    """Base of the ways that hold 32 random bytes somewhere: a key per store comes by HKDF."""

    kind = "secret"

    def _secret(self) -> bytes:
        raise NotImplementedError

    def new_key(self, context: Mapping[str, str]) -> tuple[bytes, Params]:  # noqa: ARG002
        """Derive the store's key-encryption key with a new salt."""
        salt = secrets.token_bytes(KEY_BYTES)
        return derive(self._secret(), salt, f"unlock/{self.kind}"), {"salt": base64.b64encode(salt).decode()}

    def key(self, params: Mapping[str, Any], context: Mapping[str, str]) -> bytes:  # noqa: ARG002
        """Derive the store's key-encryption key again."""
        return derive(self._secret(), blob(params, "salt"), f"unlock/{self.kind}")


def decode_secret(text: str, where: str) -> bytes:
    """Read 32 bytes written as 64 hex digits or as base64.

    Raises:
        WrongKeyError: It is neither.
    """
    text = text.strip()
    try:
        raw = bytes.fromhex(text) if len(text) == 2 * KEY_BYTES else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        raw = b""
    if len(raw) != KEY_BYTES:
        raise WrongKeyError("not a key: 64 hex digits or the base64 of 32 bytes are expected", where=where)
    return raw


class KeyFileUnlock(SecretUnlock):
    """Unlock by a file with 32 random bytes, as 64 hex digits or base64.

    On POSIX the file must belong to the user, and nobody else may read it (0600); or to root, who may
    let a group read it (0440), and everybody where its mount is read-only (0444, as containers' secrets
    are mounted).

    Args:
        path: The file; it is read each time the store is unlocked.
    """

    kind = "key-file"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = _asked.path(path, "path")

    def __repr__(self) -> str:
        return f"KeyFileUnlock({str(self._path)!r})"

    @classmethod
    def generate(cls, path: str | os.PathLike[str]) -> KeyFileUnlock:
        """Make a new key file (0600).

        Raises:
            StoreExistsError: There is already a file, or SQLite would take it for one of a store's.
            UnlockUnavailableError: It can't be written.
        """
        made = cls(path)
        check_not_beside(made._path)
        try:
            handle = os.open(made._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            raise StoreExistsError("there is already a file here", where=str(path), fix="choose another path") from None
        except OSError as error:
            raise UnlockUnavailableError(f"can't write the key file: {error.strerror}", where=str(path)) from None
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        return made

    def _secret(self) -> bytes:
        where = str(self._path)
        if is_live(self._path):
            raise UnlockUnavailableError("this is the keystore, not a key file", where=where)
        try:
            # Rights are asked of the open file, so that it can't be exchanged in between.
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                content = file.read(4096)
                fixed = _is_read_only(file.fileno())
        except OSError as error:
            raise UnlockUnavailableError(f"can't read the key file: {error.strerror}", where=where) from None
        if os.name == "posix":
            _check_rights(status, fixed, where)
        return decode_secret(content.decode("ascii", "replace"), where)


def _is_read_only(descriptor: int) -> bool:
    """Whether the file lies on a mount that nobody here can write to (never, where the system can't say)."""
    if not hasattr(os, "fstatvfs"):
        return False
    return bool(os.fstatvfs(descriptor).f_flag & os.ST_RDONLY)


def _check_rights(status: os.stat_result, fixed: bool, where: str) -> None:
    """See that nobody can change the key file, and that nobody reads it whom root did not let.

    Raises:
        InsecureKeyFileError: Others can.
    """
    mode, roots = stat.S_IMODE(status.st_mode), status.st_uid == 0
    mine = status.st_uid == os.geteuid()
    # What containers are handed and can't change: root's file that a group may read, or, where the whole
    # mount is read-only, everybody.
    allowed = 0o700 | (0o040 if roots and not mine else 0) | (0o044 if roots and fixed else 0)
    if mode & 0o777 & ~allowed:
        copy = f"make a copy (install -m 600 {where} NEW) and name that"
        raise InsecureKeyFileError(
            "others can read the key file" if not mode & 0o022 else "others can change the key file",
            where=where,
            fix=f"chmod 600 {where}" if mine and not fixed else copy,
        )
    if not (roots or mine):
        raise InsecureKeyFileError(
            "the key file belongs to another user",
            where=where,
            fix=f"have it handed over with this user as its owner, or as root's (chown {os.geteuid()})",
        )


class EnvironmentUnlock(SecretUnlock):
    """Unlock by an environment variable with 32 random bytes, as 64 hex digits or base64.

    Args:
        variable: Its name.
    """

    kind = "environment"

    def __init__(self, variable: str = "ANONYMIX_KEY") -> None:
        self._variable = _asked.text(variable, "variable", empty=False)

    def __repr__(self) -> str:
        return f"EnvironmentUnlock({self._variable!r})"

    def _secret(self) -> bytes:
        text = os.environ.get(self._variable)
        if not text:
            raise UnlockUnavailableError(
                "the environment variable is not set", where=self._variable, fix=f"set {self._variable}"
            )
        return decode_secret(text, self._variable)


class KeyringUnlock(SecretUnlock):
    """Unlock by a secret in the operating system's keyring (extra ``keyring``).

    Args:
        service: Service name in the keyring.
        user: User name in the keyring.
    """

    kind = "keyring"

    def __init__(self, service: str = "anonymix", user: str = "keystore") -> None:
        self._service, self._user = service, user

    def __repr__(self) -> str:
        return f"KeyringUnlock({self._service!r}, {self._user!r})"

    def generate(self) -> KeyringUnlock:
        """Put a new secret into the keyring.

        Raises:
            StoreExistsError: There is already one.
            UnlockUnavailableError: No keyring, or it refuses.
        """
        if self._get() is not None:
            raise StoreExistsError("the keyring already holds a key", where=f"{self._service}/{self._user}")
        keyring, failure = _keyring(self._where)
        try:
            keyring.set_password(self._service, self._user, secrets.token_hex(KEY_BYTES))
        except failure as error:
            raise self._refused(error) from None
        return self

    @property
    def _where(self) -> str:
        return f"{self._service}/{self._user}"

    def _refused(self, error: Exception) -> UnlockUnavailableError:
        return UnlockUnavailableError(f"the keyring refuses: {type(error).__name__}", where=self._where)

    def _get(self) -> str | None:
        keyring, failure = _keyring(self._where)
        try:
            text: str | None = keyring.get_password(self._service, self._user)
        except failure as error:
            raise self._refused(error) from None
        return text

    def _secret(self) -> bytes:
        text = self._get()
        if text is None:
            raise UnlockUnavailableError("the keyring holds no such key", where=self._where)
        return decode_secret(text, self._where)


def _keyring(where: str) -> tuple[Any, type[Exception]]:
    try:
        import keyring
        import keyring.errors
    except ImportError:
        raise UnlockUnavailableError(
            "the keyring package is not installed", where=where, fix="pip install 'anonymix-plugin[keyring]'"
        ) from None
    return keyring, keyring.errors.KeyringError
