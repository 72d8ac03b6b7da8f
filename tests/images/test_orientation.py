"""Which way up a photo is stored: EXIF, XMP and text chunks, the same from every kind of source."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from tiff_files import tiff

from anonymix_plugin.images import decode_photo
from anonymix_plugin.values import Pixels

TURNED = [1, 3, 6, 8, 5]
_ENCODED = {"JPEG": {"quality": 95}, "PNG": {}, "WEBP": {"lossless": True}}


def xmp(orientation: object, form: str = "attribute") -> bytes:
    field = {
        "attribute": f'<rdf:Description rdf:about="" tiff:Orientation="{orientation}"/>',
        "single quotes": f"<rdf:Description rdf:about='' tiff:Orientation = '{orientation}'/>",
        "qualified": f"<tiff:Orientation rdf:datatype='int'> {orientation}</tiff:Orientation>",
        "element": f"<rdf:Description><tiff:Orientation>{orientation}</tiff:Orientation></rdf:Description>",
    }
    inner = field.get(form, field["attribute"])
    text = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF>{inner}</rdf:RDF></x:xmpmeta>'
    return text.encode("utf-16-le" if form == "UTF-16" else "utf-8")


def exif(orientation: int) -> bytes:
    return b"Exif\0\0" + tiff((None, {274: ("H", [orientation])}))


def raw_profile(kind: str, profile: bytes) -> bytes:
    digits = profile.hex()
    lines = "\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return f"\n{kind}\n{len(profile):8d}\n{lines}\n".encode()


def with_chunks(png: bytes, *chunks: tuple[bytes, bytes], behind: bool = False) -> bytes:
    """A PNG with further chunks before its pixels, or behind them."""
    added = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    at = png.rindex(b"IEND") - 4 if behind else png.index(b"IDAT") - 4
    return png[:at] + added + png[at:]


def itxt(keyword: bytes, text: bytes, *, packed: bool = False) -> tuple[bytes, bytes]:
    return b"iTXt", keyword + b"\0" + bytes([packed, 0]) + b"\0\0" + (zlib.compress(text) if packed else text)


def upright(pixels: Pixels, orientation: int) -> Pixels:
    stored = Image.fromarray(pixels)
    stored.getexif()[0x0112] = orientation
    return np.asarray(ImageOps.exif_transpose(stored))


def assert_all_sources_give(data: bytes, expected: Pixels, folder, what: str, *, pillow: bool = True) -> None:
    path = folder / "photo"
    path.write_bytes(data)
    sources = {"bytes": data, "path": path, "file": io.BytesIO(data)}
    if pillow:
        sources["PIL image"] = Image.open(io.BytesIO(data))
        sources["PIL image, loaded"] = Image.open(io.BytesIO(data))
        sources["PIL image, loaded"].load()
    for name, source in sources.items():
        pixels = decode_photo(source).pixels
        assert pixels.shape == expected.shape, (what, name)
        assert np.abs(pixels.astype(int) - expected).mean() < 4, (what, name)


def files_with_xmp(encode, picture, orientation, form="attribute"):
    packet = xmp(orientation, form)
    png = encode(picture, "PNG")
    jpeg = encode(picture, "JPEG", quality=95)
    segment = b"http://ns.adobe.com/xap/1.0/\0" + packet
    key = b"XML:com.adobe.xmp"
    return {
        "JPEG": jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:],
        "PNG": with_chunks(png, itxt(key, packet)),
        "PNG, packed": with_chunks(png, itxt(key, packet, packed=True)),
        "PNG, behind the pixels": with_chunks(png, itxt(key, packet), behind=True),
        "PNG of ImageMagick": with_chunks(
            png, (b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(raw_profile("xmp", packet)))
        ),
        "WebP": encode(picture, "WEBP", lossless=True, xmp=packet),
        "TIFF": tiff((picture, {700: ("B", list(packet))})),
    }


@pytest.mark.parametrize("orientation", TURNED)
def test_without_exif_the_orientation_of_xmp_is_applied(orientation, encode, picture, tmp_path):
    for name, data in files_with_xmp(encode, picture, orientation).items():
        assert_all_sources_give(data, upright(picture, orientation), tmp_path, name)


@pytest.mark.parametrize("form", ["single quotes", "element", "qualified", "UTF-16"])
def test_every_spelling_of_xmp_is_read(form, encode, picture, tmp_path):
    for name, data in files_with_xmp(encode, picture, 6, form).items():
        if name in {"JPEG", "PNG of ImageMagick"} or (name == "WebP" and form != "UTF-16"):
            assert_all_sources_give(data, upright(picture, 6), tmp_path, name)


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["exif", "APP1"])
def test_the_exif_that_imagemagick_writes_as_text_is_read(kind, orientation, encode, picture, tmp_path):
    text = raw_profile(kind, exif(orientation))
    keyword = f"Raw profile type {kind}".encode() + b"\0"
    png = encode(picture, "PNG")
    files = {
        "tEXt": with_chunks(png, (b"tEXt", keyword + text)),
        "zTXt": with_chunks(png, (b"zTXt", keyword + b"\0" + zlib.compress(text))),
        "iTXt, packed": with_chunks(png, itxt(keyword[:-1], text, packed=True)),
        "behind the pixels": with_chunks(png, (b"zTXt", keyword + b"\0" + zlib.compress(text)), behind=True),
    }
    for name, data in files.items():
        assert_all_sources_give(data, upright(picture, orientation), tmp_path, name)


@pytest.mark.parametrize(("first", "second"), [(1, 6), (6, 1), (3, 8)])
def test_where_exif_and_xmp_contradict_each_other_exif_decides(first, second, encode, picture, tmp_path):
    packet, block = xmp(second), exif(first)
    segment = b"http://ns.adobe.com/xap/1.0/\0" + packet
    jpeg = encode(picture, "JPEG", quality=95, exif=block)
    turned_png = with_chunks(encode(picture, "PNG"), (b"eXIf", block[6:]), itxt(b"XML:com.adobe.xmp", packet))
    files = {
        "JPEG": jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:],
        "PNG": turned_png,
        "PNG with a text, too": with_chunks(
            turned_png, (b"tEXt", b"Raw profile type exif\0" + raw_profile("exif", exif(second)))
        ),
        "WebP": encode(picture, "WEBP", lossless=True, xmp=packet, exif=block),
        "TIFF": tiff((picture, {274: ("H", [first]), 700: ("B", list(packet))})),
    }
    for name, data in files.items():
        assert_all_sources_give(data, upright(picture, first), tmp_path, name)


@pytest.mark.parametrize("kind", ["B", "H", "I", "b", "h", "i"])
def test_whichever_whole_number_exif_holds_every_source_is_turned_alike(kind, encode, picture, tmp_path):
    block = b"Exif\0\0" + tiff((None, {274: (kind, [6])}))
    files = {form: encode(picture, form, exif=block, **how) for form, how in _ENCODED.items()}
    for name, data in files.items():
        assert_all_sources_give(data, upright(picture, 6), tmp_path, name)


@pytest.mark.parametrize("nonsense", [0, 9])
def test_where_exif_holds_nonsense_xmp_decides(nonsense, encode, picture, tmp_path):
    packet = xmp(6)
    segment = b"http://ns.adobe.com/xap/1.0/\0" + packet
    jpeg = encode(picture, "JPEG", quality=95, exif=exif(nonsense))
    files = {
        "JPEG": jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:],
        "WebP": encode(picture, "WEBP", lossless=True, xmp=packet, exif=exif(nonsense)),
        "TIFF": tiff((picture, {274: ("H", [nonsense]), 700: ("B", list(packet))})),
    }
    for name, data in files.items():
        assert_all_sources_give(data, upright(picture, 6), tmp_path, name)


@pytest.mark.parametrize("nonsense", ["0", "9", "x", ""])
def test_nonsense_in_xmp_means_upright(nonsense, encode, picture, tmp_path):
    for name, data in files_with_xmp(encode, picture, nonsense).items():
        assert_all_sources_give(data, picture, tmp_path, name)


@settings(deadline=None)
@given(
    text=st.one_of(st.binary(max_size=200), st.text(max_size=60).map(lambda text: f"\nexif\n 9\n{text}".encode())),
    keyword=st.sampled_from(
        ["Raw profile type exif", "Raw profile type APP1", "Raw profile type xmp", "XML:com.adobe.xmp"]
    ),
    kind=st.sampled_from([b"tEXt", b"zTXt", b"iTXt"]),
)
def test_damaged_texts_are_no_reason_to_refuse(text, keyword, kind):
    stream = io.BytesIO()
    Image.new("RGB", (40, 50), "red").save(stream, "PNG")
    data = with_chunks(stream.getvalue(), (kind, keyword.encode() + b"\0" + text))
    assert decode_photo(data).pixels.shape in {(50, 40, 3), (40, 50, 3)}


def test_a_text_bomb_is_not_unpacked(encode, picture):
    import tracemalloc

    bomb = b"Raw profile type exif\0\0" + zlib.compress(bytes(80_000_000), 9)
    data = with_chunks(encode(picture, "PNG"), (b"zTXt", bomb))
    tracemalloc.start()
    try:
        assert np.array_equal(decode_photo(data).pixels, picture)
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
    finally:
        tracemalloc.stop()


def test_a_pil_image_is_turned_as_its_exif_says_until_the_field_is_removed(encode, picture):
    """Pillow's `rotate` leaves the field as it was; `exif_transpose` removes it."""
    data = encode(picture, "JPEG", quality=95, exif=exif(6))
    with Image.open(io.BytesIO(data)) as image:
        for untouched in (image, image.convert("RGB"), image.copy()):
            assert decode_photo(untouched).pixels.shape == (60, 44, 3)
        assert decode_photo(ImageOps.exif_transpose(image)).pixels.shape == (60, 44, 3)
        by_hand = image.rotate(-90, expand=True)
        assert decode_photo(by_hand).pixels.shape == (44, 60, 3)  # as told: turned once more
        del by_hand.getexif()[0x0112]
        assert decode_photo(by_hand).pixels.shape == (60, 44, 3)
