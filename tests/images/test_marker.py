from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from anonymix_plugin.errors import AlreadyProtectedError, UnreadableImageError
from anonymix_plugin.images import Marker, decode_photo, encode_cancelable, read_marker

FORMATS = ["PNG", "JPEG", "WEBP"]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_marker_is_read_back_from_every_format(kind, face, tmp_path):
    expected = Marker(fingerprint=face.fingerprint, key_version=3, method="fast")
    data = encode_cancelable(face, kind)
    path = tmp_path / "marked"
    path.write_bytes(data)
    assert read_marker(data) == expected
    assert read_marker(path) == expected
    assert read_marker(io.BytesIO(data)) == expected
    with Image.open(path) as image:
        assert read_marker(image) == expected


@pytest.mark.parametrize("kind", FORMATS)
def test_neither_subject_nor_scope_is_written(kind, face):
    data = encode_cancelable(face, kind)
    for secret in (face.subject, face.scope):
        for coding in ("utf-8", "utf-16-le", "utf-16-be"):
            assert secret.encode(coding) not in data


@pytest.mark.parametrize("kind", FORMATS)
def test_a_marked_image_is_not_taken_as_a_photo(kind, face, tmp_path):
    data = encode_cancelable(face, kind)
    path = tmp_path / "face.bin"
    path.write_bytes(data)
    with Image.open(io.BytesIO(data)) as image:
        for source in (data, path, io.BytesIO(data), image):
            with pytest.raises(AlreadyProtectedError):
                decode_photo(source)
        assert decode_photo(image, allow_protected=True).pixels.shape == face.pixels.shape
    assert decode_photo(data, allow_protected=True).pixels.shape == face.pixels.shape


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("first", FORMATS)
def test_the_marker_survives_a_conversion_that_keeps_exif(first, kind, face):
    stream = io.BytesIO()
    with Image.open(io.BytesIO(encode_cancelable(face, first))) as image:
        image.save(stream, kind, exif=image.getexif())
    with pytest.raises(AlreadyProtectedError):
        decode_photo(stream.getvalue())
    with Image.open(stream) as converted, pytest.raises(AlreadyProtectedError):
        decode_photo(converted)


@pytest.mark.parametrize("kind", FORMATS)
def test_the_marker_does_not_survive_stripping(kind, face):
    # Not a wish, a documented limit: whoever strips metadata can't be told from whoever took a photo.
    stream = io.BytesIO()
    with Image.open(io.BytesIO(encode_cancelable(face, kind))) as image:
        Image.fromarray(np.asarray(image)).save(stream, kind)
    assert read_marker(stream.getvalue()) is None
    decode_photo(stream.getvalue())


def test_photos_have_no_marker(files, picture):
    for data in files.values():
        assert read_marker(data) is None
    assert read_marker(Image.fromarray(picture)) is None


def test_the_comments_of_others_are_no_marker(encode, picture):
    exif = Image.Exif()
    exif[0x010E] = "anonymix"
    exif[0x8769] = {0x9286: b'ASCII\0\0\0I like {"anonymix": 1}'}
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", '{"anonymix":1}')
    data = encode(picture, "PNG", exif=exif, pnginfo=text)
    assert read_marker(data) is None
    assert np.array_equal(decode_photo(data).pixels, picture)


DAMAGED = [
    "",
    "{",
    "[]",
    "null",
    '{"anonymix":1}',
    '{"anonymix":1,"fingerprint":"ab","key_version":0,"road":"fast"}',
    '{"anonymix":1,"fingerprint":"ab","key_version":true,"road":"fast"}',
    '{"anonymix":1,"fingerprint":"<script>","key_version":1,"road":"fast"}',
    '{"anonymix":1,"fingerprint":"ab","key_version":1,"road":["fast"]}',
    '{"anonymix":2,"fingerprint":"ab","key_version":1,"road":"fast"}',
    '{"anonymix":1,' + " " * 5000 + '"fingerprint":"ab","key_version":1,"road":"fast"}',
    "[" * 3000,
]


@pytest.mark.parametrize("international", [False, True])
@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_marker_still_protects(text, international, encode, picture):
    info = PngImagePlugin.PngInfo()
    (info.add_itxt if international else info.add_text)("anonymix", text)
    data = encode(picture, "PNG", pnginfo=info)
    with pytest.raises(UnreadableImageError, match="marke"):
        read_marker(data)
    with pytest.raises(AlreadyProtectedError):
        decode_photo(data)


def test_a_compressed_marker_still_protects(encode, picture):
    info = PngImagePlugin.PngInfo()
    info.add_itxt("anonymix", '{"anonymix":1}', zip=True)
    with pytest.raises(AlreadyProtectedError):
        decode_photo(encode(picture, "PNG", pnginfo=info))


@given(
    st.builds(
        Marker,
        fingerprint=st.text("0123456789abcdef", min_size=1, max_size=64),
        key_version=st.integers(1, 2**40),
        method=st.sampled_from(["fast", "refine"]),
    )
)
def test_json_round_trip(marker):
    assert Marker.from_json(marker.to_json(), "") == marker
    assert list(json.loads(marker.to_json())) == ["anonymix", "fingerprint", "key_version", "road"]


@given(st.binary(max_size=200))
def test_any_text_is_a_marker_or_an_error(text):
    with pytest.raises(UnreadableImageError):
        Marker.from_json(text, "here")
