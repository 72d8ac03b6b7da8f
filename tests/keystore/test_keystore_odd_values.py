"""Every parameter of every public method, with values as tables, vector stores and frameworks hand them on.

What stands for a value is that value; anything else is an error of ours that names the parameter.
"""

from __future__ import annotations

import inspect
import io
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from keystore_clock import Clock

from anonymix_keystore import (
    AnchorFile,
    EnvironmentUnlock,
    InvalidRequestError,
    KeyFileUnlock,
    KeyState,
    Keystore,
    KeystoreError,
    PassphraseUnlock,
    StoreExistsError,
)
from anonymix_keystore._originals import Originals
from anonymix_keystore._references import References


class Name(StrEnum):
    """A framework's enumeration."""

    ALICE = "alice"


class OldName(str, Enum):  # noqa: UP042 - older code has such
    """The older spelling of the same, whose str() says something else."""

    ALICE = "alice"


class Markup(str):
    """A str subclass that lies about itself, as markupsafe's does in its way."""

    __slots__ = ()

    def __str__(self) -> str:
        return "somebody else"

    def encode(self, *_: Any, **__: Any) -> bytes:
        return b"somebody else"


class Number(IntEnum):
    """A number with a name."""

    ONE = 1


class Bytes(bytes):
    """A bytes subclass."""


class Place:
    """A path-like object."""

    def __init__(self, path: str | bytes) -> None:
        self._path = path

    def __fspath__(self) -> str | bytes:
        return self._path


class Stamp(datetime):
    """As pandas' Timestamp: a datetime subclass."""


class Delta(timedelta):
    """As pandas' Timedelta."""


U = UUID("12345678-1234-5678-1234-567812345678")

# Each odd value with its meanings by kind of parameter; where a kind is not named, it is refused.
ODD: dict[str, tuple[Any, dict[str, Any]]] = {
    "None": (None, {"optional": None}),
    "empty text": ("", {"text": "", "optional": ""}),
    "text": ("alice", {"text": "alice", "name": "alice", "id": "alice", "iterable of names": None}),
    "numpy text": (np.str_("alice"), {"text": "alice", "name": "alice", "id": "alice"}),
    "enumeration": (Name.ALICE, {"text": "alice", "name": "alice", "id": "alice"}),
    "old enumeration": (OldName.ALICE, {"text": "alice", "name": "alice", "id": "alice"}),
    "markup": (Markup("alice"), {"text": "alice", "name": "alice", "id": "alice"}),
    "lone surrogate": ("a\ud800", {}),
    "bytes": (b"alice", {"data": b"alice"}),
    "bytes subclass": (Bytes(b"alice"), {"data": b"alice"}),
    "bytearray": (bytearray(b"alice"), {"data": b"alice"}),
    "numpy bytes": (np.bytes_(b"alice"), {"data": b"alice"}),
    "zero": (0, {"id": "0", "number": 0, "whole": 0}),
    "one": (1, {"id": "1", "number": 1, "whole": 1}),
    "numpy int64": (np.int64(1), {"id": "1", "number": 1, "whole": 1}),
    "numpy uint8": (np.uint8(1), {"id": "1", "number": 1, "whole": 1}),
    "numpy array of one": (np.array(1), {"id": "1", "number": 1, "whole": 1}),
    "int enumeration": (Number.ONE, {"id": "1", "number": 1, "whole": 1}),
    "huge int": (1 << 70, {"id": str(1 << 70)}),
    "negative": (-1, {"id": "-1", "whole": -1}),
    "True": (True, {"flag": True}),
    "numpy True": (np.True_, {"flag": True}),
    "float": (1.0, {"number": 1.0}),
    "numpy float": (np.float32(1.0), {"number": 1.0}),
    "nan": (float("nan"), {}),
    "infinity": (float("inf"), {}),
    "decimal": (Decimal(1), {"number": 1.0}),
    "fraction": (Fraction(1), {"number": 1.0}),
    "complex": (1j, {}),
    "UUID": (U, {"id": str(U)}),
    "list": (["alice"], {"iterable": None}),
    "tuple": (("alice",), {"iterable": None}),
    "set": ({"alice"}, {"iterable": None}),
    "dict": ({"alice": 1}, {"iterable": None}),
    "numpy array": (np.array(["alice"]), {"iterable": None}),
    "bytes path": (Place(b"alice"), {}),
    "date": (date(2030, 1, 1), {}),
    "naive datetime": (datetime(2030, 1, 1), {}),  # noqa: DTZ001 - it is refused
    "datetime": (datetime(2030, 1, 1, tzinfo=UTC), {"moment": None}),
    "datetime subclass": (Stamp(2030, 1, 1, tzinfo=UTC), {"moment": None}),
    "last datetime": (datetime.max.replace(tzinfo=UTC), {"moment": None}),
    "first datetime": (datetime.min.replace(tzinfo=UTC), {}),
    "numpy datetime": (np.datetime64("2030-01-01"), {}),
    "timedelta": (timedelta(days=2), {"span": None}),
    "timedelta subclass": (Delta(days=2), {"span": None}),
    "longest timedelta": (timedelta.max, {"limit": None}),
    "negative timedelta": (timedelta(days=-1), {}),
    "numpy timedelta": (np.timedelta64(2, "D"), {}),
    "class": (Keystore, {"function": None}),
    "object": (object(), {}),
    "function": (len, {"function": None}),
}


@dataclass
class Surroundings:
    store: Keystore
    folder: Path
    unlock: KeyFileUnlock

    def new(self) -> Path:
        return self.folder / f"new{len(list(self.folder.iterdir()))}"


# What each parameter is, and a value that is right. A new parameter has to be entered here.
Right = Callable[[Surroundings], Any]
PARAMETERS: dict[str, tuple[str, Right]] = {
    "subject": ("name", lambda s: "alice"),
    "scope": ("name", lambda s: "default"),
    "label": ("name", lambda s: "face"),
    "reason": ("text", lambda s: "because"),
    "actor": ("text", lambda s: "tester"),
    "accept_rollback": ("text", lambda s: ""),
    "adapter": ("text", lambda s: "x"),
    "fingerprint": ("text", lambda s: "f"),
    "guided_fingerprint": ("text", lambda s: "g"),
    "subspace": ("text", lambda s: "s"),
    "key": ("key", lambda s: s.store.issue(f"k{secrets.token_hex(8)}")),
    "entry": ("text", lambda s: "00" * 32),
    "beyond": ("text", lambda s: "00" * 32),
    "collection": ("id", lambda s: "c"),
    "external_id": ("id", lambda s: "e"),
    "version": ("whole", lambda s: 1),
    "batch": ("whole", lambda s: 10),
    "job": ("whole", lambda s: 1),
    "after": ("whole", lambda s: 0),
    "cache_size": ("whole", lambda s: 10),
    "cache_age": ("number", lambda s: 1.0),
    "busy_timeout": ("number", lambda s: 1.0),
    "replace": ("flag", lambda s: True),
    "gallery": ("flag", lambda s: False),
    "issue": ("flag", lambda s: True),
    "state": ("state", lambda s: s.store.anchor_state()),
    "accept_clock": ("flag", lambda s: False),
    "accept_most": ("flag", lambda s: False),
    "grace": ("span", lambda s: timedelta(days=1)),
    "limit": ("limit", lambda s: timedelta(days=300)),
    "older_than": ("limit", lambda s: timedelta(days=300)),
    "until": ("moment", lambda s: datetime(2035, 1, 1, tzinfo=UTC)),
    "subjects": ("iterable", lambda s: ["alice"]),
    "states": ("states", lambda s: [KeyState.ACTIVE]),
    "lines": ("lines", lambda s: []),
    "entries": ("lines", lambda s: []),
    "renewals": ("lines", lambda s: []),
    "removed": ("iterable", lambda s: []),
    "only": ("states", lambda s: None),
    "file": ("file", lambda s: io.StringIO()),
    "data": ("data", lambda s: b"face"),
    "path": ("path", lambda s: s.new()),
    "backup": ("path", lambda s: s.folder / "backup"),
    "unlock": ("unlock", lambda s: s.unlock),
    "old": ("unlock", lambda s: PassphraseUnlock("other")),
    "new": ("unlock", lambda s: PassphraseUnlock("third")),
    "anchor": ("anchor", lambda s: AnchorFile.create(s.new())),
    "clock": ("function", lambda s: Clock()),
    "progress": ("progress", lambda s: None),
    "damaged": ("progress", lambda s: None),
}
OPTIONAL = "optional"
OWNERS = {owner.__name__: owner for owner in (Keystore, Originals, References)}
NOT_ASKED = {"close", "path", "epoch", "unlock_outdated", "originals", "references", "unscrubbed"}


def public() -> Iterator[tuple[str, str]]:
    for owner in OWNERS.values():
        for name, member in inspect.getmembers(owner):
            if name.startswith("_") or isinstance(member, property):
                continue
            for parameter in inspect.signature(member).parameters.values():
                if parameter.name not in {"self", "cls"}:
                    yield f"{owner.__name__}.{name}", parameter.name


CALLS = sorted(public())


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surroundings]:
    folder = tmp_path_factory.mktemp("odd")
    unlock = KeyFileUnlock.generate(folder / "unlock.key")
    with Keystore.create(folder / "store.db", unlock, clock=Clock(), actor="tester") as store:
        store.issue("alice")
        store.originals.enable(PassphraseUnlock("other"))
        store.originals.keep("alice", b"face")
        store.references.enable()
        store.backup(folder / "backup", unlock)
        store.rewrap_all()
        yield Surroundings(store, folder, unlock)


def arguments(method: Any, around: Surroundings, given: str) -> dict[str, Any]:
    """The arguments that are needed, besides the one that is looked at."""
    made = {}
    for parameter in inspect.signature(method).parameters.values():
        if parameter.name != given and parameter.default is inspect.Parameter.empty:
            made[parameter.name] = PARAMETERS[parameter.name][1](around)
    return made


def call(where: str, around: Surroundings, parameter: str, value: Any) -> Any:
    owner, name = where.split(".")
    place = {"Keystore": around.store, "Originals": around.store.originals}
    method = getattr(place.get(owner, around.store.references), name)
    given = arguments(method, around, parameter)
    if name in {"open", "locked_by"} and "path" in given:
        given["path"] = around.folder / "store.db"
    found = method(**given, **{parameter: value})
    if isinstance(found, Keystore):
        found.close()
    return list(found) if isinstance(found, Iterator) else found


def means_something(kind: str, odd: str, parameter: inspect.Parameter) -> bool:
    value, meanings = ODD[odd]
    if value is None:
        return parameter.default is None
    kinds = {
        "path": {"name"},
        "states": set(),
        "lines": {"iterable"},
        "limit": {"limit", "span"},
        "progress": set(),
    }.get(kind, {kind})
    return bool(kinds & set(meanings))


def test_every_parameter_is_known_to_this_test() -> None:
    assert {parameter for _, parameter in CALLS} == set(PARAMETERS)
    assert len(CALLS) > 100


@pytest.mark.parametrize(("where", "parameter"), CALLS, ids=[f"{w}-{p}" for w, p in CALLS])
def test_odd_values_are_right_or_refused_by_name(
    surroundings: Surroundings, where: str, parameter: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(surroundings.folder)  # a text is a path, too
    owner, name = where.split(".")
    method = getattr(OWNERS[owner], name)
    declared = inspect.signature(method).parameters[parameter]
    kind = PARAMETERS[parameter][0]
    wrong = []
    for odd, (value, _) in ODD.items():
        fits = means_something(kind, odd, declared)
        if kind == "progress" and callable(value):
            continue  # what it does is the caller's
        try:
            call(where, surroundings, parameter, value)
        except InvalidRequestError as error:
            if parameter not in str(error):
                wrong.append(f"{odd}: the error does not name {parameter}: {error}")
        except KeystoreError as error:
            # Such a subject, file or version is not there: said of values that mean something alone.
            if not fits:
                wrong.append(f"{odd}: taken for something that is not there: {error!r}")
        except Exception as error:  # noqa: BLE001 - that none comes is what is tested
            wrong.append(f"{odd}: {type(error).__name__}: {error}")
        else:
            if not fits:
                wrong.append(f"{odd}: taken, and it should not be")
    assert not wrong, "\n".join(wrong)


# --- the right value --------------------------------------------------------------------------------


TEXTS = [np.str_("alice"), Name.ALICE, OldName.ALICE, Markup("alice")]


@pytest.mark.parametrize("value", TEXTS, ids=lambda value: type(value).__name__)
def test_texts_of_any_class_are_their_text(store: Keystore, value: str) -> None:
    key = store.issue(value, value, reason=value)
    assert (key.subject, key.scope) == ("alice", "alice")
    assert {type(key.subject), type(key.scope)} == {str}
    assert store.current("alice", "alice") == key
    assert store.current(value, value) == key
    store.record_enrolment(
        value, value, adapter=value, collection=value, external_id=value, version=1, fingerprint=value
    )
    (found,) = store.enrolments(value)
    texts = {
        found.subject,
        found.scope,
        found.adapter,
        found.collection,
        found.external_id,
        found.fingerprint,
    }
    assert texts == {"alice"}
    assert list(store.audit())[-2]["reason"] == "alice"
    assert store.forget(value).entries == (found,)


@pytest.mark.parametrize(
    "breach", [np.str_("breach"), StrEnum("R", {"B": "breach"}).B, Enum("S", {"B": "breach"}, type=str).B]
)
def test_a_breach_is_one_however_it_is_spelt(store: Keystore, breach: str) -> None:
    store.issue("alice")
    store.rotate("alice", reason=breach)
    assert store.history("alice")[0].state is KeyState.COMPROMISED
    store.rotate_all(reason=breach)
    assert store.history("alice")[1].state is KeyState.COMPROMISED


@pytest.mark.parametrize("one", [np.int64(1), np.uint8(1), Number.ONE], ids=lambda one: type(one).__name__)
def test_whole_numbers_of_any_class_are_their_number(store: Keystore, one: int) -> None:
    key = store.issue("alice")
    assert store.at("alice", one) == key
    store.record_enrolment("alice", adapter="x", collection=one, external_id=one, version=one, fingerprint="f")
    (found,) = store.enrolments()
    assert (found.external_id, found.collection, found.version) == ("1", "1", 1)
    assert store.revoke("alice", version=one) == (1,)
    assert store.issue_many(["bob", "carol"], batch=one) == 2
    assert store.verify().ok


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (U, str(U)), (np.int64(0), "0"), ("0", "0")])
def test_ids_of_back_ends_stand_for_their_text(store: Keystore, value: object, text: str) -> None:
    store.issue("alice")
    made = [
        store.record_enrolment("alice", adapter="x", collection="c", external_id=item, version=1, fingerprint="f")
        for item in (value, text)
    ]
    assert made[0] == made[1]
    assert [item.external_id for item in store.enrolments()] == [text]


def test_dates_and_stretches_of_subclasses_are_what_they_say(store: Keystore, clock: Clock) -> None:
    store.issue("alice")
    store.issue("bob")
    store.rotate("alice", grace=Delta(days=2))
    until = store.history("alice")[0].until
    assert until is not None
    assert until.timestamp() == clock.now + 2 * 86_400
    store.retire("bob", until=Stamp(2030, 1, 1, tzinfo=UTC))
    assert store.history("bob")[0].until == datetime(2030, 1, 1, tzinfo=UTC)
    with pytest.raises(InvalidRequestError, match="timedelta"):
        store.rotate("alice", grace=30)  # type: ignore[arg-type]


def test_pandas_values_are_taken(store: Keystore) -> None:
    pd = pytest.importorskip("pandas")
    table = pd.DataFrame({"who": ["alice", "bob"], "row": [0, 1], "version": [1, 1]})
    assert store.issue_many(table["who"]) == 2
    for row in table.itertuples():
        store.record_enrolment(
            row.who, adapter="x", collection="c", external_id=row.row, version=row.version, fingerprint="f"
        )
    assert {item.external_id for item in store.enrolments()} == {"0", "1"}
    store.rotate("alice", grace=pd.Timedelta("2D"))
    store.retire("bob", until=pd.Timestamp("2030-01-01", tz="UTC"))
    for odd in (pd.NaT, pd.Timestamp("2030-01-01")):
        with pytest.raises(InvalidRequestError, match="until"):
            store.retire("alice", until=odd)
    with pytest.raises(InvalidRequestError, match="grace"):
        store.rotate("alice", grace=pd.NaT)
    with pytest.raises(InvalidRequestError, match="version"):
        store.at("alice", float("nan"))  # type: ignore[arg-type]


def test_a_text_is_no_list_of_people(store: Keystore) -> None:
    with pytest.raises(InvalidRequestError, match="subjects"):
        store.issue_many("alice")
    with pytest.raises(InvalidRequestError, match="subjects"):
        store.rotate_all(subjects="alice")
    assert list(store.subjects()) == []


def test_a_path_may_be_any_path_object(tmp_path: Path) -> None:
    place = Place(str(tmp_path / "key"))
    unlock = KeyFileUnlock.generate(place)  # type: ignore[arg-type]
    with pytest.raises(StoreExistsError):
        KeyFileUnlock.generate(place)  # type: ignore[arg-type]
    anchor = AnchorFile.create(Place(str(tmp_path / "anchor")))  # type: ignore[arg-type]
    store = Place(str(tmp_path / "store"))
    Keystore.create(store, unlock, anchor=anchor).close()  # type: ignore[arg-type]
    assert Keystore.locked_by(np.str_(tmp_path / "store"))[0] == "key-file"
    with Keystore.open(store, KeyFileUnlock(place), anchor=anchor) as again:  # type: ignore[arg-type]
        again.backup(Place(str(tmp_path / "backup")), unlock)  # type: ignore[arg-type]


@pytest.mark.parametrize("odd", [5, None, 1.0, True, ["secret"], "", b"", "a\ud800"], ids=repr)
def test_what_is_no_passphrase_is_refused_and_not_repeated(odd: object) -> None:
    with pytest.raises(InvalidRequestError, match="passphrase") as told:
        PassphraseUnlock(odd)  # type: ignore[arg-type]
    assert "secret" not in str(told.value)
    assert told.value.__suppress_context__ or told.value.__context__ is None


@pytest.mark.parametrize(
    "odd",
    [5, None, b"bytes", "", "zero\0", Place(b"x")],
    ids=["number", "none", "bytes", "empty", "zero", "path of bytes"],
)
def test_what_is_no_path_is_refused(odd: Any) -> None:
    for make in (KeyFileUnlock, KeyFileUnlock.generate, AnchorFile, AnchorFile.create):
        with pytest.raises(InvalidRequestError, match="path"):
            make(odd)


@pytest.mark.parametrize("odd", [5, None, ""], ids=repr)
def test_what_is_no_variable_is_refused(odd: Any) -> None:
    with pytest.raises(InvalidRequestError, match="variable"):
        EnvironmentUnlock(odd)


def test_a_passphrase_in_the_place_of_an_unlock_is_refused_and_not_repeated(path: Path) -> None:
    for make in (Keystore.create, Keystore.open):
        with pytest.raises(InvalidRequestError, match="unlock") as told:
            make(path, "correct horse")  # type: ignore[arg-type]
        assert "horse" not in str(told.value)
    assert not path.exists()


def test_a_passphrase_of_any_class_is_its_text(path: Path) -> None:
    from anonymix_keystore import Argon2Cost

    cheap = Argon2Cost(8_192, 1, 1)
    Keystore.create(path, PassphraseUnlock(Markup("swordfish"), cost=cheap)).close()
    for same in ("swordfish", b"swordfish", bytearray(b"swordfish"), np.str_("swordfish")):
        Keystore.open(path, PassphraseUnlock(same)).close()
