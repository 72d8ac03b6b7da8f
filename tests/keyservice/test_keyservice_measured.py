"""What `anonymix measure keyservice` measures holds, with a real service and without mixers."""

from __future__ import annotations

from pathlib import Path

import pytest

from anonymix_lab.studies.keyservice import latencies, revocations, served


@pytest.mark.long
def test_keys_are_fast_and_revocations_in_time(tmp_path: Path) -> None:
    with served(tmp_path, 2_000) as place:
        found = latencies(place, 2_000)
        late = revocations(place, 2)
    assert found["service"].cached_p99 < 50
    assert found["service"].uncached_p50 < 5_000
    assert len(late) == 2
    assert max(late) < 5
