"""Amazon Rekognition, through the vendor's own boto3: the client stays the client, the code stays the code.

Example:
    >>> client = protect(boto3.client("rekognition"), mixer)  # doctest: +SKIP
    >>> client.index_faces(CollectionId="staff", Image={"Bytes": photo}, ExternalImageId="alice")
"""

from anonymix_adapters.rekognition._adapter import LIMIT, NAME, SDKS, interceptor_of, protect, unprotect
from anonymix_adapters.rekognition._rehearsal import rehearse

__all__ = ["LIMIT", "NAME", "SDKS", "interceptor_of", "protect", "rehearse", "unprotect"]
