"""Colours of a picture's own space as sRGB: by its ICC profile (ICC.1:2022), or by code points (ITU-T H.273).

A profile is hostile like the rest of a file. One that contradicts itself, or does not fit the picture, is
left out, and the picture counts as sRGB: a face is seen as well with colours that are a little off.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

MOST_BYTES: Final = 4 << 20
"""Of a profile; those of printers have two to three million."""

_MODES: Final = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_CLASSES: Final = frozenset({b"scnr", b"mntr", b"prtr", b"spac"})
_GREYS: Final = frozenset({"1", "L", "LA"})
_COLOURS: Final = frozenset({"RGB", "RGBA", "RGBX", "RGBa", "P", "PA"})
_MOST_TAGS: Final = 100
_SEEN: Final = 2  # steps of 8 bits up to which a profile says the same as sRGB

Doubles = npt.NDArray[np.float64]
_Place: TypeAlias = tuple[float, float]

_D50: Final = (0.9642, 1.0, 0.8249)
_D65: Final = (0.3127, 0.3290)
# Chromaticities of red, green, blue and white.
_SRGB: Final = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), _D65)
_PRIMARIES: Final = {
    9: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    11: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), (0.314, 0.351)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}
_GAMMA: Final = {4: 2.2, 5: 2.8, 8: 1.0}
_PQ, _HLG = 16, 18
_WHITE: Final = 203.0  # cd/m2 that a diffuse white has in high dynamic range (ITU-R BT.2408)


def to_srgb(profile: bytes, mode: str) -> Callable[[Image.Image], Image.Image] | None:
    """What turns images of a Pillow mode into "RGB" in sRGB; None where there is nothing to do."""
    space = _MODES.get(profile[16:20])
    fits = {"RGB": mode in _GREYS | _COLOURS, "L": mode in _GREYS, "CMYK": mode == "CMYK"}
    if space is None or not fits[space] or not _is_sound(profile):
        return None
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"), space, "RGB"
        )
        if space == "RGB" and _changes_nothing(transform):
            return None
    except Exception:  # noqa: BLE001 - whatever a damaged profile does to its reader
        return None

    def convert(image: Image.Image) -> Image.Image:
        result = ImageCms.applyTransform(image if image.mode == space else image.convert(space), transform)
        assert result is not None  # noqa: S101 - it is None only where the image itself is changed
        return result

    return convert


def _is_sound(profile: bytes) -> bool:
    if not 132 <= len(profile) <= MOST_BYTES or profile[36:40] != b"acsp" or profile[12:16] not in _CLASSES:
        return False
    size, count = int.from_bytes(profile[:4], "big"), int.from_bytes(profile[128:132], "big")
    if size > len(profile) or not 0 < count <= _MOST_TAGS or 132 + 12 * count > size:
        return False
    tags = (struct.unpack_from(">4sII", profile, 132 + 12 * number) for number in range(count))
    return all(start + length <= size for _, start, length in tags)


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(27, 27, 3)
    after = ImageCms.applyTransform(Image.fromarray(colours), transform)
    return int(np.abs(np.asarray(after).astype(int) - colours).max()) <= _SEEN


def profile_of_cicp(primaries: int, transfer: int) -> bytes:
    """An ICC profile for the code points of H.273; b"" where they say sRGB, or nothing that differs from it.

    What is brighter than a diffuse white in high dynamic range (PQ, HLG) is cut off.
    """
    if primaries not in _PRIMARIES and transfer not in {*_GAMMA, _PQ, _HLG}:
        return b""
    return rgb_profile(*_PRIMARIES.get(primaries, _SRGB), _linear(transfer))


def rgb_profile(red: _Place, green: _Place, blue: _Place, white: _Place, light: Doubles) -> bytes:
    """An ICC profile of a space of red, green and blue.

    Args:
        red: Chromaticity x and y of pure red.
        green: Of pure green.
        blue: Of pure blue.
        white: Of white.
        light: (n,) light, 0..1, at n even steps of a signal from 0 to 1.
    """
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in (red, green, blue)]).T
    lit = np.array([white[0] / white[1], 1, (1 - white[0] - white[1]) / white[1]])
    matrix = _adapted(columns * np.linalg.solve(columns, lit), lit)
    curve = np.round(np.clip(light, 0, 1) * 65_535).astype(">u2").tobytes()
    shared = b"curv" + struct.pack(">II", 0, len(curve) // 2) + curve
    tags = [
        (name, b"XYZ " + bytes(4) + _fixed(*matrix[:, index])) for index, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))
    ]
    tags.append((b"wtpt", b"XYZ " + bytes(4) + _fixed(*_D50)))
    names = [name for name, _ in tags] + [b"rTRC", b"gTRC", b"bTRC"]
    start = 132 + 12 * len(names)
    places = [(name, start + 20 * index, 20) for index, (name, _) in enumerate(tags)]
    places += [(name, start + 20 * len(tags), len(shared)) for name in names[len(tags) :]]
    body = b"".join(content for _, content in tags) + shared
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + _fixed(*_D50)
    table = b"".join(struct.pack(">4sII", *place) for place in places)
    return head.ljust(128, b"\0") + struct.pack(">I", len(places)) + table + body


def _adapted(matrix: Doubles, white: Doubles) -> Doubles:
    """Colours seen under a white as they are under D50, by Bradford's matrix (ICC.1:2022, annex E)."""
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    gains = (bradford @ _D50) / (bradford @ white)
    adapted: Doubles = np.linalg.solve(bradford, gains[:, None] * (bradford @ matrix))
    return adapted


def _linear(transfer: int) -> Doubles:
    """Light, 1 for white, at 4,096 steps of a signal (ITU-R BT.2100 for PQ and HLG)."""
    signal = np.linspace(0, 1, 4096)
    if transfer in _GAMMA:
        return signal ** _GAMMA[transfer]
    if transfer == _PQ:
        root = signal ** (32 / 2523)
        light = np.maximum(root - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * root)
        return 10_000 / _WHITE * light ** (8192 / 1305)
    if transfer == _HLG:
        bright = (np.exp((signal - 0.55991073) / 0.17883277) + 0.28466892) / 12
        scene = np.where(signal <= 0.5, signal**2 / 3, bright)
        return 1000 / _WHITE * scene**1.2
    return np.where(signal <= 0.04045, signal / 12.92, ((signal + 0.055) / 1.055) ** 2.4)


def _fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(value * 65_536) for value in values))
