"""What the package exports."""

from __future__ import annotations

import pytest

import anonymix_keystore


def test_all_names_are_there_and_no_others() -> None:
    assert dir(anonymix_keystore) == sorted(anonymix_keystore.__all__)
    assert all(getattr(anonymix_keystore, name) is not None for name in anonymix_keystore.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        anonymix_keystore.nothing  # noqa: B018
