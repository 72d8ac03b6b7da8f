"""What `anonymix_lab.studies.adapters` counts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from remembering import RememberingMixer

from anonymix_adapters import opencv
from anonymix_adapters.interceptor import FaceMixer
from anonymix_adapters.testing.conformance import Person
from anonymix_lab.studies.adapters import beyond_strangers, measure
from anonymix_plugin.cli import main
from anonymix_plugin.errors import UsageError
from anonymix_plugin.images import PhotoSource


def test_opencv_is_measured_on_people(adapter_mixer: RememberingMixer, londoners: list[Person]) -> None:
    people = [Person(f"measured {it.name}", it.enrolled, it.probe) for it in londoners[:3]]
    found = measure(opencv, adapter_mixer, people, claims=1, calls=3)
    assert found.adapter == "opencv"
    assert found.genuine == (3, 3)
    assert found.claiming[1] == 3
    assert found.other_key[1] == 6
    assert found.originals == (0, 3)
    assert found.genuine_beyond[1] == 3
    assert -1 <= found.nearest_stranger <= 1
    # With nobody between them, the threshold could be anywhere.
    assert found.genuine_beyond[0] == 3 or found.nearest_stranger > 0.3
    assert found.overhead_ms == pytest.approx(found.call_ms - found.plain_ms, abs=0.02)


class Particular:
    """A back end that takes no picture of some people."""

    NAME, SDKS = "particular", ()

    def __init__(self, *unwanted: tuple[str, PhotoSource]) -> None:
        self._unwanted = unwanted

    @contextmanager
    def rehearse(self, mixer: FaceMixer) -> Iterator[Any]:
        with opencv.rehearse(mixer) as stage:
            enrol = stage.enrol

            def particular(subject: str, photo: PhotoSource) -> str:
                if (subject, photo) in self._unwanted:
                    raise OSError("there is more than one face")
                return enrol(subject, photo)

            stage.enrol = particular  # type: ignore[method-assign]
            yield stage


def test_people_whom_the_back_end_refuses_are_counted_and_left_out(
    adapter_mixer: RememberingMixer, londoners: list[Person]
) -> None:
    people = [Person(f"particular {it.name}", it.enrolled, it.probe) for it in londoners[:5]]
    for unwanted in ((people[1].name, people[1].enrolled), (people[1].name, people[1].probe)):
        found = measure(Particular(unwanted), adapter_mixer, people, claims=1, calls=1)  # type: ignore[arg-type]
        assert found.refused == 1
        assert (found.genuine[1], found.claiming[1], found.other_key[1]) == (4, 4, 4 * 3)
    most = [(it.name, it.probe) for it in people[:3]]
    with pytest.raises(OSError, match="more than one face"):
        measure(Particular(*most), adapter_mixer, people, claims=1, calls=1)  # type: ignore[arg-type]


@given(
    st.lists(st.floats(0.5, 1), min_size=1, max_size=20),
    st.lists(st.floats(-1, 0.49), min_size=1, max_size=20),
)
def test_people_far_apart_are_all_beyond_the_strangers(genuine: list[float], strangers: list[float]) -> None:
    assert beyond_strangers(genuine, strangers) == (max(strangers), len(genuine))
    # The same as distances.
    away = beyond_strangers([1 - score for score in genuine], [1 - score for score in strangers])
    assert away == (min(1 - score for score in strangers), len(genuine))


def test_who_is_no_nearer_than_a_stranger_is_not_counted() -> None:
    assert beyond_strangers([0.9, 0.6, 0.5], [0.1, 0.6, 0.2]) == (0.6, 1)


def test_nobody_is_refused() -> None:
    with pytest.raises(UsageError):
        beyond_strangers([], [0.5])


def test_the_command_names_a_back_end_that_fails_and_goes_on(
    adapter_mixer: RememberingMixer,
    portraits: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert adapter_mixer  # the weights are there

    def unready(*_: object, **__: object) -> None:
        raise LookupError("you must specify a region")

    monkeypatch.setattr(opencv, "rehearse", unready)
    photos = ["--photos", str(portraits), "--people", "2"]
    assert main(["measure", "adapters", "opencv", *photos]) == 1
    assert "opencv: LookupError: you must specify a region" in capsys.readouterr().err


def test_the_command_names_what_is_missing_and_goes_on(
    portraits: Path,
    adapter_mixer: RememberingMixer,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from contextlib import nullcontext

    from anonymix_adapters.errors import SdkMissingError

    def load(name: str) -> object:
        if name == "opencv":
            return opencv

        class Missing:
            NAME = name

            @staticmethod
            def rehearse(_: object) -> None:
                raise SdkMissingError("not installed", where=name)

        return Missing

    monkeypatch.setattr("anonymix_adapters.registry.load", load)
    monkeypatch.setattr("anonymix_adapters.drill.temporary_mixer", lambda **_: nullcontext(adapter_mixer))
    photos = str(portraits)
    assert (
        main(
            [
                "measure",
                "adapters",
                "elsewhere",
                "opencv",
                "--photos",
                photos,
                "--people",
                "2",
                "--claims",
                "1",
            ]
        )
        == 1
    )
    printed = capsys.readouterr()
    assert "elsewhere" in printed.err
    assert json.loads(printed.out)["genuine"] == [2, 2]
