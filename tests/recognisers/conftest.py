"""Recognisers with their weights, and crops of real faces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from anonymix_plugin.recognisers import Alignment, Recogniser
from anonymix_plugin.values import Pixels

Crops = Callable[[Alignment], Pixels]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These networks are small: threads that wait for each other on a busy machine slow them down."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def recogniser(model, loaders) -> Callable[[str], Recogniser]:
    def load(name: str) -> Recogniser:
        model(name)
        return loaders["load_recogniser"](name)

    return load


@pytest.fixture(scope="session")
def london(portraits: Path, model) -> Crops:
    """Crops of 12 people, (24, size, size, 3): neutral, smiling, neutral, ..."""
    from anonymix_plugin.faces import YuNet, box_crop, recogniser_crop
    from anonymix_plugin.images import decode_photo

    detector = YuNet(model("yunet"))
    paths = sorted(portraits.glob("*_neutral.jpg"))[:12]
    faces = [
        detector.detect(decode_photo(file))[0]
        for path in paths
        for file in (path, path.with_name(path.name.replace("neutral", "smiling")))
    ]

    def crops(alignment: Alignment) -> Pixels:
        cut = recogniser_crop if alignment == "arcface-112" else box_crop
        return np.stack([cut(face) for face in faces])

    return cache(crops)


@pytest.fixture(scope="session")
def noise() -> Callable[[int, int], Pixels]:
    """Crops of nobody: (count, size, size, 3) uint8, the same each time."""
    return lambda count, size: np.random.default_rng(5).integers(0, 256, (count, size, size, 3), np.uint8)
