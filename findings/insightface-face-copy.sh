#!/bin/sh
# insightface 2.1: Face objects cannot be copied or unpickled, and hasattr is true for every name.
# `Face` answers every unknown attribute with None, the special methods of copying among them, so that `copy.copy`,
# `copy.deepcopy` and `pickle.loads` call None. Writing a face works; reading it back, as a process pool does with a
# worker's result, fails with a message that does not name the class. `Face(face)` makes a shallow copy.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check insightface==2.1 onnxruntime==1.32.0
env/bin/python - <<'END'
import copy
import pickle
from importlib.metadata import version

from insightface.app.common import Face

print("insightface", version("insightface"))
face = Face(det_score=0.9)
actions = {
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle and back": lambda it: pickle.loads(pickle.dumps(it)),
}
for name, action in actions.items():
    try:
        action(face)
    except TypeError as error:
        print(f"{name}: TypeError: {error}")
    else:
        raise SystemExit(f"changed: {name} works")
print("hasattr(face, 'no_such_name'):", hasattr(face, "no_such_name"))
assert hasattr(face, "no_such_name")
assert dict(Face(face)) == {"det_score": 0.9}
END
