"""References: off unless a scope switches them on, and gone with the key version that they belong to."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from keystore_clock import Clock

from anonymix_keystore import (
    AnchorFile,
    DamagedError,
    InvalidRequestError,
    KeyFileUnlock,
    KeyRevokedError,
    Keystore,
    LockedError,
    OriginalsError,
    OutdatedReferenceError,
    PassphraseUnlock,
    SubjectKey,
    UnknownSubjectError,
    UnknownVersionError,
    WrongKeyError,
    _references,
)
from anonymix_keystore._crypto import derive, encode, seal, unseal
from anonymix_keystore._rows import REFERENCE_SCOPES, REFERENCES

CODE = bytes(range(256))
MIXER = {"fingerprint": "mixer one", "subspace": "subspace one"}
VECTORS = json.loads((Path(__file__).parent / "vectors" / "sealing.json").read_text())


@pytest.fixture
def second(tmp_path: Path) -> KeyFileUnlock:
    return KeyFileUnlock.generate(tmp_path / "second.key")


@pytest.fixture
def keeping(store: Keystore, second: KeyFileUnlock) -> Keystore:
    """A store whose scope "default" keeps references."""
    store.originals.enable(second)
    store.references.enable()
    return store


def enrolled(store: Keystore, subject: str = "alice", scope: str = "default") -> SubjectKey:
    key = store.current_or_issue(subject, scope)
    store.references.keep(key, CODE, **MIXER)
    return key


def sealed(path: Path) -> list[bytes]:
    """All sealed references in a store's file, read behind its back."""
    with sqlite3.connect(path) as db:
        found = [row[0] for row in db.execute("SELECT sealed FROM sealed_references")]
    db.close()
    return found


def bytes_on_disk(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")))


def test_references_are_off_by_default(store: Keystore, second: KeyFileUnlock) -> None:
    key = store.issue("alice")
    assert not store.references.enabled()
    assert store.references.scopes() == ()
    assert store.references.read(key, **MIXER) is None
    with pytest.raises(OriginalsError, match="keeps no references"):
        store.references.keep(key, CODE, **MIXER)
    with pytest.raises(OriginalsError, match="second secret"):
        store.references.enable()
    store.originals.enable(second)
    assert not store.references.enabled()  # the second secret alone switches nothing on
    assert store.references.disable() == 0
    assert store.references.disable("unheard of") == 0


def test_a_scope_that_switches_them_on_gets_back_what_it_kept(
    keeping: Keystore, second: KeyFileUnlock, reopen: Callable[..., Keystore]
) -> None:
    key = enrolled(keeping)
    assert keeping.references.read(key, **MIXER) == CODE
    assert keeping.references.read(keeping.issue("bob"), **MIXER) is None
    assert not keeping.references.enable()
    assert keeping.verify().ok
    keeping.close()
    store = reopen()
    assert store.references.scopes() == ("default",)
    assert not store.originals.unlocked()
    for subject in ("alice", "bob"):  # locked, the store does not even say who has one
        with pytest.raises(OriginalsError, match="locked"):
            store.references.read(store.current(subject), **MIXER)
    store.originals.unlock(second)
    assert store.originals.unlocked()
    assert store.references.read(store.current("alice"), **MIXER) == CODE


def test_one_scope_says_nothing_of_another(keeping: Keystore) -> None:
    other = keeping.issue("alice", "other")
    enrolled(keeping)
    assert keeping.references.read(other, **MIXER) is None
    with pytest.raises(OriginalsError):
        keeping.references.keep(other, CODE, **MIXER)
    keeping.references.enable("other")
    assert keeping.references.read(other, **MIXER) is None
    assert keeping.references.scopes() == ("default", "other")


def test_a_gallery_key_has_no_reference(keeping: Keystore) -> None:
    assert keeping.references.read(keeping.gallery(), **MIXER) is None
    with pytest.raises(InvalidRequestError, match="nobody"):
        keeping.references.keep(keeping.gallery(), CODE, **MIXER)


def test_a_reference_is_for_one_mixer_and_one_subspace(keeping: Keystore) -> None:
    key = enrolled(keeping)
    with pytest.raises(OutdatedReferenceError, match="another mixer"):
        keeping.references.read(key, fingerprint="mixer two", subspace="subspace one")
    with pytest.raises(DamagedError, match="authentication"):
        keeping.references.read(key, fingerprint="mixer one", subspace="subspace two")
    keeping.references.keep(key, b"new", fingerprint="mixer two", subspace="subspace two")
    assert keeping.references.read(key, fingerprint="mixer two", subspace="subspace two") == b"new"


def test_of_two_who_enrol_at_once_the_first_ones_reference_stays(keeping: Keystore) -> None:
    key = keeping.issue("alice")
    assert keeping.references.keep(key, CODE, **MIXER, replace=False)
    assert not keeping.references.keep(key, b"second", **MIXER, replace=False)
    assert keeping.references.read(key, **MIXER) == CODE
    other = {**MIXER, "fingerprint": "mixer two"}
    assert keeping.references.keep(key, b"third", **other, replace=False)  # of another mixer, none is left
    assert keeping.references.read(key, **other) == b"third"


def test_a_reference_opens_with_the_keys_own_material_alone(keeping: Keystore) -> None:
    key = enrolled(keeping)
    forged = SubjectKey(key.subject, key.scope, key.version, key.state, bytes(32))
    with pytest.raises(DamagedError, match="authentication"):
        keeping.references.read(forged, **MIXER)


@pytest.mark.parametrize("moved", ["subject", "version"])
def test_a_reference_in_anothers_place_does_not_open(keeping: Keystore, moved: str) -> None:
    key = enrolled(keeping)
    other = keeping.issue("bob") if moved == "subject" else keeping.rotate("alice")
    with keeping._core.change() as change:
        row, weight = next(iter(REFERENCES.every(change.db, change.keys)))
        tag = change.keys.tag("subject", "default", other.subject)
        change.delete_all(REFERENCES, [(row, weight)])
        change.insert(REFERENCES, row._replace(tag=tag, version=other.version))
    assert keeping.verify().ok  # the codes of the rows are right: someone had the keys
    with pytest.raises(DamagedError, match="authentication"):
        keeping.references.read(SubjectKey("bob", "default", 1, key.state, key.material), **MIXER) if (
            moved == "subject"
        ) else keeping.references.read(SubjectKey("alice", "default", 2, key.state, key.material), **MIXER)


def test_a_retired_key_keeps_its_reference_until_its_date(keeping: Keystore, clock: Clock, path: Path) -> None:
    old = enrolled(keeping)
    new = keeping.rotate("alice", grace=timedelta(days=2))
    assert keeping.references.read(keeping.at("alice", 1), **MIXER) == CODE
    assert keeping.references.read(new, **MIXER) is None
    with pytest.raises(KeyRevokedError, match="nothing may be enrolled"):
        keeping.references.keep(old, CODE, **MIXER)
    clock.forward(days=2)
    assert keeping.expire() == 1
    assert sealed(path) == []


def test_keys_that_are_not_there_get_no_reference(keeping: Keystore) -> None:
    key = enrolled(keeping)
    with pytest.raises(UnknownVersionError):
        keeping.references.keep(SubjectKey("alice", "default", 7, key.state, key.material), CODE, **MIXER)
    with pytest.raises(UnknownSubjectError):
        keeping.references.keep(SubjectKey("eve", "default", 1, key.state, key.material), CODE, **MIXER)
    with pytest.raises(UnknownSubjectError):
        keeping.references.drop("eve")


ENDS: dict[str, Callable[[Keystore, Clock], object]] = {
    "revoke": lambda store, clock: store.revoke("alice"),
    "breach": lambda store, clock: store.rotate("alice", reason="breach"),
    "no grace": lambda store, clock: store.rotate("alice", grace=timedelta(0)),
    "breach of all": lambda store, clock: store.rotate_all(reason="breach", subjects=["alice"]),
    "expire": lambda store, clock: (
        store.rotate("alice", grace=timedelta(days=1)),
        clock.forward(days=1),
        store.expire(),
    ),
    "forget": lambda store, clock: store.forget("alice"),
    "drop": lambda store, clock: store.references.drop("alice"),
    "kept again": lambda store, clock: store.references.keep(store.current("alice"), b"new", **MIXER),
    "scope switched off": lambda store, clock: store.references.disable(),
    "second root ended": lambda store, clock: store.originals.disable(),
}
OF_ALL = {"scope switched off", "second root ended"}


@pytest.mark.parametrize("how", list(ENDS))
def test_a_reference_that_ended_leaves_no_byte_in_file_log_or_journal(
    keeping: Keystore, path: Path, clock: Clock, how: str
) -> None:
    enrolled(keeping)
    (mine,) = sealed(path)
    enrolled(keeping, "bob")
    (theirs,) = set(sealed(path)) - {mine}
    assert mine in bytes_on_disk(path)
    ENDS[how](keeping, clock)
    content = bytes_on_disk(path)  # while the store is open: the log is there, and empty
    assert mine not in content
    assert (theirs in content) == (how not in OF_ALL)
    assert Path(f"{path}-wal").stat().st_size == 0
    assert keeping.verify().ok


def test_retention_and_forgetting_take_references_along(keeping: Keystore, clock: Clock, path: Path) -> None:
    enrolled(keeping)
    keeping.issue("bob")
    clock.forward(days=100)
    keeping.current("bob")
    (receipt,) = keeping.forget_unused(timedelta(days=60))
    assert (receipt.keys, receipt.references, receipt.clean) == (1, 1, True)
    assert next(line for line in keeping.audit() if line["action"] == "forget")["erased"]["references"] == 1
    assert sealed(path) == []


def test_switching_off_says_how_many_and_another_scope_keeps_its_own(keeping: Keystore) -> None:
    keeping.references.enable("other", reason="street photos")
    enrolled(keeping)
    enrolled(keeping, "bob")
    kept = enrolled(keeping, "alice", "other")
    assert keeping.references.disable(reason="not worth it") == 2
    assert keeping.references.scopes() == ("other",)
    assert keeping.references.read(kept, **MIXER) == CODE
    assert keeping.references.read(keeping.current("alice"), **MIXER) is None
    keeping.references.enable()
    assert keeping.references.read(keeping.current("alice"), **MIXER) is None  # on again, nothing is back


def test_the_audit_trail_tells_of_switch_and_references_without_names(keeping: Keystore) -> None:
    enrolled(keeping)
    keeping.references.drop("alice")
    assert keeping.references.drop("alice") == 0
    keeping.references.disable(reason="done")
    lines = {line["action"]: line for line in keeping.audit()}
    assert lines["enable-references"]["scope"] == "default"
    assert (lines["disable-references"]["count"], lines["disable-references"]["reason"]) == (0, "done")
    alias = keeping.history("alice")[0].alias
    assert lines["keep-reference"]["keys"] == lines["drop-reference"]["keys"] == [[alias, 1, 1]]
    assert "alice" not in json.dumps(list(keeping.audit()))


def test_a_backup_holds_references_and_a_rollback_ends_those_that_were_revoked(
    tmp_path: Path, unlock: KeyFileUnlock, second: KeyFileUnlock
) -> None:
    anchor = AnchorFile.create(tmp_path / "anchor")
    with Keystore.create(tmp_path / "a.db", unlock, anchor=anchor) as store:
        store.originals.enable(second)
        store.references.enable()
        enrolled(store)
        enrolled(store, "bob")
        store.backup(tmp_path / "backup", unlock)
        store.revoke("alice")
    Keystore.restore(tmp_path / "backup", tmp_path / "b.db", unlock)
    with Keystore.open(tmp_path / "b.db", unlock, anchor=anchor, accept_rollback="lost disk") as store:
        store.originals.unlock(second)
        assert store.references.read(store.current("bob"), **MIXER) == CODE
        assert len(sealed(tmp_path / "b.db")) == 1
        assert store.verify().ok


def test_wrapping_keys_again_leaves_references_as_they_are(keeping: Keystore) -> None:
    key = enrolled(keeping)
    keeping.rewrap_all()
    assert keeping.references.read(key, **MIXER) == CODE


def test_a_second_secret_that_is_exchanged_opens_them_still(
    keeping: Keystore, second: KeyFileUnlock, tmp_path: Path, reopen: Callable[..., Keystore]
) -> None:
    key = enrolled(keeping)
    other = reopen()
    other.originals.unlock(second)
    third = KeyFileUnlock.generate(tmp_path / "third.key")
    keeping.originals.change_unlock(second, third)
    assert keeping.references.read(key, **MIXER) == CODE
    assert not other.originals.unlocked()
    with pytest.raises(OriginalsError, match="locked"):
        other.references.read(key, **MIXER)


def test_a_wrong_second_secret_is_not_told_as_a_wrong_one_of_the_store(keeping: Keystore, tmp_path: Path) -> None:
    with pytest.raises(WrongKeyError, match="does not open the store's second secret"):
        keeping.originals.unlock(KeyFileUnlock.generate(tmp_path / "other.key"))
    with pytest.raises(LockedError, match="second secret is unlocked by key-file, not by passphrase"):
        keeping.originals.unlock(PassphraseUnlock("another"))
    keeping.originals.disable()
    keeping.originals.enable(PassphraseUnlock("second"))
    with pytest.raises(WrongKeyError, match="wrong second passphrase"):
        keeping.originals.unlock(PassphraseUnlock("another"))


def test_a_reference_that_was_taken_away_or_outlived_its_key_is_found_by_the_full_check(
    keeping: Keystore, path: Path
) -> None:
    enrolled(keeping)
    (mine,) = sealed(path)
    with sqlite3.connect(path) as db:
        db.execute("DELETE FROM sealed_references")
    db.close()
    assert any("removed" in finding.what for finding in keeping.verify().findings)
    with keeping._core.change() as change:
        tag = change.keys.tag("subject", "default", "eve")
        change.insert(REFERENCES, _references.Reference(tag, 1, change.now, "f", mine))
    assert any("keys that are gone" in finding.what for finding in keeping.verify().findings)


def test_a_switch_of_a_scope_that_is_not_there_is_refused(keeping: Keystore) -> None:
    with keeping._core.change() as change:
        row, weight = next(iter(REFERENCE_SCOPES.every(change.db, change.keys)))
        change.delete_all(REFERENCE_SCOPES, [(row, weight)])
        change.insert(REFERENCE_SCOPES, row._replace(scope=9))
    with pytest.raises(DamagedError, match="scope that keeps references is missing"):
        keeping.references.scopes()


def test_what_is_no_key_and_no_code_is_refused(keeping: Keystore) -> None:
    key = keeping.issue("alice")
    for bad in ("alice", None, object()):
        with pytest.raises(InvalidRequestError, match="key"):
            keeping.references.keep(bad, CODE, **MIXER)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequestError, match="key"):
            keeping.references.read(bad, **MIXER)  # type: ignore[arg-type]
    for data in (b"", b"x" * 4097, "text"):
        with pytest.raises(InvalidRequestError, match="data"):
            keeping.references.keep(key, data, **MIXER)  # type: ignore[arg-type]


def test_the_committed_vector_holds() -> None:
    vector = VECTORS["reference"]
    value = {name: bytes.fromhex(vector[name]) for name in ("second root", "material", "store id", "sealed")}
    second = derive(value["second root"], value["store id"], "references")
    assert second.hex() == vector["second key"]
    key = derive(second + value["material"], value["store id"], "reference")
    assert key.hex() == vector["key"]
    context = encode(
        (
            "reference",
            value["store id"],
            bytes.fromhex(vector["tag"]),
            vector["scope"],
            vector["version"],
            vector["fingerprint"],
            vector["subspace"],
        )
    )
    plaintext = unseal(key, value["sealed"], context)
    assert plaintext.hex() == vector["plaintext"]
    assert seal(key, plaintext, context, salt=value["sealed"][1:33]) == value["sealed"]


def test_reading_one_takes_less_than_a_millisecond_of_the_processor(keeping: Keystore) -> None:
    key, times = enrolled(keeping), []
    for _ in range(50):
        started = time.thread_time()
        keeping.references.read(key, **MIXER)
        times.append(time.thread_time() - started)
    assert min(times) < 1e-3
