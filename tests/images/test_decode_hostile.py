from __future__ import annotations

import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from anonymix_plugin.errors import (
    ImageTooLargeError,
    ImageTooSmallError,
    PhotoError,
    UnreadableImageError,
    UsageError,
)
from anonymix_plugin.images import ImageLimits, decode_photo

NAMES = [
    "jpeg",
    "jpeg progressive",
    "png",
    "webp",
    "webp lossless",
    "bmp",
    "tiff",
    "tiff deflate",
    "tiff lzw",
    "gif",
    "heic",
    "heic of tiles",
    "avif",
    "jpeg 2000",
    "jpeg 2000 stream",
    "jpeg 2000 of tiles",
]
SAME_FILES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@SAME_FILES
@given(name=st.sampled_from(NAMES), where=st.floats(0, 1, exclude_max=True))
def test_a_truncated_file_is_refused_or_lost_nothing(files, name, where):
    whole = files[name]
    try:
        pixels = decode_photo(whole[: int(where * len(whole))]).pixels
    except UnreadableImageError:
        return
    assert np.array_equal(pixels, decode_photo(whole).pixels)


@pytest.mark.parametrize("tolerant", [False, True], ids=["strict host", "host that tolerates truncated images"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_cut_in_its_pixels_is_refused_whatever_the_host_set(files, name, share, tolerant, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    whole = files[name]
    with pytest.raises(UnreadableImageError):
        decode_photo(whole[: int(share * len(whole))])
    decode_photo(whole)


@pytest.mark.parametrize("tolerant", [False, True])
def test_a_png_whose_pixels_stop_in_a_whole_file_is_refused(tolerant, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    noise = np.random.default_rng(5).integers(0, 256, (64, 65), dtype=np.uint8)
    noise[:, 0] = 0  # the filter of each row
    whole = zlib.compress(noise.tobytes())
    with pytest.raises(UnreadableImageError):
        decode_photo(png(64, 64, pixels=whole[: len(whole) // 2]))


@settings(SAME_FILES, max_examples=300)
@given(
    name=st.sampled_from(NAMES),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6),
    head=st.booleans(),
)
def test_a_damaged_file_gives_a_photo_or_a_photo_error_and_never_a_warning(files, name, changes, head):
    data = bytearray(files[name])
    for share, value in changes:
        data[int(share * (min(len(data), 256) if head else len(data)))] = value
    try:
        photo = decode_photo(bytes(data))
    except PhotoError:
        return
    assert photo.pixels.dtype == np.uint8
    assert photo.pixels.shape == (photo.height, photo.width, 3)


@SAME_FILES
@given(
    magic=st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"MM\0*", b"BM", b""]),
    rest=st.binary(max_size=200),
)
def test_noise_is_no_image(magic, rest):
    with pytest.raises(PhotoError):
        decode_photo(magic + rest)


@SAME_FILES
@given(block=st.binary(max_size=300), start=st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""]))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_is_no_reason_to_refuse(kind, encode, picture, start, block):
    photo = decode_photo(encode(picture, kind, exif=b"Exif\0\0" + start + block))
    assert sorted(photo.pixels.shape) == sorted(picture.shape)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *, rows: int | None = None, pixels: bytes = b"", extra: bytes = b"") -> bytes:
    """A greyscale PNG, of which only so many rows are there."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = pixels or zlib.compress(bytes((width + 1) * (height if rows is None else rows)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def with_size(name: str, data: bytes, width: int, height: int) -> bytes:
    """The file with another size in its header, and no more pixels than before."""
    out = bytearray(data)
    if name.startswith("jpeg"):
        at = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
        struct.pack_into(">HH", out, at + 5, height, width)
    elif name == "gif":
        struct.pack_into("<HH", out, 6, width, height)
    elif name == "bmp":
        struct.pack_into("<ii", out, 18, width, height)
    elif name == "webp":
        struct.pack_into("<HH", out, 26, width & 0x3FFF, height & 0x3FFF)
    else:
        raise AssertionError(name)
    return bytes(out)


@pytest.mark.parametrize("size", [(20_000, 20_000), (20_000, 50), (50, 20_000), (16_000, 16_000)])
def test_bombs_are_refused_on_their_header(files, size):
    bombs = {"png": png(*size, rows=1)}
    for name in ("jpeg", "jpeg progressive", "gif"):
        bombs[name] = with_size(name, files[name], *size)
    tracemalloc.start()
    try:
        for name, bomb in bombs.items():
            with pytest.raises(ImageTooLargeError, match="the image has"):
                decode_photo(bomb)
            assert tracemalloc.get_traced_memory()[1] < 10_000_000, name
    finally:
        tracemalloc.stop()


def test_a_bmp_cannot_claim_more_rows_than_it_has(files):
    with pytest.raises(UnreadableImageError, match="truncated"):
        decode_photo(with_size("bmp", files["bmp"], 20_000, 20_000))


def test_a_webp_of_16000_pixels_is_refused_on_its_header(files):
    with pytest.raises(ImageTooLargeError):
        decode_photo(with_size("webp", files["webp"], 16_000, 16_000))


def test_a_tiff_of_20000_pixels_is_refused_on_its_header(encode):
    data = encode(Image.new("1", (20_000, 40)), "TIFF")
    with pytest.raises(ImageTooLargeError, match="20,000 x 40"):
        decode_photo(data)


def test_a_real_bomb_never_unfolds():
    # 1 GB of zeros in the rows behind a header that keeps the limits: they are not part of the image.
    with pytest.raises(ImageTooLargeError):
        decode_photo(png(8_000, 8_001, rows=1))
    assert decode_photo(png(64, 64, rows=20_000)).pixels.shape == (64, 64, 3)


def test_text_bombs_in_metadata_are_never_unpacked(encode, picture):
    bomb = b"comment\0\0" + zlib.compress(bytes(50_000_000), 9)
    tracemalloc.start()
    try:
        decode_photo(png(64, 64, extra=chunk(b"zTXt", bomb) + chunk(b"iCCP", bomb)))
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_a_gif_frame_beyond_its_screen_counts_with_its_full_size(files):
    data = bytearray(files["gif"])
    at = data.index(b"\x2c", 13 + 3 * 256)
    struct.pack_into("<HHHH", data, at + 1, 40_000, 0, 20_000, 40)
    with pytest.raises(ImageTooLargeError):
        decode_photo(bytes(data))


def test_a_jpeg_with_scans_without_end_is_refused(files):
    data = files["jpeg progressive"]
    first = data.index(b"\xff\xda")
    second = data.index(b"\xff\xda", first + 2)
    with pytest.raises(UnreadableImageError, match="scans"):
        decode_photo(data[:first] + data[first:second] * 200 + data[first:])


def test_a_jpeg_with_two_frames_is_refused(files):
    data = files["jpeg"]
    at = data.index(b"\xff\xc0")
    frame = data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
    with pytest.raises(UnreadableImageError, match="doubled"):
        decode_photo(data[:at] + frame + data[at:])


def test_a_png_with_a_wrong_checksum_is_refused(files):
    data = bytearray(files["png"])
    data[data.index(b"IDAT") + 20] ^= 1
    with pytest.raises(UnreadableImageError, match="checksum"):
        decode_photo(bytes(data))


def test_files_above_the_byte_limit_are_not_read(tmp_path, files):
    limits = ImageLimits(max_bytes=100)
    path = tmp_path / "big.png"
    path.write_bytes(files["png"])
    for source in (path, files["png"], memoryview(files["png"])):
        with pytest.raises(ImageTooLargeError, match="100 bytes"):
            decode_photo(source, limits=limits)


def test_one_pixel_is_too_small(encode):
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"):
        with pytest.raises(ImageTooSmallError, match="1 x 1"):
            decode_photo(encode(Image.new("RGB", (1, 1)), kind))


def test_limits_are_inclusive(encode):
    limits = ImageLimits(min_side=40, max_side=50, max_pixels=2_000)
    assert decode_photo(encode(Image.new("L", (50, 40)), "PNG"), limits=limits).width == 50
    for size in ((51, 40), (50, 41)):
        with pytest.raises(ImageTooLargeError):
            decode_photo(encode(Image.new("L", size), "PNG"), limits=limits)
    with pytest.raises(ImageTooSmallError):
        decode_photo(encode(Image.new("L", (50, 39)), "PNG"), limits=limits)


@pytest.mark.parametrize(
    "wrong",
    [{"max_bytes": 0}, {"max_pixels": -1}, {"max_side": 1.5}, {"min_side": True}, {"min_side": 20_000}],
)
def test_senseless_limits_are_refused(wrong):
    with pytest.raises(UsageError):
        ImageLimits(**wrong)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"%PDF-1.7", "PDF"),
        (b"MM\0+\0\x08\0\0", "BigTIFF"),
        (b"\0\0\1\0\1\0", "ICO"),
        (b'\n<?xml version="1.0"?>\n<!-- drawn -->\n<svg width="9"/>', "SVG"),
        (b"<!DOCTYPE html><html>Not found</html>", "page of text"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "page of text"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0", "a video"),
        (b"PK\3\4\x14\0", "a ZIP archive"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"/9j/4AAQSkZJRgABAQAAAQABAAD/4gHYSUNDX1BST0ZJTEUAAQ==", "base64"),
        (b"\xef\xbb\xbfdata:image/png;base64,iVBORw0KGgo=", "data URL"),
    ],
)
def test_known_formats_that_are_not_supported_are_named(data, name):
    with pytest.raises(UnreadableImageError, match=name):
        decode_photo(data)


@pytest.mark.parametrize("kind", ["PPM", "TGA", "ICO", "PCX", "EPS", "PDF", "ICNS", "SGI", "DDS"])
def test_other_decoders_of_pillow_are_never_reached(kind, encode, picture):
    with pytest.raises(UnreadableImageError):
        decode_photo(encode(Image.fromarray(picture), kind))


def test_a_small_limit_of_the_host_is_respected_for_its_own_images(monkeypatch, files, picture):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert np.array_equal(decode_photo(files["png"]).pixels, picture)
    with pytest.raises(ImageTooLargeError):
        decode_photo(files["webp"])


def test_odd_tiff_fields_reach_no_decoder(encode, picture):
    # Pillow would warn about a resolution of many values and about text that is no text.
    data = encode(picture, "TIFF", tiffinfo={270: "x" * 50, 305: "y" * 50})
    at = struct.unpack_from("<I", data, 4)[0]
    (count,) = struct.unpack_from("<H", data, at)
    out = bytearray(data)
    for index in range(count):
        entry = at + 2 + 12 * index
        tag = struct.unpack_from("<H", data, entry)[0]
        if tag in {270, 305}:
            struct.pack_into("<HII", out, entry + 2, 12, 0x7FFFFFFF, 0x7FFFFFFF)
    assert np.array_equal(decode_photo(bytes(out)).pixels, picture)


def test_what_a_decoder_says_is_told_in_one_line(picture, monkeypatch):
    def load(self):  # as pillow-heif 1.8.1 does it
        raise ValueError("Invalid input: Unexpected end of file\n")

    monkeypatch.setattr(Image.Image, "load", load)
    with pytest.raises(UnreadableImageError, match="can't be decoded: Invalid input: Unexpected end of file \\("):
        decode_photo(Image.fromarray(picture))
