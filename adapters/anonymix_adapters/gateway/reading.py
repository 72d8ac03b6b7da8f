"""From a request to what it means, by a profile; whatever is not understood is refused.

Nothing of a request but what is returned here has a way on: the request that goes up is written again.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl

from anonymix_adapters.gateway.pictures import holds_a_picture
from anonymix_adapters.gateway.problems import ProblemError, malformed, refused
from anonymix_adapters.gateway.profile import Body, Profile, Route

_MEDIA: Final[Mapping[str, tuple[Body, ...]]] = {
    "multipart/form-data": ("multipart",),
    "application/json": ("json", "list"),
    "application/x-www-form-urlencoded": ("form",),
    "application/octet-stream": ("raw",),
    "image/jpeg": ("raw",),
    "image/png": ("raw",),
    "image/webp": ("raw",),
}
_PARTS: Final = 32
_TEXT: Final = 512
"""Characters of a field that is no picture."""
_DEPTH: Final = 4
_NUMBER: Final = re.compile(r"-?\d{1,9}(\.\d{1,9})?")
_FLAGS: Final = {"true", "false", "0", "1"}
_DATA_URL: Final = re.compile(r"data:image/[a-z+.-]{1,20};base64,", re.IGNORECASE)


@dataclass(frozen=True)
class Received:
    """A request as it arrived.

    Attributes:
        method: HTTP method.
        path: Percent-encoded, as on the wire.
        query: As on the wire, without the question mark.
        headers: Pairs, names in lower case, in order.
        body: All of it.
    """

    method: str
    path: str = field(repr=False)
    query: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes = field(repr=False)

    def header(self, name: str) -> str:
        """A header that may stand there once, "" where it does not.

        Raises:
            ProblemError: It stands there twice.
        """
        found = [value for key, value in self.headers if key == name]
        if len(found) > 1:
            raise malformed("a header stands there twice", where=name)
        return found[0] if found else ""


@dataclass(frozen=True)
class Given:
    """A picture of a request: its bytes, its address, or the token of a face.

    Attributes:
        kind: Which.
        place: The field that it stood in.
        value: Bytes of the image file, or a text.
        data_url: Whether it stood there as a data URL.
    """

    kind: str
    place: str
    value: Any = field(repr=False)
    data_url: bool = False


@dataclass(frozen=True)
class Understood:
    """What a request means.

    Attributes:
        route: The route that it is for.
        path: What stands for the names in the path.
        query: Fields of the query, without credentials.
        fields: Fields of the body, as texts.
        typed: The same as JSON had them.
        pictures: By their name in the call.
        body: How the body was written; None where there was none.
        ids: The items of a body that is a list.
        headers: Credentials, and others that are passed on.
        secret_query: Credentials in the query.
        secret_fields: Credentials in the body.
    """

    route: Route
    path: dict[str, str] = field(repr=False)
    query: dict[str, str] = field(repr=False)
    fields: dict[str, str] = field(repr=False)
    typed: dict[str, Any] = field(repr=False)
    pictures: dict[str, Given] = field(repr=False)
    body: Body | None
    ids: tuple[str, ...] = field(repr=False)
    headers: dict[str, str] = field(repr=False)
    secret_query: dict[str, str] = field(repr=False)
    secret_fields: dict[str, str] = field(repr=False)

    def at(self, place: str) -> str | None:
        """The value of "query.NAME", "fields.NAME" or "path.NAME"; None where it is not given."""
        source, _, name = place.partition(".")
        values = {"query": self.query, "fields": self.fields, "path": self.path}.get(source, {})
        return values.get(name)


def understand(profile: Profile, request: Received) -> Understood:
    """Find out what a request means.

    Raises:
        ProblemError: A route, a field, an encoding or a value is not known, or the request is malformed.
    """
    found = profile.route(request.method, request.path)
    if found is None:
        raise refused(
            "the profile does not know this route; nothing was sent",
            where=f"{request.method} {profile.name}",
            fix="docs/gateway.md lists the routes; a profile of your own can have others",
            code="unknown_route",
        )
    route, path = found
    for name, value in path.items():
        check_text(value, f"path.{name}")
    secret_query, query = _split(_pairs(request.query, "the query"), profile.credentials.query)
    texts = {name: _typed(value, route.query, name, "query") for name, value in query.items()}
    if request.header("content-encoding") not in {"", "identity"}:
        raise ProblemError(status=415, what="the body is compressed, which is not understood", code="encoding")
    body = _body_kind(route, request)
    fields: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    ids: tuple[str, ...] = ()
    if body == "multipart":
        fields, files = _multipart(request)
    elif body == "form":
        fields = _pairs(_ascii(request.body), "the body")
    elif body == "json":
        fields = _json_object(request.body)
    elif body == "list":
        ids = _json_ids(request.body)
    elif body == "raw":
        files = {"": request.body}
    secret_fields, fields = _split(fields, profile.credentials.fields)
    pictures = _pictures(route, fields, files, body)
    typed = {name: _typed_value(value, route.fields, name) for name, value in fields.items()}
    return Understood(
        route=route,
        path=path,
        query=texts,
        fields={name: value if isinstance(value, str) else json.dumps(value) for name, value in typed.items()},
        typed=typed,
        pictures=pictures,
        body=body,
        ids=ids,
        headers={
            name: _checked_secret(request.header(name), name)
            for name in profile.credentials.headers
            if request.header(name)
        },
        secret_query={name: _checked_secret(value, name) for name, value in secret_query.items()},
        secret_fields={name: _checked_secret(value, name) for name, value in secret_fields.items()},
    )


def form_of(request: Received) -> tuple[dict[str, str], dict[str, bytes]]:
    """The fields and files of a form, as strictly as everywhere.

    Raises:
        ProblemError: It is no form, or can't be read.
    """
    media = request.header("content-type").partition(";")[0].strip().lower()
    if media == "application/x-www-form-urlencoded":
        return _pairs(_ascii(request.body), "the body"), {}
    if media == "multipart/form-data":
        return _multipart(request)
    raise malformed("this is no form", where="content-type")


# --- bodies ---------------------------------------------------------------------------------------------


def _body_kind(route: Route, request: Received) -> Body | None:
    given, _, parameters = request.header("content-type").partition(";")
    media = given.strip().lower()
    if not route.bodies:
        if request.body:
            raise refused("this route takes no body; nothing was sent", where=route.call, code="unknown_field")
        return None
    if not request.body:
        if route.pictures:
            raise malformed("the body is missing", where=route.call)
        return None
    kinds = [kind for kind in _MEDIA.get(media, ()) if kind in route.bodies]
    if not kinds:
        raise ProblemError(
            status=415,
            what="this route does not take such a body; nothing was sent",
            where=route.call,
            fix=f"send {', '.join(route.bodies)}",
            code="encoding",
        )
    charset = re.search(r"charset\s*=\s*\"?([\w-]+)", parameters, re.IGNORECASE)
    if charset and charset[1].lower() not in {"utf-8", "utf8", "us-ascii"}:
        raise ProblemError(status=415, what="texts must be UTF-8", where="content-type", code="encoding")
    return kinds[0]


def boundary_of(content_type: str) -> str:
    """What stands between the parts of a body.

    Raises:
        ProblemError: It is not said.
    """
    from multipart import parse_options_header

    _, options = parse_options_header(content_type)
    boundary: str = options.get("boundary", "")
    if not re.fullmatch(r"[0-9A-Za-z'()+_,./:=?-]{1,70}", boundary):
        raise malformed("the boundary of the parts is missing or not valid", where="content-type")
    return boundary


def _multipart(request: Received) -> tuple[dict[str, Any], dict[str, bytes]]:
    from multipart import MultipartError, MultipartSegment, PushMultipartParser

    boundary = boundary_of(request.header("content-type"))
    fields: dict[str, Any] = {}
    files: dict[str, bytes] = {}
    part: MultipartSegment | None = None
    content = bytearray()
    try:
        with PushMultipartParser(boundary, max_segment_count=_PARTS, strict=True) as parser:
            for event in parser.parse(request.body):
                if isinstance(event, MultipartSegment):
                    part, content = event, bytearray()
                elif event is not None:
                    content += event
                elif part is not None:
                    _keep(part, bytes(content), fields, files)
    except (MultipartError, ValueError, UnicodeError):
        raise malformed("the parts of the body can't be told apart, or are too many") from None
    return fields, files


_PART_HEADERS: Final = {"Content-Disposition", "Content-Type", "Content-Length"}


def _keep(part: Any, content: bytes, fields: dict[str, Any], files: dict[str, bytes]) -> None:
    names = [name for name, _ in part.headerlist]
    if len(names) != len(set(names)) or part.disposition != "form-data" or not part.name:
        raise malformed("a part has no name, or two")
    unknown = [n for n in names if n not in _PART_HEADERS]
    binary = [v for n, v in part.headerlist if n == "Content-Transfer-Encoding" and v.lower() == "binary"]
    if unknown and not (binary and unknown == ["Content-Transfer-Encoding"]):
        raise ProblemError(status=415, what="a part has a header that is not understood", code="encoding")
    if part.name in fields or part.name in files:
        raise malformed("a field stands there twice; nothing was sent")
    if part.filename is not None:
        files[part.name] = content
        return
    try:
        fields[part.name] = content.decode()
    except UnicodeDecodeError:
        files[part.name] = content  # a picture whose part has no file name; whatever else is refused


def _pairs(text: str, where: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=_PARTS)
    except ValueError:
        raise malformed(f"{where} can't be read") from None
    if len({name for name, _ in pairs}) != len(pairs):
        raise malformed("a field stands there twice; nothing was sent", where=where)
    return dict(pairs)


def _ascii(body: bytes) -> str:
    try:
        return body.decode("ascii")
    except UnicodeDecodeError:
        raise malformed("the form is not URL-encoded") from None


def strict_json(body: bytes) -> Any:
    """What JSON says, if it says it once and in finite numbers.

    Raises:
        ProblemError: It does not, nests or holds too much, or is no JSON.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({name for name, _ in pairs}) != len(pairs):
            raise malformed("a field stands there twice; nothing was sent")
        return dict(pairs)

    def no_such_number(_: str) -> Any:
        raise malformed("a number is not finite")

    # Before it is parsed: what nests deep costs more than it says.
    if body.count(b"[") + body.count(b"{") > _PARTS * 4:
        raise malformed("the JSON nests or holds too much")
    try:
        return json.loads(body.decode(), object_pairs_hook=once, parse_constant=no_such_number)
    except (ValueError, RecursionError):
        raise malformed("the body is no JSON") from None


def _json_object(body: bytes) -> dict[str, Any]:
    content = strict_json(body)
    if not isinstance(content, dict):
        raise malformed("the body is no JSON object")
    return content


def _json_ids(body: bytes) -> tuple[str, ...]:
    content = strict_json(body)
    if not isinstance(content, list) or len(content) > 1000 or not all(isinstance(it, str) for it in content):
        raise malformed("the body is no list of ids")
    if holds_a_picture("".join(content)):
        raise refused("these ids decode as a picture; nothing was sent", where="ids", code="picture")
    return tuple(check_text(each, "id") for each in content)


# --- fields ---------------------------------------------------------------------------------------------


def _split(values: dict[str, Any], secret: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    names = set(secret)
    return (
        {name: value for name, value in values.items() if name in names},
        {name: value for name, value in values.items() if name not in names},
    )


def _checked_secret(value: Any, name: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x7e]{1,512}", value) or holds_a_picture(value):
        raise malformed("a credential is not valid", where=name)
    return value


def _pictures(route: Route, fields: dict[str, Any], files: dict[str, bytes], body: Body | None) -> dict[str, Given]:
    """Take the pictures out of fields and files; what is left of files is refused."""
    found: dict[str, Given] = {}
    for name, places in route.pictures.items():
        given = []
        if body == "raw":
            given.append(Given("file", "", files.pop("")))
        if places.file and places.file in files:
            given.append(Given("file", places.file, files.pop(places.file)))
        shared = places.base64 == places.url and _names_an_address(fields.get(places.url))
        if places.base64 and places.base64 in fields and not shared:
            given.append(_from_base64(places.base64, fields.pop(places.base64)))
        for kind, place in (("url", places.url), ("token", places.token)):
            if place and place in fields:
                value = fields.pop(place)
                if not isinstance(value, str):
                    raise malformed("a text is expected", where=place)
                given.append(Given(kind, place, check_text(value, place, longest=4096)))
        if len(given) > 1:
            raise malformed("a picture is given in two ways; nothing was sent", where=route.call)
        if given:
            found[name] = given[0]
        elif not places.optional:
            raise malformed("a picture is missing", where=places.file or places.base64 or route.call)
    for name in files:
        raise refused("the profile does not know this file; nothing was sent", where=_named(name), code="unknown_field")
    return found


def _names_an_address(value: Any) -> bool:
    """Whether a field that may hold a picture or its address holds an address."""
    return isinstance(value, str) and value[:8].lower().startswith(("http://", "https://"))


def _from_base64(name: str, value: Any) -> Given:
    if not isinstance(value, str):
        raise malformed("a picture in Base64 is expected", where=name)
    head = _DATA_URL.match(value)
    text = value[head.end() :] if head else value
    try:
        return Given("base64", name, base64.b64decode(text, validate=True), bool(head))
    except (binascii.Error, ValueError):
        raise refused(
            "this is no picture in Base64: an address or a path would be read past the mixer; nothing was sent",
            where=name,
            fix="send the picture itself",
        ) from None


def _typed(value: Any, known: Mapping[str, str], name: str, where: str) -> str:
    kind = known.get(name)
    if kind is None:
        raise refused(
            "the profile does not know this field; nothing was sent",
            where=f"{where}.{_named(name)}",
            code="unknown_field",
        )
    text = check_text(value, name)
    if kind == "number" and not _NUMBER.fullmatch(text):
        raise malformed("a number is expected", where=name)
    if kind == "flag" and text.lower() not in _FLAGS:
        raise malformed("true or false is expected", where=name)
    if kind.startswith("choice:") and not set(text.split(",")) <= {"", *kind[7:].split(",")}:
        raise refused("this value is not allowed; nothing was sent", where=name, fix=f"allowed: {kind[7:]}")
    return text


def _typed_value(value: Any, known: Mapping[str, str], name: str) -> Any:
    """A field of the body; JSON's own numbers and truths stay what they are."""
    if isinstance(value, bool | int | float):
        kind = known.get(name, "")
        if kind not in {"", "number", "flag"} or (isinstance(value, bool) and kind == "number"):
            raise malformed("a text is expected", where=name)
        _typed(json.dumps(value), known, name, "fields")
        return value
    if isinstance(value, list | dict | None):
        _typed("", known, name, "fields")
        raise malformed("a text is expected", where=name)
    return _typed(value, known, name, "fields")


def check_text(value: Any, name: str, longest: int = _TEXT) -> str:
    """A text that may go up.

    Raises:
        ProblemError: It is none, is too long, holds control characters, or decodes as a picture.
    """
    if not isinstance(value, str) or len(value) > longest:
        raise malformed("a text of at most some hundred characters is expected", where=name)
    if any(ord(each) < 32 or 0x7F <= ord(each) < 0xA0 or 0xD800 <= ord(each) < 0xE000 for each in value):
        raise malformed("a text holds control characters", where=name)
    if holds_a_picture(value):
        raise refused("this text decodes as a picture where none belongs; nothing was sent", where=name, code="picture")
    return value


def _named(name: str) -> str:
    """A field's name for a message: it comes from outside, and may be anything."""
    return name if re.fullmatch(r"[\w.\[\]-]{1,40}", name) else "(a name that is not shown)"
