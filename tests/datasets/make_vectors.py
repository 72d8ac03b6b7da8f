"""Makes the vectors beside it with MXNet 1.9.1 (and numpy below 1.24): another implementation than ours.

    python make_vectors.py CROPS OUT

CROPS holds aligned crops of 112 pixels, one folder for each person.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from mxnet.recordio import IRHeader, MXIndexedRecordIO, pack

crops, out = Path(sys.argv[1]), Path(sys.argv[2])
people = [sorted(folder.iterdir()) for folder in sorted(crops.iterdir())]
photos = sum(map(len, people))

# As InsightFace's training sets: record 0 with two bounds, the photos, then the ranges of the identities.
writer = MXIndexedRecordIO(str(out / "train.idx"), str(out / "train.rec"), "w")
writer.write_idx(0, pack(IRHeader(2, np.array([photos + 1, photos + 1 + len(people)]), 0, 0), b""))
key, ranges = 1, []
for label, files in enumerate(people):
    first = key
    for file in files:
        writer.write_idx(key, pack(IRHeader(0, float(label), key, 0), file.read_bytes()))
        key += 1
    ranges.append((first, key))
for each in ranges:
    writer.write_idx(key, pack(IRHeader(2, np.array(each), key, 0), b""))
    key += 1
writer.close()

# Records that hold the magic number: at multiples of four bytes it splits them, elsewhere it does not.
magic = (0xCED7230A).to_bytes(4, "little")
writer = MXIndexedRecordIO(str(out / "split.idx"), str(out / "split.rec"), "w")
for key, content in enumerate(
    [b"abcd" + magic + b"efgh" + magic + magic + b"x", b"ab" + magic + b"cd", magic, b"abcde"]
):
    writer.write_idx(key, pack(IRHeader(3, np.array([key, 0.5, -1]), key, 7), content))
writer.close()
