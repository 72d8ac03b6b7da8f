"""A renewal loses nobody, enrols nobody twice and lets no original out, whatever dies on the way."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import runpy
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import bulk_stub
import numpy as np
import pytest
import renewal_stub
from PIL import Image
from renewal_stub import ADAPTER, COLLECTION, FolderBackEnd
from service_rig import ServiceRig

from anonymix_adapters import AdapterError, Answer, keep_original
from anonymix_adapters.bulk_renewal import BulkRenewal, Counts
from anonymix_adapters.drawn import DrawnFaces
from anonymix_keystore import DamagedError, KeyFileUnlock, Keystore, NewEnrolment, RenewalInfo, RenewalState
from anonymix_plugin import Anonymixer
from anonymix_plugin.bulk import BulkError, Mixer, Result, Row, Work, photo_store
from anonymix_plugin.cli import main
from anonymix_plugin.errors import UsageError
from anonymix_plugin.images import PhotoSource
from anonymix_plugin.keyservice import Lease, LeaseError, RemoteKeystore, ServiceError
from anonymix_plugin.options import MixerOptions
from anonymix_plugin.values import CancelableFace

PLACE = {"adapter": ADAPTER, "collection": COLLECTION}


class Scene:
    """A keystore, a back end with an entry of version 1 for each subject, and their photos."""

    def __init__(self, folder: Path, people: int) -> None:
        self.store, self.photos, self.entries = folder / "keys.db", folder / "photos", folder / "entries"
        self.entries.mkdir()
        self.names = [f"person{number}" for number in range(people)]
        with Keystore.create(self.store, KeyFileUnlock.generate(self.store.with_suffix(".key"))) as keys:
            for name in self.names:
                (self.photos / name).mkdir(parents=True)
                self.photo_of(name).write_bytes(b"photo of %s " % name.encode() * 4)
            keys.issue_many(self.names)
            for name in self.names:
                self.add(keys, name)

    def photo_of(self, name: str) -> Path:
        return self.photos / name / "1.jpg"

    def add(self, keys: Keystore, name: str) -> str:
        """An entry as it was made before the breach."""
        key = keys.current(name)
        return FolderBackEnd(
            self.entries, Enrolling(keys, bulk_stub.face_of(key, self.photo_of(name).read_bytes()))
        ).enrol(name, b"")

    def breach(self) -> None:
        with bulk_stub.open_store(self.store) as keys:
            keys.rotate_all(reason="breach")

    def check(self) -> None:
        """Everybody has one entry, of the new key, and everything says so."""
        with bulk_stub.open_store(self.store) as keys:
            assert list(keys.due(fingerprint="f" * 32)) == []
            recorded = {it.external_id: (it.subject, it.version) for it in keys.enrolments()}
            assert sorted(recorded.values()) == sorted((name, 2) for name in self.names)
            held = {path.name: path.read_bytes() for path in self.entries.iterdir()}
            assert held.keys() == recorded.keys()
            for entry, content in held.items():
                name = recorded[entry][0]
                face = bulk_stub.face_of(keys.current(name), self.photo_of(name).read_bytes())
                pixels = np.asarray(Image.open(io.BytesIO(face))).tobytes()
                assert content == name.encode() + b"\n" + pixels
            ledger = list(keys.renewals(**PLACE))
            assert {it.entry: (it.subject, it.version) for it in ledger} == recorded
            assert {it.state for it in ledger} == {RenewalState.DONE}
            assert keys.verify().ok

    def outside(self) -> bytes:
        """All that lies anywhere but in the photo store."""
        folder = self.store.parent
        files = [path for path in folder.rglob("*") if path.is_file() and self.photos not in path.parents]
        return b"".join(path.read_bytes() for path in files)


class Enrolling:
    """A mixer that gives one face, in place of the one that enrolled everybody long ago."""

    version = 1

    def __init__(self, keystore: Keystore, image: bytes, scope: str = "default") -> None:
        self.keystore, self._image, self._faces, self._scope = keystore, image, DrawnFaces(keystore), scope
        self.fingerprint = "f" * 32

    def protect(self, image: object, *, subject: str, **_: object) -> object:
        row, result = (
            Row("", subject, self._scope, Path()),
            Result(self._image, self.version, self.fingerprint, "fast", "stub"),
        )
        with self._faces.given(self._faces.face_of(row, result)):
            return self._faces.protect(image, subject=subject, scope=self._scope)


def children(process: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if int((entry / "stat").read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(entry.name))
    return found


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize(
    ("people", "kills"), [(20, 2), pytest.param(1_000, 50, marks=(pytest.mark.long, pytest.mark.timeout(3600)))]
)
def test_a_renewal_that_is_killed_goes_on_and_nobody_is_lost_or_there_twice(
    tmp_path: Path, people: int, kills: int
) -> None:
    scene, chance, done, strays = Scene(tmp_path, people), random.Random(21), 0, 0
    scene.breach()
    command = [sys.executable, renewal_stub.__file__, str(scene.store), str(scene.photos)]
    while done < kills:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout is not None
            if not driver.stdout.readline():
                break  # nothing was left to do
            time.sleep(chance.uniform(0, people / kills / 12))
            if done % 3 == 2 and (workers := children(driver.pid)):  # a worker first, then the driver
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(workers), signal.SIGKILL)
                time.sleep(chance.uniform(0, 0.1))
            driver.kill()
            done += 1
            strays += max([0, *(int(line.split()[1]) for line in driver.stdout if line.endswith("\n"))])
    left = renewal_stub.drive(scene.store, scene.photos, Work(workers=2))
    strays += left.strays
    sys.stdout.write(f"{done} kills, {people} renewals, {left.renewed} in the last run; {strays} strays deleted\n")
    assert done >= kills // 2, "the job ended before it could be killed"
    assert (left.failed, left.finished) == (0, True)
    scene.check()
    assert b"photo of" not in scene.outside()


def renewed(scene: Scene, kind: type[FolderBackEnd] = FolderBackEnd, **work: int) -> tuple[FolderBackEnd, Counts]:
    """A run in this process: the back end, and what was counted."""
    with bulk_stub.open_store(scene.store) as keys:
        faces = DrawnFaces(keys)
        back_end = kind(scene.entries, faces)
        return back_end, renewal_stub.renew(keys, back_end, faces, scene.photos, Work(**work))


@pytest.mark.usefixtures("stub")
def test_an_old_entry_is_deleted_only_after_the_new_one_verifies(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 3)
    old = {path.name: path.read_bytes().partition(b"\n")[0].decode() for path in scene.entries.iterdir()}
    scene.breach()

    class Forgetful(FolderBackEnd):
        def verify(self, subject: str, photo: object) -> Answer:
            return Answer(False, 0.0) if subject == "person1" else super().verify(subject, photo)  # type: ignore[arg-type]

    back_end, counts = renewed(scene, Forgetful)
    assert (counts.renewed, counts.failed, counts.deleted) == (2, 1, 2)
    for entry, subject in old.items():
        assert (scene.entries / entry).exists() == (subject == "person1")
        if subject != "person1":
            steps = [
                back_end.log.index(step) for step in (f"enrol {subject}", f"verify {subject} True", f"delete {entry}")
            ]
            assert steps == sorted(steps)
    back_end, counts = renewed(scene)  # the entry that was made is looked at again, and not made again
    assert (counts.renewed, counts.failed) == (1, 0)
    assert "enrol person1" not in back_end.log
    scene.check()


@pytest.mark.usefixtures("stub")
def test_an_entry_whose_answer_was_lost_does_not_stay(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 4)
    scene.breach()

    class Breaking(FolderBackEnd):
        def send(self, subject: str, face: object) -> str:
            super().send(subject, face)  # type: ignore[arg-type]
            raise TimeoutError("no answer")

    _, counts = renewed(scene, Breaking)
    assert (counts.renewed, counts.failed, counts.strays) == (0, 4, 4)
    with bulk_stub.open_store(scene.store) as keys:
        failed = list(keys.renewals(only=RenewalState.FAILED, **PLACE))
        assert {(it.error, it.what) for it in failed} == {("back_end", "TimeoutError: no answer")}
    _, counts = renewed(scene)
    assert (counts.renewed, counts.failed, counts.strays) == (4, 0, 0)
    scene.check()


@pytest.mark.usefixtures("stub")
def test_people_with_several_entries_get_one_and_lose_all_old_ones(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 6)
    with bulk_stub.open_store(scene.store) as keys:
        for name in scene.names[:4]:
            scene.add(keys, name)
            scene.add(keys, name)
    scene.breach()
    _, counts = renewed(scene, block=2)
    assert (counts.renewed, counts.deleted, counts.total) == (6, 14, 14)
    scene.check()


@pytest.mark.usefixtures("stub")
def test_who_was_enrolled_again_or_lost_the_key_needs_no_photo(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 3)
    scene.breach()
    with bulk_stub.open_store(scene.store) as keys:
        image = bulk_stub.face_of(keys.current("person0"), b"new")
        faces = Enrolling(keys, image)
        faces.version = 2
        FolderBackEnd(scene.entries, faces).enrol("person0", b"")
        keys.revoke("person1")
        for photo in scene.photos.glob("person[01]/*"):
            photo.unlink()
        _, counts = renewed(scene)
        assert (counts.renewed, counts.failed, counts.deleted) == (1, 0, 3)
        assert sorted(it.subject for it in keys.enrolments()) == ["person0", "person2"]
        assert len(list(scene.entries.iterdir())) == 2


@pytest.mark.usefixtures("stub")
def test_the_entries_of_a_block_are_recorded_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene, steps = Scene(tmp_path, 6), []
    scene.breach()
    record = Keystore.record_enrolments

    def watched(keys: Keystore, entries: list[NewEnrolment]) -> tuple[str, ...]:
        steps.append(len(entries))
        return record(keys, entries)

    with monkeypatch.context() as patched:
        patched.setattr(Keystore, "record_enrolments", watched)
        renewed(scene, block=4)
    assert steps == [4, 2]
    scene.check()


@pytest.mark.usefixtures("stub")
def test_a_damaged_subject_stops_nobody_elses_renewal_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path, 3)
    scene.breach()
    with bulk_stub.open_store(scene.store) as keys:  # a run that was killed after it had begun with the first one
        (hers,) = keys.enrolments_of("person0")
        keys.write_renewals([RenewalInfo("person0", "default", *PLACE.values(), 2, "f" * 32, RenewalState.BEGUN)])
    with closing(sqlite3.connect(scene.store)) as db:
        db.execute("UPDATE heads SET created = 5 WHERE tag = (SELECT subject FROM renewals)")
        db.commit()
    monkeypatch.setenv("ANONYMIX_KEYFILE", str(scene.store.with_suffix(".key")))
    for words, code in ((["--json"], 4), ([], 4)):
        command = ["bulk", "renew", f"{renewal_stub.__file__}:open_back_end", "--photos", str(scene.photos)]
        assert main([*command, "--keystore", str(scene.store), "--workers", "1", *words]) == code
        told = capsys.readouterr()
        if words:
            said = json.loads(told.out)
            assert (said["renewed"], said["failed"], said["finished"]) == (2, 0, False)
            assert said["error"]["code"] == "damaged"
        assert "subject 'person0' in scope 'default'" in told.out + told.err
    with bulk_stub.open_store(scene.store) as keys:
        passed: list[DamagedError] = []
        heard = {(it.subject, it.version) for it in keys.enrolments(damaged=passed.append)}
        assert heard == {("person1", 2), ("person2", 2)}
        assert len(passed) == 1
        assert keys.renewal("person0", **PLACE).state is RenewalState.BEGUN  # type: ignore[union-attr]
        assert (scene.entries / hers.external_id).exists()


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize("change", ["UPDATE renewals SET version = 7", "UPDATE renewals SET state = 2"])
def test_a_damaged_line_of_the_ledger_stops_nobody_elses_renewal_and_is_told(tmp_path: Path, change: str) -> None:
    scene = Scene(tmp_path, 3)
    scene.breach()
    with bulk_stub.open_store(scene.store) as keys:
        (hers,) = keys.enrolments_of("person0")
        keys.write_renewals([RenewalInfo("person0", "default", *PLACE.values(), 2, "f" * 32, RenewalState.BEGUN)])
    with closing(sqlite3.connect(scene.store)) as db:
        db.execute(change)
        db.commit()
    with bulk_stub.open_store(scene.store) as keys:
        faces = DrawnFaces(keys)
        store = photo_store(str(scene.photos), "default")
        with BulkRenewal(
            keys, faces, FolderBackEnd(scene.entries, faces), lambda it: store(it.subject, it.scope)
        ) as job:
            counts = job.run(MixerOptions(), Work(block=1))
            job.export(tmp_path / "report.csv")
        assert (counts.renewed, counts.failed, counts.deleted, counts.finished) == (2, 0, 2, False)
        assert "renewal of subject 'person0' in scope 'default'" in str(job.damage)
        assert {(it.subject, it.version) for it in keys.enrolments()} == {
            ("person0", 1),
            ("person1", 2),
            ("person2", 2),
        }
    assert (scene.entries / hers.external_id).exists()
    assert (tmp_path / "report.csv").read_text().count("done") == 2


@pytest.mark.usefixtures("stub")
def test_equal_names_in_two_scopes_of_one_collection_are_two_people(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 2)
    guest = tmp_path / "guest.jpg"
    guest.write_bytes(b"another person0 " * 3)
    with bulk_stub.open_store(scene.store) as keys:
        key = keys.issue("person0", "guests")
        faces = Enrolling(keys, bulk_stub.face_of(key, guest.read_bytes()), "guests")
        FolderBackEnd(scene.entries, faces, scope="guests").enrol("person0", b"")
        keys.write_renewals(  # a run that was killed had begun with one of the two
            [RenewalInfo("person0", "guests", *PLACE.values(), 2, "f" * 32, RenewalState.BEGUN)]
        )
    scene.breach()
    table = tmp_path / "photos.csv"
    rows = [f"person{number},{scene.photo_of(f'person{number}')},default" for number in (0, 1)]
    table.write_text("\n".join(["subject,photo,scope", *rows, f"person0,{guest},guests\n"]))
    with bulk_stub.open_store(scene.store) as keys:
        faces = DrawnFaces(keys)
        back_end = FolderBackEnd(scene.entries, faces)
        counts = renewal_stub.renew(keys, back_end, faces, table, Work(block=1))
        assert (counts.renewed, counts.failed, counts.deleted) == (3, 0, 3)
        recorded = {it.external_id: (it.subject, it.scope, it.version) for it in keys.enrolments()}
        assert sorted(recorded.values()) == [
            ("person0", "default", 2),
            ("person0", "guests", 2),
            ("person1", "default", 2),
        ]
        assert {path.name for path in scene.entries.iterdir()} == recorded.keys()
        ledger = {it.entry: (it.subject, it.scope, it.version) for it in keys.renewals(**PLACE)}
        assert ledger == recorded
        assert list(keys.due(fingerprint="f" * 32)) == []


@pytest.mark.usefixtures("stub")
def test_a_limit_is_kept_and_who_has_no_photo_is_told(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 6)
    scene.breach()
    _, counts = renewed(scene, block=2, limit=2)
    assert (counts.renewed, counts.finished) == (2, False)
    with bulk_stub.open_store(scene.store) as keys:
        name = next(keys.due()).subject
        scene.photo_of(name).rename(tmp_path / "away.jpg")
        _, counts = renewed(scene)
        assert (counts.renewed, counts.failed, counts.finished) == (3, 1, True)
        (failed,) = keys.renewals(only=RenewalState.FAILED, **PLACE)
        assert (failed.subject, failed.what) == (name, "there is no photo of the subject")
    (tmp_path / "away.jpg").rename(scene.photo_of(name))
    renewed(scene)
    scene.check()


@pytest.mark.usefixtures("stub")
def test_a_back_end_that_refuses_all_stops_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anonymix_adapters.bulk_renewal._MOST_REFUSALS", 4)
    scene = Scene(tmp_path, 12)
    scene.breach()

    class Refusing(FolderBackEnd):
        def send(self, subject: str, face: object) -> str:
            raise ConnectionError("refused")

    with pytest.raises(BulkError, match="refused 4 subjects one after the other: ConnectionError: refused"):
        renewed(scene, Refusing, block=2)
    renewed(scene)
    scene.check()


@pytest.mark.usefixtures("stub")
def test_several_photos_reach_the_worker_sealed_and_a_key_rotated_meanwhile_counts(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 2)
    scene.breach()

    class Rotating(FolderBackEnd):
        def enrol(self, subject: str, photo: object) -> str:
            if subject == "person0":
                self.interceptor.mixer.keystore.rotate(subject, reason="breach")
            return super().enrol(subject, photo)  # type: ignore[arg-type]

    _, counts = renewed(scene, Rotating)
    assert (counts.renewed, counts.failed) == (1, 1)  # the entry under the key that ended was taken back
    assert len(list(scene.entries.iterdir())) == 2
    with bulk_stub.open_store(scene.store) as keys:
        _, counts = renewed(scene)
        assert (counts.renewed, counts.failed) == (1, 0)
        assert {it.subject: it.version for it in keys.enrolments()} == {"person0": 3, "person1": 2}


@pytest.mark.usefixtures("stub")
def test_a_second_renewal_of_the_same_collection_is_refused_while_one_is_at_work(tmp_path: Path) -> None:
    scene, refused = Scene(tmp_path, 3), []
    scene.breach()

    class Interrupted(FolderBackEnd):
        def send(self, subject: str, face: object) -> str:
            entry = super().send(subject, face)  # type: ignore[arg-type]
            with pytest.raises(BulkError, match="another renewal") as told:  # it would delete this entry
                renewed(scene)
            refused.append(told)
            return entry

    _, counts = renewed(scene, Interrupted)
    assert (counts.renewed, counts.failed, len(refused)) == (3, 0, 3)
    scene.check()


@pytest.mark.usefixtures("stub")
def test_a_folder_of_photos_is_of_one_scope(tmp_path: Path) -> None:
    (tmp_path / "alice").mkdir()
    (tmp_path / "alice" / "a.jpg").write_bytes(b"alice of the staff")
    photos = photo_store(str(tmp_path), "staff")
    assert photos("alice", "staff") == [b"alice of the staff"]
    assert photos("alice", "visitors") == []  # may be somebody else


def test_what_the_workers_did_not_draw_is_not_handed_on(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 2)
    with bulk_stub.open_store(scene.store) as keys:
        faces = DrawnFaces(keys)
        with pytest.raises(AdapterError, match="not loaded"):
            _ = faces.fingerprint
        faces.know(Mixer("f" * 32, "g" * 32, "stub"))
        image = bulk_stub.face_of(keys.current("person0"), b"photo")
        row, result = Row("", "person0", "default", Path()), Result(image, 1, "f" * 32, "fast", "stub")
        with faces.given(faces.face_of(row, result)):
            assert faces.protect(b"whatever", subject="person0").key_version == 1
            assert len(faces.protect([b"one", b"other"], subject="person0")) == 2
            for wrong in (
                {"subject": "person1"},
                {"subject": "person0", "scope": "x"},
                {"subject": "person0", "version": 2},
            ):
                with pytest.raises(UsageError, match="nothing was sent"):
                    faces.protect(b"whatever", **wrong)
        with pytest.raises(UsageError, match="nothing was sent"):
            faces.protect(b"whatever", subject="person0")
        other = FolderBackEnd(scene.entries, DrawnFaces(keys))
        with pytest.raises(AdapterError, match="another mixer"):
            BulkRenewal(keys, faces, other, lambda _: ())


@pytest.mark.usefixtures("stub")
def test_where_references_are_kept_a_new_entry_has_a_new_one_and_one_that_is_not_made_has_none(tmp_path: Path) -> None:
    scene = Scene(tmp_path, 4)
    bulk_stub.keep_references(scene.store)
    scene.breach()

    class Refusing(FolderBackEnd):
        def send(self, subject: str, face: CancelableFace) -> str:
            if subject == "person2":
                raise ConnectionError("refused")
            return super().send(subject, face)

    class Doubting(Refusing):
        def verify(self, subject: str, photo: PhotoSource) -> Answer:
            return Answer(False, 0.0) if subject == "person1" else super().verify(subject, photo)

    _, counts = renewed(scene, Doubting, block=2)
    assert (counts.renewed, counts.failed) == (2, 2)
    made = {name: b"code of " + scene.photo_of(name).read_bytes() for name in scene.names}
    assert bulk_stub.references_in(scene.store, scene.names) == made | {"person2": None}
    _, counts = renewed(scene)
    assert (counts.renewed, counts.failed) == (2, 0)
    assert bulk_stub.references_in(scene.store, scene.names) == made
    with bulk_stub.open_store(scene.store) as keys:
        assert {it.fingerprint for it in keys.enrolments()} == {"e" * 32}
        assert list(keys.due(fingerprint="f" * 32, guided_fingerprint="e" * 32)) == []
        assert keys.verify().ok


@pytest.mark.parametrize("subject", ["../alice", "/etc", "", ".", "..", "alice/../alice"])
def test_a_subject_is_no_path_into_the_photo_store(tmp_path: Path, subject: str) -> None:
    (tmp_path / "photos" / "alice").mkdir(parents=True)
    (tmp_path / "alice").mkdir()
    for path in (tmp_path / "a.jpg", tmp_path / "alice" / "a.jpg", tmp_path / "photos" / "a.jpg"):
        path.write_bytes(b"somebody's")
    (tmp_path / "photos" / "alice" / "a.jpg").write_bytes(b"alice's")
    store = photo_store(str(tmp_path / "photos"), "default")
    assert store("alice", "default") == [b"alice's"]
    assert store(subject, "default") == []


@pytest.mark.usefixtures("stub")
def test_a_renewal_whose_turn_may_be_over_asks_the_back_end_for_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, asked = Scene(tmp_path, 6), []
    scene.breach()

    class Telling(FolderBackEnd):
        def verify(self, subject: str, photo: PhotoSource) -> Answer:
            asked.append(subject)
            return super().verify(subject, photo)

    @contextmanager
    def turn(_: BulkRenewal) -> Iterator[Callable[[], bool]]:
        yield lambda: len(asked) < 2  # the service was away for too long meanwhile

    with monkeypatch.context() as patch:
        patch.setattr(BulkRenewal, "_turn", turn)
        with pytest.raises(BulkError, match="another renewal may be at work"):
            renewed(scene, Telling, block=2)
    assert len(asked) == 2
    renewed(scene)
    scene.check()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Scene, ServiceRig]]:
    """A scene whose keystore a service gives out."""
    (tmp_path / "scene").mkdir()
    (tmp_path / "service").mkdir()
    scene, rig = Scene(tmp_path / "scene", 6), ServiceRig(tmp_path / "service")
    scene.breach()
    rig.store, rig.environment["ANONYMIX_KEYFILE"] = scene.store, str(scene.store.with_suffix(".key"))
    rig.start()
    yield scene, rig
    rig.close()


def renewed_over(rig: ServiceRig, scene: Scene, kind: type[FolderBackEnd] = FolderBackEnd) -> Counts:
    keys = rig.client()
    faces = DrawnFaces(keys)
    return renewal_stub.renew(keys, kind(scene.entries, faces), faces, scene.photos, Work(block=2))


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize("step", ["enrol", "verify", "delete"])
def test_a_machine_that_stood_still_beyond_its_lease_leaves_nothing_behind(
    served: tuple[Scene, ServiceRig], step: str
) -> None:
    scene, rig = served
    leases: list[Lease] = []
    renewing, slept = RemoteKeystore.renewing, []

    def watched(keys: RemoteKeystore, **place: str) -> Lease:
        leases.append(renewing(keys, **place))
        return leases[-1]

    def asleep() -> None:
        """The lease is over, and another machine renews all meanwhile."""
        if not slept:
            slept.append(rig.raw("lease", {**PLACE, "holder": leases[0].holder, "step": "end"}))
            counts = renewed_over(rig, scene)
            assert (counts.failed, counts.finished) == (0, True)

    class Sleeping(FolderBackEnd):
        def send(self, subject: str, face: CancelableFace) -> str:
            if step == "enrol":
                asleep()
            return super().send(subject, face)

        def verify(self, subject: str, photo: PhotoSource) -> Answer:
            if step == "verify":
                asleep()
            return super().verify(subject, photo)

        def delete(self, external_id: str) -> None:
            if step == "delete":
                asleep()
            super().delete(external_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RemoteKeystore, "renewing", watched)
        with pytest.raises((BulkError, LeaseError), match="another renewal"):
            renewed_over(rig, scene, Sleeping)
    assert slept
    scene.check()


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize("answer", ["came", "lost"])
def test_a_service_that_is_killed_and_started_anew_costs_a_renewal_nothing(
    served: tuple[Scene, ServiceRig], monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    scene, rig = served
    record, times = RemoteKeystore.record_enrolments, []

    def killed(keys: RemoteKeystore, entries: list[NewEnrolment], **under: Lease) -> tuple[str, ...]:
        made = record(keys, entries, **under)
        times.append(1)
        if len(times) == 2:
            rig.stop(signal.SIGKILL)
            rig.start()
            if answer == "lost":
                raise ServiceError("there was no answer")
        return made

    with monkeypatch.context() as patch:
        patch.setattr(RemoteKeystore, "record_enrolments", killed)
        if answer == "came":
            assert renewed_over(rig, scene).renewed == 6
        else:
            with pytest.raises(ServiceError):
                renewed_over(rig, scene)
    counts = renewed_over(rig, scene)
    assert (counts.failed, counts.strays, counts.finished) == (0, 0, True)
    scene.check()
    assert [path.name for path in scene.store.parent.iterdir() if "renewal" in path.name] == []


@pytest.mark.usefixtures("stub")
def test_the_command_renews_and_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path, 5)
    scene.breach()
    monkeypatch.setenv("ANONYMIX_KEYSTORE", str(scene.store))
    monkeypatch.setenv("ANONYMIX_KEYFILE", str(scene.store.with_suffix(".key")))
    table = tmp_path / "table.csv"
    table.write_text("subject,photo\n" + "".join(f"{name},photos/{name}/1.jpg\n" for name in scene.names))
    back_end = f"{renewal_stub.__file__}:open_back_end"
    assert main(["bulk", "renew", back_end]) == 4
    assert "keeps no originals" in (said := capsys.readouterr().err)
    assert "--photos" in said
    command = ["bulk", "renew", back_end, "--photos", str(table), "-o", str(tmp_path / "report.csv"), "--workers", "1"]
    assert main([*command, "--dry-run"]) == 0
    assert "5 people are to be enrolled again" in capsys.readouterr().out
    assert len(list(scene.entries.iterdir())) == 5
    assert main(command) == 0
    assert "5 people renewed, 0 failed, 5 old entries deleted" in capsys.readouterr().out
    scene.check()
    with (tmp_path / "report.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sorted((row["subject"], row["state"], row["key_version"]) for row in rows) == [
        (name, "done", "2") for name in scene.names
    ]


@pytest.mark.usefixtures("stub")
def test_the_command_renews_over_a_key_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scene").mkdir()
    (tmp_path / "service").mkdir()
    scene, rig = Scene(tmp_path / "scene", 9), ServiceRig(tmp_path / "service")
    scene.breach()
    rig.store, rig.environment["ANONYMIX_KEYFILE"] = scene.store, str(scene.store.with_suffix(".key"))
    doors = "@contextmanager\ndef doors(mixer):\n    yield FolderBackEnd(Path(environ['ENTRIES']), mixer)\n"
    imports = "from contextlib import contextmanager\nfrom os import environ\nfrom pathlib import Path\n"
    (tmp_path / "back_end.py").write_text(f"{imports}from renewal_stub import FolderBackEnd\n\n{doors}")
    mine = rig.ca.issue("gate-1")
    for name, value in {
        "ENTRIES": scene.entries,
        "ANONYMIX_HOME": tmp_path / "home",
        "ANONYMIX_KEYSTORE": rig.address,
        "ANONYMIX_CLIENT_CERTIFICATE": mine.certificate,
        "ANONYMIX_CLIENT_KEY": mine.key,
        "ANONYMIX_SERVICE_CA": mine.ca,
    }.items():
        monkeypatch.setenv(name, str(value))
    command = ["bulk", "renew", f"{tmp_path / 'back_end.py'}:doors", "--block", "4", "--workers", "1"]
    rig.start()
    try:
        assert main(command) == 4
        assert "a key service gives no sealed originals" in capsys.readouterr().err
        command += ["--photos", str(scene.photos), "-o", str(tmp_path / "report.csv")]
        with rig.client("gate-2").renewing(**PLACE) as other:  # on another machine
            assert other.held
            assert main(command) == BulkError.exit_code
            assert "another renewal of this collection is at work" in capsys.readouterr().err
            with pytest.raises(BulkError, match="another renewal"):  # on the store's own
                renewed(scene)
        scene.photo_of("person3").rename(tmp_path / "away.jpg")
        assert main(command) == 1
        assert "8 people renewed, 1 failed, 8 old entries deleted" in capsys.readouterr().out
        assert "there is no photo of the subject" in (tmp_path / "report.csv").read_text()
        (tmp_path / "away.jpg").rename(scene.photo_of("person3"))
        assert main(command) == 0, capsys.readouterr()
        assert "1 people renewed, 0 failed, 1 old entries deleted" in capsys.readouterr().out
    finally:
        rig.close()
    scene.check()
    with bulk_stub.open_store(scene.store) as keys:
        assert "gate-1" in {str(line["actor"]).partition(" ")[0] for line in keys.audit()}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nothing", "names no back end"),
        ("no.py:open", "no such file"),
        ("anonymix_adapters:nobody", "no function nobody"),
    ],
)
def test_a_back_end_that_is_not_there_is_told(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bulk", "renew", name, "--photos", "."]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("return 5", 2, "no context manager"),
        ("raise OSError('gone')", 8, "can't be opened: OSError: gone"),
        ("yield None", 2, "is no back end: it has no interceptor"),
        ("yield from (1 / 0 for _ in '1')", 8, "can't be opened: ZeroDivisionError"),
    ],
)
def test_a_back_end_that_can_not_be_opened_or_is_none_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    body: str,
    code: int,
    said: str,
) -> None:
    scene = Scene(tmp_path, 1)
    monkeypatch.setenv("ANONYMIX_KEYSTORE", str(scene.store))
    monkeypatch.setenv("ANONYMIX_KEYFILE", str(scene.store.with_suffix(".key")))
    decorated = "@contextmanager\n" if "yield" in body else ""
    module = tmp_path / f"odd_{len(body)}.py"
    module.write_text(f"from contextlib import contextmanager\n{decorated}def doors(mixer):\n    {body}\n")
    assert main(["bulk", "renew", f"{module}:doors", "--photos", str(scene.photos)]) == code
    told = capsys.readouterr().err
    assert said in told
    assert "What to do" in told


@pytest.mark.usefixtures("stub")
def test_a_report_that_can_not_be_written_is_told_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Scene(tmp_path, 2)
    scene.breach()
    held = {path.name for path in scene.entries.iterdir()}
    monkeypatch.setenv("ANONYMIX_KEYSTORE", str(scene.store))
    monkeypatch.setenv("ANONYMIX_KEYFILE", str(scene.store.with_suffix(".key")))
    report = scene.store / "report.csv"  # in what is no folder
    back_end = f"{renewal_stub.__file__}:open_back_end"
    assert main(["bulk", "renew", back_end, "--photos", str(scene.photos), "-o", str(report)]) == 6
    assert "can't be written" in capsys.readouterr().err
    assert {path.name for path in scene.entries.iterdir()} == held


def test_the_real_mixer_renews_the_example_from_sealed_originals(
    tmp_path: Path,
    portraits: Path,
    model: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface"):
        model(name)
    monkeypatch.chdir(tmp_path)
    for variable, name in (("KEYSTORE", "keys.db"), ("KEYFILE", "first.key"), ("SECOND_KEYFILE", "second.key")):
        monkeypatch.setenv(f"ANONYMIX_{variable}", str(tmp_path / name))
    example = Path(__file__).parents[2] / "examples" / "back_end.py"
    photos = {who: [portraits / f"{who}_{how}.jpg" for how in ("neutral", "smiling")] for who in ("001", "002")}
    with Keystore.create("keys.db", KeyFileUnlock.generate(tmp_path / "first.key")) as keys, Anonymixer(keys) as mixer:
        keys.originals.enable(KeyFileUnlock.generate(tmp_path / "second.key"))
        keys.references.enable()
        opened = runpy.run_path(str(example))["doors"]
        with opened(mixer) as back_end:
            for who, several in photos.items():
                back_end.enrol(who, several[0])
                keep_original(back_end.interceptor, [*several], back_end.interceptor.whose(argument=who))
            old = set(back_end.entries())
        keys.rotate_all(reason="breach")
        assert main(["bulk", "renew", f"{example}:doors", "--workers", "1"]) == 0, capsys.readouterr()
        assert "2 people renewed, 0 failed, 2 old entries deleted" in capsys.readouterr().out
        with opened(mixer) as back_end:
            entries = back_end.entries()
            assert sorted(entries.values()) == ["001", "002"]
            assert not old & entries.keys()
            assert back_end.verify("001", photos["001"][1]).accepted
            assert back_end.verify("002", photos["002"][0]).accepted
        assert {(it.version, it.fingerprint) for it in keys.enrolments()} == {(2, mixer.guided_fingerprint)}
