"""`anonymix protect` on real photos."""

from __future__ import annotations

import _thread
import errno
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pillow_heif
import pytest
from PIL import Image

from anonymix_keystore import Keystore, PassphraseUnlock, UnknownSubjectError
from anonymix_plugin import NoFaceError, read_marker
from anonymix_plugin.cli import main
from anonymix_plugin.images import _encode
from anonymix_plugin.mixer.fast import FastMixer

pytestmark = pytest.mark.usefixtures("weights", "store")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.jpg"
    path.write_bytes(b"not a photo at all")
    return path


@pytest.fixture
def empty_room(tmp_path: Path) -> Path:
    path = tmp_path / "room.png"
    Image.new("RGB", (300, 200), (90, 120, 150)).save(path)
    return path


def files(folder: Path) -> list[str]:
    if not folder.exists():
        return []
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def as_record(photo: Path, path: Path) -> Path:
    """A record of ISO/IEC 19794-5:2005 with a photo in it, and green eyes."""
    picture = photo.read_bytes()
    with Image.open(photo) as image:
        about = struct.pack(">BBHHBBHH", 1, 0, *image.size, 1, 2, 7, 90)
    block = struct.pack(">IHBBB", 32 + len(picture), 0, 2, 5, 7) + bytes(11) + about + picture
    path.write_bytes(b"FAC\x00010\0" + struct.pack(">IH", 14 + len(block), 1) + block)
    return path


def test_a_record_comes_back_with_another_face_in_it(run, one: Path, out: Path, tmp_path: Path) -> None:
    record = as_record(one, tmp_path / "passport.fac")
    ended = run("protect", record, "--subject", "alice", "--record", "-o", out)
    assert (ended.code, ended.err) == (0, "")
    assert files(out) == ["passport.fac"]
    new = (out / "passport.fac").read_bytes()
    assert new.startswith(b"FAC\x00010\0")
    assert new[20:23] == bytes(3)
    assert one.read_bytes()[-2000:-1900] not in new
    assert read_marker(out / "passport.fac").key_version == 1


def test_of_a_folder_of_records_every_file_is_taken(run, one: Path, out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "chips"
    folder.mkdir()
    as_record(one, folder / "passport.bin")
    (folder / "notes.txt").write_text("no record")
    ended = run("protect", folder, "--subject", "alice", "--record", "-o", out, "--json")
    assert ended.code == 1
    assert (ended.json["photos"], ended.json["made"]) == (2, 1)
    assert [path.name for path in out.iterdir()] == ["passport.bin"]


def test_what_could_not_be_written_leaves_no_subject_behind(run, store: Keystore, one: Path, out: Path) -> None:
    ended = run("protect", one, "--subject", "newcomer", "--enrol", "--record", "-o", out)
    assert ended.code == 3
    ended = run("protect", one, "--subject", "newcomer", "--enrol", "--record", "--together", "-o", out)
    assert ended.code == 3
    assert "newcomer" not in set(store.subjects())
    assert run("protect", one, "--subject", "newcomer", "--enrol", "-o", out).code == 0
    ended = run("protect", one, "--subject", "newcomer", "--enrol", "--record", "-o", out)
    assert "newcomer" in set(store.subjects())  # who was there before stays


def test_a_format_beside_a_record_is_refused(run, one: Path, out: Path) -> None:
    ended = run("protect", one, "--subject", "alice", "--record", "--format", "webp", "-o", out)
    assert (ended.code, "--format" in ended.err) == (2, True)


def test_a_photo_without_a_record_is_told_where_one_is_asked_for(run, one: Path, out: Path) -> None:
    ended = run("protect", one, "--subject", "alice", "--record", "-o", out)
    assert ended.code == 3
    assert "no biometric record" in ended.out + ended.err
    assert not files(out)


def test_heic_without_its_extra_says_exactly_what_to_install(run, out: Path, one: Path, monkeypatch, tmp_path) -> None:
    photo = tmp_path / "IMG_0001.HEIC"
    with Image.open(one) as image:
        pillow_heif.from_pillow(image.convert("RGB")).save(photo)
    assert run("protect", photo, "--subject", "alice", "-o", out).code == 0
    assert files(out) == ["IMG_0001.png"]
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    ended = run("protect", photo, "--subject", "alice", "-o", out / "again")
    assert ended.code == 2
    assert 'pip install "anonymix-plugin[heif]"' in ended.out + ended.err


# --- photos in, faces out ---------------------------------------------------------------------------


def test_photos_become_marked_faces_and_a_table_says_so(run, one: Path, one_smiling: Path, out: Path) -> None:
    ended = run("protect", one, one_smiling, "--subject", "alice", "-o", out)
    assert (ended.code, ended.err) == (0, "")
    assert files(out) == ["001_neutral.png", "001_smiling.png"]
    for name in files(out):
        marker = read_marker(out / name)
        assert marker is not None
        assert marker.key_version == 1
        assert b"alice" not in (out / name).read_bytes()
        with Image.open(out / name) as picture:
            assert picture.size == (512, 512)
    assert str(one) in ended.out
    assert "v1" in ended.out


def test_json_says_everything_about_every_photo(run, one: Path, empty_room: Path, bad: Path, out: Path) -> None:
    ended = run("protect", one, empty_room, bad, "-s", "alice", "-o", out, "--format", "jpeg", "--json")
    assert (ended.code, ended.err) == (1, "")
    report = ended.json
    assert (report["photos"], report["made"], report["failed"], report["exit_code"]) == (3, 1, 2, 1)
    assert report["error"] is None
    made, no_face, unreadable = report["results"]
    assert made["source"] == str(one)
    assert made["output"] == str(out / "001_neutral.jpg")
    assert (made["subject"], made["scope"], made["key_version"], made["method"]) == (
        "alice",
        "default",
        1,
        "fast",
    )
    assert len(made["fingerprint"]) == 32
    assert len(made["box"]) == 4
    assert made["timings"]["total"] > made["timings"]["generate"] > 0
    assert made["error"] is None
    assert (no_face["source"], no_face["output"], no_face["fingerprint"]) == (str(empty_room), None, None)
    assert no_face["error"]["code"] == "no_face"
    assert no_face["error"]["fix"]
    assert unreadable["error"]["code"] == "unreadable_image"
    assert files(out) == ["001_neutral.jpg"]


def test_one_bad_photo_does_not_stop_the_rest_and_is_listed_at_the_end(
    run, one: Path, one_smiling: Path, bad: Path, out: Path
) -> None:
    ended = run("protect", one, bad, one_smiling, "--subject", "alice", "-o", out)
    assert ended.code == 1
    assert files(out) == ["001_neutral.png", "001_smiling.png"]
    assert "1 of 3 photos failed" in ended.err
    assert str(bad) in ended.err
    assert "not an image" in ended.err


def test_a_photo_above_the_limit_is_taken_once_the_limit_is_raised(
    run, one: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large.png"
    Image.open(one).save(large)
    own = tmp_path / "anonymix.toml"
    own.write_text("[limits]\nmax_pixels = 100_000\n")
    monkeypatch.setenv("ANONYMIX_CONFIG", str(own))
    ended = run("protect", large, "--subject", "alice", "-o", out)
    assert ended.code == 3
    assert "--max-pixels" in ended.err
    ended = run("protect", large, "--subject", "alice", "-o", out, "--max-pixels", 409_600)
    assert ended.code == 0
    ended = run(
        "protect",
        large,
        "--subject",
        "alice",
        "-o",
        out,
        "--max-pixels",
        409_600,
        "--max-side",
        639,
        "--force",
    )
    assert ended.code == 3
    assert "sides of 639" in " ".join(ended.err.split())
    assert run("protect", large, "--subject", "alice", "-o", out, "--max-pixels", 0).code == 2


def test_if_all_photos_are_bad_it_ends_with_3_and_makes_nothing(
    run, bad: Path, empty_room: Path, tmp_path: Path, out: Path
) -> None:
    ended = run("protect", bad, empty_room, tmp_path / "nobody.jpg", "--subject", "alice", "-o", out)
    assert ended.code == 3
    assert "3 of 3 photos failed" in ended.err
    assert not out.exists()


def test_a_second_process_makes_the_same_bytes(run, one: Path, out: Path, tmp_path: Path) -> None:
    run("protect", one, "--subject", "alice", "-o", out)
    command = [
        "-m",
        "anonymix_plugin",
        "protect",
        str(one),
        "--subject",
        "alice",
        "-o",
        str(tmp_path / "again"),
    ]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "again" / "001_neutral.png").read_bytes() == (out / "001_neutral.png").read_bytes()


def test_size_and_policy_are_what_was_asked_for(run, one: Path, out: Path) -> None:
    reports = [
        run("protect", one, "-s", "alice", "-o", out / name, "--json", *options).json["results"][0]
        for name, options in {
            "large": ("--size", 1024, "--format", "webp"),
            "pose": ("--policy", "pose"),
            "none": ("--policy", "none"),
        }.items()
    ]
    with Image.open(reports[0]["output"]) as picture:
        assert (picture.size, picture.format) == ((1024, 1024), "WEBP")
    assert reports[1]["fingerprint"] != reports[2]["fingerprint"]
    assert "encode" in reports[1]["timings"]


# --- whose key --------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_json", [False, True])
def test_an_unknown_subject_is_not_enrolled_by_a_probe(run, store: Keystore, one: Path, out: Path, as_json) -> None:
    ended = run("protect", one, "--subject", "carol", "-o", out, *["--json"] * as_json)
    assert ended.code == 4
    text = ended.json["error"]["fix"] if as_json else ended.err
    assert "--enrol" in text
    assert "anonymix keys issue" in text
    assert not out.exists()
    with pytest.raises(UnknownSubjectError):
        store.current("carol")


def test_enrolling_issues_a_first_key_and_probes_find_it(run, one: Path, one_smiling: Path, out: Path) -> None:
    assert run("protect", one, "--subject", "carol", "--enrol", "-o", out).code == 0
    assert run("protect", one_smiling, "--subject", "carol", "-o", out).code == 0
    assert files(out) == ["001_neutral.png", "001_smiling.png"]


def test_old_and_new_versions_of_a_key_make_different_faces(run, store: Keystore, one: Path, out: Path) -> None:
    store.rotate("alice")
    old = run("protect", one, "-s", "alice", "--version", 1, "-o", out / "1", "--json").json["results"][0]
    new = run("protect", one, "-s", "alice", "-o", out / "2", "--json").json["results"][0]
    assert (old["key_version"], new["key_version"]) == (1, 2)
    assert Path(old["output"]).read_bytes() != Path(new["output"]).read_bytes()
    assert run("protect", one, "-s", "alice", "--version", 3, "-o", out / "3").code == 4


def test_a_revoked_key_makes_no_face(run, store: Keystore, one: Path, out: Path) -> None:
    store.revoke("alice")
    for options in ((), ("--enrol",), ("--version", 1)):
        assert run("protect", one, "--subject", "alice", "-o", out, *options).code == 4
    assert not out.exists()


def test_a_gallery_key_needs_no_subject(run, one: Path, out: Path) -> None:
    report = run("protect", one, "--gallery", "--scope", "gate", "-o", out, "--json").json
    assert (report["results"][0]["subject"], report["results"][0]["scope"]) == (None, "gate")


def test_a_wrong_passphrase_opens_nothing_and_is_not_repeated(
    run, one: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANONYMIX_PASSPHRASE", "haddock and chips")
    ended = run("protect", one, "--subject", "alice", "-o", out)
    assert ended.code == 4
    assert "haddock" not in ended.out + ended.err
    monkeypatch.delenv("ANONYMIX_PASSPHRASE")
    assert run("protect", one, "--subject", "alice", "-o", out).code == 4
    assert not out.exists()


def test_the_passphrase_comes_from_a_descriptor(run, one: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANONYMIX_PASSPHRASE")
    reading, writing = os.pipe()
    os.write(writing, b"swordfish and chips\n")
    os.close(writing)
    try:
        assert run("protect", one, "-s", "alice", "-o", out, "--passphrase-fd", reading).code == 0
    finally:
        os.close(reading)


# --- weights ----------------------------------------------------------------------------------------


def test_missing_weights_end_with_5_and_the_command_to_run(
    run, one: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANONYMIX_HOME", str(tmp_path / "nothing"))
    ended = run("protect", one, "--subject", "alice", "-o", out)
    assert ended.code == 5
    assert "anonymix models pull" in ended.err
    assert not out.exists()


def test_damaged_weights_end_with_5(
    run, one: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Callable[[str], Path]
) -> None:
    own = tmp_path / "yunet.onnx"
    own.write_bytes(model("yunet").read_bytes()[:-1] + b"\0\0")
    configuration = tmp_path / "anonymix.toml"
    configuration.write_text(f'[models.yunet]\npath = "{own}"\nsha256 = "{"0" * 64}"\n')
    monkeypatch.setenv("ANONYMIX_CONFIG", str(configuration))
    ended = run("protect", one, "--subject", "alice", "-o", out, "--json")
    assert ended.code == 5
    assert ended.json["error"]["code"] == "damaged_model"
    assert not out.exists()


# --- names and folders ------------------------------------------------------------------------------


@pytest.fixture
def albums(tmp_path: Path, one: Path, one_smiling: Path, london: Path) -> Path:
    """alice/{photo.jpg,photo.jpeg,.hidden.jpg,notes.txt,older/photo.jpg} and bob/photo.jpg."""
    root = tmp_path / "albums"
    (root / "alice" / "older").mkdir(parents=True)
    (root / "bob").mkdir()
    (root / "alice" / "photo.jpg").symlink_to(one)
    (root / "alice" / "photo.jpeg").symlink_to(one_smiling)
    (root / "alice" / ".hidden.jpg").symlink_to(one)
    (root / "alice" / "notes.txt").write_text("not a photo")
    (root / "alice" / "older" / "photo.jpg").symlink_to(one)
    (root / "bob" / "photo.jpg").symlink_to(london / "002_neutral.jpg")
    return root


def test_a_folder_stands_for_its_images(run, albums: Path, out: Path) -> None:
    assert run("protect", albums / "alice", "--subject", "alice", "-o", out).code == 0
    assert files(out) == ["photo-2.png", "photo.png"]


def test_folders_within_folders_are_asked_for(run, albums: Path, out: Path) -> None:
    assert run("protect", albums / "alice", "--subject", "alice", "-o", out, "--recursive").code == 0
    assert files(out) == ["older/photo.png", "photo-2.png", "photo.png"]
    ended = run("protect", albums, "--subject", "alice", "-o", out / "flat")
    assert ended.code == 2
    assert "--recursive" in ended.err


def test_each_sub_folder_is_a_subject(run, albums: Path, out: Path) -> None:
    report = run("protect", albums, "--subjects-from-folders", "-o", out, "--json").json
    assert report["exit_code"] == 0
    assert files(out) == ["alice/photo-2.png", "alice/photo.png", "bob/photo.png"]
    assert [row["subject"] for row in report["results"]] == ["alice", "alice", "bob"]


def test_an_unknown_folder_name_fails_alone(run, albums: Path, out: Path) -> None:
    (albums / "bob").rename(albums / "zoe")
    ended = run("protect", albums, "--subjects-from-folders", "-o", out)
    assert ended.code == 1
    assert "--enrol" in ended.err
    assert files(out) == ["alice/photo-2.png", "alice/photo.png"]
    (albums / "alice").rename(albums / "yan")
    assert run("protect", albums, "--subjects-from-folders", "-o", out).code == 4


@pytest.fixture
def couple(tmp_path: Path, one: Path, london: Path) -> Path:
    with Image.open(one) as left, Image.open(london / "002_neutral.jpg") as right:
        both = Image.new("RGB", (1000, 640), (200, 200, 200))
        both.paste(left.convert("RGB"), (0, 0))
        both.paste(right.convert("RGB").resize((360, 360)), (640, 200))
    path = tmp_path / "couple.png"
    both.save(path)
    return path


def test_further_faces_are_numbered_and_take_no_name_away(
    run, couple: Path, one: Path, tmp_path: Path, out: Path
) -> None:
    second = tmp_path / "couple-2.jpg"
    second.symlink_to(one)
    report = run("protect", couple, second, "-s", "alice", "-o", out, "--faces", "all", "--json").json
    assert [(Path(row["source"]).name, Path(row["output"]).name) for row in report["results"]] == [
        ("couple.png", "couple.png"),
        ("couple.png", "couple-3.png"),
        ("couple-2.jpg", "couple-2.png"),
    ]
    assert report["photos"] == 2


def test_several_faces_are_refused_where_one_is_asked_for(run, couple: Path, out: Path) -> None:
    ended = run("protect", couple, "-s", "alice", "-o", out, "--faces", "error", "--json")
    assert ended.code == 3
    assert ended.json["results"][0]["error"]["code"] == "several_faces"
    assert not out.exists()


def test_no_file_is_replaced_without_force(run, one: Path, out: Path) -> None:
    out.mkdir()
    target = out / "001_neutral.png"
    target.write_bytes(b"precious")
    ended = run("protect", one, "--subject", "alice", "-o", out)
    assert ended.code == 6
    assert "--force" in ended.err
    assert target.read_bytes() == b"precious"
    assert run("protect", one, "--subject", "alice", "-o", out, "--force").code == 0
    assert read_marker(target) is not None


def test_a_photo_is_never_replaced_even_by_force(run, one: Path, tmp_path: Path) -> None:
    photo = tmp_path / "me.png"
    with Image.open(one) as picture:
        picture.save(photo)
    before = photo.read_bytes()
    ended = run("protect", photo, "--subject", "alice", "-o", tmp_path, "--force")
    assert ended.code == 6
    assert photo.read_bytes() == before


def test_a_cancelable_face_is_not_protected_again(run, one: Path, out: Path) -> None:
    run("protect", one, "--subject", "alice", "-o", out)
    ended = run("protect", out / "001_neutral.png", "--subject", "alice", "-o", out / "again", "--json")
    assert ended.code == 3
    assert ended.json["results"][0]["error"]["code"] == "already_protected"


@pytest.mark.parametrize("name", [b"caf\xe9.jpg", b"red\x1b[31m.jpg", "名前 [b].jpg".encode()])
def test_a_photo_may_have_any_name(run, bad: Path, tmp_path: Path, one: Path, out: Path, name: bytes) -> None:
    good = tmp_path / "good" / os.fsdecode(name)
    good.parent.mkdir()
    good.symlink_to(one)
    also_bad = tmp_path / "bad" / os.fsdecode(name)
    also_bad.parent.mkdir()
    also_bad.symlink_to(bad)
    ended = run("protect", good, also_bad, "-s", "alice", "-o", out)
    assert ended.code == 1
    assert "\x1b" not in ended.out + ended.err
    assert files(out) == [f"{good.stem}.png"]
    report = run("protect", good, also_bad, "-s", "alice", "-o", out, "--force", "--json").json
    assert report["results"][0]["source"] == str(good)


# --- usage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--subject", "alice", "--gallery"),
        ("--gallery", "--version", "1"),
        ("--gallery", "--enrol"),
        ("--subject", "alice", "--version", "1", "--enrol"),
        ("--subject", "alice", "--version", "0"),
        ("--subject", "alice", "--size", "300"),
        ("--subject", "alice", "--format", "tiff"),
        ("--subject", "alice", "--policy", "everything"),
        ("--subject", "alice", "--subjects-from-folders"),
        ("--subjects-from-folders",),
    ],
)
def test_contradictions_end_with_2_before_anything_is_done(run, one: Path, out: Path, options: tuple[str, ...]) -> None:
    ended = run("protect", one, "-o", out, *options, "--json")
    assert ended.code == 2
    assert ended.json["error"]["what"]
    assert not out.exists()


def test_an_output_that_looks_like_a_file_is_asked_about(run, one: Path, tmp_path: Path) -> None:
    ended = run("protect", one, "--subject", "alice", "-o", tmp_path / "face.png")
    assert ended.code == 2
    assert "folder" in ended.err


# --- when it goes wrong in the middle ---------------------------------------------------------------


def _full_disk(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_stops_the_run_and_leaves_nothing_half_written(
    run, one: Path, one_smiling: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.fsync, []

    def fsync(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 2:  # the first file and its folder
            _full_disk(descriptor)
        real(descriptor)

    monkeypatch.setattr(_encode.os, "fsync", fsync)
    ended = run("protect", one, one_smiling, one_smiling, one, "-s", "alice", "-o", out, "--json")
    assert ended.code == 6
    report = ended.json
    assert report["error"]["code"] == "output"
    assert "No space left" in report["error"]["what"]
    assert [row["error"] is None for row in report["results"]] == [True, False]
    assert files(out) == ["001_neutral.png"]
    assert read_marker(out / "001_neutral.png") is not None


def test_a_folder_that_can_not_be_made_ends_with_6(run, one: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    ended = run("protect", one, "--subject", "alice", "-o", tmp_path / "file" / "out")
    assert ended.code == 6
    assert str(tmp_path / "file" / "out") in ended.err


def _second_time(action: Callable[[], None]) -> Callable[..., Any]:
    """What replaces `FastMixer.mix`: it works once."""
    real, calls = FastMixer.mix, []

    def mix(self: FastMixer, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            action()
        return real(self, *arguments)

    return mix


def test_an_interrupt_in_the_middle_leaves_whole_files_alone(
    run, one: Path, one_smiling: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FastMixer, "mix", _second_time(_thread.interrupt_main))
    # A shell starts background jobs with interrupts ignored; the test is about those that are not.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        ended = run("protect", one, one_smiling, "--subject", "alice", "-o", out)
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert ended.code == 130
    assert "Traceback" not in ended.err
    # The first face may have been on its way to the disk when the second was drawn.
    assert files(out) in ([], ["001_neutral.png"])
    assert all(read_marker(out / name) is not None for name in files(out))


def test_sigterm_while_writing_leaves_nothing(one: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_encode.os, "fsync", lambda _: _thread.interrupt_main(signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        main(["protect", str(one), "--subject", "alice", "-o", str(out)])
    assert ended.value.code == 143
    assert files(out) == []


def test_a_bug_in_the_mixer_passes_no_photo_on(run, one: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(f"photo of {one}")

    monkeypatch.setattr(FastMixer, "mix", fail)
    ended = run("protect", one, "--subject", "alice", "-o", out)
    assert ended.code == 70
    assert str(one) not in ended.err
    assert not out.exists()


def test_an_error_of_one_photo_among_faces_is_told_once(
    run, one: Path, one_smiling: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise NoFaceError("it went away", where="photo")

    monkeypatch.setattr(FastMixer, "mix", _second_time(fail))
    ended = run("protect", one, one_smiling, "--subject", "alice", "-o", out, "--json")
    assert ended.code == 1
    assert [row["error"] is None for row in ended.json["results"]] == [True, False]
    assert files(out) == ["001_neutral.png"]


def test_a_clock_that_was_ahead_once_is_accepted(run, one: Path, out: Path, tmp_path: Path) -> None:
    opened = Keystore.open(
        tmp_path / "keystore.db",
        PassphraseUnlock(os.environ["ANONYMIX_PASSPHRASE"]),
        clock=lambda: 2_130_000_000.0,
    )
    with opened as ahead:
        ahead.issue("dora")
    words = ("protect", one, "--subject", "new", "--enrol", "-o", out)
    refused = run(*words)
    assert refused.code == 4
    assert "--accept-clock" in refused.err
    assert run(*words, "--accept-clock").code == 0
    assert files(out) == ["001_neutral.png"]
