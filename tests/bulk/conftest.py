from __future__ import annotations

from types import SimpleNamespace

import bulk_stub
import pytest
from forks import FORKS


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers that draw without networks, and start at once."""
    monkeypatch.setattr("anonymix_plugin.bulk._driver.Worker", bulk_stub.StubWorker)
    monkeypatch.setattr("anonymix_plugin.bulk._spawned.multiprocessing", SimpleNamespace(get_context=lambda _: FORKS))
