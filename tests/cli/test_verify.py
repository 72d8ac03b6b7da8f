"""`anonymix verify`, and the library behind it, on real photos."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from anonymix_keystore import Keystore
from anonymix_lab.data.keys import SeededKeys
from anonymix_lab.studies.thresholds import measure_thresholds
from anonymix_plugin import CancelableFace, LowQualityError, NoFaceError, UsageError
from anonymix_plugin.anonymixer import Anonymixer
from anonymix_plugin.verification import (
    THRESHOLDS,
    Verifier,
    named_threshold,
)

pytestmark = pytest.mark.usefixtures("weights", "store")


@pytest.fixture
def fixed_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that are the same in every run: what holds for nearly every key need not hold for each."""
    keys = SeededKeys(5)
    for name in ("current", "at", "gallery"):
        monkeypatch.setattr(Keystore, name, lambda _, *args, _name=name: getattr(keys, _name)(*args))


# --- verdicts ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("fixed_keys")
def test_two_photos_of_a_person_match_through_the_mixer(run, one: Path, one_smiling: Path) -> None:
    ended = run("verify", one, one_smiling, "--subject", "alice")
    assert (ended.code, ended.err) == (0, "")
    assert "same person" in ended.out
    assert "0.2258 (fmr-0.1%)" in ended.out
    assert "arcface-mbf" in ended.out


@pytest.mark.usefixtures("fixed_keys")
def test_json_says_what_was_compared_with_what(run, one: Path, one_smiling: Path) -> None:
    facts = run("verify", one, one_smiling, "-s", "alice", "--threshold", "fmr-1%", "--json").json
    assert facts["match"] is True
    assert facts["similarity"] > facts["threshold"]["value"] == THRESHOLDS["arcface-mbf"]["fmr-1%"]
    assert facts["threshold"]["name"] == "fmr-1%"
    assert (facts["recogniser"], facts["seen_by_mixer"]) == ("arcface-mbf", True)
    assert facts["a"] == {"source": str(one), "subject": "alice", "key_version": 1}
    assert facts["b"] == {"source": str(one_smiling), "subject": "alice", "key_version": 1}
    assert len(facts["fingerprint"]) == 32


@pytest.mark.usefixtures("fixed_keys")
@pytest.mark.parametrize(
    "options", [("--other-subject", "bob"), ("--version-b", "2"), ("--against-original",)], ids=lambda x: x[0]
)
def test_another_key_an_old_key_and_the_original_do_not_match(
    run, one: Path, model: Callable[[str], Path], options: tuple[str, ...]
) -> None:
    # By FaceNet, which the mixer never saw: to ArcFace one pair of keys in thirty makes two faces alike.
    model("facenet")
    ended = run("verify", one, one, "--subject", "alice", "--recogniser", "facenet", *options)
    assert ended.code == 7
    assert "different people" in ended.out


@pytest.mark.usefixtures("fixed_keys")
def test_two_people_do_not_match(run, one: Path, london: Path) -> None:
    report = run("verify", one, london / "002_neutral.jpg", "--subject", "alice", "--json")
    assert report.code == 7
    assert report.json["match"] is False


@pytest.mark.usefixtures("fixed_keys")
def test_a_recogniser_that_the_mixer_never_saw_agrees(
    run, one: Path, one_smiling: Path, model: Callable[[str], Path]
) -> None:
    pytest.importorskip("h5py")
    model("facenet")
    ended = run(
        "verify",
        one,
        one_smiling,
        "-s",
        "alice",
        "--recogniser",
        "facenet",
        "--threshold",
        "fmr-1%",
        "--json",
    )
    assert ended.code == 0
    assert ended.json["seen_by_mixer"] is False


def test_the_same_photo_is_the_same_face_whatever_the_key(run, one: Path) -> None:
    facts = run("verify", one, one, "--gallery", "--scope", "gate", "--threshold", "0.999", "--json").json
    assert facts["match"] is True
    assert facts["similarity"] == pytest.approx(1, abs=1e-5)
    assert facts["threshold"] == {"name": "given", "value": 0.999}


def test_a_saved_cancelable_face_is_compared_as_it_is(run, one: Path, tmp_path: Path) -> None:
    run("protect", one, "--subject", "alice", "-o", tmp_path / "out")
    saved = tmp_path / "out" / "001_neutral.png"
    facts = run("verify", one, saved, "--subject", "alice", "--against-original", "--json").json
    assert facts["similarity"] == pytest.approx(1, abs=1e-5)
    assert facts["b"]["key_version"] is None


# --- errors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--subject", "alice", "--gallery"),
        ("--subject", "alice", "--against-original", "--other-subject", "bob"),
        ("--gallery", "--version-b", "1"),
        ("--subject", "alice", "--faces", "all"),
        ("--subject", "alice", "--threshold", "strict"),
        ("--subject", "alice", "--threshold", "1.5"),
        ("--subject", "alice", "--threshold", "nan"),
        ("--subject", "alice", "--recogniser", "nobody"),
    ],
)
def test_contradictions_end_with_2(run, one: Path, options: tuple[str, ...]) -> None:
    ended = run("verify", one, one, *options, "--json")
    assert ended.code == 2
    assert ended.json["error"]["what"]


def test_two_photos_are_needed(run, one: Path) -> None:
    ended = run("verify", one, "--subject", "alice")
    assert ended.code == 2
    assert "two photos" in ended.err


def test_keys_and_photos_fail_with_their_own_codes(run, one: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no photo")
    assert run("verify", one, bad, "--subject", "alice").code == 3
    assert run("verify", one, bad, "--subject", "alice", "--against-original").code == 3
    assert run("verify", one, one, "--subject", "carol").code == 4
    assert run("verify", one, one, "--subject", "alice", "--other-subject", "carol").code == 4


# --- thresholds -------------------------------------------------------------------------------------


def test_thresholds_are_known_by_name_and_stricter_for_fewer_errors() -> None:
    for name, known in THRESHOLDS.items():
        assert named_threshold(name, "fmr-1%").value == known["fmr-1%"] < known["fmr-0.1%"]
    assert named_threshold("anything", 0.3).value == named_threshold("anything", "0.3").value == 0.3
    with pytest.raises(UsageError, match="no threshold"):
        named_threshold("dlib-recognition", "fmr-1%")


def test_cancelable_faces_have_thresholds_of_their_own_which_are_stricter() -> None:
    for name, known in THRESHOLDS.items():
        for rate in ("fmr-1%", "fmr-0.1%"):
            assert named_threshold(name, f"cancelable-{rate}").value > known[rate]
    with pytest.raises(UsageError, match="no threshold cancelable-fmr-1% was measured"):
        named_threshold("dlib-recognition", "cancelable-fmr-1%")
    with pytest.raises(UsageError, match="a name or a cosine"):
        named_threshold("facenet", "cancelable-often")


def test_a_score_at_the_threshold_matches(one: Path) -> None:
    verifier = Verifier("arcface-mbf", 0.0)
    similarity = verifier.compare(one, one).similarity
    assert Verifier("arcface-mbf", min(similarity, 1.0)).compare(one, one).match


def test_a_picture_without_a_face_can_not_be_compared(one: Path) -> None:
    with pytest.raises(NoFaceError):
        Verifier("arcface-mbf").compare(one, np.full((200, 200, 3), 99, np.uint8))


@pytest.fixture
def lfw(tmp_path: Path, london: Path) -> Path:
    """Eight people in the layout of Labeled Faces in the Wild, and one photo without a face."""
    root = tmp_path / "lfw"
    lines = ["4"]
    for number in range(1, 9, 2):
        first, second = f"Person_{number}", f"Person_{number + 1}"
        lines += [f"{first}\t1\t2", f"{first}\t1\t{second}\t1"]
        for name, person in ((first, number), (second, number + 1)):
            (root / "images" / name).mkdir(parents=True)
            shutil.copy(london / f"{person:03d}_neutral.jpg", root / "images" / name / f"{name}_0001.jpg")
    (root / "pairsDevTrain.txt").write_text("\n".join(lines) + "\n")
    return root


def test_thresholds_are_measured_on_all_pairs_of_different_people(run, lfw: Path) -> None:
    steps: list[tuple[int, int]] = []
    (found,) = measure_thresholds(lfw, ["arcface-mbf"], progress=lambda *step: steps.append(step))
    assert (found.photos, found.people, found.comparisons, found.undetected) == (8, 8, 28, 0)
    assert steps == [(done, 8) for done in range(1, 9)]
    photos = sorted(lfw.rglob("*.jpg"))
    verifier = Verifier("arcface-mbf")
    embeddings = np.stack([verifier.embed(photo) for photo in photos])
    highest = (embeddings @ embeddings.T)[np.triu_indices(8, 1)].max()
    for value in found.values.values():  # too few comparisons to allow a single one to match
        assert value == pytest.approx(highest, abs=1e-6)
    ended = run("measure", "thresholds", lfw, "--recogniser", "arcface-mbf,sface", "--json")
    assert ended.code == 0
    assert [part["recogniser"] for part in ended.json] == ["arcface-mbf", "sface"]
    assert ended.json[0]["thresholds"] == dict(found.values)
    assert "arcface-mbf fmr-1%" in run("measure", "thresholds", lfw).out


def test_on_cancelable_faces_people_are_compared_under_the_same_key(run, lfw: Path) -> None:
    with Anonymixer(SeededKeys(1), faces="central") as mixer:
        faces: dict[tuple[str, int], CancelableFace] = {}

        def protect(path: Path, key: int) -> CancelableFace:
            assert path.parent.name not in {name for name, _ in faces}  # everybody is under one key
            faces[path.parent.name, key] = mixer.protect(path, subject="anybody", scope=f"everybody {key}")
            return faces[path.parent.name, key]

        (found,) = measure_thresholds(lfw, ["arcface-mbf"], protect=protect, keys=3)
    groups = [[face for (_, used), face in faces.items() if used == key] for key in range(3)]
    assert sorted(map(len, groups)) == [2, 3, 3]
    assert (found.photos, found.people, found.comparisons) == (8, 8, 1 + 3 + 3)
    verifier = Verifier("arcface-mbf")
    highest = max(verifier.compare(a, b).similarity for group in groups for a, b in combinations(group, 2))
    assert found.values["cancelable-fmr-0.1%"] == pytest.approx(highest, abs=1e-5)
    ended = run("measure", "thresholds", lfw, "--cancelable")
    assert ended.code == 2  # twenty keys leave nobody to compare with
    assert "two people" in ended.err


def test_photos_that_the_mixer_refuses_are_left_out_of_thresholds(lfw: Path) -> None:
    with Anonymixer(SeededKeys(1)) as mixer:

        def protect(path: Path, key: int) -> CancelableFace:
            if path.parent.name in {"Person_1", "Person_2"}:
                raise LowQualityError("blurred")
            return mixer.protect(path, subject="anybody", scope=f"everybody {key}")

        (found,) = measure_thresholds(lfw, ["arcface-mbf"], protect=protect, keys=1)
    assert (found.photos, found.people, found.comparisons, found.undetected) == (6, 6, 15, 2)


def test_measuring_needs_the_data(run, tmp_path: Path) -> None:
    ended = run("measure", "thresholds", tmp_path)
    assert ended.code == 2
    assert "pairsDevTrain.txt" in ended.err


def test_the_verifier_takes_cancelable_faces(one: Path, loaders) -> None:
    assert loaders
    with Anonymixer(SeededKeys(1)) as mixer:
        face = mixer.protect(one, subject="alice")
    assert Verifier("sface").compare(face, face).similarity == pytest.approx(1, abs=1e-5)
