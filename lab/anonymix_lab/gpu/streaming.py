"""Whole photos: how many readers a card wants, and a stream of many photos through it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from anonymix_lab.data.keys import SeededKeys
from anonymix_lab.gpu.context import Context
from anonymix_plugin.anonymixer import Anonymixer
from anonymix_plugin.faces import YuNet
from anonymix_plugin.generator import Engine
from anonymix_plugin.images import decode_photo
from anonymix_plugin.models import locate
from anonymix_plugin.pool import CORES
from anonymix_plugin.production import PhotoRequest

_STREAMED = 10_000


def measure_streams(context: Context) -> dict[str, Any]:
    """Time decoding and detection by 1 to 16 readers, and `protect_stream` of 10,000 photos.

    Returns:
        Photos a second by readers; of the stream photos, seconds, errors and photos a second (as many
        photos as the time allows).
    """
    settings = context.settings
    paths = sorted((settings.photos or Path("tests/people")).glob("*.jpg"))
    detector = YuNet(locate("yunet"))

    def read(path: Path) -> int:
        return len(detector.detect(decode_photo(path)))

    rates = {}
    for readers in (1, 2) if settings.rehearsal else (1, 2, 4, 8, 16):
        count = 4 if settings.rehearsal else 60 * min(readers, CORES)
        with ThreadPoolExecutor(readers) as pool:
            started = time.perf_counter()
            list(pool.map(read, (paths[i % len(paths)] for i in range(count))))
            rates[str(readers)] = count / (time.perf_counter() - started)
        context.say(f"{readers} readers: {rates[str(readers)]:.0f} photos a second decoded and searched")

    engine: Engine = "cuda" if settings.device.startswith("cuda") else "auto"
    mixer = Anonymixer(SeededKeys(1), engine=engine)
    most = 4 if settings.rehearsal else _STREAMED

    def requests() -> Iterator[PhotoRequest]:
        for number in range(most):
            if context.left < 3 and not settings.rehearsal:
                return
            yield PhotoRequest(paths[number % len(paths)], str(number % 100))

    started, done, errors = time.perf_counter(), 0, 0
    for outcome in mixer.protect_stream(requests()):
        done += 1
        errors += outcome.error is not None
    seconds = time.perf_counter() - started
    return {
        "decoded and searched, photos a second by readers": rates,
        "stream": {"photos": done, "errors": errors, "seconds": seconds, "photos a second": done / seconds},
        "cores": CORES,
    }
