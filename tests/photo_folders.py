"""Where the tests take their photos from: beside the repository, or the drawn people within it."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from PIL import Image, ImageOps

_TESTS = Path(__file__).resolve().parent
DRAWN = _TESTS / "people"


def shared() -> Path:
    """The folder with photos of real people, which need not be there: ../shared, or ANONYMIX_TEST_SHARED."""
    return Path(os.environ.get("ANONYMIX_TEST_SHARED") or _TESTS.parents[1] / "shared")


@cache
def portraits() -> Path:
    """A folder of 001_neutral.jpg, 001_smiling.jpg, 002_neutral.jpg ...: two photos of each person.

    The London set where it is; otherwise twelve people who do not exist, 400 px, whom a recogniser finds more
    alike than it finds real people.
    """
    if (london := shared() / "data" / "london").is_dir():
        return london
    folder = Path(tempfile.mkdtemp(prefix="anonymix-people-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for number, first in enumerate(sorted(DRAWN.glob("*_1.jpg")), 1):
        shutil.copyfile(first, folder / f"{number:03d}_neutral.jpg")
        shutil.copyfile(first.with_name(first.name.replace("_1", "_2")), folder / f"{number:03d}_smiling.jpg")
    return folder


def with_room(path: Path) -> Image.Image:
    """A portrait of 640 x 640 pixels with room around the face, to stand beside others."""
    with Image.open(path) as stored:
        photo = stored.convert("RGB")
    border = (640 - photo.width) // 2
    return ImageOps.expand(photo, border, photo.getpixel((2, 2))) if border else photo
