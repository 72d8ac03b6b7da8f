"""The template in the guide works for a recogniser of somebody else's; a leaky adapter is caught."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from remembering import RememberingMixer

import anonymix_adapters
from anonymix_adapters import BypassError, UnknownAdapterError
from anonymix_adapters.testing import conformance
from anonymix_adapters.testing.conformance import NonConformity, Person, Trial

GUIDE = Path(__file__).parents[2] / "docs" / "writing-an-adapter.md"

ACME = '''
"""A recogniser with an interface of its own, made of SFace: BGR photo in, vector out."""

import numpy as np

from anonymix_plugin.faces import YuNet, recogniser_crop
from anonymix_plugin.models import locate
from anonymix_plugin.recognisers import load_recogniser
from anonymix_plugin.values import Photo

THRESHOLD = 0.363


class Client:
    def __init__(self):
        self._detector, self._recogniser = YuNet(locate("yunet")), load_recogniser("sface")

    def embed(self, photo):
        face = self._detector.detect(Photo(np.ascontiguousarray(photo[..., ::-1]), "photo"))[0]
        return self._recogniser.embed(recogniser_crop(face)[None])[0]
'''


def template() -> str:
    return next(block for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S) if "NAME =" in block)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Installs an adapter's code, and what it is for, as packages, and loads it by its name."""

    def made(code: str) -> Any:
        (tmp_path / "acme.py").write_text(ACME)
        (tmp_path / "acme_anonymix.py").write_text(code)
        for name, version in (("acme-sdk", "3.1"), ("acme-anonymix", "1.0")):
            info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text("[anonymix.adapters]\nacme = acme_anonymix\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()
        return anonymix_adapters.load("acme")

    yield made
    for name in ("acme", "acme_anonymix"):
        sys.modules.pop(name, None)


def test_the_template_meets_what_every_adapter_must(
    install: Callable[[str], Any], adapter_mixer: RememberingMixer, londoners: list[Person]
) -> None:
    adapter = install(template())
    results = conformance.run(Trial(adapter, adapter_mixer, londoners[:3]))
    assert list(results) == [check.__name__ for check in conformance.CHECKS]
    assert not any(results.values()), results
    with adapter.rehearse(adapter_mixer) as stage, pytest.raises(BypassError):
        stage.client.embed([0.1, 0.2])


def test_a_leaky_adapter_is_caught(
    install: Callable[[str], Any], adapter_mixer: RememberingMixer, londoners: list[Person]
) -> None:
    """It protects, so that the records are right, and then sends the photo."""
    leaky = template().replace(
        "return embed(bgr(interceptor.protect(photo, whose)))",
        "interceptor.protect(photo, whose)\n            return embed(photo[..., ::-1])",
    )
    assert leaky != template()
    trial = Trial(install(leaky), adapter_mixer, londoners[:3])
    for check in (conformance.sends_cancelable_faces_only, conformance.tells_people_apart):
        with pytest.raises(NonConformity):
            check(trial)


def test_an_adapter_that_asks_for_no_version_is_caught(
    install: Callable[[str], Any], adapter_mixer: RememberingMixer, londoners: list[Person]
) -> None:
    careless = template().replace("SDKS[0].check()", "pass").replace("SDKS[0].load()", "__import__('acme')")
    trial = Trial(install(careless), adapter_mixer, londoners[:3])
    with pytest.raises(NonConformity, match="SdkMissingError"):
        conformance.names_itself_and_its_sdk(trial)


def test_an_adapter_that_does_not_meet_the_protocol_is_not_loaded(install: Callable[[str], Any]) -> None:
    with pytest.raises(UnknownAdapterError, match="rehearse"):
        install(template().replace("def rehearse", "def something_else"))
