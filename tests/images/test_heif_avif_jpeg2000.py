"""HEIC, AVIF and JPEG 2000: which picture of the file counts, which way up, and what hostile ones meet."""

from __future__ import annotations

import io
import re
import struct
import sys
import time

import cv2
import numpy as np
import pillow_heif
import pytest
from heif_files import gradient, heif
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from anonymix_plugin.errors import (
    AlreadyProtectedError,
    ImageTooLargeError,
    MissingPackageError,
    PhotoError,
    UnreadableImageError,
)
from anonymix_plugin.images import ImageLimits, decode_photo, encode_cancelable, read_marker
from anonymix_plugin.images._containers import examine


def error_of(got, expected) -> float:
    assert got.shape == expected.shape
    return float(np.abs(got.astype(int) - expected.astype(int)).mean())


def in_format(image, kind, **options) -> bytes:
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    if kind == "HEIC":
        return heif(image, quality=95, chroma=444, **options)
    stream = io.BytesIO()
    image.save(stream, kind, **({"quality": 95, "subsampling": "4:4:4"} if kind == "AVIF" else {}), **options)
    return stream.getvalue()


@pytest.mark.parametrize("name", ["heic", "avif", "jpeg 2000", "jpeg 2000 stream", "jpeg 2000 of tiles"])
def test_each_gives_its_picture(name, files, picture):
    assert error_of(decode_photo(files[name]).pixels, picture) <= (2 if name in {"heic", "avif"} else 0)


def test_tiles_are_put_together(files):
    assert error_of(decode_photo(files["heic of tiles"]).pixels, gradient(160, 130)) < 2


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_and_mirrors_of_the_file_are_applied(kind, orientation, picture):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = in_format(picture, kind, exif=exif.tobytes())
    assert (b"irot" in data or b"imir" in data) == (orientation > 1)
    stored = Image.fromarray(picture)
    stored.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(stored))
    assert error_of(decode_photo(data).pixels, upright) < 2
    opened = Image.open(io.BytesIO(data)) if kind == "AVIF" else pillow_heif.HeifImageFile(io.BytesIO(data))
    assert error_of(decode_photo(opened).pixels, upright) < 2


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_exif_and_xmp_of_a_heif_file_say_nothing_of_its_orientation(kind, picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = in_format(picture, kind, exif=exif.tobytes(), xmp=b'<rdf:Description tiff:Orientation="6"/>')
    at = data.index(b"irot") + 4
    assert error_of(decode_photo(data[:at] + b"\0" + data[at + 1 :]).pixels, picture) < 2


@pytest.mark.parametrize("kind", ["exif", "xmp"])
def test_jpeg_2000_is_turned_as_exif_or_xmp_in_its_boxes_say(kind, files, picture):
    exif = Image.Exif()
    exif[0x0112] = 3
    body = {
        "exif": b"JpgTiffExif->JP2" + exif.tobytes().removeprefix(b"Exif\0\0"),
        "xmp": bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + b"<x tiff:Orientation='3'/>",
    }[kind]
    data = files["jpeg 2000"] + struct.pack(">I4s", 8 + len(body), b"uuid") + body
    assert error_of(decode_photo(data).pixels, picture[::-1, ::-1]) == 0


def test_what_a_clean_aperture_leaves_out_is_cut_off(picture):
    odd = picture[:43, :57]
    data = in_format(odd, "HEIC")
    assert b"clap" in data
    assert error_of(decode_photo(data).pixels, odd) < 2


def test_of_several_pictures_the_primary_one_counts(picture):
    other = np.ascontiguousarray(picture[::-1, :50])
    for primary in (0, 1):
        file = pillow_heif.HeifFile()
        for pixels in (picture, other):
            file.add_from_pillow(Image.fromarray(pixels))
        stream = io.BytesIO()
        file.save(stream, quality=95, chroma=444, primary_index=primary)
        assert error_of(decode_photo(stream.getvalue()).pixels, (picture, other)[primary]) < 2
        image = pillow_heif.HeifImageFile(io.BytesIO(stream.getvalue()))
        assert error_of(decode_photo(image).pixels, (picture, other)[primary]) < 2


def test_a_thumbnail_is_never_taken_for_the_picture():
    data = heif(gradient(320, 240), quality=95, thumbnails=[64])
    assert data.count(b"hvcC") >= 1
    assert decode_photo(data).pixels.shape == (240, 320, 3)
    assert len(examine(data, "").data) < len(data)


@pytest.mark.parametrize("given", ["bytes", "PIL image"])
def test_a_sequence_is_refused(given):
    red, blue = (Image.new("RGB", (64, 64), colour) for colour in ("red", "blue"))
    data = in_format(red, "AVIF", save_all=True, append_images=[blue])
    with pytest.raises(UnreadableImageError, match="several pages or frames"):
        decode_photo(data if given == "bytes" else Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("kind", ["HEIC", "AVIF", "JPEG2000"])
def test_transparency_is_laid_over_grey(kind, picture):
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[:, :20] = 0
    pixels = decode_photo(in_format(np.dstack([picture, alpha]), kind)).pixels
    assert error_of(pixels[:, :18], np.full_like(pixels[:, :18], 128)) < 2
    assert error_of(pixels[:, 22:], picture[:, 22:]) < 3
    with pytest.raises(UnreadableImageError, match="fully transparent"):
        decode_photo(in_format(np.dstack([picture, 0 * alpha]), kind))


def test_ten_and_sixteen_bits_become_eight(picture):
    deep = picture.astype(np.uint16)
    done, jp2 = cv2.imencode(".jp2", deep[:, :, ::-1] * 257)
    assert done
    assert error_of(decode_photo(jp2.tobytes()).pixels, picture) <= 1
    done, grey = cv2.imencode(".jp2", deep[:, :, 0] * 257)
    assert done
    assert error_of(decode_photo(grey.tobytes()).pixels, np.repeat(picture[:, :, :1], 3, 2)) <= 1
    done, avif = cv2.imencode(".avif", deep[:, :, ::-1] * 4, [cv2.IMWRITE_AVIF_DEPTH, 10, cv2.IMWRITE_AVIF_QUALITY, 95])
    assert done
    assert error_of(decode_photo(avif.tobytes()).pixels, picture) <= 2.5
    ten = pillow_heif.HeifFile()
    ten.add_frombytes("RGB;16", picture.shape[1::-1], (deep * 257).tobytes())
    stream = io.BytesIO()
    ten.save(stream, quality=95, chroma=444)
    assert examine(stream.getvalue(), "").data.count(b"\x0a\x0a\x0a") == 1  # pixi: 10 bits each
    assert error_of(decode_photo(stream.getvalue()).pixels, picture) <= 2


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_the_marker_of_a_cancelable_face_is_found(kind, face, picture):
    exif = Image.open(io.BytesIO(encode_cancelable(face))).getexif().tobytes()
    data = in_format(picture, kind, exif=exif)
    assert read_marker(data).key_version == face.key_version
    with pytest.raises(AlreadyProtectedError):
        decode_photo(data)


def test_without_its_extra_heic_says_what_to_install(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingPackageError) as caught:
        decode_photo(files["heic"])
    assert caught.value.fix == 'pip install "anonymix-plugin[heif]"'
    assert decode_photo(files["avif"]).pixels.any()


def test_metadata_and_further_pictures_reach_no_decoder(picture):
    exif = Image.Exif()
    exif[0x010E] = "a word that stands in the description"
    for kind in ("HEIC", "AVIF"):
        data = in_format(picture, kind, exif=exif.tobytes(), xmp=b"<x>a word that stands in XMP</x>")
        assert data.count(b"a word that stands") == 2
        assert b"a word that stands" not in examine(data, "").data


# Hostile files.


def declared(data: bytes, width: int, height: int) -> bytes:
    """The file with another size in all its `ispe`."""
    out = bytearray(data)
    at = out.find(b"ispe")
    while at >= 0:
        struct.pack_into(">II", out, at + 8, width, height)
        at = out.find(b"ispe", at + 4)
    return bytes(out)


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_a_bitstream_larger_than_the_file_declares_is_refused_before_it_is_unpacked(kind):
    data = declared(in_format(Image.new("RGB", (1024, 512)), kind), 64, 64)
    with pytest.raises(ImageTooLargeError, match="1,024 x 512"):
        decode_photo(data, limits=ImageLimits(max_pixels=500_000))


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_a_huge_declared_size_is_refused(kind, picture):
    with pytest.raises(ImageTooLargeError, match="20,000 x 20,000"):
        decode_photo(declared(in_format(picture, kind), 20_000, 20_000))


def test_parameters_between_the_slices_are_left_out(files):
    data = files["heic"]
    record = data.index(b"hvcC") + 4
    at = record + re.search(rb"[\x21\x61\xa1]\x00\x01", data[record:]).end()  # the sequence's parameters
    length = int.from_bytes(data[at : at + 2], "big")
    unit = struct.pack(">I", length) + data[at + 2 : at + 2 + length]
    iloc = data.index(b"iloc")
    start, size = (int.from_bytes(data[iloc + place : iloc + place + 4], "big") for place in (16, 26))
    body = unit + data[start : start + size]
    out = bytearray(data[:start] + body)
    struct.pack_into(">I", out, iloc + 26, len(body))
    lean = examine(bytes(out), "").data
    assert lean.count(unit[4:]) == 1  # in the decoder's configuration alone
    assert np.array_equal(decode_photo(bytes(out)).pixels, decode_photo(data).pixels)


@pytest.mark.parametrize("place", [0, 4])
def test_a_jpeg_2000_file_whose_boxes_say_another_size_than_its_codestream_is_refused(place, files):
    data = bytearray(files["jpeg 2000"])
    at = data.index(b"ihdr") + 4 + place
    data[at] = 0x70
    with pytest.raises(UnreadableImageError, match="differ in size"):
        decode_photo(bytes(data))


def marked(data: bytes, marker: int) -> int:
    return data.index(struct.pack(">H", marker)) + 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("size", "the image has"),
        ("tiles", "tiles"),
        ("layers", "layers"),
        ("precincts", "precincts"),
        ("components", "component"),
    ],
)
def test_bombs_of_jpeg_2000_are_refused_on_their_headers(change, message, encode):
    data = bytearray(encode(gradient(600, 500), "JPEG2000", no_jp2=True, precinct_size=(256, 256)))
    size, style = marked(data, 0xFF51), marked(data, 0xFF52)
    if change == "size":
        struct.pack_into(">II", data, size + 2, 60_000, 60_000)
    elif change == "tiles":
        struct.pack_into(">II", data, size + 18, 4, 4)
    elif change == "layers":
        struct.pack_into(">H", data, style + 2, 60_000)
    elif change == "precincts":
        data[style + 10 : style + 10 + data[style + 5] + 1] = b"\x11" * (data[style + 5] + 1)
    else:
        struct.pack_into(">H", data, size + 34, 16_000)
    with pytest.raises(PhotoError, match=message):
        decode_photo(bytes(data))


def test_a_jpeg_2000_too_large_for_memory_is_decoded_at_half_the_size(encode):
    pixels = gradient(602, 403)
    photo = decode_photo(encode(pixels, "JPEG2000"), limits=ImageLimits(max_pixels=100_000))
    assert photo.shrunk == 2
    assert photo.pixels.shape == (202, 301, 3)
    assert (
        error_of(photo.pixels[:200, :300], cv2.resize(pixels[:400, :600], (300, 200), interpolation=cv2.INTER_AREA)) < 3
    )


def with_box(data: bytes, name: bytes, content: bytes) -> bytes:
    """A HEIF file in whose list of pictures a box has another content; places of data stay wrong."""
    at, meta = data.index(name) - 4, data.index(b"meta") - 4
    size = int.from_bytes(data[at : at + 4], "big")
    outer = [meta] if name == b"iloc" else [meta, data.index(b"iprp") - 4]
    out = bytearray(data)
    for place in outer if name == b"ipma" else [meta]:
        whole = int.from_bytes(data[place : place + 4], "big") - size + 8 + len(content)
        out[place : place + 4] = whole.to_bytes(4, "big")
    out[at : at + size] = (8 + len(content)).to_bytes(4, "big") + name + content
    return bytes(out)


EMPTY_PLACES = b"\0\0\0\0\0\0\xff\xff" + b"\0\1\0\0\xff\xff" * 65_535
BOMBS = {
    "places without end": lambda files: with_box(files["heic"], b"iloc", EMPTY_PLACES),
    "properties without end": lambda files: with_box(
        files["heic"], b"ipma", b"\0\0\0\0\0\1\0\0" + (b"\0\1\xff" + b"\1" * 255) * 65_536
    ),
    "markers without end": lambda files: (
        files["jpeg 2000 stream"][: files["jpeg 2000 stream"].index(b"\xff\x52")] + b"\xff\x30" * 1_000_000
    ),
    "tile-parts without end": lambda files: (
        files["jpeg 2000 stream"][: files["jpeg 2000 stream"].index(b"\xff\x90")]
        + b"\xff\x90\0\x0a\0\0\0\0\0\x0e\0\1\xff\x93" * 300_000
        + b"\xff\xd9"
    ),
    "units without end": lambda files: replaced_data(files["avif"], b"\x12\0" * 1_000_000),
}


def replaced_data(data: bytes, body: bytes) -> bytes:
    """A HEIF file of one item with other data."""
    start = data.index(b"mdat") + 4
    iloc = data.index(b"iloc")
    out = bytearray(data[:start] + body)
    struct.pack_into(">I", out, start - 8, 8 + len(body))
    struct.pack_into(">I", out, data.index(struct.pack(">I", start), iloc) + 4, len(body))
    return bytes(out)


@pytest.mark.parametrize("name", BOMBS)
def test_lists_without_end_are_refused_before_they_take_time(name, files):
    data = BOMBS[name](files)
    begun = time.thread_time()
    with pytest.raises(UnreadableImageError, match=r"absurdly long|too many"):
        decode_photo(data)
    assert time.thread_time() - begun < 5, name


@pytest.mark.parametrize(("name", "said"), [("heic", "HEIF"), ("avif", "AVIF")])
def test_a_damaged_file_is_called_what_it_is(files, name: str, said: str) -> None:
    data = files[name]
    for spoilt in (data[: len(data) // 2], data.replace(b"ispe", b"ispf"), data.replace(b"meta", b"moov", 1)):
        with pytest.raises(UnreadableImageError, match=f"the {said} file"):
            decode_photo(spoilt)


FUZZED = ["heic", "heic of tiles", "avif", "jpeg 2000", "jpeg 2000 of tiles"]


@pytest.mark.parametrize("name", FUZZED)
def test_every_truncation_of_the_headers_is_refused(name, files):
    data = files[name]
    for length in range(min(len(data), 700)):
        with pytest.raises(UnreadableImageError):
            decode_photo(data[:length])


@settings(deadline=None, max_examples=200)
@given(
    name=st.sampled_from(FUZZED),
    share=st.floats(0, 1, exclude_max=True),
    field=st.sampled_from([2, 4, 8]),
    value=st.sampled_from([0, 1, 0x7F, 0xFF, 0x80]),
)
def test_damaged_lengths_and_numbers_give_a_photo_or_a_photo_error(files, name, share, field, value):
    data = bytearray(files[name])
    at = int(share * min(len(data), 700))
    data[at : at + field] = bytes([value]) * field
    try:
        photo = decode_photo(bytes(data), limits=ImageLimits(max_pixels=1_000_000))
    except PhotoError:
        return
    assert photo.pixels.shape == (photo.height, photo.width, 3)
