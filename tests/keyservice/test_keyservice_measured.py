"""What `anonymix measure keyservice` times is what it says, with a real service and without mixers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from anonymix_lab.studies.keyservice import latencies, revocations, served
from anonymix_plugin.keyservice.line import Line

SUBJECTS, TURNS = 200, 10


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often this process asked the service for what."""
    count, ask = Counter[str](), Line.ask

    def counted(line: Line, operation: str, *rest: Any, **how: Any) -> bytearray:
        count[operation] += 1
        return ask(line, operation, *rest, **how)

    monkeypatch.setattr(Line, "ask", counted)
    return count


@pytest.mark.long
def test_a_fetched_key_is_asked_for_once_a_kept_one_never_and_a_revoked_one_is_refused(
    tmp_path: Path, asked: Counter[str]
) -> None:
    with served(tmp_path, SUBJECTS) as place:
        asked.clear()
        found = latencies(place, SUBJECTS)
        # Each turn opens a connection with the first subject's key; in one of them it is kept when it is timed.
        assert asked == {"current": SUBJECTS + TURNS - 1}
        for source in ("local", "service"):
            assert 0 < found[source].cached_p50 <= found[source].cached_p99
            assert 0 < found[source].uncached_p50 <= found[source].uncached_p99
        assert len(revocations(place, 2)) == 2
