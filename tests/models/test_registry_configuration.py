"""The user's own weights in the place of the registry's."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from anonymix_plugin.configuration import Configuration, configuration_file, load_configuration
from anonymix_plugin.errors import ConfigurationError, DamagedModelError, MissingModelError
from anonymix_plugin.models import locate, pull, verify, weights_hash

HASH = hashlib.sha256(b"mine").hexdigest()


@pytest.fixture
def configure(tmp_path, monkeypatch):
    path = tmp_path / "anonymix.toml"
    monkeypatch.setenv("ANONYMIX_CONFIG", str(path))
    return path.write_text


def test_an_own_file_takes_the_place_of_the_registrys(index, configure, tmp_path):
    index.add("toy", {"a.bin": b"theirs"})
    configure("")
    before = weights_hash("toy")
    (tmp_path / "mine.bin").write_bytes(b"mine")
    configure(f'[models.toy]\npath = "mine.bin"\nsha256 = "{HASH}"')
    assert locate("toy") == tmp_path / "mine.bin"
    assert weights_hash("toy") != before
    assert weights_hash("toy") == hashlib.sha256(f"a.bin {HASH}\n".encode()).hexdigest()
    assert [(item.status, item.source.own) for item in verify(["toy"])] == [("ok", True)]


def test_one_file_of_several_can_be_replaced(index, configure, tmp_path):
    index.add("toy", {"a.bin": b"aa", "b.bin": b"bb"})
    (tmp_path / "mine.bin").write_bytes(b"mine")
    configure(f'[models.toy.files."b.bin"]\npath = "{tmp_path}/mine.bin"\nsha256 = "{HASH}"')
    assert pull(["toy"])[0].status == "fetched"
    assert locate("toy", "b.bin").read_bytes() == b"mine"
    assert locate("toy", "a.bin").read_bytes() == b"aa"


def test_nothing_is_fetched_in_the_place_of_own_files(index, configure, tmp_path):
    index.add("toy", {"a.bin": b"aa"})
    configure(f'[models.toy]\npath = "mine.bin"\nsha256 = "{HASH}"')
    assert pull(["toy"])[0].status == "own"
    assert index.downloads == []


def test_own_files_that_are_missing_or_changed_point_to_the_configuration(index, configure, tmp_path):
    index.add("toy", {"a.bin": b"aa"})
    configure(f'[models.toy]\npath = "mine.bin"\nsha256 = "{HASH}"')
    with pytest.raises(MissingModelError, match=r"\[models\.toy\] in the configuration file"):
        locate("toy")
    (tmp_path / "mine.bin").write_bytes(b"changed")
    with pytest.raises(DamagedModelError, match=r"\[models\.toy\] in the configuration file"):
        locate("toy")


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("[models.yunet]\npath = 'a'", "models.yunet: path and sha256 must be given together"),
        (f"[models.yunet]\nsha256 = '{HASH}'", "models.yunet: path and sha256"),
        ("[models.yunet]\npath = 'a'\nsha256 = 'xyz'", "models.yunet.sha256"),
        ("[models.yunet]", "models.yunet: give either"),
        (f"[models.yunet]\npath = 3\nsha256 = '{HASH}'", "models.yunet.path"),
        (f"[models.yunet]\npath = 'a'\nsha256 = '{HASH}'\nlicense = 'x'", "models.yunet.license"),
        (f"[models.yolo]\npath = 'a'\nsha256 = '{HASH}'", "models.yolo: no model of that name"),
        (f"[models.mobilestylegan]\npath = 'a'\nsha256 = '{HASH}'", "models.mobilestylegan: .*several files"),
        (
            f"[models.yunet.files.x]\npath = 'a'\nsha256 = '{HASH}'",
            r"models.yunet.files.x: .*yunet_2023mar\.onnx",
        ),
        ("[modles]", "modles: Extra inputs"),
        ("models = 3", "models: "),
        ("[models", "can't be read"),
    ],
)
def test_a_wrong_field_is_named(configure, text, field):
    configure(text)
    with pytest.raises(ConfigurationError, match=field) as caught:
        load_configuration()
    assert caught.value.where.endswith("anonymix.toml")
    assert caught.value.exit_code == 2


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="can't be read"):
        load_configuration(tmp_path / "x.toml")


def test_a_file_that_was_named_must_exist(tmp_path, monkeypatch):
    monkeypatch.setenv("ANONYMIX_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(ConfigurationError, match="does not exist"):
        load_configuration()


def test_without_a_file_everything_is_as_the_registry_says(monkeypatch, tmp_path):
    monkeypatch.delenv("ANONYMIX_CONFIG", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setattr("platformdirs.user_config_path", lambda *_: tmp_path)
    assert configuration_file() == tmp_path / "anonymix.toml"
    assert load_configuration() == Configuration()


def test_a_user_without_a_home_has_no_configuration_and_is_told_where_places_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from anonymix_plugin.models._cache import home

    for name in ("ANONYMIX_CONFIG", "ANONYMIX_HOME", "HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(_: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert configuration_file() is None
    assert load_configuration() == Configuration()
    with pytest.raises(ConfigurationError, match="set ANONYMIX_HOME"):
        home()
    monkeypatch.setenv("ANONYMIX_CONFIG", "~/anonymix.toml")
    with pytest.raises(ConfigurationError, match="whole path"):
        configuration_file()


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "4000", "'soon'"])
def test_a_patience_that_makes_no_sense_is_refused(tmp_path: Path, seconds: str) -> None:
    file = tmp_path / "anonymix.toml"
    file.write_text(f"[keystore]\nbusy_timeout = {seconds}\n")
    with pytest.raises(ConfigurationError, match=r"keystore\.busy_timeout"):
        load_configuration(file)
