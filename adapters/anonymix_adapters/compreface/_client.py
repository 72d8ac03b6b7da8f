"""CompreFace 1.2 over REST. Source: CompreFace's document "Rest API description".

The endpoints that take embeddings are left out on purpose: an embedding is what the mixer keeps from leaving.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from pydantic import Field, model_validator

from anonymix_adapters._rest import Call, Failure, Reply, RestClient, RetryPolicy, by_status
from anonymix_adapters._rest_pictures import Upload
from anonymix_adapters.errors import AdapterError
from anonymix_adapters.sdk import Sdk

if TYPE_CHECKING:
    import httpx2

_KEY = "x-api-key"


class Box(Reply):
    """Where a face is, in pixels."""

    probability: float = 0.0
    x_min: int
    y_min: int
    x_max: int
    y_max: int


class Subject(Reply):
    """A name."""

    subject: str


class Subjects(Reply):
    """All names."""

    subjects: list[str] = Field(default_factory=list)


class Example(Reply):
    """A picture that is kept of a subject."""

    image_id: str = Field(min_length=1)
    subject: str


class Examples(Reply):
    """A page of examples."""

    faces: list[Example] = Field(default_factory=list)
    page_number: int = 0
    total_pages: int = 0


class Deleted(Reply):
    """How many were deleted."""

    deleted: int


class Removed(Reply):
    """The examples that were deleted."""

    items: list[Example]

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"items": value} if isinstance(value, list) else value


class Updated(Reply):
    """Whether a name was changed."""

    updated: bool = False


class Guess(Reply):
    """Who a face may be, similarity 0..1."""

    subject: str
    similarity: float


class Found(Reply):
    """A face in the photo, and who it may be, or how alike it is to the example asked about."""

    box: Box
    subjects: list[Guess] = Field(default_factory=list)
    similarity: float = 0.0


class Recognized(Reply):
    """The faces of a photo."""

    result: list[Found] = Field(default_factory=list)


class Source(Reply):
    """The face that others are held against."""

    box: Box


class Compared(Reply):
    """A face, and the faces of the other photo."""

    source_image_face: Source
    face_matches: list[Found] = Field(default_factory=list)


class Verified(Reply):
    """The comparison of two photos."""

    result: list[Compared] = Field(default_factory=list)


class CompreFace(RestClient):
    """CompreFace 1.2.

    Args:
        url: Address of the installation, e.g. https://compreface.example.
        recognition_key: Key of a recognition service, which stands for its face collection.
        verification_key: Key of a verification service; "" where none is used.
        detection_key: Key of a detection service; "" where none is used.
        collection: What the face collection is called in enrolment records.
        det_prob_threshold: How sure the installation's detector must be of a face, 0..1; None for its own
            setting. A cancelable face may look like a bystander at its edge (2 to 3 % of keys),
            and CompreFace refuses examples with two faces: with .8 it overlooks such.
        retry: Time-outs and retries.
        insecure_http: See `RestClient`.

    `subject=` of the calls with a photo says whose face it is, to the adapter; it is not sent. Of `add_face`,
    `faces`, `delete_faces` and `delete_subject`, `subject` is CompreFace's own.
    """

    NAME = "compreface"
    SDK = Sdk("httpx2", ("httpx2",), "compreface", ">=2.10,<3")

    def __init__(
        self,
        url: str,
        *,
        recognition_key: str = "",
        verification_key: str = "",
        detection_key: str = "",
        collection: str = "default",
        det_prob_threshold: float | None = None,
        retry: RetryPolicy | None = None,
        insecure_http: bool = False,
    ) -> None:
        super().__init__(f"{url.rstrip('/')}/api/v1/", retry=retry, insecure_http=insecure_http)
        self._keys = {
            "recognition": recognition_key,
            "verification": verification_key,
            "detection": detection_key,
        }
        self.collection = collection
        self._sure = {} if det_prob_threshold is None else {"det_prob_threshold": str(det_prob_threshold)}

    def add_face(self, subject: str, photo: Upload) -> Example:
        """Keep a photo as an example of a subject."""
        call = Call(
            "add_face",
            Example,
            "POST",
            "recognition/faces",
            query={"subject": subject},
            pictures={"file": photo},
            idempotent=False,
        )
        return self._call(call)

    def faces(self, subject: str | None = None, *, page: int = 0, size: int = 100) -> Examples:
        """A page of the examples, of one subject or all."""
        query = {"page": str(page), "size": str(size)} | ({} if subject is None else {"subject": subject})
        return self._call(Call("faces", Examples, "GET", "recognition/faces", query=query))

    def delete_face(self, image_id: str) -> Example:
        """Delete an example."""
        path = f"recognition/faces/{quote(image_id, safe='')}"
        about = {"image_id": image_id}
        return self._call(Call("delete_face", Example, "DELETE", path, about=about, idempotent=False))

    def delete_faces(self, subject: str) -> Deleted:
        """Delete all examples of a subject."""
        query = {"subject": subject}
        return self._call(Call("delete_faces", Deleted, "DELETE", "recognition/faces", query=query))

    def recognize(
        self, photo: Upload, *, limit: int = 0, prediction_count: int = 1, subject: str | None = None
    ) -> Recognized:
        """Ask who the faces of a photo are; `limit` largest faces, 0 for all."""
        query = {"limit": str(limit), "prediction_count": str(prediction_count)}
        return self._look("recognize", "recognition/recognize", photo, subject, query)

    def verify_face(self, image_id: str, photo: Upload, *, subject: str | None = None) -> Recognized:
        """Hold the faces of a photo against an example."""
        return self._look("verify_face", f"recognition/faces/{quote(image_id, safe='')}/verify", photo, subject)

    def verify(self, source: Upload, target: Upload, *, subject: str | None = None) -> Verified:
        """Compare two photos."""
        pictures = {"source_image": source, "target_image": target}
        path = "verification/verify"
        return self._call(Call("verify", Verified, "POST", path, pictures=pictures, subject=subject))

    def detect(self, photo: Upload, *, subject: str | None = None) -> Recognized:
        """Find faces."""
        return self._look("detect", "detection/detect", photo, subject)

    def _look(
        self,
        name: str,
        path: str,
        photo: Upload,
        subject: str | None,
        query: Mapping[str, str] = MappingProxyType({}),
    ) -> Recognized:
        call = Call(name, Recognized, "POST", path, query=query, pictures={"file": photo}, subject=subject)
        return self._call(call)

    def subjects(self) -> Subjects:
        """All subjects."""
        return self._call(Call("subjects", Subjects, "GET", "recognition/subjects/"))

    def delete_subject(self, subject: str) -> Subject:
        """Delete a subject with all examples."""
        path = f"recognition/subjects/{quote(subject, safe='')}"
        about = {"subject": subject}
        return self._call(Call("delete_subject", Subject, "DELETE", path, about=about, idempotent=False))

    def _request(self, call: Call[Reply]) -> httpx2.Request:
        service = call.path.split("/", maxsplit=1)[0]
        if not self._keys[service]:
            raise AdapterError(f"no key of a {service} service was given", where=self.NAME, fix=f"{service}_key=...")
        if call.pictures:
            call = replace(call, query={**call.query, **self._sure})
        request = super()._request(call)
        request.headers[_KEY] = self._keys[service]
        return request

    def _secrets(self) -> Iterable[str]:
        return self._keys.values()

    def _failure(self, response: httpx2.Response) -> Failure | None:
        if response.status_code < 300:
            return None
        try:
            content = response.json()
            message, reason = str(content["message"]), str(content.get("code", ""))
        except (ValueError, KeyError, TypeError, AttributeError):
            message, reason = f"status {response.status_code}", ""
        return by_status(response, message, reason)
