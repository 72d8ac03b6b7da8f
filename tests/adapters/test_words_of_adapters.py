"""Whatever an adapter is given as a photo, nothing of it is in what it says: all adapters, all kinds."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path

import pytest
from leaks import Search, sources, words_of
from remembering import RememberingMixer
from servers import recognition
from servers.__main__ import KINDS

import anonymix_adapters
from anonymix_adapters import registry
from anonymix_adapters.testing.conformance import Person


@pytest.mark.parametrize("name", registry.names())
def test_adapters_say_nothing_of_photos(
    name: str,
    adapter_mixer: RememberingMixer,
    londoners: list[Person],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    adapter = anonymix_adapters.load(name)
    try:
        for sdk in adapter.SDKS:
            sdk.load()
    except anonymix_adapters.SdkMissingError as error:
        pytest.skip(f"runs in the environment of `make test-adapters`: {error}")
    monkeypatch.chdir(tmp_path)
    photo = Path(str(londoners[0].enrolled)).read_bytes()
    search, refused = Search(photo), 0
    with ExitStack() as stack:
        if name in KINDS:
            start, environment = KINDS[name]
            for variable, value in environment(stack.enter_context(start(recognition()))).items():
                monkeypatch.setenv(variable, value)
        stack.enter_context(caplog.at_level(logging.DEBUG))
        rehearsal = stack.enter_context(adapter.rehearse(adapter_mixer.mixer, keys="gallery"))
        doors = {
            "enrol": lambda source: rehearsal.enrol("alice", source),
            "verify": lambda source: rehearsal.verify("alice", source),
            "search": rehearsal.search,
        }
        for door, call in doors.items():
            for kind, make in sources(photo).items():
                try:
                    words = repr(call(make()))
                except Exception as error:  # noqa: BLE001 - an SDK may raise whatever it likes
                    refused += 1
                    words = words_of(error)
                assert not search.found(words), (door, kind, words[:600])
    assert refused > 60
    captured = capfd.readouterr()
    assert not search.found(captured.out + captured.err)
    assert not search.found(caplog.text + "".join(repr(record.__dict__) for record in caplog.records))
