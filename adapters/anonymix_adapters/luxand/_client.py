"""Luxand.cloud over REST. Source: the examples of Luxand's documents for /v2/person and /photo."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from pydantic import Field, model_validator

from anonymix_adapters._rest import Call, Failure, Reply, RestClient, RetryPolicy, by_status
from anonymix_adapters._rest_pictures import Upload, Url, file_of
from anonymix_adapters.sdk import Sdk

if TYPE_CHECKING:
    import httpx2

CLOUD: Final = "https://api.luxand.cloud/"


class Face(Reply):
    """A face that is kept of a person."""

    uuid: str = Field(min_length=1)


class Person(Reply):
    """A person, and the faces that are kept."""

    uuid: str = Field(min_length=1)
    name: str = ""
    faces: list[Face] = Field(default_factory=list)


class Collection(Reply):
    """A collection that a person is in."""

    uuid: str = ""
    name: str = ""


class Match(Reply):
    """A person who is alike, probability 0..1."""

    uuid: str
    name: str = ""
    probability: float
    collections: list[Collection] = Field(default_factory=list)


class Verified(Reply):
    """Whether a photo shows a person."""

    status: str
    message: str = ""
    probability: float = 0.0

    @property
    def verified(self) -> bool:
        """Luxand's verdict."""
        return self.status == "success"


class Similarity(Reply):
    """How alike two faces are, 0..1."""

    score: float = 0.0
    similar: bool = False


class Status(Reply):
    """Whether it was done."""

    status: str = ""

    @property
    def done(self) -> bool:
        """Whether Luxand says so."""
        return self.status == "success"


class Matches(Reply):
    """The people who are alike, the most alike first."""

    items: list[Match]

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"items": value} if isinstance(value, list) else value


class People(Reply):
    """All people."""

    items: list[Person]

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"items": value} if isinstance(value, list) else value


class Luxand(RestClient):
    """Luxand.cloud.

    Args:
        token: Token of the account.
        url: Address of the API.
        retry: Time-outs and retries.
        insecure_http: See `RestClient`.

    `subject=` of the calls with a photo says whose face it is, to the adapter; it is not sent.
    """

    NAME = "luxand"
    SDK = Sdk("httpx2", ("httpx2",), "luxand", ">=2.10,<3")

    def __init__(
        self,
        token: str,
        *,
        url: str = CLOUD,
        retry: RetryPolicy | None = None,
        insecure_http: bool = False,
    ) -> None:
        super().__init__(url, headers={"token": token}, retry=retry, insecure_http=insecure_http)

    def add_person(
        self,
        name: str,
        photo: Upload | Url,
        *,
        collections: Sequence[str] = (),
        store: bool = False,
        subject: str | None = None,
    ) -> Person:
        """Make a person from a first photo; `store` has Luxand keep the picture, too."""
        call = Call(
            "add_person",
            Person,
            "POST",
            "v2/person",
            fields={"name": name, "collections": ",".join(collections), "store": str(int(store))},
            pictures={"photos": photo},
            subject=subject,
            idempotent=False,
        )
        return self._call(call)

    def add_face(self, person: str, photo: Upload | Url, *, store: bool = False, subject: str | None = None) -> Face:
        """Add a photo of a person."""
        call = Call(
            "add_face",
            Face,
            "POST",
            f"v2/person/{quote(person, safe='')}",
            fields={"store": str(int(store))},
            pictures={"photos": photo},
            about={"person": person},
            subject=subject,
            idempotent=False,
        )
        return self._call(call)

    def person(self, person: str) -> Person:
        """Ask what is kept of a person."""
        return self._call(Call("person", Person, "GET", f"v2/person/{quote(person, safe='')}"))

    def people(self) -> list[Person]:
        """All people."""
        return self._call(Call("people", People, "GET", "v2/person")).items

    def delete_person(self, person: str) -> Status:
        """Delete a person with all faces."""
        path, about = f"person/{quote(person, safe='')}", {"person": person}
        return self._call(Call("delete_person", Status, "DELETE", path, about=about, idempotent=False))

    def delete_face(self, person: str, face: str) -> Status:
        """Delete a face of a person."""
        path = f"v2/person/{quote(person, safe='')}/face/{quote(face, safe='')}"
        about = {"person": person, "face": face}
        return self._call(Call("delete_face", Status, "DELETE", path, about=about, idempotent=False))

    def search(
        self, photo: Upload | Url, *, collections: Sequence[str] = (), subject: str | None = None
    ) -> list[Match]:
        """Ask who a photo shows."""
        fields, pictures = {"collections": ",".join(collections)}, {"photo": photo}
        path = "photo/search/v2"
        call = Call("search", Matches, "POST", path, fields=fields, pictures=pictures, subject=subject)
        return self._call(call).items

    def verify(self, person: str, photo: Upload | Url, *, subject: str | None = None) -> Verified:
        """Hold a photo against a person."""
        path, pictures = f"photo/verify/{quote(person, safe='')}", {"photo": photo}
        return self._call(Call("verify", Verified, "POST", path, pictures=pictures, subject=subject))

    def similarity(self, one: Upload | Url, other: Upload | Url, *, subject: str | None = None) -> Similarity:
        """Compare two photos."""
        pictures, path = {"face1": one, "face2": other}, "photo/similarity"
        return self._call(Call("similarity", Similarity, "POST", path, pictures=pictures, subject=subject))

    def _form(self, call: Call[Any]) -> Mapping[str, str]:
        return dict(call.fields) | {n: v.address for n, v in call.pictures.items() if isinstance(v, Url)}

    def _files(self, call: Call[Any]) -> Mapping[str, bytes]:
        return {n: file_of(v) for n, v in call.pictures.items() if not isinstance(v, Url)}

    def _failure(self, response: httpx2.Response) -> Failure | None:
        try:
            content = response.json()
        except ValueError:
            content = None
        content = content if isinstance(content, dict) else {}
        message = str(content.get("message", f"status {response.status_code}"))
        failed = response.status_code < 300 and content.get("status") == "failure"
        if failed and "probability" not in content:  # with one it is a verdict, and no failure
            return Failure(message, "failure")
        return by_status(response, message)

    def _secrets(self) -> Iterable[str]:
        return (self._http.headers["token"],)
