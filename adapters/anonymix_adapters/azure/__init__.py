"""Azure's Face API, through a policy of azure-core: the clients stay the clients, blocking and async alike.

Example:
    >>> faces = protect(FaceClient(endpoint, credential), mixer)  # doctest: +SKIP
    >>> with mixer.subject("alice"):
    ...     found = faces.detect(photo, detection_model=..., recognition_model=..., return_face_id=True)
"""

from anonymix_adapters.azure._adapter import LIMIT, NAME, SDKS, interceptor_of, policy, protect, unprotect
from anonymix_adapters.azure._rehearsal import Clients, rehearse

__all__ = ["LIMIT", "NAME", "SDKS", "Clients", "interceptor_of", "policy", "protect", "rehearse", "unprotect"]
