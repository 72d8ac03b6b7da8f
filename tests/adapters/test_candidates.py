"""Lists of candidates as hosts write them."""

from __future__ import annotations

import pytest

from anonymix_adapters import Answer
from anonymix_adapters.candidates import search_candidates
from anonymix_plugin.errors import UsageError


def test_one_who_is_listed_twice_is_one_person() -> None:
    asked: list[str] = []

    def verify(subject: str, _: object) -> Answer:
        asked.append(subject)
        return Answer(subject.startswith("ren"), 0.9)

    found = search_candidates(verify, b"photo", ["ren\u00e9", "bob", "rene\u0301", "bob"])
    assert len(asked) == found.tried == 2
    assert found.subject is not None  # and not "more than one"


def test_a_name_is_no_list_of_letters() -> None:
    with pytest.raises(UsageError, match="no list"):
        search_candidates(lambda *_: Answer(True, 1.0), b"photo", "bob")
