"""Protocols: which photos are compared with which, and who is kept apart for setting thresholds."""

from anonymix_plugin.evaluation.protocols._folder import folder_protocol
from anonymix_plugin.evaluation.protocols._lfw import lfw_protocol
from anonymix_plugin.evaluation.protocols._pairs_file import pairs_protocol
from anonymix_plugin.evaluation.protocols._values import Notice, Pairs, Protocol, Sample, read_names

__all__ = [
    "Notice",
    "Pairs",
    "Protocol",
    "Sample",
    "folder_protocol",
    "lfw_protocol",
    "pairs_protocol",
    "read_names",
]
