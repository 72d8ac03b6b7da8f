"""Profiles: what the gateway knows of an API, as a declarative file. docs/gateway.md describes the format."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Final, Literal, Self, TypeAlias
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from anonymix_adapters.encoding import ImageLimit
from anonymix_plugin.errors import ConfigurationError
from anonymix_plugin.images import ImageFormat

PROFILES: Final = ("compreface", "facepp", "luxand", "deepface-api")
"""The profiles that come with the package."""

Purpose: TypeAlias = Literal["enrol", "probe", "search", "read", "picture", "change", "delete"]
"""What a route does. enrol: keeps a face of a subject. probe: compares a face with one subject's or with
another face. search: looks for a face in a collection. read: asks what is kept. picture: returns a picture
that is kept. change: alters something without a face. delete: deletes entries."""

Body: TypeAlias = Literal["multipart", "json", "form", "raw", "list"]
"""How a body is written; "list" is a JSON list of ids."""

FieldKind: TypeAlias = Annotated[str, StringConstraints(pattern=r"^(text|name|id|ids|number|flag|choice:[\w.,-]+)$")]
"""What a field may hold; "name" names a subject, "ids" are several with commas between."""


class _Checked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Picture(_Checked):
    """Where a picture of a call may stand.

    Attributes:
        file: Part of a multipart body.
        base64: Field of a JSON or form body that holds it in Base64, or as a data URL.
        url: Field that holds its address; it may be the same as `base64`.
        token: Field that names a face which the API has seen before.
        optional: Whether the call may go without it.
    """

    file: str = ""
    base64: str = ""
    url: str = ""
    token: str = ""
    optional: bool = False


class Limits(_Checked):
    """What the API says about pictures; see `encoding.ImageLimit`."""

    format: ImageFormat = "JPEG"
    max_bytes: int = 2_000_000
    min_bytes: int = 0
    min_side: int = 1
    max_side: int = 4096
    min_face: int = 0

    def image_limit(self) -> ImageLimit:
        """The same as adapters have it."""
        return ImageLimit(**self.model_dump())


class Credentials(_Checked):
    """Where a request carries what the API knows its caller by; it is passed on."""

    headers: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    query: tuple[str, ...] = ()


class Refusal(_Checked):
    """How an answer with a status of success says no: by a field, with that value or with any."""

    field: str
    value: str | None = None


class Route(_Checked):
    """One route of the API.

    Attributes:
        call: Its name; the adapter's, where the profile has a `front`.
        method: HTTP method.
        path: Below the profile's `base`; `{name}` stands for one segment.
        purpose: What it does.
        bodies: How its body may be written; none where there is none.
        query: Fields of the query, and what each may hold.
        fields: Fields of the body.
        pictures: Pictures by their name in the call.
        subject: Where the API itself names the person: "query.subject", "fields.name" or "path.person".
        entry: The id of an entry that the route speaks of: "{person}/{face}". For `enrol` with {answer}.
        answer: What comes back.
        collection: Where the API names the collection, like `subject`; "" for the gateway's own.
        undo: For `enrol` without a front: "DELETE person/{answer}".
    """

    call: str
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: Annotated[str, StringConstraints(pattern=r"^[\w{}/.-]*$")]
    purpose: Purpose
    bodies: tuple[Body, ...] = ()
    query: dict[str, FieldKind] = Field(default_factory=dict)
    fields: dict[str, FieldKind] = Field(default_factory=dict)
    pictures: dict[str, Picture] = Field(default_factory=dict)
    subject: str = ""
    entry: str = ""
    answer: Literal["json", "picture"] = "json"
    answer_entry: str = ""
    collection: str = ""
    undo: str = ""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        shows = self.purpose in {"enrol", "probe", "search"}
        if shows != bool(self.pictures):
            raise ValueError(f"{self.call}: a route with the purpose {self.purpose} and its pictures disagree")
        if (self.pictures or self.fields) and not self.bodies:
            raise ValueError(f"{self.call}: fields and pictures need a body")
        for picture in self.pictures.values():
            as_file = picture.file and "multipart" in self.bodies and "json" not in self.bodies
            if picture.url and not picture.base64 and not as_file:
                raise ValueError(f"{self.call}: a face that takes an address's place has no place itself")
        for place in filter(None, (self.subject, self.collection)):
            source, _, name = place.partition(".")
            known = {"query": set(self.query), "fields": set(self.fields), "path": set(self.parameters)}
            if name not in known.get(source, set()):
                raise ValueError(f"{self.call}: there is no {place}")
        if self.undo and not re.fullmatch(r"DELETE [\w{}/.-]+", self.undo):
            raise ValueError(f"{self.call}: undo is DELETE and a path")
        return self

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names in the path."""
        return tuple(re.findall(r"\{(\w+)\}", self.path))

    def matches(self, method: str, path: str) -> dict[str, str] | None:
        """What stands for the names in the path, decoded; None where the request is for another route."""
        if method != self.method:
            return None
        pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(self.path))
        found = re.fullmatch(pattern + "/?", path)
        if found is None:
            return None
        return {name: unquote(value, errors="strict") for name, value in found.groupdict().items()}


class Profile(_Checked):
    """All that the gateway knows of an API.

    Attributes:
        name: The profile's name, and the adapter's in enrolment records.
        title: The API and its version.
        base: Path that all routes begin with.
        collection: What the collection is called in records, where the adapter has one name for it.
        front: The adapter that keeps the records; "" for none, where `entry` and `undo` say how.
        credentials: See `Credentials`.
        limits: See `Limits`.
        refusals: How an answer with a status of success says no.
        drop: Fields of answers that describe the cancelable face and would be taken for the person's.
        deletes: What a delete erases at the back end, and what not.
        source: Where this knowledge comes from.
        routes: All routes; every other one is refused.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]
    title: str
    base: Annotated[str, StringConstraints(pattern=r"^/([\w.-]+/)*$")] = "/"
    collection: str = ""
    front: Literal["", "compreface", "facepp", "luxand"] = ""
    credentials: Credentials = Credentials()
    limits: Limits = Limits()
    refusals: tuple[Refusal, ...] = ()
    drop: tuple[str, ...] = ()
    deletes: str = ""
    source: str = ""
    routes: tuple[Route, ...]

    def route(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The route of a request, and what stands for the names in its path.

        Args:
            method: HTTP method.
            path: As on the wire, percent-encoded.
        """
        if not path.startswith(self.base):
            return None
        rest = path.removeprefix(self.base)
        for route in self.routes:
            try:
                found = route.matches(method, rest)
            except UnicodeDecodeError:
                return None
            if found is not None:
                return route, found
        return None


def load_profile(name: str | Path) -> Profile:
    """Read and check a profile.

    Args:
        name: One of `PROFILES`, or the path of a TOML file.

    Raises:
        ConfigurationError: There is no such profile, or the file is not valid; the error names the field.
    """
    if str(name) in PROFILES:
        folder = str(name).removesuffix("-api")
        text = files("anonymix_adapters").joinpath(folder, "profile.toml").read_text(encoding="utf-8")
    else:
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"the profile can't be read ({type(error).__name__})",
                where=str(name),
                fix=f"give {', '.join(PROFILES)}, or the path of a profile",
            ) from None
    try:
        content: Mapping[str, object] = tomllib.loads(text)
        return Profile.model_validate(content)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"no TOML: {error}", where=str(name)) from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{place}: {first['msg']}", where=str(name)) from None
