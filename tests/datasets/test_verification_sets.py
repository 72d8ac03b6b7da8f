"""InsightFace's verification sets: read without running them, written as Python reads them."""

from __future__ import annotations

import hashlib
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anonymix_lab.data import verification_protocol
from anonymix_plugin.datasets import (
    PackedPhoto,
    VerificationWriter,
    is_verification_set,
    people_of,
    read_verification_set,
)
from anonymix_plugin.errors import UnreadableImageError, UsageError

PHOTOS = [b"a" * 5, b"b" * 300, b"c\xff\x00\x80" * 3, b"d" * 70_000]
SAME = [True, False]

Make = Callable[[bytes], Path]


@pytest.fixture
def file(tmp_path: Path) -> Make:
    def make(content: bytes) -> Path:
        path = tmp_path / "lfw.bin"
        path.write_bytes(content)
        return path

    return make


def python_2(photos: list[bytes], same: list[bool]) -> bytes:
    """What cPickle of Python 2 wrote under protocol 2: photos are short and long texts."""

    def text(data: bytes) -> bytes:
        return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data

    listed = b"".join(text(photo) + b"q" + bytes([number + 2]) for number, photo in enumerate(photos))
    answers = b"".join(b"\x88" if one else b"\x89" for one in same)
    return b"\x80\x02]q\x01(" + listed + b"e]q\x80(" + answers + b"e\x86q\x81."


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("whole", [(PHOTOS, SAME), [tuple(PHOTOS), tuple(SAME)], (PHOTOS, [1, 0])])
def test_what_pickle_writes_is_read(file: Make, protocol: int, whole: Any) -> None:
    found = read_verification_set(file(pickle.dumps(whole, protocol)))
    assert [photo.read(100_000) for photo in found.photos] == PHOTOS
    assert found.same == (True, False)


def test_what_python_2_wrote_is_read(file: Make) -> None:
    content = python_2(PHOTOS, SAME)
    assert pickle.loads(content, encoding="bytes") == (PHOTOS, SAME)  # noqa: S301 - made here
    found = read_verification_set(file(content))
    assert [photo.read(100_000) for photo in found.photos] == PHOTOS
    assert found.same == (True, False)


def test_one_object_twice_is_two_photos(file: Make) -> None:
    found = read_verification_set(file(pickle.dumps(([PHOTOS[0], PHOTOS[0]], [True]))))
    assert [photo.read(9) for photo in found.photos] == [PHOTOS[0]] * 2


class _Evil:
    def __init__(self, call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", [0, 1, 2])
def test_nothing_is_called(file: Make, tmp_path: Path, protocol: int, place: int) -> None:
    seen = tmp_path / "seen"
    evil: Any = _Evil((os.mkdir, (str(seen),)))
    value: Any = [([evil, *PHOTOS], SAME), (PHOTOS, [evil]), evil][place]
    content = pickle.dumps(value, protocol)
    with pytest.raises(UsageError, match="this is no verification set"):
        read_verification_set(file(content))
    assert not seen.exists()
    pickle.loads(content)  # noqa: S301 - made here: it shows that the call is in it
    assert seen.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "ends too early"),
        (pickle.dumps((PHOTOS, SAME)) + b"x", "left over"),
        (pickle.dumps((PHOTOS[:3], SAME)), "3 photos for 2 pairs"),
        (pickle.dumps(([], [])), "0 photos"),
        (pickle.dumps((PHOTOS, SAME, SAME)), "no pair of photos and answers|instruction"),
        (pickle.dumps((["a", "b"], [True])), "instruction|no list of encoded photos"),
        (pickle.dumps((PHOTOS, [2, 0])), "no list of bools"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"x.", "ends within the photo"),
        (b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00utf-8tR.", "code that is not known"),
        (b"\x80\x02h\x07.", "never made"),
        (b"\x80\x02a.", "nothing to work on"),
        (b"\x80\x02K\x01K\x01a.", "no list"),
        (b"\x80\x02(.", "no pair"),
        (b"\x80\x09].", "newer than 5"),
        (b"I" + b"9" * 1000, "does not end"),
    ],
)
def test_anything_else_is_refused_in_words(file: Make, content: bytes, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_verification_set(file(content))


def test_every_truncation_is_refused(file: Make) -> None:
    content = pickle.dumps(([*PHOTOS[:3], b"x"], SAME), 4)
    for end in range(len(content)):
        with pytest.raises(UsageError):
            read_verification_set(file(content[:end]))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_changed_bytes_never_do_more_than_be_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(python_2([b"ab", b"cd" * 200, b"e", b"f"], SAME))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed.bin"
    path.write_bytes(content)
    try:
        found = read_verification_set(path)
        for photo in found.photos:
            photo.read(10_000)
    except (UsageError, UnreadableImageError):
        pass


def test_what_is_written_is_read_by_pickle(tmp_path: Path) -> None:
    path = tmp_path / "out.bin"
    with VerificationWriter.into(path, lambda: SAME) as writer:
        for photo in PHOTOS:
            writer.add(photo)
    assert pickle.loads(path.read_bytes()) == (PHOTOS, SAME)  # noqa: S301 - made here
    assert [photo.read(100_000) for photo in read_verification_set(path).photos] == PHOTOS


def test_people_follow_from_genuine_pairs_and_equal_photos(file: Make) -> None:
    photos = [b"anna 1", b"anna 2", b"anna 2", b"anna 3", b"anna 3", b"bert 1", b"carl 1", b"anna 1"]
    found = read_verification_set(file(pickle.dumps((photos, [True, True, False, False]))))
    people, digests = people_of(found)
    assert people == [0, 0, 0, 0, 0, 1, 2, 0]
    assert digests[5] == hashlib.sha256(b"bert 1").hexdigest()


def test_a_photo_that_is_named_again_and_again_is_read_once(file: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = b"large"
    found = read_verification_set(file(pickle.dumps(([photo] * 2000, [True] * 1000))))
    reads = []
    read = PackedPhoto.read
    monkeypatch.setattr(PackedPhoto, "read", lambda self, most: reads.append(self) or read(self, most))
    people, digests = people_of(found)
    assert len(reads) == 1
    assert (set(people), set(digests)) == ({0}, {hashlib.sha256(photo).hexdigest()})


def test_a_photo_that_is_too_large_or_gone_is_refused(file: Make) -> None:
    path = file(pickle.dumps((PHOTOS, SAME)))
    photo = read_verification_set(path).photos[3]
    with pytest.raises(UnreadableImageError, match="70,000 bytes, more than the 100 allowed"):
        photo.read(100)
    path.write_bytes(b"\x80")
    with pytest.raises(UnreadableImageError, match="it changed while it was in use"):
        photo.read(100_000)


def test_a_set_is_told_by_how_it_begins(tmp_path: Path) -> None:
    for name, content, is_one in (
        ("a.bin", pickle.dumps(1), True),
        ("a.bin", b"weights", False),
        ("a.pkl", pickle.dumps(1), False),
        ("none.bin", None, False),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        assert is_verification_set(tmp_path / name) is is_one


def test_a_protocol_has_the_pairs_and_ten_folds(file: Make) -> None:
    photos, same = [], []
    for number in range(100):
        photos += [f"{number} a".encode(), f"{number} b".encode()]
        photos += [f"{number} a".encode(), f"{number - number % 10 + (number + 1) % 10} b".encode()]
        same += [True, False]
    protocol = verification_protocol(file(pickle.dumps((photos, same))))
    assert (len(protocol.people), len(protocol.samples), len(protocol.pairs)) == (100, 200, 200)
    assert protocol.folds == 10
    assert protocol.samples[0].person == "lfw.bin[0]"
    assert protocol.samples[1].source == b"0 b"
    apart = verification_protocol(file(pickle.dumps((photos, same))), development_share=0.3)
    assert {one.person for one in apart.samples}.isdisjoint(one.person for one in apart.development)


def test_a_set_that_contradicts_itself_makes_no_protocol(file: Make) -> None:
    photos = [b"a", b"b", b"b", b"c", b"a", b"c", b"d", b"e"]
    with pytest.raises(UsageError, match="show one person by other pairs"):
        verification_protocol(file(pickle.dumps((photos, [True, True, False, False]))))


def test_repeated_and_identical_pairs_are_told(file: Make) -> None:
    photos = [b"a", b"b", b"b", b"a", b"c", b"c", b"a", b"d"]
    protocol = verification_protocol(file(pickle.dumps((photos, [True, True, True, False]))))
    kinds = {notice.kind: notice.count for notice in protocol.notices}
    assert kinds == {"repeated_pair": 1, "identical_pair": 1}
    assert len(protocol.pairs) == 2
