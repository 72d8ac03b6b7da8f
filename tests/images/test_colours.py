"""Colours of other spaces: the same picture in each comes out as in sRGB."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from heif_files import gradient, heif
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from anonymix_plugin.images import decode_photo
from anonymix_plugin.images._colours import profile_of_cicp

# From linear sRGB to the linear values of the other space: inverse of its matrix, both under D65.
TO_P3 = np.array([[0.8224621, 0.177538, 0.0], [0.0331941, 0.9668058, 0.0], [0.0170827, 0.0723974, 0.9105199]])
TO_2020 = np.array(
    [[0.6274040, 0.3292820, 0.0433136], [0.0690970, 0.9195400, 0.0113612], [0.0163916, 0.0880132, 0.8955950]]
)
P3, BT2020, SRGB_CURVE, LINEAR, PQ, HLG = 12, 9, 13, 8, 16, 18


def linear(pixels):
    signal = pixels / 255
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def signal(light):
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def as_bytes(values):
    return np.clip(np.round(values * 255), 0, 255).astype(np.uint8)


@pytest.fixture
def in_p3(picture):
    return as_bytes(signal(linear(picture) @ TO_P3.T))


def written(pixels, kind, profile):
    image = Image.fromarray(pixels)
    stream = io.BytesIO()
    if kind == "HEIC":
        if profile:
            image.info["icc_profile"] = profile
        return heif(image, quality=100, chroma=444)
    if kind == "JPEG 2000":
        image.save(stream, "JPEG2000")
        body = b"\2\0\0" + profile
        return with_colour_box(stream.getvalue(), struct.pack(">I4s", 8 + len(body), b"colr") + body)
    options = {"WEBP": {"lossless": True}, "PNG": {}, "TIFF": {}}.get(kind, {"quality": 98, "subsampling": "4:4:4"})
    image.save(stream, kind, icc_profile=profile, **options)
    return stream.getvalue()


def with_colour_box(data, colr):
    """A JP2 file whose enumerated colour space gives way to another one."""
    at, header = data.index(b"colr") - 4, data.index(b"jp2h") - 4
    size = struct.unpack_from(">I", data, header)[0] - 15 + len(colr)
    return data[:header] + struct.pack(">I", size) + data[header + 4 : at] + colr + data[at + 15 :]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "HEIC", "AVIF", "JPEG 2000"])
def test_a_profile_is_applied_in_every_format(kind, in_p3, picture):
    assert np.abs(in_p3.astype(int) - picture).mean() > 5  # it matters
    data = written(in_p3, kind, profile_of_cicp(P3, SRGB_CURVE))
    assert np.abs(decode_photo(data).pixels.astype(int) - picture).mean() < 1.5
    if kind not in {"HEIC", "JPEG 2000"}:  # Pillow itself opens no HEIC, and reads no profile of JPEG 2000
        with Image.open(io.BytesIO(data)) as image:
            assert np.abs(decode_photo(image).pixels.astype(int) - picture).mean() < 1.5


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "HEIC", "AVIF"])
def test_a_profile_that_says_srgb_changes_not_a_bit(kind, picture):
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(
        decode_photo(written(picture, kind, own)).pixels, decode_photo(written(picture, kind, b"")).pixels
    )


@pytest.mark.parametrize(
    ("points", "matrix", "curve"),
    [
        ((P3, SRGB_CURVE), TO_P3, signal),
        ((BT2020, SRGB_CURVE), TO_2020, signal),
        ((1, LINEAR), np.eye(3), lambda light: light),
        ((1, 4), np.eye(3), lambda light: light ** (1 / 2.2)),
    ],
)
def test_code_points_say_the_colour_space_as_well(points, matrix, curve, picture):
    pixels = as_bytes(curve(np.clip(linear(picture) @ matrix.T, 0, 1)))
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    body = b"cICP" + bytes([*points, 0, 1])
    data = png.getvalue()
    data = data[:33] + struct.pack(">I", 4) + body + struct.pack(">I", zlib.crc32(body)) + data[33:]
    assert np.abs(decode_photo(data).pixels.astype(int) - picture).mean() < 2.5


@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_code_points_of_a_heif_file_are_read(kind, in_p3, picture):
    data = written(in_p3, kind, b"")
    changed = data.replace(b"nclx\0\1\0\r", b"nclx\0\x0c\0\r")
    assert changed != data
    assert np.abs(decode_photo(changed).pixels.astype(int) - picture).mean() < 1.5
    assert np.abs(decode_photo(data).pixels.astype(int) - picture).mean() > 5


@pytest.mark.parametrize(("transfer", "code"), [(PQ, 0.5806), (HLG, 0.75)])
def test_a_diffuse_white_of_high_dynamic_range_becomes_white(transfer, code):
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(profile_of_cicp(BT2020, transfer))),
        ImageCms.createProfile("sRGB"),
        "RGB",
        "RGB",
    )
    greys = [Image.new("RGB", (1, 1), (round(255 * share * code),) * 3) for share in (1, 0.7)]
    white, grey = (ImageCms.applyTransform(image, transform).getpixel((0, 0)) for image in greys)
    assert min(white) >= 250
    assert 60 < min(grey) < 200


def cmyk_profile() -> bytes:
    """A printer whose black is brown and whose cyan is green: a table of 2 x 2 x 2 x 2 colours in CIE Lab."""
    inks = np.array([[55, -60, 30], [48, 74, -3], [89, -5, 93], [20, 20, 30]], float)
    rows = []
    for number in range(16):
        used = [ink for ink, bit in zip(inks, (8, 4, 2, 1), strict=True) if number & bit]
        lab = np.append(np.min(used, 0)[:1], np.mean(used, 0)[1:]) if used else np.array([100.0, 0, 0])
        rows.append([lab[0] * 2.55, lab[1] + 128, lab[2] + 128])
    ramp = bytes(range(256))
    table = np.round(rows).astype(np.uint8).tobytes()
    lut = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + struct.pack(">9i", *(np.eye(3).ravel() * 65536).astype(int))
    lut += ramp * 4 + table + ramp * 3
    white = b"XYZ " + bytes(4) + struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1, 0.8249)))
    start = 132 + 24
    head = struct.pack(">I4sI4s4s4s", start + len(lut) + len(white), b"", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += bytes(12) + b"acsp" + bytes(28) + white[8:]
    tags = struct.pack(">I4sII4sII", 2, b"A2B0", start, len(lut), b"wtpt", start + len(lut), len(white))
    return head.ljust(128, b"\0") + tags + lut + white


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_read_by_its_profile(kind):
    cyan = Image.new("CMYK", (40, 40), (255, 0, 0, 0))
    plain, profiled = io.BytesIO(), io.BytesIO()
    cyan.save(plain, kind)
    cyan.save(profiled, kind, icc_profile=cmyk_profile())
    red, green, blue = decode_photo(plain.getvalue()).pixels[20, 20].astype(int)
    assert (red < 5, green > 250, blue > 250) == (True, True, True)
    red, green, blue = decode_photo(profiled.getvalue()).pixels[20, 20].astype(int)
    assert green > blue + 40 > red + 40


def test_a_profile_of_another_kind_than_the_picture_is_left_out(picture):
    data = written(picture, "PNG", cmyk_profile())
    assert np.array_equal(decode_photo(data).pixels, picture)


@settings(deadline=None)
@given(st.data())
def test_a_damaged_profile_is_no_reason_to_refuse(data):
    profile = bytearray(data.draw(st.sampled_from([profile_of_cicp(P3, SRGB_CURVE), cmyk_profile()])))
    for _ in range(data.draw(st.integers(1, 8))):
        profile[data.draw(st.integers(0, len(profile) - 1))] = data.draw(st.integers(0, 255))
    del profile[data.draw(st.integers(0, len(profile))) :]
    image = Image.fromarray(gradient())
    if profile[16:17] == b"C":
        image = image.convert("CMYK")
    stream = io.BytesIO()
    image.save(stream, "TIFF", icc_profile=bytes(profile))
    assert decode_photo(stream.getvalue()).pixels.shape == gradient().shape


def test_large_pictures_are_converted_in_bands_like_small_ones_in_one(in_p3, monkeypatch):
    from anonymix_plugin.images import _pillow

    data = written(in_p3, "PNG", profile_of_cicp(P3, SRGB_CURVE))
    whole = decode_photo(data).pixels
    monkeypatch.setattr(_pillow, "_BAND", 7 * in_p3.shape[1] + 3)
    assert np.array_equal(decode_photo(data).pixels, whole)
