"""What tests of several rooms need: real photos and real weights, or a reason to skip."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from anonymix_plugin.errors import MissingModelError
from anonymix_plugin.models import locate, sources

ModelNeed = Callable[[str], Path]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of face photos beside the repository, or a skip where there is none."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "london").is_dir():
        pytest.skip("needs the face photos, which are not part of the repository: ../shared/data")
    return folder


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
