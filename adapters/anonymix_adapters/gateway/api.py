"""The mixer as an HTTP API, `/v1`: OpenAPI 3.1, tokens, problem documents, streams."""

from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, TypeVar
from unicodedata import normalize

from fastapi import Depends, FastAPI, Header, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from anonymix_adapters.gateway.problems import (
    MEDIA_TYPE,
    ProblemError,
    malformed,
    problem,
    problem_response,
)
from anonymix_adapters.gateway.proxy import need_gallery_key
from anonymix_adapters.gateway.reading import strict_json
from anonymix_adapters.gateway.schema import (
    Due,
    EnrolRequest,
    Forgotten,
    Health,
    KeyEntry,
    Problem,
    Protected,
    ProtectRequest,
    Revoked,
    Rotated,
    RotateRequest,
    ScopeQuery,
    SubjectPath,
    Verified,
    VerifyRequest,
    decoded,
)
from anonymix_adapters.gateway.shared import AnotherRequestError
from anonymix_adapters.gateway.streams import Streaming, Streams
from anonymix_adapters.gateway.tokens import Token
from anonymix_adapters.interceptor import FaceMixer, Interceptor, Whose
from anonymix_keystore import DamagedError, KeystoreError
from anonymix_plugin.errors import AnonymixError
from anonymix_plugin.first_keys import attempt
from anonymix_plugin.values import CancelableFace

if TYPE_CHECKING:
    from anonymix_adapters.gateway.app import Gateway

T = TypeVar("T")
Entry = TypeVar("Entry", KeyEntry, Due)

_bearer = HTTPBearer(auto_error=False, description="A token of `anonymix gateway tokens create`.")
_Shown: TypeAlias = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
_PROBLEMS: Final[dict[int | str, dict[str, Any]]] = {
    "4XX": {"description": "A problem document.", "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}},
    "5XX": {"description": "A problem document.", "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}},
}


class _StrictRoute(APIRoute):
    """A route that is as strict as the proxy: fields that are not known, or stand there twice, are refused."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `APIRoute`."""
        handle = super().get_route_handler()

        known = {field.alias for field in self.dependant.query_params}

        async def strictly(request: Request) -> Response:
            given = [name for name, _ in request.query_params.multi_items()]
            if not known.issuperset(given) or len(given) != len(set(given)):
                raise malformed("a field of the query is not known, or stands there twice", where="query")
            if self.body_field is not None and await request.body():
                request._json = strict_json(await request.body())  # where Starlette keeps what it parsed
            return await handle(request)

        return strictly


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
        self._streams = Streams(gateway, self._drawn, partial(self._scope, right="probe"))

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
        app.router.route_class = _StrictRoute
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
            self._scope(token, asked.scope, "probe")
            return await self._work(partial(self._protected, asked, token))

        @app.post("/enrol", summary="Turn a photo into a cancelable face, and record where it goes.")
        async def enrol(
            asked: EnrolRequest,
            token: Annotated[Token, self._needs("enrol")],
            idempotency_key: Annotated[str | None, Header(min_length=1, max_length=128)] = None,
        ) -> Protected:
            self._scope(token, asked.scope, "enrol")
            if idempotency_key is None:
                return await self._work(partial(self._enrolled, asked))
            shared, body = self.gateway.shared, asked.model_dump_json().encode()
            async with shared.alone(token.id, idempotency_key) as name:  # one that is under way is waited for
                try:
                    before = shared.recall(name, body)
                except AnotherRequestError:
                    raise ProblemError(
                        "another request was made under this key",
                        status=422,
                        where="Idempotency-Key",
                        fix="use a new key for a new enrolment",
                        code="idempotency",
                    ) from None
                if before is not None:
                    return await self._work(partial(self._repeated, asked, Protected.model_validate_json(before)))
                made = await self._work(partial(self._enrolled, asked))
                shared.remember(name, body, made.model_dump_json().encode())
                return made

        @app.post("/verify", summary="Compare two photos through the mixer.")
        async def verify(asked: VerifyRequest, token: Annotated[Token, self._needs("probe")]) -> Verified:
            self._scope(token, asked.scope, "probe")
            return await self._work(partial(self._verified, asked, token))

        @app.post(
            "/protect-stream",
            summary="Photos one after another: NDJSON with one request of /protect a line and an `id`, or the parts of "
            "a form. Answers come one by one, written in the same way.",
            response_class=Streaming,
            status_code=200,
            responses={200: {"content": {"application/x-ndjson": {}, "multipart/mixed": {}}}},
            openapi_extra={
                "requestBody": {"required": True, "content": {"application/x-ndjson": {}, "multipart/form-data": {}}}
            },
        )
        async def stream(
            request: Request,
            token: Annotated[Token, self._needs("probe")],
            scope: ScopeQuery = "default",
            version: Annotated[int | None, Query(ge=1, le=2**31)] = None,
        ) -> Response:
            return self._streams.answer(request, token, scope=scope, version=version)

    def _drawn(
        self, token: Token, image: bytes, subject: str | None, scope: str, version: int | None
    ) -> CancelableFace:
        self._need_key(token, subject, scope)
        face: CancelableFace = self.mixer.protect(image, subject=subject, scope=scope, version=version)
        return face

    def _repeated(self, asked: EnrolRequest, made: Protected) -> Protected:
        """An answer that was given before, as long as its entry is recorded and made with the key in use."""
        place = {"adapter": self._interceptor.adapter, "collection": asked.collection, "external_id": asked.external_id}
        found = self.mixer.keystore.enrolment(**place)
        whose = (normalize("NFC", asked.subject), normalize("NFC", asked.scope), made.key_version)
        if found is None or (found.subject, found.scope, found.version) != whose or found.why:
            raise ProblemError(
                "what was enrolled under this key is forgotten, replaced, or was made with a key that has ended",
                status=409,
                where="Idempotency-Key",
                fix="enrol again under a new key",
                code="idempotency",
            )
        return made

    def _need_key(self, token: Token, subject: str | None, scope: str) -> None:
        if subject is None and not token.may("enrol", scope):
            need_gallery_key(self.mixer.keystore, scope)

    def _protected(self, asked: ProtectRequest, token: Token) -> Protected:
        return Protected.of(self._drawn(token, decoded(asked.image), asked.subject, asked.scope, asked.version))

    def _enrolled(self, asked: EnrolRequest) -> Protected:
        _ = self._interceptor.registry
        whose = Whose(asked.subject, asked.scope, gallery=asked.gallery, enrol=True)
        with attempt():
            face = self._interceptor.protect(decoded(asked.image), whose)
            self._interceptor.record(face, whose, collection=asked.collection, external_id=asked.external_id)
            return Protected.of(face)

    def _verified(self, asked: VerifyRequest, token: Token) -> Verified:
        from anonymix_plugin.verification import Verifier

        self._need_key(token, asked.subject, asked.scope)
        if self._verifier is None:
            self._verifier = Verifier(threshold="cancelable-fmr-0.1%")
        faces = [
            self.mixer.protect(decoded(each), subject=asked.subject, scope=asked.scope)
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
            self._scope(token, scope, "administer")
            return await self._work(partial(_listed, keystore, scope, limit))

        @app.post("/subjects/{subject:path}/rotate", summary="Replace a subject's key.")
        async def rotate(
            subject: SubjectPath,
            asked: RotateRequest,
            token: Annotated[Token, self._needs("administer")],
            scope: ScopeQuery = "default",
        ) -> Rotated:
            self._scope(token, scope, "administer")
            how = _how(asked, token)
            return Rotated(version=(await self._work(lambda: keystore.rotate(subject, scope, **how))).version)

        @app.post("/gallery/rotate", summary="Replace the gallery key of a scope.")
        async def rotate_gallery(
            asked: RotateRequest,
            token: Annotated[Token, self._needs("administer")],
            scope: ScopeQuery = "default",
        ) -> Rotated:
            self._scope(token, scope, "administer")
            how = _how(asked, token)
            return Rotated(version=(await self._work(lambda: keystore.rotate_gallery(scope, **how))).version)

        @app.post("/subjects/{subject:path}/revoke", summary="Destroy a subject's keys, at once and for good.")
        async def revoke(
            subject: SubjectPath, token: Annotated[Token, self._needs("administer")], scope: ScopeQuery = "default"
        ) -> Revoked:
            self._scope(token, scope, "administer")
            reason = f"by token {token.id}"
            return Revoked(versions=list(await self._work(lambda: keystore.revoke(subject, scope, reason=reason))))

        @app.delete("/subjects/{subject:path}", summary="Erase all that is known of a person.")
        async def forget(
            subject: SubjectPath, token: Annotated[Token, self._needs("administer")], scope: ScopeQuery = "default"
        ) -> Forgotten:
            self._scope(token, scope, "administer")
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
            self._scope(token, scope, "administer")
            return await self._work(partial(_due, keystore, scope, self.mixer.fingerprint))

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
        async def caller(
            request: Request, shown: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
        ) -> Token:
            token = self.gateway.api_callers.of(shown.credentials if shown else "")
            request.state.token = token.id
            self.gateway.rate.take(token.id)
            if not (token.may_audit if right == "audit" else token.may(right)):
                raise ProblemError(
                    f"this token lacks the right {right}", status=403, fix="make a token with it", code="right"
                )
            return token

        return Depends(caller)

    def _scope(self, token: Token, scope: str, right: str) -> None:
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
        from anonymix_adapters.gateway.app import body_of

        given: list[Message] = []

        async def again() -> Message:
            return given.pop() if given else await receive()

        async def seen(message: Message) -> None:
            report.status = message.get("status", report.status)
            await send(message)

        request = Request(scope, receive)
        with self._gateway.room.holding() as count, self._gateway.reporting(request) as report:
            report.call = "/v1/(unknown)"
            try:
                if request.method not in {"GET", "HEAD", "OPTIONS"}:
                    self._gateway.api_callers.of(_bearer_of(request))
                if scope["path"] != f"{scope.get('root_path', '')}/protect-stream":
                    body = await body_of(request, self._gateway.limits, count)
                    given.append({"type": "http.request", "body": body, "more_body": False})
            except ClientDisconnect:
                pass
            except AnonymixError as error:
                await problem_response(error)(scope, receive, seen)
                report.problem = error.code
            else:
                await self._app(scope, again, seen)
            route, state = scope.get("route"), scope.get("state", {})
            report.call = f"/v1{route.path_format}" if isinstance(route, Route) else "/v1/(unknown)"
            report.who, report.problem = state.get("token", ""), state.get("problem", report.problem)


def _bearer_of(request: Request) -> str:
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    return secret.strip() if kind.lower() == "bearer" else ""


def _how(asked: RotateRequest, token: Token) -> dict[str, Any]:
    """What the keystore is told; "breach" is a word that it goes by, so that nothing is added to it."""
    reason = asked.reason if asked.reason == "breach" else f"{asked.reason} (token {token.id})"
    return {"reason": reason, "grace": None if asked.grace_days is None else timedelta(days=asked.grace_days)}


def _listed(keystore: Any, scope: str, limit: int) -> list[KeyEntry]:
    def told(each: Any) -> KeyEntry:
        fields = {"subject": each.subject, "scope": each.scope, "version": each.version, "created": each.created}
        return KeyEntry(state=each.state.value, **fields)

    return _all_or_told(map(told, islice(keystore.list(scope), limit)))


def _due(keystore: Any, scope: str, fingerprint: str) -> list[Due]:
    def told(each: Any) -> Due:
        return Due(**{name: getattr(each, name) for name in Due.model_fields})

    return _all_or_told(map(told, keystore.due(scope, fingerprint=fingerprint)))


def _all_or_told(rows: Iterator[Entry]) -> list[Entry]:
    """All rows.

    Raises:
        ProblemError: The keystore left some out. The others are in the error, so that no list looks whole.
    """
    found: list[Entry] = []
    try:
        found.extend(rows)
    except DamagedError as error:
        told = [each.model_dump(mode="json") for each in found]
        raise ProblemError(
            error.what, status=409, code=error.code, where=error.where, fix=error.fix, found=told
        ) from None
    return found


def _lines(keystore: Any, after: int, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for line in keystore.audit(after):
        found.append(line)
        if len(found) == limit:
            break
    return found


def _as_problem(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException):
        error = ProblemError("the request does not fit this API", status=error.status_code, fix="see openapi.json")
    request.state.problem = problem(error)["code"]
    return problem_response(error)


def _invalid(request: Request, error: Exception) -> Response:
    """A request that does not fit; its values are not repeated."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - by its registration
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if isinstance(part, str | int))
    return _as_problem(request, ProblemError(first["msg"], status=422, where=where[:100], code="invalid"))
