"""People with two photos each, one real mixer for all adapters, and a keystore of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torchvision_nms
from remembering import RememberingMixer

from anonymix_adapters.testing.conformance import Person
from anonymix_keystore import Argon2Cost, Keystore, PassphraseUnlock
from anonymix_lab.data.keys import SeededKeys
from anonymix_plugin import Anonymixer, assembly

torchvision_nms.define()

WEIGHTS = ("mobilestylegan", "yunet", "arcface-mbf", "sface")


@pytest.fixture(scope="module", autouse=True)
def _networks_once(loaded_once: None) -> None:
    pass


@pytest.fixture
def adapter_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystore]:
    """A keystore of the test's own: what others did to a person's key decides nothing."""
    cheap = Argon2Cost(memory_kib=8_192, passes=1, lanes=1)
    path = tmp_path_factory.mktemp("adapters") / "keystore.db"
    with Keystore.create(path, PassphraseUnlock("swordfish", cost=cheap)) as store:
        yield store


SERVICES = {
    f"test_{name}.py"
    for name in ("clouds", "azure", "compreface", "facepp", "gateway_services", "luxand", "rekognition", "tencent")
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The six services take as long as a third of everything else: `make test-services` runs them."""
    for item in items:
        if item.path.name in SERVICES:
            item.add_marker(pytest.mark.services)


@pytest.fixture(scope="session")
def core_mixer(model: Callable[[str], Path], loaders: dict[str, Any]) -> Iterator[RememberingMixer]:
    """The real mixer with the real weights, remembering the faces of all tests."""
    for name in WEIGHTS:
        model(name)
    with pytest.MonkeyPatch.context() as patch:
        for name, load in loaders.items():
            patch.setattr(assembly, name, load)
        mixer = Anonymixer(SeededKeys(1))
    with mixer:
        yield RememberingMixer(mixer, mixer.keystore)


@pytest.fixture
def adapter_mixer(core_mixer: RememberingMixer, adapter_store: Keystore) -> RememberingMixer:
    """The real mixer over the test's own keystore."""
    return core_mixer.over(adapter_store)


@pytest.fixture(scope="session")
def londoners(portraits: Path) -> list[Person]:
    """Twenty people, or as many as there are: neutral photo to enrol, smiling photo as probe."""
    return [
        Person(path.name[:3], path, path.with_name(f"{path.name[:3]}_smiling.jpg"))
        for path in sorted(portraits.glob("*_neutral.jpg"))[:20]
    ]
