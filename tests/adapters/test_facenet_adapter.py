"""facenet-pytorch: what MTCNN cuts out goes through the mixer, alone and in batches, in copies as well."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from remembering import RememberingMixer
from test_conformance import loaded

from anonymix_adapters import BypassError, SubjectNeededError
from anonymix_adapters.testing.conformance import Person
from anonymix_keystore import Keystore
from anonymix_plugin import Anonymixer, BadArrayError

subject = Anonymixer.subject.__get__(object())


@torch.inference_mode()
def test_every_crop_of_mtcnn_comes_out_as_a_cancelable_face(
    adapter_mixer: RememberingMixer, adapter_store: Keystore, londoners: list[Person], tmp_path: Path
) -> None:
    adapter = loaded("facenet")
    from facenet_pytorch import MTCNN, extract_face, fixed_image_standardization

    from anonymix_adapters.facenet import network

    name = londoners[0].name
    adapter_store.current_or_issue(name)
    mtcnn, every, raw = MTCNN(), MTCNN(keep_all=True), MTCNN(post_process=False)
    with Image.open(Path(str(londoners[0].enrolled))) as picture:
        pictures = [picture.convert("RGB"), ImageOps.mirror(picture.convert("RGB"))]
    plain = network()
    net = adapter.protect(copy.deepcopy(plain), adapter_mixer, mtcnn=mtcnn)
    boxes, _ = mtcnn.detect(pictures[0])
    cut: dict[str, Any] = {
        "one": mtcnn(pictures[0])[None],
        "saved": mtcnn(pictures[0], save_path=str(tmp_path / "face.png"))[None],
        "all": every(pictures[0])[:1],
        "batch": torch.stack([mtcnn(picture) for picture in pictures]),
        "extract_face": fixed_image_standardization(extract_face(pictures[0], boxes[0]))[None],
    }
    for way, crops in cut.items():
        originals = plain(crops)
        with pytest.raises(SubjectNeededError):
            net(crops)
        for it in (net, copy.deepcopy(net)):
            made = it(crops, subject=name)
            assert made.shape == originals.shape
            assert np.max(np.asarray(made @ originals.T)) < 0.5, way
    with pytest.raises(BadArrayError):  # another layout
        net(raw(pictures[0])[None], subject=name)
    for part in (net.conv2d_1a, torch.nn.Sequential(*list(net.children())[:3])):
        with pytest.raises(BypassError):
            part(cut["one"])
