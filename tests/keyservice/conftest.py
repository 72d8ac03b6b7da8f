from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from service_rig import ServiceRig


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceRig]:
    """A service that all tests of a module ask; whoever stops it starts it again."""
    made = ServiceRig(tmp_path_factory.mktemp("service"))
    made.start()
    yield made
    made.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ServiceRig]:
    """A service of the test's own, not yet started."""
    made = ServiceRig(tmp_path)
    yield made
    made.close()
