"""How much memory decoding takes, of honest files and of bombs: measured, not believed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import cv2
import numpy as np
import pytest
from heif_files import heif
from PIL import Image
from tiff_files import tiff

from anonymix_plugin.errors import ImageTooLargeError, UnreadableImageError
from anonymix_plugin.images import ImageLimits, decode_photo
from anonymix_plugin.images._colours import profile_of_cicp

SIDE = 3000
LIMIT = 18  # bytes a pixel, as `ImageLimits.max_pixels` says, beside what does not grow with the picture
FIXED = 48_000_000

_MEASURE = textwrap.dedent("""
    import json, re, sys
    from pathlib import Path
    from anonymix_plugin.errors import PhotoError
    from anonymix_plugin.images import ImageLimits, decode_photo

    def status(name):
        return 1024 * int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

    limits = ImageLimits(max_pixels=int(sys.argv[1]))
    for path in sys.argv[2:]:
        data = Path(path).read_bytes()
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        try:
            said = str(decode_photo(data, limits=limits).pixels.shape)
        except PhotoError as error:
            said = type(error).__name__
        print(json.dumps([path, status("VmHWM") - before, said]), flush=True)
""")


def peaks(files: dict[str, bytes], folder: Path, max_pixels: int) -> dict[str, tuple[int, str]]:
    """By name: the peak of memory while a file is decoded in a process of its own, and what came of it."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("needs Linux, which can reset the high-water mark of memory")
    paths = {str(folder / f"{number}"): name for number, name in enumerate(files)}
    for path, name in paths.items():
        Path(path).write_bytes(files[name])
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(max_pixels), *paths], capture_output=True, text=True, check=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {paths[path]: (peak, said) for path, peak, said in rows}


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def test_no_format_takes_more_memory_for_a_pixel_than_the_limits_say(tmp_path):
    flat = Image.new("RGB", (SIDE, SIDE), (10, 20, 30))
    clear = flat.convert("RGBA")
    clear.putpixel((0, 0), (1, 2, 3, 0))
    deep = np.zeros((SIDE, SIDE, 4), np.uint16)
    deep[..., 3] = 40_000
    files = {
        "jpeg": encoded(flat, "JPEG", subsampling=0),
        "jpeg progressive": encoded(flat, "JPEG", subsampling=0, progressive=True),
        "jpeg progressive cmyk": encoded(flat.convert("CMYK"), "JPEG", progressive=True),
        "png": encoded(flat, "PNG", compress_level=1),
        "png transparent": encoded(clear, "PNG", compress_level=1),
        "png palette": encoded(flat.quantize(4), "PNG", transparency=1),
        "png 16 bits": cv2.imencode(".png", deep)[1].tobytes(),
        "webp": encoded(flat, "WEBP", method=0),
        "webp transparent": encoded(clear, "WEBP", lossless=True, method=0),
        "gif": encoded(flat.quantize(4), "GIF"),
        "bmp": encoded(flat, "BMP"),
        "tiff": encoded(flat, "TIFF"),
        "tiff lzw": encoded(clear, "TIFF", compression="tiff_lzw"),
        "tiff 16 bits": encoded(Image.fromarray(np.zeros((SIDE, SIDE), np.uint16)), "TIFF", compression="tiff_lzw"),
        "tiff float": encoded(Image.fromarray(np.zeros((SIDE, SIDE), np.float32)), "TIFF", compression="tiff_lzw"),
    }
    files |= {
        "heic": heif(flat, enc_params={"preset": "ultrafast"}),
        "avif": encoded(clear, "AVIF", speed=10),
        "jpeg 2000 of tiles": encoded(flat, "JPEG2000", tile_size=(512, 512)),
        "png with a profile": encoded(flat, "PNG", compress_level=1, icc_profile=profile_of_cicp(12, 13)),
    }
    hold_to_the_limit(files, tmp_path)


@pytest.mark.long
def test_grain_takes_no_more_memory_than_a_flat_picture(tmp_path):
    grain = np.random.default_rng(1).integers(0, 24, (SIDE, SIDE, 3), np.uint8)
    files = {
        "heic": heif(grain, chroma=444, enc_params={"preset": "ultrafast"}),
        "heic of tiles": heif(grain, tile_size=512, enc_params={"preset": "ultrafast"}),
        "avif": encoded(Image.fromarray(grain), "AVIF", speed=10, subsampling="4:4:4"),
        "jpeg 2000 of tiles": encoded(Image.fromarray(grain), "JPEG2000", tile_size=(1024, 1024)),
    }
    hold_to_the_limit(files, tmp_path)


def hold_to_the_limit(files: dict[str, bytes], folder: Path) -> None:
    for name, (peak, said) in peaks(files, folder, 64_000_000).items():
        assert said == f"({SIDE}, {SIDE}, 3)", name
        assert peak < LIMIT * SIDE * SIDE + FIXED, (name, peak / SIDE**2)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_jpeg_2000_in_one_piece_is_decoded_smaller_where_it_would_take_more_memory(mode, tmp_path):
    flat = Image.new(mode, (SIDE, SIDE), (10, 20, 30, 40)[: len(mode)])
    found = peaks({"photo": encoded(flat, "JPEG2000")}, tmp_path, SIDE * SIDE)["photo"]
    assert found[1] == str((SIDE // 2, SIDE // 2, 3))
    assert found[0] < LIMIT * SIDE * SIDE + FIXED


def tiled(side: int, tile: tuple[int, int], *, name_offsets_as: int = 324) -> bytes:
    """A TIFF whose image is small and whose one tile is not."""
    return tiff(
        (
            None,
            {
                256: ("I", [side]),
                257: ("I", [side]),
                258: ("H", [8, 8, 8]),
                259: ("H", [8]),
                262: ("H", [2]),
                277: ("H", [3]),
                322: ("I", [tile[0]]),
                323: ("I", [tile[1]]),
                name_offsets_as: ("I", [8]),
                325 if name_offsets_as == 324 else 279: ("I", [100]),
            },
        )
    )


@pytest.mark.parametrize("offsets", [324, 273], ids=["tiles", "tiles under the name of strips"])
@pytest.mark.parametrize("tile", [(16_384, 16_384), (64, 2_000_000), (4_294_967_280, 16), (1008, 1008)])
def test_a_tile_beyond_the_limits_is_refused_before_it_is_unpacked(tile, offsets):
    with pytest.raises(ImageTooLargeError, match="tiles of"):
        decode_photo(tiled(64, tile, name_offsets_as=offsets), limits=ImageLimits(max_pixels=1_000_000))


def test_bombs_take_no_more_memory_than_a_photo_at_the_limit(tmp_path):
    million = 1_000_000
    many = list(range(8, 8 + 2 * million))
    bombs = {
        "tile of 16384": tiled(64, (16_384, 16_384)),
        "rows of a strip": tiff((np.zeros((64, 64, 3), np.uint8), {278: ("I", [4_294_967_295])})),
        "millions of strips": tiff((np.zeros((64, 64, 3), np.uint8), {273: ("I", many), 279: ("I", [1] * len(many))})),
        "jpeg of 100 scans": scans_of(encoded(Image.new("RGB", (990, 990)), "JPEG", progressive=True), 90),
        "gif of a huge screen": encoded(Image.new("P", (40, 40)), "GIF").replace(
            (40).to_bytes(2, "little") * 2, (60_000).to_bytes(2, "little") * 2, 1
        ),
        "webp of a huge canvas": b"RIFF\x1e\0\0\0WEBPVP8X\n\0\0\0\0\0\0\0" + b"\xff\x3f\0" * 2 + bytes(4),
    }
    for name, (peak, said) in peaks(bombs, tmp_path, million).items():
        assert peak < LIMIT * million + FIXED, (name, peak, said)


def scans_of(data: bytes, times: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    last = data.rindex(b"\xff\xda")
    end = data.rindex(b"\xff\xd9")
    return data[:end] + data[last:end] * times + data[end:]


def test_lists_of_millions_of_strips_are_refused():
    many = [8] * (1 << 20) + [8]
    page = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(UnreadableImageError, match="field 273"):
        decode_photo(tiff((page, {273: ("I", many), 279: ("I", [1] * len(many))})))


@pytest.mark.long
@pytest.mark.parametrize(
    ("size", "progressive"),
    [((12_032, 9_024), False), ((16_320, 12_240), False), ((16_320, 12_240), True)],
    ids=["108 megapixels", "200 megapixels", "200 megapixels, progressive"],
)
def test_huge_photos_are_decoded_within_the_memory_of_the_largest_ordinary_one(size, progressive, tmp_path, portraits):
    ground = Image.new("RGB", size, "grey")
    ground.paste(Image.open(portraits / "001_neutral.jpg").resize((5000, 5000)), (3000, 2000))
    found = peaks({"photo": encoded(ground, "JPEG", progressive=progressive)}, tmp_path, 64_000_000)
    assert found["photo"][1] == str((size[1] // 2, size[0] // 2, 3))
    assert found["photo"][0] < LIMIT * 64_000_000
