"""A key that is revoked while photos are under way makes no face more than the one in drawing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from anonymix_keystore import (
    Argon2Cost,
    KeyRevokedError,
    Keystore,
    KeystoreError,
    PassphraseUnlock,
    UnknownSubjectError,
)
from anonymix_lab.data.keys import SeededKeys
from anonymix_plugin import Anonymixer, AnonymixError, PhotoRequest, UsageError

pytestmark = pytest.mark.usefixtures("loaded_once")

WEIGHTS = ("mobilestylegan", "yunet", "arcface-mbf", "sface")


@pytest.fixture(scope="module")
def opened(model: Callable[[str], Path]) -> Iterator[Anonymixer]:
    for name in WEIGHTS:
        model(name)
    with Anonymixer(SeededKeys(1)) as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Keystore]:
    cheap = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
    with Keystore.create(tmp_path / "keys.db", PassphraseUnlock("swordfish", cost=cheap)) as made:
        made.issue("alice")
        made.issue("bob")
        yield made


@pytest.fixture
def mixer(opened: Anonymixer, store: Keystore, monkeypatch: pytest.MonkeyPatch) -> Anonymixer:
    """One mixer for all tests, loading takes long; each with a keystore of its own."""
    monkeypatch.setattr(opened, "_keystore", store)
    monkeypatch.setattr(opened._production, "_keys", store)
    return opened


@pytest.fixture
def photo(portraits: Path) -> Path:
    return portraits / "001_neutral.jpg"


def after(mixer: Anonymixer, number: int, act: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Do something while a face is in drawing: the third, if `number` is 3."""
    draw, drawn = mixer._production._pictures, [0]

    def pictures(codes: Any) -> Any:
        drawn[0] += 1
        if drawn[0] == number:
            act()
        return draw(codes)

    monkeypatch.setattr(mixer._production, "_pictures", pictures)


@pytest.mark.parametrize("door", ["protect_many", "protect_stream"])
def test_the_rest_of_a_stream_are_errors(
    door: str, mixer: Anonymixer, store: Keystore, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after(mixer, 3, lambda: store.revoke("alice"), monkeypatch)
    if door == "protect_many":
        outcomes = list(mixer.protect_many([photo] * 8, subject="alice"))
    else:
        outcomes = list(mixer.protect_stream(PhotoRequest(photo, "alice") for _ in range(8)))
    assert [len(outcome.faces) for outcome in outcomes] == [1, 1, 1, 0, 0, 0, 0, 0]
    assert all(isinstance(outcome.error, KeyRevokedError) for outcome in outcomes[3:])


def test_a_list_is_refused_as_soon_as_its_key_is_revoked(
    mixer: Anonymixer, store: Keystore, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after(mixer, 2, lambda: store.revoke("alice"), monkeypatch)
    with pytest.raises(KeyRevokedError):
        mixer.protect([photo] * 4, subject="alice")


def test_other_subjects_go_on(mixer: Anonymixer, store: Keystore, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after(mixer, 1, lambda: store.revoke("alice"), monkeypatch)
    owners = ["alice", "alice", "bob", "alice", "bob"]
    outcomes = list(mixer.protect_stream(PhotoRequest(photo, owner) for owner in owners))
    assert [len(outcome.faces) for outcome in outcomes] == [1, 0, 1, 0, 1]


def test_a_key_that_is_forgotten_while_an_enrolment_waits_is_not_issued_again(
    mixer: Anonymixer, store: Keystore, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = mixer._parts.reader.read

    def forgotten(*arguments: Any) -> Any:
        store.forget("carol")
        return read(*arguments)

    monkeypatch.setattr(mixer._parts.reader, "read", forgotten)
    with pytest.raises(UnknownSubjectError):
        mixer.protect(photo, subject="carol", enrol=True)
    assert "carol" not in set(store.subjects())


def test_a_key_that_is_rotated_meanwhile_is_the_one_that_is_used(
    mixer: Anonymixer, store: Keystore, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after(mixer, 2, lambda: store.rotate("alice"), monkeypatch)
    faces = [outcome.faces[0] for outcome in mixer.protect_many([photo] * 4, subject="alice")]
    assert [face.key_version for face in faces] == [1, 1, 2, 2]
    assert np.array_equal(faces[0].pixels, faces[1].pixels)
    assert np.array_equal(faces[2].pixels, mixer.protect(photo, subject="alice").pixels)


class Person(StrEnum):
    ALICE = "alice"


class Mixed(str, Enum):  # noqa: UP042 - this is how they were made before 3.11
    ALICE = "alice"


ODD: dict[str, dict[str, Any]] = {
    "a name of bytes": {"subject": b"alice"},
    "a number for a name": {"subject": 7},
    "nothing known of a name": {"subject": float("nan")},
    "no scope": {"subject": "alice", "scope": None},
    "a number for a scope": {"subject": "alice", "scope": 3},
    "a truth value for a version": {"subject": "alice", "version": True},
    "numpy's truth value for a version": {"subject": "alice", "version": np.True_},
    "a float for a version": {"subject": "alice", "version": 1.0},
    "a decimal for a version": {"subject": "alice", "version": Decimal(1)},
    "a text for a version": {"subject": "alice", "version": "1"},
    "a version far out": {"subject": "alice", "version": 10**30},
    "a negative version": {"subject": "alice", "version": -1},
    "an array for a truth value": {"subject": "alice", "enrol": np.zeros(3)},
    "a list for an order of channels": {"subject": "alice", "channel_order": ["rgb"]},
    "no order of channels": {"subject": "alice", "channel_order": None},
    "another order of channels": {"subject": "alice", "channel_order": "hsv"},
    "a name with a control character": {"subject": "ali\x00ce"},
    "a name with half a character": {"subject": "ali\ud800ce"},
    "an empty name": {"subject": ""},
    "a gallery with a version": {"version": 1},
}


def test_odd_values_make_one_outcome_each_and_end_no_stream(mixer: Anonymixer, photo: Path) -> None:
    requests: list[Any] = [PhotoRequest(photo, **values) for values in ODD.values()]
    requests += [photo, None, {"image": photo}, PhotoRequest(None, "alice"), PhotoRequest(7, "alice")]  # type: ignore[arg-type]
    outcomes = list(mixer.protect_stream([*requests, PhotoRequest(photo, "alice")]))
    assert len(outcomes) == len(requests) + 1
    for name, outcome in zip([*ODD, *"abcde"], outcomes, strict=False):
        assert isinstance(outcome.error, AnonymixError | KeystoreError), name
        assert not outcome.faces
    assert len(outcomes[-1].faces) == 1
    for name, values in ODD.items():
        with pytest.raises((AnonymixError, KeystoreError)):
            mixer.protect(photo, **values)
        assert name


@pytest.mark.parametrize(
    ("name", "version"), [(np.str_("alice"), np.int64(1)), (Person.ALICE, np.uint8(1)), (Mixed.ALICE, None)]
)
def test_values_of_tables_are_taken_for_what_they_are(name: str, version: Any, mixer: Anonymixer, photo: Path) -> None:
    face = mixer.protect(photo, subject=name, scope=np.str_("default"), version=version)
    assert type(face.subject) is type(face.scope) is str
    assert (face.subject, face.key_version) == ("alice", 1)
    with pytest.raises(UsageError):
        mixer.protect(photo, subject=name, version=np.float64(1))
