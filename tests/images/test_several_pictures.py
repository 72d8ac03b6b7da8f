"""A file of several pictures, or of camera raw, whose first picture need not be the photo."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiff_files import tiff

from anonymix_plugin.errors import UnreadableImageError
from anonymix_plugin.images import decode_photo

SMALL = np.full((60, 80, 3), 90, np.uint8)
FULL = np.full((600, 800, 3), 90, np.uint8)
RAW = {
    "marked as a smaller copy": {254: ("I", [1])},
    "marked so in the old way": {255: ("H", [2])},
    "with sub-directories": {330: ("I", [8, 8])},
    "DNG": {50706: ("B", [1, 4, 0, 0])},
    "of a colour filter": {262: ("H", [32803])},
    "of a linear colour filter": {262: ("H", [34892])},
}


def kinds_of_source(data: bytes, folder: Path) -> dict[str, object]:
    path = folder / "photo.nef"
    path.write_bytes(data)
    return {"bytes": data, "path": path, "file": io.BytesIO(data)}


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("mark", RAW)
def test_camera_raw_is_refused_with_a_remedy_and_not_read_from_its_preview(mark, order, tmp_path):
    data = tiff((SMALL, RAW[mark]), (FULL, {}), order=order)
    for source in kinds_of_source(data, tmp_path).values():
        with pytest.raises(UnreadableImageError, match=r"camera raw is not supported.*export a JPEG"):
            decode_photo(source)
    if 262 not in RAW[mark]:  # Pillow itself opens no colour filter
        with Image.open(io.BytesIO(data)) as image, pytest.raises(UnreadableImageError, match="camera raw"):
            decode_photo(image)


@pytest.mark.parametrize(
    "head",
    [
        b"II*\0\x10\0\0\0CR\x02\0",
        b"IIRO\x08\0\0\0",
        b"IIRS\x08\0\0\0",
        b"MMOR\0\0\0\x08",
        b"IIU\0\x18\0\0\0",
        b"FUJIFILMCCD-RAW 0201FF129502",
        b"\0\0\0\x18ftypcrx \0\0\0\1",
        b"II\x1a\0\0\0HEAPCCDR",
        b"FOVb\0\0\2\0",
        b"\0MRM\0\0\1\0",
    ],
)
def test_raw_formats_of_cameras_are_named_by_their_heads(head):
    rest = tiff((SMALL, {}))[8:]
    if head.startswith(b"II*"):
        inner = tiff((SMALL, {}))
        # Canon writes its mark into a header that is otherwise that of a TIFF file.
        directory = struct.unpack_from("<I", inner, 4)[0]
        head, rest = inner[:4] + struct.pack("<I", directory) + b"CR\x02\0", inner[12:]
    with pytest.raises(UnreadableImageError, match=r"camera raw is not supported.*export a JPEG"):
        decode_photo(head + rest)


PAGES = {
    "another page": {},
    "a page of a document": {254: ("I", [2])},
}


@pytest.mark.parametrize("second", PAGES)
@pytest.mark.parametrize("place", ["first", "last"])
def test_a_tiff_of_several_pages_is_refused_with_a_word_on_pages(second, place, tmp_path):
    pages = [(FULL, {}), (FULL[:550], PAGES[second])]
    data = tiff(*(pages if place == "first" else pages[::-1]))
    for source in kinds_of_source(data, tmp_path).values():
        with pytest.raises(UnreadableImageError, match=r"2 pages or frames.*save the one that shows"):
            decode_photo(source)
    with Image.open(io.BytesIO(data)) as image, pytest.raises(UnreadableImageError, match="2 pages"):
        decode_photo(image)


def test_a_smaller_copy_that_is_larger_than_the_first_page_is_a_page():
    with pytest.raises(UnreadableImageError, match="2 pages"):
        decode_photo(tiff((SMALL, {}), (FULL, {254: ("I", [1])})))


@pytest.mark.parametrize(
    ("further", "fields"),
    [
        (FULL[:300, :400], {254: ("I", [1])}),
        (FULL[:300, :400], {255: ("H", [2])}),
        (FULL, {254: ("I", [4])}),
        (SMALL, {}),
    ],
    ids=["smaller copy", "smaller copy, marked in the old way", "mask", "thumbnail"],
)
def test_thumbnails_smaller_copies_and_masks_are_no_further_pages(further, fields):
    data = tiff((FULL, {}), (further, fields))
    assert np.array_equal(decode_photo(data).pixels, FULL)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode_photo(image).pixels, FULL)


def test_directories_that_lead_in_a_circle_end():
    data = bytearray(tiff((FULL, {})))
    data[-4:] = data[4:8]
    assert np.array_equal(decode_photo(bytes(data)).pixels, FULL)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_is_refused_with_a_remedy_however_it_is_given(kind, encode):
    red, blue = (Image.new("RGB", (40, 40), colour) for colour in ("red", "blue"))
    data = encode(red, kind, save_all=True, append_images=[blue, blue])
    with pytest.raises(UnreadableImageError, match=r"frame.*save the one"):
        decode_photo(data)
    with Image.open(io.BytesIO(data)) as image, pytest.raises(UnreadableImageError, match="frame"):
        decode_photo(image)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_a_pil_image_the_frame_that_seek_chose_is_taken(kind, encode):
    red, blue = (Image.new("RGB", (40, 40), colour) for colour in ("red", "blue"))
    data = encode(red, kind, save_all=True, append_images=[blue])
    with Image.open(io.BytesIO(data)) as image:
        image.seek(1)
        assert np.abs(decode_photo(image).pixels.astype(int) - np.asarray(blue)).max() < 9
        image.seek(0)
        assert np.abs(decode_photo(image.copy()).pixels.astype(int) - np.asarray(red)).max() < 9


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_of_one_frame_is_a_photo(kind, encode):
    red = Image.new("RGB", (40, 40), "red")
    data = encode(red, kind, save_all=True)
    assert np.abs(decode_photo(data).pixels.astype(int) - np.asarray(red)).max() < 9


def multi_picture(
    encode: Callable[..., bytes], first: Image.Image, *others: Image.Image, kinds: int | None = None
) -> bytes:
    """A multi-picture JPEG as Pillow writes it; `kinds` replaces the kind of all but the first picture."""
    data = bytearray(encode(first, "MPO", save_all=True, append_images=list(others)))
    if kinds is not None:
        entries = data.index(b"MPF\0") + 4 + 8 + 2 + 3 * 12 + 4
        for number in range(1, len(others) + 1):
            struct.pack_into("<I", data, entries + 16 * number, kinds)
    return bytes(data)


@pytest.fixture
def shot(portraits: Path) -> Image.Image:
    return Image.open(portraits / "001_neutral.jpg").convert("RGB")


@pytest.fixture
def other(portraits: Path) -> Image.Image:
    return Image.open(portraits / "002_neutral.jpg").convert("RGB")


def test_of_a_jpeg_of_several_shots_the_first_is_the_photo(encode, shot, other):
    data = multi_picture(encode, shot, other)
    alone = decode_photo(encode(shot, "JPEG")).pixels
    assert np.array_equal(decode_photo(data).pixels, alone)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode_photo(image).pixels, alone)
        image.seek(1)
        assert not np.array_equal(decode_photo(image).pixels, alone)


def test_previews_and_maps_within_a_jpeg_are_no_further_shots(encode, shot, other):
    half = shot.resize((shot.width // 2, shot.height // 2))
    gain = b'<x:xmpmeta><rdf:Description hdrgm:Version="1.0"/></x:xmpmeta>'
    cases = {
        "gain map of half the size": multi_picture(encode, shot, half),
        "depth map": multi_picture(encode, shot, shot.convert("L")),
        "preview": multi_picture(encode, shot, other, kinds=0x010002),
        "named in XMP": with_xmp(multi_picture(encode, shot, other), gain),
    }
    for name, data in cases.items():
        alone = decode_photo(encode(shot, "JPEG")).pixels
        assert np.array_equal(decode_photo(data).pixels, alone), name
        with Image.open(io.BytesIO(data)) as image:
            assert np.array_equal(decode_photo(image).pixels, alone), name


def with_xmp(data: bytes, packet: bytes) -> bytes:
    """A JPEG with an XMP segment at its beginning; offsets of a multi-picture index stay right."""
    body = b"http://ns.adobe.com/xap/1.0/\0" + packet
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


@settings(deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""]))
def test_a_damaged_index_of_pictures_is_no_reason_to_refuse(block, start):
    stream = io.BytesIO()
    Image.fromarray(SMALL).save(stream, "JPEG")
    body = b"MPF\0" + start + block
    data = stream.getvalue()
    data = data[:2] + b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body + data[2:]
    assert decode_photo(data).pixels.shape == SMALL.shape


def test_what_a_phone_puts_behind_a_jpeg_is_no_further_picture(encode, shot, other):
    data = encode(shot, "JPEG")
    film = b"\0\0\0\x18ftypmp42" + encode(other, "JPEG")
    assert np.array_equal(decode_photo(data + film).pixels, decode_photo(data).pixels)


def test_the_thumbnail_in_exif_is_no_further_picture(encode, shot, other):
    thumbnail = encode(other.resize((160, 160)), "JPEG")
    exif = b"Exif\0\0" + tiff((None, {}), (None, {513: ("I", [60]), 514: ("I", [len(thumbnail)])}))
    data = encode(shot, "JPEG", exif=(exif + thumbnail)[:60_000])
    assert np.array_equal(decode_photo(data).pixels, decode_photo(encode(shot, "JPEG")).pixels)


def test_several_pages_are_refused_even_if_the_file_was_closed_behind_the_image():
    stream = io.BytesIO(tiff((FULL, {}), (FULL, {})))
    image = Image.open(stream)
    image.load()
    stream.close()
    with pytest.raises(UnreadableImageError, match="pages or frames"):
        decode_photo(image)
