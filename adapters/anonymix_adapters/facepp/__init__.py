"""Face++ v3: a typed REST client, as no SDK for Python is kept up, and the mixer in front of it.

Example:
    >>> client = protect(FacePlusPlus(key, secret), mixer)  # doctest: +SKIP
    >>> with mixer.subject("alice", enrol=True):
    ...     token = client.detect(photo).faces[0].face_token
    >>> client.add_faces("staff", [token])
"""

from anonymix_adapters._rest import ApiError, RetryPolicy
from anonymix_adapters._rest_pictures import Url
from anonymix_adapters.facepp._adapter import (
    LIMIT,
    NAME,
    SDKS,
    FacePlusPlusFront,
    interceptor_of,
    protect,
    unprotect,
)
from anonymix_adapters.facepp._client import (
    Added,
    Compared,
    Detected,
    DetectedFace,
    FacePlusPlus,
    FaceSet,
    FaceToken,
    Known,
    Match,
    Searched,
)
from anonymix_adapters.facepp._rehearsal import rehearse

__all__ = [
    "LIMIT",
    "NAME",
    "SDKS",
    "Added",
    "ApiError",
    "Compared",
    "Detected",
    "DetectedFace",
    "FacePlusPlus",
    "FacePlusPlusFront",
    "FaceSet",
    "FaceToken",
    "Known",
    "Match",
    "RetryPolicy",
    "Searched",
    "Url",
    "interceptor_of",
    "protect",
    "rehearse",
    "unprotect",
]
