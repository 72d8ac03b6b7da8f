"""No package behind an adapter ends the process, or passes as a success, when it is imported or used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from remembering import RememberingMixer

import anonymix_adapters
from anonymix_adapters import SdkMissingError, UnknownAdapterError
from anonymix_adapters import drill as drilling
from anonymix_adapters import face_recognition as dlib_adapter
from anonymix_adapters import opencv as opencv_adapter
from anonymix_adapters.sdk import Sdk
from anonymix_adapters.testing.conformance import Person
from anonymix_plugin.cli import main

Install = Callable[[str], Sdk]

BROKEN = {
    "ends the process": "raise SystemExit",
    "prints and ends the process": "print('please install something')\nimport sys\nsys.exit()",
    "ends the process with a failure": "raise SystemExit(3)",
    "ends the process with a sentence": "raise SystemExit('please install something')",
    "raises what is no Exception": "class Odd(BaseException): ...\nraise Odd('strange')",
    "lacks a package": "import no_such_package_at_all",
    "fails": "raise RuntimeError('operator torchvision::nms does not exist')",
    "is no Python": "def (:",
}


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a package with this code, and an adapter that is this package."""

    def made(code: str) -> Sdk:
        (tmp_path / "acme_broken.py").write_text(code)
        info = tmp_path / "acme_broken-3.1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-broken\nVersion: 3.1\n")
        (info / "entry_points.txt").write_text("[anonymix.adapters]\nbroken = acme_broken\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        return Sdk("acme_broken", ("acme-broken",), "acme", ">=3,<4")

    yield made
    sys.modules.pop("acme_broken", None)


@pytest.mark.parametrize("way", BROKEN)
def test_a_package_that_does_not_import_is_an_error_of_ours(way: str, install: Install) -> None:
    sdk = install(BROKEN[way])
    with pytest.raises(SdkMissingError, match="does not import") as raised:
        sdk.load()
    assert raised.value.fix == "pip install anonymix-plugin[acme]"
    assert raised.value.exit_code != 0
    with pytest.raises(UnknownAdapterError, match="does not import"):
        anonymix_adapters.load("broken")
    with pytest.raises(SdkMissingError):
        Sdk(*("acme_broken", ("acme-broken",), "acme", ">=3"), cure="do this").load()


@pytest.mark.parametrize("wish", ["raise KeyboardInterrupt", "raise SystemExit(143)"])
def test_a_wish_to_stop_is_granted(wish: str, install: Install) -> None:
    sdk = install(wish)
    for load in (sdk.load, lambda: anonymix_adapters.load("broken")):
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            load()


def test_a_drill_of_a_package_that_ends_the_process_does_not_pass(
    install: Install, londoners: list[Person], capsys: pytest.CaptureFixture[str]
) -> None:
    install("raise SystemExit(0)")
    photos = str(Path(str(londoners[0].enrolled)).parent)
    assert main(["drill", "--adapter", "broken", "--photos", photos, "--people", "2"]) > 0
    assert "does not import" in capsys.readouterr().err


def _ends(*_: object, **__: object) -> Any:
    raise SystemExit(0)


@pytest.mark.parametrize("when", ["opened", "used"])
def test_a_drill_whose_back_end_ends_the_process_says_so(
    when: str,
    adapter_mixer: RememberingMixer,
    londoners: list[Person],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    @contextmanager
    def rehearse(*args: Any, **options: Any) -> Iterator[Any]:
        with opencv_adapter.rehearse(*args, **options) as stage:
            stage.verify = _ends  # type: ignore[method-assign]
            yield stage

    adapter = SimpleNamespace(NAME="opencv", SDKS=(), rehearse=_ends if when == "opened" else rehearse)

    @contextmanager
    def mixer(**_: object) -> Iterator[Any]:
        yield adapter_mixer

    monkeypatch.setattr(drilling, "load", lambda _: adapter)
    monkeypatch.setattr(drilling, "temporary_mixer", mixer)
    photos, report = str(Path(str(londoners[0].enrolled)).parent), tmp_path / "report.json"
    ended = main(["drill", "-a", "opencv", "-p", photos, "--people", "2", "-o", str(report)])
    assert ended == (8 if when == "opened" else 1)
    told = capsys.readouterr()
    assert "tried to end the process" in (told.err if when == "opened" else report.read_text())


def test_face_recognition_beside_a_setuptools_without_pkg_resources_names_the_cure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The package would close the standard input and end the process with code 0."""
    try:
        dlib_adapter.SDKS[0].check()
    except SdkMissingError as error:
        pytest.skip(f"runs in the environment of `make test-adapters`: {error}")
    for name in ("face_recognition", "face_recognition.api", "face_recognition_models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "pkg_resources", None)
    with pytest.raises(SdkMissingError, match="setuptools<82"), dlib_adapter.rehearse(None):  # type: ignore[arg-type]
        pass
    assert not sys.stdin.closed


def test_the_extra_of_face_recognition_brings_a_setuptools_that_it_works_with() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    (line,) = (it for it in project.splitlines() if it.startswith("dlib = "))
    assert '"setuptools<82"' in line
