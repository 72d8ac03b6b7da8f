"""Every adapter of a recogniser on this machine is held to what every adapter is held to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from remembering import RememberingMixer

import anonymix_adapters
from anonymix_adapters.protocol import Adapter
from anonymix_adapters.testing import conformance
from anonymix_adapters.testing.conformance import Person, Trial

LOCAL = ("opencv", "crops", "insightface", "face_recognition", "facenet", "deepface")


def loaded(name: str) -> Adapter:
    adapter = anonymix_adapters.load(name)
    try:
        for sdk in adapter.SDKS:
            sdk.load()
    except anonymix_adapters.SdkMissingError as error:
        pytest.skip(f"runs in the environment of `make test-adapters`: {error}")
    return adapter


@pytest.mark.parametrize("check", conformance.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", LOCAL)
def test_adapter(
    name: str,
    check: Callable[[Trial], None],
    adapter_mixer: RememberingMixer,
    londoners: list[Person],
) -> None:
    check(Trial(loaded(name), adapter_mixer, londoners[:3]))
