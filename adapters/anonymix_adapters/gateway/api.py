"""The mixer as an HTTP API, `/v1`: OpenAPI 3.1, tokens, problem documents, streams."""

import asyncio
import base64
import binascii
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar
from weakref import WeakValueDictionary

from fastapi import Depends, FastAPI, Header, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anonymix_adapters.gateway.problems import MEDIA_TYPE, ProblemError, malformed, problem
from anonymix_adapters.gateway.tokens import Token
from anonymix_adapters.interceptor import FaceMixer, Interceptor, Whose
from anonymix_keystore import KeystoreError
from anonymix_plugin.errors import AnonymixError
from anonymix_plugin.images import encode_cancelable

if TYPE_CHECKING:
    from anonymix_adapters.gateway.app import Gateway

T = TypeVar("T")

_LINE: Final = 17_000_000
_REMEMBERED: Final = 1024

Name = Annotated[str, Field(min_length=1, max_length=256)]
ScopeName = Annotated[str, Field(min_length=1, max_length=256)]
Image = Annotated[str, Field(min_length=4, max_length=16_777_216, description="The photo's file, in Base64.")]
SubjectPath = Annotated[str, Path(min_length=1, max_length=256)]
ScopeQuery = Annotated[str, Query(min_length=1, max_length=256)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """RFC 9457, with what was wrong, where, and what to do."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    where: str = ""
    fix: str = ""


class ProtectRequest(_Body):
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
    box: tuple[float, float, float, float]


class EnrolRequest(_Body):
    """A photo that the caller puts into a back end of its own, and how the entry is called there."""

    image: Image
    subject: Name
    scope: ScopeName = "default"
    collection: Name
    external_id: Name
    gallery: bool = False


class VerifyRequest(_Body):
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


class RotateRequest(_Body):
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


class _Lines(Response):
    """Lines as they are made. Starlette's own way would read the request's body meanwhile, to see it end."""

    media_type = "application/x-ndjson"

    def __init__(self, lines: AsyncIterator[bytes], status_code: int = 200) -> None:
        super().__init__(status_code=status_code)
        del self.headers["content-length"]
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for line in self._lines:
            await send({"type": "http.response.body", "body": line, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


_bearer = HTTPBearer(auto_error=False, description="A token of `anonymix gateway tokens create`.")
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"description": "A problem document.", "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}},
    "5XX": {"description": "A problem document.", "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}},
}


class Api:
    """The routes of `/v1`.

    Args:
        gateway: Its queue, limits and callers are used.
        mixer: Makes the cancelable faces.
    """

    def __init__(self, gateway: "Gateway", mixer: FaceMixer) -> None:
        self.gateway, self.mixer = gateway, mixer
        self._interceptor = Interceptor(mixer, "api")
        self._verifier: Any = None
        self._doing: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._done: OrderedDict[tuple[str, str], tuple[str, dict[str, Any]]] = OrderedDict()

    def app(self) -> ASGIApp:
        """The ASGI application, to be mounted at /v1."""
        app = FastAPI(
            title="Anonymix gateway",
            version="1",
            description="Cancelable faces over HTTP. Every error is a problem document (RFC 9457).",
            docs_url=None,  # they would load scripts from elsewhere
            redoc_url=None,
            responses=_PROBLEMS,
            servers=[{"url": "/v1"}],
            root_path_in_servers=False,
        )
        for kind in (AnonymixError, KeystoreError, Exception):
            app.add_exception_handler(kind, _as_problem)
        app.add_exception_handler(HTTPException, _as_problem)
        app.add_exception_handler(RequestValidationError, _invalid)
        self._photos(app)
        self._keys(app)
        self._health(app)
        return _Told(app, self.gateway)

    # --- photos -----------------------------------------------------------------------------------

    def _photos(self, app: FastAPI) -> None:
        @app.post("/protect", summary="Turn a photo into a cancelable face.")
        async def protect(asked: ProtectRequest, token: Annotated[Token, self._needs("probe")]) -> Protected:
            self._scope(token, "probe", asked.scope)
            return await self._work(partial(self._protected, asked))

        @app.post("/enrol", summary="Turn a photo into a cancelable face, and record where it goes.")
        async def enrol(
            asked: EnrolRequest,
            token: Annotated[Token, self._needs("enrol")],
            idempotency_key: Annotated[str | None, Header(min_length=1, max_length=128)] = None,
        ) -> Protected:
            self._scope(token, "enrol", asked.scope)
            if idempotency_key is None:
                return await self._work(partial(self._enrolled, asked))
            name, digest = (token.id, idempotency_key), hashlib.sha256(asked.model_dump_json().encode()).hexdigest()
            async with self._doing.setdefault(name, asyncio.Lock()):  # one that is still under way is waited for
                if name in self._done:
                    before, answer = self._done[name]
                    if before != digest:
                        raise ProblemError(
                            "another request was made under this key",
                            status=422,
                            where="Idempotency-Key",
                            fix="use a new key for a new enrolment",
                            code="idempotency",
                        )
                    return Protected(**answer)
                made = await self._work(partial(self._enrolled, asked))
                self._done[name] = (digest, made.model_dump())
                while len(self._done) > _REMEMBERED:
                    self._done.popitem(last=False)
                return made

        @app.post("/verify", summary="Compare two photos through the mixer.")
        async def verify(asked: VerifyRequest, token: Annotated[Token, self._needs("probe")]) -> Verified:
            self._scope(token, "probe", asked.scope)
            return await self._work(partial(self._verified, asked))

        @app.post(
            "/protect-stream",
            summary="Photos as NDJSON, one request of /protect a line with an `id`; answers line by line.",
            response_class=_Lines,
            openapi_extra={"requestBody": {"required": True, "content": {"application/x-ndjson": {}}}},
        )
        async def stream(request: Request, token: Annotated[Token, self._needs("probe")]) -> _Lines:
            return _Lines(self._stream(request, token))

    async def _stream(self, request: Request, token: Token) -> AsyncIterator[bytes]:
        """Answer line by line: the next line is read when the one before is answered."""
        waiting = bytearray()
        async for chunk in request.stream():
            waiting += chunk
            while (end := waiting.find(b"\n")) >= 0:
                line = bytes(waiting[:end])
                del waiting[: end + 1]
                if line.strip():
                    yield await self._line(line, token)
            if len(waiting) > _LINE:
                yield json.dumps({"id": None, "problem": problem(malformed("a line is too long"))}).encode() + b"\n"
                return
        if waiting.strip():
            yield await self._line(bytes(waiting), token)

    async def _line(self, line: bytes, token: Token) -> bytes:
        name: Any = None
        try:
            content = json.loads(line)
            if not isinstance(content, dict):
                raise malformed("a line is no JSON object")
            name = content.pop("id", None)
            name = name if isinstance(name, str | int) else None
            asked = ProtectRequest.model_validate(content)
            tokens = self.gateway.api_callers.tokens
            if tokens is None or not tokens.knows(token):
                raise ProblemError("this token was revoked or has ended", status=401, code="unauthorised")
            self._scope(token, "probe", asked.scope)
            made = await self._work(partial(self._protected, asked))
            answer: dict[str, Any] = made.model_dump()
        except (ValueError, RecursionError):  # no JSON, or not of this shape
            answer = {"problem": problem(malformed("a line is no request of /protect"))}
        except Exception as error:  # noqa: BLE001 - every error becomes a problem document, and the stream goes on
            answer = {"problem": problem(error)}
        return json.dumps({"id": name} | answer).encode() + b"\n"

    def _protected(self, asked: ProtectRequest) -> Protected:
        face = self.mixer.protect(
            _decoded(asked.image), subject=asked.subject, scope=asked.scope, version=asked.version
        )
        return _told(face)

    def _enrolled(self, asked: EnrolRequest) -> Protected:
        _ = self._interceptor.registry
        whose = Whose(asked.subject, asked.scope, gallery=asked.gallery, enrol=True)
        face = self._interceptor.protect(_decoded(asked.image), whose)
        self._interceptor.record(face, whose, collection=asked.collection, external_id=asked.external_id)
        return _told(face)

    def _verified(self, asked: VerifyRequest) -> Verified:
        from anonymix_plugin.verification import Verifier

        if self._verifier is None:
            self._verifier = Verifier(threshold="cancelable-fmr-0.1%")
        faces = [
            self.mixer.protect(_decoded(each), subject=asked.subject, scope=asked.scope)
            for each in (asked.image, asked.other)
        ]
        found = self._verifier.compare(*faces)
        return Verified(
            match=found.match,
            similarity=found.similarity,
            threshold=found.threshold.value,
            recogniser=found.threshold.recogniser,
        )

    # --- keys -------------------------------------------------------------------------------------

    def _keys(self, app: FastAPI) -> None:
        keystore = self.mixer.keystore

        @app.get("/subjects", summary="The keys of a scope, page by page in no order.")
        async def subjects(
            token: Annotated[Token, self._needs("administer")],
            scope: ScopeQuery = "default",
            limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
        ) -> list[KeyEntry]:
            self._scope(token, "administer", scope)
            return await self._work(partial(_listed, keystore, scope, limit))

        @app.post("/subjects/{subject}/rotate", summary="Replace a subject's key.")
        async def rotate(
            subject: SubjectPath,
            asked: RotateRequest,
            token: Annotated[Token, self._needs("administer")],
            scope: ScopeQuery = "default",
        ) -> Rotated:
            self._scope(token, "administer", scope)
            how = _how(asked, token)
            return Rotated(version=(await self._work(lambda: keystore.rotate(subject, scope, **how))).version)

        @app.post("/gallery/rotate", summary="Replace the gallery key of a scope.")
        async def rotate_gallery(
            asked: RotateRequest,
            token: Annotated[Token, self._needs("administer")],
            scope: ScopeQuery = "default",
        ) -> Rotated:
            self._scope(token, "administer", scope)
            how = _how(asked, token)
            return Rotated(version=(await self._work(lambda: keystore.rotate_gallery(scope, **how))).version)

        @app.post("/subjects/{subject}/revoke", summary="Destroy a subject's keys, at once and for good.")
        async def revoke(
            subject: SubjectPath, token: Annotated[Token, self._needs("administer")], scope: ScopeQuery = "default"
        ) -> Revoked:
            self._scope(token, "administer", scope)
            reason = f"by token {token.id}"
            return Revoked(versions=list(await self._work(lambda: keystore.revoke(subject, scope, reason=reason))))

        @app.delete("/subjects/{subject}", summary="Erase all that is known of a person.")
        async def forget(
            subject: SubjectPath, token: Annotated[Token, self._needs("administer")], scope: ScopeQuery = "default"
        ) -> Forgotten:
            self._scope(token, "administer", scope)
            receipt = await self._work(lambda: keystore.forget(subject, scope, reason=f"by token {token.id}"))
            names = ("adapter", "collection", "external_id")
            return Forgotten(
                keys=receipt.keys,
                enrolments=receipt.enrolments,
                epoch=receipt.epoch,
                entries=[{name: getattr(each, name) for name in names} for each in receipt.entries],
            )

        @app.get("/due", summary="Entries that a rotation leaves to delete, and people to enrol anew.")
        async def due(token: Annotated[Token, self._needs("administer")], scope: ScopeQuery = "default") -> list[Due]:
            self._scope(token, "administer", scope)
            found = lambda: list(keystore.due(scope, fingerprint=self.mixer.fingerprint))  # noqa: E731
            fields = tuple(Due.model_fields)
            return [Due(**{name: getattr(each, name) for name in fields}) for each in await self._work(found)]

        @app.get("/audit", summary="Lines of the audit trail, the oldest first.")
        async def audit(
            token: Annotated[Token, self._needs("audit")],
            after: Annotated[int, Query(ge=0, le=2**53)] = 0,
            limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
        ) -> list[dict[str, Any]]:
            del token
            return await self._work(partial(_lines, keystore, after, limit))

    # --- health -----------------------------------------------------------------------------------

    def _health(self, app: FastAPI) -> None:
        @app.get("/livez", summary="Whether the process answers.")
        async def livez() -> Health:
            return Health(status="live")

        @app.get("/readyz", summary="Whether weights, keystore and anchor are in order.")
        async def readyz() -> Health:
            def look() -> None:
                _ = self.mixer.fingerprint, self.mixer.keystore.epoch

            await self._work(look)
            return Health(status="ready")

    # --- callers ----------------------------------------------------------------------------------

    def _needs(self, right: str) -> Any:
        def caller(request: Request, shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Token:
            token = self.gateway.api_callers.of(shown.credentials if shown else "")
            request.state.token = token.id
            self.gateway.rate.take(token.id)
            if not (token.may_audit if right == "audit" else token.may(right)):
                raise ProblemError(
                    f"this token lacks the right {right}", status=403, fix="make a token with it", code="right"
                )
            return token

        return Depends(caller)

    def _scope(self, token: Token, right: str, scope: str) -> None:
        if not token.may(right, scope):
            raise ProblemError("this token is for other scopes", status=403, where="scope", code="scope")

    async def _work(self, work: Callable[[], T]) -> T:
        return await self.gateway.workers.run(work)


class _Told:
    """Reads bodies within limits, of known callers alone (a stream is read by line); counts and logs requests."""

    def __init__(self, app: ASGIApp, gateway: "Gateway") -> None:
        self._app, self._gateway = app, gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), 499
        from anonymix_adapters.gateway.app import body_of, problem_response

        given: list[Message] = []

        async def again() -> Message:
            return given.pop() if given else await receive()

        async def seen(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        request = Request(scope, receive)
        with self._gateway.room.holding() as count:
            try:
                if request.method not in {"GET", "HEAD", "OPTIONS"}:
                    self._gateway.api_callers.of(_bearer_of(request))
                if not scope["path"].endswith("/protect-stream"):
                    body = await body_of(request, self._gateway.limits, count)
                    given.append({"type": "http.request", "body": body, "more_body": False})
            except ClientDisconnect:
                pass
            except AnonymixError as error:
                await problem_response(error)(scope, receive, seen)
            else:
                await self._app(scope, again, seen)
        route = getattr(scope.get("route"), "path", "")
        call = f"/v1{route if route != '/v1' else '/(unknown)'}"
        seconds, who = time.monotonic() - start, scope.get("state", {}).get("token", "")
        self._gateway.metrics.request(call, status, "", seconds)
        self._gateway.told(call, status, "", who, seconds)


def _bearer_of(request: Request) -> str:
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if kind.lower() == "bearer" else ""


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise malformed("the image is no Base64", where="image") from None


def _told(face: Any) -> Protected:
    return Protected(
        image=base64.b64encode(encode_cancelable(face, "JPEG")).decode(),
        scope=face.scope,
        key_version=face.key_version,
        fingerprint=face.fingerprint,
        box=face.box,
    )


def _how(asked: RotateRequest, token: Token) -> dict[str, Any]:
    """What the keystore is told; "breach" is a word that it goes by, so that nothing is added to it."""
    reason = asked.reason if asked.reason == "breach" else f"{asked.reason} (token {token.id})"
    return {"reason": reason, "grace": None if asked.grace_days is None else timedelta(days=asked.grace_days)}


def _listed(keystore: Any, scope: str, limit: int) -> list[KeyEntry]:
    found = []
    for each in keystore.list(scope):
        fields = {"subject": each.subject, "scope": each.scope, "version": each.version, "created": each.created}
        found.append(KeyEntry(state=each.state.value, **fields))
        if len(found) == limit:
            break
    return found


def _lines(keystore: Any, after: int, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in keystore.audit(after):
        found.append(line)
        if len(found) == limit:
            break
    return found


def _as_problem(_: Request | None, error: Exception) -> Response:
    from anonymix_adapters.gateway.app import problem_response

    if isinstance(error, HTTPException):
        error = ProblemError("the request does not fit this API", status=error.status_code, fix="see openapi.json")
    return problem_response(error)


def _invalid(_: Request, error: Exception) -> Response:
    """A request that does not fit; its values are not repeated."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - by its registration
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if isinstance(part, str | int))
    return _as_problem(None, ProblemError(first["msg"], status=422, where=where[:100], code="invalid"))
