"""Reads a data set as InsightFace's own scripts do, with MXNet 1.9.1 and OpenCV 4.8 (numpy below 1.24).

    python read_with_mxnet.py lfw.bin MODEL.onnx     # verification accuracy in ten folds
    python read_with_mxnet.py train.rec              # labels and shapes of what a training would see

It knows nothing of Anonymix, and runs unchanged on a set and on its protected copy.
"""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np


def training_set(path: Path) -> None:
    """Photos by the bounds in record 0, as the training scripts take them."""
    reader = mx.recordio.MXIndexedRecordIO(str(path.with_suffix(".idx")), str(path), "r")
    header, _ = mx.recordio.unpack(reader.read_idx(0))
    labels, shapes = [], set()
    for key in range(1, int(header.label[0])):
        header, photo = mx.recordio.unpack(reader.read_idx(key))
        labels.append(int(np.atleast_1d(header.label)[0]))
        shapes.add(mx.image.imdecode(photo).shape)
    sys.stdout.write(f"{len(labels)} photos of {len(set(labels))} people, {shapes}\n")


def verification_set(path: Path, model: Path) -> None:
    """Accuracy at the threshold that is best on the other nine folds; both mirror images count, as there."""
    photos, same = pickle.loads(path.read_bytes())  # noqa: S301 - as those scripts do it
    pictures = np.stack([mx.image.imdecode(photo).asnumpy() for photo in photos]).astype(np.float32)
    blob = (pictures.transpose(0, 3, 1, 2) - 127.5) / 127.5
    network = cv2.dnn.readNetFromONNX(str(model))

    def embedded(one: np.ndarray) -> np.ndarray:
        network.setInput(one)
        return network.forward().copy()

    vectors = np.concatenate([embedded(one) + embedded(one[..., ::-1].copy()) for one in blob[:, None]])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    distances = np.square(vectors[0::2] - vectors[1::2]).sum(1)
    answers, thresholds = np.array(same), np.arange(0, 4, 0.01)
    right = (distances[:, None] < thresholds) == answers[:, None]
    folds = np.array_split(np.arange(len(answers)), 10)
    accuracy = [right[fold, np.delete(right, fold, 0).mean(0).argmax()].mean() for fold in folds]
    sys.stdout.write(f"{len(answers)} pairs, accuracy {np.mean(accuracy):.4f} +- {np.std(accuracy):.4f}\n")


if __name__ == "__main__":
    given = [Path(argument) for argument in sys.argv[1:]]
    training_set(*given) if given[0].suffix == ".rec" else verification_set(*given)
