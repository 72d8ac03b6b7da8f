"""Recognisers: that they know people apart, and that they take and return what they say."""

from __future__ import annotations

import importlib.util
import os
import sys

import numpy as np
import pytest

from anonymix_lab.metrics.error_rates import eer
from anonymix_plugin.errors import (
    BadArrayError,
    DamagedModelError,
    MissingModelError,
    MissingPackageError,
    UsageError,
)
from anonymix_plugin.recognisers import Recogniser, available_recognisers, load_recogniser
from anonymix_plugin.recognisers.onnx_file import read_onnx

NAMES = ["arcface-mbf", "sface", "sface-int8", "facenet", "dlib-recognition"]


@pytest.fixture(params=NAMES)
def any_recogniser(request, recogniser):
    if request.param == "dlib-recognition" and importlib.util.find_spec("dlib") is None:
        pytest.skip("needs dlib, the extra of that name")
    return recogniser(request.param)


def test_each_meets_the_protocol(any_recogniser):
    assert isinstance(any_recogniser, Recogniser)
    assert any_recogniser.input_size == int(any_recogniser.alignment.split("-")[1])
    assert any_recogniser.dim == (512 if any_recogniser.name == "arcface-mbf" else 128)


def test_only_the_matchers_have_no_part_in_the_mixer(any_recogniser):
    assert any_recogniser.seen_by_mixer == (any_recogniser.name not in {"facenet", "dlib-recognition"})


def test_people_are_told_apart(any_recogniser, london, real_people):
    embeddings = any_recogniser.embed(london(any_recogniser.alignment))
    assert embeddings.shape == (24, any_recogniser.dim)
    assert embeddings.dtype == np.float32
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1, abs=1e-5)
    cosines = embeddings[::2] @ embeddings[1::2].T
    same = np.eye(len(cosines), dtype=bool)
    # Drawn people are more alike than real ones: a pair of strangers may be nearer than the least alike pair.
    assert eer(cosines[same], cosines[~same]) <= (0 if real_people else 0.02)
    assert (cosines[same].min() if real_people else cosines[same].mean()) > cosines[~same].max()


@pytest.mark.parametrize(
    ("name", "studio", "drawn"),
    [
        ("arcface-mbf", (0.89, 0.02), (0.84, 0.10)),
        ("sface", (0.93, 0.14), (0.86, 0.21)),
        ("sface-int8", (0.93, 0.14), (0.86, 0.21)),
        ("facenet", (0.95, 0.05), (0.88, 0.14)),
    ],
)
def test_similarities_are_as_measured_before(recogniser, london, real_people, name, studio, drawn):
    # A wrong channel order or scale leaves the order of scores nearly right, and these means not.
    genuine, impostor = studio if real_people else drawn
    chosen = recogniser(name)
    embeddings = chosen.embed(london(chosen.alignment))
    cosines = embeddings[::2] @ embeddings[1::2].T
    same = np.eye(len(cosines), dtype=bool)
    assert cosines[same].mean() == pytest.approx(genuine, abs=0.04)
    assert cosines[~same].mean() == pytest.approx(impostor, abs=0.06)


@pytest.mark.parametrize("name", ["arcface-mbf", "sface"])
def test_bits_do_not_depend_on_batch_or_threads(recogniser, noise, name):
    crops = noise(35, 112)  # more than one batch
    whole = recogniser(name).embed(crops)
    assert np.array_equal(whole[-3:], np.concatenate([recogniser(name).embed(crops[i : i + 1]) for i in (32, 33, 34)]))
    assert np.array_equal(load_recogniser(name, threads=1).embed(crops[:4]), whole[:4])


def test_batches_do_not_change_what_facenet_says(recogniser, noise):
    crops = noise(17, 160)  # more than one batch
    facenet = recogniser("facenet")
    single = np.concatenate([facenet.embed(crops[:1]), facenet.embed(crops[16:])])
    assert facenet.embed(crops)[[0, 16]] == pytest.approx(single, abs=1e-5)


def test_sface_says_what_opencvs_own_says(recogniser, london, model):
    """OpenCV 5 and ONNX Runtime agree; numbers of OpenCV 4.13 differ by up to .03 at a cosine of .9999."""
    import cv2

    crops = london(recogniser("sface").alignment)[:4]
    theirs = cv2.FaceRecognizerSF.create(str(model("sface")), "")
    for ours, crop in zip(recogniser("sface").embed(crops), crops, strict=True):
        feature = theirs.feature(np.ascontiguousarray(crop[..., ::-1])).ravel()
        assert feature @ ours / np.linalg.norm(feature) > 0.9998


def test_no_crops_make_no_embeddings(any_recogniser):
    size = any_recogniser.input_size
    assert any_recogniser.embed(np.zeros((0, size, size, 3), np.uint8)).shape == (0, any_recogniser.dim)


def test_crops_need_not_lie_in_one_piece_of_memory(any_recogniser, noise):
    size = any_recogniser.input_size
    wide = noise(2, size * 2)
    assert np.array_equal(any_recogniser.embed(wide[:, ::2, ::-2]), any_recogniser.embed(wide[:, ::2, ::-2].copy()))
    one = noise(1, size)[::-1]  # numpy keeps the stride below 0 of an axis of length 1
    assert np.array_equal(any_recogniser.embed(one), any_recogniser.embed(one.copy()))


@pytest.mark.parametrize(
    "crops",
    [
        np.zeros((112, 112, 3), np.uint8),
        np.zeros((1, 112, 112, 4), np.uint8),
        np.zeros((1, 3, 112, 112), np.uint8),
        np.zeros((1, 100, 100, 3), np.uint8),
        np.zeros((1, 112, 112, 3), np.float32),
        np.float32(1),
        [[1]],
    ],
)
def test_other_arrays_are_refused(recogniser, crops):
    with pytest.raises(BadArrayError, match=r"112, 112, 3\) uint8"):
        recogniser("arcface-mbf").embed(crops)


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(UsageError, match="facenet"):
        load_recogniser("vgg")


def test_only_what_is_there_is_available(monkeypatch, tmp_path, model):
    model("sface")
    assert "sface" in available_recognisers()
    assert set(available_recognisers()) <= set(NAMES)
    monkeypatch.setenv("ANONYMIX_HOME", str(tmp_path))
    assert available_recognisers() == ()
    with pytest.raises(MissingModelError, match="anonymix models pull sface"):
        load_recogniser("sface")


@pytest.mark.parametrize(("name", "package"), [("facenet", "h5py"), ("dlib-recognition", "dlib")])
def test_a_missing_package_is_named_with_its_extra(monkeypatch, model, name, package):
    model(name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=r'pip install "anonymix-plugin\['):
        load_recogniser(name)


def test_files_that_are_no_onnx_models_are_refused(tmp_path):
    path = tmp_path / "x.onnx"
    for content in (b"", b"\xff" * 100, os.urandom(64)):
        path.write_bytes(content)
        with pytest.raises(DamagedModelError, match=r"x\.onnx"):
            read_onnx(path)
