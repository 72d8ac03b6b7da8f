"""Where a scope keeps sealed references, bulk work makes and uses them as one process does, whatever dies."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bulk_stub
import pytest
from bulk_stub import PHOTOS, contents
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from anonymix_keystore import KeyFileUnlock, KeyState, Keystore, SubjectKey
from anonymix_keystore import References as Book
from anonymix_plugin.bulk import Ledger, Progress, Row, Work, protect_in_bulk
from anonymix_plugin.bulk._sealed import BlockReferences, Made
from anonymix_plugin.options import MixerOptions

pytestmark = pytest.mark.usefixtures("stub")
PEOPLE = [f"person{number}" for number in range(7)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Photos of seven people in turn, of whom some have first photos that are none."""
    folder = bulk_stub.photos_in(tmp_path / "source")
    for number in (0, 3, 7, 10, 14):
        (folder / f"{number:03d}.jpg").write_bytes(b"bad")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return bulk_stub.keep_references(bulk_stub.store_at(tmp_path / "keys.db"))


def copy_of(store: Path, name: str) -> Path:
    copies = [store.with_name(name).with_suffix(suffix) for suffix in (".db", ".key", ".second")]
    for copy in copies:
        shutil.copy(store.with_suffix(copy.suffix), copy)
    return copies[0]


def test_the_first_photo_that_is_one_makes_the_reference_and_all_others_are_guided_by_it(
    tmp_path: Path, source: Path, store: Path
) -> None:
    """Each person is in every block, so that blocks wait for each other; and all workers are killed."""
    killed: list[int] = []
    whole = copy_of(store, "whole")

    def kill(progress: Progress) -> None:
        if progress.done == 3 and not killed:
            killed.extend(progress.workers)
            for worker in killed:
                os.kill(worker, signal.SIGKILL)

    first = bulk_stub.drive(source, whole, tmp_path / "whole", workers=1, enrol=True)
    summary = bulk_stub.drive(source, store, tmp_path / "many", workers=3, enrol=True, progress=kill)
    assert (first, len(killed)) == (summary, 3)
    assert (summary.made, summary.failed) == (PHOTOS - 5, 5)
    made = bulk_stub.references_in(store, PEOPLE)
    good = {0: 21, 3: 17}  # of these two the first photos are none
    assert made == {f"person{n}": b"code of photo %d" % good.get(n, n) for n in range(7)}
    assert made == bulk_stub.references_in(whole, PEOPLE)
    assert contents(tmp_path / "many") == contents(tmp_path / "whole")
    assert "e" * 32 in contents(tmp_path / "many")["outcomes.csv"].decode()
    bulk_stub.drive(source, store, tmp_path / "again", workers=2)  # as probes
    images = {name: image for name, image in contents(tmp_path / "again").items() if name.endswith("png")}
    assert images.items() <= contents(tmp_path / "many").items()


def test_probes_make_no_reference_and_a_locked_secret_is_an_outcome(tmp_path: Path, source: Path, store: Path) -> None:
    bulk_stub.drive(source, store, tmp_path / "out")
    assert set(bulk_stub.references_in(store, PEOPLE).values()) == {None}
    store.with_suffix(".second").unlink()
    summary = bulk_stub.drive(source, store, tmp_path / "locked", enrol=True)
    assert (summary.made, summary.failed) == (0, PHOTOS)
    assert "originals" in contents(tmp_path / "locked")["outcomes.csv"].decode()


def test_somebody_else_who_enrols_meanwhile_is_faster_and_all_faces_are_guided_by_theirs(
    tmp_path: Path, source: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, other = Book.keep, b"code of another photo"

    def overtaken(book: Any, key: SubjectKey, data: bytes, **how: Any) -> bool:
        if key.subject == "person2" and data != other:
            keep(book, key, other, **how)
        return keep(book, key, data, **how)

    with monkeypatch.context() as patched:
        patched.setattr(Book, "keep", overtaken)
        bulk_stub.drive(source, store, tmp_path / "out", enrol=True)
    assert bulk_stub.references_in(store, ["person2"]) == {"person2": other}
    with bulk_stub.open_store(store) as keys:
        key = keys.current("person2")
    for path in (tmp_path / "out" / "2").iterdir():
        assert path.read_bytes() == bulk_stub.face_of(key, b"photo %d" % int(path.stem) + other)


def test_a_source_of_one_person_is_not_read_ahead_of_the_first_photo(tmp_path: Path, source: Path, store: Path) -> None:
    (source / "000.jpg").write_bytes(b"slow photo")
    read: list[int] = []

    def rows() -> Iterator[Row]:
        for number in itertools.count():
            read.append(number)
            yield Row(source / f"{number % 3:03d}.jpg", "person1", "default", Path(f"{number}.png"))

    def look(progress: Progress) -> None:
        if progress.done == 1:
            read.append(-len(read))

    with bulk_stub.open_store(store) as keys, Ledger(tmp_path / "out", {}) as ledger:
        work = Work(3, block=4, enrol=True, limit=40)
        summary = protect_in_bulk(rows(), keys, ledger, MixerOptions(), work, progress=look)
    assert summary.made == 40
    assert -min(read) <= 4 + 3 * 4 + 4


def test_a_reference_is_sealed_for_the_driver_and_goes_with_a_face_that_is_not_made() -> None:
    key = SubjectKey("alice", "default", 2, KeyState.ACTIVE, bytes(32))
    driver, book = X25519PrivateKey.generate(), BlockReferences()
    book.take({("alice", "default"): b"the code of before"}, driver.public_key().public_bytes_raw())
    assert book.enabled()
    assert not book.enabled("staff")
    book.keep(key, b"numbers of a person")
    sealed = book.made(key)
    assert b"numbers" not in sealed
    assert b"alice" not in sealed
    assert Made.opened(sealed, driver) == Made(("alice", "default"), 2, True, b"numbers of a person")
    with pytest.raises(InvalidTag):
        Made.opened(sealed, X25519PrivateKey.generate())
    assert not book.put_back(key)
    book.keep(key, b"of a photo that fails")
    assert book.put_back(key)
    assert book.read(key) == b"numbers of a person"
    assert book.made(key) == b""
    book.take({}, b"")
    assert book.read(key) is None


def test_other_scopes_of_the_store_are_as_before(tmp_path: Path, source: Path) -> None:
    path = bulk_stub.keep_references(bulk_stub.store_at(tmp_path / "other.db"))
    with bulk_stub.open_store(path) as keys:
        keys.references.disable()
        keys.references.enable("staff")
    bulk_stub.drive(source, path, tmp_path / "out", enrol=True)
    with Keystore.open(path, KeyFileUnlock(path.with_suffix(".key"))) as keys:
        key = keys.current("person1")
    assert (tmp_path / "out" / "1" / "001.png").read_bytes() == bulk_stub.face_of(key, b"photo 1")
