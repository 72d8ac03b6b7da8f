"""OpenCV and a folder of vectors, for `anonymix bulk renew`. Run, it enrols: back_end.py PEOPLE KEYSTORE."""

import sys
from collections import UserDict
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from anonymix_adapters.opencv import back_end
from anonymix_plugin import Anonymixer

FOLDER = Path("doors")


class Vectors(UserDict):  # yours is a database: entry to subject and vector
    def __setitem__(self, entry, value):
        np.savez(FOLDER / ".draft.npz", *value)
        self.data[entry] = value
        (FOLDER / ".draft.npz").rename(FOLDER / f"{entry}.npz")

    def __delitem__(self, entry):
        (FOLDER / f"{entry}.npz").unlink()
        del self.data[entry]


@contextmanager
def doors(mixer):
    FOLDER.mkdir(exist_ok=True)
    held = {path.stem: list(np.load(path).values()) for path in FOLDER.glob("[!.]*.npz")}
    vectors = Vectors()
    vectors.data = {entry: (str(subject), vector) for entry, (subject, vector) in held.items()}
    yield back_end(mixer, vectors, "doors")


if __name__ == "__main__":
    with Anonymixer.open(sys.argv[2]) as mixer, doors(mixer) as enrolled:
        for folder in Path(sys.argv[1]).iterdir():
            enrolled.enrol(folder.name, min(folder.iterdir()))
