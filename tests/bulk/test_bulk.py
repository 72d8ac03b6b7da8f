"""Bulk work ends with the same bytes, whatever dies on the way."""

from __future__ import annotations

import csv
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import bulk_stub
import pytest
from bulk_stub import PHOTOS, contents
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from forks import FORKS
from patience import PATIENCE, eventually

from anonymix_keystore import KeyFileUnlock, KeyState, Keystore, SubjectKey, UnknownSubjectError
from anonymix_plugin.bulk import BulkError, Ledger, Progress, Row, Work, protect_in_bulk, rows_of_table
from anonymix_plugin.bulk._sealed import BlockKeys, Secrets, seal_block
from anonymix_plugin.cli import main
from anonymix_plugin.csv_cells import as_text
from anonymix_plugin.errors import OutputError, UsageError
from anonymix_plugin.options import MixerOptions

_LISTED = ("cmdline", "environ")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return bulk_stub.photos_in(tmp_path / "source")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return bulk_stub.store_at(tmp_path / "keys.db")


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ended(processes: list[int]) -> bool:
    return eventually(lambda: not any(map(is_alive, processes)))


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.long)])
def test_a_killed_driver_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, source: Path, store: Path, kills: int
) -> None:
    whole = bulk_stub.drive(source, store, tmp_path / "whole", workers=1)
    chance, target = random.Random(21), tmp_path / "killed"
    for _ in range(kills):
        command = [sys.executable, bulk_stub.__file__, str(source), str(store), str(target)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
            assert driver.stdout is not None
            workers = [int(word) for word in driver.stdout.readline().split()]
            time.sleep(chance.uniform(0, 0.05))
            driver.kill()
        assert ended(workers), "a worker outlived its driver"
        if not workers:  # nothing was left to do: the next kills hit a new job
            assert contents(target) == contents(tmp_path / "whole")
            shutil.rmtree(target)
    summary = bulk_stub.drive(source, store, target)
    assert summary == whole
    assert (summary.made, summary.failed, summary.finished) == (PHOTOS, 0, True)
    assert contents(target) == contents(tmp_path / "whole")


@pytest.mark.usefixtures("stub")
def test_a_first_key_of_a_killed_run_is_the_one_that_the_next_run_goes_on_with(tmp_path: Path, source: Path) -> None:
    """The driver ends between issuing keys and writing a face: nobody gets a second key, and no key is left over."""
    (source / "001.jpg").write_bytes(b"bad")  # one photo of the second subject; the others of theirs are sound
    store, target = tmp_path / "empty.db", tmp_path / "out"
    Keystore.create(store, KeyFileUnlock.generate(store.with_suffix(".key"))).close()
    driver = FORKS.Process(target=bulk_stub.drive_until_the_first_face, args=(source, store, target))
    driver.start()
    driver.join(PATIENCE)
    assert driver.exitcode == -signal.SIGKILL
    assert not list(target.rglob("*.png"))
    with bulk_stub.open_store(store) as keys:
        first = {info.subject: (info.version, info.alias) for info in keys.list()}
        assert first, "no key was issued before the end"
        materials = {name: keys.current(name).material for name in first}
    summary = bulk_stub.drive(source, store, target, workers=1, enrol=True)
    assert (summary.made, summary.failed) == (PHOTOS - 1, 1)
    with bulk_stub.open_store(store) as keys:
        now = {info.subject: (info.version, info.alias) for info in keys.list()}
        assert now.keys() == {f"person{number}" for number in range(7)}
        assert first.items() <= now.items()
        assert {name: keys.current(name).material for name in first} == materials
        for name in first:
            path = target / name.removeprefix("person") / f"{7 + int(name.removeprefix('person')):03d}.png"
            assert path.read_bytes() == bulk_stub.face_of(
                keys.current(name), (source / f"{path.stem}.jpg").read_bytes()
            )


@pytest.mark.usefixtures("stub")
def test_killed_workers_are_replaced_and_nothing_is_lost(tmp_path: Path, source: Path, store: Path) -> None:
    bulk_stub.drive(source, store, tmp_path / "whole", workers=1)
    with bulk_stub.open_store(store) as keys:
        materials = [keys.current(f"person{number}").material for number in range(7)]
    killed: set[int] = set()

    def kill(progress: Progress) -> None:
        if progress.done == 1:  # and no key is in a process's arguments or environment
            listed = [Path(f"/proc/{one}/{name}").read_bytes() for one in progress.workers for name in _LISTED]
            assert not any(form in each for each in listed for key in materials for form in (key, key.hex().encode()))
        if progress.done % 15 == 1 and len(killed) < 3 and (left := set(progress.workers) - killed):
            killed.add(victim := min(left))
            os.kill(victim, signal.SIGKILL)

    summary = bulk_stub.drive(source, store, tmp_path / "killed", progress=kill)
    assert len(killed) == 3
    assert (summary.made, summary.failed) == (PHOTOS, 0)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


@pytest.mark.usefixtures("stub")
def test_a_photo_that_kills_ends_itself_and_not_the_job(
    tmp_path: Path, source: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "007.jpg").write_bytes(b"poison")
    (source / "008.jpg").write_bytes(b"hang")
    file, now = bulk_stub.hanging(source), [0.0]

    def clock() -> float:  # stands still while workers work, and runs while one hangs
        if file.exists() and (text := file.read_text()) and is_alive(int(text)):
            now[0] += 1_000.0
        return now[0]

    monkeypatch.setattr("anonymix_plugin.bulk._pool.time", SimpleNamespace(monotonic=clock))
    monkeypatch.setattr("anonymix_plugin.bulk._pool._LOADING", 1e9)
    summary = bulk_stub.drive(source, store, tmp_path / "out", workers=1, patience=600.0)
    assert (summary.made, summary.failed, summary.finished) == (PHOTOS - 2, 2, True)
    lines = (tmp_path / "out" / "outcomes.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines if "worker_died" in line] == [
        str(source / "007.jpg"),
        str(source / "008.jpg"),
    ]


@pytest.mark.usefixtures("stub")
def test_a_key_rotated_meanwhile_makes_no_face(tmp_path: Path, source: Path, store: Path) -> None:
    """Whatever is written after the rotation is under the new key, though it was drawn under the old one."""
    rotated: list[int] = []

    with bulk_stub.open_store(store) as keys, Ledger(tmp_path / "out", {}) as ledger:

        def rotate(progress: Progress) -> None:
            if not rotated and progress.done == 13:
                keys.rotate("person3")
                rotated.extend(int(path.stem) for path in (tmp_path / "out" / "3").iterdir())

        rows = bulk_stub.rows_of(source)
        summary = protect_in_bulk(rows, keys, ledger, MixerOptions(), Work(block=5), progress=rotate)
        ledger.export()
    assert summary.made == PHOTOS
    lines = (tmp_path / "out" / "outcomes.csv").read_text().splitlines()[1:]
    versions = {int(Path(line.split(",")[0]).stem): line.split(",")[6] for line in lines if ",person3," in line}
    assert rotated == [3]
    assert versions.pop(3) == "1"
    assert set(versions.values()) == {"2"}, versions


@pytest.mark.usefixtures("stub")
def test_no_cell_of_the_outcomes_is_a_formula_and_programs_get_every_name_as_it_is(
    tmp_path: Path, source: Path, store: Path
) -> None:
    names = ["=cmd|'/c calc'!A0", "+4912", "@SUM(A1)", "-2+3", "'=quoted", "'s-Gravenhage", "semi;=1", "plain"]
    with bulk_stub.open_store(store) as keys, Ledger(tmp_path / "out", {}) as ledger:
        keys.issue_many(names)
        photo = next(bulk_stub.rows_of(source)).source
        rows = (Row(photo, name, "default", Path(f"{place}.png")) for place, name in enumerate(names))
        protect_in_bulk(rows, keys, ledger, MixerOptions(), Work(workers=1))
        path = ledger.export()
    with path.open(encoding="utf-8", newline="") as stream:
        cells = [row["subject"] for row in csv.DictReader(stream)]
    assert [as_text(cell) for cell in cells] == names
    assert cells[-1] == "plain"
    assert cells[5] == "'s-Gravenhage"
    assert not any(cell.startswith(tuple("=+-@")) or ";=" in cell for cell in cells)
    for line in path.read_text(encoding="utf-8").splitlines():  # however a spreadsheet splits it
        assert not re.search(r"(^|[,;\t])\"?[=+@-]", line)


@pytest.mark.usefixtures("stub")
def test_a_limit_leaves_the_rest_for_a_run_of_the_same_job(tmp_path: Path, source: Path, store: Path) -> None:
    first = bulk_stub.drive(source, store, tmp_path / "out", workers=1, limit=10)
    assert (first.made, first.finished) == (10, False)
    (source / "000.jpg").rename(source / "000a.jpg")
    with pytest.raises(BulkError, match="not what it was"):
        bulk_stub.drive(source, store, tmp_path / "out")
    with pytest.raises(BulkError, match="other settings: block"):
        Ledger(tmp_path / "out", {"block": 6})
    with Ledger(tmp_path / "out", {"block": 5}), pytest.raises(BulkError, match="at work"):
        Ledger(tmp_path / "out", {"block": 5})
    with pytest.raises(OutputError, match="holds no job"):
        Ledger(source, {"block": 5})


@pytest.mark.usefixtures("stub")
def test_a_source_that_ends_earlier_than_before_is_noticed(tmp_path: Path, source: Path, store: Path) -> None:
    bulk_stub.drive(source, store, tmp_path / "out", workers=1)
    for path in sorted(source.iterdir())[10:]:
        path.unlink()
    with pytest.raises(BulkError, match="not what it was"):
        bulk_stub.drive(source, store, tmp_path / "out")


@pytest.mark.usefixtures("stub")
def test_a_job_does_not_go_on_with_another_mixer(tmp_path: Path, source: Path, store: Path) -> None:
    bulk_stub.drive(source, store, tmp_path / "out", workers=1, limit=5)
    ledger = sqlite3.connect(tmp_path / "out" / "bulk-ledger.db")
    with ledger:
        changed = ledger.execute("UPDATE settings SET value = replace(value, 'f', 'e') WHERE name LIKE '%mixer%'")
    ledger.close()
    assert changed.rowcount == 1
    with pytest.raises(BulkError, match="another mixer"):
        bulk_stub.drive(source, store, tmp_path / "out", workers=1)


def test_a_ledger_that_can_not_be_opened_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a" / "bulk-ledger.db").mkdir(parents=True)
    with pytest.raises(OutputError, match="holds no job"):
        Ledger(tmp_path / "a", {})

    def refuse(*_: object, **__: object) -> None:  # what SQLite says of a folder that can't be written in
        raise sqlite3.OperationalError("unable to open database file")

    monkeypatch.setattr("anonymix_plugin.bulk._ledger.sqlite3.connect", refuse)
    with pytest.raises(OutputError, match="can't be written"):
        Ledger(tmp_path / "b", {})


@pytest.mark.usefixtures("stub")
def test_workers_never_see_an_interrupt_that_the_driver_ends_them_after(
    tmp_path: Path, source: Path, store: Path
) -> None:
    blocked: list[int] = []

    def look(progress: Progress) -> None:
        for process in progress.workers:
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
            blocked.extend(int(line.split()[1], 16) for line in lines if line.startswith("SigBlk"))

    bulk_stub.drive(source, store, tmp_path / "out", progress=look)
    assert all(mask >> (signal.SIGINT - 1) & 1 for mask in blocked)
    assert blocked
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.usefixtures("stub")
def test_unknown_subjects_fail_and_a_full_target_loses_nothing(
    tmp_path: Path, source: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bulk_stub.open_store(store) as keys:
        keys.forget("person2")
    written: list[Path] = []

    def until_full(path: Path, data: bytes, drafts: Path) -> None:
        if len(written) == 12:
            raise OutputError("it can't be written: no space left", where=str(path), fix="make room")
        written.append(path)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)

    with monkeypatch.context() as patched:
        patched.setattr("anonymix_plugin.bulk._ledger.write_bytes", until_full)
        with pytest.raises(OutputError, match="no space"):
            bulk_stub.drive(source, store, tmp_path / "out")
    summary = bulk_stub.drive(source, store, tmp_path / "out")
    assert (summary.made, summary.failed) == (PHOTOS - 6, 6)
    with bulk_stub.open_store(store) as keys, pytest.raises(UnknownSubjectError):  # and none was issued
        keys.current("person2")


def test_keys_are_sealed_for_one_worker_and_in_no_process_listing(tmp_path: Path, source: Path, store: Path) -> None:
    key = SubjectKey("alice", "default", 1, KeyState.ACTIVE, bytes(range(32)))
    one, other = BlockKeys(), BlockKeys()
    sealed = seal_block(
        [[1, "a.jpg", "alice", "default", False]],
        Secrets({("alice", "default"): key}, {1: [b"one", b"other"]}),
        X25519PublicKey.from_public_bytes(one.public),
    )
    assert key.material not in sealed
    assert key.material.hex().encode() not in sealed
    with pytest.raises(InvalidTag):
        other.take(sealed)
    assert one.take(sealed) == ([[1, "a.jpg", "alice", "default", False]], {1: [b"one", b"other"]})
    assert b"alice" not in sealed
    assert one.current("alice") == key
    one.forget()
    with pytest.raises(Exception, match="not in the block"):
        one.current("alice")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("photo\na.jpg\n", "no column subject"),
        ("subject,photo\nalice,\n", "names no photo"),
        ("subject,photo\n,a.jpg\n", "names no photo, or no subject"),
        ("subject,photo\nalice\n", "names no photo"),
        ('subject,photo\nalice,"a.jpg\n', "no CSV table"),
        ("subject,photo,subject\nalice,a.jpg,bob\n", "several columns subject"),
        ("photo,subject\na.jpg,Doe, Jane\n", "more cells than the table has columns"),
        ("subject;photo\nalice;a.jpg\n", "no column photo"),
        ('subject,photo\nalice,"a\nb.jpg"\n', "column photo is no path"),
        ("subject,photo\n'+4912,a.jpg\n", "column subject has an apostrophe"),
        ("subject,photo,scope\nalice,a.jpg,'@staff\n", "column scope has an apostrophe"),
    ],
)
def test_a_table_that_leaves_something_open_is_refused(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "table.csv").write_text(table)
    with pytest.raises(UsageError, match=message):
        list(rows_of_table(str(tmp_path / "table.csv"), ".png", "default"))


def test_a_table_names_photos_beside_it_and_no_two_faces_alike(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("scope,subject,photo\n,alice,x/a.jpg\nstaff,../bob,/y/A.png\n")
    rows = list(rows_of_table(str(tmp_path / "table.csv"), ".png", "default"))
    assert [(row.source, row.subject, row.scope, str(row.output)) for row in rows] == [
        (tmp_path / "x/a.jpg", "alice", "default", "000000/a.png"),
        (Path("/y/A.png"), "../bob", "staff", "000000/A-2.png"),
    ]


def test_the_command_gives_the_bytes_of_protect(
    tmp_path: Path,
    portraits: Path,
    model: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("mobilestylegan", "yunet", "arcface-mbf", "sface"):
        model(name)
    monkeypatch.setenv("ANONYMIX_KEYSTORE", str(tmp_path / "keys.db"))
    key = tmp_path / "keys.key"
    Keystore.create(tmp_path / "keys.db", KeyFileUnlock.generate(key)).close()
    monkeypatch.setenv("ANONYMIX_KEYFILE", str(key))
    with Keystore.open(tmp_path / "keys.db", KeyFileUnlock(key)) as keys:
        keys.originals.enable(KeyFileUnlock.generate(tmp_path / "second.key"))
        keys.references.enable("guided")
        keys.issue("001", "guided")
    monkeypatch.setenv("ANONYMIX_SECOND_KEYFILE", str(tmp_path / "second.key"))
    for photo in ("001_neutral.jpg", "001_smiling.jpg", "002_neutral.jpg"):
        folder = tmp_path / "photos" / photo[:3]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(portraits / photo, folder / photo)
    (tmp_path / "photos" / "002" / "bad.jpg").write_bytes(b"no photo")
    photos = str(tmp_path / "photos")
    assert main(["protect", photos, "--subjects-from-folders", "--enrol", "-o", str(tmp_path / "one")]) == 1
    command = ["bulk", "protect", photos, "-o", str(tmp_path / "many"), "--workers", "1", "--block", "2"]
    capsys.readouterr()
    assert main(command) == 1, capsys.readouterr()
    made = contents(tmp_path / "many")
    assert "unreadable_image" in made.pop("outcomes.csv").decode()
    assert made == contents(tmp_path / "one")
    assert len(made) == 3
    capsys.readouterr()
    assert main([*command, "--json"]) == 1  # nothing is left to do
    assert '"finished": true' in capsys.readouterr().out
    shutil.copyfile(tmp_path / "keys.db", tmp_path / "other.db")
    # The same where references are kept: the first photo makes one, in a block of its own, and guides the second.
    table = tmp_path / "table.csv"
    table.write_text(
        "subject,scope,photo\n001,guided,photos/001/001_smiling.jpg\n001,guided,photos/001/001_neutral.jpg\n"
    )
    command = ["bulk", "protect", str(table), "--enrol", "--workers", "1", "--block", "1"]
    assert main([*command, "-o", str(tmp_path / "guided")]) == 0, capsys.readouterr()
    monkeypatch.setenv("ANONYMIX_KEYSTORE", str(tmp_path / "other.db"))
    alone = ["protect", *(str(tmp_path / "photos" / "001" / f"001_{how}.jpg") for how in ("smiling", "neutral"))]
    assert main([*alone, "--subject", "001", "--scope", "guided", "--enrol", "-o", str(tmp_path / "alone")]) == 0
    made = sorted(image for name, image in contents(tmp_path / "guided").items() if name.endswith(".png"))
    assert made == sorted(contents(tmp_path / "alone").values())
    assert len(made) == 2
    assert not set(made) & set(contents(tmp_path / "one").values())


@pytest.mark.usefixtures("stub")
def test_new_people_whose_photos_all_fail_are_not_left_in_the_store(source: Path, store: Path, tmp_path: Path) -> None:
    for path in source.iterdir():
        number = int(path.stem)
        if number % 7 in {0, 1} or number in {3, 10}:  # all photos of two people, and the first two of a third
            path.write_bytes(b"poison")
        if number > 17:
            path.unlink()
    with bulk_stub.open_store(store) as keys:
        for subject in ("person0", "person2", "person3"):
            keys.forget(subject)
        keys.originals.enable(KeyFileUnlock.generate(tmp_path / "second.key"))
    bulk_stub.drive(source, store, tmp_path / "out", enrol=True)
    with bulk_stub.open_store(store) as keys:
        left = set(keys.subjects())
        assert keys.verify().ok
    assert left == {f"person{number}" for number in range(1, 7)}  # 1 was there before, 3 has a photo that works


def test_the_target_is_not_inside_the_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "alice").mkdir()
    (tmp_path / "alice" / "a.jpg").touch()
    for source in (str(tmp_path), tmp_path.as_uri()):
        assert main(["bulk", "protect", source, "-o", str(tmp_path / "out")]) == 2
        assert "lies in the source" in capsys.readouterr().err
