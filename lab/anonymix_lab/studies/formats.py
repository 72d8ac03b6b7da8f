"""Whether a photo is the same person's in every format: embeddings of each against those of its PNG.

Photos are written as phones and cameras write them: compressed, turned, in other colour spaces, with more
bits, with further pictures behind the first. Pictures in other colour spaces are converted by littleCMS.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import cv2
import numpy as np
from PIL import Image, ImageCms, ImageOps

from anonymix_lab.machine import peak_memory
from anonymix_plugin.errors import NoFaceError, naming_extras
from anonymix_plugin.faces import Detector, select_faces
from anonymix_plugin.images import ImageLimits, decode_photo, profile_of_cicp, rgb_profile
from anonymix_plugin.recognisers import Recogniser
from anonymix_plugin.values import Floats, Pixels

Write = Callable[[Image.Image], bytes]

_P3: Final = profile_of_cicp(12, 13)
_ADOBE: Final = rgb_profile(
    (0.64, 0.33), (0.21, 0.71), (0.15, 0.06), (0.3127, 0.329), np.linspace(0, 1, 4096) ** (563 / 256)
)
_QUALITY: Final = 97  # what is asked is what a format does to a face, and not what compression does
_ORIENTATION: Final = 0x0112
_BACK: Final = {6: Image.Transpose.ROTATE_90, 5: Image.Transpose.TRANSPOSE, 3: Image.Transpose.ROTATE_180}


def _pillow(kind: str, **options: Any) -> Write:
    def write(image: Image.Image) -> bytes:
        stream = io.BytesIO()
        image.save(stream, kind, **options)
        return stream.getvalue()

    return write


def _heif(**options: Any) -> Callable[..., bytes]:
    def write(image: Image.Image, **more: Any) -> bytes:
        with naming_extras():
            import pillow_heif
        stream = io.BytesIO()
        pillow_heif.from_pillow(image).save(stream, **{"quality": _QUALITY, "chroma": 444, **options, **more})
        return stream.getvalue()

    return write


def _deep_heif(image: Image.Image) -> bytes:
    with naming_extras():
        import pillow_heif
    file = pillow_heif.HeifFile()  # type: ignore[no-untyped-call]
    file.add_frombytes("RGB;16", image.size, (np.asarray(image).astype(np.uint16) * 257).tobytes())
    stream = io.BytesIO()
    file.save(stream, quality=_QUALITY)
    return stream.getvalue()


def _opencv(suffix: str, times: int, *options: int) -> Write:
    def write(image: Image.Image) -> bytes:
        done, data = cv2.imencode(suffix, np.asarray(image)[:, :, ::-1].astype(np.uint16) * times, options)
        if not done:
            raise RuntimeError(f"OpenCV can't write {suffix}")
        return bytes(data.tobytes())

    return write


def _turned(orientation: int, write: Callable[..., bytes], **options: Any) -> Write:
    """The photo lies turned in the file, whose EXIF, `irot` or `imir` say so."""

    def turned(image: Image.Image) -> bytes:
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation
        return write(image.transpose(_BACK[orientation]), exif=exif.tobytes(), **options)

    return turned


def _save(kind: str) -> Callable[..., bytes]:
    quality = 100 if kind == "AVIF" else _QUALITY  # whose 97 is what others call 90
    return lambda image, **options: _pillow(kind, quality=quality, subsampling="4:4:4", **options)(image)


def _in_space(profile: bytes, write: Callable[..., bytes], **options: Any) -> Write:
    def converted(image: Image.Image) -> bytes:
        space = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        other = ImageCms.profileToProfile(image, ImageCms.createProfile("sRGB"), space)
        assert other is not None  # noqa: S101 - it is None only where the image itself is changed
        other.info["icc_profile"] = profile
        return write(other, **options)

    return converted


def _several(image: Image.Image) -> bytes:
    return _pillow("MPO", quality=_QUALITY, save_all=True, append_images=[ImageOps.mirror(image).rotate(180)])(image)


def _gain_map(image: Image.Image) -> bytes:
    small = image.convert("L").resize((image.width // 2, image.height // 2))
    return _pillow("MPO", quality=_QUALITY, save_all=True, append_images=[small])(image)


def _xmp(image: Image.Image) -> bytes:
    return _pillow("JPEG", quality=_QUALITY, xmp=b'<rdf:Description tiff:Orientation="3"/>')(image.transpose(_BACK[3]))


WRITERS: Final[Mapping[str, Write]] = MappingProxyType(
    {
        "JPEG": _save("JPEG"),
        "JPEG, turned by EXIF": _turned(6, _save("JPEG")),
        "JPEG, turned by XMP": _xmp,
        "JPEG of two shots (MPO)": _several,
        "JPEG with a gain map": _gain_map,
        "JPEG, Adobe RGB": _in_space(_ADOBE, _save("JPEG"), icc_profile=_ADOBE),
        "HEIC": _heif(),
        "HEIC in tiles": _heif(tile_size=512),
        "HEIC, turned by irot": _turned(6, _heif()),
        "HEIC, turned and mirrored": _turned(5, _heif()),
        "HEIC, 10 bits": _deep_heif,
        "HEIC, Display P3": _in_space(_P3, _heif()),
        "AVIF": _save("AVIF"),
        "AVIF, turned by irot": _turned(6, _save("AVIF")),
        "AVIF, 10 bits": _opencv(".avif", 4, cv2.IMWRITE_AVIF_DEPTH, 10, cv2.IMWRITE_AVIF_QUALITY, 100),
        "AVIF, Display P3": _in_space(_P3, _save("AVIF"), icc_profile=_P3),
        "JPEG 2000": _pillow("JPEG2000"),
        "JPEG 2000, a fifth": _pillow("JPEG2000", quality_mode="rates", quality_layers=[5], irreversible=True),
        "JPEG 2000, 16 bits": _opencv(".jp2", 257),
        "PNG, 16 bits": _opencv(".png", 257),
        "PNG, Display P3": _in_space(_P3, _pillow("PNG", icc_profile=_P3)),
        "WebP": _pillow("WEBP", lossless=True),
        "TIFF": _pillow("TIFF"),
    }
)
"""By name: how a photo is written."""


@dataclass(frozen=True)
class FormatFigures:
    """One format.

    Attributes:
        format: Its name in `WRITERS`.
        photos: How many photos there were.
        size: Bytes of the files, as a share of those of the PNG files.
        least: By recogniser, the least cosine of a photo's embedding to that of its PNG.
        mean: The mean.
    """

    format: str
    photos: int
    size: float
    least: dict[str, float]
    mean: dict[str, float]


def measure_formats(
    photos: Sequence[Path],
    detector: Detector,
    recognisers: Sequence[Recogniser],
    side: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[FormatFigures]:
    """Write photos in every format, read them back, and compare.

    Args:
        photos: The photos.
        detector: Finds faces.
        recognisers: Those that compare.
        side: Pixels that the longer side of a photo is shrunk to, if it is longer.
        progress: Called with photos done and their number.

    Raises:
        NoFaceError: A photo shows no face, in whichever format.
    """

    def seen(data: bytes, name: str) -> list[Floats]:
        photo = decode_photo(data)
        faces = detector.detect(photo)
        if not faces:
            raise NoFaceError("no face was found", where=name, fix="leave this photo out")
        face = select_faces(faces, "largest", photo)[0]
        return [recogniser.embed(recogniser.crop(face)[None])[0] for recogniser in recognisers]

    sizes: dict[str, float] = dict.fromkeys(WRITERS, 0.0)
    cosines: dict[str, list[list[float]]] = {name: [] for name in WRITERS}
    for number, path in enumerate(photos):
        image = Image.fromarray(decode_photo(path).pixels)
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        plain = _pillow("PNG")(image)
        reference = seen(plain, str(path))
        for name, write in WRITERS.items():
            data = write(image.copy())
            sizes[name] += len(data) / len(plain) / len(photos)
            found = seen(data, str(path))
            cosines[name].append([float(one @ other) for one, other in zip(reference, found, strict=True)])
        progress(number + 1, len(photos))
    names = [recogniser.name for recogniser in recognisers]
    return [
        FormatFigures(
            name,
            len(photos),
            sizes[name],
            dict(zip(names, np.min(rows, axis=0).tolist(), strict=True)),
            dict(zip(names, np.mean(rows, axis=0).tolist(), strict=True)),
        )
        for name, rows in cosines.items()
    ]


LARGEST: Final[Mapping[str, Write]] = MappingProxyType(
    {
        "JPEG": _pillow("JPEG"),
        "PNG": _pillow("PNG", compress_level=1),
        "HEIC": _heif(enc_params={"preset": "ultrafast"}),
        "HEIC in tiles": _heif(tile_size=512, enc_params={"preset": "ultrafast"}),
        "AVIF": _pillow("AVIF", speed=10),
        "JPEG 2000 in tiles": _pillow("JPEG2000", tile_size=(1024, 1024)),
        "JPEG 2000 in one piece": _pillow("JPEG2000", quality_mode="rates", quality_layers=[40]),
    }
)
"""By name: how the largest photo that is allowed is written."""


def measure_peak(pixels: Pixels, write: Write) -> tuple[float, int]:
    """What decoding a picture takes at its peak, in a process of its own.

    Args:
        pixels: (height, width, 3).
        write: Writes the file.

    Returns:
        Bytes for each stored pixel beside the file, and how many times smaller the picture was decoded.
    """
    data = write(Image.fromarray(pixels))
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        peak, shrunk = pool.submit(_peak, data).result()
    return peak / (pixels.shape[0] * pixels.shape[1]), shrunk


def _peak(data: bytes) -> tuple[int, int]:
    small = Image.new("RGB", (64, 64))
    for write in (_pillow("JPEG"), _heif(), _pillow("AVIF")):  # what is loaded once is no part of it
        decode_photo(write(small))
    before = peak_memory()
    photo = decode_photo(data, limits=ImageLimits())
    return peak_memory() - before, photo.shrunk
