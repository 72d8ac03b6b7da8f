"""JPEG files that are larger than the limits, and those that lack the mark at their end."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from photo_folders import with_room
from PIL import Image

from anonymix_plugin.configuration import load_configuration
from anonymix_plugin.errors import ConfigurationError, ImageTooLargeError, UnreadableImageError
from anonymix_plugin.faces import YuNet
from anonymix_plugin.images import ImageLimits, decode_photo, default_limits, limits_for_all
from anonymix_plugin.recognisers import ArcFace

SMALL = ImageLimits(max_pixels=300_000)


@pytest.fixture(scope="module")
def photo(portraits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A portrait of 640 x 640 pixels."""
    path = portraits / "001_neutral.jpg"
    if decode_photo(path).width != 640:
        with_room(path).save(path := tmp_path_factory.mktemp("photo") / "640.jpg", quality=92)
    return path


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_jpeg_beyond_the_limit_is_decoded_smaller_from_every_kind_of_source(
    progressive, orientation, photo, tmp_path, encode
):
    exif = Image.Exif()
    exif[0x0112] = orientation
    wide = Image.open(photo).convert("RGB").resize((1201, 640))
    data = encode(wide, "JPEG", quality=95, progressive=progressive, exif=exif)
    path = tmp_path / "huge.jpg"
    path.write_bytes(data)
    expected = decode_photo(encode(wide.resize((601, 320), Image.Resampling.BOX), "PNG", exif=exif)).pixels
    for source in (data, path, io.BytesIO(data), Image.open(io.BytesIO(data))):
        found = decode_photo(source, limits=SMALL)
        assert found.shrunk == 2
        assert found.pixels.shape == expected.shape
        assert np.abs(found.pixels.astype(int) - expected).mean() < 3
    assert decode_photo(data).shrunk == 1


def test_what_is_more_than_four_times_too_large_is_refused_and_so_are_other_formats(photo, encode):
    image = Image.open(photo).convert("RGB")
    for data in (encode(image.resize((1200, 1000)), "JPEG"), encode(image, "PNG"), encode(image, "WEBP")):
        with pytest.raises(ImageTooLargeError, match=r"--max-pixels.*\[limits\].*ImageLimits"):
            decode_photo(data, limits=SMALL)


def test_what_is_within_the_limits_is_not_decoded_smaller(photo):
    exact = decode_photo(photo, limits=ImageLimits(max_pixels=640 * 640, max_side=640))
    assert exact.shrunk == 1
    assert np.array_equal(exact.pixels, np.asarray(Image.open(photo)))
    assert decode_photo(photo, limits=ImageLimits(max_side=639)).shrunk == 2


def test_a_face_that_was_decoded_smaller_is_the_same_to_recognisers(portraits, real_people, model, encode):
    detector, recogniser = YuNet(model("yunet")), ArcFace(model("arcface-mbf"))
    for path in sorted(portraits.glob("*_neutral.jpg"))[:4]:
        large = with_room(path).resize((2560, 2560), Image.Resampling.BICUBIC)
        data = encode(large, "JPEG", quality=92)
        rows = []
        for limits in (ImageLimits(), ImageLimits(max_pixels=2_000_000)):
            found = decode_photo(data, limits=limits)
            (face,) = detector.detect(found)
            rows.append(recogniser.embed(recogniser.crop(face)[None])[0])
        assert found.shrunk == 2
        assert float(rows[0] @ rows[1]) >= (0.99 if real_people else 0.98)


def test_limits_come_from_the_configuration_file_unless_others_are_given(photo, encode, tmp_path, monkeypatch):
    data = encode(Image.open(photo), "PNG")
    settings_file = tmp_path / "anonymix.toml"
    monkeypatch.setenv("ANONYMIX_CONFIG", str(settings_file))
    settings_file.write_text("[limits]\nmax_pixels = 300_000\n")
    assert default_limits() == SMALL
    with pytest.raises(ImageTooLargeError, match="300,000"):
        decode_photo(data)
    assert decode_photo(data, limits=ImageLimits()).width == 640
    with limits_for_all(ImageLimits(max_side=650)):
        assert decode_photo(data).width == 640
    with pytest.raises(ImageTooLargeError, match="300,000"):
        decode_photo(data)
    for wrong in ("max_pixels = 0", "max_pixels = 'many'", "most = 3", "min_side = 20_000"):
        settings_file.write_text(f"[limits]\n{wrong}\n")
        with pytest.raises(ConfigurationError, match="limits"):
            load_configuration()


KINDS: dict[str, dict[str, object]] = {
    "baseline": {},
    "full chroma": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "grey": {"mode": "L"},
}


def jpeg(image: Image.Image, kind: str) -> bytes:
    options = dict(KINDS[kind])
    stream = io.BytesIO()
    image.convert(str(options.pop("mode", "RGB"))).save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_without_the_mark_at_its_end_is_taken_if_all_its_pixels_are_there(kind, photo):
    whole = jpeg(Image.open(photo), kind)
    assert whole.endswith(b"\xff\xd9")
    expected = decode_photo(whole).pixels
    for left in (whole[:-1], whole[:-2], whole[:-2] + bytes(500), whole[:-2] + b"\xff\xff"):
        assert np.array_equal(decode_photo(left).pixels, expected)


@pytest.fixture(scope="module")
def wholes(photo: Path) -> dict[str, bytes]:
    image = Image.open(photo).crop((200, 200, 360, 340))
    return {kind: jpeg(image, kind) for kind in KINDS}


@settings(deadline=None, max_examples=150)
@given(kind=st.sampled_from(sorted(KINDS)), lost=st.integers(3, 2500))
def test_whatever_is_cut_off_a_jpeg_the_photo_is_whole_or_refused(wholes, kind, lost):
    whole = wholes[kind]
    try:
        pixels = decode_photo(whole[:-lost]).pixels
    except UnreadableImageError:
        return
    assert np.array_equal(pixels, decode_photo(whole).pixels)


@pytest.mark.parametrize("kind", KINDS)
def test_a_jpeg_cut_within_its_pixels_stays_refused(kind, wholes):
    whole = wholes[kind]
    start = whole.rindex(b"\xff\xda") + 12
    for lost in (8, 40, 150):
        if len(whole) - lost > start:
            with pytest.raises(UnreadableImageError, match="truncated"):
                decode_photo(whole[:-lost])


def test_a_progressive_jpeg_that_lacks_a_scan_is_refused(wholes):
    whole = wholes["progressive"]
    with pytest.raises(UnreadableImageError, match="truncated"):
        decode_photo(whole[: whole.rindex(b"\xff\xda")])


def test_a_jpeg_cut_at_a_restart_is_refused(wholes):
    whole = wholes["restarts"]
    for number in range(8):
        at = whole.rindex(b"\xff" + bytes([0xD0 + number]))
        for cut in (at, at + 1, at + 2):
            with pytest.raises(UnreadableImageError, match="truncated"):
                decode_photo(whole[:cut])


Opener = Callable[[Path], Image.Image]


def closed_after_loading(path: Path) -> Image.Image:
    image = Image.open(path)
    image.load()
    image.close()
    return image


def closed_before_loading(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image


def file_closed_before_loading(path: Path) -> Image.Image:
    with path.open("rb") as stream:
        return Image.open(stream)


@pytest.mark.parametrize("opener", [closed_after_loading, closed_before_loading, file_closed_before_loading])
def test_a_closed_pil_image_is_told_as_such(opener: Opener, photo: Path) -> None:
    with pytest.raises(UnreadableImageError, match=r"closed.*load\(\)"):
        decode_photo(opener(photo))
