"""Luxand.cloud: a typed REST client (its Python package 0.7 is of an older API), and the mixer in front.

Example:
    >>> client = protect(Luxand(token), mixer)  # doctest: +SKIP
    >>> alice = client.add_person("alice", photo, collections=["staff"]).uuid
    >>> with mixer.subject("alice"):
    ...     client.verify(alice, photo)
"""

from anonymix_adapters._rest import ApiError, RetryPolicy
from anonymix_adapters._rest_pictures import Url
from anonymix_adapters.luxand._adapter import LIMIT, NAME, SDKS, LuxandFront, interceptor_of, protect, unprotect
from anonymix_adapters.luxand._client import (
    Face,
    Luxand,
    Match,
    Matches,
    People,
    Person,
    Similarity,
    Status,
    Verified,
)
from anonymix_adapters.luxand._rehearsal import rehearse

__all__ = [
    "LIMIT",
    "NAME",
    "SDKS",
    "ApiError",
    "Face",
    "Luxand",
    "LuxandFront",
    "Match",
    "Matches",
    "People",
    "Person",
    "RetryPolicy",
    "Similarity",
    "Status",
    "Url",
    "Verified",
    "interceptor_of",
    "protect",
    "rehearse",
    "unprotect",
]
