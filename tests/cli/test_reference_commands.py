"""`anonymix protect` and `verify` in a scope that keeps sealed references."""

from __future__ import annotations

from pathlib import Path

import pytest

from anonymix_keystore import Keystore
from anonymix_plugin import read_marker

pytestmark = pytest.mark.usefixtures("weights")


@pytest.fixture(autouse=True)
def door(run, store: Keystore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scope "door" keeps references; the second secret is in the environment."""
    second = tmp_path / "second.key"
    switch = ("keys", "scope", "set", "door", "--references", "sealed", "--yes")
    assert run(*switch, "--second-key-file", second).code == 0
    monkeypatch.setenv("ANONYMIX_SECOND_KEYFILE", str(second))


def test_an_enrolment_is_remembered_and_probes_are_turned_by_it(
    run, one: Path, one_smiling: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ("--subject", "ann", "--scope", "door", "--json")
    entry = run("protect", one, "--enrol", *here, "-o", tmp_path / "entry").json["results"][0]
    probe = run("protect", one_smiling, *here, "-o", tmp_path / "probe").json["results"][0]
    assert entry["guided"]
    assert probe["guided"]
    marker = read_marker(tmp_path / "probe" / "001_smiling.png")
    assert marker is not None
    assert marker.fingerprint == probe["fingerprint"] == entry["fingerprint"]
    found = run("verify", one, one_smiling, *here)
    assert (found.code, found.json["fingerprint"]) == (0, entry["fingerprint"])
    assert found.json["similarity"] > 0.95
    monkeypatch.delenv("ANONYMIX_SECOND_KEYFILE")
    locked = run("protect", one_smiling, *here, "-o", tmp_path / "locked")
    assert locked.code == 4
    assert "ANONYMIX_SECOND_KEYFILE" in locked.json["error"]["fix"]
    assert not (tmp_path / "locked").exists()


def test_photos_are_enrolled_together_and_those_of_others_are_named(
    run, one: Path, one_smiling: Path, portraits: Path, tmp_path: Path
) -> None:
    stranger = portraits / "002_neutral.jpg"
    photos = (one, one_smiling, stranger)
    ended = run(*("protect", *photos, "-s", "ben", "--enrol", "--together", "--json"), "-o", tmp_path / "together")
    assert ended.code == 1
    made, left_out = ended.json["results"]
    assert (made["source"], made["photos"], made["guided"]) == (str(one), 2, False)
    assert (left_out["source"], left_out["error"]["code"]) == (str(stranger), "different_people")
    assert [path.name for path in (tmp_path / "together").iterdir()] == ["001_neutral.png"]
    assert run("protect", one, "-s", "ben", "--together", "-o", tmp_path / "x").code == 2
    different = run("protect", one, stranger, "-s", "ben", "--enrol", "--together", "--json", "-o", tmp_path / "none")
    assert different.json["results"][0]["error"]["code"] == "different_people"
    assert not (tmp_path / "none").exists()
    gallery = run("protect", one, one_smiling, "--gallery", "--together", "--json", "-o", tmp_path / "gallery")
    (found,) = gallery.json["results"]
    assert (gallery.code, found["photos"], found["subject"]) == (0, 2, None)
