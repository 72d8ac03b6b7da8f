"""Nothing of a photo, and no secret of an address, gets into words: whatever was given, through each door."""

from __future__ import annotations

import inspect
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from leaks import COVERED, SECRET, Search, members, named, sources, words_of

import anonymix_plugin
from anonymix_keystore import KeystoreError
from anonymix_lab.data.keys import SeededKeys
from anonymix_plugin import Anonymixer, AnonymixError, Outcome, PhotoRequest, UnreadableImageError, images
from anonymix_plugin import verification as verification_module
from anonymix_plugin.values import CancelableFace
from anonymix_plugin.verification import Verifier
from anonymix_plugin.words import clean, is_plausible_path, shown

pytestmark = pytest.mark.usefixtures("loaded_once")

WEIGHTS = ("mobilestylegan", "yunet", "arcface-mbf", "sface")
PHOTO_TYPES = ("PhotoSource", "EncodedSource", "PhotoRequest")


@pytest.fixture(scope="module")
def photo(portraits: Path) -> bytes:
    return (portraits / "001_neutral.jpg").read_bytes()


@pytest.fixture(scope="module")
def search(photo: bytes) -> Search:
    return Search(photo)


@pytest.fixture(scope="module")
def mixer(model: Callable[[str], Path]) -> Iterator[Anonymixer]:
    for name in WEIGHTS:
        model(name)
    with Anonymixer(SeededKeys(3)) as made:
        yield made


def doors(owner: Any) -> dict[str, tuple[Callable[..., Any], str]]:
    """What of an object or module takes photos, by its signature: name -> function, name of the parameter."""
    names = getattr(owner, "__all__", None) or [name for name in dir(owner) if not name.startswith("_")]
    found = {}
    for name in names:
        member = getattr(owner, name)
        if not inspect.isroutine(member):
            continue
        for parameter in inspect.signature(member).parameters.values():
            if any(kind in str(parameter.annotation) for kind in PHOTO_TYPES):
                found[f"{name}({parameter.name})"] = (member, parameter.name)
    return found


def given(door: Callable[..., Any], parameter: str, source: Any) -> Any:
    """Call a door with a photo in one parameter, as the parameter wants it; streams are read to their end."""
    wanted = str(inspect.signature(door).parameters[parameter].annotation)
    value = PhotoRequest(source, "alice") if "PhotoRequest" in wanted else source
    arguments = {parameter: [value] if "Iterable" in wanted else value}
    taken = inspect.signature(door).parameters
    face = CancelableFace(np.zeros((8, 8, 3), np.uint8), (0.0, 0.0, 8.0, 8.0), "alice", "default", 1, "ab", "fast")
    usual = {"subject": "alice", "limits": images.ImageLimits(), "face": face, "path": "face.png"}
    arguments |= {name: it for name, it in usual.items() if name in taken}
    for name, other in taken.items():
        if name not in arguments and other.default is other.empty and other.kind is not other.VAR_KEYWORD:
            arguments[name] = value
    result = door(**arguments)
    return list(result) if inspect.isgenerator(result) or hasattr(result, "__next__") else result


@pytest.fixture(scope="module")
def library(mixer: Anonymixer, model: Callable[[str], Path]) -> dict[str, tuple[Callable[..., Any], str]]:
    matcher = Verifier("sface")
    owners = {"mixer": mixer, "plugin": anonymix_plugin, "images": images, "verifier": matcher}
    owners["verification"] = verification_module
    found = {f"{owner}.{name}": door for owner, it in owners.items() for name, door in doors(it).items()}
    assert {"mixer.protect(image)", "mixer.protect_stream(requests)", "images.decode_photo(source)"} <= set(found)
    return found


def test_every_kind_of_photo_source_has_examples() -> None:
    assert members() == COVERED


def test_the_library_says_nothing_of_photos(
    library: dict[str, tuple[Callable[..., Any], str]],
    photo: bytes,
    search: Search,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused: dict[str, int] = dict.fromkeys(library, 0)
    with caplog.at_level(logging.DEBUG):
        for door, (function, parameter) in library.items():
            for kind, make in sources(photo).items():
                try:
                    result = given(function, parameter, make())
                except (AnonymixError, KeystoreError) as error:
                    refused[door] += 1
                    words = words_of(error) + repr([error.where, error.what, error.fix])
                else:
                    gives_bytes = "bytes" in str(inspect.signature(function).return_annotation)
                    words = "" if gives_bytes else repr(result)  # a door that reads a file gives its bytes
                    for outcome in result if isinstance(result, list) else ():
                        if isinstance(outcome, Outcome) and outcome.error is not None:
                            refused[door] += 1
                            words += outcome.source + repr(outcome) + words_of(outcome.error)
                assert not search.found(words), (door, kind, words[:300])
    assert all(count > 30 for count in refused.values()), refused
    captured = capfd.readouterr()
    assert not search.found(captured.out + captured.err)
    assert not search.found(caplog.text + "".join(repr(record.__dict__) for record in caplog.records))


def test_requests_and_their_sources_say_nothing_of_photos(photo: bytes, search: Search) -> None:
    for kind, make in sources(photo).items():
        request = PhotoRequest(make(), "alice")
        words = repr(request) + request.source
        assert not search.found(words), kind
        assert "alice" not in repr(request)
        assert len(words) < 1500


# --- single words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "alice.jpg",
        "/srv/photos of 2026/alice (1).jpg",
        "C:\\photos\\alice.jpg",
        "../a=b.jpg",
        "caf\udce9.jpg",
        "名前 [b].jpg",
        "/" + "/".join(["folder"] * 140),
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08.jpg",
    ],
)
def test_paths_are_shown_as_they_are(path: str) -> None:
    assert is_plausible_path(path)
    assert shown(path) == path
    assert shown(Path(path)) == str(Path(path))


@pytest.mark.parametrize(
    "sentence",
    [
        f"could not reach https://{SECRET}@store.example/a.jpg",
        f"could not reach postgresql://alice:p@{SECRET}@db.example/faces",
        f"refused: Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.{SECRET}",
    ],
)
def test_a_sentence_keeps_its_words_and_loses_its_secret(sentence: str) -> None:
    assert SECRET not in clean(sentence)
    assert clean(sentence).startswith(sentence[:10])


def test_long_texts_are_named_by_their_length() -> None:
    text = "ab" * 45_768
    assert shown(text) == "<text of 91,536 characters>"
    with pytest.raises(UnreadableImageError, match=r"^<text of 91,536 characters>: .*decode it"):
        images.decode_photo(text)


def test_a_file_is_read_whatever_its_name_looks_like(tmp_path: Path, photo: bytes) -> None:
    deep = tmp_path
    while len(str(deep)) < 1_100:
        deep = deep / ("folder" * 20)
    deep.mkdir(parents=True)
    (deep / "photo.jpg").write_bytes(photo)
    decoded = images.decode_photo(deep / "photo.jpg")
    assert decoded.width > 100
    assert decoded.source.startswith("<text of ")


def test_a_sentence_that_quotes_foreign_text_is_cleaned(photo: bytes, search: Search) -> None:
    for kind, make in sources(photo).items():
        source = make()
        if not isinstance(source, str):
            continue
        # A sentence shows the path of an address; a text that is as long as a path may stand in it.
        for text in (source, f"the service says: '{source}' is bad", f"{source}\n"):
            if not any(part in kind for part in ("head", "name of a file", "latin-1", "no scheme, user")):
                assert not search.found(clean(text)), kind
    ours = "docs/own-generator.md says so (run: anonymix models pull --force), see https://example.org/docs/a.html"
    assert clean(ours) == ours


def test_hostile_texts_cost_no_time() -> None:
    started = time.thread_time()
    for part in ("a", "?", "a:", "https://", "a:b@", "\\x41", "A" * 39 + "\n", "data:", "?=", "%2F", "(("):
        text = part * (500_000 // len(part))
        clean(text)
        shown(text)
    assert time.thread_time() - started < 5


def test_sources_of_every_class_have_a_name() -> None:
    assert shown(b"x") == shown(bytearray(b"x")) == shown(memoryview(b"x")) == "<bytes>"
    assert shown(named(b"x", "/srv/alice.jpg")) == "/srv/alice.jpg"
    assert shown(named(b"x", f"s3://bucket/a.jpg?sig={SECRET}")) == "s3:..."
    assert shown(named(b"x", 7)) == "<file>"
    assert shown([b"x"]) == "<list>"
    assert shown(None) == "<NoneType>"
