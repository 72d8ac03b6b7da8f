"""Tencent Cloud's face recognition (iai), through the vendor's own SDK: the client stays the client.

Example:
    >>> client = protect(IaiClient(credential, "ap-hongkong"), mixer)  # doctest: +SKIP
    >>> request = models.CreatePersonRequest()
    >>> request.GroupId, request.PersonId, request.PersonName = "staff", "alice", "Alice"
    >>> request.Image = base64.b64encode(photo).decode()
    >>> client.CreatePerson(request)
"""

from anonymix_adapters.tencent._adapter import COLLECTION, LIMIT, NAME, SDKS, interceptor_of, protect, unprotect
from anonymix_adapters.tencent._rehearsal import rehearse

__all__ = ["COLLECTION", "LIMIT", "NAME", "SDKS", "interceptor_of", "protect", "rehearse", "unprotect"]
