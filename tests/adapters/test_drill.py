"""The breach drill, in the library and on the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from remembering import RememberingMixer
from test_conformance import LOCAL, loaded

from anonymix_adapters import AdapterError, Answer
from anonymix_adapters import opencv as opencv_adapter
from anonymix_adapters.drill import DRAWN, _allowed, drill, people_in
from anonymix_adapters.testing.conformance import Person
from anonymix_keystore import Keystore, PassphraseUnlock
from anonymix_plugin import UsageError
from anonymix_plugin.cli import main
from anonymix_plugin.images import PhotoSource

PEOPLE = int(os.environ.get("ANONYMIX_DRILL_PEOPLE", "3"))


def named(people: list[Person], tag: str) -> list[Person]:
    """The same people under names of their own: a drill rotates all keys."""
    return [Person(f"{tag} {person.name}", person.enrolled, person.probe) for person in people]


@pytest.mark.parametrize("name", LOCAL)
def test_a_breach_is_survived(name: str, adapter_mixer: RememberingMixer, londoners: list[Person]) -> None:
    report = drill(loaded(name), adapter_mixer, named(londoners[:PEOPLE], "drill"))
    assert report.passed, report.to_text()
    steps = {step.name: step for step in report.steps}
    assert steps["people enrolled"].count == steps["people enrolled again"].count == PEOPLE
    assert steps["templates leaked"].count == steps["old entries deleted at the back end"].count == PEOPLE
    assert steps["entries still due"].count == 0
    content = json.loads(report.to_json())
    assert content["passed"]
    assert content["adapter"] == name


def test_a_breach_of_a_gallery_is_survived_with_sealed_originals(
    adapter_mixer: RememberingMixer, adapter_store: Keystore, londoners: list[Person]
) -> None:
    adapter_store.originals.enable(PassphraseUnlock("another secret"))
    try:
        people = named(londoners[:3], "gallery drill")
        report = drill(opencv_adapter, adapter_mixer, people, keys="gallery", originals=True)
    finally:
        adapter_store.originals.disable()
    assert report.passed, report.to_text()
    assert "people found by search" in {step.name for step in report.steps}
    assert report.renewed_from == "sealed originals"


class Careless:
    """An adapter whose back end keeps what it should delete, and accepts everybody."""

    NAME = opencv_adapter.NAME
    SDKS = opencv_adapter.SDKS
    protect = staticmethod(opencv_adapter.protect)
    unprotect = staticmethod(opencv_adapter.unprotect)
    interceptor_of = staticmethod(opencv_adapter.interceptor_of)

    @staticmethod
    def rehearse(*args: object, **options: object) -> object:
        @contextmanager
        def opened() -> object:  # type: ignore[misc]
            with opencv_adapter.rehearse(*args, **options) as stage:  # type: ignore[arg-type]
                stage.delete = lambda _: None  # type: ignore[method-assign]
                stage.verify = lambda *_: Answer(True, 1.0)  # type: ignore[method-assign]
                yield stage

        return opened()


def test_a_careless_back_end_fails_the_drill(adapter_mixer: RememberingMixer, londoners: list[Person]) -> None:
    report = drill(Careless, adapter_mixer, named(londoners[:2], "careless"))  # type: ignore[arg-type]
    failed = {step.name for step in report.steps if not step.passed}
    assert {"old entries deleted at the back end", "old entries that match after the rotation"} <= failed
    assert "FAILED" in report.to_text()


def test_a_person_whom_the_back_end_refuses_stands_in_the_report_and_ends_nothing(
    adapter_mixer: RememberingMixer, londoners: list[Person]
) -> None:
    people = named(londoners[:3], "refused")

    class Particular(Careless):
        @staticmethod
        @contextmanager
        def rehearse(*args: object, **options: object) -> Iterator[object]:
            with opencv_adapter.rehearse(*args, **options) as stage:  # type: ignore[arg-type]
                enrol = stage.enrol

                def particular(subject: str, photo: PhotoSource) -> str:
                    if subject == people[1].name:
                        raise OSError("there is more than 1 face")
                    return enrol(subject, photo)

                stage.enrol = particular  # type: ignore[method-assign]
                yield stage

    report = drill(Particular, adapter_mixer, people)  # type: ignore[arg-type]
    assert f"people enrolled: {people[1].name}: OSError: there is more than 1 face" in report.failures
    steps = {step.name: step for step in report.steps}
    assert (steps["people enrolled"].count, steps["people enrolled"].passed) == (2, False)
    assert steps["people enrolled again"].count == 2  # the drill went on to its end
    assert "FAILED" in report.to_text()


@pytest.mark.parametrize("when", ["making ready", "taking away"])
def test_a_back_end_that_fails_before_or_after_is_told_in_words(
    when: str, adapter_mixer: RememberingMixer, londoners: list[Person]
) -> None:
    class Unready(Careless):
        @staticmethod
        @contextmanager
        def rehearse(*args: object, **options: object) -> Iterator[object]:
            if when == "making ready":
                raise LookupError("you must specify a region")
            with opencv_adapter.rehearse(*args, **options) as stage:  # type: ignore[arg-type]
                yield stage
            raise LookupError("the connection is gone")

    people = named(londoners[:2], when)
    if when == "making ready":
        with pytest.raises(AdapterError, match="must specify a region") as caught:
            drill(Unready, adapter_mixer, people)  # type: ignore[arg-type]
        assert caught.value.fix
    else:
        report = drill(Unready, adapter_mixer, people)  # type: ignore[arg-type]
        assert not report.passed
        assert "LookupError: the connection is gone" in report.failures[0]


@pytest.mark.parametrize("name", ["rekognition", "azure", "tencent", "facepp", "compreface", "luxand"])
def test_a_drill_without_a_back_end_is_no_bug(
    name: str,
    portraits: Path,
    adapter_mixer: RememberingMixer,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert adapter_mixer  # the weights are there
    for variable in [it for it in os.environ if it.startswith(("AWS_", "AZURE_", "TENCENTCLOUD_"))]:
        monkeypatch.delenv(variable)
    arguments = ["--photos", str(portraits), "--people", "2"]
    assert main(["drill", "--adapter", name, *arguments]) == 8
    told = capsys.readouterr().err
    assert "nobody foresaw" not in told
    assert main(["drill", "--adapter", name, *arguments, "--option", "colour=red"]) == 2
    assert "colour" in capsys.readouterr().err


def test_people_are_taken_from_folders_or_file_names(londoners: list[Person], tmp_path: Path) -> None:
    flat = people_in(Path(str(londoners[0].enrolled)).parent, 5)
    assert [person.name for person in flat] == [person.name for person in londoners[:5]]
    for name in ("anna", "ben"):
        (tmp_path / name).mkdir()
        for number in (1, 2):
            (tmp_path / name / f"{number}.jpg").touch()
    assert [person.name for person in people_in(tmp_path, 2)] == ["anna", "ben"]
    for folder, count in ((tmp_path, 3), (tmp_path / "nowhere", 2)):
        with pytest.raises(UsageError):
            people_in(folder, count)


def test_the_command_reports_and_returns_codes(
    portraits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], adapter_mixer: RememberingMixer
) -> None:
    assert adapter_mixer  # the weights are there
    photos = str(portraits)
    out = tmp_path / "deep" / "report.json"
    arguments = [
        "drill",
        "--adapter",
        "opencv",
        "--photos",
        photos,
        "--people",
        "2",
        "-o",
        str(out),
        "--json",
    ]
    assert main(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(out.read_text())
    assert printed["people"] == 2
    for wrong, code in (
        (["--adapter", "no such", "--photos", photos], 8),
        (["--adapter", "opencv", "--photos", str(tmp_path / "nowhere")], 2),
        (["--adapter", "opencv", "--photos", photos, "--people", "103"], 2),
        (["--adapter", "opencv", "--photos", photos, "--option", "no value"], 2),
        (["--adapter", "opencv"], 2),
    ):
        assert main(["drill", *wrong]) == code
    capsys.readouterr()


@pytest.mark.parametrize(("people", "matches"), [(1, 0), (2, 1), (4, 2), (20, 4), (100, 11)])
def test_a_drill_allows_as_many_matches_as_chance_accounts_for(people: int, matches: int) -> None:
    assert _allowed(DRAWN, people) == matches
