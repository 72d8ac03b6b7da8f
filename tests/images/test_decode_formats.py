from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from anonymix_plugin.errors import PhotoError, UnreadableImageError
from anonymix_plugin.images import decode_photo
from anonymix_plugin.values import Pixels

LOSSLESS = {"png", "webp lossless", "bmp", "tiff", "tiff deflate", "tiff lzw"}


def error_of(got: Pixels, expected: Pixels) -> float:
    assert got.shape == expected.shape
    return float(np.abs(got.astype(int) - expected.astype(int)).mean())


@pytest.mark.parametrize(
    "name",
    [*sorted(LOSSLESS), "jpeg", "jpeg progressive", "webp", "gif"],
)
def test_every_format_gives_its_picture(name, files, picture):
    photo = decode_photo(files[name])
    assert photo.pixels.dtype == np.uint8
    assert photo.pixels.flags.c_contiguous
    assert photo.pixels.flags.writeable
    assert photo.source == "<bytes>"
    assert error_of(photo.pixels, picture) <= (0 if name in LOSSLESS else 4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(kind, orientation, picture, encode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(picture, kind, exif=exif, **({} if kind in {"PNG", "TIFF"} else {"quality": 95}))
    stored = Image.fromarray(picture)
    stored.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(stored))
    assert error_of(decode_photo(data).pixels, upright) < 4
    with Image.open(io.BytesIO(data)) as image:
        assert error_of(decode_photo(image).pixels, upright) < 4


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_impossible_orientation_means_upright(orientation, picture, encode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert error_of(decode_photo(encode(picture, "PNG", exif=exif)).pixels, picture) == 0


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF"])
def test_greyscale_becomes_three_equal_channels(kind, picture, encode):
    grey = Image.fromarray(picture).convert("L")
    pixels = decode_photo(encode(grey, kind)).pixels
    assert error_of(pixels[:, :, 0], np.asarray(grey)) < 2
    assert (pixels == pixels[:, :, :1]).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_one_bit_becomes_black_and_white(kind, picture, encode):
    bits = Image.fromarray(picture).convert("1")
    pixels = decode_photo(encode(bits, kind)).pixels
    assert (pixels[:, :, 1] == np.where(np.asarray(bits), 255, 0)).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_are_scaled_and_not_cut_off(kind, order, picture, encode):
    wide = picture[:, :, 0].astype(order) * 257
    pixels = decode_photo(encode(Image.fromarray(wide), kind)).pixels
    assert (pixels == picture[:, :, :1]).all()


def test_sixteen_bit_colour_png_keeps_its_colours(picture):
    import cv2

    done, data = cv2.imencode(".png", picture[:, :, ::-1].astype(np.uint16) * 257)
    assert done
    assert error_of(decode_photo(data.tobytes()).pixels, picture) <= 1


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind, picture, encode):
    data = encode(Image.fromarray(picture).convert("CMYK"), kind)
    assert error_of(decode_photo(data).pixels, picture) < 6


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_palette_becomes_rgb(kind, picture, encode):
    data = encode(Image.fromarray(picture).quantize(256), kind)
    assert error_of(decode_photo(data).pixels, picture) < 12


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_laid_over_neutral_grey(kind, picture, encode):
    alpha = np.full(picture.shape[:2], 255, np.uint8)
    alpha[:, :20] = 0
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    pixels = decode_photo(encode(np.dstack([picture, alpha]), kind, **options)).pixels
    assert (pixels[:, :20] == 128).all()
    assert (pixels[:, 20:] == picture[:, 20:]).all()


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_entry_becomes_grey(kind, encode):
    image = Image.new("P", (40, 40), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(0, (0, 0, 40, 10))
    pixels = decode_photo(encode(image, kind, transparency=0)).pixels
    assert (pixels[:10] == 128).all()
    assert (pixels[10:] == (200, 100, 50)).all()


def test_grey_with_alpha_is_laid_over_grey(encode):
    alpha = Image.new("L", (40, 40), 0)
    alpha.paste(255, (0, 0, 40, 10))
    image = Image.merge("LA", [Image.new("L", (40, 40), 200), alpha])
    pixels = decode_photo(encode(image, "PNG")).pixels
    assert (pixels[:10] == 200).all()
    assert (pixels[10:] == 128).all()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "PIL image", "array"])
def test_what_is_transparent_everywhere_is_told_as_such(kind, picture, encode):
    clear = np.dstack([picture, np.zeros(picture.shape[:2], np.uint8)])
    source = {"PIL image": Image.fromarray, "array": np.asarray}.get(
        kind, lambda pixels: encode(pixels, kind, **({"lossless": True} if kind == "WEBP" else {}))
    )(clear)
    with pytest.raises(PhotoError, match=r"fully transparent.*leave alpha out"):
        decode_photo(source)
    clear[5, 7, 3] = 1
    assert decode_photo(clear).pixels.shape == picture.shape


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "CMYK", "1"])
def test_large_images_are_converted_in_bands_like_small_ones_in_one(mode, picture, monkeypatch):
    from anonymix_plugin.images import _pillow

    image = Image.fromarray(picture).convert(mode)
    if mode in {"RGBA", "LA"}:
        image.putalpha(Image.fromarray(picture[:, :, 0]))
    if mode == "P":
        image.info["transparency"] = 3
    whole = decode_photo(image).pixels
    monkeypatch.setattr(_pillow, "_BAND", 7 * image.width + 3)
    assert np.array_equal(decode_photo(image).pixels, whole)


@pytest.mark.parametrize(("channels", "bits"), [(3, 32), (3, 64), (1, 16)])
def test_float_tiffs_that_no_decoder_reads_are_told_as_such_and_not_as_damaged(channels, bits, picture):
    import struct

    height, width = picture.shape[:2]
    fields = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, 1)]
    fields += [(273, 4, 1, 8), (277, 3, 1, channels), (279, 4, 1, 100), (339, 3, 1, 3)]
    body = bytes(width * height * channels * bits // 8)
    directory = struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHII", *field) for field in fields)
    data = b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory + bytes(4)
    with pytest.raises(UnreadableImageError, match=f"{channels} x {bits}-bit floats is not supported.*convert"):
        decode_photo(data)


def test_jpeg_fields_that_follow_the_image_are_left_out(files, picture):
    assert error_of(decode_photo(files["jpeg"] + files["png"]).pixels, picture) < 4


def test_float_tiff_in_unit_range_is_scaled(picture, encode):
    data = encode(Image.fromarray(picture[:, :, 0].astype(np.float32) / 255), "TIFF")
    assert (decode_photo(data).pixels[:, :, 2] == picture[:, :, 0]).all()


def test_float_tiff_of_unknown_range_is_refused(picture, encode):
    data = encode(Image.fromarray(picture[:, :, 0].astype(np.float32)), "TIFF")
    with pytest.raises(UnreadableImageError, match="0 to 1"):
        decode_photo(data)


def test_london_photos_decode_as_opencv_decodes_them(portraits):
    import cv2

    for path in sorted(portraits.glob("*.jpg"))[:5]:
        expected = cv2.imread(str(path))[:, :, ::-1]
        assert error_of(decode_photo(path).pixels, expected) < 1
