from __future__ import annotations

import copy
import pickle
import stat
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from keystore_clock import Clock

from anonymix_keystore import (
    InvalidRequestError,
    InvalidSubjectError,
    KeyExistsError,
    KeyFileUnlock,
    KeyRetiredError,
    KeyRevokedError,
    KeyState,
    Keystore,
    LockedError,
    StoreExistsError,
    StoreMissingError,
    SubjectKey,
    UnknownSubjectError,
    UnknownVersionError,
)


def test_an_issued_key_is_there_after_reopening(store: Keystore, reopen: Callable[..., Keystore]) -> None:
    key = store.issue("alice", "staff")
    store.close()
    again = reopen()
    assert again.current("alice", "staff") == key
    assert len(key.material) == 32
    assert (key.subject, key.scope, key.version, key.state) == ("alice", "staff", 1, KeyState.ACTIVE)


def test_subjects_and_scopes_get_keys_of_their_own(store: Keystore) -> None:
    materials = {
        store.issue("alice").material,
        store.issue("bob").material,
        store.issue("alice", "guests").material,
        store.gallery("default").material,
        store.gallery("guests").material,
    }
    assert len(materials) == 5


def test_issuing_twice_is_refused(store: Keystore) -> None:
    key = store.issue("alice")
    with pytest.raises(KeyExistsError):
        store.issue("alice")
    assert store.current("alice") == key


def test_an_unknown_subject_has_no_key(store: Keystore) -> None:
    for ask in (
        lambda: store.current("nobody"),
        lambda: store.at("nobody", 1),
        lambda: store.rotate("nobody"),
        lambda: store.revoke("nobody"),
        lambda: store.retire("nobody"),
        lambda: store.history("nobody"),
    ):
        with pytest.raises(UnknownSubjectError):
            ask()


def test_current_or_issue_issues_once(store: Keystore) -> None:
    assert store.current_or_issue("alice") == store.current_or_issue("alice") == store.current("alice")
    assert len(store.history("alice")) == 1


def test_threads_racing_for_a_new_subject_get_one_key(store: Keystore) -> None:
    found: list[SubjectKey] = []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        found.extend(store.current_or_issue(f"s{number}") for number in range(10))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 80
    assert len({(key.subject, key.material) for key in found}) == 10


def test_rotation_retires_the_old_key_until_its_date(store: Keystore, clock: Clock) -> None:
    old = store.issue("alice")
    new = store.rotate("alice", grace=timedelta(days=7))
    assert new.version == 2
    assert new.material != old.material
    assert store.current("alice") == new
    assert store.at("alice", 1).state is KeyState.RETIRED
    assert store.at("alice", 1).material == old.material
    clock.forward(days=7)
    with pytest.raises(KeyRetiredError):
        store.at("alice", 1)
    assert store.at("alice", 2) == new


def test_rotation_without_grace_destroys_the_old_key(store: Keystore) -> None:
    store.issue("alice")
    store.rotate("alice", grace=timedelta(0))
    with pytest.raises(KeyRevokedError):
        store.at("alice", 1)
    assert [info.state for info in store.history("alice")] == [KeyState.DESTROYED, KeyState.ACTIVE]


def test_after_a_breach_every_older_key_is_compromised_at_once(store: Keystore) -> None:
    store.issue("alice")
    store.rotate("alice")
    new = store.rotate("alice", reason="breach")
    assert [info.state for info in store.history("alice")] == [
        KeyState.COMPROMISED,
        KeyState.COMPROMISED,
        KeyState.ACTIVE,
    ]
    assert all(info.wrap_version == 0 for info in store.history("alice")[:2])
    assert store.current("alice") == new


@pytest.mark.parametrize("reason", ["Breach", "breach ", "data breach", "breached"])
def test_a_breach_in_other_words_is_refused_because_old_keys_would_live_on(store: Keystore, reason: str) -> None:
    key = store.issue("alice")
    for rotate in (store.rotate_all, lambda **how: store.rotate("alice", **how)):
        with pytest.raises(InvalidRequestError, match='"breach" alone erases them') as refused:
            rotate(reason=reason)
        assert refused.value.where == "reason"
    assert store.current("alice") == key


def test_grace_that_makes_no_sense_is_refused(store: Keystore) -> None:
    key = store.issue("alice")
    with pytest.raises(InvalidRequestError):
        store.rotate("alice", reason="breach", grace=timedelta(days=1))
    with pytest.raises(InvalidRequestError):
        store.rotate("alice", grace=timedelta(days=-1))
    assert store.current("alice") == key


def test_a_retired_key_serves_probes_alone(store: Keystore, clock: Clock) -> None:
    key = store.issue("alice")
    assert store.retire("alice", until=datetime.fromtimestamp(clock.now, UTC) + timedelta(hours=1)) == 1
    with pytest.raises(KeyRetiredError):
        store.current("alice")
    with pytest.raises(KeyRetiredError):
        store.current_or_issue("alice")
    with pytest.raises(KeyRetiredError):
        store.retire("alice")
    assert store.at("alice", 1).material == key.material
    assert store.rotate("alice").version == 2


def test_retiring_needs_a_date_to_come(store: Keystore, clock: Clock) -> None:
    store.issue("alice")
    with pytest.raises(InvalidRequestError):
        store.retire("alice", until=datetime(2030, 1, 1))  # noqa: DTZ001 - the point of the test
    with pytest.raises(InvalidRequestError):
        store.retire("alice", until=datetime.fromtimestamp(clock.now, UTC))
    assert store.retire("alice") == 1
    assert store.history("alice")[0].until == datetime.fromtimestamp(clock.now, UTC) + timedelta(days=30)


def test_revocation_is_for_good(store: Keystore, reopen: Callable[..., Keystore]) -> None:
    store.issue("alice")
    store.rotate("alice")
    assert store.revoke("alice", reason="left") == (1, 2)
    assert store.revoke("alice") == ()
    for _ in range(2):
        for ask in (
            lambda: store.current("alice"),  # noqa: B023 - called at once
            lambda: store.current_or_issue("alice"),  # noqa: B023
            lambda: store.at("alice", 1),  # noqa: B023
            lambda: store.at("alice", 2),  # noqa: B023
            lambda: store.rotate("alice"),  # noqa: B023
            lambda: store.retire("alice"),  # noqa: B023
        ):
            with pytest.raises(KeyRevokedError):
                ask()
        store.close()
        store = reopen()


def test_one_version_can_be_revoked_alone(store: Keystore) -> None:
    store.issue("alice")
    new = store.rotate("alice")
    assert store.revoke("alice", version=1) == (1,)
    assert store.current("alice") == new
    with pytest.raises(KeyRevokedError):
        store.at("alice", 1)
    with pytest.raises(UnknownVersionError):
        store.revoke("alice", version=3)


def test_a_revoked_subject_can_be_issued_a_new_version(store: Keystore) -> None:
    old = store.issue("alice")
    store.revoke("alice")
    new = store.issue("alice")
    assert new.version == 2
    assert new.material != old.material
    with pytest.raises(KeyRevokedError):
        store.at("alice", 1)


def test_versions_that_never_were_are_unknown(store: Keystore) -> None:
    store.issue("alice")
    for version in (-1, 0, 2, 10**12):
        with pytest.raises(UnknownVersionError):
            store.at("alice", version)


def test_the_gallery_key_has_a_life_of_its_own(store: Keystore) -> None:
    first = store.gallery("staff")
    assert store.gallery("staff") == first
    assert first.subject == ""
    second = store.rotate_gallery("staff")
    assert store.gallery("staff") == second != first
    assert store.revoke_gallery("staff") == (1, 2)
    with pytest.raises(KeyRevokedError):
        store.gallery("staff")
    assert list(store.subjects()) == []


def test_many_subjects_are_issued_in_batches_and_only_once(store: Keystore) -> None:
    names = [f"s{number}" for number in range(25)]
    kept = store.issue("s3")
    assert store.issue_many(names, batch=10) == 24
    assert store.issue_many(names, batch=10) == 0
    assert store.issue_many([]) == 0
    assert store.current("s3") == kept
    assert sorted(store.subjects("default")) == sorted(names)


def test_listings_show_everything_but_material(store: Keystore) -> None:
    key = store.issue("alice", "staff")
    store.rotate("alice", "staff")
    store.issue("bob", "guests")
    store.gallery("staff")
    assert {(info.subject, info.scope, info.version) for info in store.list()} == {
        ("alice", "staff", 2),
        ("bob", "guests", 1),
        ("", "staff", 1),
    }
    assert [info.subject for info in store.list("guests")] == ["bob"]
    assert list(store.subjects("guests")) == ["bob"]
    assert list(store.subjects("nowhere")) == []
    assert set(store.scopes()) == {"staff", "guests"}
    assert key.material.hex() not in repr(list(store.list()))


def test_a_long_listing_goes_on_page_by_page(store: Keystore) -> None:
    names = {f"s{number}" for number in range(1203)}
    store.issue_many(names)
    assert set(store.subjects()) == names


def test_a_listing_survives_a_scope_made_meanwhile(store: Keystore) -> None:
    store.issue_many(f"s{number}" for number in range(600))
    listing = store.list()
    next(listing)
    store.issue_many((f"late{number}" for number in range(600)), "new")
    assert {info.scope for info in listing} == {"default", "new"}


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "a ",
        "\talice",
        "a\nb",
        "a\x00b",
        "a\u200bb",
        "a\u202eb",
        "\ud800",
        "x" * 1025,
        "é" * 600,
        None,
        7,
        b"a",
    ],
)
def test_unusable_names_are_refused(store: Keystore, name: object) -> None:
    with pytest.raises(InvalidSubjectError):
        store.issue(name)  # type: ignore[arg-type]
    with pytest.raises(InvalidSubjectError):
        store.issue("alice", name)  # type: ignore[arg-type]
    assert list(store.subjects()) == []


def test_look_alikes_and_sql_are_names_like_others(store: Keystore) -> None:
    names = ["alice", "аlice", "ALICE", "alice'; DROP TABLE keys; --", "%", "a" * 1024, "名前", "🙂"]
    keys = {name: store.issue(name) for name in names}
    assert len({key.material for key in keys.values()}) == len(names)
    assert {name: store.current(name) for name in names} == keys
    assert sorted(store.subjects()) == sorted(names)


def test_composed_and_decomposed_spellings_are_one_name(store: Keystore) -> None:
    key = store.issue("Zo\u00eb")
    assert store.current("Zoe\u0308") == key
    with pytest.raises(KeyExistsError):
        store.issue("Zoe\u0308")


def test_a_subject_key_keeps_its_material_to_itself(store: Keystore) -> None:
    key = store.issue("alice")
    for text in (repr(key), str(key), f"{key}", f"{key!r}"):
        assert key.material.hex() not in text
        assert repr(key.material) not in text
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(TypeError):
        copy.copy(key)
    with pytest.raises(AttributeError):
        key.version = 2  # type: ignore[misc]
    assert key != "alice"
    assert len({key, store.current("alice")}) == 1


def test_a_new_store_is_private_and_never_takes_a_files_place(path: Path, unlock: KeyFileUnlock) -> None:
    with Keystore.create(path, unlock) as store:
        store.issue("alice")
        for file in path.parent.glob("keystore.db*"):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
        with pytest.raises(StoreExistsError):
            Keystore.create(path, unlock)
        assert store.current("alice").version == 1


def test_a_missing_store_is_not_made_by_opening(path: Path, unlock: KeyFileUnlock) -> None:
    with pytest.raises(StoreMissingError):
        Keystore.open(path, unlock)
    assert not path.exists()


def test_a_closed_store_gives_no_keys(store: Keystore) -> None:
    store.issue("alice")
    store.current("alice")
    store.close()
    store.close()
    for ask in (lambda: store.current("alice"), lambda: store.issue("bob"), lambda: list(store.subjects())):
        with pytest.raises(LockedError):
            ask()
    assert "keystore.db" in repr(store)


def test_names_are_not_in_the_file(store: Keystore, path: Path) -> None:
    store.issue("alice-the-subject", "scope-of-alice", reason="reason-for-alice")
    store.close()
    content = path.read_bytes()
    for word in (b"alice-the-subject", b"scope-of-alice", b"reason-for-alice", b"tester"):
        assert word not in content
