"""The key service as an ASGI application: one store, its clients, their rights."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from anonymix_keystore import (
    BusyError,
    DamagedError,
    EnrolmentInfo,
    InvalidRequestError,
    Keystore,
    KeystoreError,
    LockedError,
    NewEnrolment,
    RenewalInfo,
    RenewalState,
    SubjectKey,
    UnknownSubjectError,
)
from anonymix_plugin.errors import AnonymixError, ConfigurationError
from anonymix_plugin.keyservice.errors import LeaseError, NotAllowedError, RateError
from anonymix_plugin.keyservice.leases import Leases, Step
from anonymix_plugin.keyservice.roles import Peer, Right, Role, Roles
from anonymix_plugin.keyservice.wire import (
    MEDIA_TYPE,
    MOST_BYTES,
    PROBLEM_TYPE,
    enrolment_told,
    pack,
    renewal_told,
    split,
    state_of,
    state_text,
)
from anonymix_plugin.words import clean

log: Final = logging.getLogger("anonymix.keyservice")
PEER: Final = "anonymix_peer"  # where a request's state holds the client's certificate
_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)

_ROOM: Final = MOST_BYTES // 2  # for records in an answer; one more may be as large as a request
_ROWS: Final = 2_000  # looked at for one answer

Told: TypeAlias = tuple[Mapping[str, Any], bytes]


class ToldEntry(BaseModel):
    """`NewEnrolment` as a request has it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    subject: str
    scope: str
    adapter: str
    collection: str
    external_id: str
    version: int
    fingerprint: str
    gallery: bool


class ToldRenewal(BaseModel):
    """`RenewalInfo` as a request has it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    subject: str
    scope: str
    adapter: str
    collection: str
    version: int
    fingerprint: str
    state: RenewalState
    entry: str
    error: str
    what: str
    fix: str


class Ask(BaseModel):
    """What a request may say; which of it counts depends on the operation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    subject: str = ""
    scope: str = "default"
    version: int | None = None
    reason: str = Field(default="", max_length=1_024)  # it stays in the audit trail
    grace: float | None = Field(default=None, ge=0, le=1e11, allow_inf_nan=False)
    adapter: str = ""
    collection: str = ""
    external_id: str = ""
    entry: str = ""
    gallery: bool = False
    fingerprint: str = ""
    guided_fingerprint: str = ""
    beyond: str = ""
    subspace: str = ""
    replace: bool = True
    state: str = ""
    entries: tuple[ToldEntry, ...] = ()
    renewals: tuple[ToldRenewal, ...] = ()
    holder: str = Field(default="", max_length=64)
    step: Step = "begin"
    removed: tuple[str, ...] = ()
    seen: str = ""


@dataclass(frozen=True)
class _Call:
    """One request: the store, who asks, what for, and the bytes that came with it."""

    store: Keystore
    leases: Leases
    role: Role
    ask: Ask
    body: bytes

    # --- keys -------------------------------------------------------------------------------------

    def current(self) -> Told:
        return self._key(self.store.current(self.ask.subject, self.ask.scope))

    def current_or_issue(self) -> Told:
        if "enrol" in self.role.client.operations:
            return self._key(self.store.current_or_issue(self.ask.subject, self.ask.scope))
        try:
            return self.current()
        except UnknownSubjectError:
            raise self._may_not_enrol() from None

    def at(self) -> Told:
        return self._key(self.store.at(self.ask.subject, self.ask.version or 0, self.ask.scope))

    def gallery(self) -> Told:
        try:
            return self._key(self.store.gallery(self.ask.scope, issue="enrol" in self.role.client.operations))
        except UnknownSubjectError:
            raise self._may_not_enrol() from None

    def _may_not_enrol(self) -> NotAllowedError:
        return NotAllowedError(
            "there is no key yet, and this client may not enrol",
            fix='issue one by `anonymix keys issue`, or add "enrol" to the client\'s operations in the roles',
        )

    def issue(self) -> Told:
        return self._key(self.store.issue(self.ask.subject, self.ask.scope, reason=self.ask.reason))

    def rotate(self) -> Told:
        how: dict[str, Any] = {"reason": self.ask.reason or "routine", "grace": self._grace}
        return self._key(self.store.rotate(self.ask.subject, self.ask.scope, **how))

    def rotate_gallery(self) -> Told:
        how: dict[str, Any] = {"reason": self.ask.reason or "routine", "grace": self._grace}
        return self._key(self.store.rotate_gallery(self.ask.scope, **how))

    @property
    def _grace(self) -> timedelta | None:
        return None if self.ask.grace is None else timedelta(seconds=self.ask.grace)

    def revoke(self) -> Told:
        how: dict[str, Any] = {"version": self.ask.version, "reason": self.ask.reason}
        return {"versions": self.store.revoke(self.ask.subject, self.ask.scope, **how)}, b""

    def revoke_gallery(self) -> Told:
        how: dict[str, Any] = {"version": self.ask.version, "reason": self.ask.reason}
        return {"versions": self.store.revoke_gallery(self.ask.scope, **how)}, b""

    def _key(self, key: SubjectKey) -> Told:
        told = {"subject": key.subject, "scope": key.scope, "version": key.version, "state": key.state.value}
        return {"key": told, "references": self.store.references.enabled(key.scope)}, key.material

    # --- records ----------------------------------------------------------------------------------

    def record_enrolment(self) -> Told:
        ask = self.ask
        place = {"adapter": ask.adapter, "collection": ask.collection, "external_id": ask.external_id}
        self._may_touch(self.store.enrolment(**place))
        entry = self.store.record_enrolment(
            ask.subject,
            ask.scope,
            **place,
            version=ask.version or 0,
            fingerprint=ask.fingerprint,
            gallery=ask.gallery,
        )
        return {"entry": entry}, b""

    def record_enrolments(self) -> Told:
        entries = [NewEnrolment(**entry.model_dump()) for entry in self.ask.entries]
        for it in entries:
            self.role.need("records", it.scope)
            place = {"adapter": it.adapter, "collection": it.collection, "external_id": it.external_id}
            self._may_touch(self.store.enrolment(**place))
        with self._in_turn(*((it.adapter, it.collection) for it in entries)):
            return {"entries": self.store.record_enrolments(entries)}, b""

    def _may_touch(self, found: EnrolmentInfo | None) -> None:
        if found is not None and not self.role.covers(found.scope):
            raise NotAllowedError("this entry is recorded in a scope in which this client has nothing to do")

    def mark_removed(self) -> Told:
        self._may_touch(self.store.enrolment_named(self.ask.entry))
        return {"found": self.store.mark_removed(self.ask.entry)}, b""

    def enrolment(self) -> Told:
        ask = self.ask
        found = self.store.enrolment(adapter=ask.adapter, collection=ask.collection, external_id=ask.external_id)
        hidden = found is None or not self.role.covers(found.scope)
        return {"enrolment": None if found is None or hidden else enrolment_told(found)}, b""

    def enrolments(self) -> Told:
        """As many records as there is room for, and where to go on."""
        ask = self.ask
        damaged: list[DamagedError] = []
        rows = self.store.enrolments(
            ask.scope or None,
            fingerprint=ask.fingerprint or None,
            guided_fingerprint=ask.guided_fingerprint or None,
            beyond=ask.beyond,
            damaged=damaged.append,
        )
        told, body = self._as_many("enrolments", ((item.scope, item.entry, enrolment_told(item)) for item in rows))
        # Whose they are is not told: that may be nothing of this client's.
        return {**told, "damaged": bool(damaged)}, body

    def _as_many(self, what: str, rows: Iterable[tuple[str, str, dict[str, Any]]]) -> Told:
        """Of rows (scope, name, what is told of it) those that the role covers, as many as there is room for."""
        found: list[dict[str, Any]] = []
        room, last = _ROOM, ""
        for count, (scope, name, told) in enumerate(rows):
            if room < 0 or count == _ROWS:
                return {what: found, "beyond": last}, b""
            if self.role.covers(scope):
                found.append(told)
                room -= len(json.dumps(told))
            last = name
        return {what: found}, b""

    # --- renewals ---------------------------------------------------------------------------------

    def write_renewals(self) -> Told:
        renewals = [RenewalInfo(**renewal.model_dump()) for renewal in self.ask.renewals]
        for it in renewals:
            self.role.need("records", it.scope)
        for entry in self.ask.removed:
            self._may_touch(self.store.enrolment_named(entry))
        with self._in_turn(*((it.adapter, it.collection) for it in renewals)):
            self.store.write_renewals(renewals, removed=self.ask.removed)
        return {}, b""

    def renewal(self) -> Told:
        ask = self.ask
        found = self.store.renewal(ask.subject, ask.scope, adapter=ask.adapter, collection=ask.collection)
        return {"renewal": None if found is None else renewal_told(found)}, b""

    def renewals(self) -> Told:
        """As `enrolments`."""
        ask = self.ask
        damaged: list[DamagedError] = []
        how: dict[str, Any] = {"only": ask.state or None, "beyond": ask.beyond, "damaged": damaged.append}
        rows = self.store.renewals(adapter=ask.adapter, collection=ask.collection, **how)
        told, body = self._as_many("renewals", ((item.scope, item.name, renewal_told(item)) for item in rows))
        return {**told, "damaged": bool(damaged)}, body

    def lease(self) -> Told:
        """Whether the client is the one that renews a collection."""
        ask, client = self.ask, self.role.name
        place = (ask.adapter, ask.collection)
        if ask.step == "end":
            self.leases.end(place, client, ask.holder)
            return {"held": False}, b""
        return {"held": self.leases.hold(place, client, ask.holder, begin=ask.step == "begin")}, b""

    @contextmanager
    def _in_turn(self, *places: tuple[str, str]) -> Iterator[None]:
        """What a renewal writes down counts only while it has the lease, without a gap, whatever it believes."""
        if not self.ask.holder:
            yield
            return
        place = (self.ask.adapter, self.ask.collection)
        if any(other != place for other in places):
            raise InvalidRequestError("a renewal writes down what is of its own collection")
        with self.leases.holding(place, self.role.name, self.ask.holder) as held:
            if not held:
                raise LeaseError()
            yield

    # --- references -------------------------------------------------------------------------------

    def references_enabled(self) -> Told:
        return {"enabled": self.store.references.enabled(self.ask.scope)}, b""

    def keep_reference(self) -> Told:
        ask = self.ask
        key = self.store.at(ask.subject, ask.version or 0, ask.scope)
        how: dict[str, Any] = {"fingerprint": ask.fingerprint, "subspace": ask.subspace, "replace": ask.replace}
        return {"kept": self.store.references.keep(key, self.body, **how)}, b""

    def read_reference(self) -> Told:
        ask = self.ask
        key = self.store.at(ask.subject, ask.version or 0, ask.scope)
        data = self.store.references.read(key, fingerprint=ask.fingerprint, subspace=ask.subspace)
        return {"found": data is not None}, data or b""

    def state(self) -> Told:
        return {}, b""


_ANY_SCOPE: Final = {
    *("mark-removed", "enrolment", "enrolments", "state", "record-enrolments", "write-renewals", "renewals", "lease")
}
OPERATIONS: Final[Mapping[str, tuple[Right | None, Callable[[_Call], Told]]]] = {
    "current": ("read", _Call.current),
    "current-or-issue": ("read", _Call.current_or_issue),
    "at": ("read", _Call.at),
    "gallery": ("read", _Call.gallery),
    "issue": ("enrol", _Call.issue),
    "rotate": ("rotate", _Call.rotate),
    "rotate-gallery": ("rotate", _Call.rotate_gallery),
    "revoke": ("revoke", _Call.revoke),
    "revoke-gallery": ("revoke", _Call.revoke_gallery),
    "record-enrolment": ("records", _Call.record_enrolment),
    "record-enrolments": ("records", _Call.record_enrolments),
    "mark-removed": ("records", _Call.mark_removed),
    "enrolment": ("records", _Call.enrolment),
    "enrolments": ("records", _Call.enrolments),
    "write-renewals": ("records", _Call.write_renewals),
    "renewal": ("records", _Call.renewal),
    "renewals": ("records", _Call.renewals),
    "lease": ("records", _Call.lease),
    "references-enabled": ("read", _Call.references_enabled),
    "keep-reference": ("references", _Call.keep_reference),
    "read-reference": ("references", _Call.read_reference),
    "state": (None, _Call.state),
}


_TITLES: Final = {
    400: "The request is malformed",
    403: "This client may not do that",
    404: "There is no such key or operation",
    405: "There is no such method here",
    408: "The request took too long",
    409: "The keys stand against it",
    413: "The request is too large",
    422: "The request can't be understood",
    429: "This client asks too often",
    500: "Something went wrong that nobody foresaw",
    503: "The key service can't take this now",
}


class ProblemError(AnonymixError):
    """A request that is answered by a problem document before it reaches the store.

    Args:
        what: What was wrong.
        status: HTTP status.
        code: Stable name.
        fix: What to do.
    """

    def __init__(self, what: str, *, status: int, code: str, fix: str = "") -> None:
        super().__init__(what, fix=fix)
        self.status, self.code = status, code


def _status(error: Exception) -> int:  # noqa: PLR0911 - a table
    match error:
        case ProblemError():
            return error.status
        case RateError():
            return 429
        case NotAllowedError():
            return 403
        case UnknownSubjectError():
            return 404
        case InvalidRequestError():
            return 422
        case BusyError() | LockedError() | ConfigurationError():
            return 503
        case KeystoreError():
            return 409
        case _:
            return 500


def problem(error: Exception) -> dict[str, Any]:
    """The problem document (RFC 9457) of an error: no name, no path of this machine."""
    status = _status(error)
    if isinstance(error, KeystoreError | ProblemError):
        code, what, fix = error.code, clean(error.what), clean(error.fix)
    elif isinstance(error, ConfigurationError):
        code, what = "key_service", "the roles of the key service can't be read"
        fix = "look at its log, and correct the file"
    else:
        code, what, fix = "internal", f"something went wrong that nobody foresaw ({type(error).__name__})", ""
    told = {"type": f"urn:anonymix:problem:{code}", "title": _TITLES.get(status, "It was refused"), "status": status}
    return told | {"detail": what, "code": code} | ({"fix": fix} if fix else {})


class Figures:
    """Counts and times requests for Prometheus. No label comes from a request.

    Args:
        ready: Says whether the store can be read.
    """

    def __init__(self, ready: Callable[[], bool]) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "anonymix_keys_requests_total",
            "Requests by operation, client, status and problem.",
            ("operation", "client", "status", "problem"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "anonymix_keys_request_seconds",
            "Seconds from the first byte of a request to its answer.",
            ("operation",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        gauge = Gauge("anonymix_keys_ready", "Whether the store can be read, 1 or 0.", registry=self.registry)
        gauge.set_function(lambda: float(ready()))

    def request(self, operation: str, client: str, status: int, problem: str, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(operation, client, str(status), problem).inc()
        self._seconds.labels(operation).observe(seconds)


class KeyService:
    """Gives the keys of a store to clients that showed a certificate.

    Args:
        store: The store; open it without a cache, so that what other processes revoke counts at once.
        roles: Who may do what.
        threads: Requests worked on at once.
        waiting: Requests that may wait besides.
        seconds: Until a body must have arrived.
    """

    def __init__(
        self, store: Keystore, roles: Roles, *, threads: int = 4, waiting: int = 64, seconds: float = 2.0
    ) -> None:
        self._store, self._roles, self._patience = store, roles, seconds
        self._leases = Leases(store.path)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="anonymix-keys")
        self._most, self._inside = threads + waiting, 0
        self.figures = Figures(self.ready)
        self.app = Starlette(
            routes=[
                Route("/livez", self._live),
                Route("/readyz", self._readiness),
                Route("/v1/{operation}", self._asked, methods=["POST"]),
            ],
            lifespan=self._life,
            exception_handlers={HTTPException: self._no_route},
        )

    @asynccontextmanager
    async def _life(self, _: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(self._pool.shutdown, wait=True)
        self._leases.close()

    def ready(self) -> bool:
        """Whether the store and the roles can be read."""
        try:
            self._store.anchor_state()
            self._roles.clients()
        except (KeystoreError, ConfigurationError):
            return False
        return True

    async def _live(self, _: Request) -> Response:
        return Response('{"status": "live"}', media_type="application/json")

    async def _readiness(self, _: Request) -> Response:
        ready = await asyncio.get_running_loop().run_in_executor(self._pool, self.ready)
        text = '{"status": "ready"}' if ready else '{"status": "not ready"}'
        return Response(text, 200 if ready else 503, media_type="application/json")

    async def _no_route(self, _: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        return self._problem(ProblemError("there is no such route or method", status=status, code="unknown_route"))

    async def _asked(self, request: Request) -> Response:
        start, client, code = time.monotonic(), "", ""
        operation = request.path_params["operation"]
        operation = operation if operation in OPERATIONS else "unknown"
        try:
            role = self._role(request)
            client = role.name
            if operation == "unknown":
                raise ProblemError("there is no such operation", status=404, code="unknown_route")
            if self._inside >= self._most:
                raise ProblemError(
                    "too many requests wait already", status=503, code="busy", fix="ask again in a second"
                )
            self._inside += 1
            try:
                message = await self._body(request)
                loop = asyncio.get_running_loop()
                answer = await loop.run_in_executor(self._pool, self._answer, operation, role, message)
            finally:
                self._inside -= 1
            response = Response(answer, 200, {"cache-control": "no-store"}, MEDIA_TYPE)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:  # noqa: BLE001 - every error becomes a problem document
            response, code = self._problem(error), problem(error)["code"]
            if isinstance(error, ConfigurationError):
                log.error(json.dumps({"event": "configuration", "what": error.what, "where": error.where}))
        seconds = time.monotonic() - start
        self.figures.request(operation, client, response.status_code, code, seconds)
        line = {"event": "request", "operation": operation, "client": client, "status": response.status_code}
        log.info(json.dumps(line | {"ms": round(seconds * 1000, 1)} | ({"problem": code} if code else {})))
        return response

    def _role(self, request: Request) -> Role:
        peer = getattr(request.state, PEER, None)
        if not isinstance(peer, Peer):
            raise NotAllowedError("no certificate was shown that can be read", fix="use one of X.509, version 3")
        return self._roles.of(peer)

    async def _body(self, request: Request) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self._patience):
                async for chunk in request.stream():
                    body += chunk
                    if len(body) > MOST_BYTES:
                        raise ProblemError(f"a request has at most {MOST_BYTES} bytes", status=413, code="too_large")
        except TimeoutError:
            raise ProblemError("the body did not arrive in time", status=408, code="slow") from None
        return bytes(body)

    def _answer(self, operation: str, role: Role, message: bytes) -> bytes:
        head, body = split(message)
        try:
            ask = Ask.model_validate_json(head)
            seen = state_of(ask.seen) if ask.seen else None
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = str(first["loc"][0]) if first["loc"] and first["loc"][0] in Ask.model_fields else "the request"
            raise InvalidRequestError(f"{place} is not what the operation takes") from None
        except ValueError:
            raise InvalidRequestError("seen is no state of a store") from None
        right, call = OPERATIONS[operation]
        if right is not None:
            role.need(right, None if operation in _ANY_SCOPE else ask.scope)
        if seen is not None:
            self._store.check_state(seen)
        with self._store.acting_for(role.actor):
            told, data = call(_Call(self._store, self._leases, role, ask, bytes(body)))
        return pack({**told, "state": state_text(self._store.anchor_state())}, data)

    @staticmethod
    def _problem(error: Exception) -> Response:
        document = problem(error)
        headers = {"cache-control": "no-store"}
        if document["status"] in {429, 503}:
            headers["retry-after"] = "1"
        if document["status"] in {408, 413}:  # the rest of the body is not waited for
            headers["connection"] = "close"
        return Response(json.dumps(document), document["status"], headers, PROBLEM_TYPE)
