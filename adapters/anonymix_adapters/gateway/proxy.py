"""One request on its way through: understood, mixed, written again, sent, and its answer looked at."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit

from pydantic import ValidationError

from anonymix_adapters._http import Transport, trusting, within
from anonymix_adapters._rest import Call, Reply
from anonymix_adapters._rest_interceptor import CloudInterceptor
from anonymix_adapters._rest_pictures import Url
from anonymix_adapters._wire import check_values, current, not_ours
from anonymix_adapters.errors import AdapterError, BackEndError
from anonymix_adapters.gateway.answers import Answer, checked, passed_headers
from anonymix_adapters.gateway.fetching import Fetcher, FetchPolicy
from anonymix_adapters.gateway.front import AnyReply, at, filled, front_of
from anonymix_adapters.gateway.problems import ProblemError, malformed, refused
from anonymix_adapters.gateway.profile import Profile, Route
from anonymix_adapters.gateway.reading import Given, Received, Understood, check_text, understand
from anonymix_adapters.gateway.telemetry import step
from anonymix_adapters.gateway.tokens import PREFIX
from anonymix_adapters.interceptor import FaceMixer, KeyUse, MixerAround, ScopeRule
from anonymix_keystore import Keystore
from anonymix_plugin.values import CancelableFace

if TYPE_CHECKING:
    import httpx2

_LOOPBACK: Final = {"localhost", "127.0.0.1", "::1"}
_LONGEST_ANSWER: Final = 32 * 1024 * 1024
_SLOWEST_ANSWER: Final = 6
"""Times the timeout that an answer may take from its first byte to its last; each byte alone may be in time."""
_DECODINGS: Final = 5
SUBJECT_HEADER: Final = "anonymix-subject"

_drawn: ContextVar[tuple[list[CancelableFace], Rights] | None] = ContextVar("anonymix_gateway_drawn", default=None)


class _Watched(MixerAround):
    """A mixer that notes which faces it drew in the request at hand, and draws none of other scopes than allowed.

    Args:
        mixer: The mixer.
        many: Whether callers name the scopes. Then one who may not enrol makes none.
    """

    def __init__(self, mixer: FaceMixer, *, many: bool) -> None:
        super().__init__(mixer)
        self._many = many

    def protect(self, image: Any, **how: Any) -> Any:
        noted = _drawn.get()
        if noted is not None:
            noted[1].check(how["scope"])
            if self._many and how.get("subject") is None and not noted[1].enrol:
                need_gallery_key(self.keystore, how["scope"])
        with step("mix"):
            face = super().protect(image, **how)
        if noted is not None:
            noted[0].append(face)
        return face


@contextmanager
def _noting(rights: Rights) -> Iterator[list[CancelableFace]]:
    drawn: list[CancelableFace] = []
    token = _drawn.set((drawn, rights))
    try:
        yield drawn
    finally:
        _drawn.reset(token)


def need_gallery_key(keystore: Any, scope: str) -> None:
    """See that a scope has a gallery key, before a caller who may not enrol has one issued: a scope comes with it.

    A key service looks at that itself, by the role of the gateway.

    Raises:
        KeystoreError: There is none.
    """
    if isinstance(keystore, Keystore):
        keystore.gallery(scope, issue=False)


def check_upstream(upstream: str, *, insecure_http: bool) -> None:
    """See that photos and keys may be sent to an address.

    Raises:
        AdapterError: It is no http(s) URL, or plain http to another machine.
    """
    parts = urlsplit(upstream)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.username:
        raise AdapterError("the upstream is no http(s) URL", where="upstream", fix="e.g. http://host:8000")
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK and not insecure_http:
        raise AdapterError(
            "plain http would send keys and faces in the clear",
            where="upstream",
            fix="use https, or --insecure-upstream inside a network that you trust",
        )


class UpstreamRefusedError(BackEndError):
    """The back end said no. Its answer is passed back.

    Args:
        what: As of all errors, and so are `where` and `fix`.
        answer: What it said.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "", answer: Answer | None = None) -> None:
        super().__init__(what, where=where, fix=fix)
        self.answer = answer or Answer(502, "application/json", b"")


@dataclass(frozen=True)
class Rights:
    """What a caller may do through the proxy.

    Attributes:
        who: The token's id, for logs; "" for nobody.
        probe: May compare, search and ask.
        enrol: May enrol, change and delete.
        name: May say whose face it is by the header `Anonymix-Subject`.
        scopes: Scopes of keys that all this is for; empty for all.
    """

    who: str = ""
    probe: bool = True
    enrol: bool = True
    name: bool = False
    scopes: tuple[str, ...] = ()

    def check(self, scope: str) -> None:
        """Refuse a scope that these rights are not for.

        Raises:
            ProblemError: They are not.
        """
        if self.scopes and scope not in self.scopes:
            raise refused(
                "this token is for other scopes; nothing was sent",
                where="scope",
                fix="make a token for it",
                code="scope",
            )


class Proxy:
    """Stands between clients of an API and the API. Safe to use from many threads.

    Args:
        profile: The API.
        upstream: Its address; plain http is refused but for this machine, unless `insecure_http`.
        mixer: Makes the cancelable faces.
        keys: "gallery": one key for all of a scope, which 1:N search needs. "own": a key each; then every
            request with a photo must name the subject.
        scope: Scope of the keys, or a function of the collection.
        collection: What the collection is called in records where the API names none.
        fetch: Which addresses of photos are fetched; none by default.
        timeout: Seconds for connecting, and for the back end's silence. A whole answer has six times as long.
        insecure_http: Allow plain http to another machine.
        ca: Issuers of the back end's certificate, PEM; None for the system's.
        secrets: Credentials of the back end by header or field; they take the place of a caller's own, and go
            up with every request.
        transport: How requests are sent; for tests.

    Raises:
        AdapterError: The address is no http(s) URL, or plain http to another machine; or the profile has no
            such credential.
        UsageError: The issuers' certificates can't be read.
    """

    def __init__(
        self,
        profile: Profile,
        upstream: str,
        mixer: FaceMixer,
        *,
        keys: KeyUse = "gallery",
        scope: ScopeRule = "default",
        collection: str = "default",
        fetch: FetchPolicy | None = None,
        timeout: float = 10.0,
        insecure_http: bool = False,
        ca: Path | None = None,
        secrets: Mapping[str, str] | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        import httpx2

        check_upstream(upstream, insecure_http=insecure_http)
        if callable(scope) and profile.front == "facepp":
            raise AdapterError(
                "Face++ is shown a face before it is told the face set, so that the scope can't go by it",
                where="scope",
                fix="name one scope, and serve each face set by a gateway of its own",
            )
        self.profile, known = profile, profile.credentials
        self._secrets: dict[str, dict[str, str]] = {"headers": {}, "query": {}, "fields": {}}
        for name, value in (secrets or {}).items():
            for places, names in (("headers", known.headers), ("query", known.query), ("fields", known.fields)):
                found = name.lower() if places == "headers" else name
                if found in names:
                    self._secrets[places][found] = value
                    break
            else:
                wanted = ", ".join((*known.headers, *known.query, *known.fields)) or "none"
                raise AdapterError("the profile has no such credential", where=name, fix=f"it has {wanted}")
        self._collection = profile.collection or collection
        self.interceptor = CloudInterceptor(_Watched(mixer, many=callable(scope)), profile.name, keys=keys, scope=scope)
        self._fetcher = Fetcher(fetch or FetchPolicy())
        self._front = front_of(profile, self.interceptor, self._collection, self._fetcher)
        self._replies: Mapping[str, type[Reply]] = getattr(self._front, "replies", {})
        self._base, self._timeout = upstream.rstrip("/") + profile.base, httpx2.Timeout(timeout).as_dict()
        self._longest = timeout * _SLOWEST_ANSWER
        # The transport itself: a client would log addresses with names.
        self._transport = transport or Transport(trusting(ca))

    def close(self) -> None:
        """Close the connections to the back end."""
        self._transport.close()
        self._fetcher.close()

    def answer(self, request: Received, rights: Rights) -> Answer:
        """Pass a request on, with cancelable faces in the place of its photos, and return the answer.

        Raises:
            ProblemError: It is refused, or the back end did not answer as it should.
            AnonymixError, KeystoreError: The photo or the key can't be used.
        """
        understood = understand(self.profile, request)
        route = understood.route
        allowed = rights.probe if route.purpose in {"probe", "search", "read", "picture"} else rights.enrol
        if not allowed:
            raise refused(f"this token may not {route.purpose}", where=route.call, fix="make a token with that right")
        claimed = _claimed(request)
        if claimed and not rights.name:
            raise refused(
                "this caller may not say whose face it is",
                where=SUBJECT_HEADER,
                fix="use a token with `name`",
            )
        call = self._call(understood, claimed or None)
        rights.check(self.interceptor.scope(call.about.get("(collection)", self._collection)))
        exchange = _Exchange(self, understood, call)
        with _noting(rights) as drawn:
            try:
                self._front(call, exchange.send)
            except UpstreamRefusedError as refusal:
                return checked(self.profile, refusal.answer, {})
        if exchange.answer is None:
            raise ProblemError(status=502, what="the back end was not asked", code="back_end")
        photos = [name for name, given in understood.pictures.items() if given.kind != "token"]
        boxes = {name: face.box for name, face in zip(photos, drawn, strict=False)}
        return checked(self.profile, exchange.answer, boxes)

    def _call(self, understood: Understood, subject: str | None) -> Call[Any]:
        """The call of the adapter that a request stands for."""
        route = understood.route
        pictures = {name: self._photo(given) for name, given in understood.pictures.items()}
        about = dict(understood.path)
        if route.collection:
            about["(collection)"] = understood.at(route.collection) or self._collection
        named = understood.at(route.subject) if route.subject else None
        if named is not None:
            about["(subject)"] = named
        if named is not None and subject is not None and named != subject:
            raise malformed("two subjects are named; nothing was sent", where=SUBJECT_HEADER)
        call = Call(
            route.call,
            self._replies.get(route.call, AnyReply),
            route.method,
            _path(route, understood.path),
            fields=understood.fields,
            query=understood.query,
            pictures=pictures,
            about=about,
            subject=subject,
        )
        if subject is None and named is None and pictures and route.entry and "{answer}" not in route.entry:
            return replace(call, subject=self._of_entry(filled(route.entry, call), about))
        return call

    def _of_entry(self, entry: str, about: Mapping[str, str]) -> str | None:
        """Whose the entry is that a request speaks of, by the records."""
        found = self.interceptor.entry(about.get("(collection)", self._collection), entry)
        return found.subject if found is not None else None

    def _photo(self, given: Given) -> Any:
        if given.kind == "url":
            return Url(given.value)
        if given.kind == "token":
            from anonymix_adapters.facepp import FaceToken

            return FaceToken(given.value)
        return given.value


def _claimed(request: Received) -> str:
    """The subject that the gateway's own header names, "" where it names none."""
    try:
        text = request.header(SUBJECT_HEADER).encode("latin-1").decode()
    except UnicodeError:
        raise malformed("a subject is written in UTF-8", where=SUBJECT_HEADER) from None
    return check_text(text, SUBJECT_HEADER)


def _path(route: Route, values: Mapping[str, str]) -> str:
    path = route.path
    for name, value in values.items():
        if _leads_away(value):
            raise refused("this is no id: it would lead to another route; nothing was sent", where=f"path.{name}")
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    return path


def _leads_away(value: str) -> bool:
    """Whether a name would be another route for a back end, or what stands before it, that decodes once more."""
    for _ in range(_DECODINGS):
        if re.search(r"[/\\]", value) or re.fullmatch(r"\.{1,2}(;.*)?", value):
            return True
        decoded = unquote(value)
        if decoded == value:
            return False
        value = decoded
    return True


@dataclass
class _Exchange:
    """The requests that one request of a caller becomes: its own, and those that look and undo."""

    proxy: Proxy
    understood: Understood
    call: Call[Any]
    answer: Answer | None = field(default=None)

    def send(self, call: Call[Any]) -> Any:
        """Write a call again and send it; return what the adapter reads in the answer."""
        own = call.name == self.call.name and self.answer is None
        answer = self._exchanged(self._request(call, own=own))
        if answer.status >= 300 or self._says_no(answer):
            raise UpstreamRefusedError(f"the back end answered with status {answer.status}", answer=answer)
        if own:
            self.answer = answer
        if self.understood.route.answer == "picture" and own:
            return AnyReply()
        try:
            return call.reply.model_validate_json(answer.body or b"{}")
        except ValidationError:
            raise ProblemError(
                status=502,
                what="the back end's answer is not what the API's documentation says; nothing was written down",
                where=call.name,
                fix="look in the back end for an entry that no record names, and delete it"
                if self.understood.route.purpose == "enrol"
                else "",
                code="back_end",
            ) from None

    def _says_no(self, answer: Answer) -> bool:
        refusals = self.proxy.profile.refusals
        if not refusals:
            return False
        try:
            content = json.loads(answer.body or b"{}")
        except (ValueError, RecursionError):
            return False
        found = [(each, at(content, each.field)) for each in refusals if isinstance(content, dict)]
        return any(value is not None and each.value in {None, str(value)} for each, value in found)

    def _request(self, call: Call[Any], *, own: bool) -> httpx2.Request:
        interceptor, understood = self.proxy.interceptor, self.understood
        pictures = {name: self._checked(picture) for name, picture in call.pictures.items()}
        query = {**call.query, **self._secret("query", understood.secret_query)}
        secrets = self._secret("fields", understood.secret_fields)
        fields: dict[str, Any] = {**call.fields, **secrets}
        check_values(interceptor, [call.path, dict(call.query), dict(call.fields)])
        body = understood.body if own else ("form" if fields else None)
        how: dict[str, Any] = {}
        if body == "json":
            how["json"] = self._in_json(call, pictures, secrets)
        elif body == "list":
            how["json"] = list(understood.ids)
        elif body == "raw":
            how["content"] = next(iter(pictures.values()))
        elif body is not None or pictures:
            files, texts = self._in_form(pictures)
            how["data"] = {**fields, **texts} or None
            how["files"] = files or None
        headers = {
            "accept": "application/json, image/*",
            "accept-encoding": "identity",
            "user-agent": "anonymix-gateway",
        }
        if body == "raw":
            headers["content-type"] = "image/jpeg"
        headers |= self._secret("headers", understood.headers)
        import httpx2

        return httpx2.Request(
            call.method,
            self.proxy._base + call.path,
            params=query or None,
            headers=headers,
            extensions={"timeout": self.proxy._timeout},
            **how,
        )

    def _secret(self, places: str, given: Mapping[str, str]) -> dict[str, str]:
        """A caller's credentials, with the gateway's own in their place where it has some.

        A token of the gateway is left out: whoever keeps the back end could call the gateway with it.
        """
        kept = {name: value for name, value in given.items() if PREFIX not in value}
        return kept | self.proxy._secrets[places]

    def _checked(self, picture: Any) -> Any:
        """A picture that may go up: one that the mixer drew for this very call, or a token of one."""
        made = current(self.proxy.interceptor)
        if isinstance(picture, bytes) and made is not None and made.knows(picture):
            return picture
        passed = self.proxy._front.passed(picture)
        if passed is None or isinstance(picture, bytes):
            raise not_ours(self.proxy.interceptor)
        return passed

    def _in_json(self, call: Call[Any], pictures: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, Any]:
        typed = {name: self.understood.typed.get(name, value) for name, value in call.fields.items()}
        for name, picture in pictures.items():
            given, places = self.understood.pictures[name], self.understood.route.pictures[name]
            if given.kind == "token":
                typed[given.place] = picture.token
            else:
                typed[places.base64] = _text(given, picture)
        return {**typed, **secrets}

    def _in_form(self, pictures: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
        files: dict[str, Any] = {}
        texts: dict[str, str] = {}
        for name, picture in pictures.items():
            given, places = self.understood.pictures[name], self.understood.route.pictures[name]
            if given.kind == "token":
                texts[given.place] = picture.token
            elif given.kind == "base64" or not places.file:
                texts[places.base64] = _text(given, picture)
            else:  # a file, or one that was fetched
                files[places.file] = ("face.jpg", picture, "image/jpeg")
        return files, texts

    def _exchanged(self, request: httpx2.Request) -> Answer:
        import httpx2

        where = self.call.name
        too_slow = ProblemError(
            status=504, what="the back end took too long", where=where, code="back_end_timeout", retry_after=5
        )
        try:
            with within(self.proxy._longest), step("upstream"):
                response, body = self.proxy._transport.handle_request(request), bytearray()
                try:
                    if response.headers.get("content-encoding", "identity") != "identity":
                        raise ProblemError(
                            status=502,
                            what="the back end's answer is compressed, which nobody asked for",
                            where=where,
                            code="back_end",
                        )
                    for chunk in response.iter_bytes():
                        body += chunk
                        if len(body) > _LONGEST_ANSWER:
                            raise ProblemError(
                                status=502, what="the back end's answer is too long", where=where, code="back_end"
                            )
                finally:
                    response.close()
        except httpx2.TimeoutException:
            raise too_slow from None
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise ProblemError(
                status=502,
                what=f"the back end can't be reached or broke off ({type(error).__name__})",
                where=where,
                code="back_end",
                retry_after=5,
            ) from None
        if not 200 <= response.status_code < 600:
            raise ProblemError(
                status=502, what="the back end answered with a status that HTTP does not know", code="back_end"
            )
        if 300 <= response.status_code < 400:
            raise ProblemError(
                status=502,
                what="the back end redirects; pictures go where they were sent, and nowhere else",
                where=where,
                fix="name the address that it redirects to as the upstream",
                code="back_end_redirect",
            )
        media = response.headers.get("content-type", "application/json").split(";")[0].strip()
        return Answer(response.status_code, media, bytes(body), passed_headers(response.headers))


def _text(given: Given, picture: bytes) -> str:
    text = base64.b64encode(picture).decode()
    return f"data:image/jpeg;base64,{text}" if given.data_url else text
