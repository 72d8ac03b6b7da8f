"""Face++ v3 over REST. Source: the console's API documents (Detect, Compare, Search, FaceSet, Face)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pydantic import Field

from anonymix_adapters._rest import Call, Failure, Reply, RestClient, RetryPolicy, by_status
from anonymix_adapters._rest_pictures import Upload, Url, file_of
from anonymix_adapters.sdk import Sdk

if TYPE_CHECKING:
    import httpx2

US: Final = "https://api-us.faceplusplus.com/facepp/v3/"


@dataclass(frozen=True)
class FaceToken:
    """A face that Face++ has seen before, in place of a photo.

    Attributes:
        token: Its face_token.
    """

    token: str


Input: TypeAlias = Upload | Url | FaceToken


class Rectangle(Reply):
    """A box in pixels."""

    left: int
    top: int
    width: int
    height: int


class DetectedFace(Reply):
    """A face in a photo."""

    face_token: str = Field(min_length=1)
    face_rectangle: Rectangle


class Detected(Reply):
    """The faces of a photo, the largest first."""

    image_id: str = ""
    faces: list[DetectedFace] = Field(default_factory=list)


class Compared(Reply):
    """How alike two faces are, 0..100, and from which confidence on they count as one person's.

    `thresholds` has the keys "1e-3", "1e-4" and "1e-5", false match rates.
    """

    confidence: float | None = None
    thresholds: dict[str, float] = Field(default_factory=dict)
    faces1: list[DetectedFace] = Field(default_factory=list)
    faces2: list[DetectedFace] = Field(default_factory=list)


class Match(Reply):
    """A face of the face set that is alike."""

    face_token: str
    confidence: float
    user_id: str = ""


class Searched(Reply):
    """The most alike faces of a face set."""

    results: list[Match] = Field(default_factory=list)
    thresholds: dict[str, float] = Field(default_factory=dict)
    faces: list[DetectedFace] = Field(default_factory=list)


class FailedToken(Reply):
    """A token that could not be added or removed, and why."""

    face_token: str
    reason: str = ""


class Added(Reply):
    """What became of tokens."""

    face_added: int = 0
    face_removed: int = 0
    face_count: int = 0
    failure_detail: list[FailedToken] = Field(default_factory=list)


class FaceSet(Reply):
    """A face set and the tokens in it; `next` is where the following page begins."""

    outer_id: str = ""
    faceset_token: str = ""
    face_count: int = 0
    face_tokens: list[str] = Field(default_factory=list)
    next: int | None = None


class Known(Reply):
    """What Face++ keeps of a token."""

    face_token: str
    user_id: str = ""


class FacePlusPlus(RestClient):
    """Face++ v3.

    Args:
        api_key: Key of the account.
        api_secret: Its secret, which goes into each request's form.
        url: The region's address.
        retry: Time-outs and retries.
        insecure_http: See `RestClient`.

    `subject=` of the calls with a photo says whose face it is, to the adapter; it is not sent.
    """

    NAME = "facepp"
    SDK = Sdk("httpx2", ("httpx2",), "facepp", ">=2.10,<3")

    def __init__(
        self,
        api_key: str,
        api_secret: str,
        *,
        url: str = US,
        retry: RetryPolicy | None = None,
        insecure_http: bool = False,
    ) -> None:
        super().__init__(url, retry=retry, insecure_http=insecure_http)
        self._account = {"api_key": api_key, "api_secret": api_secret}

    def detect(self, photo: Upload | Url, *, subject: str | None = None) -> Detected:
        """Find the faces of a photo; their tokens live 72 hours unless they are put into a face set."""
        return self._call(Call("detect", Detected, "POST", "detect", pictures={"": photo}, subject=subject))

    def compare(self, one: Input, other: Input, *, subject: str | None = None) -> Compared:
        """Compare the largest faces of two photos, or two tokens."""
        pictures = {"1": one, "2": other}
        return self._call(Call("compare", Compared, "POST", "compare", pictures=pictures, subject=subject))

    def search(self, photo: Input, outer_id: str, *, count: int = 1, subject: str | None = None) -> Searched:
        """Find the most alike faces of a face set, 1 to 5 of them."""
        fields, pictures = {"outer_id": outer_id, "return_result_count": str(count)}, {"": photo}
        call = Call("search", Searched, "POST", "search", fields=fields, pictures=pictures, subject=subject)
        return self._call(call)

    def create_face_set(self, outer_id: str) -> FaceSet:
        """Make a face set."""
        fields = {"outer_id": outer_id}
        return self._call(Call("create", FaceSet, "POST", "faceset/create", fields=fields, idempotent=False))

    def add_faces(self, outer_id: str, tokens: Sequence[str]) -> Added:
        """Put up to five tokens into a face set."""
        fields = {"outer_id": outer_id, "face_tokens": ",".join(tokens)}
        return self._call(Call("addface", Added, "POST", "faceset/addface", fields=fields))

    def remove_faces(self, outer_id: str, tokens: Sequence[str]) -> Added:
        """Take tokens out of a face set."""
        fields = {"outer_id": outer_id, "face_tokens": ",".join(tokens)}
        return self._call(Call("removeface", Added, "POST", "faceset/removeface", fields=fields))

    def delete_face_set(self, outer_id: str) -> FaceSet:
        """Delete a face set, with what is in it."""
        fields = {"outer_id": outer_id, "check_empty": "0"}
        return self._call(Call("delete", FaceSet, "POST", "faceset/delete", fields=fields, idempotent=False))

    def face_set(self, outer_id: str, *, start: int = 1) -> FaceSet:
        """Ask what is in a face set: a page of 100 tokens, from the given one on."""
        fields = {"outer_id": outer_id, "start": str(start)}
        return self._call(Call("getdetail", FaceSet, "POST", "faceset/getdetail", fields=fields))

    def set_user_id(self, token: str, user_id: str) -> Known:
        """Give a token a name, which searches return."""
        fields = {"face_token": token, "user_id": user_id}
        return self._call(Call("setuserid", Known, "POST", "face/setuserid", fields=fields))

    def face(self, token: str) -> Known:
        """Ask what is kept of a token."""
        return self._call(Call("face", Known, "POST", "face/getdetail", fields={"face_token": token}))

    def _form(self, call: Call[Any]) -> Mapping[str, str]:
        named = {f"face_token{n}": v.token for n, v in call.pictures.items() if isinstance(v, FaceToken)}
        placed = {f"image_url{n}": v.address for n, v in call.pictures.items() if isinstance(v, Url)}
        return self._account | dict(call.fields) | named | placed

    def _files(self, call: Call[Any]) -> Mapping[str, bytes]:
        return {f"image_file{n}": file_of(v) for n, v in call.pictures.items() if not isinstance(v, FaceToken | Url)}

    def _failure(self, response: httpx2.Response) -> Failure | None:
        try:
            message = str(response.json()["error_message"])
        except (ValueError, KeyError, TypeError):
            if response.status_code < 300:
                return None
            message = f"status {response.status_code}"
        reason = message.split(":")[0]
        if reason == "CONCURRENCY_LIMIT_EXCEEDED":  # more queries a second than were bought; nothing was done
            return Failure(message, reason, "yes")
        return by_status(response, message, reason) or Failure(message, reason)

    def _secrets(self) -> Iterable[str]:
        return self._account.values()
