"""What the DeepFace adapter does without DeepFace: known crops, names of stores, folders, bound options."""

from __future__ import annotations

import inspect
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from remembering import RememberingMixer

from anonymix_adapters import AdapterError, BackEndError, BypassError
from anonymix_adapters.deepface import ProtectedDeepFace, ProtectedFace
from anonymix_adapters.deepface._databases import Database
from anonymix_adapters.deepface._folders import Folder
from anonymix_adapters.deepface._given import Given, Origin
from anonymix_adapters.deepface._pictures import batch, source
from anonymix_adapters.interceptor import Interceptor, Whose
from anonymix_adapters.testing.conformance import Person
from anonymix_keystore import Keystore
from anonymix_plugin import AlreadyProtectedError, UsageError
from anonymix_plugin.values import CancelableFace

HERS = Origin(Whose("alice", "default", gallery=False), 1, "f" * 32)


@pytest.fixture
def interceptor(adapter_store: Keystore) -> Interceptor:
    return Interceptor(SimpleNamespace(keystore=adapter_store, fingerprint="f" * 32, protect=print), "deepface")  # type: ignore[arg-type]


def picture(seed: int, side: int = 160) -> np.ndarray:
    """Something with coarse and fine parts, in levels."""
    noise = np.random.default_rng(seed)
    coarse = noise.integers(0, 256, (8, 8, 3)).repeat(side // 8, 0).repeat(side // 8, 1)
    return np.clip(coarse + noise.integers(-20, 20, coarse.shape), 0, 255).astype(np.uint8)


# --- crops ------------------------------------------------------------------------------------------


def test_every_level_survives_the_ways_from_floats_to_levels(interceptor: Interceptor) -> None:
    """0..255 by way of /255 in float64 or float32, rounded or cut off: what comes back is the crop."""
    levels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for kind in (np.float64, np.float32):
        given = Given()
        face = given.give((levels / 255).astype(kind), interceptor, HERS, bgr=False, whole=True)
        assert isinstance(face, ProtectedFace)
        for back in (
            face,
            np.asarray(face, np.float32),
            face * 255,
            np.rint(face * 255).astype(np.uint8),
            (face * 255).astype(np.uint8),
            (np.asarray(face, np.float32) * 255).astype(np.int64),
            face[..., ::-1],
            face[:, ::-1],
        ):
            handed = given.handed(back, interceptor)
            assert handed is not None
            assert handed.whole
            assert handed.origin is HERS
            assert np.abs(handed.pixels.astype(int)[..., ::-1].max() - 255) <= 1


def test_what_is_handed_on_has_the_colours_of_what_was_given_out(interceptor: Interceptor) -> None:
    levels = picture(1)
    for bgr, options in ((False, {}), (True, {})):
        given = Given()
        face = given.give(levels / 255, interceptor, HERS, bgr=bgr, whole=False, **options)
        wanted = levels if bgr else levels[..., ::-1]
        for back in (face, np.asarray(face), face[..., ::-1]):
            handed = given.handed(back, interceptor)
            assert handed is not None
            assert np.array_equal(handed.pixels, wanted)


def test_changed_crops_are_refused_and_other_pictures_are_photos(interceptor: Interceptor) -> None:
    given = Given()
    assert given.handed(picture(1), interceptor) is None
    face = given.give(picture(1) / 255, interceptor, HERS, bgr=False, whole=True)
    assert given.handed(picture(2), interceptor) is None
    assert given.handed(np.full((160, 160, 3), 128, np.uint8), interceptor) is None
    assert given.handed(np.full((160, 160, 3), np.nan), interceptor) is None
    assert given.handed(np.zeros((0, 5, 3)), interceptor) is None
    one = np.array(face)
    one[0, 0, 0] += 1 / 255
    for changed in (one, face[1:], face[:80, :80], face.copy() * 0.99, face.repeat(2, 0).repeat(2, 1)):
        with pytest.raises(BypassError):
            given.handed(changed, interceptor)
    other = Interceptor(interceptor.mixer, "deepface", scope="other")
    with pytest.raises(BypassError, match="another client"):
        given.handed(face, other)
    same = Interceptor(interceptor.mixer, "deepface")
    assert given.handed(face, same) is not None  # protected twice in one and the same way


def test_what_was_given_out_is_remembered_within_bounds(
    interceptor: Interceptor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("anonymix_adapters.deepface._given._CROPS", 4)
    monkeypatch.setattr("anonymix_adapters.deepface._given._VECTORS", 4)
    given = Given()
    for seed in range(40):
        given.give(picture(seed, 32) / 255, interceptor, HERS, bgr=False, whole=True)
        given.give_vector([float(seed)] * 8)
    assert len(given._thumbs) == 4
    assert len(given._crops) == len(given._shapes) <= 32
    assert given.gave_vector([39.0] * 8)
    assert not given.gave_vector([1.0] * 8)
    assert not given.gave_vector(["a", object()])


# --- pictures ---------------------------------------------------------------------------------------


def test_embeddings_addresses_and_cancelable_faces_are_no_photos() -> None:
    face = CancelableFace(picture(1), (0, 0, 1, 1), "a", "b", 1, "f" * 32, "fast")
    for wrong, error in (
        ([0.1, 2], BypassError),
        ((np.float32(0.1),), BypassError),
        (np.zeros(128), BypassError),
        ("HTTPS://x/y.jpg", BypassError),
        (" file:///etc/passwd", BypassError),
        ("data:image/png;base64,@@", UsageError),
        ("data:image/png;base64,aé", UsageError),
        (["a.jpg"], UsageError),
        (face, AlreadyProtectedError),
    ):
        with pytest.raises(error):
            source(wrong)
    assert source("data:image/png;charset=x;base64,YWJj\r\n ZGVm\n") == b"abcdef"
    assert source("a.jpg") == "a.jpg"
    assert batch("a.jpg") is batch([0.1, 0.2]) is batch(np.zeros((4, 4, 3))) is None
    assert batch(("a", "b")) == ["a", "b"]
    assert len(batch(np.zeros((2, 4, 4, 3))) or ()) == 2


# --- databases --------------------------------------------------------------------------------------

SECRET = "hunter2-s3cr3t"
PLACES: list[tuple[str, Any, str]] = [
    ("postgres", f"postgresql://bob:{SECRET}@db.example:5432/faces?sslkey={SECRET}", "db.example:5432/faces"),
    ("postgres", f"host=db.example port=5432 dbname=faces password={SECRET}", "port=5432,dbname=faces"),
    (
        "postgres",
        {"host": "db", "dbname": "faces", "user": "bob", "password": SECRET},
        "host=db,dbname=faces",
    ),
    ("mongo", f"mongodb://bob:{SECRET}@one:27017,two:27018/faces", "one:27017,two:27018/faces"),
    ("mssql", f"DRIVER={{ODBC}};SERVER=tcp:db,1433;DATABASE=faces;UID=b;PWD={{{SECRET}}}", "database=faces"),
    (
        "mysql",
        {"host": "db", "port": 3306, "database": "faces", "passwd": SECRET},
        "port=3306,database=faces",
    ),
    ("redis", f"redis://:{SECRET}@cache:6379/2", "cache:6379/2"),
    ("qdrant", {"url": f"http://x:{SECRET}@q:6333", "api_key": SECRET}, "url=q:6333"),
    ("weaviate", {"url": "https://w.example", "tenant": "acme", "api_key": SECRET}, "tenant=acme"),
    ("cassandra", {"contact_points": ["c1", "c2"], "keyspace": "k", "token": SECRET}, "c1+c2,keyspace=k"),
    ("milvus", "faces/milvus.db", "faces/milvus.db"),
]


@pytest.mark.parametrize(("kind", "details", "place"), PLACES)
def test_a_database_is_named_by_its_place_and_never_by_a_secret(
    interceptor: Interceptor, kind: str, details: Any, place: str
) -> None:
    name = Database(kind, details, None).name(interceptor)
    assert name.startswith(f"{kind}:")
    assert name.endswith(place)
    assert SECRET not in name
    assert "bob" not in name


def test_a_database_whose_place_cant_be_told_needs_a_name(interceptor: Interceptor) -> None:
    for database in (
        Database("pinecone", f"pcsk_{SECRET}", None),
        Database("mongo", "", object()),
        Database("postgres", {"password": SECRET}, None),
        Database("postgres", f"postgresql://bob:{SECRET}/x@db/faces", None),
        Database("mongo", f"mongodb://bob:{SECRET}?@db/faces", None),
    ):
        with pytest.raises(UsageError, match="which") as told:
            database.name(interceptor)
        assert SECRET not in str(told.value)
        assert database.name(interceptor, given="staff") == f"{database.kind}:staff"
    info = SimpleNamespace(host="db", port=5432, dbname="faces", password=SECRET)
    connection = SimpleNamespace(info=info)
    assert Database("postgres", None, connection).name(interceptor) == "postgres:db:5432/faces"


def test_sqlite_databases_have_names_of_their_own(interceptor: Interceptor, tmp_path: Path) -> None:
    path = tmp_path / "faces.db"
    by_path, by_dict = Database("sqlite", str(path), None), Database("sqlite", {"database": str(path)}, None)
    name = by_path.name(interceptor, settle=True)
    assert name == by_dict.name(interceptor) == f"sqlite:{path}"
    path.rename(tmp_path / "moved.db")
    assert Database("sqlite", str(tmp_path / "moved.db"), None).name(interceptor) == name
    memory = [sqlite3.connect(":memory:") for _ in range(2)]
    names = [Database("sqlite", None, it).name(interceptor) for it in memory]
    assert len(set(names)) == 2
    assert [Database("sqlite", None, it).name(interceptor) for it in memory] == names
    for connection in memory:
        connection.close()
    with pytest.raises(UsageError, match="gone after the call"):
        Database("sqlite", ":memory:", None).name(interceptor)


# --- folders ----------------------------------------------------------------------------------------


def test_a_folder_keeps_its_name_and_a_new_one_gets_another(interceptor: Interceptor, tmp_path: Path) -> None:
    store = interceptor.registry
    assert isinstance(store, Keystore)
    key = store.current_or_issue("folder-alice")
    old, new = tmp_path / "old", tmp_path / "new"
    folder = Folder(old, interceptor)
    old.mkdir()
    name = folder.name()
    face = CancelableFace(picture(3), (0, 0, 1, 1), "folder-alice", "default", key.version, "f" * 32, "fast")
    path = folder.add(face, "folder-alice")
    (digest,) = folder.pictures()
    interceptor.record(face, Whose("folder-alice", "default", gallery=False), collection=name, external_id=digest)
    folder.check("skip")
    old.rename(new)
    moved = Folder(new, interceptor)
    moved.check("yunet")
    assert moved.name() == name == str(old)
    (new / ".anonymix").unlink()  # as a folder of an earlier version has none
    assert Folder(new, interceptor).name() == name
    old.mkdir()
    assert Folder(old, interceptor).name() not in {str(old), str(new)}
    # Caches of other hands are deleted, the adapter's own are kept.
    cache = new / "ds_model_sface.npz"
    cache.write_bytes(b"ours")
    moved.remember()
    moved.check("skip")
    assert cache.exists()
    cache.write_bytes(b"theirs")
    moved.check("skip")
    assert not cache.exists()
    (new / "other.PNG").write_bytes(b"x")
    with pytest.raises(BypassError, match=r"other\.PNG"):
        moved.check("skip")
    (new / "other.PNG").unlink()
    # An earlier version wrote faces cut out, which no detector finds as it finds them in the probe.
    small = CancelableFace(picture(4, 224), (0, 0, 1, 1), "folder-alice", "default", 1, "f" * 32, "fast")
    moved.add(small, "folder-alice")
    found = {other: digest for digest, other in moved.pictures().items()}
    added = next(digest for other, digest in found.items() if other.name != path.name)
    interceptor.record(face, Whose("folder-alice", "default", gallery=False), collection=name, external_id=added)
    moved.check("skip")
    with pytest.raises(BackEndError, match="earlier version"):
        moved.check("yunet")
    moved.remove(added)
    moved.check("yunet")


# --- calls ------------------------------------------------------------------------------------------


class FakeDeepFace:
    """Functions with DeepFace's names, and a database that takes each name once."""

    def __init__(self) -> None:
        self.taken: list[str | None] = []

    def register(
        self,
        img: Any,
        img_name: str | None = None,
        model_name: str = "VGG-Face",
        detector_backend: str = "opencv",
        database_type: str = "postgres",
        connection_details: Any = None,
        connection: Any = None,
    ) -> dict[str, int]:
        assert isinstance(img, np.ndarray)
        new = img_name not in self.taken
        self.taken += [img_name] if new else []
        return {"inserted": int(new)}

    def find(self, img_path: Any, db_path: str, refresh_database: bool = True) -> list[Any]:
        raise AssertionError("not reached")


def test_options_are_bound_and_only_what_was_confirmed_is_recorded(
    adapter_mixer: RememberingMixer, adapter_store: Keystore, londoners: list[Person], tmp_path: Path
) -> None:
    interceptor = Interceptor(adapter_mixer, "deepface")
    fake = FakeDeepFace()
    client = ProtectedDeepFace(fake, interceptor)
    assert [*inspect.signature(client.register).parameters] == [
        *inspect.signature(fake.register).parameters,
        "subject",
    ]
    with pytest.raises(BypassError, match="not refreshed"):
        client.find(str(londoners[0].enrolled), tmp_path, False)
    with pytest.raises(AttributeError):
        _ = client.search  # a version without it
    person, place = londoners[0], str(tmp_path / "faces.db")
    photo = str(person.enrolled)
    for name, inserted in (("a", 1), ("a", 0), ("b", 1)):
        answer = client.register(photo, name, "SFace", "skip", "sqlite", place, subject=person.name)
        assert answer == {"inserted": inserted}
    fake.taken.append("c")
    client.register(photo, "c", "SFace", "skip", "sqlite", place, subject=person.name)
    assert sorted(it.external_id for it in interceptor.entries(f"sqlite:{place}")) == ["a", "b"]
    with pytest.raises(AdapterError, match="can't be deleted"):
        client.register(photo, "d", "SFace", "skip", "postgres", subject=person.name)
