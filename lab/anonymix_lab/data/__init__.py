"""Protocols: which photos are compared with which, and who is kept apart for setting thresholds."""

from anonymix_lab.data._folder import folder_protocol
from anonymix_lab.data._lfw import (
    LFW_FOLDS,
    lfw_folds,
    lfw_protocol,
    parse_folds,
    require_folds,
)
from anonymix_lab.data._pairs_file import pairs_protocol, verification_protocol
from anonymix_lab.data._records import records_protocol
from anonymix_lab.data._values import Notice, Pairs, Protocol, Sample, read_names, without_idle

__all__ = [
    "LFW_FOLDS",
    "Notice",
    "Pairs",
    "Protocol",
    "Sample",
    "folder_protocol",
    "lfw_folds",
    "lfw_protocol",
    "pairs_protocol",
    "parse_folds",
    "read_names",
    "records_protocol",
    "require_folds",
    "verification_protocol",
    "without_idle",
]
