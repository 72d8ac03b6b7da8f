"""People with two photos each, one real mixer for all adapters, and a keystore of their own."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torchvision_nms
from remembering import RememberingMixer

from anonymix_adapters.testing.conformance import Person
from anonymix_keystore import Argon2Cost, Keystore, PassphraseUnlock, _lifecycle
from anonymix_plugin import Anonymixer

torchvision_nms.define()

WEIGHTS = ("mobilestylegan", "yunet", "arcface-mbf", "sface")


@pytest.fixture(scope="session")
def adapter_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keystore]:
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
def adapter_mixer(adapter_store: Keystore, model: Callable[[str], Path]) -> Iterator[RememberingMixer]:
    """The real mixer with the real weights, remembering its faces."""
    for name in WEIGHTS:
        model(name)
    with Anonymixer(adapter_store) as mixer:
        yield RememberingMixer(mixer, adapter_store)


@pytest.fixture(scope="session")
def londoners(portraits: Path) -> list[Person]:
    """Twenty people, or as many as there are: neutral photo to enrol, smiling photo as probe."""
    return [
        Person(path.name[:3], path, path.with_name(f"{path.name[:3]}_smiling.jpg"))
        for path in sorted(portraits.glob("*_neutral.jpg"))[:20]
    ]


@pytest.fixture(autouse=True)
def _same_keys_in_every_run(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What holds for nearly every key, not for each, must not fail once in a hundred runs."""
    numbers = itertools.count()

    def random_values(count: int, length: int) -> list[bytes]:
        names = (f"{request.node.nodeid} {next(numbers)}".encode() for _ in range(count))
        return [hashlib.sha512(name).digest()[:length] for name in names]

    monkeypatch.setattr(_lifecycle, "random_values", random_values)
