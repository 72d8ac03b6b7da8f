"""Biometric records that hold a photo of a face: read as that photo, and written back with another face in it."""

from anonymix_plugin.records._record import Coding, FaceRecord, find_record

__all__ = ["Coding", "FaceRecord", "find_record"]
