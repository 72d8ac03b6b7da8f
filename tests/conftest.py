"""What tests of several rooms need: real photos and real weights, or a reason to skip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import photo_folders
import pytest
from hypothesis import HealthCheck, settings
from same_keys import SameKeys

from anonymix_plugin.errors import MissingModelError
from anonymix_plugin.models import locate, sources

ModelNeed = Callable[[str], Path]

# Neither what is drawn nor the load of the machine decides: `make test-long` draws anew, with the profile `search`.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("search"), derandomize=True, database=None)
settings.load_profile("same")
KEYS = SameKeys()


@pytest.fixture(scope="session", autouse=True)
def _same_keys_in_every_run() -> Iterator[None]:
    with KEYS.given():
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    KEYS.begin(genuine=item.path.parent.name == "keystore")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of lfw/ and pins/ beside the repository, or a skip where there is none.

    A test that needs only photos of a few people takes `portraits` instead, which are always there.
    """
    folder = photo_folders.shared() / "data"
    if not (folder / "london").is_dir():
        pytest.skip("needs photos of many people, which are not part of the repository: ../shared/data")
    return folder


@pytest.fixture(scope="session")
def portraits() -> Path:
    """A folder of 001_neutral.jpg, 001_smiling.jpg ...: London people, or at least twelve drawn ones."""
    return photo_folders.portraits()


@pytest.fixture(scope="session")
def real_people(portraits: Path) -> bool:
    """Whether the portraits are of real people: figures measured on London hold for those alone."""
    return portraits == photo_folders.shared() / "data" / "london"


@pytest.fixture(scope="session")
def model() -> ModelNeed:
    """A function that takes a model's name and returns its first file, or skips where it is missing.

    Damaged weights are no reason to skip: they fail the test.
    """

    def need(name: str) -> Path:
        try:
            paths = [locate(name, source.file) for source in sources(name)]
        except MissingModelError as error:
            pytest.skip(f"needs weights: {error}")
        return paths[0]

    return need


@pytest.fixture(scope="session")
def loaders() -> dict[str, Any]:
    """Loaders of networks by name, each of which loads once a session: compiling one takes seconds."""
    from anonymix_plugin import generator, recognisers

    return {
        "load_generator": cache(generator.load_generator),
        "load_reference_generator": cache(generator.load_reference_generator),
        "load_recogniser": cache(recognisers.load_recogniser),
        "torch_recogniser": cache(recognisers.torch_recogniser),
    }


@pytest.fixture(scope="module")
def loaded_once(loaders: dict[str, Any]) -> Iterator[None]:
    """All mixers of a module are made of the same networks. It is not for tests of what a loader does."""
    from anonymix_plugin import assembly, verification

    with pytest.MonkeyPatch.context() as patch:
        for name, load in loaders.items():
            patch.setattr(assembly, name, load)
        patch.setattr(verification, "load_recogniser", loaders["load_recogniser"])
        yield


@pytest.fixture(scope="module")
def parts_once(loaded_once: None) -> Iterator[None]:
    """All mixers of a module with the same options are made of the same parts."""
    from anonymix_plugin import anonymixer, assembly

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(anonymixer, "assemble", cache(assembly.assemble))
        yield
