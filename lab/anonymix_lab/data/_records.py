"""MXNet's RecordIO, as InsightFace's training sets have it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Final

import numpy as np

from anonymix_lab.data._folder import drawn_protocol
from anonymix_lab.data._values import Notice, Protocol, Sample
from anonymix_plugin.datasets import PackedPhoto, read_records

_MOST_PEOPLE: Final = 2000
_MOST_PHOTOS_EACH: Final = 10


def records_protocol(
    path: Path,
    *,
    limit: int | None = None,
    exclude: Collection[str] = (),
    seed: int = 1,
    development_share: float = 0.3,
) -> Protocol:
    """Read a `.rec` file, by its `.idx` if that is there, and draw pairs as `folder_protocol` does.

    A person is called after the first label: "17". Of a large file at most 2,000 people take part, drawn by
    the seed, with at most ten photos each.

    Args:
        path: The file.
        limit: As of `folder_protocol`.
        exclude: Labels of people who must not appear.
        seed: As of `folder_protocol`.
        development_share: As of `folder_protocol`.

    Raises:
        UsageError: It is no such file, or as of `folder_protocol`.
    """
    photos: dict[float, list[PackedPhoto]] = defaultdict(list)
    dropped = 0
    for record in read_records(path):
        if record.photo is None:
            continue
        own = photos[record.label]
        if len(own) < _MOST_PHOTOS_EACH:
            own.append(record.photo)
        else:
            dropped += 1
    notices = []
    if dropped:
        what = f"photos after the first {_MOST_PHOTOS_EACH} of a person; left out"
        notices.append(Notice("more_photos", what, dropped))
    labels = sorted(photos)
    if (more := len(labels) - _MOST_PEOPLE) > 0:
        random = np.random.Generator(np.random.Philox(seed))
        labels = [labels[int(i)] for i in np.sort(random.permutation(len(labels))[:_MOST_PEOPLE])]
        notices.append(Notice("more_people", f"people beyond {_MOST_PEOPLE} that the seed drew; left out", more))
    samples = [Sample(photo, f"{label:.9g}") for label in labels for photo in photos[label]]
    return drawn_protocol(
        "rec",
        path,
        samples,
        notices,
        limit=limit,
        exclude=exclude,
        seed=seed,
        development_share=development_share,
    )
