"""DeepFace, used in the place of the module: pictures are mixed before it sees them.

Example:
    >>> deepface = protect(DeepFace, mixer)  # doctest: +SKIP
    >>> with mixer.subject("alice"):  # doctest: +SKIP
    ...     deepface.verify("alice.jpg", "at-the-door.jpg", model_name="SFace", detector_backend="skip")
"""

from anonymix_adapters.deepface._adapter import NAME, SDKS, ProtectedDeepFace, interceptor_of, protect, unprotect
from anonymix_adapters.deepface._given import ProtectedFace
from anonymix_adapters.deepface._rehearsal import rehearse

__all__ = [
    "NAME",
    "SDKS",
    "ProtectedDeepFace",
    "ProtectedFace",
    "interceptor_of",
    "protect",
    "rehearse",
    "unprotect",
]
