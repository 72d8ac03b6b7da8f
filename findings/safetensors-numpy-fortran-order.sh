#!/bin/sh
# safetensors 0.8.0: saving a NumPy array in Fortran order writes other numbers, without an error.
# `safetensors.numpy.save` takes the bytes of the array as they lie in memory. The shape is kept and the values are in
# another order. A transposed matrix (weights, a projection) is such an array. np.ascontiguousarray before saving is the
# cure.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
env/bin/python - <<'END'
import numpy as np
import safetensors
from safetensors.numpy import load, save

matrix = np.arange(6, dtype=np.float32).reshape(3, 2).T
back = load(save({"matrix": matrix}))["matrix"]
print("safetensors", safetensors.__version__, "numpy", np.__version__)
print("saved ", matrix.tolist())
print("loaded", back.tolist())
assert back.shape == matrix.shape
assert not np.array_equal(back, matrix), "changed: the values come back as they were"
whole = load(save({"matrix": np.ascontiguousarray(matrix)}))["matrix"]
assert np.array_equal(whole, matrix)
END
