"""What the HTTP API takes and answers, as OpenAPI describes it."""

import base64
import binascii
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import Path, Query
from pydantic import BaseModel, ConfigDict, Field

from anonymix_adapters.gateway.problems import malformed
from anonymix_plugin.images import encode_cancelable
from anonymix_plugin.values import CancelableFace

Name = Annotated[str, Field(min_length=1, max_length=256)]
ScopeName = Annotated[str, Field(min_length=1, max_length=256)]
Image = Annotated[str, Field(min_length=4, max_length=16_777_216, description="The photo's file, in Base64.")]
SubjectPath = Annotated[str, Path(min_length=1, max_length=256)]
ScopeQuery = Annotated[str, Query(min_length=1, max_length=256)]


class Body(BaseModel):
    """A request; fields that are not known are refused."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """RFC 9457, with what was wrong, where, and what to do.

    `found` stands in the answer to a list that had to leave somebody out: the others.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    where: str = ""
    fix: str = ""
    found: list[dict[str, Any]] | None = None


class ProtectRequest(Body):
    """A photo, and whose it is; without a subject the gallery key is taken."""

    image: Image
    subject: Name | None = None
    scope: ScopeName = "default"
    version: int | None = Field(default=None, ge=1, le=2**31)


class Protected(BaseModel):
    """A cancelable face: a JPEG file in Base64, marked as one."""

    image: str
    scope: str
    key_version: int
    fingerprint: str
    box: Annotated[list[float], Field(min_length=4, max_length=4, description="Left, top, right, bottom.")]

    @classmethod
    def of(cls, face: CancelableFace) -> Self:
        """A face as it is answered."""
        image = base64.b64encode(encode_cancelable(face, "JPEG")).decode()
        version, made_by = face.key_version, face.fingerprint
        return cls(image=image, scope=face.scope, key_version=version, fingerprint=made_by, box=list(face.box))


class EnrolRequest(Body):
    """A photo that the caller puts into a back end of its own, and how the entry is called there."""

    image: Image
    subject: Name
    scope: ScopeName = "default"
    collection: Name
    external_id: Name
    gallery: bool = False


class VerifyRequest(Body):
    """Two photos, and whose they are said to be."""

    image: Image
    other: Image
    subject: Name | None = None
    scope: ScopeName = "default"


class Verified(BaseModel):
    """What a recogniser says about two cancelable faces."""

    match: bool
    similarity: float
    threshold: float
    recogniser: str


class KeyEntry(BaseModel):
    """A key of a subject; "" for the gallery key of a scope."""

    subject: str
    scope: str
    version: int
    state: str
    created: datetime


class RotateRequest(Body):
    """Why; "breach" erases the old key at once."""

    reason: Annotated[str, Field(max_length=200)] = "routine"
    grace_days: float | None = Field(default=None, ge=0, le=36_500)


class Rotated(BaseModel):
    """The version that counts from now on."""

    version: int


class Revoked(BaseModel):
    """The versions that were destroyed."""

    versions: list[int]


class Forgotten(BaseModel):
    """The receipt: what was erased, and the entries that are still in back ends."""

    keys: int
    enrolments: int
    epoch: int
    entries: list[dict[str, str]]


class Due(BaseModel):
    """An entry that leaves work to do."""

    subject: str
    scope: str
    adapter: str
    collection: str
    external_id: str
    delete: bool
    enrol: bool
    why: str


class Health(BaseModel):
    """Whether the gateway can work."""

    status: str


def decoded(text: str) -> bytes:
    """The file of an image in Base64.

    Raises:
        ProblemError: It is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise malformed("the image is no Base64", where="image") from None
