from __future__ import annotations

import base64
import os
import secrets
import sys
import types
from pathlib import Path

import pytest
from cryptography.exceptions import UnsupportedAlgorithm

from anonymix_keystore import (
    Argon2Cost,
    DamagedError,
    EnvironmentUnlock,
    InsecureKeyFileError,
    InvalidRequestError,
    KeyFileUnlock,
    KeyringUnlock,
    Keystore,
    LockedError,
    PassphraseUnlock,
    ScryptCost,
    StoreExistsError,
    Unlock,
    UnlockUnavailableError,
    WrongKeyError,
    WrongPassphraseError,
)

CHEAP = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
CHEAP_SCRYPT = ScryptCost(log2_n=14)


def passphrase(text: str | bytes = "correct horse") -> PassphraseUnlock:
    return PassphraseUnlock(text, cost=CHEAP)


def there_and_back(path: Path, unlock: Unlock, again: Unlock | None = None) -> str:
    with Keystore.create(path, unlock) as store:
        key = store.issue("alice")
    with Keystore.open(path, again or unlock) as store:
        assert store.current("alice") == key
    return Keystore.locked_by(path)[0]


def test_a_passphrase_opens_what_it_locked(path: Path) -> None:
    assert there_and_back(path, passphrase(), PassphraseUnlock(b"correct horse")) == "passphrase"
    assert Keystore.locked_by(path)[1]["kdf"] == "argon2id"
    for wrong in ("Correct horse", "correct horse ", "x"):
        with pytest.raises(WrongPassphraseError) as caught:
            Keystore.open(path, passphrase(wrong))
        assert wrong not in str(caught.value).replace("wrong passphrase", "").replace("keystore.db", "")
    with pytest.raises(InvalidRequestError):
        PassphraseUnlock("")
    assert "horse" not in repr(passphrase())


def test_scrypt_stands_in_where_argon2_is_missing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(**_: object) -> None:
        raise UnsupportedAlgorithm("no Argon2 here")

    monkeypatch.setattr("anonymix_keystore._unlock.Argon2id", missing)
    monkeypatch.setattr("anonymix_keystore._unlock.ScryptCost", lambda *cost: ScryptCost(*(cost or (14,))))
    assert there_and_back(path, passphrase()) == "passphrase"
    assert Keystore.locked_by(path)[1]["kdf"] == "scrypt"


def test_a_store_locked_with_argon2_says_so_where_it_is_missing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there_and_back(path, passphrase())

    def missing(**_: object) -> None:
        raise UnsupportedAlgorithm("no Argon2 here")

    monkeypatch.setattr("anonymix_keystore._unlock.Argon2id", missing)
    with pytest.raises(UnlockUnavailableError):
        Keystore.open(path, passphrase())


def test_a_cost_of_the_past_is_told_and_upgraded(path: Path) -> None:
    there_and_back(path, PassphraseUnlock("x", cost=CHEAP_SCRYPT))
    with Keystore.open(path, PassphraseUnlock("x", cost=CHEAP_SCRYPT)) as store:
        assert not store.unlock_outdated
    with Keystore.open(path, PassphraseUnlock("x", cost=CHEAP)) as store:
        assert store.unlock_outdated
        store.change_unlock(PassphraseUnlock("x", cost=CHEAP))
        assert not store.unlock_outdated
    assert Keystore.locked_by(path)[1]["kdf"] == "argon2id"
    with Keystore.open(path, passphrase("x")) as store:
        assert store.current("alice").version == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Argon2Cost(memory_kib=1),
        lambda: Argon2Cost(memory_kib=1 << 30),
        lambda: Argon2Cost(passes=0),
        lambda: Argon2Cost(lanes=65),
        lambda: ScryptCost(log2_n=13),
        lambda: ScryptCost(r=1),
        lambda: ScryptCost(p=17),
    ],
)
def test_costs_out_of_range_are_refused(make) -> None:
    with pytest.raises(InvalidRequestError):
        make()


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"salt": "not base64!"},
        {"salt": 7},
        {"salt": "AAAA", "kdf": "md5"},
        {"salt": "AAAA", "kdf": "argon2id"},
        {"salt": "AAAA", "kdf": "argon2id", "memory_kib": 1, "passes": 1, "lanes": 1},
        {"salt": "AAAA", "kdf": "argon2id", "memory_kib": 10**9, "passes": 1, "lanes": 1},
        {"salt": "AAAA", "kdf": "scrypt", "log2_n": "14", "r": 8, "p": 1},
        {"salt": "AAAA", "kdf": "scrypt", "log2_n": 60, "r": 8, "p": 1},
    ],
)
def test_damaged_parameters_neither_weaken_nor_exhaust(params: dict[str, object]) -> None:
    with pytest.raises(DamagedError):
        passphrase().key(params, {})


def test_a_key_file_opens_what_it_locked(path: Path, tmp_path: Path) -> None:
    unlock = KeyFileUnlock.generate(tmp_path / "k")
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o600
    assert there_and_back(path, unlock) == "key-file"
    with pytest.raises(WrongKeyError):
        Keystore.open(path, KeyFileUnlock.generate(tmp_path / "other"))
    with pytest.raises(StoreExistsError):
        KeyFileUnlock.generate(tmp_path / "k")
    with pytest.raises(UnlockUnavailableError):
        KeyFileUnlock.generate(tmp_path / "no folder" / "k")
    assert str(tmp_path / "k") in repr(unlock)


def test_a_key_file_that_others_can_read_is_refused(path: Path, tmp_path: Path, monkeypatch) -> None:
    unlock = KeyFileUnlock.generate(tmp_path / "k")
    there_and_back(path, unlock)
    for mode in (0o640, 0o604, 0o660):
        (tmp_path / "k").chmod(mode)
        with pytest.raises(InsecureKeyFileError):
            Keystore.open(path, unlock)
    (tmp_path / "k").chmod(0o600)
    owner = (tmp_path / "k").stat().st_uid
    if owner == 0:
        os.chown(tmp_path / "k", 12345, -1)
        owner = 12345
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(InsecureKeyFileError):
        Keystore.open(path, unlock)


def test_rights_are_not_asked_where_there_are_none(path: Path, tmp_path: Path, monkeypatch) -> None:
    unlock = KeyFileUnlock.generate(tmp_path / "k")
    (tmp_path / "k").chmod(0o644)
    monkeypatch.setattr("anonymix_keystore._unlock.os.name", "nt")
    secret = unlock._secret()
    monkeypatch.undo()
    assert secret.hex() == (tmp_path / "k").read_text().strip()


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 32, b"zz" * 32, b"a" * 63, base64.b64encode(b"x" * 31)])
def test_a_file_that_holds_no_key_is_refused(tmp_path: Path, content: bytes, path: Path) -> None:
    (tmp_path / "k").write_bytes(content)
    (tmp_path / "k").chmod(0o600)
    with pytest.raises(WrongKeyError) as caught:
        Keystore.create(path, KeyFileUnlock(tmp_path / "k"))
    assert not path.exists()
    if content:
        assert content.decode("latin1") not in str(caught.value)


def test_a_missing_key_file_is_told(path: Path, tmp_path: Path) -> None:
    with pytest.raises(UnlockUnavailableError):
        Keystore.create(path, KeyFileUnlock(tmp_path / "none"))


def test_a_variable_opens_what_it_locked(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = secrets.token_bytes(32)
    monkeypatch.setenv("ANONYMIX_KEY", raw.hex())
    assert there_and_back(path, EnvironmentUnlock()) == "environment"
    monkeypatch.setenv("ANONYMIX_KEY", base64.b64encode(raw).decode() + "\n")
    Keystore.open(path, EnvironmentUnlock()).close()
    monkeypatch.setenv("ANONYMIX_KEY", secrets.token_hex(32))
    with pytest.raises(WrongKeyError):
        Keystore.open(path, EnvironmentUnlock())
    monkeypatch.delenv("ANONYMIX_KEY")
    with pytest.raises(UnlockUnavailableError, match="ANONYMIX_KEY"):
        Keystore.open(path, EnvironmentUnlock())
    assert "ANONYMIX_KEY" in repr(EnvironmentUnlock())


@pytest.fixture
def keyring(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """A stand-in for the keyring package, which needs a desktop session."""

    class KeyringError(Exception):
        pass

    kept: dict[tuple[str, str], str] = {}
    fake = types.ModuleType("keyring")
    fake.get_password = lambda service, user: kept.get((service, user))  # type: ignore[attr-defined]
    fake.set_password = lambda service, user, text: kept.__setitem__((service, user), text)  # type: ignore[attr-defined]
    errors = types.ModuleType("keyring.errors")
    errors.KeyringError = KeyringError  # type: ignore[attr-defined]
    fake.errors = errors  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "keyring", fake)
    monkeypatch.setitem(sys.modules, "keyring.errors", errors)
    return types.SimpleNamespace(module=fake, error=KeyringError, kept=kept)


def test_the_keyring_opens_what_it_locked(path: Path, keyring: types.SimpleNamespace) -> None:
    unlock = KeyringUnlock()
    with pytest.raises(UnlockUnavailableError):
        Keystore.create(path, unlock)
    assert there_and_back(path, unlock.generate()) == "keyring"
    with pytest.raises(StoreExistsError):
        unlock.generate()
    assert repr(unlock) == "KeyringUnlock('anonymix', 'keystore')"


def test_a_keyring_that_refuses_is_told(path: Path, keyring: types.SimpleNamespace) -> None:
    def refuse(*_: object) -> None:
        raise keyring.error("secret details")

    keyring.module.set_password = refuse
    with pytest.raises(UnlockUnavailableError) as caught:
        KeyringUnlock().generate()
    keyring.module.get_password = refuse
    with pytest.raises(UnlockUnavailableError):
        Keystore.create(path, KeyringUnlock())
    assert "secret details" not in str(caught.value)


def test_a_missing_keyring_package_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(UnlockUnavailableError, match="pip install"):
        Keystore.create(path, KeyringUnlock())


def test_changing_the_unlock_touches_no_subject_key(path: Path, tmp_path: Path) -> None:
    first, second = passphrase(), KeyFileUnlock.generate(tmp_path / "k")
    with Keystore.create(path, first) as store:
        key = store.issue("alice")
        rows = store._core.db.rows("SELECT * FROM keys")
        old_slot = store._core.db.row("SELECT sealed FROM slots")
        store.change_unlock(second)
        assert store._core.db.rows("SELECT * FROM keys") == rows
        assert not store.unlock_outdated
    assert old_slot is not None
    assert old_slot[0] not in path.read_bytes()
    with pytest.raises(LockedError, match="key-file"):
        Keystore.open(path, first)
    with Keystore.open(path, second) as store:
        assert store.current("alice") == key
        assert store.verify().ok


def test_a_secret_unlock_needs_a_secret() -> None:
    from anonymix_keystore._unlock import SecretUnlock

    with pytest.raises(NotImplementedError):
        SecretUnlock().new_key({})
