"""Biometric records in, biometric records out, with nothing of the old face in them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import nistitl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from record_files import SECRET, coded, dg2, fac, fac_2011, face_39794, read_fac, schema, transaction

from anonymix_plugin.errors import AlreadyProtectedError, PhotoError, UnreadableImageError
from anonymix_plugin.images import decode_photo, encode_record, read_marker, save_cancelable
from anonymix_plugin.records import find_record
from anonymix_plugin.values import CancelableFace

PORTRAIT = Image.open(Path(__file__).parents[1] / "people" / "alex_1.jpg").convert("RGB").resize((160, 200))

RECORDS: dict[str, Callable[[], bytes]] = {
    "19794-5:2005": lambda: fac(PORTRAIT),
    "19794-5:2005, JPEG 2000": lambda: fac(PORTRAIT, "JPEG2000"),
    "19794-5:2011": lambda: fac_2011(PORTRAIT),
    "39794-5": lambda: bytes(schema().encode("Face", face_39794(PORTRAIT))),
    "39794-5, JPEG 2000": lambda: bytes(schema().encode("Face", face_39794(PORTRAIT, "JPEG2000"))),
    "DG2 of 19794-5": lambda: dg2(("plain", fac(PORTRAIT)), padding=bytes(300)),
    "DG2 of 19794-5, JPEG 2000": lambda: dg2(("plain", fac(PORTRAIT, "JPEG2000"))),
    "DG2 of 39794-5": lambda: dg2(("nested", {"face": face_39794(PORTRAIT)})),
    "type 10": lambda: transaction(PORTRAIT),
    "type 10, JPEG 2000": lambda: transaction(PORTRAIT, "JPEG2000"),
}


@pytest.fixture(scope="module")
def face() -> CancelableFace:
    y, x = np.mgrid[:128, :128]
    pixels = np.stack([2 * x, 2 * y, x + y], -1).astype(np.uint8)
    return CancelableFace(pixels, (0.0, 0.0, 9.0, 9.0), "alice", "default", 2, "ab" * 16, "fast")


@pytest.mark.parametrize("name", RECORDS)
def test_the_photo_in_a_record_is_read(name, tmp_path):
    path = tmp_path / "record.bin"
    path.write_bytes(RECORDS[name]())
    pixels = decode_photo(path).pixels
    assert pixels.shape == (200, 160, 3)
    assert np.abs(pixels.astype(int) - np.asarray(PORTRAIT)).mean() < 6


@pytest.mark.parametrize("name", RECORDS)
def test_what_comes_out_holds_the_new_face_and_nothing_of_the_old_one(name, face, tmp_path):
    old = RECORDS[name]()
    record = find_record(old, "")
    new = encode_record(face, old)
    found = find_record(new, "")
    assert (found.kind, found.coding) == (record.kind, record.coding)
    assert read_marker(new).key_version == 2
    with pytest.raises(AlreadyProtectedError):
        decode_photo(new)
    pixels = decode_photo(new, allow_protected=True).pixels
    assert np.abs(pixels.astype(int) - face.pixels).mean() < 4
    body = record.picture[-len(record.picture) * 3 // 4 :]  # without heads, which tables of JPEG share
    assert not any(body[at : at + 12] in new for at in range(0, len(body) - 12, 5))
    assert SECRET not in new
    save_cancelable(face, tmp_path / "record.bin", record=old)
    assert (tmp_path / "record.bin").read_bytes() == new


@pytest.mark.parametrize("coding", ["JPEG", "JPEG2000"])
def test_iso19794_reads_what_comes_out(coding, face):
    seen = read_fac(encode_record(face, fac(PORTRAIT, coding)))
    assert seen.size == (128, 128)
    expected = {"landmark_points": [], "gender": "X", "eye_colour": "UNSPECIFIED", "hair_colour": "UNSPECIFIED"}
    expected |= {"property_mask": [], "expression": "UNSPECIFIED", "pose_yaw": 0, "face_image_type": "BASIC"}
    expected |= {"source_type": "UNSPECIFIED", "image_data_type": coding, "quality": 0}
    assert {key: seen.header[key] for key in expected} == expected
    # Of JPEG, iso19794 shows light and colour differences as they are stored, in the places of red, green and blue.
    told = face.pixels if coding == "JPEG2000" else np.asarray(Image.fromarray(face.pixels).convert("YCbCr"))
    assert np.abs(np.asarray(seen.convert("RGB")).astype(int) - told).mean() < 4


def test_asn1tools_reads_the_dg2_that_comes_out(face):
    seen = schema().decode("DG2", encode_record(face, dg2(("plain", fac(PORTRAIT)), padding=bytes(99))))["group"]
    assert seen["count"] == 1
    kept = {"version": b"\1\1", "type": b"\2", "subtype": b"\0", "owner": b"\1\1", "format": b"\0\x08"}
    assert seen["template"]["header"] == kept
    kind, block = seen["template"]["block"]
    assert kind == "plain"
    assert read_fac(block).size == (128, 128)


@pytest.mark.parametrize(("coding", "code"), [("JPEG", "jpeg"), ("JPEG2000", "lossy")])
def test_asn1tools_reads_the_39794_that_comes_out(coding, code, face):
    old = dg2(("nested", {"face": face_39794(PORTRAIT, coding)}))
    block = schema().decode("DG2", encode_record(face, old))["group"]["template"]["block"][1]["face"]
    assert block["version"] == {"generation": 3, "year": 2019}
    (one,) = block["representations"]
    assert set(one) == {"id", "image"}
    flat = one["image"][1][1]
    assert flat["about"] == {"format": ("code", code), "size": {"width": 128, "height": 128}}
    assert Image.open(io.BytesIO(flat["data"])).size == (128, 128)


def test_nistitl_reads_the_transaction_that_comes_out(face):
    seen = nistitl.Message()
    seen.parse(encode_record(face, transaction(PORTRAIT)))
    assert [record.type for record in seen] == [1, 2, 10]
    assert seen[1][18].value == "DOE,JANE"
    photo = seen[2]
    told = {tag: photo[tag].value for tag in (3, 4, 6, 7, 8, 11, 12, 13)}
    assert told == {3: "FACE", 4: "ORG0001", 6: "128", 7: "128", 8: "0", 11: "JPEGB", 12: "SRGB", 13: "0"}
    assert not [tag for tag in (20, 27, 28, 38) if photo[tag]]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: fac(PORTRAIT, times=2), "2 faces"),
        (lambda: dg2(("plain", fac(PORTRAIT)), count=2), "2 faces"),
        (lambda: bytes(schema().encode("Face", face_39794(PORTRAIT, times=2))), "2 faces"),
        (lambda: transaction(PORTRAIT, kinds=("FACE", "FACE")), "2 photos"),
        (lambda: transaction(PORTRAIT, kinds=("SCAR",)), "0 photos"),
        (lambda: fac(PORTRAIT).replace(b"FAC\x00010", b"FAC\x00990"), "version"),
    ],
)
def test_records_of_several_faces_or_of_none_are_refused(data, message):
    with pytest.raises(UnreadableImageError, match=message):
        decode_photo(data())


def test_a_transaction_with_fingers_is_read_and_not_written_back(face):
    data = transaction(PORTRAIT, finger=True)
    assert decode_photo(data).width == 160
    with pytest.raises(UnreadableImageError, match=r"type 14.*would stay"):
        encode_record(face, data)


def test_a_photo_is_no_record(face):
    with pytest.raises(UnreadableImageError, match="no biometric record"):
        encode_record(face, coded(PORTRAIT, "JPEG"))


@pytest.mark.parametrize("text", [b"u", b"e", b"used to be a photo", b"everything " * 40, b"1.001:", b"FAC\0"])
def test_texts_that_begin_like_a_record_are_no_images(text):
    with pytest.raises(UnreadableImageError):
        decode_photo(text)


@pytest.mark.parametrize("name", RECORDS)
def test_every_truncation_is_refused(name):
    data = RECORDS[name]()
    at = data.rindex(find_record(data, "").picture[-40:]) + 38  # where the picture ends
    for length in [*range(min(at, 400)), *range(400, at, 97)]:
        with pytest.raises(UnreadableImageError):
            decode_photo(data[:length])


@settings(deadline=None, max_examples=150)
@given(
    name=st.sampled_from(sorted(RECORDS)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)), max_size=4),
    head=st.booleans(),
)
def test_damaged_records_give_a_photo_or_a_photo_error_and_leak_nothing(name, changes, head, face):
    data = bytearray(RECORDS[name]())
    for share, value in changes:
        at = int(share * (min(len(data), 200) if head else len(data)))
        data[at : at + len(value)] = value
    try:
        decode_photo(bytes(data))
        new = encode_record(face, bytes(data))
    except PhotoError:
        return
    assert read_marker(new) is not None
    assert SECRET not in new
