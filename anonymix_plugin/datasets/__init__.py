"""Data sets of the field that hold many photos in one file: read piece by piece, and written again.

- `lfw.bin`, `cfp_fp.bin`, `agedb_30.bin` and their like: InsightFace's verification sets.
- `train.rec` with `train.idx`: MXNet's RecordIO, as InsightFace's training sets have it.
"""

from anonymix_plugin.datasets._packed import PackedPhoto
from anonymix_plugin.datasets._recordio import Record, RecordWriter, read_records
from anonymix_plugin.datasets._verification import (
    VerificationSet,
    VerificationWriter,
    is_verification_set,
    people_of,
    read_verification_set,
)

__all__ = [
    "PackedPhoto",
    "Record",
    "RecordWriter",
    "VerificationSet",
    "VerificationWriter",
    "is_verification_set",
    "people_of",
    "read_records",
    "read_verification_set",
]
