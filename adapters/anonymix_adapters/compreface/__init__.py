"""CompreFace: a typed REST client (its Python SDK 0.6.0 does not import any more), and the mixer in front.

Example:
    >>> client = protect(CompreFace(url, recognition_key=key), mixer)  # doctest: +SKIP
    >>> client.add_face("alice", photo)
    >>> with mixer.subject("alice"):
    ...     client.recognize(photo)
"""

from anonymix_adapters._rest import ApiError, RetryPolicy
from anonymix_adapters.compreface._adapter import (
    LIMIT,
    NAME,
    SDKS,
    CompreFaceFront,
    interceptor_of,
    protect,
    unprotect,
)
from anonymix_adapters.compreface._client import (
    Box,
    Compared,
    CompreFace,
    Deleted,
    Example,
    Examples,
    Found,
    Guess,
    Recognized,
    Subject,
    Subjects,
    Verified,
)
from anonymix_adapters.compreface._rehearsal import rehearse

__all__ = [
    "LIMIT",
    "NAME",
    "SDKS",
    "ApiError",
    "Box",
    "Compared",
    "CompreFace",
    "CompreFaceFront",
    "Deleted",
    "Example",
    "Examples",
    "Found",
    "Guess",
    "Recognized",
    "RetryPolicy",
    "Subject",
    "Subjects",
    "Verified",
    "interceptor_of",
    "protect",
    "rehearse",
    "unprotect",
]
